package layers

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

// requireNear compares with an absolute tolerance.
func requireNear(t *testing.T, want []float64, got []float32, tolerance float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	for i, w := range want {
		require.LessOrEqual(t, math.Abs(w-float64(got[i])), tolerance, "%s, element %d: %v, want %v", what, i, got[i], w)
	}
}

// relative is a tolerance relative to every single number; tiny ones count as 1e-3 of the largest.
func requireRelative(t *testing.T, want []float64, got []float32, tolerance float64, what string) {
	t.Helper()
	largest := 0.0
	for _, w := range want {
		largest = max(largest, math.Abs(w))
	}
	for i, w := range want {
		require.LessOrEqual(t, math.Abs(w-float64(got[i])), tolerance*max(math.Abs(w), 1e-3*largest), "%s, element %d: %v, want %v", what, i, got[i], w)
	}
}

func TestBatchNormVectors(t *testing.T) {
	for name, frozen := range map[string]bool{"": false, "_eval": true} {
		golden.Run(t, "layers", "batchnorm", func(t *testing.T, c golden.Case) {
			yTolerance, gammaTolerance := 1e-5, 1e-5
			if c.Float64("batch_mean")[0] > 10 { // the README's tolerances for a mean much larger than the deviation
				yTolerance, gammaTolerance = 1e-3, 1e-4
			}
			images, in := imageShape(c, "x")
			p := newProbe(t, &BatchNorm{Name: "bn", Epsilon: c.Number("eps"), Momentum: c.Number("momentum"), Frozen: frozen}, in, images)
			for vector, param := range map[string]string{"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"} {
				copy(p.params["bn."+param].Data(), c.Float32(vector))
			}
			p.set(c.Float32("x"), c.Float32("dy"))
			p.run(t)
			requireNear(t, c.Float64("y"+name), p.output(), yTolerance, "y")
			requireNear(t, c.Float64("dx"+name), p.gradient("x"), 1e-5*largestSlope(c, name), "dx")
			requireRelative(t, c.Float64("dgamma"+name), p.gradient("bn.weight"), gammaTolerance, "dgamma")
			requireRelative(t, c.Float64("dbeta"+name), p.gradient("bn.bias"), 1e-5, "dbeta")
			if frozen {
				require.Equal(t, c.Float32("running_mean"), p.params["bn.running_mean"].Data())
				return
			}
			requireRelative(t, c.Float64("running_mean_out"), p.params["bn.running_mean"].Data(), 1e-5, "running mean")
			requireRelative(t, c.Float64("running_var_out"), p.params["bn.running_var"].Data(), 1e-5, "running variance")
		})
	}
}

// largestSlope is max|dy·γ|/√(variance+ε) over all elements: what gradients of x are relative to.
func largestSlope(c golden.Case, name string) float64 {
	variance := c.Float64("batch_var_biased")
	if name == "_eval" {
		variance = c.Float64("running_var")
	}
	gamma, dy := c.Float64("gamma"), c.Float64("dy")
	each := len(dy) / c.Shape("x")[0] / len(gamma)
	largest := 0.0
	for i, g := range dy {
		channel := i / each % len(gamma)
		largest = max(largest, math.Abs(g*gamma[channel])/math.Sqrt(variance[channel]+c.Number("eps")))
	}
	return largest
}

func TestBatchNormErrors(t *testing.T) {
	t.Parallel()
	_, err := NewNetwork(Sequential{&BatchNorm{Momentum: 2}}, Shape{Channels: 1, Height: 1, Width: 1}, 1)
	require.EqualError(t, err, "layers: bn1: epsilon 0, momentum 2: want 0 or more, and momentum at most 1")
	_, err = NewNetwork(Sequential{&BatchNorm{Epsilon: math.NaN()}}, Shape{Channels: 1, Height: 1, Width: 1}, 1)
	require.ErrorContains(t, err, "epsilon NaN")
}

// A short batch has padded lanes, which belong to no image and must not count.
func TestBatchNormLeavesPaddedLanesOut(t *testing.T) {
	t.Parallel()
	in := Shape{Channels: 2, Height: 3, Width: 2, Signed: true}
	x, dy := noise(20*in.Len(), 1), noise(20*in.Len(), 2)
	results := map[float32][]float32{}
	for _, padding := range []float32{0, 1000} {
		p := newProbe(t, &BatchNorm{Name: "bn"}, in, 20)
		for i := range p.input.Data() {
			p.input.Data()[i] = padding
		}
		packImages(p, x, dy)
		p.run(t)
		results[padding] = append(p.output(), p.gradient("bn.weight")...)
	}
	require.Equal(t, results[0], results[1000])
}

// packImages sets the lanes of images and leaves the padded ones as they are.
func packImages(p *probe, x, dy []float32) {
	before := append([]float32{}, p.input.Data()...)
	p.set(x, dy)
	for i := range before {
		if !inBatch(i, p) {
			p.input.Data()[i] = before[i]
		}
	}
}
