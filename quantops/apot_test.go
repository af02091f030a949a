package quantops

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

func TestAPoTVectors(t *testing.T) { runPowerVectors(t, "apot") }

// The authors quantize the first and last layer by the largest weight, not the largest magnitude, and do not clip: linear's
// steps without its range.
func TestAPoTFirstLastVectors(t *testing.T) {
	golden.Run(t, "apot", "first_last_8bit", func(t *testing.T, c golden.Case) {
		w, y, want, tie := c.Float32("w"), c.Float32("y"), c.Integers("code"), c.Integers("near_tie")
		u := codes{9, -255, 255}.uniform(float32(c.Number("max_w"))/127, 0)
		levels := make([]float32, len(w))
		u.Levels(levels, w)
		for i, level := range levels {
			require.LessOrEqual(t, math.Abs(float64(level)-float64(want[i])), float64(tie[i]), "code of weight %d", i)
			if tie[i] == 0 {
				require.InDelta(t, y[i], level*u.Scale, 1e-6*math.Abs(float64(y[i])), "weight %d", i)
			}
		}
	})
}

// TestAPoTConvVectors puts both quantizers around a plain convolution, forward and back.
func TestAPoTConvVectors(t *testing.T) {
	golden.Run(t, "apot", "quant_conv", func(t *testing.T, c golden.Case) {
		require.Equal(t, 1, c.Int("groups"))
		x, w, dy := c.Float32("x"), c.Float32("w"), c.Float32("dy")
		activations := newPowerActivations(t, powerMethod("apot", c.Int("bits"), c.Text("variant"), Activations), false)
		weights := newPowerWeights(t, powerMethod("apot", c.Int("bits"), c.Text("variant"), Weights), len(w))
		actTheta, weightTheta := []float32{float32(c.Number("act_alpha"))}, []float32{float32(c.Number("weight_alpha")), 0, 0}
		weights.Measure(weightTheta, w)

		conv := plainConv{c.Shape("x"), c.Shape("w"), c.Shape("y"), c.Int("stride"), c.Int("pad")}
		xq, wq := powerValues(activations, x, actTheta), powerValues(weights, w, weightTheta)
		y, size := make([]float64, len(dy)), make([]float64, len(dy)) // size: of the terms
		dxq, dwq := make([]float64, len(x)), make([]float64, len(w))
		conv.each(func(o, i, k int) {
			product := float64(xq[i]) * float64(wq[k])
			y[o] += product
			size[o] += math.Abs(product)
			dxq[i] += float64(dy[o]) * float64(wq[k])
			dwq[k] += float64(dy[o]) * float64(xq[i])
		})
		for o, want := range c.Float32("y") {
			require.InDelta(t, want, y[o], 1e-6*size[o], "output %d", o)
		}
		dx, dActAlpha := powerGradient(activations, dxq, x, actTheta)
		dw, dWeightAlpha := powerGradient(weights, dwq, w, weightTheta)
		norm := make([]float32, len(w))
		weights.normalized(norm, w, weightTheta)
		requireWithin(t, c.Float32("dx"), dx, 5e-6, nil, "dx")
		requireWithin(t, c.Float32("dw"), dw, 5e-6, nil, "dw")
		require.InDelta(t, c.Float32("dact_alpha")[0], dActAlpha, 5e-6*alphaTerms(dxq, xq, x, float64(actTheta[0]), math.Inf(-1)), "gradient of the activations' alpha")
		require.InDelta(t, c.Float32("dweight_alpha")[0], dWeightAlpha, 5e-6*alphaTerms(dwq, wq, norm, float64(weightTheta[0]), -1), "gradient of the weights' alpha")
	})
}

// powerValues is fake quantization.
func powerValues(q Quantizer, x, theta []float32) []float32 {
	levels, unit := make([]float32, len(x)), make([]float32, 1)
	q.Levels(levels, x, theta)
	q.Units(unit, theta)
	return each(levels, func(_ int, level float32) float32 { return level * unit[0] })
}

// powerGradient returns the gradients of x and of alpha.
func powerGradient(q Quantizer, dy []float64, x, theta []float32) (dx []float32, alpha float32) {
	up, dx, dtheta := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(theta))
	for i, v := range dy {
		up[i] = float32(v)
	}
	q.Backward(dx, dtheta, up, x, theta)
	return dx, dtheta[0]
}

// plainConv is a convolution of NCHW images x with OIHW weights.
type plainConv struct {
	x, w, y     []int
	stride, pad int
}

// each calls do with the indices of every product: which output it goes to, of which input and weight it is.
func (c plainConv) each(do func(output, input, weight int)) {
	size := c.w[1] * c.w[2] * c.w[3]
	for o := range c.y[0] * c.y[1] * c.y[2] * c.y[3] {
		column, row, channel, image := o%c.y[3], o/c.y[3]%c.y[2], o/(c.y[3]*c.y[2])%c.y[1], o/(c.y[3]*c.y[2]*c.y[1])
		for k := range size {
			w, h, in := k%c.w[3], k/c.w[3]%c.w[2], k/(c.w[3]*c.w[2])
			top, left := row*c.stride+h-c.pad, column*c.stride+w-c.pad
			if top >= 0 && top < c.x[2] && left >= 0 && left < c.x[3] {
				do(o, ((image*c.x[1]+in)*c.x[2]+top)*c.x[3]+left, channel*size+k)
			}
		}
	}
}
