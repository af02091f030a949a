// # linear
//
// Uniform steps over the range of the data.
//
//	code  = clamp(round(x/s) + z, min, max)     value = (code - z)·s
//	gradient: dx = dy where min ≤ round(x/s) + z ≤ max, else 0 (clipped straight-through estimator)
//
//	-3s  -2s  -s   0   s   2s   3s
//	 |----|----|---|---|----|----|      3 bits, narrow: codes -3…3
//
// With low ≤ 0 ≤ high the range, s = (high-low)/(max-min) and z = clamp(min - round(low/s), min, max) for asymmetric
// codes; s = max(-low, high)/((max-min)/2), z = 0 for symmetric ones; s ≥ 2^-23. Rounding is half to even. With pow2 s is
// the power of two at or above that, so that nothing more is clipped and a machine scales by shifting. Weights have
// symmetric codes without the lowest one and a scale for every output channel; activations have one scale.
//
// Where the range comes from is the observer's matter:
//
//	average     activations: moving average of the batches' ranges, m += c·(batch - m), first batch copied
//	minmax      the smallest and the largest number
//	percentile  where the given share of the numbers lies inside, by magnitude
//	mse         of 95 ranges, the data's times 1 - 0.01·i, the one of least squared error: every fifth, then around the best
//	kl          least Kullback-Leibler divergence between the magnitudes and what 2^b levels leave of them
//	lloyd       scales alone: levels nearest to the numbers, then the scale Σ x·level / Σ level², in turns until it stands still
//
// For weights average and minmax are both the range of the weights as they are, and the others too are computed anew
// in each step. For activations average and minmax follow the data in calibration and training; the others look at a
// histogram of all calibration batches, and in training the range stands still. The histogram has at least 2048 bins of magnitude
// and grows with the data by doubling; kl compares up to 2048 bins and leaves zeros out, which every grid has exactly.
//
// Use it after training, where ranges decide (mse for 4 bits and less), and for training where scales shall follow
// from the data; for 4 bits and less lsq trains to more.
//
// Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018;
// Migacz, "8-bit Inference with TensorRT", 2017 (kl); Wang et al., "Towards Accurate Post-training Network Quantization via
// Bit-Split and Stitching", 2020 (lloyd).
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

// linear is uniform quantization with a range taken from the data; see the package comment.
type linear struct {
	codes
	movingRange
	channels   int
	asymmetric bool
	affine     bool // zero points and unequal sides: asymmetric, or no negative numbers at all
	pow2       bool
	kind       Kind            // Derived or Running
	observer   string          // average and minmax follow the data, the others search
	share      float64         // inside the percentile's range
	seen       *rangeHistogram // calibration batches, for observers that look at all
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
		{Name: "observer", Doc: "range: average of the batches' ranges, minmax over all (weights: both are their own range), percentile, least squared error, least divergence or Lloyd's iteration", Default: "average", Values: []string{"average", "minmax", "percentile", "mse", "kl", "lloyd"}},
		{Name: "constant", Doc: "weight of a new batch in the moving average, in (0, 1]", Default: "0.01", Check: checkShare},
		{Name: "percentile", Doc: "share of the numbers inside the range of observer=percentile, in (0, 1]", Default: "0.99999", Check: checkShare},
		{Name: "pow2", Doc: "scales are powers of two, rounded up", Default: "false"},
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
	case get("asymmetric") == "true" && get("observer") == "lloyd":
		return nil, fmt.Errorf("observer=lloyd finds scales alone; asymmetric has zero points too")
	case linearSpec.given(options, "percentile") && get("observer") != "percentile":
		return nil, fmt.Errorf("percentile=%s is for observer=percentile", get("percentile"))
	case linearSpec.given(options, "constant") && (get("observer") != "average" || t.Role == Weights):
		return nil, fmt.Errorf("constant=%s is for activations with observer=average", get("constant"))
	}
	q := &linear{channels: 1, asymmetric: get("asymmetric") == "true", pow2: get("pow2") == "true", observer: get("observer"), kind: Running}
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
	q.share, _ = strconv.ParseFloat(get("percentile"), 64) // checked by Parse
	if q.observer == "average" {
		q.average, _ = strconv.ParseFloat(get("constant"), 64)
	}
	return q, nil
}

// searches says whether the observer looks for a range inside that of the data.
func (q *linear) searches() bool { return q.observer != "average" && q.observer != "minmax" }

func (q *linear) Theta() Theta {
	return Theta{Name: "range", Kind: q.kind, Rows: q.channels, Columns: []string{"low", "high"}}
}

