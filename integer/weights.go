package integer

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Limits of a weight tensor, which a file must keep as well.
const (
	maxWeightBits = 16
	maxPlanes     = 8
	maxElements   = 1<<31 - 1
)

// Limits of a node.
const (
	maxInputs       = 2
	maxAccumulators = maxInputs * maxPlanes
	maxSteps        = 256
)

// Weights is a weight tensor as integers: one code per weight, or per vector of weights, and what the codes are worth.
//
//	w[o, ...] = sum over planes p of Scale_p[o] * Table_p[code[o, ...]]
//
// With a Vector of d weights, those of an output in their order are cut into vectors of d, each of which has a code that stands for
// d entries: weight i of the tensor is Table_p[code[i/d]*d + i%d].
type Weights struct {
	Shape  []int    // [O][I][KH][KW] or [O][I]; I counts the channels of one group
	Bits   uint8    // width of a code, 1..16
	Vector int      // weights of a code, a divisor of those of an output; 0 means 1
	Codes  []uint16 // row-major, each below 2^Bits
	Planes []Plane  // 1..8
}

// Plane is one term of a weight's value.
type Plane struct {
	Table []int8    // 2^Bits times Vector entries: the integers that each code stands for
	Scale []float64 // [O]: what one unit of Table is worth, finite
}

// SignedTable returns the table of plain two's complement codes: code c of the given width (1..8)
// stands for c when its top bit is clear and for c - 2^bits otherwise.
func SignedTable(bits uint8) []int8 {
	table := make([]int8, 1<<bits)
	for code := range table {
		table[code] = int8(code<<(8-bits)) >> (8 - bits)
	}
	return table
}

// Validate reports the first thing that contradicts the field comments, or nil.
func (w *Weights) Validate() error {
	if err := w.integers().validate(); err != nil {
		return err
	}
	if w.Bits < 1 || w.Bits > maxWeightBits || len(w.Planes[0].Table) != max(1, w.Vector)<<w.Bits {
		return fmt.Errorf("integer: weights of %d bits with a table of %d entries: want 1 to 16 bits and 2^bits entries for each weight of a vector", w.Bits, len(w.Planes[0].Table))
	}
	for p, plane := range w.Planes {
		if len(plane.Scale) != w.Shape[0] {
			return fmt.Errorf("integer: weight plane %d has %d scales: want one for each of %d output channels", p, len(plane.Scale), w.Shape[0])
		}
		for o, scale := range plane.Scale {
			if !finite(scale) {
				return fmt.Errorf("integer: weight plane %d, channel %d has scale %v: want a finite number", p, o, scale)
			}
		}
	}
	return nil
}

// Decode returns the real weights, row-major. The terms are summed in float64 in the order of the
// planes, each product rounded to float64 first, and the sum is rounded to float32 once; with one
// plane whose scale is a float32 that is the float32 product.
func (w *Weights) Decode() []float32 {
	planes := w.Levels()
	values := make([]float32, len(planes[0]))
	each := len(values) / w.Shape[0]
	for i := range values {
		sum := 0.0
		for p, levels := range planes {
			sum += float64(w.Planes[p].Scale[i/each] * float64(levels[i]))
		}
		values[i] = float32(sum)
	}
	return values
}

// Levels returns the integers that the codes stand for in each plane, [plane][weight] in the order of the shape.
func (w *Weights) Levels() [][]int8 { return w.integers().decode() }

// Count returns the number of weights.
func (w *Weights) Count() int { return len(w.Codes) * max(1, w.Vector) }

// Bound returns, per plane and output channel, the largest magnitude that an accumulator (and each of
// its partial sums) can reach when no input exceeds inputMax in magnitude: sum |Table[code]| * inputMax.
func (w *Weights) Bound(inputMax int64) [][]int64 {
	bound := make([][]int64, len(w.Planes))
	for p, sums := range w.integers().sums() {
		bound[p] = make([]int64, len(sums))
		for o, s := range sums {
			bound[p][o] = (s.positive - s.negative) * inputMax
		}
	}
	return bound
}

// Sum returns, per plane and output channel, sum Table[code]: what a constant input of 1 yields.
func (w *Weights) Sum() [][]int64 {
	total := make([][]int64, len(w.Planes))
	for p, sums := range w.integers().sums() {
		total[p] = make([]int64, len(sums))
		for o, s := range sums {
			total[p][o] = s.positive + s.negative
		}
	}
	return total
}

// clone returns a copy that shares no memory.
func (w *Weights) clone() Weights {
	c := Weights{Shape: slices.Clone(w.Shape), Bits: w.Bits, Vector: w.Vector, Codes: slices.Clone(w.Codes)}
	for _, plane := range w.Planes {
		c.Planes = append(c.Planes, Plane{Table: slices.Clone(plane.Table), Scale: slices.Clone(plane.Scale)})
	}
	return c
}

