package integer

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Input describes the images that a network sees.
type Input struct {
	Channels, Height, Width int
	Pixel                   [][256]float32 // per channel: the real number that stands for each pixel
}

// Builder assembles a Model from layers with quantized weights and from the grids of their
// activations. It folds biases, normalization, rectifiers and zero points into integers, proves that
// nothing overflows, and refuses, naming the layer, where it can't.
//
// A Value is, in turn: the unquantized image; codes on a Grid; pending, that is accumulators which
// are still to be requantized; or wide, a fixed-point int32 below 2^24. Conv and Linear take codes and
// give pending values, PReLU and Scale too. Quantize gives codes, AvgPool, Add and Widen give wide values, the others
// what they take in, and Output ends the network.
//
// Codes of a Grid with a Table travel as their levels, in one byte plane or two. Where numbers are needed that two planes
// do not show, as for a sum or the largest of a window, a node puts them together first, which is exact.
type Builder struct {
	input    Input
	program  *Program
	layers   []Layer
	consumed []bool // whether a node uses the layer
	image    *Value // quantized
	finished bool   // Output has handed the program over
}

// NewBuilder starts a network for images of the given kind. A description that is unfit is reported
// where the image is quantized.
func NewBuilder(in Input) *Builder {
	shape := Shape{in.Channels, in.Height, in.Width}
	return &Builder{input: in, program: &Program{Input: shape}}
}

// Input returns the unquantized image.
func (b *Builder) Input() Value {
	return Value{builder: b, kind: imageValue, name: "input", shape: b.program.Input}
}

// Conv convolves codes of shape CxHxW with weights [O][C/groups][KH][KW] and adds bias, real, [O] or nil:
// a pending value. The layer's name must be its own.
func (b *Builder) Conv(name string, x Value, w *Weights, bias []float32, geometry ConvGeometry) (Value, error) {
	geometry = geometry.withDefaults()
	node := Node{Kind: Conv, Name: name, Geometry: geometry}
	if w != nil && len(w.Shape) != 4 {
		return Value{}, fmt.Errorf("integer: layer %q: weight shape %v: want [O][I][KH][KW]", name, w.Shape)
	}
	return b.multiply(node, x, w, bias)
}

// Linear multiplies codes of shape Nx1x1 by weights [O][N] and adds bias, real, [O] or nil: a pending
// value. The layer's name must be its own.
func (b *Builder) Linear(name string, x Value, w *Weights, bias []float32) (Value, error) {
	if w != nil && len(w.Shape) != 2 {
		return Value{}, fmt.Errorf("integer: layer %q: weight shape %v: want [O][I]", name, w.Shape)
	}
	return b.multiply(Node{Kind: Linear, Name: name}, x, w, bias)
}

// multiply adds a layer and returns its accumulators, pending.
func (b *Builder) multiply(node Node, x Value, w *Weights, bias []float32) (Value, error) {
	if err := b.check(x); err != nil {
		return Value{}, err
	}
	if x.kind != codesValue {
		return Value{}, fmt.Errorf("integer: layer %q: input %q is %v: want codes, quantize it first", node.Name, x.name, x.kind)
	}
	layer, err := b.newLayer(node.Name, w, bias)
	if err != nil {
		return Value{}, err
	}
	node.Inputs = x.planes
	shape, err := node.outputShape([]Shape{x.shape}, layer.Weights.integers())
	if err != nil {
		return Value{}, locate(err, "layer %q", node.Name)
	}
	pending := &pending{
		node: node, zero: x.zero(), bound: x.grid.AccumulatorBounds(w), sums: x.grid.AccumulatorSums(w),
		affine: NewAffine(x.grid, layer.Weights.Planes, layer.Bias, layer.Weights.Shape[0]),
	}
	if err := pending.affine.validate(pending.bound); err != nil {
		return Value{}, locate(err, "layer %q", node.Name)
	}
	pending.node.Weights = len(b.layers)
	b.layers = append(b.layers, layer)
	b.consumed = append(b.consumed, false)
	return Value{builder: b, kind: pendingValue, name: node.Name, shape: shape, pending: pending}, nil
}

