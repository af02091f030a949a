package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

var _ Layer = (*PadShortcut)(nil)

// PadShortcut is the parameterless shortcut of residual networks (option A): every Stride-th row and column, and
// channels of zeros on both sides, half of them each, up to Channels.
//
// He et al., "Deep Residual Learning for Image Recognition", 2016.
type PadShortcut struct {
	Stride   int // 0 means 1
	Channels int // of the output

	before, after int
}

func (l *PadShortcut) stride() int { return max(1, l.Stride) }

// Build divides the channels to add.
func (l *PadShortcut) Build(_ *Build, in Shape) (Shape, error) {
	added := l.Channels - in.Channels
	if added < 0 || l.Stride < 0 {
		return Shape{}, fmt.Errorf("layers: PadShortcut from %v to %d channels with stride %d: want no fewer channels and a positive stride", in, l.Channels, l.Stride)
	}
	l.before, l.after = added/2, added-added/2
	return l.shape(in), nil
}

func (l *PadShortcut) shape(in Shape) Shape {
	s := l.kernel(0, in)
	channels, height, width := s.Out()
	return Shape{Channels: channels, Height: height, Width: width, Signed: in.Signed}
}

func (l *PadShortcut) kernel(blocks int, in Shape) kernel.Sample {
	return kernel.Sample{Blocks: blocks, Channels: in.Channels, Height: in.Height, Width: in.Width, Stride: l.stride(), Before: l.before, After: l.after}
}

// Forward adds the shortcut to a pass; real numbers, levels and wide numbers stay what they are.
func (l *PadShortcut) Forward(p *Pass, x Value) (Value, error) {
	if x.isPending() {
		return x.afterwards(l.shape(x.Shape), l.Forward), nil
	}
	shape := l.shape(x.Shape)
	x, err := p.settled(x)
	if err != nil {
		return Value{}, err
	}
	n, err := p.apply(&sample{l.kernel(p.Blocks(), x.Shape)}, shape, x.input())
	return x.with(n, shape), err
}

// Lower adds the shortcut to an integer model.
func (l *PadShortcut) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	return b.Sample(x, l.stride(), l.before, l.after)
}

// Params returns nothing.
func (*PadShortcut) Params() []*Param { return nil }

// sample is the shortcut as a Function.
type sample struct{ kernel kernel.Sample }

var _ quantops.Differentiable = (*sample)(nil)

func (f *sample) String() string { return "sample" }

func (f *sample) Forward(y []float32, x [][]float32) error {
	f.kernel.Forward(y, x[0])
	return nil
}

func (f *sample) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	f.kernel.Gradient(dx[0], dy)
	return nil
}
