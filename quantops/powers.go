package quantops

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

// What pot and apot share: levels that are sums of powers of two, between which numbers round to the nearest.

var _ WeightQuantizer = (*powerWeights)(nil)
var _ Measuring = (*powerWeights)(nil)
var _ Resizing = (*powerWeights)(nil)
var _ ActivationQuantizer = (*powerActivations)(nil)
var _ LevelGradient = (*powerActivations)(nil)

const (
	largestLevel = 32639 // of two planes, 256·127 + 127

	paperWeightAlpha     = 3
	paperActivationAlpha = 8
)

// powerOptions are the options of both methods.
var powerOptions = []Option{
	{Name: "normalize", Doc: "quantize weights less their mean, over their standard deviation", Default: "true", Values: []string{"true", "false"}},
	{Name: "rescale", Doc: "multiply quantized weights by their standard deviation again, which is needless before batch normalization", Default: "true", Values: []string{"true", "false"}},
	{Name: "gradient", Doc: "whether mean and deviation of weights count as constants, as in the CIFAR code, or the gradient is full, as in the ImageNet code", Default: "constant", Values: []string{"constant", "full"}},
	{Name: "clipgrad", Doc: "whether the gradient of weights stops beyond alpha; calibrated: from 3 bits on, as in the ImageNet code", Default: "off", Values: []string{"off", "on", "calibrated"}},
	{Name: "init", Doc: "where alpha starts: at the least squared error or at the paper's 3 for weights, 8 for activations", Default: "mse", Values: []string{"mse", "paper"}},
	{Name: "sign", Doc: "signed or unsigned codes of activations (auto: signed where negative numbers occur)", Default: "auto", Values: []string{"auto", "signed", "unsigned"}},
	{Name: "rate", Doc: "factor on the learning rate for alpha (auto: the paper's, 0.5 for weights and 2.5 for activations)", Default: "auto", Check: checkRate},
	{Name: "decay", Doc: "factor on the weight decay for alpha", Default: "1", Check: checkDecay},
	{Name: "negative", Doc: "gradient of negative activations of unsigned codes: as inside the range, as in the CIFAR code, or none, as in the ImageNet code", Default: "cifar", Values: []string{"cifar", "imagenet"}},
}

func checkRate(value string) error {
	if v, err := strconv.ParseFloat(value, 64); value != "auto" && (err != nil || !(v > 0 && v <= 1000)) {
		return fmt.Errorf("is auto or a number in (0, 1000]")
	}
	return nil
}

func checkDecay(value string) error {
	if v, err := strconv.ParseFloat(value, 64); err != nil || !(v >= 0 && v <= 1000) {
		return fmt.Errorf("is a number in [0, 1000]")
	}
	return nil
}

// powerRoles says which options are for one role alone.
var powerRoles = map[string]Role{
	"normalize": Weights, "rescale": Weights, "gradient": Weights, "clipgrad": Weights,
	"sign": Activations, "negative": Activations,
}

// newPowers makes a quantizer whose levels are sums of terms of k bits.
func newPowers(s *Spec, bits, k int, options Options, t Target) (Quantizer, error) {
	get := func(name string) string { return s.option(options, name) }
	if err := checkPowers(s, options, t.Role); err != nil {
		return nil, err
	}
	signed := t.Role == Weights || get("sign") == "signed" || get("sign") == "auto" && t.Signed
	magnitude := bits
	if signed {
		magnitude--
	}
	magnitudes := powerSums(magnitude, k)
	if largest := magnitudes[len(magnitudes)-1]; largest > largestLevel {
		return nil, fmt.Errorf("magnitudes of %d bits in terms of %d bits reach %d times the smallest, two bytes %d times; a smaller k reaches less far", magnitude, min(k, magnitude), largest, largestLevel)
	}
	levels := newPowerLevels(bits, magnitudes, signed)
	levels.mse = get("init") == "mse"
	levels.rate = map[Role]float64{Weights: 0.5, Activations: 2.5}[t.Role]
	if get("rate") != "auto" {
		levels.rate, _ = strconv.ParseFloat(get("rate"), 64) // checked by Parse
	}
	levels.decay, _ = strconv.ParseFloat(get("decay"), 64)
	if t.Role == Activations {
		return &powerActivations{powerLevels: levels, stopNegative: get("negative") == "imagenet"}, nil
	}
	return &powerWeights{
		powerLevels: levels,
		normalize:   get("normalize") == "true",
		rescale:     get("normalize") == "true" && get("rescale") == "true",
		full:        get("gradient") == "full",
		clipped:     get("clipgrad") == "on" || get("clipgrad") == "calibrated" && bits > 2,
	}, nil
}