// newLayer checks and copies what describes a layer.
func (b *Builder) newLayer(name string, w *Weights, bias []float32) (Layer, error) {
	if w == nil {
		return Layer{}, fmt.Errorf("integer: layer %q has no weights", name)
	}
	if name == "" {
		return Layer{}, errors.New("integer: a layer has no name")
	}
	if slices.ContainsFunc(b.layers, func(l Layer) bool { return l.Name == name }) {
		return Layer{}, fmt.Errorf("integer: two layers are named %q", name)
	}
	layer := Layer{Name: name, Weights: w.clone(), Bias: slices.Clone(bias)}
	if err := layer.validate(); err != nil {
		return Layer{}, locate(err, "layer %q", name)
	}
	return layer, nil
}

// Quantize codes x on the grid: a table per channel for the image, a requantization for any other value. For a grid with
// a Table, a pending value is first brought to a wide one of WideBits; then staircases, one for each plane, take it to
// levels, with Grid.Thresholds of what one of its units is worth. Wide values and codes are integers of one unit
// already and are compared as they are. The image can be given one grid only.
func (b *Builder) Quantize(x Value, g Grid) (Value, error) {
	if err := b.check(x); err != nil {
		return Value{}, err
	}
	if err := g.Validate(); err != nil {
		return Value{}, locate(err, "output of %q", x.name)
	}
	g = g.clone()
	if x.kind == imageValue {
		return b.quantizeImage(x, g)
	}
	x, err := b.joined(x)
	if err != nil {
		return Value{}, err
	}
	if g.Table != nil {
		return b.quantizeSteps(x, g)
	}
	p := x.accumulators()
	r, err := NewRequantizer(p.affine, p.bound, g)
	if err != nil {
		return Value{}, locate(err, "output of %q", x.name)
	}
	return Value{builder: b, kind: codesValue, name: x.name, shape: x.shape, planes: b.emitPending(p, r), grid: g}, nil
}

// quantizeSteps is Quantize for a grid with a Table.
func (b *Builder) quantizeSteps(x Value, g Grid) (Value, error) {
	if x.kind == pendingValue {
		var err error
		if x, err = b.widen(x, WideBits); err != nil {
			return Value{}, err
		}
	}
	thresholds := g.Thresholds(x.unit())
	for i, t := range thresholds {
		thresholds[i] = int32(max(math.MinInt32, min(int64(t)+int64(x.zero()), math.MaxInt32)))
	}
	return Value{builder: b, kind: codesValue, name: x.name, shape: x.shape, planes: b.emitPlanes(g, thresholds, x.planes[0]), grid: g}, nil
}

// quantizeImage fills the pixel tables.
func (b *Builder) quantizeImage(x Value, g Grid) (Value, error) {
	if in := b.program.Input; !in.valid() || len(b.input.Pixel) != in.Channels {
		return Value{}, fmt.Errorf("integer: input of shape %v with %d pixel tables: want positive sizes, less than 2^31 elements and a table per channel", in, len(b.input.Pixel))
	}
	if b.image == nil {
		b.codeImage(x.name, g)
	}
	if !b.image.grid.Equal(g) {
		return Value{}, fmt.Errorf("integer: input is quantized on two grids, one of %v and one of %v", b.image.grid, g)
	}
	if x.flat {
		return b.Flatten(*b.image)
	}
	return *b.image, nil
}

