package quantops

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// power is y = x^exponent · a, element by element, and fails when a test wants it to.
type power struct {
	exponent float64
	fail     func()
}

func (f *power) String() string { return "power" }

func (f *power) Forward(y []float32, x [][]float32) error {
	if f.fail != nil {
		f.fail()
	}
	for i, v := range x[0] {
		y[i] = float32(math.Pow(float64(v), f.exponent)) * x[1][i]
	}
	return nil
}

func (f *power) Backward(dx [][]float32, dy, y []float32, x [][]float32) error {
	for i, v := range x[0] {
		if dx[0] != nil {
			dx[0][i] = dy[i] * x[1][i] * float32(f.exponent*math.Pow(float64(v), f.exponent-1))
		}
		if dx[1] != nil {
			dx[1][i] = dy[i] * y[i] / x[1][i]
		}
	}
	return nil
}

// forwardOnly hides the gradient of a function.
type forwardOnly struct{ f Function }

func (f forwardOnly) String() string                           { return "forward only" }
func (f forwardOnly) Forward(y []float32, x [][]float32) error { return f.f.Forward(y, x) }

// failing fails without a panic.
type failing struct{ Function }

func (failing) Forward([]float32, [][]float32) error { return errors.New("out of paper") }

// total is the sum of all elements of all inputs, a scalar.
type total struct{}

func (total) String() string { return "total" }

func (total) Forward(y []float32, x [][]float32) error {
	y[0] = 0
	for _, input := range x {
		for _, v := range input {
			y[0] += v
		}
	}
	return nil
}

func (total) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	for _, d := range dx {
		for i := range d {
			d[i] = dy[0]
		}
	}
	return nil
}

// node adds a named tensor of a graph over data.
func node(g *gorgonia.ExprGraph, name string, data []float32, shape ...int) *gorgonia.Node {
	t := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
	return gorgonia.NewTensor(g, tensor.Float32, len(shape), gorgonia.WithName(name), gorgonia.WithShape(shape...), gorgonia.WithValue(t))
}

func apply(t *testing.T, f Function, shape tensor.Shape, inputs ...Input) *gorgonia.Node {
	t.Helper()
	n, err := Apply(f, shape, inputs...)
	require.NoError(t, err)
	return n
}

func result(t *testing.T, n *gorgonia.Node) []float32 {
	t.Helper()
	y, err := Result(n)
	require.NoError(t, err)
	return y
}

// step runs a machine once.
func step(t *testing.T, m gorgonia.VM) {
	t.Helper()
	require.NoError(t, m.RunAll())
	m.Reset()
}

// A chain of operations gives the right gradients step after step, in the same memory.
func TestOperationSteps(t *testing.T) {
	g := gorgonia.NewGraph()
	x, a := []float32{1, 2, 3, 4, 5, 6}, []float32{1, -1, 2, 0.5, 3, -2}
	nx, na := node(g, "x", x, 2, 3), node(g, "a", a, 2, 3)
	square := apply(t, &power{exponent: 2}, tensor.Shape{2, 3}, Input{Node: nx}, Input{Node: na})
	cube := apply(t, &power{exponent: 3}, tensor.Shape{2, 3}, Input{Node: square}, Input{Node: na})
	loss := apply(t, total{}, tensor.ScalarShape(), Input{Node: cube})
	gradients, err := gorgonia.Grad(loss, nx)
	require.NoError(t, err)
	m := gorgonia.NewTapeMachine(g)
	defer m.Close()
	y, dx, sum := result(t, cube), result(t, gradients[0]), result(t, loss)
	for range 4 {
		step(t, m)
		want := float32(0)
		for i := range x { // (x²a)³a = x⁶a⁴
			require.InEpsilon(t, math.Pow(float64(x[i]), 6)*math.Pow(float64(a[i]), 4), y[i], 1e-5)
			require.InEpsilon(t, 6*math.Pow(float64(x[i]), 5)*math.Pow(float64(a[i]), 4), dx[i], 1e-5)
			want += y[i]
			x[i], a[i] = x[i]*0.9, a[i]+0.05
		}
		require.Equal(t, want, sum[0])
		require.Same(t, &y[0], &result(t, cube)[0])
		require.Same(t, &dx[0], &result(t, gradients[0])[0])
	}
}