// checkPowers refuses options that would do nothing.
func checkPowers(s *Spec, options Options, role Role) error {
	changed := func(o Option) bool { return s.option(options, o.Name) != o.Default }
	for _, o := range s.Options {
		if only, ok := powerRoles[o.Name]; ok && only != role && changed(o) {
			return fmt.Errorf("%s=%s is for %s", o.Name, s.option(options, o.Name), only)
		}
		if s.option(options, "normalize") == "false" && (o.Name == "rescale" || o.Name == "gradient") && changed(o) {
			return fmt.Errorf("%s=%s is for normalized weights", o.Name, s.option(options, o.Name))
		}
	}
	if s.option(options, "sign") == "signed" && s.option(options, "negative") == "imagenet" {
		return fmt.Errorf("negative=imagenet is for unsigned codes")
	}
	return nil
}

// powerSums returns the 2^bits magnitudes, ascending integers from 0, that are sums of one number of each term. All terms
// climb down one ladder of powers of two: of k bits have 2^k-1 rungs each, taken in turn. Where k does not divide the bits,
// one term of the remaining r bits joins in evenly: its j-th rung follows the j·2^(k-r)-th rungs of the others. The ladder
// may have 31 rungs in all.
func powerSums(bits, k int) []int32 {
	terms, rungs := powerTerms(bits, k)
	sums := []int32{0}
	for _, exponents := range terms {
		lower := sums
		for _, e := range exponents {
			for _, sum := range lower {
				sums = append(sums, sum+1<<(rungs-1-e))
			}
		}
	}
	slices.Sort(sums)
	return sums
}

// powerTerms returns the exponents e, of 2^-e, of each term, and how many they are in all.
func powerTerms(bits, k int) (terms [][]int, rungs int) {
	k = min(k, bits)
	rest := bits % k
	terms = make([][]int, bits/k, bits/k+1)
	var odd []int
	for rung := 1; rung < 1<<k; rung++ {
		for i := range terms {
			terms[i] = append(terms[i], rungs)
			rungs++
		}
		if rest > 0 && rung%(1<<(k-rest)) == 0 {
			odd = append(odd, rungs)
			rungs++
		}
	}
	if rest > 0 {
		terms = append(terms, odd)
	}
	return terms, rungs
}

// powerLevels are levels of unequal steps and the arithmetic that does not depend on the role. Level 1 is worth
// α/largest. Numbers round to the nearest level, those in the middle towards zero.
type powerLevels struct {
	bits    int
	levels  []int32   // ascending, zero among them
	floats  []float32 // the same
	middles []float32 // between neighbours
	zero    int       // index of level 0
	mse     bool      // alpha starts at the least squared error
	rate    float64   // of alpha, multiplies the learning rate
	decay   float64   // of alpha, multiplies the weight decay

	latest atomic.Pointer[powerSteps]
}

// powerSteps is the staircase for one alpha. It never changes: blocks of activations go through at the same time.
type powerSteps struct {
	alpha float32
	steps *kernel.Steps
}

func newPowerLevels(bits int, magnitudes []int32, signed bool) *powerLevels {
	l := &powerLevels{bits: bits, levels: magnitudes}
	if signed {
		l.zero = len(magnitudes) - 1
		l.levels = make([]int32, 0, 2*l.zero+1)
		for i := l.zero; i > 0; i-- {
			l.levels = append(l.levels, -magnitudes[i])
		}
		l.levels = append(l.levels, magnitudes...)
	}
	for i, level := range l.levels {
		l.floats = append(l.floats, float32(level))
		if i > 0 {
			l.middles = append(l.middles, float32(float64(l.levels[i-1])+float64(level))/2)
		}
	}
	return l
}

func (l *powerLevels) signed() bool { return l.zero > 0 }

// largest is the level that alpha is.
func (l *powerLevels) largest() float32 { return l.floats[len(l.floats)-1] }