// codeImage makes the coded image: codes of a uniform grid, levels where one byte holds them, and else indices, which
// staircases split into planes.
func (b *Builder) codeImage(name string, g Grid) {
	b.image = &Value{builder: b, kind: codesValue, name: name, shape: b.program.Input, grid: g, planes: []int{0}}
	split := len(g.Factors()) > 1
	b.program.Zero = b.image.zero()
	if split {
		b.program.Zero = g.Zero
	}
	b.program.Pixels = make([][256]int16, len(b.input.Pixel))
	for c, table := range b.input.Pixel {
		for pixel, real := range table {
			code := g.Code(real)
			if g.Table != nil && !split {
				code = g.Level(code)
			}
			b.program.Pixels[c][pixel] = int16(code)
		}
	}
	if !split {
		return
	}
	bounds := make([]int32, g.Max)
	for i := range bounds {
		bounds[i] = int32(i)
	}
	b.image.planes = b.emitPlanes(g, bounds, 0)
}

// Scale multiplies each channel of a pending or wide value by gamma and adds beta, [channels] each: how
// normalization is folded. It refuses what folding would change: a value already rectified,
// one flattened or given more channels by sampling, and a negative gamma after max pooling.
func (b *Builder) Scale(x Value, gamma, beta []float64) (Value, error) {
	if err := b.check(x); err != nil {
		return Value{}, err
	}
	if x.kind != pendingValue && x.kind != wideValue {
		return Value{}, fmt.Errorf("integer: scale of %q, which is %v: want a pending or wide value", x.name, x.kind)
	}
	if len(gamma) != x.shape.Channels || len(beta) != x.shape.Channels {
		return Value{}, fmt.Errorf("integer: scale of %q: %d factors and %d offsets for %d channels", x.name, len(gamma), len(beta), x.shape.Channels)
	}
	p := x.accumulators()
	if err := p.refuseScale(gamma); err != nil {
		return Value{}, locate(err, "scale of %q", x.name)
	}
	x.kind, x.pending = pendingValue, p.scaled(gamma, beta)
	return x, nil
}

// ReLU returns max(0, x). On a pending value it costs nothing, its requantizer clamps; otherwise it
// adds a node. A value that has no ReLU (the unquantized image) is reported by whatever uses the result.
func (b *Builder) ReLU(x Value) Value {
	if err := b.check(x); err != nil {
		return Value{err: err}
	}
	switch x.kind {
	case pendingValue:
		p := *x.pending
		p.affine.ReLU = true
		x.pending = &p
	case codesValue, wideValue:
		clamped, err := b.clampAtZero(x)
		if err != nil {
			return Value{err: locate(err, "ReLU of %q", x.name)}
		}
		return clamped
	default:
		x.err = fmt.Errorf("integer: ReLU of %q, which is %v: quantize it first", x.name, x.kind)
	}
	return x
}

// PReLU multiplies what is negative by its channel's slope, [channels]: a pending value whose requantizer has
// numbers for negative sums. It refuses slopes that are not finite, the unquantized image, a value whose channels a
// flattening or sampling has changed, and a negative slope after max pooling.
func (b *Builder) PReLU(x Value, slopes []float64) (Value, error) {
	if err := b.check(x); err != nil {
		return Value{}, err
	}
	if x.kind == imageValue {
		return Value{}, fmt.Errorf("integer: PReLU of %q, which is %v: quantize it first", x.name, x.kind)
	}
	if len(slopes) != x.shape.Channels {
		return Value{}, fmt.Errorf("integer: PReLU of %q: %d slopes for %d channels", x.name, len(slopes), x.shape.Channels)
	}
	for o, slope := range slopes {
		if !finite(slope) {
			return Value{}, fmt.Errorf("integer: PReLU of %q: slope %v of channel %d: want a finite number", x.name, slope, o)
		}
	}
	x, err := b.joined(x)
	if err != nil {
		return Value{}, err
	}
	p := x.accumulators()
	if err := p.refuseFactors(slopes); err != nil {
		return Value{}, locate(err, "PReLU of %q", x.name)
	}
	x.kind = pendingValue
	if x.pending = p; !p.affine.ReLU { // which leaves nothing negative
		x.pending = p.sloped(slopes)
	}
	return x, nil
}

