package models

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

func TestLeNet5(t *testing.T) {
	net, err := New("lenet5", Options{Input: mnist, Classes: 10})
	require.NoError(t, err)
	require.Equal(t, layers.Shape{Channels: 10, Height: 1, Width: 1, Signed: true}, net.Output)
	shapes, count := map[string][]int{}, 0
	for _, p := range net.Params() {
		shapes[p.Name] = p.Value.Shape()
		count += len(p.Data())
	}
	require.Equal(t, 61706, count)
	require.Equal(t, map[string][]int{
		"conv1.weight": {6, 1, 5, 5}, "conv1.bias": {6}, "conv2.weight": {16, 6, 5, 5}, "conv2.bias": {16},
		"fc1.weight": {120, 400}, "fc1.bias": {120}, "fc2.weight": {84, 120}, "fc2.bias": {84}, "fc3.weight": {10, 84}, "fc3.bias": {10},
	}, shapes)
}

// Bits of the first and the last layer are those asked for, the same parameters start from the same numbers.
func TestLeNet5Edges(t *testing.T) {
	float, err := New("lenet5", Options{Input: mnist, Classes: 10, Seed: 3})
	require.NoError(t, err)
	m := layers.Methods{Weights: quantops.MustParse("lsq:3"), Activations: quantops.MustParse("lsq:3")}
	net, err := New("lenet5", Options{Input: mnist, Classes: 10, Methods: m, EdgeBits: 8, Seed: 3})
	require.NoError(t, err)
	bits := map[string]uint8{}
	root := net.Root.(layers.Sequential)
	for _, l := range root {
		switch l := l.(type) {
		case *layers.Conv2D:
			bits[l.Name] = uint8(l.Methods.Weights.Bits())
			require.Equal(t, l.Methods.Weights.Bits(), l.Methods.Activations.Bits())
		case *layers.Linear:
			bits[l.Name] = uint8(l.Methods.Weights.Bits())
		}
	}
	require.Equal(t, map[string]uint8{"conv1": 8, "conv2": 3, "fc1": 3, "fc2": 3, "fc3": 8}, bits)
	weights := map[string][]float32{}
	for _, p := range net.Params() {
		weights[p.Name] = p.Data()
	}
	for _, p := range float.Params() {
		require.Equal(t, p.Data(), weights[p.Name], p.Name)
	}
}

// sum is a loss for graphs whose result does not matter.
type sum struct{}

func (sum) String() string { return "sum" }

func (sum) Forward(y []float32, x [][]float32) error {
	y[0] = 0
	for _, v := range x[0] {
		y[0] += v
	}
	return nil
}

func (sum) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	for i := range dx[0] {
		dx[0][i] = dy[0]
	}
	return nil
}

// trainingGraph is a training step of a quantized LeNet-5 without its optimizer.
func trainingGraph(t *testing.T, m layers.Methods, images int) (*gorgonia.ExprGraph, gorgonia.VM) {
	t.Helper()
	net, err := New("lenet5", Options{Input: mnist, Classes: 10, Methods: m, EdgeBits: 8})
	require.NoError(t, err)
	for _, p := range net.Params() {
		if strings.HasSuffix(p.Name, ".input.step") {
			p.Data()[0] = 0.1
		}
	}
	pass := layers.NewPass(layers.Training, images)
	batch := make([]float32, pass.Blocks()*mnist.Len()*kernel.Lanes)
	for i := range batch {
		batch[i] = float32(i*7919%256) / 255
	}
	out, err := net.Forward(pass, batch)
	require.NoError(t, err)
	loss, err := quantops.Apply(sum{}, tensor.ScalarShape(), quantops.Input{Node: out.Node})
	require.NoError(t, err)
	_, nodes := pass.Learned()
	_, err = gorgonia.Grad(loss, nodes...)
	require.NoError(t, err)
	machine := gorgonia.NewTapeMachine(pass.Graph)
	t.Cleanup(func() { require.NoError(t, machine.Close()) })
	return pass.Graph, machine
}

var trained = map[string]layers.Methods{
	"float":  {},
	"lsq":    {Weights: quantops.MustParse("lsq:4"), Activations: quantops.MustParse("lsq:4")},
	"linear": {Weights: quantops.MustParse("linear:4,asymmetric"), Activations: quantops.MustParse("linear:4")},
}

// Gorgonia's own operations allocate their results every step and run on one thread; no step of training goes through
// one, not even where gradients meet. The one that there is, the constant 1 at the loss, is a scalar.
func TestTrainingUsesNoStockOperations(t *testing.T) {
	for name, m := range trained {
		graph, _ := trainingGraph(t, m, 1)
		ours := 0
		for _, n := range graph.AllNodes() {
			switch _, err := quantops.Result(n); {
			case err == nil || errors.Is(err, quantops.ErrInnerGradient):
				ours++
			case n.Op() != nil:
				require.True(t, n.IsScalar(), "%s: %v is Gorgonia's own", name, n)
			}
		}
		require.Greater(t, ours, 20)
	}
}

// After the first step the tensors are there: a step of 64 images moves more than ten megabytes, and allocates nothing
// but the small change of Gorgonia's machine and the kernels' tasks.
func TestTrainingStepAllocates(t *testing.T) {
	for name, m := range trained {
		t.Run(name, func(t *testing.T) {
			_, machine := trainingGraph(t, m, 64)
			step := func() {
				require.NoError(t, machine.RunAll())
				machine.Reset()
			}
			step()
			step()
			var before, after runtime.MemStats
			const steps = 2
			runtime.ReadMemStats(&before)
			for range steps {
				step()
			}
			runtime.ReadMemStats(&after)
			all := after.TotalAlloc - before.TotalAlloc
			small := uint64(0) // pieces of up to 18 KB
			for i, class := range after.BySize {
				small += uint64(class.Size) * (class.Mallocs - before.BySize[i].Mallocs)
			}
			t.Logf("%d bytes in %d pieces a step", all/steps, (after.Mallocs-before.Mallocs)/steps)
			require.Zero(t, all-small, "bytes in pieces of tensor size")
			require.Less(t, all/steps, uint64(1_000_000))
		})
	}
}

func TestLeNet5BN(t *testing.T) {
	t.Parallel()
	net, err := New("lenet5bn", Options{Input: mnist, Classes: 10, Methods: layers.Methods{Weights: quantops.MustParse("lbw:1"), State: layers.StateBatchNorm{On: true, Every: 1}}, EdgeBits: 8})
	require.NoError(t, err)
	names := map[string]int{}
	for _, p := range net.Params() {
		names[p.Name] = len(p.Data())
	}
	require.Equal(t, 2*16*6*25, names["conv2.weight.logits"])
	require.Equal(t, 16, names["bn2.soft_mean"])
	require.Contains(t, names, "conv1.weight", "an edge of 8 bits")
	require.NotContains(t, names, "bn1.soft_mean")
	require.NotContains(t, names, "fc2.weight.scale", "batch normalization follows")
}
