//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

//go:generate go run -C _asm ./integer -out integer_amd64.s -stubs integer_stubs_amd64.go -pkg kernel

// supportedDots lists the ways to multiply bytes that the machine has.
func supportedDots() []dotPath {
	dots := []dotPath{dotPortable}
	x := &cpu.X86
	if supported() >= avx2 {
		dots = append(dots, dotAVX2)
		if x.HasAVXVNNI {
			dots = append(dots, dotVNNI256)
		}
	}
	if supported() == avx512 && x.HasAVX512VNNI {
		dots = append(dots, dotVNNI512)
	}
	return dots
}

// simd is run in assembly; it reports whether the weights' path has any.
func (t *dotTile) simd(w *ByteWeights, sums *int32, x *uint8, start *int32, step int) bool {
	switch w.path {
	case dotVNNI512:
		dotsVNNI512(sums, x, &w.packed[step*Lanes*4], start, t)
	case dotVNNI256:
		dotsVNNI256(sums, x, &w.packed[step*Lanes*4], start, t)
	case dotAVX2:
		dotsAVX2(sums, x, &w.pairs[step*Lanes*4], start, t)
	}
	return w.path != dotPortable
}

// narrow is a requantization to bytes in assembly; it reports whether the live path has any.
func (q *requantization) narrow(out *uint8, r *Requantizer) bool {
	switch live {
	case avx512:
		requantizeNarrowAVX512(out, &r.numbers[0], q)
	case avx2:
		requantizeNarrowAVX2(out, &r.numbers[0], q)
	}
	return live != portable
}

// wide is a requantization to int32 in assembly; it reports whether the live path has any.
func (q *requantization) wide(out *int32, r *Requantizer) bool {
	switch live {
	case avx512:
		requantizeWideAVX512(out, &r.numbers[0], q)
	case avx2:
		requantizeWideAVX2(out, &r.numbers[0], q)
	}
	return live != portable
}

// spanSIMD is BlockRequantizer.Span in assembly; it reports whether the live path has any.
func (l *blockLimits) spanSIMD(numbers []int64, y []float32, x [][]float32, from, to int) bool {
	switch live {
	case avx512:
		requantizeBlocksAVX512(&y[0], &x[0], len(x), from, to, &numbers[0], l)
	case avx2:
		requantizeBlocksAVX2(&y[0], &x[0], len(x), from, to, &numbers[0], l)
	}
	return live != portable
}

// largestSIMD is LargestBytes of the first elements; it returns how many.
func largestSIMD(y, x []uint8) int {
	n := len(y) / 32 * 32
	if live == portable || n == 0 {
		return 0
	}
	largestAVX2(&y[0], &x[0], n)
	return n
}
