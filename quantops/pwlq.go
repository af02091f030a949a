// # pwlq
//
// Weights crowd around zero, and a few lie far out. Piecewise linear quantization gives the crowd steps of its own: below a
// breakpoint p of the magnitude they are small, beyond it, up to the reach m = max|w|, coarse. With b bits, for each output
// channel,
//
//	centre |w| < p:      w_q = k·2p/(2^b-1)                        k = round(w·(2^b-1)/2p) in ±(2^(b-1)-1)
//	tails p ≤ |w| ≤ m:   w_q = ±(p + k·(m-p)/(2^(b-1)-1))          k = round of the same in 0 … 2^(b-1)-1
//
// At 3 bits these are 7 levels in the centre and 4 in each tail:
//
//	-m                  -p           0           p                   m
//	●------●------●------●-●--●--●--●--●--●--●--●-●------●------●------●
//
// A code has b+1 bits: the region above (0 centre, 1 tails), below it k in two's complement in the centre, in the tails the sign
// and k. The integer model computes it as three sums of int8 products: k in the centre, ±k in the tails, ± in the tails (worth p).
//
// The expected squared error as a function of p has one minimum. Where weights have the standard deviation σ and m is in units of
// it (type [Piecewise] computes all of this for distributions):
//
//	dE/dp ∝ p - 2m + 2m·F(p) + m·f(p)·(2p-m)
//
// and at that minimum the error is at most 9/16 of that of uniform steps 2m/(2^b-1). Option breakpoint chooses p:
//
//	gaussian   p = σ·ln(0.86143114·m/σ + 0.6079), fitted to the minimum for Gaussian weights
//	laplace    p = σ·(0.80304483·√(m/σ) - 0.3167), the same for Laplacian ones
//	numeric    the zero of dE/dp by bisection, for the distribution that option dist names
//	descent    the same by gradient descent
//	search     the p of least squared error of the channel itself: p/m of 0.1 … 0.9, then around the best to 0.001
//	learned    starts as gaussian and follows the optimizer down the gradient of the channel's squared error, taken as the
//	           difference between p·5/4 and p·3/4 and measured in units of the uniform error: 3·(2^b-1)²/n · dE/dp.
//	           It owes nothing to the loss and is there without it.
//
// With overlap, regions beyond the centre have all the levels of b bits from -m to m, of which those beyond p are used: two sums do,
// but levels are coarser, and a weight just beyond p may be worth less than one just below it. Breakpoints=2 and 3 divide the tails
// once more by the same rules, each part with b-1 bits between its ends; codes then have b+2 bits. Numeric places
// them one after the other, from the centre out, and moves them in turns until they rest; search moves those of numeric, each twice,
// as its one breakpoint, between its neighbours. The closed forms hold for one breakpoint without overlap; elsewhere gaussian and
// laplace are numeric.
//
// Correct restores the mean and the standard deviation of each channel, which rounding shifts: w_q ← a·w_q + c with
// a = std(w)/std(w_q), c = mean(w) - a·mean(w_q). It is part of the scales; c takes a fourth sum, of the activations alone.
//
// The gradient is that of the straight-through estimator, dw = dy where |w| ≤ m, else 0, whether corrected or not.
//
// Use it for trained networks that lose too much with few uniform steps: with 4 bits it is near float without training. The price is
// the bit for the region and the sums. Search takes some fifty passes over the weights for each breakpoint, each time they are used.
//
// Fang et al., "Post-Training Piecewise Linear Quantization for Deep Neural Networks", 2020.
package quantops

