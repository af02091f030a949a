//go:build !amd64 || purego

package kernel

func (t *winogradInput) simd(v, x, zeros *float32) bool { return false }

func (t *winogradOutput) simd(y, m *float32) bool { return false }
