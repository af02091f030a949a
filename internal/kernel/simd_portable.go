//go:build !amd64 || purego

package kernel

// On this build the portable path is the only one: no function here does anything, and each says so.

func supported() path { return portable }

func (t *tile) simd(y, x, w *float32) bool { return false }

func (t *outer) simd(sums, dy, x *float32) bool { return false }

func (s *outerSums) simd(totals *outerTotals) bool { return false }

func outputs3x3(outputs int) int { return 0 }

func (t *gradient3x3) run(sums *gradient3x3Sums, dy, x *float32) {}

func (t *depthwise) run(y, x *float32) {}

func (s *gradient3x3Sums) halve(totals *gradient3x3Totals, outputs int) {}

func probe(rounds int) bool { return false }

func reluSIMD(y, x []float32) int { return 0 }

func reluGradientSIMD(dx, dy, x []float32) int { return 0 }

func (q *rounding) levelsSIMD(y, x []float32) int { return 0 }

func (q *rounding) gradientSIMD(dx, dy, x []float32) int { return 0 }

func (q *rounding) stepSIMD(lanes *[Lanes]float64, dx, levels, dy, x []float32, exact bool) int {
	return 0
}

func (s *Steps) levelsSIMD(y, x []float32) int { return 0 }

func (s *Steps) bytesSIMD(y []uint8, x []int32) int { return 0 }

func (c *Clip) gradientSIMD(lanes *[Lanes]float64, dx, levels, dy, x []float32) int { return 0 }

func laneSumsSIMD(lanes *[Lanes]float32, x []float32, n, step int) bool { return false }

func (e *extremes) scanSIMD(x []float32) int { return 0 }

func (s *poolSpan) maxSIMD(y *float32, tap *uint16, x *float32) bool { return false }

func (s *poolSpan) maxGradientSIMD(dx, dy *float32, tap *uint16) bool { return false }

func (s *poolSpan) averageSIMD(y, x *float32, divisor float32) bool { return false }

func (s *poolSpan) averageGradientSIMD(dx, dy *float32, divisor float32) bool { return false }

func affineReLUSIMD(y, x, term []float32, scale, offset float32) int { return 0 }

func affineReLUGradientSIMD(sum, product *[Lanes]float32, dx, dy, term, z, x []float32, mean float32) int {
	return 0
}

func affineReLUBackwardSIMD(sum, product *[Lanes]float32, dx, dy, x []float32, scale, offset, mean float32) int {
	return 0
}

func addSIMD(y []float32, x [][]float32, from, to int) int { return 0 }

func finiteSIMD(x []float32) (n int, ok bool) { return 0, true }

func absolutesSIMD(lanes *[Lanes]float64, x []float32) int { return 0 }

func affineSIMD(y, x []float32, scale, offset float32) int { return 0 }

func inputGradientSIMD(dx, dy, x []float32, scale, slope, offset float32) int { return 0 }

func sumSquaresSIMD(sum, squares *[Lanes]float32, x []float32, origin float32) int { return 0 }

func sumProductsSIMD(sum, product *[Lanes]float32, dy, x []float32, mean float32) int { return 0 }

func (r *Relaxation) softSIMD(y, a []float32) int { return 0 }

func (r *Relaxation) gradientSIMD(da, dy, a []float32) int { return 0 }

func (r *Relaxation) hardSIMD(y, a []float32) int { return 0 }
