//go:build !purego

package kernel

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

//go:generate go run -C _asm . -out kernel_amd64.s -stubs stubs_amd64.go -pkg kernel

// supported is the best path that the machine has.
func supported() path {
	switch x := &cpu.X86; {
	case x.HasAVX512F && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX2 && x.HasFMA:
		return avx512
	case x.HasAVX2 && x.HasFMA:
		return avx2
	}
	return portable
}

// The AVX2 kernels hold half as many pixels or streams, of half as many lanes.
const tilePixelsAVX2 = 3

// simd is run in assembly; it reports whether the live path has any.
func (t *tile) simd(y, x, w *float32) bool {
	switch live {
	case avx512:
		tileAVX512(y, x, w, t)
	case avx2:
		pieces(t.pixels, func(from, n, half int) { tileAVX2(y, x, w, t, from, n, half) })
	}
	return live != portable
}

// simd is run in assembly; it reports whether the live path has any.
func (t *outer) simd(sums, dy, x *float32) bool {
	switch live {
	case avx512:
		outerAVX512(sums, dy, x, t)
	case avx2:
		pieces(t.streams, func(from, n, half int) { outerAVX2(sums, dy, x, t, from, n, half) })
	}
	return live != portable
}

// pieces splits n pixels or streams of sixteen lanes for the AVX2 kernels.
func pieces(n int, do func(from, n, half int)) {
	for i := range ceil(n, tilePixelsAVX2) {
		from, size := part(n, ceil(n, tilePixelsAVX2), i)
		do(from, size, 0)
		do(from, size, 1)
	}
}

// simd is halving in assembly; it reports whether the live path has any.
func (s *outerSums) simd(totals *outerTotals) bool {
	if live != portable {
		halveGroups(&totals[0], &s[0], len(totals)/8)
	}
	return live != portable
}

// outputs3x3 is how many of a group's output channels the live path's gradient3x3 takes at a time, 0 where another
// kernel is better. AVX2 has registers for one.
func outputs3x3(outputs int) int {
	switch {
	case live == avx512:
		return gradient3x3Outputs
	case live == avx2 && outputs == 1:
		return 1
	}
	return 0
}

// run adds the products of dy and x to sums, or sets sums to them, as t.resume says. Dy points at the first output row
// of the band in the tile's first output channel, x at the tile's input channel.
func (t *gradient3x3) run(sums *gradient3x3Sums, dy, x *float32) {
	if live == avx512 {
		gradient3x3AVX512(&sums[0], dy, x, t)
		return
	}
	gradient3x3AVX2(&sums[0], dy, x, t, 0)
	gradient3x3AVX2(&sums[0], dy, x, t, 1)
}

// run computes y from x, which point at the first vectors of their planes.
func (t *depthwise) run(y, x *float32) {
	if live == avx512 {
		depthwiseAVX512(y, x, t)
		return
	}
	depthwiseAVX2(y, x, t, 0)
	depthwiseAVX2(y, x, t, 1)
}

// halve adds up the lanes of every sum of the first outputs channels and adds that to its total.
func (s *gradient3x3Sums) halve(totals *gradient3x3Totals, outputs int) {
	halveGroups(&totals[0], &s[0], ceil(9*outputs, 8))
}

// probe is Probe in assembly; it reports whether the live path has any.
func probe(rounds int) bool {
	switch live {
	case avx512:
		probeAVX512(rounds)
	case avx2:
		probeAVX2(2 * rounds)
	}
	return live != portable
}

// vectors is how many of n elements the live path's elementwise assembly does, whole vectors; Go does the rest.
func vectors(n int) int {
	if live == portable {
		return 0
	}
	return n / Lanes * Lanes
}

func reluSIMD(y, x []float32) int {
	n := vectors(len(x))
	if n > 0 {
		reluAVX2(&y[0], &x[0], n)
	}
	return n
}

func reluGradientSIMD(dx, dy, x []float32) int {
	n := vectors(len(x))
	if n > 0 {
		reluGradientAVX2(&dx[0], &dy[0], &x[0], n)
	}
	return n
}

func (q *rounding) levelsSIMD(y, x []float32) int {
	n := vectors(len(x))
	if n > 0 {
		levelsAVX2(&y[0], &x[0], n, q)
	}
	return n
}

func (q *rounding) gradientSIMD(dx, dy, x []float32) int {
	n := vectors(len(x))
	if n > 0 {
		gradientAVX2(&dx[0], &dy[0], &x[0], n, q)
	}
	return n
}

func (q *rounding) stepSIMD(lanes *[Lanes]float64, dx, levels, dy, x []float32, exact bool) int {
	n, test := vectors(len(x)), 0
	if exact {
		test = 1
	}
	if n > 0 {
		stepAVX2(&lanes[0], &dx[0], &dy[0], &x[0], n, q, test, unsafe.SliceData(levels))
	}
	return n
}

func (s *Steps) levelsSIMD(y, x []float32) int {
	n := vectors(len(x))
	switch {
	case n == 0:
	case live == avx512 && s.octaves != nil:
		octavesAVX512(&y[0], &x[0], n, s.octaves)
	case live == avx512:
		stepLevelsAVX512(&y[0], &x[0], n, &s.tree[0], s.leaves)
	default:
		stepLevelsAVX2(&y[0], &x[0], n, &s.tree[0], s.leaves)
	}
	return n
}

