package layers

import (
	"errors"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// Value is an activation on its way through a pass. Its node holds real numbers, or levels of a quantizer, whose
// gradient is still that of the values they stand for. In evaluation it may be exact instead: integers, or sums
// that are still to be requantized.
type Value struct {
	Shape
	node     *gorgonia.Node
	constant bool        // depends on no parameter: gets no gradient
	levels   *activation // the quantizer whose levels the node holds; nil for real numbers
	exact    *exact      // evaluation only
	waiting  waiting     // steps that whoever takes the value in still has to do
	product  *product    // whose output the node is, as long as nothing else has taken it in
	keep     *keep       // asks the layer that takes the value in to keep it; nil for no
}

// Node returns the value's node: real numbers [blocks][channels][height][width][16] in training, and what
// [Pass.Output] makes of them in evaluation.
func (v Value) Node() *gorgonia.Node { return v.node }

// input returns the value as an operand; nothing may be waiting.
func (v Value) input() quantops.Input {
	if v.waiting.any() {
		panic("layers: a value was taken in with steps still waiting; settle it before")
	}
	return quantops.Input{Node: v.node, Constant: v.constant}
}

// with returns the value after an element-wise or shape-changing step of the graph.
func (v Value) with(n *gorgonia.Node, shape Shape) Value {
	v.node, v.Shape, v.waiting, v.product, v.keep = n, shape, waiting{}, nil, nil
	return v
}

// keep is the node of a value that a layer has kept, once it has taken the value in.
type keep struct{ node *gorgonia.Node }

// activation is the quantizer of the activations that a layer takes in; without a quantizer it does nothing.
type activation struct {
	quantizer quantops.ActivationQuantizer
	theta     *Param
}

func (a *activation) none() bool { return a.quantizer == nil }

// unit returns what level 1 is worth now.
func (a *activation) unit() float32 {
	var unit [1]float32
	a.quantizer.Units(unit[:], a.theta.Data())
	return unit[0]
}

// grid returns the integer coding of the levels now.
func (a *activation) grid() (integer.Grid, error) { return a.quantizer.Grid(a.theta.Data()) }

// integers says whether the levels are integers.
func (a *activation) integers() bool {
	_, err := a.grid()
	return !errors.Is(err, quantops.ErrNoIntegers)
}

// quantize turns x into levels of the quantizer, which in training may be left to the layer that takes x in: then it is
// returned. Without a quantizer they are real numbers.
func (a *activation) quantize(p *Pass, x Value) (y Value, left *activation, err error) {
	switch {
	case a.none():
		y, err = p.real(x)
		return y, nil, err
	case p.Mode == Training:
		return x, a, nil
	case x.exact != nil && p.Mode == Evaluation && a.integers():
		y, err = p.requantize(x, a)
		return y, nil, err
	}
	if x, err = p.real(x); err == nil {
		x, err = p.settled(x)
	}
	if err != nil {
		return x, nil, err
	}
	if p.Mode == Calibration {
		y, err = a.observe(p, x)
		return y, nil, err
	}
	n, err := quantops.Node{
		Quantizer: a.quantizer, X: x.input(), Theta: quantops.Input{Node: p.Node(a.theta)}, Extent: p.extent(x.Shape),
	}.Apply()
	levels := x.with(n, x.Shape)
	levels.levels = a
	if a.integers() {
		levels.exact = exactLevels(a)
	}
	return levels, nil, err
}

// observe lets the quantizer fit itself to x, which passes through.
func (a *activation) observe(p *Pass, x Value) (Value, error) {
	n, err := p.apply(&observe{a, p, x.Shape}, x.Shape, x.input())
	return x.with(n, x.Shape), err
}

// observe is the calibration of a quantizer as a Function.
type observe struct {
	*activation
	pass  *Pass
	shape Shape
}

func (f *observe) String() string { return "observe " + f.theta.Name }

func (f *observe) Forward(y []float32, x [][]float32) error {
	// A short batch leaves whole blocks of padding, of which its extent does not tell.
	there := f.shape.tensor(f.pass.Blocks()).TotalSize()
	f.quantizer.Fit(f.theta.Data(), x[0][:there], f.pass.extent(f.shape), f.pass.batches)
	copy(y, x[0])
	return nil
}
