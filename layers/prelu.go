package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

var _ Layer = (*PReLU)(nil)

// PReLU is the parametric rectifier, which learns what to multiply negative numbers by:
//
//	y = x where x > 0, else slope[c]·x,  ∂y/∂slope[c] = 0 where x > 0, else x
//
// The gradient of x at 0 is the slope. Outputs can be negative. Parameter: NAME.weight, the slopes, [channels], or [1] if
// they are shared; they start from 0.25 and have no weight decay.
//
// Integers have it folded into the requantization of the layer with weights before it, a batch normalization in between
// included. Behind pooling or flattening of such a layer's outputs it can't be folded, and evaluation refuses it.
//
// He et al., "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification", 2015.
type PReLU struct {
	Name   string // default prelu1, prelu2, …
	Shared bool   // one slope for all channels

	name     string
	channels int
	slope    *Param
}

// initialSlope is the paper's.
const initialSlope = 0.25

// Build makes the slopes.
func (l *PReLU) Build(b *Build, in Shape) (Shape, error) {
	var err error
	if l.name, err = b.Name(l.Name, "prelu"); err != nil {
		return Shape{}, err
	}
	l.channels = in.Channels
	slopes := in.Channels
	if l.Shared {
		slopes = 1
	}
	l.slope = newParam(l.name+".weight", slopes)
	for i := range l.slope.Data() {
		l.slope.Data()[i] = initialSlope
	}
	in.Signed = true
	return in, nil
}

// Params returns the slopes.
func (l *PReLU) Params() []*Param { return []*Param{l.slope} }

// slopes returns the slope of every channel.
func (l *PReLU) slopes() []float64 {
	slopes, data := make([]float64, l.channels), l.slope.Data()
	for c := range slopes {
		slopes[c] = float64(data[c%len(data)])
	}
	return slopes
}

// Forward adds the rectifier to a pass.
func (l *PReLU) Forward(p *Pass, x Value) (Value, error) {
	x.Signed = true
	if x.exact != nil {
		return l.fold(p, x)
	}
	x, err := p.settled(x)
	if err != nil {
		return Value{}, err
	}
	f := &parametric{PReLU: l, kernel: kernel.PReLU{Images: p.Images, Channels: x.Channels, Size: x.Height * x.Width}}
	n, err := p.apply(f, x.Shape, x.input(), quantops.Input{Node: p.Node(l.slope)})
	if err != nil {
		return Value{}, err
	}
	return Value{Shape: x.Shape, node: n}, p.remember(l.name, n)
}

// fold gives the rectifier to exact x: to whoever requantizes it where it is pending, else to a requantization of its own,
// to wide numbers as in Lower.
func (l *PReLU) fold(p *Pass, x Value) (Value, error) {
	if !x.isPending() {
		return p.widen(x.sloped(l.slopes), integer.WideBits, func(accumulators) bool { return false })
	}
	if len(x.exact.later) > 0 {
		before := x.exact.pending.layer.name
		return Value{}, fmt.Errorf("layers: %s: pooling, flattening or sampling between %s and it keeps it from being folded into integers: put it right behind %s", l.name, before, before)
	}
	return x.sloped(l.slopes), nil
}

// Lower gives the rectifier to the requantization of the integers before it.
func (l *PReLU) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	y, err := b.PReLU(x, l.slopes())
	if _, _, wide := x.Wide(); wide && err == nil {
		y, err = b.Widen(y)
	}
	if err != nil {
		return y, fmt.Errorf("layers: %s: %w", l.name, err)
	}
	return y, nil
}

// sloped returns exact x with the negative numbers of every channel multiplied by its slope.
func (x Value) sloped(slopes func() []float64) Value {
	e := *x.exact
	e.sloped = true
	before := e.describe
	e.describe = func() (accumulators, error) {
		a, err := before()
		if err != nil || a.affine.ReLU { // which leaves nothing negative
			return a, err
		}
		return a.sloped(slopes()), nil
	}
	x.exact = &e
	return x
}

// sloped returns a with an entry for every channel and its slope, on top of those that a has already.
func (a accumulators) sloped(slopes []float64) accumulators {
	n := len(slopes)
	s := accumulators{integer.Affine{Bias: repeated(a.affine.Bias, n), Slope: make([]float64, n)}, make([][]int64, len(a.bound))}
	for p, scale := range a.affine.Scale {
		s.affine.Scale = append(s.affine.Scale, repeated(scale, n))
		s.bound[p] = repeated(a.bound[p], n)
	}
	for c, slope := range slopes {
		s.affine.Slope[c] = slope
		if a.affine.Slope == nil {
			continue
		}
		// What an earlier negative slope has made positive does not get this one.
		if earlier := a.affine.Slope[c]; earlier < 0 {
			s.affine.Slope[c] = earlier
		} else {
			s.affine.Slope[c] *= earlier
		}
	}
	return s
}

// repeated returns a number for each of n channels, from as many or one for all.
func repeated[T any](v []T, n int) []T {
	all := make([]T, n)
	for c := range all {
		all[c] = v[c%len(v)]
	}
	return all
}

// parametric is the rectifier as a Function of x and the slopes.
type parametric struct {
	*PReLU
	kernel kernel.PReLU

	each []float32 // the slope of every channel
	sums []float64 // the gradient of every channel's slope
}

var _ quantops.Differentiable = (*parametric)(nil)

func (f *parametric) String() string { return f.name }

func (f *parametric) Forward(y []float32, x [][]float32) error {
	f.kernel.Forward(y, x[0], f.channelSlopes(x[1]))
	return nil
}

// channelSlopes returns the slope of every channel.
func (f *parametric) channelSlopes(slopes []float32) []float32 {
	if len(slopes) == f.channels {
		return slopes
	}
	if f.each == nil {
		f.each = make([]float32, f.channels)
	}
	for c := range f.each {
		f.each[c] = slopes[0]
	}
	return f.each
}

// Backward adds up the gradient of a shared slope over channels in order, in float64.
func (f *parametric) Backward(dx [][]float32, dy, _ []float32, x [][]float32) error {
	if f.sums == nil {
		f.sums = make([]float64, f.channels)
	}
	f.kernel.SlopeGradient(f.sums, dy, x[0])
	if f.Shared {
		total := 0.0
		for _, sum := range f.sums {
			total += sum
		}
		dx[1][0] = float32(total)
	} else {
		for c, sum := range f.sums {
			dx[1][c] = float32(sum)
		}
	}
	if dx[0] != nil {
		f.kernel.InputGradient(dx[0], dy, x[0], f.channelSlopes(x[1]))
	}
	return nil
}
