package kernel

import "sort"

// Steps is a staircase: the level of x is Levels[i], i being the number of Bounds below x. NaN stays NaN.
// It must not change while it is in use.
type Steps struct{ bounds, levels []float32 }

// NewSteps makes a staircase of len(levels)-1 ascending bounds.
func NewSteps(bounds, levels []float32) *Steps {
	s := &Steps{}
	s.Set(bounds, levels)
	return s
}

// Set makes s another staircase, in the memory that it has where that suffices.
func (s *Steps) Set(bounds, levels []float32) {
	if len(bounds) != len(levels)-1 {
		panic("kernel: a staircase has one bound less than levels")
	}
	s.bounds, s.levels = append(s.bounds[:0], bounds...), append(s.levels[:0], levels...)
}

// Level returns the level of x.
func (s *Steps) Level(x float32) float32 {
	if x != x {
		return x
	}
	return s.levels[sort.Search(len(s.bounds), func(i int) bool { return !(s.bounds[i] < x) })]
}

// Levels computes the level of every element; y may be x.
func (s *Steps) Levels(y, x []float32) {
	chunks(len(x), func(from, to int) {
		for i := from; i < to; i++ {
			y[i] = s.Level(x[i])
		}
	})
}
