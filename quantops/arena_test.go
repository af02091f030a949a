package quantops

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// scaling is y = x·a; where it replaces, it may leave the gradient of x where that of y was.
type scaling struct{}

func (scaling) String() string { return "scaling" }

func (scaling) Forward(y []float32, x [][]float32) error {
	for i, v := range x[0] {
		y[i] = v * x[1][i]
	}
	return nil
}

func (scaling) Backward(dx [][]float32, dy, _ []float32, x [][]float32) error {
	for i, g := range dy {
		dx[1][i] = g * x[0][i]
		dx[0][i] = g * x[1][i]
	}
	return nil
}

type replacing struct{ scaling }

func (replacing) Replaces() int { return 0 }

// sum is y = x0 + x1, whose inputs have one gradient, in the place of that of y.
type sum struct{}

func (sum) String() string         { return "sum" }
func (sum) SharedGradient(int) int { return 0 }
func (sum) Replaces() int          { return 0 }
func (sum) Forward(y []float32, x [][]float32) error {
	for i, v := range x[0] {
		y[i] = v + x[1][i]
	}
	return nil
}

func (sum) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	copy(dx[0], dy)
	return nil
}

// residualNet is a graph of random residual blocks, with the same arithmetic on plain numbers and their derivatives.
type residualNet struct {
	t      *testing.T
	stream *rand.Rand
	graph  *gorgonia.ExprGraph
	leaves gorgonia.Nodes
}

// dual is a number with its derivatives to all leaves.
type dual struct {
	value       float64
	derivatives map[int]float64
}

func (d dual) times(e dual) dual {
	p := dual{d.value * e.value, map[int]float64{}}
	for i, v := range d.derivatives {
		p.derivatives[i] += v * e.value
	}
	for i, v := range e.derivatives {
		p.derivatives[i] += v * d.value
	}
	return p
}

func (d dual) plus(e dual) dual {
	one := dual{1, nil}
	s := d.times(one)
	for i, v := range e.derivatives {
		s.derivatives[i] += v
	}
	s.value += e.value
	return s
}

func (r *residualNet) leaf() (*gorgonia.Node, dual) {
	v := 0.5 + r.stream.Float32()
	n := node(r.graph, fmt.Sprint("leaf ", len(r.leaves)), []float32{v}, 1)
	r.leaves = append(r.leaves, n)
	return n, dual{float64(v), map[int]float64{len(r.leaves) - 1: 1}}
}

// scaled multiplies by a leaf of its own.
func (r *residualNet) scaled(n *gorgonia.Node, d dual) (*gorgonia.Node, dual) {
	leaf, e := r.leaf()
	var f Function = scaling{}
	if r.stream.IntN(2) == 0 {
		f = replacing{}
	}
	n = apply(r.t, f, tensor.Shape{1}, Input{Node: n}, Input{Node: leaf})
	return n, d.times(e)
}

// block is a residual block of random depth, whose shortcut may have leaves as well.
func (r *residualNet) block(n *gorgonia.Node, d dual, depth int) (*gorgonia.Node, dual) {
	main, side, err := Fork(Input{Node: n})
	require.NoError(r.t, err)
	e := d
	for range 1 + r.stream.IntN(3) {
		if depth > 0 && r.stream.IntN(2) == 0 {
			main, d = r.block(main, d, depth-1)
		}
		main, d = r.scaled(main, d)
	}
	for range r.stream.IntN(3) {
		side, e = r.scaled(side, e)
	}
	n = apply(r.t, sum{}, tensor.Shape{1}, Input{Node: main}, Input{Node: side})
	return n, d.plus(e)
}

// Whatever takes whose place, gradients are right.
func TestGradientsInAnArena(t *testing.T) {
	for seed := range uint64(200) {
		r := &residualNet{t: t, stream: rand.New(rand.NewPCG(seed, 1)), graph: gorgonia.NewGraph()}
		n, d := r.leaf()
		for range 3 {
			n, d = r.scaled(n, d)
			n, d = r.block(n, d, 2)
		}
		gradients, err := gorgonia.Grad(apply(t, total{}, tensor.ScalarShape(), Input{Node: n}), r.leaves...)
		require.NoError(t, err)
		m := gorgonia.NewTapeMachine(r.graph)
		for range 2 {
			step(t, m)
			for i, g := range gradients {
				require.InEpsilon(t, d.derivatives[i], result(t, g)[0], 1e-4, "seed %d: leaf %d of %d", seed, i, len(r.leaves))
			}
		}
		require.NoError(t, m.Close())
	}
}

// In a chain two gradients are alive at a time, or one where it takes the place of the one before.
func TestArenaOfAChain(t *testing.T) {
	for _, c := range []struct {
		f    Function
		want int
	}{{scaling{}, 2}, {replacing{}, 1}} {
		g := gorgonia.NewGraph()
		n := node(g, "x", []float32{1}, 1)
		leaves := gorgonia.Nodes{n}
		for i := range 20 {
			leaf := node(g, fmt.Sprint("leaf ", i), []float32{1}, 1)
			n = apply(t, c.f, tensor.Shape{1}, Input{Node: n}, Input{Node: leaf})
			leaves = append(leaves, leaf)
		}
		gradients, err := gorgonia.Grad(apply(t, total{}, tensor.ScalarShape(), Input{Node: n}), leaves...)
		require.NoError(t, err)
		own, shared := map[*float32]bool{}, map[*float32]bool{}
		for _, gradient := range gradients {
			own[&result(t, gradient)[0]] = true
		}
		require.Len(t, own, len(leaves), "a leaf's gradient stays")
		for _, n := range g.AllNodes() {
			if gradientAt(n) != nil && !gradients.Contains(n) {
				shared[&gradientAt(n).y[0]] = true
				_, err := Result(n)
				require.ErrorIs(t, err, ErrInnerGradient)
			}
		}
		require.Len(t, shared, c.want)
		for place := range shared {
			require.False(t, own[place])
		}
	}
}
