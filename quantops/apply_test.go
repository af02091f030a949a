package quantops

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/goqat/goqat/internal/kernel"
)

// fitted makes a quantizer of 6 numbers in 2 channels with parameters fitted to them.
func fitted(t *testing.T, method string, role Role, x []float32) (Quantizer, []float32) {
	t.Helper()
	target := Target{Role: role, Channels: 2, Size: 6, Signed: true}
	if role == Activations {
		target.Channels = 1
	}
	q, err := MustParse(method).Quantizer(target)
	require.NoError(t, err)
	theta := make([]float32, q.Theta().Rows*len(q.Theta().Columns))
	q.Fit(theta, x, kernel.Dense(6), 0)
	return q, theta
}

// FakeQuantize in a plain Gorgonia program: the graph's values and gradients are those of the quantizer, every step,
// while x moves and learned steps with it.
func TestFakeQuantizeTrains(t *testing.T) {
	for _, c := range []struct {
		method string
		role   Role
	}{
		{"linear:3", Weights}, {"linear:3,asymmetric", Weights}, {"linear:3,per=tensor", Weights},
		{"lsq:2", Weights}, {"lsq:3,per=channel", Weights}, {"linear:4", Activations}, {"lsq:4", Activations},
	} {
		x := []float32{-1.2, 0.3, 0.9, 2.1, -0.4, 0.05}
		q, theta := fitted(t, c.method, c.role, x)
		rows, columns := q.Theta().Rows, len(q.Theta().Columns)
		g := gorgonia.NewGraph()
		nx, ntheta := node(g, "x", x, 2, 3), node(g, "theta", theta, rows, columns)
		y, err := FakeQuantize(q, nx, ntheta)
		require.NoError(t, err)
		factor := []float32{1, 2, 3, -1, -2, -3}
		loss := apply(t, total{}, tensor.ScalarShape(), Input{Node: apply(t, &power{exponent: 1}, tensor.Shape{2, 3}, Input{Node: y}, Input{node(g, "factor", factor, 2, 3), true})})
		with := gorgonia.Nodes{nx}
		learned := q.Theta().Kind == Learned
		if learned {
			with = append(with, ntheta)
		}
		gradients, err := gorgonia.Grad(loss, with...)
		require.NoError(t, err)
		m := gorgonia.NewTapeMachine(g)
		for range 3 {
			step(t, m)
			levels, units, dx, dtheta := make([]float32, 6), make([]float32, rows), make([]float32, 6), make([]float32, len(theta))
			q.Levels(levels, x, theta)
			q.Units(units, theta)
			q.Backward(dx, dtheta, factor, x, theta)
			for i := range levels {
				require.Equal(t, levels[i]*units[i*rows/6], result(t, y)[i], c.method)
			}
			requireBits(t, dx, result(t, gradients[0]))
			if learned {
				requireBits(t, dtheta, result(t, gradients[1]))
				theta[0] *= 0.9
			}
			for i := range x {
				x[i] += 0.17
			}
		}
		require.NoError(t, m.Close())
	}
}

// Derived parameters follow the tensor each time; running ones only where they are told to.
func TestNodeUpdates(t *testing.T) {
	for _, c := range []struct {
		method string
		role   Role
		update bool
		want   []float32
	}{
		{"linear:4,per=tensor", Weights, false, []float32{-4, 8}},
		{"linear:4,constant=0.5", Activations, false, []float32{-1, 2}},
		{"linear:4,constant=0.5", Activations, true, []float32{-2.5, 5}},
		{"linear:4,observer=minmax", Activations, true, []float32{-4, 8}},
	} {
		x := []float32{-1, 0, 0, 2, 0, 1}
		q, theta := fitted(t, c.method, c.role, x)
		g := gorgonia.NewGraph()
		nx, ntheta := node(g, "x", x, 2, 3), node(g, "theta", theta, 1, 2)
		_, err := Node{Quantizer: q, X: Input{Node: nx}, Theta: Input{Node: ntheta}, Extent: kernel.Dense(6), Update: c.update}.Apply()
		require.NoError(t, err)
		for i := range x {
			x[i] *= 4
		}
		m := gorgonia.NewTapeMachine(g)
		step(t, m)
		require.Equal(t, c.want, theta, c.method)
		require.NoError(t, m.Close())
	}
}

// Levels carry the gradient of the values they stand for; an operand without a gradient needs no memory of the caller.
func TestNodeLevelsAndConstants(t *testing.T) {
	for _, c := range []struct{ constantX, constantTheta bool }{{true, false}, {false, true}} {
		x := []float32{-1.2, 0.3, 0.9, 2.1, -0.4, 0.05}
		q, theta := fitted(t, "lsq:3", Weights, x)
		g := gorgonia.NewGraph()
		nx, ntheta := node(g, "x", x, 2, 3), node(g, "theta", theta, 1, 1)
		y, err := Node{Quantizer: q, X: Input{nx, c.constantX}, Theta: Input{ntheta, c.constantTheta}, Extent: kernel.Dense(6)}.Apply()
		require.NoError(t, err)
		loss := apply(t, total{}, tensor.ScalarShape(), Input{Node: y})
		wanted, want := nx, make([]float32, 6)
		dtheta := make([]float32, 1)
		q.Backward(want, dtheta, []float32{1, 1, 1, 1, 1, 1}, x, theta)
		if c.constantX {
			wanted, want = ntheta, dtheta
		}
		gradients, err := gorgonia.Grad(loss, wanted)
		require.NoError(t, err)
		m := gorgonia.NewTapeMachine(g)
		for range 2 {
			step(t, m)
			requireBits(t, want, result(t, gradients[0]))
		}
		levels := make([]float32, 6)
		q.Levels(levels, x, theta)
		requireBits(t, levels, result(t, y))
		require.NoError(t, m.Close())
	}
}

func TestFakeQuantizeErrors(t *testing.T) {
	x := make([]float32, 6)
	q, theta := fitted(t, "linear:3", Weights, x)
	g := gorgonia.NewGraph()
	nx, ntheta := node(g, "x", x, 2, 3), node(g, "theta", theta, 2, 2)
	none, err := Method{}.Quantizer(Target{})
	require.NoError(t, err)
	_, err = FakeQuantize(none, nx, ntheta)
	require.EqualError(t, err, "quantops: no quantizer to apply; the method none has none")
	_, err = FakeQuantize(q, nx, node(g, "short", theta[:2], 1, 2))
	require.EqualError(t, err, "quantops: 2 parameters for the range of *quantops.linear: want a matrix [2][2]")
	_, err = FakeQuantize(q, node(g, "odd", x[:5], 5), ntheta)
	require.EqualError(t, err, "quantops: 5 elements for *quantops.linear: want a multiple of its 2 channels")
}
