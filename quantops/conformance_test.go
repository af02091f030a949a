package quantops

import "github.com/goqat/goqat/internal/random"

// noise returns n normally distributed numbers.
func noise(n int, seed uint64) []float32 {
	s := random.New(seed, "test")
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(s.Normal())
	}
	return x
}
