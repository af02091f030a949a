package integer

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Grid is the coding of activations: a code q in [Min, Max] is worth Level(q) * Scale. Without a Table levels are
// equally spaced, q - Zero.
//
// Levels travel in 8-bit carriers. Those of a uniform grid do so as codes, uint8 when Min >= 0 and int8 otherwise; those
// of a Table as they are, in one byte plane or in two, see Split. Zero lies in [Min, Max], so the real number 0 has a
// code of its own, which is also what convolutions pad with; but for signs,
// two levels of one magnitude: their carriers have one more number, 0, for the padding.
type Grid struct {
	Bits           uint8   // width of a code, 1..8
	Scale          float32 // what one unit of a level is worth, finite and positive
	Zero, Min, Max int32   // code of the real number 0, smallest and largest code, with a Table 0 and len(Levels)-1
	Table          *Table  // what codes stand for where levels are not equally spaced; nil for uniform ones
}

// Table is the coding of activations of unequal steps: code q is worth Levels[q] * Scale, and the real number x has the
// code #{i: Bounds[i] < x}.
type Table struct {
	Levels []int32   // 2 to 256, ascending, 0 among them but for signs, magnitudes up to 32639
	Bounds []float32 // one less, finite, never descending, in the unit of x; x = 0 has the code of level 0 where there is one
}

// MaxLevel is the largest magnitude of a level: what two byte planes hold, of which the low one is signed.
const MaxLevel = 127*256 + 127

// lowPlane is what one unit of the high plane counts where levels travel in two.
const lowPlane = 256

// Equal reports whether both code every number alike.
func (g Grid) Equal(h Grid) bool {
	a, b := g.Table, h.Table
	g.Table, h.Table = nil, nil
	if g != h || (a == nil) != (b == nil) {
		return false
	}
	return a == nil || slices.Equal(a.Levels, b.Levels) && slices.Equal(a.Bounds, b.Bounds)
}

// clone returns a copy that shares no memory.
func (g Grid) clone() Grid {
	if g.Table != nil {
		g.Table = &Table{Levels: slices.Clone(g.Table.Levels), Bounds: slices.Clone(g.Table.Bounds)}
	}
	return g
}

// String returns for example "4 bits, codes 0 to 15 around 3, scale 0.25".
func (g Grid) String() string {
	text := fmt.Sprintf("%d bits, codes %d to %d around %d, scale %v", g.Bits, g.Min, g.Max, g.Zero, g.Scale)
	if g.Table != nil {
		text += fmt.Sprintf(", levels %v between %v", g.Table.Levels, g.Table.Bounds)
	}
	return text
}

// Level returns the integer that a code stands for.
func (g Grid) Level(q int32) int32 {
	if g.Table != nil {
		return g.Table.Levels[q]
	}
	return q - g.Zero
}

// Code returns the code of the real number x. On a uniform grid it is
//
//	clamp(round(x / Scale) + Zero, Min, Max)
//
// with float32 division, ties to even, and the zero point added after rounding; with a Table the number of its bounds
// below x. Huge and infinite x saturate; NaN gets the code of 0.
func (g Grid) Code(x float32) int32 {
	if x != x {
		return g.Zero
	}
	if g.Table != nil {
		bounds := g.Table.Bounds
		return int32(sort.Search(len(bounds), func(i int) bool { return bounds[i] >= x }))
	}
	code := math.RoundToEven(float64(x/g.Scale)) + float64(g.Zero)
	return int32(math.Max(float64(g.Min), math.Min(code, float64(g.Max))))
}

// Value returns what the code q is worth, float32(Level(q)) * Scale.
func (g Grid) Value(q int32) float32 {
	return float32(g.Level(q)) * g.Scale
}

// Magnitude returns the largest |level| that a code of the grid can have, on a uniform grid also the largest |q|: what
// sums of codes and of levels are proved from. Of levels in two planes it is that of the levels themselves.
func (g Grid) Magnitude() int64 {
	if g.Table != nil {
		levels := g.Table.Levels
		return max(-int64(levels[0]), int64(levels[len(levels)-1]))
	}
	low, high, zero := int64(g.Min), int64(g.Max), int64(g.Zero)
	return max(-low, low, -high, high, high-zero, zero-low)
}

// Factors returns what one unit of each byte plane counts: {1} where one byte holds every level (0..255 or -128..127), as
// on every uniform grid, else {256, 1} for the high and the low plane.
func (g Grid) Factors() []int32 {
	if g.Table == nil || g.levelRange().codes() {
		return []int32{1}
	}
	return []int32{lowPlane, 1}
}

// levelRange returns the lowest and the highest level of a Table.
func (g Grid) levelRange() interval {
	levels := g.Table.Levels
	return interval{int64(levels[0]), int64(levels[len(levels)-1])}
}

// Split returns the bytes that a level is in the planes of Factors, level = 256*high + low with low in -128..127; where
// there is one plane, high is 0 and low the level.
func (g Grid) Split(level int32) (high, low int32) {
	if len(g.Factors()) == 1 {
		return 0, level
	}
	high = (level + lowPlane/2) >> 8
	return high, level - lowPlane*high
}

