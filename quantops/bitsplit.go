// # bitsplit
//
// Uniform steps of weights, a scale α for each output channel, whose codes are searched bit by bit: those of the least
// error of a layer's outputs, not of its weights.
//
//	code = clamp(round(w/α), -Q, Q),  Q = 2^(b-1)-1             value = code·α
//	min over α and codes of ‖y - α·X·code‖²,  code = Σ 2^(m-1)·p_m,  p_m in {-1, 0, 1}^K
//
//	-3α  -2α  -α   0   α   2α   3α
//	 |----|----|---|---|----|----|      3 bits: codes -3…3, two bit planes p
//
// By themselves, in training and where goqat quantize searches nothing, scales follow from the weights: α = max|w|/Q,
// then code = clamp(round(w/α)) and α = Σ w·code / Σ code² in turns until no code moves. Weights that lie on such a
// grid already, because a search has put them there, keep it. In training α is learned, as lsq's step is.
//
// goqat quantize searches layer by layer from there. All it needs of the data is A = XᵀX and Xᵀy, summed over samples:
// what places of the layer's output take in. A sweep sets α to its best, yᵀX·code / codeᵀ·A·code, then goes over the
// bit planes, the most significant first, and in each over the inputs n in order, setting p_m[n] to the best of -1, 0
// and 1 with all else as it is: with a = α·2^(m-1) and h half the derivative of the error for p_m[n] = 0, it is
// -sign(h) where 2|h| ≥ a·A_nn, else 0. Planes may have mixed signs. Sweeps end when nothing moves, and the error
// never rises. Weights of inputs that were zero in all samples stay as they were. With thorough the search goes on
// with sweeps over the codes as whole numbers, code = clamp(round(code - h/(α·A_nn))), from the bits' end and from
// weights rounded at 0.6 to 1.3 times the fitted scale, and keeps the best of each output. That takes about ten times
// as long, and leaves errors of outputs a tenth to a third smaller.
//
// Use it for 4 bits and less without training; the fewer bits, the more it gains over rounding. Then train on from it.
//
// Wang et al., "Towards Accurate Post-training Network Quantization via Bit-Split and Stitching", 2020.
package quantops

import (
	"fmt"
	"math"
	"strconv"

	"github.com/goqat/goqat/internal/kernel"
)

var _ WeightQuantizer = (*bitsplit)(nil)
var _ LevelGradient = (*bitsplit)(nil)
var _ Solver = (*bitsplit)(nil)

// bitsplit is uniform quantization by searched codes; see the package comment. It trains as lsq does.
type bitsplit struct {
	lsq
	sweeps   int
	thorough bool
}

var bitsplitSpec = Spec{
	Name:    "bitsplit",
	Doc:     "uniform steps whose codes are searched bit by bit for the least error of a layer's outputs",
	Paper:   "Wang et al., Towards Accurate Post-training Network Quantization via Bit-Split and Stitching, 2020",
	Weights: Bits{2, 8},
	Options: []Option{
		{Name: "thorough", Doc: "search further than the paper does: from several scales, and codes as whole numbers after their bits", Default: "false"},
		{Name: "sweeps", Doc: "the most sweeps of the search over all bits of a layer, and from every start", Default: "100", Check: checkSweeps},
	},
}

func init() {
	bitsplitSpec.New = newBitsplit
	Register(&bitsplitSpec)
}

func checkSweeps(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 1 || n > 1_000_000 {
		return fmt.Errorf("is a number from 1 to 1000000")
	}
	return nil
}

func newBitsplit(bits int, options Options, t Target) (Quantizer, error) {
	q, err := newLSQ(bits, Options{"per": "channel", "range": "narrow"}, t)
	if err != nil {
		return nil, err
	}
	b := &bitsplit{lsq: *q.(*lsq)}
	b.thorough = bitsplitSpec.option(options, "thorough") == "true"
	b.sweeps, _ = strconv.Atoi(bitsplitSpec.option(options, "sweeps")) // checked by Parse
	return b, nil
}

