package integer

import (
	"fmt"
	"math"
)

// Grid is the coding of activations: a code q in [Min, Max] is worth (q - Zero) * Scale.
//
// Codes travel in 8-bit carriers, uint8 when Min >= 0 and int8 otherwise. Zero lies in [Min, Max], so
// the real number 0 has a code of its own, which is also what convolutions pad with.
type Grid struct {
	Bits           uint8   // width of a code, 1..8
	Scale          float32 // step between neighbouring codes, finite and positive
	Zero, Min, Max int32   // zero point, smallest and largest code
	Table          *Table  // what codes stand for where levels are not equally spaced; nil for uniform ones
}

// Table is the coding of activations of unequal steps: code q is worth Levels[q] * Scale, and the real number x has the
// code #{i: Bounds[i] < x}.
type Table struct {
	Levels []int32   // ascending, 0 among them, magnitudes up to 32639
	Bounds []float32 // one less, ascending, in the unit of x
}

// Level returns the integer that a code stands for.
func (g Grid) Level(q int32) int32 {
	if g.Table != nil {
		return g.Table.Levels[q]
	}
	return q - g.Zero
}

// Code returns the code of the real number x,
//
//	clamp(round(x / Scale) + Zero, Min, Max)
//
// with float32 division, ties to even, and the zero point added after rounding. Huge and infinite x
// saturate; NaN gets the code of 0.
func (g Grid) Code(x float32) int32 {
	if x != x {
		return g.Zero
	}
	code := math.RoundToEven(float64(x/g.Scale)) + float64(g.Zero)
	return int32(math.Max(float64(g.Min), math.Min(code, float64(g.Max))))
}

// Value returns what the code q is worth, float32(q - Zero) * Scale.
func (g Grid) Value(q int32) float32 {
	return float32(q-g.Zero) * g.Scale
}

// Magnitude returns the largest |q| and |q - Zero| that a code of the grid can have: the input bound
// from which accumulators are proved, whether they sum codes or levels.
func (g Grid) Magnitude() int64 {
	low, high, zero := int64(g.Min), int64(g.Max), int64(g.Zero)
	return max(-low, low, -high, high, high-zero, zero-low)
}

// Validate reports what makes the grid unfit: a width outside 1..8, a scale that is not finite and
// positive, codes that the width can't hold, or a zero point outside the codes.
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
	return nil
}
