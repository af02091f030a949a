package layers

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

// probe is a training graph around a layer: its loss is the sum of the outputs times given upstream gradients, and
// the layer's input gets a gradient like a parameter. Images go in and come out as [images][channels][height][width].
type probe struct {
	layer     Layer
	images    int
	in, out   Shape
	input     *Param
	upstream  *dot
	machine   gorgonia.VM
	graph     *gorgonia.ExprGraph
	params    map[string]*Param
	gradients map[string][]float32 // as the graph holds them
	y         []float32
}

// dot is the sum of x times upstream.
type dot struct{ upstream []float32 }

func (f *dot) String() string { return "dot" }

func (f *dot) Forward(y []float32, x [][]float32) error {
	sum := 0.0
	for i, v := range x[0] {
		sum += float64(v) * float64(f.upstream[i])
	}
	y[0] = float32(sum)
	return nil
}

func (f *dot) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	for i, g := range f.upstream {
		dx[0][i] = dy[0] * g
	}
	return nil
}

func newProbe(t *testing.T, l Layer, in Shape, images int) *probe {
	t.Helper()
	return newProbeOn(t, NewPass(Training, images), l, in)
}

func newProbeOn(t *testing.T, pass *Pass, l Layer, in Shape) *probe {
	t.Helper()
	images := pass.Images
	p := &probe{layer: l, images: images, in: in, params: map[string]*Param{}, gradients: map[string][]float32{}}
	var err error
	p.out, err = l.Build(&Build{Seed: 1, names: map[string]int{}}, in)
	require.NoError(t, err)
	require.NoError(t, foldNorms(l))
	pairNorms(l)
	p.input = newParam("x", in.tensor(pass.Blocks())...)
	v, err := l.Forward(pass, Value{Shape: in, node: pass.Node(p.input)})
	require.NoError(t, err)
	require.Equal(t, p.out, v.Shape)
	v, err = pass.settled(v)
	require.NoError(t, err)
	p.upstream = &dot{make([]float32, p.out.tensor(pass.Blocks()).TotalSize())}
	loss, err := quantops.Apply(p.upstream, tensor.ScalarShape(), quantops.Input{Node: v.Node()})
	require.NoError(t, err)
	params, nodes := pass.Learned()
	gradients, err := gorgonia.Grad(loss, nodes...)
	require.NoError(t, err)
	for i, param := range params {
		p.gradients[param.Name], err = quantops.Result(gradients[i])
		require.NoError(t, err)
	}
	for _, param := range append(l.Params(), p.input) {
		p.params[param.Name] = param
	}
	p.y, err = quantops.Result(v.Node())
	require.NoError(t, err)
	p.graph = pass.Graph
	p.machine = gorgonia.NewTapeMachine(pass.Graph)
	t.Cleanup(func() { require.NoError(t, p.machine.Close()) })
	return p
}

// set gives the probe its input and upstream gradient.
func (p *probe) set(x, dy []float32) {
	kernel.Pack(p.input.Data(), x, p.images, p.in.Len())
	kernel.Pack(p.upstream.upstream, dy, p.images, p.out.Len())
}

// run computes outputs and gradients of what has been set.
func (p *probe) run(t *testing.T) {
	t.Helper()
	require.NoError(t, p.machine.RunAll())
	p.machine.Reset()
}

func (p *probe) output() []float32 {
	y := make([]float32, p.images*p.out.Len())
	kernel.Unpack(y, p.y, p.images, p.out.Len())
	return y
}

// gradient returns the gradient of a parameter, or of the input by the name x.
func (p *probe) gradient(name string) []float32 {
	if name != "x" {
		return p.gradients[name]
	}
	dx := make([]float32, p.images*p.in.Len())
	kernel.Unpack(dx, p.gradients[name], p.images, p.in.Len())
	return dx
}

// loss is the loss in float64, of the outputs that the graph computed.
func (p *probe) loss() float64 {
	sum := 0.0
	for i, v := range p.y {
		sum += float64(v) * float64(p.upstream.upstream[i])
	}
	return sum
}

// requireClose compares with a tolerance relative to the largest magnitude of want.
func requireClose(t *testing.T, want []float64, got []float32, tolerance float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	largest := 0.0
	for _, v := range want {
		largest = math.Max(largest, math.Abs(v))
	}
	for i, v := range want {
		require.InDelta(t, v, got[i], tolerance*largest, "%s %d", what, i)
	}
}
