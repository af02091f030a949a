package integer

import (
	"errors"
	"fmt"
	"math"
)

// Limits that keep int32 accumulators and int64 requantization from overflowing.
const (
	accumulatorLimit = int64(1) << 31 // accumulators and multipliers stay below
	productLimit     = int64(1) << 62 // sum of bound * |multiplier| + |bias| stays below
	maxShift         = 62
	wideMax          = 1<<31 - 1
)

// WideBits is the width that every wide value is scaled to: magnitudes stay below 2^24, so that a
// float32 holds each exactly.
const WideBits = 24

// Affine says what accumulators are worth: the real number
//
//	sum over planes p of acc_p * Scale[p][o] + Bias[o]
//
// then multiplied by Slope[o] where it is negative and there are slopes, and max(0, that) when ReLU is set.
type Affine struct {
	Scale [][]float64 // [plane][channel]
	Bias  []float64   // [channel], real
	Slope []float64   // [channel], a parametric rectifier's, or nil
	ReLU  bool
}

// slope returns what negative reals of a channel are multiplied by.
func (a Affine) slope(o int) float64 {
	if a.Slope == nil {
		return 1
	}
	return a.Slope[o]
}

// NewAffine says what the accumulators of a layer are worth whose inputs are levels of grid g and whose weights have
// the given planes: Scale = g.Scale * factor * plane.Scale, for every plane of g.Factors in turn and for every plane of
// weights. Bias is real, one for each of channels, or nil; other lengths are refused where the result is used.
func NewAffine(g Grid, planes []Plane, bias []float32, channels int) Affine {
	a := Affine{Bias: make([]float64, max(channels, len(bias)))}
	for o, b := range bias {
		a.Bias[o] = float64(b)
	}
	for _, factor := range g.Factors() {
		unit := float64(g.Scale) * float64(factor)
		for _, plane := range planes {
			scale := make([]float64, len(plane.Scale))
			for o := range scale {
				scale[o] = unit * plane.Scale[o]
			}
			a.Scale = append(a.Scale, scale)
		}
	}
	return a
}

// Requantizer turns accumulators into codes or into wide fixed-point values, with integers alone:
//
//	v   = sum over planes p of acc_p * Multiplier[p][o] + Bias[o]
//	v   = sum over planes p of acc_p * Negative.Multiplier[p][o] + Negative.Bias[o]   if v < 0 and there is a Negative
//	out = clamp(round(v / 2^Shift[o]) + Zero, Min, Max)
//
// in int64, ties to even. It has an entry for every channel of the output, or one that serves all.
type Requantizer struct {
	Multiplier     [][]int32 // [plane][channel], signed, never -2^31
	Bias           []int64   // [channel]
	Negative       *Branch   // what takes the place of Multiplier and Bias where their sum is below 0, or nil
	Shift          []uint8   // [channel], 0..62
	Zero, Min, Max int32     // Min <= Zero <= Max
}

// Branch holds the numbers of a requantizer for sums that are negative: those of the others times a parametric
// rectifier's slope, each rounded on its own.
type Branch struct {
	Multiplier [][]int32 // as in Requantizer
	Bias       []int64   // as in Requantizer
}

// main returns the numbers of sums that are not negative.
func (r *Requantizer) main() *Branch { return &Branch{r.Multiplier, r.Bias} }

// newBranch returns a branch of the given size.
func newBranch(planes, channels int) *Branch {
	b := &Branch{Multiplier: make([][]int32, planes), Bias: make([]int64, channels)}
	for p := range b.Multiplier {
		b.Multiplier[p] = make([]int32, channels)
	}
	return b
}

// NewRequantizer derives the integers that take accumulators, worth what a says, to codes of grid g.
//
// bound is [plane][channel], the largest magnitude of each accumulator. Per channel it takes the
// largest shift s <= 62 for which, with M = Scale / g.Scale and m = round(M * 2^s),
// B = round(Bias / g.Scale * 2^s), every |m| < 2^31 and sum bound * |m| + |B| < 2^62. With slopes, the numbers
// of Negative follow in the same way from Slope * Scale and Slope * Bias and keep the same limits. A ReLU raises
// Min to Zero. It refuses, naming the channel, a bound of 2^31 or more, numbers that are not finite,
// and a channel that no shift fits; also a grid with a Table, to which staircases lead, not requantizers.
func NewRequantizer(a Affine, bound [][]int64, g Grid) (*Requantizer, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if g.Table != nil {
		return nil, errors.New("integer: requantization to unequal steps: want a uniform grid, or a wide value and Grid.Thresholds")
	}
	r := &Requantizer{Zero: g.Zero, Min: g.Min, Max: g.Max}
	return r.fit(a, bound, float64(g.Scale))
}

