package layers

import (
	"errors"
	"fmt"
	"math"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// exact is an activation as integers, the way the engine sees it: settled, when a node holds its levels or wide
// numbers, or pending, when it is the output of a weighted layer whose sums wait to be requantized for whoever
// takes them in.
type exact struct {
	describe func() (accumulators, error) // what the integers are worth, known from a Refresh on
	pending  *sums                        // nil when settled
	sloped   bool                         // pending behind a parametric rectifier
	later    []func(*Pass, Value) (Value, error)
}

// sums are the accumulators of a weighted layer over levels.
type sums struct {
	layer *weighted
	input *gorgonia.Node
	from  *activation
}

// accumulators says what integers are worth and how large they get: per plane and channel, or one channel for all.
type accumulators struct {
	affine integer.Affine
	bound  [][]int64
}

// single describes integers of one unit and bound.
func single(unit float64, bound int64) accumulators {
	return accumulators{integer.Affine{Scale: [][]float64{{unit}}, Bias: []float64{0}}, [][]int64{{bound}}}
}

// exactLevels describes levels of a quantizer.
func exactLevels(a *activation) *exact {
	return &exact{describe: func() (accumulators, error) {
		g, err := a.grid()
		return single(float64(g.Scale), g.Magnitude()), err
	}}
}

// exact returns the layer's sums over levels x, pending; nil where its weights have no integers.
func (w *weighted) exact(p *Pass, x Value) (*exact, error) {
	if w.searching() != nil && p.softWeights() {
		return nil, nil
	}
	weights, err := w.weight.Encode()
	switch {
	case x.exact == nil || errors.Is(err, quantops.ErrNoIntegers):
		return nil, nil
	case weights == nil || err != nil:
		return nil, err
	}
	return &exact{
		pending:  &sums{layer: w, input: x.node, from: x.levels},
		describe: func() (accumulators, error) { return w.accumulators(x.levels) },
	}, nil
}

// accumulators describes the sums of the layer over levels of a quantizer.
func (w *weighted) accumulators(from *activation) (accumulators, error) {
	weights, err := w.weight.Encode()
	if err != nil {
		return accumulators{}, err
	}
	g, err := from.grid()
	if err != nil {
		return accumulators{}, err
	}
	return accumulators{integer.NewAffine(g, weights.Planes, w.biases(), w.out.Channels), g.AccumulatorBounds(weights)}, nil
}

// rectified returns x after max(0, ·), for a pending x.
func (x Value) rectified() Value {
	e := *x.exact
	before := e.describe
	e.describe = func() (accumulators, error) {
		a, err := before()
		a.affine.ReLU = true
		return a, err
	}
	x.exact = &e
	return x
}

// afterwards returns a pending x of a new shape, with a step that waits for its requantization.
func (x Value) afterwards(shape Shape, step func(*Pass, Value) (Value, error)) Value {
	e := *x.exact
	e.later = append(e.later[:len(e.later):len(e.later)], step)
	x.exact, x.Shape = &e, shape
	return x
}

func (x Value) isPending() bool { return x.exact != nil && x.exact.pending != nil }

// requantize turns exact x into levels of the quantizer to. Those of unequal steps are found, as in the engine, from
// wide numbers.
func (p *Pass) requantize(x Value, to *activation) (Value, error) {
	wide := !x.isPending()
	f := &requantize{}
	f.target = func(a accumulators) (*integer.Requantizer, error) {
		g, err := to.grid()
		switch {
		case err != nil:
			return nil, err
		case g.Table == nil:
			return integer.NewRequantizer(a.affine, a.bound, g)
		case wide:
			f.stairs = staircase(g, a.affine.Scale[0][0])
			return nil, nil
		}
		scale := integer.WideScale(a.affine, a.bound, integer.WideBits)
		f.stairs = staircase(g, scale)
		return integer.NewWideRequantizer(a.affine, a.bound, scale)
	}
	return p.settle(x, f, Value{levels: to, exact: exactLevels(to)})
}

// staircase leads from wide numbers of a unit to the levels of a grid.
func staircase(g integer.Grid, unit float64) *kernel.Steps {
	bounds, levels := make([]float32, len(g.Table.Bounds)), make([]float32, len(g.Table.Levels))
	for i, t := range g.Thresholds(unit) {
		bounds[i] = float32(t) // exact where a wide number, below 2^24, can be on either side
	}
	for i, level := range g.Table.Levels {
		levels[i] = float32(level)
	}
	return kernel.NewSteps(bounds, levels)
}

// widen turns exact x into wide numbers of at most the given bits; those it has already when keep allows them stay. What
// keep allows of the largest integers there are, in a unit that is no power of two, it allows of all.
func (p *Pass) widen(x Value, bits int, keep func(a accumulators) bool) (Value, error) {
	pending := x.isPending()
	if !pending && keep(single(1.0/3, sumLimit-1)) {
		return Value{Shape: x.Shape, node: x.node, exact: x.exact}, nil
	}
	var now accumulators
	f := &requantize{target: func(a accumulators) (*integer.Requantizer, error) {
		now = a
		if !pending && keep(a) {
			return nil, nil
		}
		scale := integer.WideScale(a.affine, a.bound, bits)
		r, err := integer.NewWideRequantizer(a.affine, a.bound, scale)
		if err == nil {
			now = single(scale, r.Bound(a.bound))
		}
		return r, err
	}}
	return p.settle(x, f, Value{exact: &exact{describe: func() (accumulators, error) { return now, nil }}})
}

// real returns x as real numbers.
func (p *Pass) real(x Value) (Value, error) {
	if x.exact == nil {
		return x, nil
	}
	return p.settle(x, &requantize{reals: true}, Value{})
}

// settle adds the requantization f of exact x to the graph, then the steps that waited for it. The result takes what
// it stands for from as.
func (p *Pass) settle(x Value, f *requantize, as Value) (Value, error) {
	f.describe, f.shape, f.name = x.exact.describe, x.Shape, "requantize"
	input := x.input()
	if s := x.exact.pending; s != nil {
		f.sums, f.blocks, f.plan, f.shape, f.name = s, p.Blocks(), s.layer.plan(p.Blocks()), s.layer.out, s.layer.name
		f.one = f.plan.Block()
		input = quantops.Input{Node: s.input, Constant: true}
	}
	p.refresh = append(p.refresh, f.prepare)
	n, err := p.apply(f, f.shape, input)
	if err != nil {
		return Value{}, err
	}
	signed := x.Signed
	as.node, as.Shape = n, f.shape
	for _, step := range x.exact.later {
		if as, err = step(p, as); err != nil {
			return Value{}, err
		}
	}
	as.Signed = signed
	return as, nil
}

// requantize is the engine's requantization as a Function: of integers given, or of the sums of a weighted layer,
// which it computes first. Its results are levels (codes less their zero point), wide integers or real numbers.
type requantize struct {
	name     string
	shape    Shape
	describe func() (accumulators, error)
	target   func(accumulators) (*integer.Requantizer, error) // a nil requantizer passes integers through
	reals    bool
	sums     *sums

	blocks    int
	plan, one *kernel.Conv // of the sums of all blocks, and of one

	// From a Refresh on:
	current     accumulators
	requantizer *integer.Requantizer
	fast        *kernel.BlockRequantizer // the same where the kernel can do it, else nil
	stairs      *kernel.Steps            // from wide numbers to levels of unequal steps; nil where those are the result
	split       bool                     // the input's levels are two bytes long, each a plane of its own
	planes      [][]part                 // of sums: for each plane of the input those of the weights
}

// part is a share of a weight plane whose sums stay below 2^24, so that float32 holds them exactly; the plane's sum is
// the sum of its parts' sums times their factors.
type part struct {
	weights []float32
	factor  int32
	input   int // plane of the input
}

func (f *requantize) String() string { return f.name }

// prepare makes the integers of this run.
func (f *requantize) prepare() error {
	var err error
	if f.current, err = f.describe(); err == nil && f.target != nil {
		f.requantizer, err = f.target(f.current)
	}
	if err == nil {
		err = f.divide()
	}
	if err != nil {
		return fmt.Errorf("layers: %s: %w", f.name, err)
	}
	f.fast = blockRequantizer(f.requantizer, f.planes)
	return nil
}

// divide makes the parts of the planes of weights. Integers given are a plane of one part.
func (f *requantize) divide() error {
	f.planes = f.planes[:0]
	if f.sums == nil {
		f.planes = append(f.planes, []part{{factor: 1}})
		return nil
	}
	weights, err := f.sums.layer.weight.Encode()
	if err != nil {
		return err
	}
	g, err := f.sums.from.grid()
	if err != nil {
		return err
	}
	magnitudes := g.PlaneMagnitudes()
	f.split = len(magnitudes) > 1
	for input, magnitude := range magnitudes {
		for _, levels := range weights.Levels() {
			w := part{make([]float32, len(levels)), 1, input}
			for i, level := range levels {
				w.weights[i] = float32(level)
			}
			f.planes = append(f.planes, w.split(weights.Shape[0], magnitude))
		}
	}
	return nil
}

// blockRequantizer is r for sums in float32 that come in the parts of planes; nil where there is no r and where it has
// numbers of their own for negative sums. Its results are levels: less the zero point.
func blockRequantizer(r *integer.Requantizer, planes [][]part) *kernel.BlockRequantizer {
	if r == nil || r.Negative != nil {
		return nil
	}
	var terms []kernel.BlockTerm
	for p, parts := range planes {
		for _, part := range parts {
			terms = append(terms, kernel.BlockTerm{Multiplier: r.Multiplier[p], Factor: float32(part.factor)})
		}
	}
	return kernel.NewBlockRequantizer(terms, r.Bias, r.Shift, r.Min-r.Zero, r.Max-r.Zero)
}

// sumLimit is where sums stop being exact in float32.
const sumLimit = 1 << integer.WideBits

// split makes the parts of p, a tensor [outputs][…]: itself where its sums over inputs of at most magnitude stay below
// 2^24; else its high and low digits to the base 16, from -8 to 8, neither of which is ever larger than the weight
// itself; and where weights are as small as that already, some of every output's taps each.
func (p part) split(outputs int, magnitude int64) []part {
	largest, reach := p.reach(outputs)
	switch {
	case reach*magnitude < sumLimit:
		return []part{p}
	case largest <= 8:
		return p.slice(outputs, magnitude)
	}
	high, low := part{make([]float32, len(p.weights)), 16 * p.factor, p.input}, part{make([]float32, len(p.weights)), p.factor, p.input}
	for i, w := range p.weights {
		high.weights[i] = float32(math.Floor(float64(w+8) / 16))
		low.weights[i] = w - float32(16*high.weights[i])
	}
	return append(high.split(outputs, magnitude), low.split(outputs, magnitude)...)
}

// slice gives each part as many of an output's taps as the limit allows.
func (p part) slice(outputs int, magnitude int64) []part {
	var parts []part
	each := len(p.weights) / outputs
	for o := range outputs {
		k, sum := 0, int64(0)
		for i := o * each; i < (o+1)*each; i++ {
			term := int64(max(p.weights[i], -p.weights[i])) * magnitude
			if sum += term; sum >= sumLimit {
				k, sum = k+1, term
			}
			if k == len(parts) {
				parts = append(parts, part{make([]float32, len(p.weights)), p.factor, p.input})
			}
			parts[k].weights[i] = p.weights[i]
		}
	}
	return parts
}

// reach returns the largest weight and the largest sum of an output's weights, both in magnitude.
func (p part) reach(outputs int) (largest float32, sum int64) {
	each := len(p.weights) / outputs
	for o := range outputs {
		s := int64(0)
		for _, w := range p.weights[o*each : (o+1)*each] {
			w = max(w, -w)
			largest, s = max(largest, w), s+int64(w)
		}
		sum = max(sum, s)
	}
	return largest, sum
}

// Forward computes the accumulators and requantizes them.
func (f *requantize) Forward(y []float32, x [][]float32) error {
	if f.describe != nil && f.current.bound == nil {
		return fmt.Errorf("layers: %s: evaluation before Pass.Refresh", f.name)
	}
	switch {
	case f.sums == nil:
		f.finish(y, x, kernel.Parallel)
	case f.sums.layer.byBlocks(f.blocks): // so that sums are requantized in the second cache
		in, out := len(x[0])/f.blocks, len(y)/f.blocks
		kernel.Parallel(f.blocks, func(block int) {
			f.compute(y[block*out:][:out], x[0][block*in:][:in], f.one, inOrder)
		})
	default:
		f.compute(y, x[0], f.plan, kernel.Parallel)
	}
	return nil
}

// inOrder is Parallel on the calling thread.
func inOrder(tasks int, do func(task int)) {
	for i := range tasks {
		do(i)
	}
}

// compute computes the sums of every part of every plane, those of the first in y, and requantizes them.
func (f *requantize) compute(y, x []float32, plan *kernel.Conv, tasks func(int, func(int))) {
	inputs := [][]float32{x}
	if f.split {
		high, low := buffers.get(len(x)), buffers.get(len(x))
		defer buffers.put(high)
		defer buffers.put(low)
		splitBytes(high, low, x)
		inputs = [][]float32{high, low}
	}
	terms := make([][]float32, 0, 4)
	for _, parts := range f.planes {
		for _, part := range parts {
			sums := y
			if len(terms) > 0 {
				sums = buffers.get(len(y))
				defer buffers.put(sums)
			}
			plan.Forward(sums, inputs[part.input], part.weights, nil, nil)
			terms = append(terms, sums)
		}
	}
	f.finish(y, terms, tasks)
}

// splitBytes splits levels of two bytes as the engine does.
func splitBytes(high, low, levels []float32) {
	for i, level := range levels {
		high[i] = float32((int32(level) + 128) >> 8)
		low[i] = level - 256*high[i]
	}
}

// finish turns sums in terms into what the node holds.
func (f *requantize) finish(y []float32, terms [][]float32, tasks func(int, func(int))) {
	spatial := f.shape.Height * f.shape.Width * kernel.Lanes
	tasks(len(y)/spatial, func(plane int) {
		channel, from, to := plane%f.shape.Channels, plane*spatial, (plane+1)*spatial
		switch {
		case f.fast != nil:
			f.fast.Span(channel, y, terms, from, to)
		case f.requantizer == nil && f.stairs != nil:
			copy(y[from:to], terms[0][from:to])
		default:
			f.elements(channel, y, terms, from, to)
		}
		if f.stairs != nil {
			f.stairs.Levels(y[from:to], y[from:to])
		}
	})
}

// elements is the plain way: it puts the accumulators of elements of a channel together from their terms, and turns them
// into what the node holds.
func (f *requantize) elements(channel int, y []float32, terms [][]float32, from, to int) {
	acc := make([]int32, len(f.planes))
	for i := from; i < to; i++ {
		term := 0
		for k, parts := range f.planes {
			acc[k] = 0
			for _, part := range parts {
				acc[k] += int32(terms[term][i]) * part.factor
				term++
			}
		}
		y[i] = f.result(channel, acc)
	}
}

// result turns the accumulators of one element into what the node holds.
func (f *requantize) result(channel int, acc []int32) float32 {
	switch {
	case f.reals:
		return f.real(channel, acc)
	case f.requantizer == nil:
		return float32(acc[0])
	}
	return float32(f.requantizer.Apply(channel, acc) - f.requantizer.Zero)
}

// real returns what the accumulators of one element are worth.
func (f *requantize) real(channel int, acc []int32) float32 {
	a := &f.current.affine
	channel %= len(a.Bias)
	sum := a.Bias[channel]
	for p, v := range acc {
		sum += float64(a.Scale[p][channel] * float64(v))
	}
	if sum < 0 && a.Slope != nil {
		sum *= a.Slope[channel]
	}
	if a.ReLU {
		sum = max(sum, 0)
	}
	return float32(sum)
}

// Output is the end of a pass: a node of logits [blocks][classes][1][1][16], and what one unit of them is worth.
type Output struct {
	Node *gorgonia.Node
	Unit func() float64
}

// Output ends a pass with x. In evaluation of an all-integer network the logits are the engine's: integers below 2^24
// with one unit for all classes.
func (p *Pass) Output(x Value) (Output, error) {
	if x.exact == nil {
		x, err := p.settled(x)
		return Output{x.node, func() float64 { return 1 }}, err
	}
	x, err := p.widen(x, integer.WideBits, func(a accumulators) bool {
		fraction, _ := math.Frexp(a.affine.Scale[0][0])
		return fraction == 0.5
	})
	if err != nil {
		return Output{}, err
	}
	describe := x.exact.describe
	return Output{x.node, func() float64 {
		a, err := describe()
		if err != nil {
			return math.NaN()
		}
		return a.affine.Scale[0][0]
	}}, nil
}
