// # nnie
//
// Logarithmic levels of HiSilicon's neural network accelerators: at 8 bits sixteen to the octave, eight octaves below the
// largest magnitude, a zero, and one level more on the positive side, which is 256 codes. With max the largest |x|,
//
//	M = floor(16·log2 max) + 1     the largest level is 2^((M-1)/16), at most a sixteenth of an octave below max
//	i = round(16·log2(|x| / 2^((M-128)/16))) in 0…127 for x > 0, in 1…127 for x < 0
//	y = ±2^((M-128+i)/16)
//	zero where -2^((M-143)/16) < x ≤ 2^((M-144)/16), half the smallest level of each sign, or all if max < 1e-15
//
//	-1          -½    -¼     0  ⅛  ¼     ½           1
//	 |-----------|-----|-----|--|--|-----|-----------|      3 bits, · 2^((M-1)/16)
//
// Magnitudes beyond the largest level get it. The gradient is the identity, without clipping: dx = dy. Weights follow
// their own maximum, activations the moving average or the maximum of the batches' maxima; there is one per tensor, and
// activations that are never negative keep the signed set of codes.
//
// Training computes with integer levels, round(32639·2^((i-127)/16)), worth 2^((M-1)/16)/32639 each, which a machine
// multiplies as two signed bytes; they differ from the definition's by less than 0.4 %. With exact levels are the
// definition's real numbers, which have no integers to export. Which code a number gets is the same in both. A weight's
// code is the hardware's byte: i, with 128 added for negative numbers, and 128 alone for zero.
//
// Below 8 bits the method is an extension of ours: 2^(b-1) positive and 2^(b-1)-1 negative levels below the same largest
// one, with 1, 2, 4, 8, 8 steps to the octave at 3, 4, 5, 6, 7 bits: four octaves up to 6 bits, eight from there on. That
// is what makes the squared error of normally distributed numbers least; eight octaves at 4 bits would nearly triple it. A number
// on the boundary of two such levels gets the lower one.
//
// Use it for hardware that has it, or at 8 bits where a tensor's numbers span many orders of magnitude. Small numbers keep
// their precision and large ones lose it, so below 6 bits uniform steps of learned size are better.
//
// aovoc, "nnieqat-pytorch", 2020, whose results are those of HiSilicon's GFPQ library.
package quantops

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ WeightQuantizer = (*nnie)(nil)
var _ ActivationQuantizer = (*nnie)(nil)
var _ RangeFollower = (*nnie)(nil)

const (
	nnieLargest  = 32639 // the largest integer level: two signed bytes, 127·256 + 127
	nnieSmallest = 1e-15 // a largest magnitude below this makes everything zero
	nnieOctave   = 32    // exponents are counted in parts of an octave: level positions and the boundaries halfway
)

// nnieSteps are the steps to the octave by bits.
var nnieSteps = [...]int{3: 1, 4: 2, 5: 4, 6: 8, 7: 8, 8: 16}

// nnieRoots are 2^(k/32).
var nnieRoots = func() (roots [nnieOctave]float64) {
	for k := range roots {
		roots[k] = kernel.Exp(float64(k) * (math.Ln2 / nnieOctave))
	}
	return roots
}()

// nnie is logarithmic quantization; see the package comment.
type nnie struct {
	movingRange
	bits   int
	step   int     // from level to level, in parts of an octave
	levels []int32 // ascending
	exact  bool
	kind   Kind // Derived or Running
	last   atomic.Pointer[nnieStairs]
}

// nnieStairs are the levels and boundaries for one position of the largest level. They never change.
type nnieStairs struct {
	position int
	steps    *kernel.Steps
	bounds   []float32
	unit     float32
}

var nnieSpec = Spec{
	Name:        "nnie",
	Doc:         "logarithmic levels of HiSilicon's accelerators, 16 to the octave at 8 bits; fewer bits are an extension",
	Paper:       "aovoc, nnieqat-pytorch (after the GFPQ library of HiSilicon), 2020",
	Weights:     Bits{3, 8},
	Activations: Bits{3, 8},
	Options: []Option{
		{Name: "exact", Doc: "levels are the definition's real numbers, which can't be exported, instead of integers", Default: "false"},
		{Name: "observer", Doc: "largest activation: average of the batches' or minmax for the largest of all (weights: their own)", Default: "average", Values: []string{"average", "minmax"}},
		{Name: "constant", Doc: "weight of a new batch in the moving average, in (0, 1]", Default: "0.01", Check: checkShare},
	},
}

