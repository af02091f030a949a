//go:build !purego

package kernel

// simd is run in assembly; it reports whether the live path has any.
func (t *winogradInput) simd(v, x, zeros *float32) bool {
	switch live {
	case avx512:
		winogradInputAVX512(v, x, zeros, t)
	case avx2:
		winogradInputAVX2(v, x, zeros, t)
	}
	return live != portable
}

// simd is run in assembly; it reports whether the live path has any.
func (t *winogradOutput) simd(y, m *float32) bool {
	switch live {
	case avx512:
		winogradOutputAVX512(y, m, t)
	case avx2:
		winogradOutputAVX2(y, m, t)
	}
	return live != portable
}