func (s *Steps) bytesSIMD(y []uint8, x []int32) int {
	n := vectors(len(x))
	switch {
	case n == 0:
	case live == avx512:
		stepBytesAVX512(&y[0], &x[0], n, &s.tree[0], s.leaves)
	default:
		stepBytesAVX2(&y[0], &x[0], n, &s.tree[0], s.leaves)
	}
	return n
}

func (c *Clip) gradientSIMD(lanes *[Lanes]float64, dx, levels, dy, x []float32) int {
	n, inner := vectors(len(x)), 0
	if c.Inner {
		inner = 1
	}
	if n > 0 {
		clipAVX2(&lanes[0], &dx[0], &dy[0], &x[0], n, c, inner, &levels[0])
	}
	return n
}

func laneSumsSIMD(lanes *[Lanes]float32, x []float32, n, step int) bool {
	if live == portable {
		return false
	}
	laneSumsAVX2(&lanes[0], &x[0], n, step)
	return true
}

func (e *extremes) scanSIMD(x []float32) int {
	n := vectors(len(x))
	if n > 0 {
		scanAVX2(e, &x[0], n)
	}
	return n
}

func (s *poolSpan) maxSIMD(y *float32, tap *uint16, x *float32) bool {
	if live == portable {
		return false
	}
	maxAVX2(y, tap, x, s)
	return true
}

func (s *poolSpan) maxGradientSIMD(dx, dy *float32, tap *uint16) bool {
	if live == portable {
		return false
	}
	maxGradientAVX2(dx, dy, tap, s)
	return true
}

func (s *poolSpan) averageSIMD(y, x *float32, divisor float32) bool {
	if live == portable {
		return false
	}
	averageAVX2(y, x, s, divisor)
	return true
}

func (s *poolSpan) averageGradientSIMD(dx, dy *float32, divisor float32) bool {
	if live == portable {
		return false
	}
	averageGradientAVX2(dx, dy, s, divisor)
	return true
}

func addSIMD(y []float32, x [][]float32, from, to int) int {
	n := vectors(to - from)
	if n > 0 {
		addAVX2(&y[0], &x[0], len(x), n, from)
	}
	return n
}

func finiteSIMD(x []float32) (n int, ok bool) {
	n = vectors(len(x))
	return n, n == 0 || finiteAVX2(&x[0], n)
}

func absolutesSIMD(lanes *[Lanes]float64, x []float32) int {
	n := vectors(len(x))
	if n > 0 {
		absolutesAVX2(&lanes[0], &x[0], n)
	}
	return n
}

func affineSIMD(y, x []float32, scale, offset float32) int {
	n := vectors(len(x))
	if n > 0 {
		affineAVX2(&y[0], &x[0], n, scale, offset)
	}
	return n
}

func inputGradientSIMD(dx, dy, x []float32, scale, slope, offset float32) int {
	n := vectors(len(x))
	if n > 0 {
		inputGradientAVX2(&dx[0], &dy[0], &x[0], n, scale, slope, offset)
	}
	return n
}

func sumSquaresSIMD(sum, squares *[Lanes]float32, x []float32, origin float32) int {
	n := vectors(len(x))
	if n > 0 {
		sumSquaresAVX2(&sum[0], &squares[0], &x[0], n, origin)
	}
	return n
}

func sumProductsSIMD(sum, product *[Lanes]float32, dy, x []float32, mean float32) int {
	n := vectors(len(x))
	if n > 0 {
		sumProductsAVX2(&sum[0], &product[0], &dy[0], &x[0], n, mean)
	}
	return n
}

func affineReLUSIMD(y, x, term []float32, scale, offset float32) int {
	n := vectors(len(x))
	switch {
	case n == 0:
	case term == nil:
		affineReLUAVX2(&y[0], &x[0], n, scale, offset)
	default:
		affineReLUSumAVX2(&y[0], &x[0], &term[0], n, scale, offset)
	}
	return n
}

func affineReLUGradientSIMD(sum, product *[Lanes]float32, dx, dy, term, z, x []float32, mean float32) int {
	n := vectors(len(x))
	switch {
	case n == 0:
	case term == nil:
		affineReLUGradientAVX2(&sum[0], &product[0], &dx[0], &dy[0], &z[0], &x[0], n, mean)
	default:
		affineReLUGradientSumAVX2(&sum[0], &product[0], &dx[0], &dy[0], &z[0], &x[0], &term[0], n, mean)
	}
	return n
}

func affineReLUBackwardSIMD(sum, product *[Lanes]float32, dx, dy, x []float32, scale, offset, mean float32) int {
	n := vectors(len(x))
	if n > 0 {
		affineReLUBackwardAVX2(&sum[0], &product[0], &dx[0], &dy[0], &x[0], n, scale, offset, mean)
	}
	return n
}

func (r *Relaxation) softSIMD(y, a []float32) int {
	n := vectors(len(y))
	if n > 0 {
		softAVX2(&y[0], &a[0], n, r)
	}
	return n
}

func (r *Relaxation) gradientSIMD(da, dy, a []float32) int {
	n := vectors(len(dy))
	if n > 0 {
		softGradientAVX2(&da[0], &dy[0], &a[0], n, r)
	}
	return n
}

func (r *Relaxation) hardSIMD(y, a []float32) int {
	n := vectors(len(y))
	if n > 0 {
		hardAVX2(&y[0], &a[0], n, r)
	}
	return n
}
