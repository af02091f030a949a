package quantops

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

// axisFirst returns x, of a shape, with one axis moved to the front: [shape[axis]][the rest]. A negative axis keeps x.
func axisFirst[T any](x []T, shape []int, axis int) []T {
	if axis < 0 {
		return x
	}
	inner := 1
	for _, n := range shape[axis+1:] {
		inner *= n
	}
	channels := shape[axis]
	moved := make([]T, 0, len(x))
	for c := range channels {
		for outer := 0; outer < len(x); outer += channels * inner {
			moved = append(moved, x[outer+c*inner:outer+(c+1)*inner]...)
		}
	}
	return moved
}

// vectors reads a case's tensors with the channels' axis in front.
type vectors struct {
	golden.Case
	axis, channels int
}

// newVectors takes the axis from the parameter of that name; -1 is one channel for the whole tensor.
func newVectors(c golden.Case, axis int) vectors {
	v := vectors{Case: c, axis: axis, channels: 1}
	if axis >= 0 {
		v.channels = c.Shape("x")[axis]
	}
	return v
}

func (v vectors) floats(name string) []float32 {
	return axisFirst(v.Float32(name), v.Shape(name), v.axis)
}

func (v vectors) integers(name string) []int64 {
	return axisFirst(v.Integers(name), v.Shape(name), v.axis)
}

// requireLevels checks codes, which are levels plus zero points, exactly, but for one code where the vectors mark a
// near tie.
func (v vectors) requireLevels(t *testing.T, levels []float32, zeros []int64) {
	t.Helper()
	codes, tie := v.integers("q"), make([]int64, len(levels))
	if v.Has("near_tie") {
		tie = v.integers("near_tie")
	}
	require.Len(t, levels, len(codes))
	n := len(codes) / v.channels
	for i, level := range levels {
		require.LessOrEqual(t, math.Abs(float64(level)+float64(zeros[i/n]-codes[i])), float64(tie[i]), "code of element %d", i)
	}
}

// requireNear checks that got lies within a relative error of want, element by element.
func requireNear(t *testing.T, want, got []float32, relative float64, what string) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.LessOrEqual(t, math.Abs(float64(got[i])-float64(want[i])), relative*math.Abs(float64(want[i])), "%s %d: %v, want %v", what, i, got[i], want[i])
	}
}

// bits returns the bits of codes between two.
func bitsBetween(low, high int) int {
	bits := 1
	for 1<<bits < high-low+1 {
		bits++
	}
	return bits
}
