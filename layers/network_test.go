package layers

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

func TestQuantize(t *testing.T) {
	for _, c := range []struct {
		weights, activations string
		edge                 int
		want                 []string // weights and activations of each layer
	}{
		{"lsq:4", "lsq:3", 0, []string{"lsq:4 lsq:3", "lsq:4 lsq:3", "lsq:4 lsq:3", "lsq:4 lsq:3"}},
		{"lsq:4", "lsq:3", 8, []string{"lsq:8 lsq:8", "lsq:4 lsq:3", "lsq:4 lsq:3", "lsq:8 lsq:8"}},
		{"linear:2,asymmetric", "none", 8, []string{"linear:8,asymmetric none", "linear:2,asymmetric none", "linear:2,asymmetric none", "linear:8,asymmetric none"}},
		{"none", "none", 8, []string{"none none", "none none", "none none", "none none"}},
	} {
		root := Sequential{&Conv2D{}, ReLU{}, Sequential{&Conv2D{}, MaxPool2D{}}, Flatten{}, Sequential{Sequential{&Linear{}}}, &Linear{Methods: methods("lsq:2", "lsq:2")}}
		Quantize(root, methods(c.weights, c.activations), c.edge)
		var got []string
		walk(root, func(l Layer) {
			if q, ok := l.(quantizable); ok {
				got = append(got, q.methods().Weights.String()+" "+q.methods().Activations.String())
			}
		})
		require.Equal(t, c.want, got)
	}
	only := &Linear{}
	Quantize(only, methods("lsq:2", "lsq:2"), 8)
	require.Equal(t, 8, only.Methods.Weights.Bits(), "an only layer is first and last")
}

func TestNetworkQuantized(t *testing.T) {
	for _, c := range []struct {
		m    Methods
		want bool
	}{{Methods{}, false}, {methods("lsq:4", "none"), true}, {methods("none", "lsq:4"), true}} {
		net, err := NewNetwork(Sequential{Flatten{}, &Linear{Outputs: 1, Methods: c.m}}, Shape{Channels: 1, Height: 2, Width: 2}, 1)
		require.NoError(t, err)
		require.Equal(t, c.want, net.Quantized())
	}
}

// Parameters have names of their own and start from streams of their own: a layer more changes no other.
func TestParams(t *testing.T) {
	build := func(seed uint64, root Layer) map[string]*Param {
		net, err := NewNetwork(root, Shape{Channels: 2, Height: 4, Width: 4}, seed)
		require.NoError(t, err)
		params := map[string]*Param{}
		for _, p := range net.Params() {
			require.NotContains(t, params, p.Name)
			params[p.Name] = p
		}
		return params
	}
	m := methods("lsq:4,per=channel", "linear:4")
	short := build(1, Sequential{&Conv2D{Outputs: 3, Kernel: 3, Methods: m}, Flatten{}, &Linear{Name: "last", Outputs: 2}})
	long := build(1, Sequential{&Conv2D{Outputs: 3, Kernel: 3, Methods: m}, &Conv2D{Outputs: 3, Kernel: 1, NoBias: true}, Flatten{}, &Linear{Name: "last", Outputs: 2}})
	other := build(2, Sequential{&Conv2D{Outputs: 3, Kernel: 3, Methods: m}, Flatten{}, &Linear{Name: "last", Outputs: 2}})
	require.Len(t, short, 6)
	require.Len(t, long, 7)
	for name, p := range short {
		require.Equal(t, p.Data(), long[name].Data(), name)
	}
	require.NotEqual(t, short["last.weight"].Data(), other["last.weight"].Data())
	require.NotEqual(t, long["conv1.weight"].Data()[:3], long["conv2.weight"].Data()[:3])

	step, inputs := short["conv1.weight.step"], short["conv1.input.range"]
	require.Equal(t, []int{3, 1}, []int(step.Value.Shape()))
	require.Equal(t, []int{1, 2}, []int(inputs.Value.Shape()))
	require.Equal(t, []any{quantops.Learned, true, 0.0}, []any{step.Kind, step.Theta, step.Decay})
	require.Equal(t, []any{quantops.Running, true}, []any{inputs.Kind, inputs.Theta})
	require.Equal(t, []any{quantops.Learned, false, 1.0}, []any{short["conv1.weight"].Kind, short["conv1.weight"].Theta, short["conv1.weight"].Decay})
	require.Equal(t, make([]float32, 3), short["conv1.bias"].Data())

	step.Data()[1] = -0.5
	before := step.Data()[0]
	step.Project()
	require.Equal(t, []float32{before, 1. / (1 << 23)}, step.Data()[:2])
	short["conv1.weight"].Data()[0] = -5
	short["conv1.weight"].Project()
	require.Equal(t, float32(-5), short["conv1.weight"].Data()[0], "weights have no minimum")
}