// unit is what level 1 is worth.
func (l *powerLevels) unit(alpha float32) float32 { return alpha / l.largest() }

// bounds returns the numbers up to which, inclusive, each level but the last reaches. A negative bound is the number before
// the middle of its neighbours, so that the middle itself belongs to the level nearer to zero on either side.
func (l *powerLevels) bounds(alpha float32) []float32 {
	unit, bounds := l.unit(alpha), make([]float32, len(l.middles))
	for i, middle := range l.middles {
		bounds[i] = middle * unit
		if middle < 0 {
			bounds[i] = math.Nextafter32(bounds[i], float32(math.Inf(-1)))
		}
	}
	return bounds
}

// steps returns the staircase for alpha, which is made when alpha has changed.
func (l *powerLevels) steps(alpha float32) *kernel.Steps {
	if s := l.latest.Load(); s != nil && math.Float32bits(s.alpha) == math.Float32bits(alpha) {
		return s.steps
	}
	s := &powerSteps{alpha, kernel.NewSteps(l.bounds(alpha), l.floats)}
	l.latest.Store(s)
	return s.steps
}

// clip is the gradient of clipping at ±alpha, or on one side.
func (l *powerLevels) clip(alpha float32) kernel.Clip {
	return kernel.Clip{Low: -alpha, High: alpha, Below: -1, Above: 1, Inner: true, Range: alpha, Unit: 1 / l.largest()}
}

// fit returns alpha after one more batch, the average of what each batch asks for.
func (l *powerLevels) fit(alpha float32, x []float32, e Extent, batches int, paper float64) float32 {
	start := max(l.start(x, e, paper), smallestScale)
	if batches > 0 {
		start = float64(alpha) + (start-float64(alpha))/float64(batches+1)
	}
	return float32(start)
}

// start is the alpha that training starts from: the paper's, or the one of least squared error among stepCandidates
// equally spaced ones up to the largest number. Numbers count as the middle of their histogram bin.
func (l *powerLevels) start(x []float32, e Extent, paper float64) float64 {
	low, high := kernel.Range(x, e)
	reach := float64(high)
	if l.signed() {
		reach = max(reach, -float64(low))
	}
	switch {
	case reach != reach:
		return reach // a NaN shows in what comes of it
	case !l.mse:
		return paper
	case !(reach > 0) || math.IsInf(reach, 0):
		return reach
	}
	bins := filledBins(histogram(x, e, reach), reach)
	best, least := 0.0, math.Inf(1)
	for i := range stepCandidates {
		alpha := reach * float64(i+1) / stepCandidates
		if err := l.squaredError(bins, alpha); err < least {
			best, least = alpha, err
		}
	}
	return best
}

// filledBin is a bin of a histogram that is not empty.
type filledBin struct{ middle, count float64 }

func filledBins(counts *[histogramBins]int64, reach float64) []filledBin {
	bins := make([]filledBin, 0, histogramBins)
	for i, n := range counts {
		if n > 0 {
			bins = append(bins, filledBin{(float64(i) + 0.5 - histogramBins/2) * (2 * reach / histogramBins), float64(n)})
		}
	}
	return bins
}

// squaredError is that of a histogram's numbers, which ascend as the levels do.
func (l *powerLevels) squaredError(bins []filledBin, alpha float64) float64 {
	unit, level, sum := alpha/float64(l.largest()), 0, 0.0
	for _, b := range bins {
		for level < len(l.middles) && float64(float64(l.middles[level])*unit) < b.middle {
			level++
		}
		d := b.middle - float64(float64(l.levels[level])*unit)
		sum += float64(b.count * float64(d*d))
	}
	return sum
}

// powerWeights quantizes weights w:
//
//	ŵ = (w - mean)/std              mean and unbiased deviation of the whole tensor
//	y = α·Π(clip(ŵ/α, ±1))·std      Π: to the nearest level; std only with rescale
//	dα = std·Σ dy·(sign(ŵ) beyond α, else Π(ŵ/α) - ŵ/α)
//	dŵ = std·dy, with clipped 0 beyond α
//	dw = dŵ/std                     mean and std held constant
//
// With full the gradient goes through mean and std as well, and with rescale through the std that y is multiplied by:
//
//	dw = (dŵ - mean(dŵ) - ŵ·Σ dŵ·ŵ/(n-1))/std + ŵ/(n-1)·Σ dy·y/std
type powerWeights struct {
	*powerLevels
	normalize, rescale, full, clipped bool
}

