package kernel

import (
	"math"
	"math/bits"
)

// Steps is a staircase: the level of x is levels[i], i being the number of bounds below x. NaN stays NaN.
// It must not change while it is in use.
type Steps struct {
	tree []float32 // of 2·leaves: the bounds as a search tree, then the levels. Assembly walks it like level.
	// leaves is a power of two, at least minLeaves. Each step down the tree, the deepest of which ends at a level, is one
	// bit of the place within the next rank of nodes, low bits first: so a place never changes but for the bit that is added.
	leaves  int
	octaves *octaves // a quicker way to the same levels; nil for none
}

// minLeaves is the fewest leaves of a search tree: the ranks before them fit in one vector.
const minLeaves = 16

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
	s.octaves = nil
	depth := max(bits.Len(uint(len(bounds))), bits.Len(minLeaves-1))
	s.leaves = 1 << depth
	if cap(s.tree) < 2*s.leaves {
		s.tree = make([]float32, 2*s.leaves)
	}
	s.tree = s.tree[:2*s.leaves]
	for d := range depth {
		nodes, distance := s.tree[1<<d:2<<d], s.leaves>>d
		for j := range nodes {
			nodes[j] = boundOr(bounds, mirror(j, d)*distance+distance/2-1)
		}
	}
	leaves := s.tree[s.leaves:]
	for j := range leaves {
		leaves[j] = levels[min(mirror(j, depth), len(levels)-1)]
	}
}

// mirror reverses the order of the low n bits of j, which has no others.
func mirror(j, n int) int { return int(bits.Reverse32(uint32(j)) >> (32 - n)) }

// boundOr returns a bound, +0 for -0, or behind the last one what nothing exceeds.
func boundOr(bounds []float32, i int) float32 {
	if i < len(bounds) {
		return bounds[i] + 0
	}
	return float32(math.Inf(1))
}

// Level returns the level of x.
func (s *Steps) Level(x float32) float32 {
	if x != x {
		return x
	}
	return s.level(x)
}

// level is Level of a number. It compares integers, because the compiler makes of a comparison of floats a branch that is
// mispredicted or a wait for the element before.
func (s *Steps) level(x float32) float32 {
	at, order, tree, leaves := 0, ordered(x+0), s.tree, s.leaves // +0 for -0
	for rank := 1; rank < leaves; rank *= 2 {
		at += rank & int((ordered(tree[rank+at])-order)>>63) // all bits or none
	}
	return tree[leaves+at]
}

// ordered is an integer that is as much less or greater than another's as the number is, -0 below +0.
func ordered(x float32) int64 {
	v := int32(math.Float32bits(x))
	return int64(v ^ int32(uint32(v>>31)>>1))
}

// Levels computes the level of every element; y may be x.
func (s *Steps) Levels(y, x []float32) {
	if len(x) <= chunk {
		s.levels(y, x)
		return
	}
	chunks(len(x), func(from, to int) { s.levels(y[from:to], x[from:to]) })
}

func (s *Steps) levels(y, x []float32) {
	y = y[:len(x)]
	for i := s.levelsSIMD(y, x); i < len(x); i++ {
		y[i] = s.Level(x[i])
	}
}

// Bytes computes the low byte of the level of every element. Elements are rounded to float32, which is exact up to 2^24 in
// magnitude; levels are integers of int32.
func (s *Steps) Bytes(y []uint8, x []int32) {
	if len(x) <= chunk {
		s.bytes(y, x)
		return
	}
	chunks(len(x), func(from, to int) { s.bytes(y[from:to], x[from:to]) })
}

func (s *Steps) bytes(y []uint8, x []int32) {
	y = y[:len(x)]
	for i := s.bytesSIMD(y, x); i < len(x); i++ {
		y[i] = uint8(int32(s.level(float32(x[i]))))
	}
}
