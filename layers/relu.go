package layers

import "github.com/goqat/goqat/integer"

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
	x.Shape, x.product, x.waiting.relu = shape, nil, true
	if x.exact != nil { // integers stay what they are worth
		return p.settled(x)
	}
	return x, nil
}

// Lower adds the rectifier to an integer model.
func (ReLU) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) { return b.ReLU(x), nil }

// Params returns nothing.
func (ReLU) Params() []*Param { return nil }
