package integer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/goqat/goqat/internal/kernel"
)

// interval is a range of integers, both ends included.
type interval struct{ low, high int64 }

// with returns the smallest range that also holds v.
func (i interval) with(v int64) interval { return interval{min(i.low, v), max(i.high, v)} }

// times returns the range of the products with factor.
func (i interval) times(factor int64) interval {
	a, b := i.low*factor, i.high*factor
	return interval{min(a, b), max(a, b)}
}

// plus returns the range of the sums.
func (i interval) plus(j interval) interval { return interval{i.low + j.low, i.high + j.high} }

// magnitude returns the largest absolute value in the range.
func (i interval) magnitude() int64 { return max(-i.low, i.low, -i.high, i.high) }

// codes reports whether one 8-bit carrier, signed or unsigned, holds the range.
func (i interval) codes() bool {
	return i.low >= 0 && i.high <= 255 || i.low >= -128 && i.high <= 127
}

// valueRange is what is proved of a value before any image is seen.
type valueRange struct {
	shape Shape
	zero  int32
	span  interval
}

// plan is what has been proved of a program.
type plan struct {
	values []valueRange    // per value
	sums   [][][]signedSum // [weights][plane][channel]
	cost   Cost
}

// plan proves the program once and keeps the result.
func (p *Program) plan() (*plan, error) {
	p.proveOnce.Do(func() { p.proved, p.invalid = p.prove() })
	return p.proved, p.invalid
}

// prove goes through the program value by value and stops at the first thing that could go wrong.
func (p *Program) prove() (*plan, error) {
	pl := &plan{}
	if err := pl.addImage(p); err != nil {
		return nil, err
	}
	for i := range p.Weights {
		w := &p.Weights[i]
		if err := w.validate(); err != nil {
			return nil, locate(err, "weights %d", i)
		}
		pl.sums = append(pl.sums, w.sums())
	}
	for i := range p.Nodes {
		if err := pl.addNode(p, &p.Nodes[i]); err != nil {
			return nil, locate(err, "node %q", p.Nodes[i].Name)
		}
	}
	return pl, pl.proveLogits(p)
}

// addImage proves the coded image from its tables.
func (pl *plan) addImage(p *Program) error {
	if !p.Input.valid() || len(p.Pixels) != p.Input.Channels {
		return fmt.Errorf("integer: input of shape %v with %d pixel tables: want positive sizes, less than 2^31 elements and a table per channel", p.Input, len(p.Pixels))
	}
	span := interval{int64(p.Zero), int64(p.Zero)}
	for c := range p.Pixels {
		for _, code := range p.Pixels[c] {
			span = span.with(int64(code))
		}
	}
	if !span.codes() {
		return fmt.Errorf("integer: pixel codes and zero point cover [%d, %d]: want a range that 8 bits hold", span.low, span.high)
	}
	pl.values = append(pl.values, valueRange{p.Input, p.Zero, span})
	pl.cost.Elements = int64(p.Input.Len()) + slack
	return nil
}

// proveLogits checks what the program promises of its last value.
func (pl *plan) proveLogits(p *Program) error {
	last := pl.values[len(pl.values)-1]
	if len(p.Nodes) == 0 || p.Classes < 1 || last.shape.Len() != p.Classes {
		return fmt.Errorf("integer: %d nodes end in shape %v for %d classes: want one logit for each of at least one class", len(p.Nodes), last.shape, p.Classes)
	}
	if last.zero != 0 || last.span.magnitude() >= 1<<WideBits {
		return fmt.Errorf("integer: logits cover [%d, %d] around %d: want magnitudes below 2^24 around 0", last.span.low, last.span.high, last.zero)
	}
	return nil
}

// addNode proves one node and appends its value.
func (pl *plan) addNode(p *Program, n *Node) error {
	inputs, weights, err := pl.operands(p, n)
	if err != nil {
		return err
	}
	shapes := make([]Shape, len(inputs))
	for i := range inputs {
		shapes[i] = inputs[i].shape
	}
	out := valueRange{}
	if out.shape, err = n.outputShape(shapes, weights); err != nil {
		return err
	}
	if out.zero, out.span, err = pl.outputRange(n, inputs, out.shape); err != nil {
		return err
	}
	pl.values = append(pl.values, out)
	return pl.addCost(n, inputs[0].shape, out.shape, weights)
}

