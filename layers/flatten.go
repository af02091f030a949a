package layers

import (
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/quantops"
)

var _ Layer = Flatten{}

// Flatten turns [channels][height][width] into [channels·height·width][1][1], in that order, for [Linear].
type Flatten struct{}

func (Flatten) shape(in Shape) Shape {
	return Shape{Channels: in.Len(), Height: 1, Width: 1, Signed: in.Signed}
}

// Build tells the new shape.
func (l Flatten) Build(_ *Build, in Shape) (Shape, error) { return l.shape(in), nil }

// Forward adds the change of shape to a pass. In the batch-innermost layout the elements stay where they are.
func (l Flatten) Forward(p *Pass, x Value) (Value, error) {
	shape := l.shape(x.Shape)
	if x.isPending() {
		return x.afterwards(shape, l.Forward), nil
	}
	x, err := p.settled(x)
	if err != nil {
		return Value{}, err
	}
	n, err := p.apply(flatten{}, shape, x.input())
	return x.with(n, shape), err
}

// Lower adds the change of shape to an integer model.
func (Flatten) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) { return b.Flatten(x) }

// Params returns nothing.
func (Flatten) Params() []*Param { return nil }

// flatten is the change of shape as a Function.
type flatten struct{}

var _ quantops.Differentiable = flatten{}

func (flatten) String() string { return "flatten" }

func (flatten) Forward(y []float32, x [][]float32) error {
	copy(y, x[0])
	return nil
}

func (flatten) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	copy(dx[0], dy)
	return nil
}
