package layers

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"

	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

// blocks are residual blocks of every kind.
func residualBlocks() map[string]*Residual {
	body := func(stride int) Sequential {
		return Sequential{&Conv2D{Outputs: 4, Kernel: 3, Stride: stride, Pad: 1}, &Conv2D{Outputs: 4, Kernel: 3, Pad: 1}}
	}
	return map[string]*Residual{
		"identity": {Body: body(1)},
		"padding":  {Body: body(2), Shortcut: &PadShortcut{Stride: 2, Channels: 4}},
		"conv":     {Body: body(2), Shortcut: &Conv2D{Outputs: 4, Kernel: 1, Stride: 2}},
		"pooled":   {Body: Sequential{AvgPool2D{Window: 3, Stride: 1, Pad: 1}, &Conv2D{Outputs: 4, Kernel: 3, Pad: 1}}},
		"first":    {Body: Sequential{&Residual{Body: body(1)}, &Conv2D{Outputs: 4, Kernel: 1}}},
		"nested":   {Body: Sequential{&Conv2D{Outputs: 4, Kernel: 1}, &Residual{Body: body(1)}, &Residual{Body: body(1)}}},
	}
}

func residualInput(name string) Shape {
	in := Shape{Channels: 4, Height: 5, Width: 6, Signed: true}
	if name == "padding" || name == "conv" {
		in.Channels = 3
	}
	return in
}

func TestResidualGradientsByDifferences(t *testing.T) {
	for name, block := range residualBlocks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProbe(t, block, residualInput(name), 18)
			p.set(noise(18*p.in.Len(), 3), noise(18*p.out.Len(), 4))
			requireDifferences(t, p, 0.5)
		})
	}
}

// Gorgonia adds up the gradients of a value used twice with an operation that allocates and runs on one thread.
func TestResidualGraphHasNoStockOperation(t *testing.T) {
	for name, block := range residualBlocks() {
		p := newProbe(t, block, residualInput(name), 3)
		for _, n := range p.graph.AllNodes() {
			if n.Op() == nil || n.IsScalar() {
				continue
			}
			requireOwn(t, n, name)
		}
	}
}

// requireOwn wants a node to be of this module's operations.
func requireOwn(t *testing.T, n *gorgonia.Node, note string) {
	t.Helper()
	if _, err := quantops.Result(n); !errors.Is(err, quantops.ErrInnerGradient) {
		require.NoError(t, err, "%s: %v", note, n)
	}
}

func TestResidualErrors(t *testing.T) {
	t.Parallel()
	in := Shape{Channels: 3, Height: 4, Width: 4}
	for message, block := range map[string]Layer{
		"layers: residual block: the body gives 5x4x4, the shortcut 3x4x4":                                         &Residual{Body: &Conv2D{Outputs: 5, Kernel: 3, Pad: 1}},
		"layers: residual block: the body gives 3x4x4, the shortcut 3x2x2":                                         &Residual{Body: ReLU{}, Shortcut: &PadShortcut{Stride: 2, Channels: 3}},
		"layers: PadShortcut from 3x4x4 to 2 channels with stride 0: want no fewer channels and a positive stride": &PadShortcut{Channels: 2},
	} {
		_, err := NewNetwork(Sequential{block}, in, 1)
		require.EqualError(t, err, message)
	}
}

// randomResidual returns a small residual network with batch normalization, of the papers' kind.
func randomResidual(s *random.Stream) (Sequential, Shape) {
	in := Shape{Channels: 1 + int(s.Below(3)), Height: 5 + int(s.Below(3)), Width: 5 + int(s.Below(3)), Signed: s.Below(2) == 0}
	channels := 2 + int(s.Below(3))
	root := Sequential{&Conv2D{Outputs: channels, Kernel: 3, Pad: 1, NoBias: true}, &BatchNorm{}, ReLU{}}
	for range 1 + s.Below(2) {
		wider, stride := channels+int(s.Below(4)), 1+int(s.Below(2))
		block := &Residual{Body: Sequential{
			&Conv2D{Outputs: wider, Kernel: 3, Stride: stride, Pad: 1, NoBias: true}, &BatchNorm{}, ReLU{},
			&Conv2D{Outputs: wider, Kernel: 3, Pad: 1, NoBias: true}, &BatchNorm{},
		}}
		switch {
		case s.Below(3) == 0:
			block.Shortcut = Sequential{&Conv2D{Outputs: wider, Kernel: 1, Stride: stride, NoBias: true}, &BatchNorm{}}
		case wider != channels || stride != 1:
			block.Shortcut = &PadShortcut{Stride: stride, Channels: wider}
		}
		root, channels = append(root, block), wider
		if s.Below(3) > 0 {
			root = append(root, ReLU{})
		}
	}
	return append(root, &GlobalAvgPool{}, &Linear{Outputs: 2 + int(s.Below(4))}), in
}

