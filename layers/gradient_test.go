package layers

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
)

// requireDifferences compares every gradient with central differences of the loss. The loss is linear in every single
// number within ±h, so that h may be large and float32 rounding small beside it.
func requireDifferences(t *testing.T, p *probe, h float32) {
	t.Helper()
	for name, param := range p.params {
		p.run(t)
		data, gradient := param.Data(), append([]float32{}, p.gradients[name]...)
		stride := max(1, len(data)/97) // a share of them, spread over all
		want, got := []float64{}, []float32{}
		for i := 0; i < len(data); i += stride {
			if name == "x" && !inBatch(i, p) {
				continue
			}
			before := data[i]
			data[i] = before + h
			p.run(t)
			difference := p.loss()
			data[i] = before - h
			p.run(t)
			want, got = append(want, (difference-p.loss())/(2*float64(h))), append(got, gradient[i])
			data[i] = before
		}
		requireClose(t, want, got, 2e-4, name)
	}
}

// inBatch says whether element i of a block tensor belongs to an image.
func inBatch(i int, p *probe) bool {
	block := i / (p.in.Len() * kernel.Lanes)
	return block*kernel.Lanes+i%kernel.Lanes < p.images
}

// spread returns n numbers in random order, no two nearer than 1/4 and none nearer than 1/8 to zero.
func spread(n int) []float32 {
	x := make([]float32, n)
	for i, k := range random.New(1, "spread").Permutation(n) {
		x[i] = (float32(k-n/2) + 0.5) / 4
	}
	return x
}

func TestGradientsByDifferences(t *testing.T) {
	image := Shape{Channels: 4, Height: 6, Width: 5, Signed: true}
	for name, c := range map[string]struct {
		layer  Layer
		kinked bool // linear only near numbers that lie apart
	}{
		"conv":          {&Conv2D{Outputs: 3, Kernel: 3, Pad: 1}, false},
		"conv stride":   {&Conv2D{Outputs: 5, Kernel: 2, Stride: 2, Pad: 1}, false},
		"conv groups":   {&Conv2D{Outputs: 6, Kernel: 3, Stride: 3, Pad: 2, Groups: 2, NoBias: true}, false},
		"conv same":     {&Conv2D{Outputs: 3, Kernel: 3, Stride: 2, Same: true}, false},
		"conv same far": {&Conv2D{Outputs: 2, Kernel: 4, Stride: 3, Same: true, Groups: 2}, false},
		"conv depth":    {&Conv2D{Outputs: 4, Kernel: 5, Pad: 2, Groups: 4}, false},
		"linear":        {Sequential{Flatten{}, &Linear{Outputs: 7}}, false},
		"linear bare":   {Sequential{Flatten{}, &Linear{Outputs: 3, NoBias: true}}, false},
		"avgpool":       {AvgPool2D{Window: 2}, false},
		"avgpool pad":   {AvgPool2D{Window: 3, Stride: 2, Pad: 1}, false},
		"flatten":       {Flatten{}, false},
		"in sequence":   {Sequential{&Conv2D{Outputs: 2, Kernel: 3}, AvgPool2D{Window: 2}, Flatten{}, &Linear{Outputs: 3}, &Linear{Outputs: 2}}, false},
		"relu":          {ReLU{}, true},
		"maxpool":       {MaxPool2D{Window: 2}, true},
		"maxpool pad":   {MaxPool2D{Window: 3, Stride: 2, Pad: 1}, true},
		"input pooling": {Sequential{MaxPool2D{Window: 2}, &Conv2D{Outputs: 2, Kernel: 1}}, true},
		"input relu":    {Sequential{ReLU{}, &Conv2D{Outputs: 2, Kernel: 2, Stride: 2}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, images := range []int{1, 18} {
				p := newProbe(t, c.layer, image, images)
				x, h := noise(images*image.Len(), 1), float32(0.5)
				if c.kinked {
					x, h = spread(images*image.Len()), 1./16
				}
				p.set(x, noise(images*p.out.Len(), 3))
				requireDifferences(t, p, h)
			}
		})
	}
}

// Neither outputs nor gradients of the images feel what stands in lanes without an image.
func TestPaddedLanesStayAway(t *testing.T) {
	conv := func() *Conv2D {
		return &Conv2D{Outputs: 3, Kernel: 3, Pad: 1, Methods: methods("lsq:4", "lsq:4")}
	}
	for name, l := range map[string]func() Layer{
		"pool":           func() Layer { return Sequential{conv(), ReLU{}, MaxPool2D{Window: 2}} },
		"norm":           func() Layer { return Sequential{conv(), &BatchNorm{}, ReLU{}, conv(), &BatchNorm{}} },
		"pool norm":      func() Layer { return Sequential{conv(), AvgPool2D{Window: 2}, &BatchNorm{}} },
		"relu norm":      func() Layer { return Sequential{conv(), ReLU{}, &BatchNorm{}, conv()} },
		"residual norm":  func() Layer { return Sequential{conv(), &Residual{Body: conv()}, &BatchNorm{}} },
		"pre-activation": func() Layer { return Sequential{conv(), &Residual{Body: Sequential{&BatchNorm{}, ReLU{}, conv()}}} },
	} {
		root := func() Layer {
			return Sequential{l(), Flatten{}, &Linear{Outputs: 2, Methods: methods("linear:4", "linear:4")}}
		}
		for _, images := range []int{5, 18} {
			clean, dirty := runPadded(t, root(), images, 0), runPadded(t, root(), images, 1e3)
			require.Equal(t, clean.output(), dirty.output(), name)
			require.Equal(t, clean.gradient("x"), dirty.gradient("x"), name)
			for param := range clean.gradients {
				if param != "x" {
					require.Equal(t, clean.gradient(param), dirty.gradient(param), "%s: %s", name, param)
				}
			}
			require.Equal(t, clean.params["fc1.input.range"].Data(), dirty.params["fc1.input.range"].Data(), name)
		}
	}
}

// runPadded runs the layer on images whose padded lanes hold garbage.
func runPadded(t *testing.T, l Layer, images int, garbage float32) *probe {
	t.Helper()
	in := Shape{Channels: 2, Height: 4, Width: 4, Signed: true}
	p := newProbe(t, l, in, images)
	for name, param := range p.params {
		if strings.HasSuffix(name, ".input.step") {
			param.Data()[0] = 0.2
		}
	}
	p.set(noise(images*in.Len(), 1), noise(images*p.out.Len(), 2))
	for i := range p.input.Data() {
		if i/(in.Len()*kernel.Lanes)*kernel.Lanes+i%kernel.Lanes >= images {
			p.input.Data()[i] = garbage
		}
	}
	p.run(t)
	return p
}