func (q *linear) Fit(theta, x []float32, e Extent, batches int) {
	switch {
	case q.kind == Derived && q.searches():
		n := len(x) / q.channels
		kernel.Parallel(q.channels, func(c int) {
			theta[2*c], theta[2*c+1] = q.weightRange(x[c*n : (c+1)*n])
		})
	case q.kind == Derived:
		eachChannel(q.channels, x, func(c, from, to int) {
			theta[2*c], theta[2*c+1] = kernel.Range(x[from:to], kernel.Dense(to-from))
		})
	case q.searches():
		if batches == 0 || q.seen == nil {
			q.seen = &rangeHistogram{}
		}
		q.seen.add(x, e)
		theta[0], theta[1] = q.histogramRange(q.seen)
	default:
		low, high := kernel.Range(x, e)
		q.follow(theta, low, high, batches)
	}
}

// Observe moves the range of activations in training; calibration came first. One that was searched stands still.
func (q *linear) Observe(theta []float32, low, high float32) {
	if !q.searches() {
		q.follow(theta, low, high, 1)
	}
}

// weightRange searches the range of one channel's weights.
func (q *linear) weightRange(x []float32) (low, high float32) {
	low, high = kernel.Range(x, kernel.Dense(len(x)))
	switch {
	case low-low != 0 || high-high != 0 || q.observer == "percentile" && int(math.Ceil(q.share*float64(len(x)))) == len(x):
		return low, high
	case q.observer == "mse":
		return q.leastRange(low, high, func(u kernel.Uniform, limit float64) float64 { return squaredErrors(u, x, limit) })
	}
	h := histograms.Get().(*rangeHistogram)
	defer histograms.Put(h)
	*h = rangeHistogram{}
	h.add(x, kernel.Dense(len(x)))
	return q.histogramRange(h)
}

// histogramRange searches the range of the numbers of a histogram.
func (q *linear) histogramRange(h *rangeHistogram) (low, high float32) {
	switch {
	case !h.finite() || h.reach == 0:
		return h.low, h.high
	case q.observer == "percentile":
		return h.percentile(q.share)
	case q.observer == "mse":
		return q.leastRange(h.low, h.high, h.squaredErrors)
	case q.observer == "lloyd":
		return q.rangeOf(h.lloyd(q.codes), h.low)
	}
	levels := int(q.max) + 1 // of one sign
	if q.asymmetric && h.low < 0 && h.high > 0 {
		levels /= 2
	}
	return h.entropy(levels)
}

// rangeOf is the range that has a step, the inverse of scale for codes without a zero point; unsigned ones have nothing below
// zero, whatever the lower end.
func (q *linear) rangeOf(step float64, least float32) (low, high float32) {
	steps := float64(q.max - q.min)
	if q.affine {
		return least, float32(step * steps)
	}
	high = float32(step * (steps / 2))
	return -high, high
}

const (
	rangeCandidates = 95 // ranges for the least squared error, each a hundredth of the whole smaller
	rangeStride     = 5  // those that are looked at first; then the ones between the best of them and its neighbours
	rangeMiddle     = 45 // the very first: seldom bad, so that others can be given up early
)

// leastRange returns the part of the range [low, high] of least squared error. squaredErrors may give up beyond a limit.
func (q *linear) leastRange(low, high float32, squaredErrors func(u kernel.Uniform, limit float64) float64) (float32, float32) {
	part := func(i int) (float32, float32) {
		share := float64(100-i) / 100
		return float32(share * float64(low)), float32(share * float64(high))
	}
	best, least := 0, math.Inf(1)
	try := func(i int) {
		l, h := part(i)
		if err := squaredErrors(q.uniform([]float32{l, h}, 0), least); err < least {
			best, least = i, err
		}
	}
	for i := 0; i < rangeCandidates; i += rangeStride {
		try((i + rangeMiddle) % rangeCandidates)
	}
	coarse := best
	for i := max(0, coarse-rangeStride+1); i < min(rangeCandidates, coarse+rangeStride); i++ {
		if i != coarse {
			try(i)
		}
	}
	return part(best)
}

// scale returns the step size and the zero point for a range.
func (q *linear) scale(low, high float32) (scale float32, zero int32) {
	l, h := math.Min(float64(low), 0), math.Max(float64(high), 0)
	steps := float64(q.max - q.min)
	if !q.affine {
		return q.step(math.Max(-l, h) / (steps / 2)), 0
	}
	if !q.asymmetric {
		l = 0 // unsigned and symmetric: zero is the lowest code
	}
	scale = q.step((h - l) / steps)
	zero = q.min - int32(integer.Round(float32(l)/scale))
	return scale, min(max(zero, q.min), q.max)
}

// step returns a step size as it is used.
func (q *linear) step(s float64) float32 {
	step := float32(max(s, smallestScale))
	if fraction, exponent := math.Frexp(float64(step)); q.pow2 && fraction != 0.5 {
		return step - step + float32(math.Ldexp(1, min(exponent, 127))) // what is not finite stays that
	}
	return step
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