// clampAtZero requantizes a value on its own grid or scale, where the multiplier is exactly 1.
func (b *Builder) clampAtZero(x Value) (Value, error) {
	if x.twoPlanes() {
		return b.throughLevels(x, b.clampAtZero)
	}
	p := x.accumulators()
	p.affine.ReLU = true
	var r *Requantizer
	var err error
	if x.kind == codesValue {
		r, err = NewRequantizer(p.affine, p.bound, x.grid.carrier())
	} else {
		r, err = NewWideRequantizer(p.affine, p.bound, x.scale)
	}
	if err != nil {
		return Value{}, err
	}
	x.planes = b.emitPending(p, r)
	return x, nil
}

// MaxPool takes the largest value of each window; padding is skipped. A pending value is pooled after
// its requantization, which keeps order.
func (b *Builder) MaxPool(x Value, w Window) (Value, error) {
	return b.reshape(x, Node{Kind: MaxPool, Window: w.withDefaults()})
}

// Sample is the shortcut without weights of a residual block that makes the image smaller and the channels
// more: it keeps every stride-th row and column, from the first on, and adds before channels of the
// real number 0 in front of x's and after channels behind them. A pending value is sampled after its requantization.
func (b *Builder) Sample(x Value, stride, before, after int) (Value, error) {
	return b.reshape(x, Node{Kind: Sample, Sampling: Sampling{Stride: stride, Before: before, After: after}})
}

// Flatten gives a value the shape Nx1x1, order c, h, w. The unquantized image is flattened once it is quantized.
func (b *Builder) Flatten(x Value) (Value, error) {
	return b.reshape(x, Node{Kind: Flatten})
}

// reshape adds a node that keeps grid and scale, at once or, to a pending value, later.
func (b *Builder) reshape(x Value, node Node) (Value, error) {
	if err := b.check(x); err != nil {
		return Value{}, err
	}
	if x.kind == imageValue && node.Kind != Flatten {
		return Value{}, fmt.Errorf("integer: %v of the unquantized image: quantize it first", node.Kind)
	}
	shape, err := node.outputShape([]Shape{x.shape}, nil)
	if err != nil {
		return Value{}, locate(err, "%v of %q", node.Kind, x.name)
	}
	if node.Kind == MaxPool && x.twoPlanes() {
		return b.throughLevels(x, func(levels Value) (Value, error) { return b.reshape(levels, node) })
	}
	x.shape = shape
	if x.kind == imageValue {
		x.flat = true
		return x, nil
	}
	if x.kind == pendingValue {
		p := *x.pending
		p.later = append(slices.Clip(p.later), node)
		x.pending = &p
		return x, nil
	}
	planes := make([]int, len(x.planes))
	for p, plane := range x.planes {
		node.Inputs = []int{plane}
		planes[p] = b.emit(node)
	}
	x.planes = planes
	return x, nil
}

// AvgPool averages each window, padding counting as zeros: a wide value, the window's sum, whose
// unit is worth the area'th part of what the input's is. The input is first brought to a wide value
// of Window.SumBits bits where the sum could otherwise reach 2^24.
func (b *Builder) AvgPool(x Value, w Window) (Value, error) {
	node := Node{Kind: AvgPool, Window: w.withDefaults()}
	if err := b.check(x); err != nil {
		return Value{}, err
	}
	shape, err := node.outputShape([]Shape{x.shape}, nil)
	if err != nil {
		return Value{}, locate(err, "average of %q", x.name)
	}
	if x, err = b.joined(x); err != nil {
		return Value{}, err
	}
	area := int64(w.Height) * int64(w.Width)
	if x.kind == imageValue || x.kind == pendingValue || x.magnitude()*area >= 1<<WideBits {
		if x, err = b.widen(x, w.SumBits()); err != nil {
			return Value{}, err
		}
	}
	node.Inputs = x.planes
	return Value{builder: b, kind: wideValue, name: x.name, shape: shape, planes: []int{b.emit(node)}, scale: x.unit() / float64(area), bound: x.magnitude() * area}, nil
}

