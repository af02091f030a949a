// # lbw
//
// Weights searched for among few values: a softmax that a falling temperature τ sharpens, without a straight-through estimator.
//
//	P_i  = exp(A_i/τ) / Σ_j exp(A_j/τ)              for every weight, over the values v_i
//	soft = Σ_i P_i·v_i                              what training computes with
//	hard = v_i of the largest A_i                   what is deployed; the first of equal ones
//	dA_i = dy·P_i·(v_i - soft)/τ                    exact
//
//	-1        -1/3        1/3         1 · s
//	 |----------|----------|----------|      2 bits: 2^b values from -1 to 1, no zero among them
//
// Values are equally spaced, {-1, 1} at 1 bit, or with values=-1:0:1 what a list of integers says, over the largest of them.
// A weight has a number A_i for each value; weight decay leaves these alone but for decay=true, and rate multiplies their
// learning rate.
//
// A starts from the weights w of the float network,
//
//	A_i = -((w/s - v_i)/δ)²,  δ the least distance of two values
//
// which makes soft close to w/s at τ = 1; s is that of the channel's least squared error (init=mse) or its max|w| (init=max).
// With init=he, A is drawn with variance 2/fan-out, and the float weights do not matter. Batch normalization takes away the
// size of weights; where none follows, and with scale=channel, each channel has a learned scale, which starts from s.
//
// The temperature follows --anneal; behind its end the choice is one-hot, soft = hard. Batch normalization behind a layer keeps
// statistics of both, of which inference uses those of hard weights (--state-bn).
//
// Use it for 1 and 2 bits where training is long; it needs memory for as many numbers a weight as it has values.
//
// Yang et al., "Searching for Low-Bit Weights in Quantized Neural Networks", 2020.
package quantops

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ Relaxation = (*lbw)(nil)

// lbw is a search for low-bit weights; see the package comment.
type lbw struct {
	bits     int
	channels int
	search   Search
	gap      float64 // δ
	max      bool    // start from max|w|
}

var lbwSpec = Spec{
	Name:    "lbw",
	Doc:     "values searched for by a softmax that a falling temperature sharpens, with an exact gradient",
	Paper:   "Yang et al., Searching for Low-Bit Weights in Quantized Neural Networks, 2020",
	Weights: Bits{1, 4},
	Options: []Option{
		{Name: "values", Doc: "even, 2^b from -1 to 1, or ascending integers such as -1:0:1, which count as shares of the largest", Default: "even", Check: checkValues},
		{Name: "init", Doc: "A from the float weights over the scale of least squared error or over their maximum, in each channel, or at random", Default: "mse", Values: []string{"mse", "max", "he"}},
		{Name: "scale", Doc: "a learned scale for each channel: where no batch normalization follows, always, or never", Default: "auto", Values: []string{"auto", "channel", "none"}},
		{Name: "rate", Doc: "what the learning rate of A is multiplied with", Default: "30", Check: checkSearchRate},
		{Name: "decay", Doc: "weight decay of A", Default: "false"},
	},
}

func init() {
	lbwSpec.Relax = newLBW
	Register(&lbwSpec)
}

// maxLevel is the largest integer that values may be told in: what a byte holds.
const maxLevel = 127

func checkValues(text string) error {
	_, err := parseValues(text)
	return err
}

// parseValues returns the integers of a list; none for even.
func parseValues(text string) ([]float32, error) {
	if text == "even" {
		return nil, nil
	}
	var values []float32
	for _, item := range strings.Split(text, ":") {
		v, err := strconv.Atoi(item)
		if err != nil || v < -maxLevel || v > maxLevel || len(values) > 0 && float32(v) <= values[len(values)-1] {
			return nil, fmt.Errorf("is even or ascending integers of at most %d in magnitude, for example -1:0:1", maxLevel)
		}
		values = append(values, float32(v))
	}
	if len(values) < 2 || len(values) > kernel.MaxValues {
		return nil, fmt.Errorf("has 2 to %d values", kernel.MaxValues)
	}
	return values, nil
}

// maxRate is far above any rate that trains.
const maxRate = 1e6

func checkSearchRate(text string) error {
	if rate, err := strconv.ParseFloat(text, 64); err != nil || !(rate > 0 && rate <= maxRate) {
		return fmt.Errorf("is a number above 0 and at most %v", float64(maxRate))
	}
	return nil
}

