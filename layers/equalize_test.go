package layers

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// logits runs a network in evaluation.
func logits(t *testing.T, n *Network, images []float32, count int) []float32 {
	t.Helper()
	p := NewPass(Evaluation, count)
	out, err := n.Forward(p, images)
	require.NoError(t, err)
	require.NoError(t, p.Refresh())
	machine := gorgonia.NewTapeMachine(p.Graph)
	defer machine.Close()
	require.NoError(t, machine.RunAll())
	y, err := quantops.Result(out.Node)
	require.NoError(t, err)
	return slices.Clone(y)
}

// equalizedNetwork has everything that scales of channels go through.
func equalizedNetwork(t *testing.T) (*Network, []float32) {
	t.Helper()
	root := Sequential{
		&Conv2D{Name: "conv1", Outputs: 4, Kernel: 3, Pad: 1, NoBias: true}, &BatchNorm{Name: "bn1"}, ReLU{},
		&Residual{Body: Sequential{
			&Conv2D{Name: "conv2", Outputs: 4, Kernel: 3, Pad: 1, NoBias: true}, &BatchNorm{Name: "bn2"}, ReLU{},
			&Conv2D{Name: "conv3", Outputs: 4, Kernel: 3, Pad: 1, NoBias: true}, &BatchNorm{Name: "bn3"},
		}}, ReLU{},
		&Residual{
			Body: Sequential{
				&Conv2D{Name: "conv4", Outputs: 6, Kernel: 3, Stride: 2, Pad: 1}, &PReLU{Name: "prelu"},
				&Conv2D{Name: "depthwise", Outputs: 6, Kernel: 3, Pad: 1, Groups: 6}, ReLU{},
				&Conv2D{Name: "grouped", Outputs: 6, Kernel: 1, Groups: 2}, &BatchNorm{Name: "bn4"},
			},
			Shortcut: &PadShortcut{Stride: 2, Channels: 6},
		}, ReLU{},
		&Residual{
			Body:     Sequential{&Conv2D{Name: "conv5", Outputs: 5, Kernel: 1}},
			Shortcut: Sequential{&Conv2D{Name: "shortcut", Outputs: 5, Kernel: 1}},
		}, ReLU{}, MaxPool2D{Window: 2},
		Flatten{}, &Linear{Name: "fc1", Outputs: 7}, ReLU{}, &Linear{Name: "fc2", Outputs: 3},
	}
	network, err := NewNetwork(root, Shape{Channels: 2, Height: 8, Width: 8, Signed: true}, 4)
	require.NoError(t, err)
	s := random.New(9, "equalize")
	for _, p := range network.Params() {
		if p.Value.Dims() == 1 {
			for i := range p.Data() {
				p.Data()[i] = float32(0.5 + s.Float64())
			}
			continue
		}
		each := len(p.Data()) / p.Value.Shape()[0]
		for i := range p.Data() { // rows of all sizes
			p.Data()[i] *= 1 / float32(int(1)<<(i/each*5%8))
		}
	}
	images := make([]float32, 2*8*8*16)
	for i := range images {
		images[i] = float32(s.Normal())
	}
	return network, images
}

// wish wants scales of all sizes of every channel.
func wish(n *Network) map[string][]float64 {
	s, wanted := random.New(3, "wish"), map[string][]float64{}
	walk(n.Root, func(l Layer) {
		if w, ok := l.(interface{ core() *weighted }); ok {
			for range w.core().in.Channels {
				wanted[w.core().name] = append(wanted[w.core().name], math.Exp(4*s.Float64()))
			}
		}
	})
	return wanted
}

// The network computes the very same numbers; what its layers take in differs by the scales.
func TestEqualizationChangesNoOutput(t *testing.T) {
	network, images := equalizedNetwork(t)
	before := logits(t, network, images, 16)
	weights := map[string][]float32{}
	for _, p := range network.Params() {
		weights[p.Name] = slices.Clone(p.Data())
	}
	e, err := NewEqualization(network)
	require.NoError(t, err)
	changed := e.Apply(wish(network))
	require.Greater(t, changed, 15)
	requireSame(t, before, logits(t, network, images, 16))

	same := map[string]bool{"conv1.weight": true, "fc2.bias": true, "grouped.bias": true} // at the input, the output and before a normalization
	for _, p := range network.Params() {
		if p.Kind == quantops.Running || p.Name == "prelu.weight" {
			same[p.Name] = true
		}
		if same[p.Name] {
			require.Equal(t, weights[p.Name], p.Data(), p.Name)
		} else {
			require.NotEqual(t, weights[p.Name], p.Data(), p.Name)
		}
	}
}