// Every input gets its own gradient, except constant ones, for which there is no node and no memory.
func TestOperationConstants(t *testing.T) {
	for _, constant := range [][2]bool{{false, false}, {true, false}, {false, true}} {
		g := gorgonia.NewGraph()
		nx, na := node(g, "x", []float32{2, 3}, 2), node(g, "a", []float32{5, 7}, 2)
		y := apply(t, &power{exponent: 2}, tensor.Shape{2}, Input{nx, constant[0]}, Input{na, constant[1]})
		loss := apply(t, total{}, tensor.ScalarShape(), Input{Node: y})
		require.Equal(t, []bool{!constant[0], !constant[1]}, y.Op().(gorgonia.SDOp).DiffWRT(2))
		var with gorgonia.Nodes
		var want [][]float32
		for i, n := range []*gorgonia.Node{nx, na} {
			if !constant[i] {
				with, want = append(with, n), append(want, [][]float32{{20, 42}, {4, 9}}[i])
			}
		}
		gradients, err := gorgonia.Grad(loss, with...)
		require.NoError(t, err)
		m := gorgonia.NewTapeMachine(g)
		step(t, m)
		for i := range gradients {
			require.InDeltaSlice(t, want[i], result(t, gradients[i]), 1e-5, "%v", constant)
		}
		require.NoError(t, m.Close())
	}
}

func TestOperationErrors(t *testing.T) {
	run := func(f Function) error {
		g := gorgonia.NewGraph()
		nx, na := node(g, "x", []float32{2, 3}, 2), node(g, "a", []float32{5, 7}, 2)
		apply(t, f, tensor.Shape{2}, Input{Node: nx}, Input{Node: na})
		m := gorgonia.NewTapeMachine(g)
		defer m.Close()
		return m.RunAll()
	}
	require.NoError(t, run(&power{exponent: 1}))
	require.ErrorContains(t, run(&power{fail: func() { panic("a bug") }}), "quantops: power: a bug")
	require.ErrorContains(t, run(&power{fail: func() { _ = []int{}[len("x")] }}), "quantops: power: runtime error: index out of range [1] with length 0")
	require.ErrorContains(t, run(failing{&power{}}), "out of paper")
}

// A function without a gradient is fine in a graph until somebody wants its gradient.
func TestOperationNotDifferentiable(t *testing.T) {
	g := gorgonia.NewGraph()
	nx, na := node(g, "x", []float32{2, 3}, 2), node(g, "a", []float32{5, 7}, 2)
	y := apply(t, forwardOnly{&power{exponent: 1}}, tensor.Shape{2}, Input{Node: nx}, Input{Node: na})
	loss := apply(t, total{}, tensor.ScalarShape(), Input{Node: y})
	require.Equal(t, []bool{false, false}, y.Op().(gorgonia.SDOp).DiffWRT(2))
	_, err := gorgonia.Grad(loss, nx)
	require.Error(t, err)
	m := gorgonia.NewTapeMachine(g)
	defer m.Close()
	step(t, m)
	require.Equal(t, []float32{10, 21}, result(t, y))
}

// Gorgonia merges nodes of equal operations on equal inputs; ours own state, so they must stay two.
func TestOperationsAreNotMerged(t *testing.T) {
	g := gorgonia.NewGraph()
	nx, na := node(g, "x", []float32{2, 3}, 2), node(g, "a", []float32{5, 7}, 2)
	f := &power{exponent: 1}
	first := apply(t, f, tensor.Shape{2}, Input{Node: nx}, Input{Node: na})
	second := apply(t, f, tensor.Shape{2}, Input{Node: nx}, Input{Node: na})
	require.NotEqual(t, first.ID(), second.ID())
	require.NotEqual(t, first.Op().Hashcode(), second.Op().Hashcode())
	m := gorgonia.NewTapeMachine(g)
	defer m.Close()
	step(t, m)
	require.Equal(t, result(t, first), result(t, second))
	require.NotSame(t, &result(t, first)[0], &result(t, second)[0])
}

func TestResultOfStockNodes(t *testing.T) {
	g := gorgonia.NewGraph()
	nx, na := node(g, "x", []float32{2, 3}, 2), node(g, "a", []float32{5, 7}, 2)
	sum := gorgonia.Must(gorgonia.Add(nx, na))
	_, err := Result(sum)
	require.EqualError(t, err, fmt.Sprintf("quantops: node %v is not an operation of this package", sum))
	_, err = Result(nx)
	require.EqualError(t, err, fmt.Sprintf("quantops: node %v is not an operation of this package", nx))
}

// A scalar operand is a float32 without a tensor around it.
func TestOperationScalarOperand(t *testing.T) {
	g := gorgonia.NewGraph()
	x := gorgonia.NewScalar(g, tensor.Float32, gorgonia.WithName("x"), gorgonia.WithValue(float32(3)))
	y := apply(t, total{}, tensor.ScalarShape(), Input{Node: x})
	m := gorgonia.NewTapeMachine(g)
	defer m.Close()
	step(t, m)
	require.Equal(t, []float32{3}, result(t, y))
}

func TestOperationWrongType(t *testing.T) {
	g := gorgonia.NewGraph()
	x := gorgonia.NewVector(g, tensor.Float64, gorgonia.WithName("x"), gorgonia.WithShape(2), gorgonia.WithValue(tensor.New(tensor.WithBacking([]float64{1, 2}))))
	_, err := Apply(total{}, tensor.ScalarShape(), Input{Node: x})
	require.ErrorContains(t, err, "quantops: total: ")
}