func init() {
	nnieSpec.New = newNNIE
	Register(&nnieSpec)
}

func newNNIE(bits int, options Options, t Target) (Quantizer, error) {
	switch get := func(name string) string { return nnieSpec.option(options, name) }; {
	case nnieSpec.given(options, "observer") && t.Role == Weights:
		return nil, fmt.Errorf("observer=%s is for activations; weights have their own range", get("observer"))
	case nnieSpec.given(options, "constant") && (get("observer") != "average" || t.Role == Weights):
		return nil, fmt.Errorf("constant=%s is for activations with observer=average", get("constant"))
	}
	q := &nnie{bits: bits, step: nnieOctave / nnieSteps[bits], exact: nnieSpec.option(options, "exact") == "true", kind: Running}
	if t.Role == Weights {
		q.kind = Derived
	}
	if nnieSpec.option(options, "observer") == "average" {
		q.average, _ = strconv.ParseFloat(nnieSpec.option(options, "constant"), 64) // checked by Parse
	}
	q.levels = make([]int32, 2*q.positives())
	for i := range q.positives() {
		level := int32(math.RoundToEven(float64(nnieLargest * nniePower(-(q.positives()-1-i)*q.step))))
		q.levels[q.zero()+1+i] = level
		if i > 0 {
			q.levels[q.zero()-i] = -level
		}
	}
	return q, nil
}

// positives is the number of positive levels.
func (q *nnie) positives() int { return 1 << (q.bits - 1) }

// zero is the place of level 0.
func (q *nnie) zero() int { return q.positives() - 1 }

// nniePower is 2^(k/32).
func nniePower(k int) float64 { return math.Ldexp(nnieRoots[k&(nnieOctave-1)], k>>5) }

// nniePosition returns M-1 for a largest magnitude, which is finite; it compares with powers of two, so that it is exact.
func nniePosition(reach float32) int {
	fraction, exponent := math.Frexp(float64(reach))
	sixteenths := 15
	for nnieRoots[2*sixteenths] > 2*fraction {
		sixteenths--
	}
	return 16*(exponent-1) + sixteenths
}

func (q *nnie) Theta() Theta {
	return Theta{Name: "range", Kind: q.kind, Rows: 1, Columns: []string{"max"}}
}

func (q *nnie) Fit(theta, x []float32, e Extent, batches int) {
	if q.kind == Derived {
		batches = 0
	}
	low, high := kernel.Range(x, e)
	q.observe(theta, low, high, batches)
}

// Observe moves the largest activation in training; calibration came first.
func (q *nnie) Observe(theta []float32, low, high float32) { q.observe(theta, low, high, 1) }

func (q *nnie) observe(theta []float32, low, high float32, batches int) {
	reach, both := max(-low, high), [2]float32{-theta[0], theta[0]}
	q.follow(both[:], -reach, reach, batches)
	theta[0] = both[1]
}

// nnieNowhere is the position of the largest level where everything is zero.
const nnieNowhere = math.MinInt

// stairs returns the levels for a largest magnitude. Several goroutines may ask.
func (q *nnie) stairs(reach float32) *nnieStairs {
	position := nnieNowhere
	if reach >= nnieSmallest && reach <= math.MaxFloat32 {
		position = nniePosition(reach)
	}
	if s := q.last.Load(); s != nil && s.position == position {
		return s
	}
	s := q.build(position)
	q.last.Store(s)
	return s
}

func (q *nnie) build(position int) *nnieStairs {
	s := &nnieStairs{position: position, bounds: q.bounds(position), unit: smallestScale}
	if position != nnieNowhere {
		s.unit = float32(nniePower(2*position) / nnieLargest)
	}
	levels := make([]float32, len(q.levels))
	for i, level := range q.levels {
		levels[i] = float32(level)
	}
	if q.exact {
		s.unit = 1
		q.realLevels(levels, position)
	}
	s.steps = kernel.NewSteps(s.bounds, levels)
	s.steps.Logarithmic(s.bounds, levels, q.zero(), bits.Len(uint(nnieSteps[q.bits]))-1)
	return s
}

// exponent returns that of positive level i, in parts of an octave.
func (q *nnie) exponent(position, i int) int {
	return 2*position - (q.positives()-1-i)*q.step
}

// realLevels replaces integer levels by the definition's.
func (q *nnie) realLevels(levels []float32, position int) {
	if position == nnieNowhere {
		return // all numbers are zero
	}
	for i := range q.positives() {
		level := float32(nniePower(q.exponent(position, i)))
		levels[q.zero()+1+i] = level
		if i > 0 {
			levels[q.zero()-i] = -level
		}
	}
}