// operands resolves a node's indices.
func (pl *plan) operands(p *Program, n *Node) (inputs []valueRange, weights *IntegerWeights, err error) {
	if low, high := n.Kind.inputs(); len(n.Inputs) < low || len(n.Inputs) > high {
		return nil, nil, fmt.Errorf("%d inputs of a node of %v: want at least %d and at most %d", len(n.Inputs), n.Kind, low, high)
	}
	for _, index := range n.Inputs {
		if index < 0 || index >= len(pl.values) {
			return nil, nil, fmt.Errorf("input %d: want the number of an earlier value, 0 to %d", index, len(pl.values)-1)
		}
		inputs = append(inputs, pl.values[index])
	}
	if n.Kind != Conv && n.Kind != Linear {
		return inputs, nil, nil
	}
	if n.Weights < 0 || n.Weights >= len(p.Weights) {
		return nil, nil, fmt.Errorf("weights %d of %d", n.Weights, len(p.Weights))
	}
	return inputs, &p.Weights[n.Weights], nil
}

// addCost counts the work of a node and limits the working memory.
func (pl *plan) addCost(n *Node, in, out Shape, weights *IntegerWeights) error {
	pl.cost.Elements += n.elements(in, out, weights)
	if weights != nil {
		groups := 1
		if n.Kind == Conv {
			groups = n.Geometry.Groups
		}
		pl.cost.Weights += int64(n.accumulators(weights)) * packedBytes(groups, weights.Shape)
	}
	perOutput := int64(n.Window.Height) * int64(n.Window.Width)
	if weights != nil {
		perOutput = int64(len(n.Inputs)) * int64(weights.each())
	}
	// Saturates rather than overflows: terms stay below 2^62.
	pl.cost.Operations = min(pl.cost.Operations, 1<<62) + int64(out.Len())*perOutput
	if pl.cost.Elements > maxElements {
		return fmt.Errorf("values of %d elements up to here: want less than 2^31", pl.cost.Elements)
	}
	if pl.cost.Weights > maxElements {
		return fmt.Errorf("weights of %d bytes, packed, up to here: want less than 2^31", pl.cost.Weights)
	}
	return nil
}

// elements bounds the int32s that a node takes in either engine: its value, a padded input, accumulators.
func (n *Node) elements(in, out Shape, weights *IntegerWeights) int64 {
	total := int64(out.Len()) + slack
	switch n.Kind {
	case Conv, Linear:
		tile := kernel.DotPixels*(int64(out.Channels)+kernel.Lanes) + slack
		total += int64(n.accumulators(weights)) * max(tile, int64(out.Height)*int64(out.Width))
		if n.Kind == Conv {
			height, width := n.Geometry.slide(weights.Shape).padded(in)
			total += int64(len(n.Inputs)) * (int64(in.Channels*height*width) + slack)
		}
	case AvgPool, Requantize, Add:
		total += 2 * (max(elementsAtOnce, int64(out.Channels)) + slack)
	}
	return total
}

// outputShape returns the shape of a node's output, or an error that says what does not fit. Weights are
// nil for kinds that have none.
func (n *Node) outputShape(in []Shape, w *IntegerWeights) (Shape, error) {
	if len(in) > 1 && in[0] != in[1] {
		return Shape{}, fmt.Errorf("%v of shapes %v and %v: want equal ones", n.Kind, in[0], in[1])
	}
	switch n.Kind {
	case Conv:
		return n.convShape(in[0], w.Shape)
	case Linear:
		if len(w.Shape) != 2 || in[0] != (Shape{w.Shape[1], 1, 1}) {
			return Shape{}, fmt.Errorf("weights of shape %v for an input of %v: want [O][I] and Ix1x1, flatten it first", w.Shape, in[0])
		}
		return Shape{w.Shape[0], 1, 1}, nil
	case MaxPool, AvgPool:
		height, width, err := n.Window.slide().output(in[0])
		return Shape{in[0].Channels, height, width}, err
	case Flatten:
		return Shape{in[0].Len(), 1, 1}, nil
	case Sample:
		return n.Sampling.output(in[0])
	case Requantize, Add, Staircase:
		return in[0], nil
	}
	return Shape{}, fmt.Errorf("node of %v", n.Kind)
}