func (q *bitsplit) Theta() Theta {
	t := q.lsq.Theta()
	t.Name, t.Columns = "scale", []string{"scale"}
	return t
}

func (q *bitsplit) Fit(theta, x []float32, _ Extent, _ int) {
	n := len(x) / q.channels
	kernel.Parallel(q.channels, func(c int) { theta[c] = q.fit(x[c*n:][:n]) })
}

// fit returns the scale of a channel's weights.
func (q *bitsplit) fit(w []float32) float32 {
	scale, ok := q.gridOf(w)
	if !ok {
		scale = q.alternate(w)
	}
	return max(float32(scale), smallestScale)
}

// alternations caps the turns of scale and codes, which take a few.
const alternations = 1000

// alternate returns the scale that rounding and least squares agree on; 1 for weights that are all zero.
func (q *bitsplit) alternate(w []float32) float64 {
	scale := float64(reach(w)) / float64(q.max)
	switch {
	case scale == 0:
		return 1
	case math.IsNaN(scale) || math.IsInf(scale, 0):
		return scale // so that it shows
	}
	for range alternations {
		next := q.leastSquaresScale(w, scale)
		if next == scale || !(next > 0) {
			break
		}
		scale = next
	}
	return scale
}

// reach is the largest magnitude.
func reach(w []float32) float32 {
	low, high := kernel.Range(w, kernel.Dense(len(w)))
	return max(-low, high)
}

// leastSquaresScale is the scale of least squared error for the codes that weights have at a scale.
func (q *bitsplit) leastSquaresScale(w []float32, scale float64) float64 {
	product, square := 0.0, 0.0
	for _, v := range w {
		code := q.code(float64(v), scale)
		product += float64(float64(v) * code)
		square += float64(code * code)
	}
	return product / square
}

func (q *bitsplit) code(w, scale float64) float64 {
	return min(max(math.RoundToEven(w/scale), float64(q.min)), float64(q.max))
}

// gridOf returns the scale of weights that are codes times one, but for roundings to float32.
func (q *bitsplit) gridOf(w []float32) (scale float64, ok bool) {
	least := float32(math.Inf(1))
	for _, v := range w {
		if v = max(v, -v); v > 0 {
			least = min(least, v)
		}
	}
	for code := 1; code <= int(q.max); code++ {
		if scale := float64(least) / float64(code); q.onGrid(w, scale) {
			return q.leastSquaresScale(w, scale), true
		}
	}
	return 0, false
}

// onGrid says whether weights are codes times the scale, but for roundings to float32.
func (q *bitsplit) onGrid(w []float32, scale float64) bool {
	if !(scale > 0) || math.IsInf(scale, 0) {
		return false
	}
	for _, v := range w {
		ratio := float64(v) / scale
		if code := q.code(float64(v), scale); !(math.Abs(ratio-code) <= float64(0x1p-22*math.Abs(code))) {
			return false
		}
	}
	return true
}

// thoroughStarts are the multiples of fitted scales that a thorough search starts from.
var thoroughStarts = []float64{0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3}

// Solve searches codes and scales; see the package comment.
func (q *bitsplit) Solve(w, theta []float32, groups []Moments) (Solution, error) {
	if !kernel.Finite(w) {
		return Solution{}, fmt.Errorf("quantops: weights are not finite")
	}
	var all Solution
	inputs, outputs := len(w)/q.channels, q.channels/len(groups)
	for g := range groups {
		if err := groups[g].check(outputs, inputs); err != nil {
			return Solution{}, err
		}
		from := g * outputs
		s := newBitSearch(q, w[from*inputs:][:outputs*inputs], theta[from:][:outputs], &groups[g])
		s.run(q.sweeps)
		all.add(s.finish())
	}
	return all, nil
}