func (q *powerWeights) Theta() Theta {
	t := Theta{Name: "alpha", Kind: Learned, Rows: 1, Columns: []string{"alpha"}, Minimum: []float32{smallestScale}, Rate: q.rate, Decay: q.decay}
	if q.normalize {
		t.Columns = append(t.Columns, "mean", "std")
		t.Minimum = append(t.Minimum, -math.MaxFloat32, smallestScale)
		t.Measured = 2
	}
	return t
}

func (q *powerWeights) Fit(theta, x []float32, e Extent, batches int) {
	q.Measure(theta, x)
	v := borrowPowers(len(x))
	defer returnPowers(v)
	q.normalized(*v, x, theta)
	theta[0] = q.fit(theta[0], *v, e, batches, paperWeightAlpha)
}

// Measure computes mean and deviation in float64, element after element.
func (q *powerWeights) Measure(theta, x []float32) {
	if !q.normalize {
		return
	}
	sum := 0.0
	for _, w := range x {
		sum += float64(w)
	}
	mean := sum / float64(len(x))
	squares := 0.0
	for _, w := range x {
		d := float64(w) - mean
		squares += float64(d * d)
	}
	std := math.Sqrt(squares / float64(max(1, len(x)-1)))
	theta[1], theta[2] = float32(mean), float32(max(std, smallestScale))
}

// normalized computes ŵ.
func (q *powerWeights) normalized(v, x, theta []float32) {
	if !q.normalize {
		copy(v, x)
		return
	}
	mean, std := theta[1], theta[2]
	for i, w := range x {
		v[i] = (w - mean) / std
	}
}

func (q *powerWeights) Levels(levels, x, theta []float32) {
	q.normalized(levels, x, theta)
	q.steps(theta[0]).Levels(levels, levels)
}

// Resizes says whether the standard deviation is left to batch normalization.
func (q *powerWeights) Resizes() bool { return q.normalize && !q.rescale }

func (q *powerWeights) Units(units, theta []float32) {
	units[0] = q.unit(theta[0])
	if q.rescale {
		units[0] *= theta[2]
	}
}

func (q *powerWeights) Backward(dx, dtheta, dy, x, theta []float32) {
	v, levels := borrowPowers(len(x)), borrowPowers(len(x))
	defer returnPowers(v)
	defer returnPowers(levels)
	q.normalized(*v, x, theta)
	q.steps(theta[0]).Levels(*levels, *v)
	clip := q.clip(theta[0])
	sum := clip.Gradient(dx, *levels, dy, *v)
	if q.rescale {
		sum *= float64(theta[2])
	}
	clear(dtheta)
	dtheta[0] = float32(sum)
	if !q.clipped {
		copy(dx, dy)
	}
	switch {
	case q.full:
		q.fullGradient(dx, dy, *v, *levels, theta)
	case q.normalize && !q.rescale:
		for i := range dx {
			dx[i] /= theta[2]
		}
	}
}

// fullGradient turns the gradient of ŵ, here without the factor std of rescale, into that of w. Sums are float64, element
// after element.
func (q *powerWeights) fullGradient(dx, dy, v, levels, theta []float32) {
	sum, along, spread := 0.0, 0.0, 0.0
	unit := float64(q.unit(theta[0]))
	for i, g := range dx {
		sum += float64(g)
		along += float64(float64(g) * float64(v[i]))
		spread += float64(float64(dy[i]) * float64(float64(levels[i])*unit))
	}
	mean, freedom, divisor := sum/float64(len(dx)), float64(max(1, len(dx)-1)), 1.0
	if !q.rescale {
		spread, divisor = 0, float64(theta[2])
	}
	slope := (spread - along) / freedom
	for i, g := range dx {
		dx[i] = float32((float64(g) - mean + float64(float64(v[i])*slope)) / divisor)
	}
}

