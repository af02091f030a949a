package kernel

import "fmt"

// Add computes y = ((x0 + x1) + x2) + …, element by element; y may be one of them.
func Add(y []float32, x ...[]float32) {
	for _, term := range x {
		if len(term) < len(y) { // assembly does not look
			panic(fmt.Sprintf("kernel: Add: a term has %d elements, want %d", len(term), len(y)))
		}
	}
	chunks(len(y), func(from, to int) {
		for i := from + addSIMD(y, x, from, to); i < to; i++ {
			sum := x[0][i]
			for _, term := range x[1:] {
				sum += term[i]
			}
			y[i] = sum
		}
	})
}
