package quantops

import (
	"fmt"
	"math"
	"strconv"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ WeightQuantizer = (*linear)(nil)
var _ ActivationQuantizer = (*linear)(nil)
var _ RangeFollower = (*linear)(nil)

// linear is uniform quantization with a range taken from the data.
//
//	code  = clamp(round(x/s) + z, min, max)     value = (code - z)·s
//	gradient: dx = dy where min ≤ round(x/s) + z ≤ max, else 0 (clipped straight-through estimator)
//
// With low ≤ 0 ≤ high the observed range, s = (high-low)/(max-min) and z = clamp(min - round(low/s), min, max) for
// asymmetric ranges; s = max(-low, high)/((max-min)/2), z = 0 for symmetric ones; s ≥ 2^-23. Weights follow their
// own range each step; activations a moving average of the batches' ranges, m += c·(batch - m).
//
// Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018.
type linear struct {
	codes
	channels   int
	asymmetric bool
	affine     bool    // zero points and unequal sides: asymmetric, or no negative numbers at all
	kind       Kind    // Derived or Running
	average    float64 // c of the moving average; 0 for the running minimum and maximum
}

var linearSpec = Spec{
	Name:        "linear",
	Doc:         "uniform steps over the range of the data, clipped straight-through gradient",
	Paper:       "Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018",
	Weights:     Bits{2, 8},
	Activations: Bits{2, 8},
	Options: []Option{
		{Name: "asymmetric", Doc: "a zero point per channel, for ranges that are not centred on zero", Default: "false"},
		{Name: "per", Doc: "one scale per output channel or per tensor (weights; activations are per tensor)", Default: "auto", Values: []string{"auto", "channel", "tensor"}},
		{Name: "range", Doc: "narrow leaves out the lowest signed code, so that both sides are equal (auto: narrow for weights)", Default: "auto", Values: []string{"auto", "narrow", "full"}},
		{Name: "sign", Doc: "signed or unsigned codes (auto: signed where negative numbers occur)", Default: "auto", Values: []string{"auto", "signed", "unsigned"}},
		{Name: "observer", Doc: "range of activations: average of the batches' ranges or minmax over all (weights: their own range)", Default: "average", Values: []string{"average", "minmax"}},
		{Name: "constant", Doc: "weight of a new batch in the moving average, in (0, 1]", Default: "0.01", Check: checkShare},
	},
}

func init() {
	linearSpec.New = newLinear
	Register(&linearSpec)
}

func checkShare(value string) error {
	if v, err := strconv.ParseFloat(value, 64); err != nil || !(v > 0 && v <= 1) {
		return fmt.Errorf("is a number in (0, 1]")
	}
	return nil
}

func newLinear(bits int, options Options, t Target) (Quantizer, error) {
	get := func(name string) string { return linearSpec.option(options, name) }
	switch {
	case t.Role == Activations && get("per") == "channel":
		return nil, fmt.Errorf("per=channel is for weights; activations have one scale per tensor")
	case get("asymmetric") == "true" && get("sign") == "signed":
		return nil, fmt.Errorf("sign=signed contradicts asymmetric, whose codes are unsigned")
	case get("range") == "narrow" && (get("asymmetric") == "true" || get("sign") == "unsigned"):
		return nil, fmt.Errorf("range=narrow is for signed codes")
	}
	q := &linear{channels: 1, asymmetric: get("asymmetric") == "true", kind: Running}
	if t.Role == Weights {
		q.kind = Derived
	}
	if t.Role == Weights && get("per") != "tensor" {
		q.channels = t.Channels
	}
	signed := get("sign") == "signed" || get("sign") == "auto" && (t.Signed || t.Role == Weights)
	narrow := get("range") == "narrow" || get("range") == "auto" && t.Role == Weights
	q.affine = q.asymmetric || !signed
	q.codes = signedCodes(bits, narrow)
	if q.affine {
		q.codes = unsignedCodes(bits)
	}
	if get("observer") == "average" {
		q.average, _ = strconv.ParseFloat(get("constant"), 64) // checked by Parse
	}
	return q, nil
}

func (q *linear) Theta() Theta {
	return Theta{Name: "range", Kind: q.kind, Rows: q.channels, Columns: []string{"low", "high"}}
}

func (q *linear) Fit(theta, x []float32, e Extent, batches int) {
	if q.kind == Running {
		low, high := kernel.Range(x, e)
		q.observe(theta, low, high, batches)
		return
	}
	eachChannel(q.channels, x, func(c, from, to int) {
		theta[2*c], theta[2*c+1] = kernel.Range(x[from:to], kernel.Dense(to-from))
	})
}

// observe moves the range [low, high] of activations towards that of a batch.
func (q *linear) observe(theta []float32, low, high float32, batches int) {
	switch {
	case batches == 0:
		theta[0], theta[1] = low, high
	case q.average == 0:
		theta[0], theta[1] = min(theta[0], low), max(theta[1], high)
	default:
		theta[0] += float32(q.average * (float64(low) - float64(theta[0])))
		theta[1] += float32(q.average * (float64(high) - float64(theta[1])))
	}
}

// Observe moves the range of activations in training; calibration came first.
func (q *linear) Observe(theta []float32, low, high float32) { q.observe(theta, low, high, 1) }

// scale returns the step size and the zero point for a range.
func (q *linear) scale(low, high float32) (scale float32, zero int32) {
	l, h := math.Min(float64(low), 0), math.Max(float64(high), 0)
	steps := float64(q.max - q.min)
	if !q.affine {
		return float32(max(math.Max(-l, h)/(steps/2), smallestScale)), 0
	}
	if !q.asymmetric {
		l = 0 // unsigned and symmetric: zero is the lowest code
	}
	scale = float32(max((h-l)/steps, smallestScale))
	zero = q.min - int32(integer.Round(float32(l)/scale))
	return scale, min(max(zero, q.min), q.max)
}

func (q *linear) uniform(theta []float32, channel int) kernel.Uniform {
	return q.codes.uniform(q.scale(theta[2*channel], theta[2*channel+1]))
}

func (q *linear) Levels(levels, x, theta []float32) {
	eachChannel(q.channels, x, func(c, from, to int) {
		u := q.uniform(theta, c)
		u.Levels(levels[from:to], x[from:to])
	})
}

func (q *linear) Units(units, theta []float32) {
	for c := range q.channels {
		units[c], _ = q.scale(theta[2*c], theta[2*c+1])
	}
}

func (q *linear) Backward(dx, _, dy, x, theta []float32) {
	eachChannel(q.channels, x, func(c, from, to int) {
		u := q.uniform(theta, c)
		u.Gradient(dx[from:to], dy[from:to], x[from:to])
	})
}

func (q *linear) Encode(x, theta []float32, shape []int) (*integer.Weights, error) {
	levels, scales, zeros := make([]float32, len(x)), make([]float32, q.channels), make([]int32, q.channels)
	q.Levels(levels, x, theta)
	for c := range scales {
		scales[c], zeros[c] = q.scale(theta[2*c], theta[2*c+1])
	}
	if !q.affine {
		zeros = nil
	}
	return q.encode(levels, scales, zeros, shape)
}

func (q *linear) Grid(theta []float32) (integer.Grid, error) {
	return q.grid(q.scale(theta[0], theta[1]))
}
