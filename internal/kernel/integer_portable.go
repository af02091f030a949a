//go:build !amd64 || purego

package kernel

// On this build the portable path is the only one: no function here does anything, and each says so.

func supportedDots() []dotPath { return []dotPath{dotPortable} }

func (t *dotTile) simd(w *ByteWeights, sums *int32, x *uint8, start *int32, step int) bool {
	return false
}

func (q *requantization) narrow(out *uint8, r *Requantizer) bool { return false }

func (q *requantization) wide(out *int32, r *Requantizer) bool { return false }

func (l *blockLimits) spanSIMD(numbers []int64, y []float32, x [][]float32, from, to int) bool {
	return false
}

func largestSIMD(y, x []uint8) int { return 0 }
