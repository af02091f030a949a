package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ Layer = (*Linear)(nil)

// Linear is a fully connected layer, y = Q(w)·Q(x) + bias, from [features][1][1] to [Outputs][1][1] an image;
// weights are [Outputs][features]. [Flatten] comes before it where inputs have rows and columns.
type Linear struct {
	Name    string // default fc1, fc2, …
	Outputs int    // output features
	NoBias  bool
	Methods Methods

	weighted
}

func (l *Linear) methods() Methods     { return l.Methods }
func (l *Linear) setMethods(m Methods) { l.Methods = m }

// Build makes weight and bias.
func (l *Linear) Build(b *Build, in Shape) (Shape, error) {
	var err error
	if l.weighted.name, err = b.Name(l.Name, "fc"); err != nil {
		return Shape{}, err
	}
	if in.Height != 1 || in.Width != 1 {
		return Shape{}, fmt.Errorf("layers: %s: input %v has rows and columns: put a Flatten before it", l.weighted.name, in)
	}
	if l.Outputs < 1 {
		return Shape{}, fmt.Errorf("layers: %s: %d outputs: want a positive number", l.weighted.name, l.Outputs)
	}
	l.in, l.out = in, Shape{Channels: l.Outputs, Height: 1, Width: 1, Signed: true}
	l.plan = func(blocks int) *kernel.Conv { return kernel.NewLinear(blocks, in.Channels, l.Outputs) }
	return l.out, l.build(b, l.Methods, []int{l.Outputs, in.Channels}, !l.NoBias)
}

// Forward adds the layer to a pass.
func (l *Linear) Forward(p *Pass, x Value) (Value, error) { return l.forward(p, x) }

// Lower adds the layer's integers to an integer model.
func (l *Linear) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	x, weights, bias, err := l.integers(b, x)
	if err != nil {
		return x, err
	}
	return b.Linear(l.weighted.name, x, weights, bias)
}
