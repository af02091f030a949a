package kernel

import "sync/atomic"

// Chunk is how many elements of an elementwise loop one task takes; sums add up chunk by chunk, so it is part of the
// documented order of arithmetic. A call for no more elements than that runs on the calling thread and allocates nothing.
const Chunk = 4096

const chunk = Chunk

// chunks runs do over the pieces of n elements in parallel. Functions that are also called for single pieces, from
// tasks, come around it there: what they hand to it is allocated anew each time.
func chunks(n int, do func(from, to int)) {
	Parallel(ceil(n, chunk), func(i int) { do(i*chunk, min(n, (i+1)*chunk)) })
}

// ReLU computes y = max(x, 0). NaN stays NaN, so that it is noticed.
func ReLU(y, x []float32) {
	if len(x) <= chunk {
		relu(y, x)
		return
	}
	chunks(len(x), func(from, to int) { relu(y[from:to], x[from:to]) })
}

func relu(y, x []float32) {
	y = y[:len(x)]
	for i := reluSIMD(y, x); i < len(x); i++ {
		v := x[i]
		if v < 0 {
			v = 0
		}
		y[i] = v
	}
}

// ReLUGradient computes dx = dy where x > 0, else 0.
func ReLUGradient(dx, dy, x []float32) {
	if len(x) <= chunk {
		reluGradient(dx, dy, x)
		return
	}
	chunks(len(x), func(from, to int) { reluGradient(dx[from:to], dy[from:to], x[from:to]) })
}

func reluGradient(dx, dy, x []float32) {
	dx, dy = dx[:len(x)], dy[:len(x)]
	for i := reluGradientSIMD(dx, dy, x); i < len(x); i++ {
		v := float32(0)
		if x[i] > 0 {
			v = dy[i]
		}
		dx[i] = v
	}
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
