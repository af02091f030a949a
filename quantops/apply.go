package quantops

import (
	"fmt"

	"github.com/goqat/goqat/internal/kernel"
	"gorgonia.org/gorgonia"
)

// Node describes a quantizer's place in a graph.
type Node struct {
	Quantizer Quantizer
	X, Theta  Input  // the tensor and its parameters, of the shape that Quantizer.Theta tells
	Extent    Extent // which elements of X are there
	Values    bool   // compute values (level·unit) instead of levels
	Update    bool   // let running parameters follow the data, as in training
}

// FakeQuantize adds fake quantization, y = level(x)·unit, to a graph: the node's elements are values on the
// quantizer's grid and its gradients are the surrogate gradients. Theta is the matrix of parameters that [Quantizer.Fit]
// has filled; it gets a gradient where the quantizer learns it.
func FakeQuantize(q Quantizer, x, theta *gorgonia.Node) (*gorgonia.Node, error) {
	return Node{Quantizer: q, X: Input{Node: x}, Theta: Input{Node: theta}, Extent: Extent{Full: x.Shape().TotalSize()}, Values: true}.Apply()
}

// Apply adds the quantizer to the graph of its operands. Whether it computes levels or values, the gradient that
// comes back to it is that of the values.
func (n Node) Apply() (*gorgonia.Node, error) {
	if err := n.check(); err != nil {
		return nil, err
	}
	f := &quantize{Node: n, kind: n.Quantizer.Theta().Kind}
	theta := n.Theta
	theta.Constant = theta.Constant || f.kind != Learned
	return Apply(f, n.X.Node.Shape(), n.X, theta)
}

// check refuses operands whose sizes are not those that the quantizer was made for.
func (n Node) check() error {
	if n.Quantizer == nil {
		return fmt.Errorf("quantops: no quantizer to apply; the method none has none")
	}
	t := n.Quantizer.Theta()
	if got, want := n.Theta.Node.Shape().TotalSize(), t.Rows*len(t.Columns); got != want {
		return fmt.Errorf("quantops: %d parameters for the %s of %T: want a matrix [%d][%d]", got, t.Name, n.Quantizer, t.Rows, len(t.Columns))
	}
	if size := n.X.Node.Shape().TotalSize(); size%t.Rows != 0 {
		return fmt.Errorf("quantops: %d elements for %T: want a multiple of its %d channels", size, n.Quantizer, t.Rows)
	}
	return nil
}

// quantize is a quantizer as a Function of x and theta.
type quantize struct {
	Node
	kind    Kind
	units   []float32
	discard [2][]float32 // gradients of x and theta where nobody wants them
}

func (f *quantize) String() string { return fmt.Sprintf("quantize %T", f.Quantizer) }

func (f *quantize) Forward(y []float32, x [][]float32) error {
	if q, follows := f.Quantizer.(RangeFollower); follows && f.Update {
		low, high := kernel.Range(x[0], f.Extent)
		q.Observe(x[1], low, high)
	}
	Measure(f.Quantizer, x[1], x[0])
	f.Quantizer.Levels(y, x[0], x[1])
	if f.Values {
		f.scale(y, x[1])
	}
	return nil
}

func (f *quantize) scale(y, theta []float32) {
	if f.units == nil {
		f.units = make([]float32, f.Quantizer.Theta().Rows)
	}
	f.Quantizer.Units(f.units, theta)
	n := len(y) / len(f.units)
	for i := range y {
		y[i] *= f.units[i/n]
	}
}

func (f *quantize) Backward(dx [][]float32, dy, _ []float32, x [][]float32) error {
	f.Quantizer.Backward(f.wanted(dx, x, 0), f.wanted(dx, x, 1), dy, x[0], x[1])
	return nil
}

// wanted returns the memory for the gradient of input i, which the quantizer writes in any case.
func (f *quantize) wanted(dx, x [][]float32, i int) []float32 {
	if dx[i] != nil {
		return dx[i]
	}
	if f.discard[i] == nil {
		f.discard[i] = make([]float32, len(x[i]))
	}
	return f.discard[i]
}