// NewWideRequantizer derives the integers that take accumulators, worth what a says, to wide
// fixed-point values of which one unit is worth scale (finite, positive): zero point 0, codes within
// +-(2^31 - 1), or from 0 with a ReLU. See NewRequantizer for the rest.
func NewWideRequantizer(a Affine, bound [][]int64, scale float64) (*Requantizer, error) {
	if !(scale > 0) || !finite(scale) {
		return nil, fmt.Errorf("integer: wide scale %v: want a finite positive number", scale)
	}
	r := &Requantizer{Min: -wideMax, Max: wideMax}
	return r.fit(a, bound, scale)
}

// WideScale returns the smallest power of two that can be the unit of a wide value holding every real
// that a allows for, with bound as in NewRequantizer, in bits bits (2..24): no integer exceeds 2^bits - 1
// in magnitude, rounding included. It returns 1 where all reals are 0, and NaN, which NewWideRequantizer refuses, where
// they are not finite or a and bound do not fit each other.
func WideScale(a Affine, bound [][]int64, bits int) float64 {
	if a.validate(bound) != nil || bits < 2 || bits > WideBits {
		return math.NaN()
	}
	largest := 0.0
	for o := range a.Bias {
		reach := math.Abs(a.Bias[o])
		for p := range a.Scale {
			reach += float64(math.Abs(a.Scale[p][o]) * float64(bound[p][o]))
		}
		reach *= max(1, math.Abs(a.slope(o)))
		if !finite(reach) {
			return math.NaN()
		}
		largest = max(largest, reach)
	}
	if largest == 0 {
		return 1
	}
	// largest < 2^exponent, hence at most 2^bits units of 2^(exponent-bits). One unit is kept free for
	// the rounding of multiplier and bias and of the value itself.
	_, exponent := math.Frexp(largest)
	scale := math.Ldexp(1, exponent-bits)
	if largest > float64(float64(int64(1)<<bits-2)*scale) {
		scale *= 2
	}
	return scale
}

// fit fills in the channels: one unit of the output is worth unit.
func (r *Requantizer) fit(a Affine, bound [][]int64, unit float64) (*Requantizer, error) {
	if err := a.validate(bound); err != nil {
		return nil, err
	}
	channels := len(a.Bias)
	numbers := newBranch(len(a.Scale), channels)
	r.Multiplier, r.Bias, r.Shift = numbers.Multiplier, numbers.Bias, make([]uint8, channels)
	if a.Slope != nil {
		r.Negative = newBranch(len(a.Scale), channels)
	}
	for o := range channels {
		if err := r.fitChannel(o, a, bound, unit); err != nil {
			return nil, err
		}
	}
	if a.ReLU {
		r.Min = max(r.Min, r.Zero)
	}
	return r, nil
}

// fitChannel takes the largest shift that keeps the channel within the limits.
func (r *Requantizer) fitChannel(o int, a Affine, bound [][]int64, unit float64) error {
	slope := max(1, math.Abs(a.slope(o)))
	for p := range a.Scale {
		if !finite(a.Scale[p][o]/unit*slope) || !finite(a.Bias[o]/unit*slope) {
			return fmt.Errorf("integer: channel %d: scale %v or bias %v, times %v, is not finite in units of %v", o, a.Scale[p][o], a.Bias[o], slope, unit)
		}
	}
	for shift := maxShift; shift >= 0; shift-- {
		if r.tryShift(o, a, bound, unit, shift) {
			return nil
		}
	}
	return fmt.Errorf("integer: channel %d: scale and bias %v are too large for an output unit of %v: no shift keeps the sum below 2^62", o, a.Bias[o], unit)
}

// tryShift sets the channel's integers for one shift and reports whether they keep the limits.
func (r *Requantizer) tryShift(o int, a Affine, bound [][]int64, unit float64, shift int) bool {
	r.Shift[o] = uint8(shift)
	return r.main().try(o, a, bound, unit, 1, shift) && (r.Negative == nil || r.Negative.try(o, a, bound, unit, a.Slope[o], shift))
}

// try sets the channel's integers for reals times slope and reports whether they keep the limits.
// Scaling by a power of two is exact, so each integer is the nearest to the float64 quotient, times slope.
func (b *Branch) try(o int, a Affine, bound [][]int64, unit, slope float64, shift int) bool {
	bias := math.RoundToEven(math.Ldexp(a.Bias[o]/unit*slope, shift))
	if math.Abs(bias) >= float64(productLimit) {
		return false
	}
	reach := int64(math.Abs(bias))
	for p := range a.Scale {
		m := math.RoundToEven(math.Ldexp(a.Scale[p][o]/unit*slope, shift))
		if math.Abs(m) >= float64(accumulatorLimit) {
			return false
		}
		// Both terms are below 2^62 before the sum, so it can't overflow.
		reach += bound[p][o] * int64(math.Abs(m))
		if reach >= productLimit {
			return false
		}
		b.Multiplier[p][o] = int32(m)
	}
	b.Bias[o] = int64(bias)
	return true
}