// convShape is outputShape for convolutions.
func (n *Node) convShape(in Shape, weights []int) (Shape, error) {
	if len(weights) != 4 {
		return Shape{}, fmt.Errorf("weights of shape %v: want [O][I][KH][KW]", weights)
	}
	groups := n.Geometry.Groups
	if groups < 1 || in.Channels%groups != 0 || weights[0]%groups != 0 || weights[1] != in.Channels/groups {
		return Shape{}, fmt.Errorf("weights of shape %v in %d groups for an input of %v: want groups that divide both channels and I = C/groups", weights, groups, in)
	}
	height, width, err := n.Geometry.slide(weights).output(in)
	if err != nil {
		return Shape{}, err
	}
	out := Shape{weights[0], height, width}
	if !out.valid() {
		return Shape{}, fmt.Errorf("output of %v: want less than 2^31 elements", out)
	}
	return out, nil
}

// outputRange proves that the node's arithmetic can't overflow and returns the zero point and range of its output.
func (pl *plan) outputRange(n *Node, in []valueRange, out Shape) (zero int32, span interval, err error) {
	switch n.Kind {
	case MaxPool, Flatten:
		return in[0].zero, in[0].span, nil
	case Sample:
		return in[0].zero, in[0].span.with(int64(in[0].zero)), nil
	case AvgPool:
		span, err := sumRange(n.Window, in[0])
		return 0, span, err
	case Staircase:
		return n.Steps.outputRange(in[0])
	}
	r := n.Requantizer
	channels, err := r.shape(n, out.Channels)
	if err != nil {
		return 0, interval{}, err
	}
	for o := range channels {
		acc, err := pl.accumulatorRange(n, in, o)
		if err != nil {
			return 0, interval{}, fmt.Errorf("channel %d: %w", o, err)
		}
		channel, err := r.outputRange(o, acc)
		if err != nil {
			return 0, interval{}, fmt.Errorf("channel %d: %w", o, err)
		}
		if o == 0 {
			span = channel
		}
		span = span.with(channel.low).with(channel.high)
	}
	return r.Zero, span, nil
}

// outputRange proves a staircase and returns the zero point and range of its output.
func (s *Steps) outputRange(in valueRange) (zero int32, span interval, err error) {
	if s == nil || len(s.Values) > maxSteps || len(s.Bounds) != len(s.Values)-1 {
		return 0, interval{}, fmt.Errorf("staircase without 1 to %d values and a bound less", maxSteps)
	}
	if !slices.IsSorted(s.Bounds) {
		return 0, interval{}, errors.New("staircase of bounds that descend")
	}
	all := interval{int64(slices.Min(s.Values)), int64(slices.Max(s.Values))}
	if !all.codes() {
		return 0, interval{}, fmt.Errorf("staircase values cover [%d, %d]: want a range that 8 bits hold", all.low, all.high)
	}
	// Every value of the input is an int32, as is its zero point.
	zero = s.zero(in.zero)
	span = interval{int64(zero), int64(zero)}
	for _, v := range s.Values[s.index(int32(in.span.low)) : s.index(int32(in.span.high))+1] {
		span = span.with(int64(v))
	}
	return zero, span, nil
}

// sumRange proves the sum over a window, of which padding may have taken any part.
func sumRange(w Window, in valueRange) (interval, error) {
	levels := in.span.plus(interval{-int64(in.zero), -int64(in.zero)}).with(0)
	span := levels.times(int64(w.Height) * int64(w.Width))
	if span.magnitude() >= accumulatorLimit {
		return interval{}, fmt.Errorf("window sums reach %d: want less than 2^31", span.magnitude())
	}
	return span, nil
}

// accumulatorRange returns the range of the accumulator of each plane for one output channel.
func (pl *plan) accumulatorRange(n *Node, in []valueRange, o int) ([]interval, error) {
	acc := make([]interval, 0, maxAccumulators)
	if n.Kind == Requantize || n.Kind == Add {
		for _, operand := range in {
			acc = append(acc, operand.span)
		}
		return acc, nil
	}
	for _, input := range in {
		codes := input.span.with(int64(input.zero))
		if !codes.codes() {
			return nil, fmt.Errorf("input covers [%d, %d]: want codes that 8 bits hold", codes.low, codes.high)
		}
		for _, sums := range pl.sums[n.Weights] {
			s := sums[o]
			if (s.positive-s.negative)*codes.magnitude() >= accumulatorLimit {
				return nil, fmt.Errorf("accumulators reach %d: want less than 2^31", (s.positive-s.negative)*codes.magnitude())
			}
			acc = append(acc, codes.times(s.positive).plus(codes.times(s.negative)))
		}
	}
	return acc, nil
}