// disturbNorms gives normalizations statistics of all sizes, and factors of both signs.
func disturbNorms(net *Network, s *random.Stream) {
	walk(net.Root, func(l Layer) {
		b, ok := l.(*BatchNorm)
		if !ok {
			return
		}
		for c := range b.gamma.Data() {
			b.gamma.Data()[c] = float32(s.Normal())
			b.mean.Data()[c] = float32(s.Normal())
			b.variance.Data()[c] = float32(math.Abs(s.Normal())) + 0.01
		}
	})
}

// Residual networks evaluate to the integer engine's codes and logits as well.
func TestResidualEvaluationIsExact(t *testing.T) {
	for seed := range uint64(40) {
		s := random.New(seed, "residual")
		root, in := randomResidual(s)
		Quantize(root, randomMethods(s), pick(s, 0, 8))
		r := newRig(t, root, in, 1+int(s.Below(20)), s)
		disturb(r.net, s)
		disturbNorms(r.net, s)
		r.calibrate()
		disturb(r.net, s)
		r.requireExact()
	}
}

// opaque is a layer that does not tell what it is, so that a block computes what goes into it before.
type opaque struct{ Layer }

// What a block's first layer computes and keeps on its way, for an identity or for a shortcut with weights, is what the block
// would have computed before: outputs and gradients have the same bits.
func TestResidualKeepsWhatItsFirstLayerComputes(t *testing.T) {
	in := Shape{Channels: 3, Height: 6, Width: 5, Signed: true}
	for _, m := range []Methods{methods("none", "none"), methods("lsq:4", "lsq:4"), methods("lsq:4", "none"), methods("linear:4", "linear:4")} {
		for _, images := range []int{3, 16, 50, 128} {
			chain := func(wrap func(Layer) Layer) Layer {
				conv := func() Layer { return &Conv2D{Outputs: 5, Kernel: 3, Pad: 1, Methods: m} }
				block := func() Layer {
					return &Residual{Body: Sequential{wrap(conv()), &BatchNorm{}, ReLU{}, conv(), &BatchNorm{}}}
				}
				half := func(kernel, pad int) Layer {
					return &Conv2D{Outputs: 6, Kernel: kernel, Pad: pad, Stride: 2, Methods: m}
				}
				down := &Residual{
					Body:     Sequential{wrap(half(3, 1)), &BatchNorm{}, ReLU{}, &Conv2D{Outputs: 6, Kernel: 3, Pad: 1, Methods: m}, &BatchNorm{}},
					Shortcut: Sequential{half(1, 0), &BatchNorm{}},
				}
				return Sequential{conv(), &BatchNorm{}, ReLU{}, block(), ReLU{}, block(), block(), ReLU{}, down, ReLU{}, conv()}
			}
			kept := newProbe(t, chain(func(l Layer) Layer { return l }), in, images)
			apart := newProbe(t, chain(func(l Layer) Layer { return opaque{l} }), in, images)
			x, dy := noise(images*in.Len(), 1), noise(images*kept.out.Len(), 2)
			for _, p := range []*probe{kept, apart} {
				p.set(x, dy)
				for _, param := range p.params {
					if param.Theta && strings.Contains(param.Name, "input") {
						copy(param.Data(), []float32{0.25, 2}) // a step; or a range
					}
				}
				p.run(t)
				p.run(t)
			}
			name := fmt.Sprintf("%d images, weights %s, activations %s", images, m.Weights, m.Activations)
			require.Equal(t, apart.output(), kept.output(), name)
			require.Equal(t, apart.gradients, kept.gradients, name)
			require.Less(t, len(kept.graph.AllNodes()), len(apart.graph.AllNodes()), "%s: a step of its own", name)
		}
	}
}