// bounds returns the largest float32 at or below each of the real boundaries, so that a float32 is greater than one
// exactly where it is greater than the other.
func (q *nnie) bounds(position int) []float32 {
	bounds := make([]float32, len(q.levels)-1)
	if position == nnieNowhere {
		for i := range bounds { // nothing but the very ends of float32 is beyond these
			far := math.Float32frombits(math.Float32bits(math.MaxFloat32) - uint32(len(bounds)) + uint32(max(i, len(bounds)-1-i)))
			bounds[i] = far
			if i < q.zero() {
				bounds[i] = -far
			}
		}
		return bounds
	}
	zero := q.zero()
	bounds[zero-1] = nnieFloor(-nniePower(q.exponent(position, 1) - nnieOctave))
	bounds[zero] = nnieFloor(nniePower(q.exponent(position, 0) - nnieOctave))
	for i := range q.positives() - 1 { // between levels i and i+1
		between := nniePower(q.exponent(position, i) + q.step/2)
		bounds[zero+1+i] = nnieFloor(between)
		if i > 0 {
			bounds[zero-1-i] = nnieFloor(-between)
		}
	}
	return bounds
}

// nnieFloor is the largest float32 at or below v.
func nnieFloor(v float64) float32 {
	f := float32(v)
	if float64(f) > v {
		f = math.Nextafter32(f, -math.MaxFloat32)
	}
	return f
}

func (q *nnie) Levels(levels, x, theta []float32) { q.stairs(theta[0]).steps.Levels(levels, x) }

func (q *nnie) Units(units, theta []float32) {
	units[0] = q.stairs(theta[0]).unit
	if reach := theta[0]; reach-reach != 0 {
		units[0] = reach - reach // not a number, to be seen in what comes of it
	}
}

// Backward is the straight-through estimator without clipping.
func (q *nnie) Backward(dx, _, dy, _, _ []float32) { copy(dx, dy) }

var errNNIEExact = fmt.Errorf("quantops: nnie with exact: %w; leave exact out to train on integer levels", ErrNoIntegers)

func (q *nnie) Encode(x, theta []float32, shape []int) (*integer.Weights, error) {
	if q.exact {
		return nil, errNNIEExact
	}
	levels, units := make([]float32, len(x)), make([]float32, 1)
	q.Levels(levels, x, theta)
	q.Units(units, theta)
	w := &integer.Weights{Shape: shape, Bits: uint8(q.bits), Codes: make([]uint16, len(x)), Planes: q.planes(float64(units[0]), shape[0])}
	for i, level := range levels {
		if level != level {
			return nil, fmt.Errorf("quantops: weight %d is not a number", i)
		}
		place, _ := slices.BinarySearch(q.levels, int32(level))
		w.Codes[i] = q.code(place)
	}
	return w, w.Validate()
}

// code returns the hardware's code of a level: its number among the positive ones, with the top bit set for negative ones
// and alone for zero.
func (q *nnie) code(place int) uint16 {
	if place > q.zero() {
		return uint16(place - q.zero() - 1)
	}
	return uint16(q.positives() + q.zero() - place)
}

// planes are the high and the low bytes of the levels by code.
func (q *nnie) planes(unit float64, outputs int) []integer.Plane {
	planes := []integer.Plane{
		{Table: make([]int8, len(q.levels)), Scale: slices.Repeat([]float64{256 * unit}, outputs)},
		{Table: make([]int8, len(q.levels)), Scale: slices.Repeat([]float64{unit}, outputs)},
	}
	for place, level := range q.levels {
		high := (level + 128) >> 8
		planes[0].Table[q.code(place)] = int8(high)
		planes[1].Table[q.code(place)] = int8(level - 256*high)
	}
	return planes
}

// Grid returns the codes in the order of their levels.
func (q *nnie) Grid(theta []float32) (integer.Grid, error) {
	if q.exact {
		return integer.Grid{}, errNNIEExact
	}
	s, units := q.stairs(theta[0]), make([]float32, 1)
	q.Units(units, theta)
	g := integer.Grid{
		Bits: uint8(q.bits), Scale: units[0], Zero: int32(q.zero()), Max: int32(len(q.levels) - 1),
		Table: &integer.Table{Levels: q.levels, Bounds: s.bounds},
	}
	return g, g.Validate()
}