// He initialization: uniform with variance 2/fan-in.
func TestInitialWeights(t *testing.T) {
	net, err := NewNetwork(&Linear{Outputs: 100}, Shape{Channels: 150, Height: 1, Width: 1}, 1)
	require.NoError(t, err)
	bound, sum, squares := heBound(150), 0.0, 0.0
	data := net.Params()[0].Data()
	for _, w := range data {
		require.LessOrEqual(t, float64(max(w, -w)), bound)
		sum, squares = sum+float64(w), squares+float64(w)*float64(w)
	}
	require.InDelta(t, 0, sum/float64(len(data)), 0.003)
	require.InEpsilon(t, 2./150, squares/float64(len(data)), 0.02)
}

// Fit sets steps that follow from weights, after these have come from another network.
func TestNetworkFit(t *testing.T) {
	net, err := NewNetwork(&Linear{Outputs: 2, Methods: methods("lsq:3", "none")}, Shape{Channels: 3, Height: 1, Width: 1}, 1)
	require.NoError(t, err)
	weight, step := net.Params()[0], net.Params()[1]
	require.Equal(t, "fc1.weight.step", step.Name)
	copy(weight.Data(), []float32{1, -2, 3, -4, 5, -6})
	net.Fit()
	require.InEpsilon(t, 2*3.5/1.7320508, step.Data()[0], 1e-6)
}

// calibrated returns the quantizer parameters after batches of so many images in a pass of a size.
func calibrated(t *testing.T, pass int, batches ...int) []float32 {
	t.Helper()
	root := Sequential{&Conv2D{Outputs: 2, Kernel: 2}, ReLU{}, Flatten{}, &Linear{Outputs: 2}}
	Quantize(root, methods("linear:4", "lsq:4"), 0)
	root[0].(*Conv2D).Methods.Activations = quantops.MustParse("linear:4")
	net, err := NewNetwork(root, Shape{Channels: 1, Height: 3, Width: 3, Signed: true}, 1)
	require.NoError(t, err)
	params := map[string]*Param{}
	for _, p := range net.Params() {
		params[p.Name] = p
	}
	copy(params["conv1.bias"].Data(), []float32{5, 7}) // what padding would turn into

	p := NewPass(Calibration, pass)
	buffer := make([]float32, p.Blocks()*9*kernel.Lanes)
	_, err = net.Forward(p, buffer)
	require.NoError(t, err)
	machine := gorgonia.NewTapeMachine(p.Graph)
	defer machine.Close()
	first := 0
	for _, n := range batches {
		clear(buffer)
		kernel.Pack(buffer, noise(100*9, 1)[first*9:], n, 9)
		p.Images = n
		require.NoError(t, machine.RunAll())
		machine.Reset()
		p.Calibrated()
		first += n
	}
	return append(append([]float32{}, params["conv1.input.range"].Data()...), params["fc1.input.step"].Data()...)
}

// A calibration batch that is short by lanes or by whole blocks counts for what is there.
func TestCalibrationOfShortBatches(t *testing.T) {
	for _, n := range []int{1, 5, 16, 17, 37} {
		require.Equal(t, calibrated(t, n, n), calibrated(t, 64, n), "%d images", n)
	}
	require.Equal(t, calibrated(t, 16, 16, 3), calibrated(t, 48, 16, 3))
	require.NotEqual(t, calibrated(t, 48, 16), calibrated(t, 48, 16, 3))
}

// Calibration runs in floating point: it leaves what passes through as it is.
func TestCalibrationPassesThrough(t *testing.T) {
	root := Sequential{&Conv2D{Outputs: 2, Kernel: 2, Methods: methods("none", "lsq:2")}, Flatten{}, &Linear{Outputs: 2, Methods: methods("none", "linear:2")}}
	r := newRig(t, root, Shape{Channels: 1, Height: 4, Width: 4}, 3, random.New(1, "pass"))
	got, _ := r.run(Calibration)
	for _, w := range r.watched {
		w.core.input = activation{}
	}
	want, _ := r.run(Training)
	require.Equal(t, want, got)
}

func TestShapes(t *testing.T) {
	image := Shape{Channels: 4, Height: 7, Width: 5, Signed: true}
	for _, c := range []struct {
		layer Layer
		want  Shape
	}{
		{&Conv2D{Outputs: 2, Kernel: 3}, Shape{2, 5, 3, true}},
		{&Conv2D{Outputs: 2, Kernel: 3, Stride: 2, Pad: 1}, Shape{2, 4, 3, true}},
		{MaxPool2D{Window: 2}, Shape{4, 3, 2, true}},
		{MaxPool2D{Window: 3, Stride: 1, Pad: 1}, Shape{4, 7, 5, true}},
		{AvgPool2D{Window: 2, Stride: 3}, Shape{4, 2, 2, true}},
		{ReLU{}, Shape{4, 7, 5, false}},
		{Sequential{ReLU{}, Flatten{}}, Shape{140, 1, 1, false}},
		{Sequential{ReLU{}, Flatten{}, &Linear{Outputs: 3}}, Shape{3, 1, 1, true}},
	} {
		net, err := NewNetwork(c.layer, image, 1)
		require.NoError(t, err)
		require.Equal(t, c.want, net.Output)
	}
	require.Equal(t, "4x7x5", image.String())
}
