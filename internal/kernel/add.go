package kernel

import (
	"fmt"
	"slices"
)

// Add computes y = ((x0 + x1) + x2) + …, element by element; y may be one of them.
func Add(y []float32, x ...[]float32) {
	for _, term := range x {
		if len(term) < len(y) { // assembly does not look
			panic(fmt.Sprintf("kernel: Add: a term has %d elements, want %d", len(term), len(y)))
		}
	}
	if len(y) <= chunk {
		add(y, x, 0, len(y))
		return
	}
	terms := slices.Clone(x) // the caller's list may stay on its stack
	chunks(len(y), func(from, to int) { add(y, terms, from, to) })
}

// add is Add of the elements between from and to.
func add(y []float32, x [][]float32, from, to int) {
	for i := from + addSIMD(y, x, from, to); i < to; i++ {
		sum := x[0][i]
		for _, term := range x[1:] {
			sum += term[i]
		}
		y[i] = sum
	}
}