// shape checks the requantizer's lengths for a node with the given output channels and returns how many
// entries it has.
func (r *Requantizer) shape(n *Node, channels int) (int, error) {
	if r == nil {
		return 0, errors.New("no requantizer")
	}
	entries := len(r.Bias)
	elementwise := n.Kind == Requantize || n.Kind == Add
	if entries != channels && !(elementwise && entries == 1) {
		return 0, fmt.Errorf("requantizer of %d entries for %d channels", entries, channels)
	}
	if len(r.Shift) != entries {
		return 0, fmt.Errorf("requantizer of %d shifts: want %d", len(r.Shift), entries)
	}
	for _, b := range r.branches() {
		if err := b.shape(len(r.Multiplier), entries); err != nil {
			return 0, err
		}
	}
	if r.Min > r.Zero || r.Zero > r.Max {
		return 0, fmt.Errorf("requantizer to [%d, %d] around %d: want the zero point inside", r.Min, r.Max, r.Zero)
	}
	return entries, nil
}

// branches returns the numbers for all sums and, if there are any, those for negative ones.
func (r *Requantizer) branches() []*Branch {
	if r.Negative == nil {
		return []*Branch{r.main()}
	}
	return []*Branch{r.main(), r.Negative}
}

// shape checks the lengths.
func (b *Branch) shape(planes, entries int) error {
	if len(b.Bias) != entries {
		return fmt.Errorf("requantizer of %d biases for negative sums: want %d", len(b.Bias), entries)
	}
	if len(b.Multiplier) != planes {
		return fmt.Errorf("requantizer of %d planes for negative sums: want %d", len(b.Multiplier), planes)
	}
	for _, multipliers := range b.Multiplier {
		if len(multipliers) != entries {
			return fmt.Errorf("requantizer of %d multipliers: want %d", len(multipliers), entries)
		}
	}
	return nil
}

// outputRange proves one entry for accumulators in the given ranges and returns the range of its outputs.
func (r *Requantizer) outputRange(o int, acc []interval) (interval, error) {
	if len(acc) != len(r.Multiplier) {
		return interval{}, fmt.Errorf("requantizer of %d planes for %d accumulators", len(r.Multiplier), len(acc))
	}
	if r.Shift[o] > maxShift {
		return interval{}, fmt.Errorf("shift %d: want at most %d", r.Shift[o], maxShift)
	}
	sum, err := r.main().sumRange(o, acc)
	if err != nil {
		return interval{}, err
	}
	if r.Negative == nil {
		return r.finishRange(o, sum), nil
	}
	negative, err := r.Negative.sumRange(o, acc)
	if err != nil {
		return interval{}, fmt.Errorf("negative sums: %w", err)
	}
	// That the other sums are not negative is left out of account: it matters for no limit.
	span, rest := r.finishRange(o, negative), r.finishRange(o, sum)
	return span.with(rest.low).with(rest.high), nil
}

// finishRange returns the outputs of sums in a range. They never decrease where the sum grows, so the ends of one give
// those of the other.
func (r *Requantizer) finishRange(o int, sum interval) interval {
	return interval{int64(r.finish(o, sum.low)), int64(r.finish(o, sum.high))}
}

// sumRange proves one entry's sum for accumulators in the given ranges.
func (b *Branch) sumRange(o int, acc []interval) (interval, error) {
	sum, reach := interval{}, int64(0)
	for p, a := range acc {
		m := int64(b.Multiplier[p][o])
		if m == -accumulatorLimit {
			return interval{}, errors.New("multiplier -2^31: want a magnitude below 2^31")
		}
		// Accumulators and multipliers are below 2^31, so neither product nor sum can overflow here.
		if reach += a.magnitude() * max(m, -m); reach >= productLimit {
			return interval{}, errors.New("products reach 2^62")
		}
		sum = sum.plus(a.times(m))
	}
	bias := b.Bias[o]
	if bias > 0 && sum.high >= productLimit-bias || bias <= 0 && sum.low <= -productLimit-bias {
		return interval{}, fmt.Errorf("bias %d takes the sum beyond 2^62", bias)
	}
	return sum.plus(interval{bias, bias}), nil
}
