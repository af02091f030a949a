package train

import (
	"fmt"
	"log"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A line is fitted on a stock Gorgonia graph; halfway the graph is thrown away and a new one goes on with the optimizer's
// memory, which goes by the nodes' names.
func ExampleSGD_Step() {
	sgd := &SGD{LearningRate: 0.05, Momentum: 0.9}
	slope, offset := float32(0), float32(0)
	for range 2 {
		slope, offset = fitLine(sgd, slope, offset, 100)
	}
	fmt.Printf("y = %.3f·x + %.3f\n", slope, offset)
	fmt.Println(sgd.State()[0].Name, sgd.State()[0].Steps)
	// Output:
	// y = 3.000·x + -1.000
	// momentum/offset 200
}

// fitLine makes steps of least squares on y = 3x − 1.
func fitLine(solver gorgonia.Solver, slope, offset float32, steps int) (float32, float32) {
	g := gorgonia.NewGraph()
	x := gorgonia.NewVector(g, tensor.Float32, gorgonia.WithName("x"), gorgonia.WithShape(4),
		gorgonia.WithValue(tensor.New(tensor.WithBacking([]float32{-1, 0, 1, 2}))))
	y := gorgonia.NewVector(g, tensor.Float32, gorgonia.WithName("y"), gorgonia.WithShape(4),
		gorgonia.WithValue(tensor.New(tensor.WithBacking([]float32{-4, -1, 2, 5}))))
	a := gorgonia.NewScalar(g, tensor.Float32, gorgonia.WithName("slope"), gorgonia.WithValue(slope))
	b := gorgonia.NewScalar(g, tensor.Float32, gorgonia.WithName("offset"), gorgonia.WithValue(offset))
	guess := gorgonia.Must(gorgonia.Add(gorgonia.Must(gorgonia.Mul(x, a)), b))
	loss := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(guess, y))))))
	if _, err := gorgonia.Grad(loss, a, b); err != nil {
		log.Fatal(err)
	}
	machine := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(a, b))
	defer machine.Close()
	for range steps {
		if err := machine.RunAll(); err != nil {
			log.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(gorgonia.Nodes{a, b})); err != nil {
			log.Fatal(err)
		}
		machine.Reset()
	}
	return a.Value().Data().(float32), b.Value().Data().(float32)
}

// fake is a model member with any value and gradient.
type fake struct {
	name            string
	value, gradient gorgonia.Value
}

func (f fake) Name() string                  { return f.name }
func (f fake) Value() gorgonia.Value         { return f.value }
func (f fake) Grad() (gorgonia.Value, error) { return f.gradient, nil }

// anonymous has no Name.
type anonymous struct{ gorgonia.ValueGrad }

func dense(shape ...int) *tensor.Dense {
	backing := make([]float32, tensor.Shape(shape).TotalSize())
	for i := range backing {
		backing[i] = float32(i + 1)
	}
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(backing))
}

func TestStepTensorsAndScalars(t *testing.T) {
	t.Parallel()
	scalar, gradient := gorgonia.F32(3), gorgonia.F32(1)
	matrix, matrixGradient := dense(2, 2), dense(2, 2)
	single, singleGradient := tensor.New(tensor.FromScalar(float32(5))), gorgonia.F32(2)
	model := []gorgonia.ValueGrad{
		fake{"scalar", &scalar, &gradient},
		fake{"matrix", matrix, matrixGradient},
		fake{"single", single, &singleGradient},
	}
	require.NoError(t, (&SGD{LearningRate: 0.5, WeightDecay: 1}).Step(model))
	require.EqualValues(t, 3-0.5*(1+3), scalar)
	require.Equal(t, []float32{0, 0, 0, 0}, matrix.Data())
	require.EqualValues(t, 5-0.5*(2+5), single.Data())
	require.Zero(t, gradient)
	require.Zero(t, singleGradient)
	require.Equal(t, []float32{0, 0, 0, 0}, matrixGradient.Data())
}

func TestStepErrors(t *testing.T) {
	t.Parallel()
	transposed := dense(2, 3)
	require.NoError(t, transposed.T())
	double := gorgonia.F64(1)
	g := gorgonia.NewGraph()
	bare := gorgonia.NewVector(g, tensor.Float32, gorgonia.WithName("bare"), gorgonia.WithShape(2), gorgonia.WithValue(dense(2)))
	for _, c := range []struct {
		member gorgonia.ValueGrad
		want   string
	}{
		{anonymous{fake{"w", dense(2), dense(2)}}, "train: member 0 of the model, a train.anonymous, has no method Name; its state is kept under its name"},
		{fake{"w", nil, dense(2)}, `train: value of "w": is not there; run the machine first`},
		{fake{"w", dense(2), nil}, `train: gradient of "w": is not there; run the machine first`},
		{fake{"w", &double, &double}, `train: value of "w": is a *gorgonia.F64; want a float32 tensor or scalar`},
		{fake{"w", tensor.New(tensor.WithBacking([]float64{1, 2})), dense(2)}, `train: value of "w": is of type float64; want float32`},
		{fake{"w", dense(3, 2), transposed}, `train: gradient of "w": is not contiguous and row-major in memory`},
		{fake{"w", dense(2, 3), dense(3, 2)}, `train: "w" has shape (2, 3) but its gradient has (3, 2)`},
		{bare, `train: gradient of "bare": No Gradient node/value found for *gorgonia.Node`},
	} {
		require.EqualError(t, (&AdamW{LearningRate: 1}).Step([]gorgonia.ValueGrad{c.member}), c.want)
	}
}

// A step that fails leaves values and gradients for the caller to look at.
func TestStepKeepsGradientsOnError(t *testing.T) {
	t.Parallel()
	value, gradient := dense(2), dense(2)
	model := []gorgonia.ValueGrad{fake{"w", value, gradient}, fake{"w", dense(2), dense(2)}}
	require.Error(t, (&SGD{LearningRate: 1}).Step(model))
	require.Equal(t, dense(2).Data(), value.Data())
	require.Equal(t, dense(2).Data(), gradient.Data())
}
