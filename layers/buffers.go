package layers

import (
	"runtime"
	"sync"

	"github.com/goqat/goqat/internal/kernel"
)

// buffers are scratch memory of tasks, kept for reuse: a step allocates nothing once they have their size.
var buffers scratch

// scratch is a stock of buffers, as many of each size as threads have asked for. They stay for the next step, or network.
type scratch struct {
	sync.Mutex
	free [][]float32
}

// reserve sees to it that as many buffers of n elements are free as there are threads for the tasks: which threads come
// to work at a time differs from step to step.
func (s *scratch) reserve(n, tasks int) {
	s.Lock()
	defer s.Unlock()
	missing := min(tasks, runtime.GOMAXPROCS(0))
	for _, b := range s.free {
		if cap(b) >= n {
			missing--
		}
	}
	for range missing {
		s.free = append(s.free, kernel.Allocate(n))
	}
}

// get returns a buffer of n elements that hold anything.
func (s *scratch) get(n int) []float32 {
	s.Lock()
	defer s.Unlock()
	best := -1
	for i, b := range s.free {
		if cap(b) >= n && (best < 0 || cap(b) < cap(s.free[best])) {
			best = i
		}
	}
	if best < 0 {
		return kernel.Allocate(n)
	}
	b := s.free[best]
	last := len(s.free) - 1
	s.free[best] = s.free[last]
	s.free = s.free[:last]
	return b[:n]
}

func (s *scratch) put(b []float32) {
	s.Lock()
	defer s.Unlock()
	s.free = append(s.free, b)
}
