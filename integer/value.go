package integer

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Value is an activation of the network under construction. Builder's methods make and take values;
// the zero Value belongs to no network and is refused.
type Value struct {
	builder *Builder
	err     error // what went wrong in a method that returns no error
	kind    valueKind
	name    string // of the layer or node it comes from
	shape   Shape
	planes  []int    // codes, wide: numbers of the program's values; more than one only for levels in two byte planes
	grid    Grid     // codes
	scale   float64  // wide: what one unit is worth
	bound   int64    // wide: largest magnitude
	pending *pending // pending
	flat    bool     // image: to be flattened once it is quantized
}

type valueKind uint8

const (
	imageValue valueKind = iota
	codesValue
	pendingValue
	wideValue
)

func (k valueKind) String() string {
	return [...]string{"the unquantized image", "codes", "a pending value", "a wide value"}[k]
}

// Shape returns the size of the value.
func (v Value) Shape() Shape { return v.shape }

// Grid returns the grid of a value of codes; ok is false for any other.
func (v Value) Grid() (g Grid, ok bool) { return v.grid, v.kind == codesValue }

// Wide returns what one unit of a wide value is worth and its largest magnitude; ok is false for any other.
func (v Value) Wide() (scale float64, bound int64, ok bool) {
	return v.scale, v.bound, v.kind == wideValue
}

// Sloped reports whether the value is pending behind a PReLU, whose numbers can't be scaled by channel any more.
func (v Value) Sloped() bool { return v.kind == pendingValue && v.pending.affine.Slope != nil }

// twoPlanes reports whether the value is levels that no byte holds.
func (v Value) twoPlanes() bool { return v.kind == codesValue && len(v.planes) > 1 }

// pending is an output whose requantization is still to be chosen.
type pending struct {
	node   Node      // without a requantizer
	affine Affine    // what its accumulators over levels are worth
	bound  [][]int64 // [plane][channel]: their largest magnitude, over codes and over levels
	sums   [][]int64 // [plane][channel]: what one unit of the input's zero point adds to them
	zero   int32     // the input's zero point
	later  []Node    // max pooling, flattening and sampling, which commute with requantization
}

// check refuses values that are not this builder's or carry an error.
func (b *Builder) check(v Value) error {
	if v.err != nil {
		return v.err
	}
	if v.builder != b {
		return errors.New("integer: value of another builder or of none")
	}
	if b.finished {
		return errors.New("integer: the network already has its output: start a new builder")
	}
	return nil
}

// magnitude returns the largest magnitude of codes, levels and wide numbers.
func (v Value) magnitude() int64 {
	if v.kind == codesValue {
		return v.grid.Magnitude()
	}
	return v.bound
}

// unit returns what one unit of codes or of a wide value is worth.
func (v Value) unit() float64 {
	if v.kind == codesValue {
		return float64(v.grid.Scale)
	}
	return v.scale
}

// zero returns the zero point of codes and wide numbers as they are carried.
func (v Value) zero() int32 {
	if v.kind == codesValue {
		return v.grid.carrier().Zero
	}
	return 0
}

// accumulators returns a pending value as it is, and sees codes of one plane and wide values as accumulators of one
// plane and one channel for all.
func (v Value) accumulators() *pending {
	if v.kind == pendingValue {
		return v.pending
	}
	return &pending{
		node:   Node{Kind: Requantize, Inputs: v.planes},
		affine: Affine{Scale: [][]float64{{v.unit()}}, Bias: []float64{0}},
		bound:  [][]int64{{v.magnitude()}},
		sums:   [][]int64{{1}},
		zero:   v.zero(),
	}
}

// refuseScale says why a per-channel factor and offset can't be folded, or nil.
func (p *pending) refuseScale(gamma []float64) error {
	if p.affine.ReLU || p.affine.Slope != nil {
		return errors.New("it follows a ReLU and can't be folded")
	}
	return p.refuseFactors(gamma)
}

// refuseFactors says why a factor for each channel can't be applied before what comes later, or nil.
func (p *pending) refuseFactors(gamma []float64) error {
	for _, node := range p.later {
		if node.Kind == Flatten && len(gamma) != len(p.affine.Bias) {
			return errors.New("it follows a flattening and can't be folded")
		}
		if node.Kind == Sample && node.Sampling.Before+node.Sampling.After > 0 {
			return errors.New("it follows a sampling that added channels and can't be folded")
		}
		if node.Kind == MaxPool && slices.ContainsFunc(gamma, func(g float64) bool { return g < 0 }) {
			return errors.New("a negative factor that follows max pooling can't be folded")
		}
	}
	return nil
}

// perChannel returns a copy of p with an entry for every channel.
func (p *pending) perChannel(channels int) *pending {
	s := *p
	s.affine.Scale, s.affine.Bias = spread(p.affine.Scale, channels), spread([][]float64{p.affine.Bias}, channels)[0]
	s.affine.Slope = slices.Clone(p.affine.Slope)
	s.bound, s.sums = spread(p.bound, channels), spread(p.sums, channels)
	return &s
}

// sloped returns p with the negative values of every channel multiplied by its slope.
func (p *pending) sloped(slopes []float64) *pending {
	s := p.perChannel(len(slopes))
	if p.affine.Slope == nil {
		s.affine.Slope = slices.Clone(slopes)
		return s
	}
	for o, slope := range slopes {
		// What an earlier negative slope has made positive no longer gets this one.
		if s.affine.Slope[o] >= 0 {
			s.affine.Slope[o] *= slope
		}
	}
	return s
}

