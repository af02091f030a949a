package layers

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

func methods(weights, activations string) Methods {
	return Methods{Weights: quantops.MustParse(weights), Activations: quantops.MustParse(activations)}
}

// weightSteps reads scales and zero points off the integers that the weights export.
func weightSteps(w *integer.Weights, narrow bool) []steps {
	channels, middle := make([]steps, w.Shape[0]), math.Ldexp(1, int(w.Bits)-1)
	for o := range channels {
		s := steps{scale: w.Planes[0].Scale[o], min: -middle, max: middle - 1}
		if narrow {
			s.min++
		}
		if len(w.Planes) == 2 {
			s.min, s.max, s.zero = 0, 2*middle-1, middle-w.Planes[1].Scale[o]/s.scale
		}
		channels[o] = s
	}
	return channels
}

// activationSteps reads them off the integer model's grid; of no quantizer there are none.
func activationSteps(t *testing.T, a *activation) []steps {
	t.Helper()
	g, err := a.grid()
	require.NoError(t, err)
	return []steps{{float64(g.Scale), float64(g.Zero), float64(g.Min), float64(g.Max)}}
}

// weightedCase is a layer with weights next to the definition of what it computes.
type weightedCase struct {
	layer Layer
	core  *weighted
	taps  taps
}

func weightedCases(m Methods) map[string]weightedCase {
	in, flat := Shape{Channels: 4, Height: 6, Width: 5, Signed: true}, Shape{Channels: 30, Height: 1, Width: 1, Signed: true}
	conv := &Conv2D{Name: "layer", Outputs: 6, Kernel: 3, Stride: 2, Pad: 1, Groups: 2, Methods: m}
	same := &Conv2D{Name: "layer", Outputs: 3, Kernel: 3, Stride: 2, Same: true, Methods: m}
	linear := &Linear{Name: "layer", Outputs: 7, Methods: m}
	even := Shape{Channels: 2, Height: 6, Width: 6, Signed: true} // of which "same" pads the far sides alone
	return map[string]weightedCase{
		"conv":   {conv, &conv.weighted, taps{in, Shape{6, 3, 3, true}, 3, 2, 1, 2}},
		"same":   {same, &same.weighted, taps{even, Shape{3, 3, 3, true}, 3, 2, 0, 1}},
		"linear": {linear, &linear.weighted, taps{flat, Shape{7, 1, 1, true}, 1, 1, 0, 1}},
	}
}

// Training computes what the same layer computes in real arithmetic on fake-quantized weights and activations, and its
// gradients are the straight-through ones.
func TestTrainingIsFakeQuantization(t *testing.T) {
	for _, m := range []Methods{
		methods("none", "none"), methods("lsq:2", "lsq:2"), methods("lsq:3,per=channel", "lsq:4"), methods("lsq:4,range=narrow", "lsq:8"),
		methods("linear:4", "linear:4,observer=minmax"), methods("linear:8,per=tensor", "linear:3,asymmetric,observer=minmax"),
		methods("linear:3,asymmetric", "linear:4,asymmetric,observer=minmax"), methods("linear:4,asymmetric,per=tensor", "lsq:4"),
		methods("lsq:4", "none"), methods("none", "lsq:4"), methods("linear:4,asymmetric", "none"), methods("none", "linear:4,observer=minmax"),
	} {
		for name, c := range weightedCases(m) {
			t.Run(name+" "+m.Weights.String()+" "+m.Activations.String(), func(t *testing.T) { requireFakeQuantization(t, c, m, 18) })
		}
	}
}

func requireFakeQuantization(t *testing.T, c weightedCase, m Methods, images int) {
	t.Helper()
	p := newProbe(t, c.layer, c.taps.in, images)
	x, dy := noise(images*p.in.Len(), 1), noise(images*p.out.Len(), 2)
	copy(p.params["layer.bias"].Data(), noise(p.out.Channels, 3))
	p.set(x, dy)
	if !c.core.input.none() {
		c.core.input.quantizer.Fit(c.core.input.theta.Data(), p.input.Data(), kernel.Images(images, p.in.Len()), 0)
	}
	w := p.params["layer.weight"].Data()
	p.run(t)

	real, weights, bias := float64s(x), float64s(w), float64s(p.params["layer.bias"].Data())
	xq, wq := real, weights
	if !m.Activations.None() {
		xq = quantized(real, activationSteps(t, &c.core.input))
	}
	var ws []steps
	if !m.Weights.None() {
		encoded, err := c.core.weight.Encode()
		require.NoError(t, err)
		ws = weightSteps(encoded, m.Weights.Name() == "linear" || strings.Contains(m.Weights.String(), "narrow"))
		wq = quantized(weights, ws)
	}
	requireClose(t, c.taps.forward(xq, wq, bias, images), p.output(), 5e-6, "y")
	dx, dw, db := c.taps.backward(xq, wq, float64s(dy), images)
	requireClose(t, db, p.gradient("layer.bias"), 1e-5, "db")
	if !m.Activations.None() {
		dx = requireStep(t, p, real, dx, activationSteps(t, &c.core.input), "layer.input.step", p.in.Len())
	}
	if !m.Weights.None() {
		dw = requireStep(t, p, weights, dw, ws, "layer.weight.step", len(w))
	}
	requireClose(t, dx, p.gradient("x"), 5e-6, "dx")
	requireClose(t, dw, p.gradient("layer.weight"), 1e-5, "dw")
}

// requireStep returns the straight-through gradient of x and checks that of the step sizes, if they are learned; size
// is N of a tensor: weights in all or activations of an image.
func requireStep(t *testing.T, p *probe, x, dvalue []float64, channels []steps, name string, size int) []float64 {
	t.Helper()
	param := p.params[name]
	if param == nil {
		dx, _, _ := surrogate(x, dvalue, channels)
		return dx
	}
	if len(param.Data()) == 1 {
		channels = channels[:1]
	}
	dx, dstep, magnitude := surrogate(x, dvalue, channels)
	factor := 1 / math.Sqrt(float64(size/len(channels))*channels[0].max)
	for i := range dstep {
		require.InDelta(t, dstep[i]*factor, p.gradient(name)[i], 5e-6*magnitude[i]*factor, "%s %d", name, i)
	}
	return dx
}