func newLBW(bits int, options Options, t Target) (Relaxation, error) {
	get := func(name string) string { return lbwSpec.option(options, name) }
	levels, err := parseValues(get("values"))
	if err != nil {
		return nil, err
	}
	if levels == nil {
		for k := range 1 << bits {
			levels = append(levels, float32(2*k+1-1<<bits))
		}
	}
	if len(levels) > 1<<bits {
		return nil, fmt.Errorf("%d values are too many for %d bits: want at most %d", len(levels), bits, 1<<bits)
	}
	rate, err := strconv.ParseFloat(get("rate"), 64)
	if err != nil {
		return nil, err
	}
	q := &lbw{bits: bits, channels: t.Channels, max: get("init") == "max"}
	q.search = Search{Levels: levels, Unit: 1 / max(-levels[0], levels[len(levels)-1]), FromWeights: get("init") != "he", Rate: rate}
	q.search.Scale = map[string]Scaling{"auto": ScaledWithoutNorm, "channel": Scaled, "none": NotScaled}[get("scale")]
	if get("decay") == "true" {
		q.search.Decay = 1
	}
	q.gap = math.Inf(1)
	for k, level := range levels[1:] {
		q.gap = min(q.gap, float64(float64(level-levels[k])*float64(q.search.Unit)))
	}
	return q, nil
}

func (q *lbw) Search() Search { return q.search }

func (q *lbw) Start(logits, scales, x []float32) {
	n := len(x) / q.channels
	kernel.Parallel(q.channels, func(c int) {
		scale := q.scale(x[c*n : (c+1)*n])
		scales[c] = float32(scale)
		for i, w := range x[c*n : (c+1)*n] {
			for k := range q.search.Levels {
				d := (float64(w)/scale - q.value(k)) / q.gap
				logits[k*len(x)+c*n+i] = float32(-float64(d * d))
			}
		}
	})
}

// value is v_k.
func (q *lbw) value(k int) float64 {
	return float64(float64(q.search.Levels[k]) * float64(q.search.Unit))
}

// scaleCandidates are the shares of a channel's largest weight that its scale may start from.
const scaleCandidates = 64

// scale is what a channel's weights start from being divided by; 1 where all are zero.
func (q *lbw) scale(x []float32) float64 {
	low, high := kernel.Range(x, kernel.Dense(len(x)))
	reach := max(-float64(low), float64(high))
	switch {
	case reach == 0:
		return 1
	case q.max || !(reach > 0) || math.IsInf(reach, 0): // what is not finite shows in what comes of it
		return reach
	}
	best, least := 0.0, math.Inf(1)
	for i := range scaleCandidates {
		scale := 2 * reach * float64(i+1) / scaleCandidates
		if e := q.squaredError(x, scale); e < least {
			best, least = scale, e
		}
	}
	return max(best, smallestScale)
}

// squaredError is that of the nearest values times a scale.
func (q *lbw) squaredError(x []float32, scale float64) float64 {
	sum := 0.0
	for _, w := range x {
		nearest := math.Inf(1)
		for k := range q.search.Levels {
			nearest = min(nearest, math.Abs(float64(w)-float64(scale*q.value(k))))
		}
		sum += float64(nearest * nearest)
	}
	return sum
}

func (q *lbw) relaxation(temperature float32) kernel.Relaxation {
	return kernel.NewRelaxation(q.search.Levels, 1/temperature)
}

func (q *lbw) Soft(levels, logits []float32, temperature float32) {
	q.relaxation(temperature).Soft(levels, logits)
}

func (q *lbw) Hard(levels, logits []float32) { q.relaxation(1).Hard(levels, logits) }

func (q *lbw) Backward(dlogits, dlevels, logits []float32, temperature float32) {
	q.relaxation(temperature).Gradient(dlogits, dlevels, logits)
}

// Encode returns codes that count the values from the least; a table with room for more repeats the last.
func (q *lbw) Encode(logits, scales []float32, shape []int) (*integer.Weights, error) {
	levels := make([]float32, len(logits)/len(q.search.Levels))
	q.Hard(levels, logits)
	plane := integer.Plane{Table: make([]int8, 1<<q.bits), Scale: make([]float64, shape[0])}
	for code := range plane.Table {
		plane.Table[code] = int8(q.search.Levels[min(code, len(q.search.Levels)-1)])
	}
	for o := range plane.Scale {
		plane.Scale[o] = float64(scales[o%len(scales)] * q.search.Unit)
	}
	w := &integer.Weights{Shape: shape, Bits: uint8(q.bits), Codes: make([]uint16, len(levels)), Planes: []integer.Plane{plane}}
	for i, level := range levels {
		if level != level {
			return nil, fmt.Errorf("quantops: weight %d is not a number", i)
		}
		code, _ := slices.BinarySearch(q.search.Levels, level)
		w.Codes[i] = uint16(code)
	}
	return w, w.Validate()
}