// scaled returns p with every channel multiplied by gamma and beta added.
func (p *pending) scaled(gamma, beta []float64) *pending {
	s := p.perChannel(len(gamma))
	for o := range gamma {
		for _, scale := range s.affine.Scale {
			scale[o] *= gamma[o]
		}
		s.affine.Bias[o] = float64(s.affine.Bias[o]*gamma[o]) + beta[o]
	}
	return s
}

// spread copies per-plane rows, repeating an entry that serves all channels.
func spread[T any](rows [][]T, channels int) [][]T {
	copies := make([][]T, len(rows))
	for p, row := range rows {
		if len(row) == channels {
			copies[p] = slices.Clone(row)
			continue
		}
		copies[p] = slices.Repeat(row, channels)
	}
	return copies
}

// emit appends a node, named after its kind and position if it has no name, and returns the number of its value.
func (b *Builder) emit(node Node) int {
	if node.Name == "" {
		node.Name = fmt.Sprintf("%v%d", node.Kind, len(b.program.Nodes)+1)
	}
	b.program.Nodes = append(b.program.Nodes, node)
	return len(b.program.Nodes)
}

// emitPending appends the nodes of a pending value with its requantizer for levels.
func (b *Builder) emitPending(p *pending, r *Requantizer) []int {
	node := p.node
	node.Requantizer = r.FoldZero(p.zero, p.sums)
	if node.Kind == Conv || node.Kind == Linear {
		b.consumed[node.Weights] = true
	}
	index := b.emit(node)
	for _, step := range p.later {
		step.Inputs = []int{index}
		index = b.emit(step)
	}
	return []int{index}
}

// emitPlanes appends a staircase for each plane of the grid's levels; index has the code of as many bounds as lie below it.
func (b *Builder) emitPlanes(g Grid, bounds []int32, index int) []int {
	var planes []int
	for _, values := range g.planes() {
		planes = append(planes, b.emit(Node{Kind: Staircase, Inputs: []int{index}, Steps: newSteps(bounds, values)}))
	}
	return planes
}

// newSteps leaves out the bounds between equal values.
func newSteps(bounds []int32, values []int16) *Steps {
	s := &Steps{Bounds: []int32{}, Values: []int16{values[0]}}
	for i, bound := range bounds {
		if values[i+1] != values[i] {
			s.Bounds, s.Values = append(s.Bounds, bound), append(s.Values, values[i+1])
		}
	}
	return s
}

// joined returns levels in two planes as one wide value in their own unit, which is exact; other values as they are.
func (b *Builder) joined(x Value) (Value, error) {
	if !x.twoPlanes() {
		return x, nil
	}
	unit := float64(x.grid.Scale)
	a := Affine{Bias: []float64{0}}
	var bound [][]int64
	for p, magnitude := range x.grid.PlaneMagnitudes() {
		a.Scale = append(a.Scale, []float64{float64(x.grid.Factors()[p]) * unit})
		bound = append(bound, []int64{magnitude})
	}
	r, err := NewWideRequantizer(a, bound, unit)
	if err != nil {
		return Value{}, locate(err, "levels of %q", x.name)
	}
	index := b.emit(Node{Kind: Add, Inputs: x.planes, Requantizer: r})
	return Value{builder: b, kind: wideValue, name: x.name, shape: x.shape, planes: []int{index}, scale: unit, bound: x.grid.Magnitude()}, nil
}

// throughLevels does to levels in two planes what only their joined numbers allow and keeps their grid.
func (b *Builder) throughLevels(x Value, do func(Value) (Value, error)) (Value, error) {
	levels, err := b.joined(x)
	if err != nil {
		return Value{}, err
	}
	if levels, err = do(levels); err != nil {
		return Value{}, err
	}
	// A level has the code of as many levels as lie below it.
	x.shape, x.planes = levels.shape, b.emitPlanes(x.grid, x.grid.Table.Levels[:x.grid.Max], levels.planes[0])
	return x, nil
}

// widen returns x as a wide value of at most the given bits: itself if it is one.
func (b *Builder) widen(x Value, bits int) (Value, error) {
	x, err := b.joined(x)
	if err != nil || x.kind == wideValue && x.bound < 1<<bits {
		return x, err
	}
	return b.rescale(x, bits)
}

// rescale requantizes x, of one plane, to a wide value with the scale that WideScale gives.
func (b *Builder) rescale(x Value, bits int) (Value, error) {
	if x.kind == imageValue {
		return Value{}, errors.New("integer: the image is used before it is quantized")
	}
	if bits < 2 {
		return Value{}, fmt.Errorf("integer: output of %q: a window so large leaves no bits for its terms: want at most 2^22 elements", x.name)
	}
	p := x.accumulators()
	scale := WideScale(p.affine, p.bound, bits)
	r, err := NewWideRequantizer(p.affine, p.bound, scale)
	if err != nil {
		return Value{}, locate(err, "output of %q", x.name)
	}
	return Value{builder: b, kind: wideValue, name: x.name, shape: x.shape, planes: b.emitPending(p, r), scale: scale, bound: r.Bound(p.bound)}, nil
}

// powerOfTwo reports whether x is a positive power of two.
func powerOfTwo(x float64) bool {
	fraction, _ := math.Frexp(x)
	return fraction == 0.5
}
