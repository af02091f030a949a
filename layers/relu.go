package layers

import (
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

var _ Layer = ReLU{}

// ReLU is the rectifier y = max(x, 0); its gradient at 0 is 0.
type ReLU struct{}

// Build notes that outputs are never negative.
func (ReLU) Build(_ *Build, in Shape) (Shape, error) {
	in.Signed = false
	return in, nil
}

// Forward adds the rectifier to a pass.
func (ReLU) Forward(p *Pass, x Value) (Value, error) {
	shape := x.Shape
	shape.Signed = false
	if x.isPending() {
		x = x.rectified()
		x.Shape = shape
		return x, nil
	}
	n, err := p.apply(relu{}, shape, x.input())
	return x.with(n, shape), err
}

// Lower adds the rectifier to an integer model.
func (ReLU) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) { return b.ReLU(x), nil }

// Params returns nothing.
func (ReLU) Params() []*Param { return nil }

// relu is the rectifier as a Function.
type relu struct{}

var _ quantops.Differentiable = relu{}

func (relu) String() string { return "relu" }

func (relu) Forward(y []float32, x [][]float32) error {
	kernel.ReLU(y, x[0])
	return nil
}

func (relu) Backward(dx [][]float32, dy, _ []float32, x [][]float32) error {
	kernel.ReLUGradient(dx[0], dy, x[0])
	return nil
}