// Widen brings a pending value to a wide one, so that several nodes can take in the same numbers: what a residual
// block does with its input. Other values are wide enough as they are.
func (b *Builder) Widen(x Value) (Value, error) {
	if err := b.check(x); err != nil {
		return Value{}, err
	}
	if x.kind != pendingValue {
		return x, nil
	}
	return b.widen(x, WideBits)
}

// Add sums two values of one shape, each brought to a wide value first unless it is codes: a wide
// value with the scale that WideScale gives for WideBits.
func (b *Builder) Add(x, y Value) (Value, error) {
	var err error
	for _, operand := range []*Value{&x, &y} {
		if err = b.check(*operand); err != nil {
			return Value{}, err
		}
		if operand.kind != codesValue || operand.twoPlanes() {
			if *operand, err = b.widen(*operand, WideBits); err != nil {
				return Value{}, err
			}
		}
	}
	if x.shape != y.shape {
		return Value{}, fmt.Errorf("integer: sum of %q and %q: shapes %v and %v differ", x.name, y.name, x.shape, y.shape)
	}
	a := Affine{Scale: [][]float64{{x.unit()}, {y.unit()}}, Bias: []float64{0}}
	bound := [][]int64{{x.magnitude()}, {y.magnitude()}}
	scale := WideScale(a, bound, WideBits)
	r, err := NewWideRequantizer(a, bound, scale)
	if err != nil {
		return Value{}, locate(err, "sum of %q and %q", x.name, y.name)
	}
	// The two zero points fold one after the other, each with the other plane's share left out.
	folded := r.FoldZero(x.zero(), [][]int64{{1}, {0}}).FoldZero(y.zero(), [][]int64{{0}, {1}})
	index := b.emit(Node{Kind: Add, Inputs: []int{x.planes[0], y.planes[0]}, Requantizer: folded})
	return Value{builder: b, kind: wideValue, name: b.program.Nodes[index-1].Name, shape: x.shape, planes: []int{index}, scale: scale, bound: r.Bound(bound)}, nil
}

// Output ends the network: x, of as many elements as there are classes, becomes wide logits with one
// power-of-two scale for all classes and magnitudes below 2^24. The builder refuses everything afterwards.
func (b *Builder) Output(x Value, classes []string) (*Model, error) {
	if err := b.check(x); err != nil {
		return nil, err
	}
	if len(classes) == 0 || x.shape.Len() != len(classes) {
		return nil, fmt.Errorf("integer: output of %q: shape %v for %d classes", x.name, x.shape, len(classes))
	}
	x, err := b.logits(x)
	if err != nil {
		return nil, err
	}
	for i, used := range b.consumed {
		if !used {
			return nil, fmt.Errorf("integer: layer %q is not used by the output", b.layers[i].Name)
		}
	}
	for i := range b.layers {
		b.program.Weights = append(b.program.Weights, *b.layers[i].Weights.integers())
	}
	b.program.Classes = len(classes)
	m := &Model{Program: b.program, Layers: b.layers, Classes: slices.Clone(classes), Input: b.program.Input, LogitScale: x.scale, Metadata: map[string]string{}}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	b.finished = true
	return m, nil
}

// logits brings x to a wide value with a power-of-two scale that is the output of the last node.
func (b *Builder) logits(x Value) (Value, error) {
	x, err := b.joined(x)
	if err != nil {
		return Value{}, err
	}
	last := x.kind == wideValue && x.planes[0] == len(b.program.Nodes)
	if last && powerOfTwo(x.scale) {
		return x, nil
	}
	return b.rescale(x, WideBits)
}