// integers is the part of the weights that the engine computes with; it shares their memory.
func (w *Weights) integers() *IntegerWeights {
	tables := make([][]int8, len(w.Planes))
	for p, plane := range w.Planes {
		tables[p] = plane.Table
	}
	return &IntegerWeights{Shape: w.Shape, Vector: w.Vector, Codes: w.Codes, Tables: tables}
}

// IntegerWeights is what the engine knows of a weight tensor: its codes and the integers they stand
// for. What those are worth has gone into the requantizers.
type IntegerWeights struct {
	Shape  []int    // as in Weights
	Vector int      // as in Weights
	Codes  []uint16 // as in Weights
	Tables [][]int8 // [plane][2^bits times Vector]
}

// vector returns how many weights a code stands for.
func (w *IntegerWeights) vector() int { return max(1, w.Vector) }

// each returns the number of weights of an output.
func (w *IntegerWeights) each() int { return len(w.Codes) * w.vector() / w.Shape[0] }

// signedSum holds the sum of the positive and of the negative table entries of one output channel.
type signedSum struct{ positive, negative int64 }

// equal reports whether both are the same numbers.
func (w *IntegerWeights) equal(v *IntegerWeights) bool {
	return slices.Equal(w.Shape, v.Shape) && w.vector() == v.vector() && slices.Equal(w.Codes, v.Codes) &&
		slices.EqualFunc(w.Tables, v.Tables, slices.Equal[[]int8])
}

// sums returns the signed sums per plane and output channel.
func (w *IntegerWeights) sums() [][]signedSum {
	sums := make([][]signedSum, len(w.Tables))
	each := len(w.Codes) / w.Shape[0]
	for p, table := range w.Tables {
		worth := w.vectorSums(table)
		sums[p] = make([]signedSum, w.Shape[0])
		for o := range sums[p] {
			for _, code := range w.Codes[o*each : (o+1)*each] {
				sums[p][o].positive += worth[code].positive
				sums[p][o].negative += worth[code].negative
			}
		}
	}
	return sums
}

// vectorSums returns the signed sums of the entries of every code.
func (w *IntegerWeights) vectorSums(table []int8) []signedSum {
	sums := make([]signedSum, len(table)/w.vector())
	for i, level := range table {
		sum := &sums[i/w.vector()]
		sum.positive += int64(max(level, 0))
		sum.negative += int64(min(level, 0))
	}
	return sums
}

// decode returns the integers that the codes stand for in each plane, row-major.
func (w *IntegerWeights) decode() [][]int8 {
	planes, d := make([][]int8, len(w.Tables)), w.vector()
	for p, table := range w.Tables {
		planes[p] = make([]int8, 0, len(w.Codes)*d)
		for _, code := range w.Codes {
			planes[p] = append(planes[p], table[int(code)*d:][:d]...)
		}
	}
	return planes
}

// validate checks everything that computing with the integers relies on.
func (w *IntegerWeights) validate() error {
	if len(w.Shape) != 2 && len(w.Shape) != 4 {
		return fmt.Errorf("integer: weights of %d dimensions: want [O][I] or [O][I][KH][KW]", len(w.Shape))
	}
	elements, ok := product(w.Shape...)
	if !ok {
		return fmt.Errorf("integer: weight shape %v: want positive dimensions and less than 2^31 weights", w.Shape)
	}
	if w.Vector < 0 || elements/w.Shape[0]%w.vector() != 0 {
		return fmt.Errorf("integer: vectors of %d weights for shape %v: want a divisor of %d", w.Vector, w.Shape, elements/w.Shape[0])
	}
	if len(w.Codes) != elements/w.vector() {
		return fmt.Errorf("integer: %d weight codes for shape %v: want %d", len(w.Codes), w.Shape, elements/w.vector())
	}
	if len(w.Tables) < 1 || len(w.Tables) > maxPlanes {
		return fmt.Errorf("integer: weights of %d planes: want 1 to %d", len(w.Tables), maxPlanes)
	}
	return w.validateTables()
}

// validateTables checks that all tables have one power-of-two length and that every code is an index.
func (w *IntegerWeights) validateTables() error {
	length := len(w.Tables[0]) / w.vector()
	if length < 2 || length > 1<<maxWeightBits || length&(length-1) != 0 || length*w.vector() != len(w.Tables[0]) {
		return fmt.Errorf("integer: weight table of %d entries: want 2^bits for 1 to 16 bits, times the weights of a vector", len(w.Tables[0]))
	}
	for _, table := range w.Tables {
		if len(table) != len(w.Tables[0]) {
			return errors.New("integer: weight planes have tables of different lengths")
		}
	}
	for i, code := range w.Codes {
		if int(code) >= length {
			return fmt.Errorf("integer: weight code %d at %d: want less than %d", code, i, length)
		}
	}
	return nil
}

// product multiplies positive dimensions; ok is false when one is not positive or the result
// passes 2^31 - 1.
func product(dimensions ...int) (n int, ok bool) {
	n = 1
	for _, d := range dimensions {
		if d < 1 || d > maxElements/n {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// finite reports whether x is neither NaN nor infinite.
func finite(x float64) bool {
	return !math.IsNaN(x) && !math.IsInf(x, 0)
}
