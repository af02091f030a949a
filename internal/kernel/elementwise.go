package kernel

import "sync/atomic"

// chunk is how many elements of an elementwise loop one task takes; sums add up chunk by chunk, so it is part of the
// documented order of arithmetic.
const chunk = 4096

// chunks runs do over the pieces of n elements in parallel.
func chunks(n int, do func(from, to int)) {
	Parallel(ceil(n, chunk), func(i int) { do(i*chunk, min(n, (i+1)*chunk)) })
}

// ReLU computes y = max(x, 0). NaN stays NaN, so that it is noticed.
func ReLU(y, x []float32) {
	y = y[:len(x)]
	chunks(len(x), func(from, to int) {
		for i := from + reluSIMD(y[from:to], x[from:to]); i < to; i++ {
			v := x[i]
			if v < 0 {
				v = 0
			}
			y[i] = v
		}
	})
}

// ReLUGradient computes dx = dy where x > 0, else 0.
func ReLUGradient(dx, dy, x []float32) {
	dx, dy = dx[:len(x)], dy[:len(x)]
	chunks(len(x), func(from, to int) {
		for i := from + reluGradientSIMD(dx[from:to], dy[from:to], x[from:to]); i < to; i++ {
			v := float32(0)
			if x[i] > 0 {
				v = dy[i]
			}
			dx[i] = v
		}
	})
}

// Finite says whether no element is NaN or infinite.
func Finite(x []float32) bool {
	var failed atomic.Bool
	chunks(len(x), func(from, to int) {
		if !finite(x[from:to]) {
			failed.Store(true)
		}
	})
	return !failed.Load()
}

func finite(x []float32) bool {
	n, ok := finiteSIMD(x)
	for _, v := range x[n:] {
		ok = ok && v-v == 0
	}
	return ok
}