func requireSame(t *testing.T, want, got []float32) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]), "%d: %v, want %v", i, got[i], want[i])
	}
}

// Channels that a residual sum joins have one scale, through stages; channels of a body have their own.
func TestEqualizationOfAStream(t *testing.T) {
	network, _ := equalizedNetwork(t)
	e, err := NewEqualization(network)
	require.NoError(t, err)
	scales := e.scales(wish(network))
	inputs := map[string][]float64{}
	for _, c := range e.consumers {
		for i := range c.layer.in.Channels {
			inputs[c.layer.name] = append(inputs[c.layer.name], scales[c.scale(i)])
		}
	}
	require.Equal(t, []float64{1, 1}, inputs["conv1"])
	require.Equal(t, inputs["conv2"], inputs["conv4"])
	require.Equal(t, inputs["conv4"], inputs["conv5"][1:5], "padded by one channel on each side")
	require.Equal(t, inputs["conv5"], inputs["shortcut"])
	require.NotEqual(t, inputs["conv2"], inputs["conv3"])
	for f, scale := range inputs["fc1"] {
		require.Equal(t, inputs["fc1"][f/4*4], scale, "features of a channel")
	}
	for name, all := range inputs {
		for _, scale := range all {
			fraction, _ := math.Frexp(scale)
			require.Equal(t, 0.5, fraction, name)
			require.LessOrEqual(t, scale, 1.0, name)
		}
	}
}

// Where weights are divided, none becomes larger than the largest of its layer was; nearly dead channels, and dead ones,
// change nothing of that.
func TestEqualizationKeepsRangesOfWeights(t *testing.T) {
	network, images := equalizedNetwork(t)
	conv4 := paramOf(t, network, "conv4.weight")
	clear(conv4.Data()[2*4*9:][:4*9]) // a dead channel
	before, largest := logits(t, network, images, 16), map[string]float64{}
	for _, p := range network.Params() {
		largest[p.Name] = reach(p.Data())
	}
	wanted := wish(network)
	for name, shares := range wanted {
		for i := range shares {
			if i%2 == 0 {
				shares[i] *= 1e-6
			}
		}
		wanted[name] = append(shares[:len(shares)-1], 1e3)
	}
	e, err := NewEqualization(network)
	require.NoError(t, err)
	require.Positive(t, e.Apply(wanted))
	requireSame(t, before, logits(t, network, images, 16))
	for _, p := range network.Params() {
		if p.Value.Dims() > 1 {
			require.LessOrEqual(t, reach(p.Data()), largest[p.Name], p.Name)
		}
	}
	require.LessOrEqual(t, reach(paramOf(t, network, "bn2.weight").Data()), 256*largest["bn2.weight"])
	require.Greater(t, reach(paramOf(t, network, "bn2.weight").Data()), 100*largest["bn2.weight"], "normalizations have no range")
}

func paramOf(t *testing.T, n *Network, name string) *Param {
	t.Helper()
	for _, p := range n.Params() {
		if p.Name == name {
			return p
		}
	}
	require.Fail(t, "no parameter "+name)
	return nil
}

// A layer of another kind, whatever it does, is refused.
func TestEqualizationRefusesUnknownLayers(t *testing.T) {
	network, err := NewNetwork(Sequential{&Conv2D{Outputs: 2, Kernel: 1}, strange{}, Flatten{}, &Linear{Outputs: 2}}, Shape{Channels: 1, Height: 2, Width: 2}, 1)
	require.NoError(t, err)
	_, err = NewEqualization(network)
	require.EqualError(t, err, "layers: equalization: a layers.strange may tell scales apart")
}

// strange is a layer of a kind of its own.
type strange struct{ ReLU }