// Encode stores sign·index in two's complement, the index of a magnitude counting from 0. The code -2^(bits-1), which that
// leaves over, does not occur; in the tables it stands for 0.
func (q *powerWeights) Encode(x, theta []float32, shape []int) (*integer.Weights, error) {
	levels, unit := make([]float32, len(x)), make([]float32, 1)
	q.Levels(levels, x, theta)
	q.Units(unit, theta)
	w := &integer.Weights{Shape: shape, Bits: uint8(q.bits), Codes: make([]uint16, len(x)), Planes: q.planes(float64(unit[0]), shape[0])}
	for i, level := range levels {
		if level != level {
			return nil, fmt.Errorf("quantops: weight %d is not a number", i)
		}
		at, _ := slices.BinarySearch(q.levels, int32(level))
		w.Codes[i] = uint16(at-q.zero) & (1<<q.bits - 1)
	}
	return w, w.Validate()
}

// planes are the levels of all codes: one plane, or two where a level exceeds a byte, level = 256·high + low.
func (l *powerLevels) planes(unit float64, outputs int) []integer.Plane {
	low := integer.Plane{Table: make([]int8, 1<<l.bits), Scale: slices.Repeat([]float64{unit}, outputs)}
	high := integer.Plane{Table: make([]int8, 1<<l.bits), Scale: slices.Repeat([]float64{256 * unit}, outputs)}
	for code, signed := range integer.SignedTable(uint8(l.bits)) {
		if at := int(signed) + l.zero; at >= 0 {
			level := l.levels[at]
			high.Table[code] = int8((level + 128) >> 8)
			low.Table[code] = int8(level)
		}
	}
	if l.levels[len(l.levels)-1] <= math.MaxInt8 {
		return []integer.Plane{low}
	}
	return []integer.Plane{high, low}
}

// powerActivations quantizes activations:
//
//	y = α·Π(clip(x/α, ±1)), for unsigned codes clip(x/α, 0, 1)
//	dα = Σ dy·(sign(x) beyond α, else Π(x/α) - x/α),  dx = dy, 0 beyond α
//
// Below zero unsigned codes are inside, as x/α ≤ 1 has it, or with stopNegative have no gradients.
type powerActivations struct {
	*powerLevels
	stopNegative bool
}

func (q *powerActivations) Theta() Theta {
	return Theta{Name: "alpha", Kind: Learned, Rows: 1, Columns: []string{"alpha"}, Minimum: []float32{smallestScale}, Rate: q.rate, Decay: q.decay}
}

func (q *powerActivations) Fit(theta, x []float32, e Extent, batches int) {
	theta[0] = q.fit(theta[0], x, e, batches, paperActivationAlpha)
}

func (q *powerActivations) Levels(levels, x, theta []float32) { q.steps(theta[0]).Levels(levels, x) }

func (q *powerActivations) Units(units, theta []float32) { units[0] = q.unit(theta[0]) }

func (q *powerActivations) Backward(dx, dtheta, dy, x, theta []float32) {
	levels := borrowPowers(len(x))
	defer returnPowers(levels)
	q.BackwardLevels(*levels, dx, dtheta, dy, x, theta)
}

func (q *powerActivations) BackwardLevels(levels, dx, dtheta, dy, x, theta []float32) {
	q.Levels(levels, x, theta)
	clip := q.clip(theta[0])
	if !q.signed() {
		clip.Below, clip.Low = 0, -math.MaxFloat32
		if q.stopNegative {
			clip.Low = 0
		}
	}
	dtheta[0] = float32(clip.Gradient(dx, levels, dy, x))
}

func (q *powerActivations) Grid(theta []float32) (integer.Grid, error) {
	g := integer.Grid{
		Bits: uint8(q.bits), Scale: q.unit(theta[0]), Zero: int32(q.zero), Max: int32(len(q.levels) - 1),
		Table: &integer.Table{Levels: slices.Clone(q.levels), Bounds: q.bounds(theta[0])},
	}
	return g, g.Validate()
}

// powerScratch keeps memory for calls, several of which may be under way.
var powerScratch = sync.Pool{New: func() any { return new([]float32) }}

func borrowPowers(n int) *[]float32 {
	b := powerScratch.Get().(*[]float32)
	*b = slices.Grow((*b)[:0], n)[:n]
	return b
}

func returnPowers(b *[]float32) { powerScratch.Put(b) }
