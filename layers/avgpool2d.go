package layers

import (
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

var _ Layer = AvgPool2D{}

// AvgPool2D takes the mean of each window; padding counts as zeros.
type AvgPool2D struct {
	Window int // rows and columns of the window
	Stride int // 0 means Window
	Pad    int // zeros on each side, at most half the window
}

func (l AvgPool2D) window() window { return square(l.Window, l.Stride, l.Pad) }

// Build checks that windows fit.
func (l AvgPool2D) Build(_ *Build, in Shape) (Shape, error) { return l.window().shape("AvgPool2D", in) }

// Forward adds the pooling to a pass.
func (l AvgPool2D) Forward(p *Pass, x Value) (Value, error) {
	return l.window().average(p, x, "AvgPool2D")
}

// average adds average pooling to a pass. Integers are summed, exactly, and one unit of the sum is worth the window's
// share.
func (w window) average(p *Pass, x Value, layer string) (Value, error) {
	shape, err := w.shape(layer, x.Shape)
	if err != nil {
		return Value{}, err
	}
	f := &averagePool{w.kernel(p, x.Shape)}
	if x.exact != nil {
		if x, err = w.summable(p, x); err != nil {
			return Value{}, err
		}
		f.window.Sum = true
	}
	if x, err = p.settled(x); err != nil {
		return Value{}, err
	}
	n, err := p.apply(f, shape, x.input())
	return x.with(n, shape), err
}

// summable returns exact x as integers whose sums over windows stay below 2^24, worth what the means are.
func (w window) summable(p *Pass, x Value) (Value, error) {
	area := int64(w.height) * int64(w.width)
	x, err := p.widen(x, w.integers().SumBits(), func(a accumulators) bool { return a.bound[0][0]*area < 1<<integer.WideBits })
	if err != nil {
		return Value{}, err
	}
	before := x.exact.describe
	x.exact = &exact{describe: func() (accumulators, error) {
		a, err := before()
		return single(a.affine.Scale[0][0]/float64(area), a.bound[0][0]*area), err
	}}
	return x, nil
}

// Lower adds the pooling to an integer model.
func (l AvgPool2D) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	return b.AvgPool(x, l.window().integers())
}

// Params returns nothing.
func (AvgPool2D) Params() []*Param { return nil }

// averagePool is the pooling as a Function.
type averagePool struct{ window kernel.Window }

var _ quantops.Differentiable = (*averagePool)(nil)

func (f *averagePool) String() string { return "avgpool" }

func (f *averagePool) Forward(y []float32, x [][]float32) error {
	f.window.Average(y, x[0])
	return nil
}

func (f *averagePool) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	f.window.AverageGradient(dx[0], dy)
	return nil
}
