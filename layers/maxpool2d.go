package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

var _ Layer = MaxPool2D{}

// MaxPool2D takes the largest element of each window; padding never wins. The gradient goes to the first maximum in
// row-major order.
type MaxPool2D struct {
	Window int // rows and columns of the window, at most 256
	Stride int // 0 means Window
	Pad    int // on each side, at most half the window
}

func (l MaxPool2D) window() window { return square(l.Window, l.Stride, l.Pad) }

// maxWindow is the largest window whose taps an uint16 can number.
const maxWindow = 256

func (l MaxPool2D) shape(in Shape) (Shape, error) {
	if l.Window > maxWindow {
		return Shape{}, fmt.Errorf("layers: MaxPool2D: window %d: want at most %d", l.Window, maxWindow)
	}
	return l.window().shape("MaxPool2D", in)
}

// Build checks that windows fit.
func (l MaxPool2D) Build(_ *Build, in Shape) (Shape, error) { return l.shape(in) }

// Forward adds the pooling to a pass. It commutes with requantization, which keeps order.
func (l MaxPool2D) Forward(p *Pass, x Value) (Value, error) {
	shape, err := l.shape(x.Shape)
	if err != nil {
		return Value{}, err
	}
	if x.isPending() {
		return x.afterwards(shape, l.Forward), nil
	}
	if x, err = p.settled(x); err != nil {
		return Value{}, err
	}
	n, err := p.apply(&maxPool{window: l.window().kernel(p, x.Shape)}, shape, x.input())
	return x.with(n, shape), err
}

// Lower adds the pooling to an integer model.
func (l MaxPool2D) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	return b.MaxPool(x, l.window().integers())
}

// Params returns nothing.
func (MaxPool2D) Params() []*Param { return nil }

// maxPool is the pooling as a Function; it remembers which tap of each window was the largest.
type maxPool struct {
	window kernel.Window
	taps   []uint16
}

var _ quantops.Differentiable = (*maxPool)(nil)

func (f *maxPool) String() string { return "maxpool" }

func (f *maxPool) Forward(y []float32, x [][]float32) error {
	if f.taps == nil {
		f.taps = make([]uint16, len(y))
	}
	f.window.Max(y, f.taps, x[0])
	return nil
}

func (f *maxPool) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	f.window.MaxGradient(dx[0], dy, f.taps)
	return nil
}
