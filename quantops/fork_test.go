package quantops

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// doubling is y = 2x, and keeps x².
type doubling struct{ kept []float32 }

func (*doubling) String() string          { return "doubling" }
func (f *doubling) Keep(memory []float32) { f.kept = memory }

func (f *doubling) Forward(y []float32, x [][]float32) error {
	for i, v := range x[0] {
		y[i], f.kept[i] = 2*v, v*v
	}
	return nil
}

func (f *doubling) Backward(dx [][]float32, dy, y []float32, x [][]float32) error {
	return f.BackwardKept(dx, dy, make([]float32, len(dy)), y, x)
}

func (f *doubling) BackwardKept(dx [][]float32, dy, dkept, _ []float32, x [][]float32) error {
	for i, v := range x[0] {
		dx[0][i] = 2*dy[i] + 2*v*dkept[i]
	}
	return nil
}

// What an operation keeps has one user, whose gradient reaches the operation with that of its result.
func TestKept(t *testing.T) {
	for users := 1; users <= 2; users++ {
		g := gorgonia.NewGraph()
		x, a := node(g, "x", []float32{1, 3}, 2), node(g, "a", []float32{5, 7}, 2)
		doubled := apply(t, &doubling{}, tensor.Shape{2}, Input{Node: x})
		kept, err := Kept(doubled, tensor.Shape{2})
		require.NoError(t, err)
		terms := []Input{{Node: doubled}}
		for range users {
			terms = append(terms, Input{Node: apply(t, &power{exponent: 1}, tensor.Shape{2}, Input{Node: kept}, Input{Node: a})})
		}
		gradients, err := gorgonia.Grad(apply(t, total{}, tensor.ScalarShape(), terms...), x, a)
		if users > 1 {
			require.ErrorContains(t, err, "quantops: doubling: 2 users of what it keeps: want one")
			continue
		}
		require.NoError(t, err)
		m := gorgonia.NewTapeMachine(g)
		step(t, m)
		require.Equal(t, []float32{1, 9}, result(t, kept))
		require.Equal(t, []float32{2 + 2*1*5, 2 + 2*3*7}, result(t, gradients[0]))
		require.Equal(t, []float32{1, 9}, result(t, gradients[1]))
		require.NoError(t, m.Close())
		_, err = Kept(doubled, tensor.Shape{2})
		require.ErrorContains(t, err, "has been asked before")
		_, err = Kept(kept, tensor.Shape{2})
		require.ErrorContains(t, err, "keeps nothing")
	}
}
