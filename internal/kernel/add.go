package kernel

// Add computes y = ((x0 + x1) + x2) + …, element by element; y may be one of them.
func Add(y []float32, x ...[]float32) {
	chunks(len(y), func(from, to int) {
		for i := from; i < to; i++ {
			sum := x[0][i]
			for _, term := range x[1:] {
				sum += term[i]
			}
			y[i] = sum
		}
	})
}