// validate checks that scale, bias and bound have one shape and that bounds fit an accumulator.
func (a Affine) validate(bound [][]int64) error {
	if len(a.Scale) == 0 || len(a.Bias) == 0 || len(bound) != len(a.Scale) {
		return fmt.Errorf("integer: %d planes of scales, %d of bounds, %d biases: want equal planes and at least one channel", len(a.Scale), len(bound), len(a.Bias))
	}
	if a.Slope != nil && len(a.Slope) != len(a.Bias) {
		return fmt.Errorf("integer: %d slopes: want none or one for each of %d channels", len(a.Slope), len(a.Bias))
	}
	for p := range a.Scale {
		if len(a.Scale[p]) != len(a.Bias) || len(bound[p]) != len(a.Bias) {
			return fmt.Errorf("integer: plane %d has %d scales and %d bounds: want one for each of %d channels", p, len(a.Scale[p]), len(bound[p]), len(a.Bias))
		}
		for o, limit := range bound[p] {
			if limit < 0 || limit >= accumulatorLimit {
				return fmt.Errorf("integer: channel %d: accumulators reach %d: want less than 2^31", o, limit)
			}
		}
	}
	return nil
}

// FoldZero returns a requantizer for accumulators over codes instead of levels. Where an input code q
// stands for the level q - zero, sum q*w = sum (q - zero)*w + zero * sum w; the last term, exact in
// int64, moves into the bias. sums is [plane][channel], sum w, as Weights.Sum returns it.
func (r *Requantizer) FoldZero(zero int32, sums [][]int64) *Requantizer {
	folded := *r
	folded.Bias = r.main().foldZero(zero, sums)
	if r.Negative != nil {
		folded.Negative = &Branch{r.Negative.Multiplier, r.Negative.foldZero(zero, sums)}
	}
	return &folded
}

// foldZero returns the biases for accumulators over codes.
func (b *Branch) foldZero(zero int32, sums [][]int64) []int64 {
	folded := make([]int64, len(b.Bias))
	for o, bias := range b.Bias {
		correction := int64(0)
		for p := range b.Multiplier {
			correction += int64(b.Multiplier[p][o]) * (int64(zero) * sums[p][o])
		}
		folded[o] = bias - correction
	}
	return folded
}

// Bound returns the largest |output - Zero| that accumulators within bound, [plane][channel], can give
// before clamping.
func (r *Requantizer) Bound(bound [][]int64) int64 {
	largest := int64(0)
	for o, shift := range r.Shift {
		reach := r.main().reach(o, bound)
		if r.Negative != nil {
			reach = max(reach, r.Negative.reach(o, bound))
		}
		largest = max(largest, shiftRight(reach, shift))
	}
	return largest
}

// reach returns the largest magnitude of a channel's sum.
func (b *Branch) reach(o int, bound [][]int64) int64 {
	reach := max(b.Bias[o], -b.Bias[o])
	for p := range b.Multiplier {
		m := int64(b.Multiplier[p][o])
		reach += bound[p][o] * max(m, -m)
	}
	return reach
}

// Apply requantizes the accumulators of one output, one per plane.
func (r *Requantizer) Apply(channel int, acc []int32) int32 {
	if len(r.Bias) == 1 {
		channel = 0
	}
	sum := r.Bias[channel]
	for p, a := range acc {
		sum += int64(a) * int64(r.Multiplier[p][channel])
	}
	if sum < 0 && r.Negative != nil {
		sum = r.Negative.Bias[channel]
		for p, a := range acc {
			sum += int64(a) * int64(r.Negative.Multiplier[p][channel])
		}
	}
	return r.finish(channel, sum)
}

// Apply1 is Apply for weights of one plane.
func (r *Requantizer) Apply1(channel int, acc int32) int32 {
	if len(r.Bias) == 1 {
		channel = 0
	}
	sum := int64(acc)*int64(r.Multiplier[0][channel]) + r.Bias[channel]
	if sum < 0 && r.Negative != nil {
		sum = int64(acc)*int64(r.Negative.Multiplier[0][channel]) + r.Negative.Bias[channel]
	}
	return r.finish(channel, sum)
}

// finish rounds and clamps.
func (r *Requantizer) finish(channel int, sum int64) int32 {
	out := shiftRight(sum, r.Shift[channel]) + int64(r.Zero)
	return int32(min(max(out, int64(r.Min)), int64(r.Max)))
}