// planes returns the levels of a Table as each plane carries them, [plane][code].
func (g Grid) planes() [][]int16 {
	planes := make([][]int16, len(g.Factors()))
	for _, level := range g.Table.Levels {
		high, low := g.Split(level)
		for p, v := range []int32{high, low}[2-len(planes):] {
			planes[p] = append(planes[p], int16(v))
		}
	}
	return planes
}

// PlaneMagnitudes returns the largest magnitude in each plane of Factors; in the only one it is Magnitude.
func (g Grid) PlaneMagnitudes() []int64 {
	if len(g.Factors()) == 1 {
		return []int64{g.Magnitude()}
	}
	magnitudes := make([]int64, 2)
	for p, plane := range g.planes() {
		magnitudes[p] = max(-int64(slices.Min(plane)), int64(slices.Max(plane)))
	}
	return magnitudes
}

// AccumulatorBounds returns the largest magnitude of each accumulator, [accumulator][channel], of a layer with the given
// weights whose input is on the grid: Weights.Bound for every plane of the input. Accumulators are ordered as in NewAffine.
func (g Grid) AccumulatorBounds(w *Weights) [][]int64 {
	var bounds [][]int64
	for _, magnitude := range g.PlaneMagnitudes() {
		bounds = append(bounds, w.Bound(magnitude)...)
	}
	return bounds
}

// AccumulatorSums returns what a constant 1 in a plane of the input adds to each of its accumulators, Weights.Sum for every
// plane of the input: what FoldZero takes for a zero point. Order and shape are those of AccumulatorBounds.
func (g Grid) AccumulatorSums(w *Weights) [][]int64 {
	var sums [][]int64
	for range g.Factors() {
		sums = append(sums, w.Sum()...)
	}
	return sums
}

// Thresholds returns where the codes of a Table change on integers of which one unit is worth unit (finite, positive): the
// integer v has the code #{i: T[i] < v}, with
//
//	T[i] = floor(Bounds[i] / unit)
//
// in float64, saturated to int32. Up to the rounding of that division v * unit > Bounds[i] exactly where v > T[i]; there is
// none where unit is a power of two. The integer 0 always has the code of the real number 0.
func (g Grid) Thresholds(unit float64) []int32 {
	thresholds := make([]int32, len(g.Table.Bounds))
	for i, bound := range g.Table.Bounds {
		t := math.Floor(float64(bound) / unit)
		if bound < 0 {
			t = min(t, -1) // the quotient may have underflowed to 0
		}
		thresholds[i] = int32(math.Max(math.MinInt32, math.Min(t, math.MaxInt32)))
	}
	return thresholds
}

// carrier returns the uniform grid whose codes are what the only plane of g carries.
func (g Grid) carrier() Grid {
	if g.Table == nil {
		return g
	}
	span := g.levelRange()
	return Grid{Bits: 8, Scale: g.Scale, Min: int32(span.low), Max: int32(span.high)}
}

// Validate reports what makes the grid unfit: a width outside 1..8, a scale that is not finite and
// positive, codes that the width can't hold, a zero point outside the codes, or a Table that contradicts its comments.
func (g Grid) Validate() error {
	if g.Bits < 1 || g.Bits > 8 {
		return fmt.Errorf("integer: grid of %d bits: want 1 to 8", g.Bits)
	}
	if !(g.Scale > 0) || math.IsInf(float64(g.Scale), 0) {
		return fmt.Errorf("integer: grid scale %v: want a finite positive number", g.Scale)
	}
	low, high := int32(0), int32(1)<<g.Bits-1
	if g.Min < 0 {
		low, high = -(int32(1) << (g.Bits - 1)), int32(1)<<(g.Bits-1)-1
	}
	if g.Min < low || g.Max > high || g.Min >= g.Max {
		return fmt.Errorf("integer: grid codes [%d, %d]: want a range inside [%d, %d] for %d bits", g.Min, g.Max, low, high, g.Bits)
	}
	if g.Zero < g.Min || g.Zero > g.Max {
		return fmt.Errorf("integer: grid zero point %d: want it inside [%d, %d]", g.Zero, g.Min, g.Max)
	}
	if g.Table == nil {
		return nil
	}
	return g.validateTable()
}

// validateTable is Validate for what only grids with a Table have.
func (g Grid) validateTable() error {
	levels, bounds := g.Table.Levels, g.Table.Bounds
	if g.Min != 0 || int(g.Max) != len(levels)-1 || len(bounds) != len(levels)-1 {
		return fmt.Errorf("integer: grid codes [%d, %d] for %d levels and %d bounds: want [0, levels - 1] and a bound less", g.Min, g.Max, len(levels), len(bounds))
	}
	for q, level := range levels {
		if level < -MaxLevel || level > MaxLevel || q > 0 && level <= levels[q-1] {
			return fmt.Errorf("integer: grid level %d at %d: want ascending levels of at most %d in magnitude", level, q, MaxLevel)
		}
	}
	for i, bound := range bounds {
		if !finite(float64(bound)) || i > 0 && bound < bounds[i-1] {
			return fmt.Errorf("integer: grid bound %v at %d: want finite numbers that never descend", bound, i)
		}
	}
	signs := len(levels) == 2 && levels[0] == -levels[1]
	if g.Code(0) != g.Zero || levels[g.Zero] != 0 && !signs {
		return fmt.Errorf("integer: grid zero point %d has level %d, and 0 has the code %d: want level 0 and one code", g.Zero, levels[g.Zero], g.Code(0))
	}
	return nil
}
