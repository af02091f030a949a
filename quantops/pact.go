// # pact
//
// Uniform steps for activations up to a learned clipping level α.
//
//	code = round(min(max(x, 0), α)·(2^b-1)/α)      value = code·α/(2^b-1)
//	dx   = dy where 0 ≤ x < α, else 0
//	dα   = Σ dy where x ≥ α
//
//	0                           α
//	|---|---|---|---|---|---|---|--- x ---      3 bits: codes 0…7
//
// Rounding is half to even. α starts at 6, as in the paper, or from the calibration batches, averaged: at the α of least squared
// error (init=mse) or where 99.9 % of what is positive lies below (init=percentile). In training the loss pulls it up and L2 decay,
// by the network's weight decay, pulls it down. It stays at or above (2^b-1)·2^-23.
//
// Activations that can be negative, as behind a linear bottleneck, are an extension of ours: codes -(2^(b-1)-1)…2^(b-1)-1 over
// [-α, α], dx = dy where |x| < α and dα = Σ dy·sign(x) elsewhere. With sign=unsigned they are clipped at zero as the paper's.
// There is no PACT of weights: first and last layer, where they have bits of their own, are quantized by linear.
//
// Use it behind rectifiers from 2 bits on, with lsq or dorefa weights; lsq's gradient, which also knows the rounding
// inside, mostly leads to more.
//
// Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks", 2018.
package quantops

import (
	"math"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ ActivationQuantizer = (*pact)(nil)

// pact is uniform quantization of activations with a learned clipping level; see the package comment.
type pact struct {
	codes
	init string
}

var pactSpec = Spec{
	Name:        "pact",
	Doc:         "uniform steps of activations up to a clipping level learned by gradient",
	Paper:       "Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, 2018",
	Activations: Bits{2, 8},
	Options: []Option{
		{Name: "init", Doc: "where the clipping level starts: at the paper's 6, at the least squared error, or above 99.9 % of the activations", Default: "paper", Values: []string{"paper", "mse", "percentile"}},
		{Name: "sign", Doc: "codes of both signs or unsigned ones (auto: both where negative numbers occur)", Default: "auto", Values: []string{"auto", "signed", "unsigned"}},
	},
}

func init() {
	pactSpec.New = newPACT
	Register(&pactSpec)
}

const (
	pactStart = 6     // the paper's first α
	pactShare = 0.999 // of the positive activations below it with init=percentile
)

func newPACT(bits int, options Options, t Target) (Quantizer, error) {
	q := &pact{codes: unsignedCodes(bits), init: pactSpec.option(options, "init")}
	if sign := pactSpec.option(options, "sign"); sign == "signed" || sign == "auto" && t.Signed {
		q.codes = signedCodes(bits, true)
	}
	return q, nil
}

func (q *pact) Theta() Theta {
	least := []float32{smallestScale * float32(q.max)}
	return Theta{Name: "alpha", Kind: Learned, Rows: 1, Columns: []string{"alpha"}, Minimum: least, Rate: 1, Decay: 1}
}

func (q *pact) Fit(theta, x []float32, e Extent, batches int) {
	alpha := max(q.start(x, e), smallestScale*float64(q.max))
	if batches > 0 {
		alpha = float64(theta[0]) + (alpha-float64(theta[0]))/float64(batches+1)
	}
	theta[0] = float32(alpha)
}

// start is the clipping level for a batch.
func (q *pact) start(x []float32, e Extent) float64 {
	h := &rangeHistogram{}
	if q.init == "paper" {
		h.low, h.high = kernel.Range(x, e)
	} else {
		h.add(x, e)
	}
	if q.min == 0 {
		h.dropNegative()
	}
	switch reach := max(-float64(h.low), float64(h.high)); {
	case !h.finite():
		return math.NaN()
	case q.init == "paper":
		return pactStart
	case reach == 0:
		return 0
	case q.init == "mse":
		return q.leastSquaredAlpha(h, reach)
	default:
		h.zeros = 0
		low, high := h.percentile(pactShare)
		return max(-float64(low), float64(high))
	}
}

// leastSquaredAlpha tries clipping levels up to the largest magnitude.
func (q *pact) leastSquaredAlpha(h *rangeHistogram, reach float64) float64 {
	best, least := reach, math.Inf(1)
	for i := range stepCandidates {
		alpha := reach * float64(stepCandidates-i) / stepCandidates
		if err := h.squaredErrors(q.uniform(float32(alpha)), least); err < least {
			best, least = alpha, err
		}
	}
	return best
}

// uniform is the arithmetic at a clipping level.
func (q *pact) uniform(alpha float32) kernel.Uniform {
	return q.codes.uniform(alpha/float32(q.max), 0)
}

func (q *pact) Levels(levels, x, theta []float32) {
	u := q.uniform(theta[0])
	u.Levels(levels, x)
}

func (q *pact) Units(units, theta []float32) { units[0] = theta[0] / float32(q.max) }

func (q *pact) Backward(dx, dtheta, dy, x, theta []float32) {
	clip := kernel.Clip{High: math.Nextafter32(theta[0], 0), Above: 1}
	if q.min < 0 {
		clip.Low, clip.Below = -clip.High, -1
	}
	dtheta[0] = float32(clip.Gradient(dx, x, dy, x)) // levels don't matter, so x stands for them
}

func (q *pact) Grid(theta []float32) (integer.Grid, error) {
	return q.grid(theta[0]/float32(q.max), 0)
}
