package kernel

import "sync"

// stock keeps what tasks work in for reuse, as many as threads have asked for at a time: once they have their size, a step
// allocates nothing. They keep the size of the largest layer so far and stay, for the next step or network.
type stock[T any] struct {
	sync.Mutex
	free []*T
}

func (s *stock[T]) get() *T {
	s.Lock()
	defer s.Unlock()
	last := len(s.free) - 1
	if last < 0 {
		return new(T)
	}
	v := s.free[last]
	s.free = s.free[:last]
	return v
}

func (s *stock[T]) put(v *T) {
	s.Lock()
	defer s.Unlock()
	s.free = append(s.free, v)
}