import (
	"fmt"
	"math"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ WeightQuantizer = (*pwlq)(nil)
var _ Measuring = (*learnedPWLQ)(nil)

// pwlq is piecewise linear quantization. Theta has the breakpoints, the reach and, with correct, gain and offset; levels are values.
type pwlq struct {
	pieceCodes
	channels int
	rule     string    // of the breakpoints
	expected Piecewise // what the rule knows of the weights
	theta    Theta
}

// learnedPWLQ is pwlq whose breakpoints follow a gradient; the rest of theta is measured.
type learnedPWLQ struct{ pwlq }

var pwlqSpec = Spec{
	Name:    "pwlq",
	Doc:     "small uniform steps up to a breakpoint and coarse ones beyond it",
	Paper:   "Fang et al., Post-Training Piecewise Linear Quantization for Deep Neural Networks, 2020",
	Weights: Bits{2, 8},
	Options: []Option{
		{Name: "breakpoint", Doc: "where steps change: the closed form for a distribution, the zero of the expected error's derivative (numeric, descent), least squared error (search), or by gradient in training",
			Default: "gaussian", Values: []string{"gaussian", "laplace", "numeric", "descent", "search", "learned"}},
		{Name: "dist", Doc: "distribution for breakpoint=numeric and descent", Default: "gaussian", Values: []string{"gaussian", "laplace"}},
		{Name: "breakpoints", Doc: "how many: codes have one bit more with one, two with more", Default: "1", Values: []string{"1", "2", "3"}},
		{Name: "overlap", Doc: "coarse levels begin at zero, not at the breakpoint", Default: "false"},
		{Name: "correct", Doc: "restore mean and standard deviation of the weights of each channel", Default: "false"},
		{Name: "per", Doc: "breakpoints and reach per output channel or per tensor", Default: "channel", Values: []string{"channel", "tensor"}},
	},
}

func init() {
	pwlqSpec.New = newPWLQ
	Register(&pwlqSpec)
}

func newPWLQ(bits int, options Options, t Target) (Quantizer, error) {
	get := func(name string) string { return pwlqSpec.option(options, name) }
	q := pwlq{channels: 1, rule: get("breakpoint")}
	q.pieceCodes = pieceCodes{bits: bits, breakpoints: int(get("breakpoints")[0] - '0'), overlap: get("overlap") == "true", correct: get("correct") == "true"}
	q.expected.Overlap = q.overlap
	if q.rule == "laplace" || get("dist") == "laplace" {
		q.expected.Distribution = Laplace
	}
	if get("per") == "channel" {
		q.channels = t.Channels
	}
	q.describe()
	byDistribution := q.rule == "numeric" || q.rule == "descent"
	switch {
	case get("dist") != "gaussian" && !byDistribution:
		return nil, fmt.Errorf("dist=%s is for breakpoint=numeric and descent", get("dist"))
	case q.rule == "learned":
		return newLearnedPWLQ(q), nil
	case (q.rule == "gaussian" || q.rule == "laplace") && (q.overlap || q.breakpoints > 1):
		q.rule = "numeric"
	}
	return &q, nil
}

func (q *pwlq) Theta() Theta { return q.theta }

// describe makes the description of theta.
func (q *pwlq) describe() {
	columns := [...]string{"breakpoint", "breakpoint 2", "breakpoint 3"}
	q.theta = Theta{Name: "breakpoints", Kind: Derived, Rows: q.channels, Columns: append(columns[:q.breakpoints:q.breakpoints], "reach")}
	if q.correct {
		q.theta.Columns = append(q.theta.Columns, "gain", "offset")
	}
}

// row returns the parameters of a channel.
func (q *pwlq) row(theta []float32, channel int) []float32 {
	n := len(q.theta.Columns)
	return theta[channel*n : (channel+1)*n]
}

func (q *pwlq) Fit(theta, x []float32, _ Extent, _ int) {
	eachChannel(q.channels, x, func(c, from, to int) { q.fit(q.row(theta, c), x[from:to]) })
}

func (q *pwlq) fit(row, x []float32) {
	reach, mean, squares := spread(x)
	reach = max(reach, smallestScale)
	deviation := 1e-12 + math.Sqrt(squares/math.Max(1, float64(len(x)-1)))
	if q.rule == "search" {
		q.search(row[:q.breakpoints], x, reach, deviation)
	} else {
		q.place(row[:q.breakpoints], float64(reach), deviation)
	}
	row[q.breakpoints] = reach
	q.limit(row)
	q.fitCorrection(row, x, mean, squares)
}

// place finds the breakpoints by what is expected.
func (q *pwlq) place(row []float32, reach, deviation float64) {
	const most = 100 // standard deviations: beyond, one number alone makes both σ and reach
	reach = min(reach/deviation, most)
	var places [maxBreakpoints]float64
	p := places[:len(row)]
	switch q.rule {
	case "gaussian", "laplace":
		p[0] = q.expected.Distribution.FittedBreakpoint(reach)
	case "descent":
		q.expected.Descend(p, reach)
	default:
		q.expected.Bisect(p, reach)
	}
	for i := range p {
		row[i] = float32(p[i] * deviation)
	}
}

// search finds the breakpoints of least squared error of x. Several start where they are best for Gaussian weights, and each is
// moved twice.
func (q *pwlq) search(p, x []float32, reach float32, deviation float64) {
	if len(p) == 1 {
		q.searchOne(p, 0, x, reach)
		return
	}
	q.place(p, float64(reach), deviation)
	for range 2 {
		for i := range p {
			was, least := p[i], q.squaredError(p, x, reach)
			if q.searchOne(p, i, x, reach); q.squaredError(p, x, reach) > least {
				p[i] = was
			}
		}
	}
}

// searchOne moves breakpoint i to the best place between its neighbours.
func (q *pwlq) searchOne(p []float32, i int, x []float32, reach float32) {
	low, high := float32(0), reach
	if i > 0 {
		low = p[i-1]
	}
	if i+1 < len(p) {
		high = p[i+1]
	}
	at := func(ratio float64) float32 { return low + float32(ratio*float64(high-low)) }
	p[i] = at(leastRatio(func(ratio float64) float64 {
		p[i] = at(ratio)
		return q.squaredError(p, x, reach)
	}))
}

func (q *pwlq) squaredError(p, x []float32, reach float32) float64 {
	s := newRegions(q.bits, q.overlap, p, reach)
	return s.squaredError(x)
}

// limit keeps breakpoints in order, at least a 1024th of the reach from zero and from the reach itself.
func (q *pwlq) limit(row []float32) {
	reach := row[q.breakpoints]
	least, most := reach/1024, reach-reach/1024
	for i := range q.breakpoints {
		row[i] = min(max(row[i], least), most)
		least = row[i]
	}
}

// fitCorrection sets gain and offset so that the values have the mean of x and its Σ (x - mean)². Values that are all the same, but
// for rounding, stay as wide as they are.
func (q *pwlq) fitCorrection(row, x []float32, mean, squares float64) {
	if !q.correct {
		return
	}
	row[q.breakpoints+1], row[q.breakpoints+2] = 1, 0
	s := q.regions(row)
	quantized, quantizedSquares := s.moments(x, mean)
	nothing := 1e-7 * float64(row[q.breakpoints])
	gain := float32(1)
	if !(quantizedSquares <= float64(nothing*nothing)*float64(len(x))) {
		gain = float32(math.Sqrt(squares / quantizedSquares))
	}
	row[q.breakpoints+1], row[q.breakpoints+2] = gain, float32(mean-float64(float64(gain)*quantized))
}

// limited returns breakpoints and reach in order: the breakpoints may have been learned, and the reach measured since.
func (q *pwlq) limited(row []float32) (limited [maxRegions]float32) {
	copy(limited[:], row[:q.breakpoints+1])
	limited[q.breakpoints] = max(limited[q.breakpoints], smallestScale)
	q.limit(limited[:q.breakpoints+1])
	return limited
}

// regions makes the quantizer of a channel.
func (q *pwlq) regions(row []float32) regions {
	n, p := q.breakpoints, q.limited(row)
	s := newRegions(q.bits, q.overlap, p[:n], p[n])
	if q.correct {
		s.correct(float64(row[n+1]), float64(row[n+2]))
	}
	return s
}

func (q *pwlq) Levels(levels, x, theta []float32) {
	eachChannel(q.channels, x, func(c, from, to int) {
		s := q.regions(q.row(theta, c))
		s.levels(levels[from:to], x[from:to])
	})
}

// Units are 1: levels are values.
func (q *pwlq) Units(units, _ []float32) {
	for c := range q.channels {
		units[c] = 1
	}
}

func (q *pwlq) Backward(dx, _, dy, x, theta []float32) {
	eachChannel(q.channels, x, func(c, from, to int) {
		reach := max(q.row(theta, c)[q.breakpoints], smallestScale)
		clip := kernel.Clip{Low: -reach, High: reach}
		for ; from < to; from += kernel.Chunk { // longer calls would allocate
			end := min(from+kernel.Chunk, to)
			clip.Gradient(dx[from:end], nil, dy[from:end], x[from:end])
		}
	})
}

func (q *pwlq) Encode(x, theta []float32, shape []int) (*integer.Weights, error) {
	return q.encode(x, shape, func(o int) regions { return q.regions(q.row(theta, o%q.channels)) })
}

func newLearnedPWLQ(q pwlq) *learnedPWLQ {
	t := &q.theta
	t.Kind, t.Rate = Learned, 0.1
	t.Measured = len(t.Columns) - q.breakpoints
	t.Minimum = make([]float32, len(t.Columns))
	for i := range t.Minimum {
		t.Minimum[i] = float32(math.Inf(-1)) // what is measured is not limited
		if i < q.breakpoints {
			t.Minimum[i] = smallestScale / 1024
		}
	}
	return &learnedPWLQ{q}
}

// Fit sets the breakpoints that training starts from, and what is measured.
func (q *learnedPWLQ) Fit(theta, x []float32, e Extent, batches int) {
	start := q.pwlq
	start.rule = "gaussian"
	if q.overlap || q.breakpoints > 1 {
		start.rule = "numeric"
	}
	start.Fit(theta, x, e, batches)
}

func (q *learnedPWLQ) Measure(theta, x []float32) {
	eachChannel(q.channels, x, func(c, from, to int) {
		row := q.row(theta, c)
		reach, mean, squares := spread(x[from:to])
		row[q.breakpoints] = max(reach, smallestScale)
		q.fitCorrection(row, x[from:to], mean, squares)
	})
}

func (q *learnedPWLQ) Backward(dx, dtheta, dy, x, theta []float32) {
	q.pwlq.Backward(dx, nil, dy, x, theta)
	eachChannel(q.channels, x, func(c, from, to int) {
		row := q.row(dtheta, c)
		clear(row[q.breakpoints:])
		q.errorGradient(row, x[from:to], q.row(theta, c))
	})
}

// errorGradient is 3·(2^b-1)²/n · dE/dp for each breakpoint, E being the squared error of the channel and dE/dp its difference over
// half of p. A derivative would miss what numbers gain or lose that change their region, and the error of a few hundred numbers is
// no smooth function.
func (q *learnedPWLQ) errorGradient(gradient, x, row []float32) {
	limited := q.limited(row)
	p, reach := limited[:q.breakpoints], limited[q.breakpoints]
	width := float64(int(1)<<q.bits - 1)
	factor := 3 * width * width / float64(len(x))
	for i, at := range p {
		low, high := float32(0), reach
		if i > 0 {
			low = p[i-1]
		}
		if i+1 < len(p) {
			high = p[i+1]
		}
		low, high = max(low, at-at/4), min(high, at+at/4)
		p[i] = high
		above := q.squaredError(p, x, reach)
		p[i] = low
		below := q.squaredError(p, x, reach)
		p[i] = at
		gradient[i] = 0
		if high > low {
			gradient[i] = float32(factor * ((above - below) / float64(high-low)))
		}
	}
}
