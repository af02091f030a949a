package layers

import "github.com/goqat/goqat/integer"

var _ Layer = (*GlobalAvgPool)(nil)

// GlobalAvgPool takes the mean of each channel: [channels][height][width] becomes [channels][1][1].
type GlobalAvgPool struct{ window window }

// Build takes the window's size from the input.
func (l *GlobalAvgPool) Build(_ *Build, in Shape) (Shape, error) {
	l.window = window{height: in.Height, width: in.Width}
	return l.window.shape("GlobalAvgPool", in)
}

// Forward adds the pooling to a pass.
func (l *GlobalAvgPool) Forward(p *Pass, x Value) (Value, error) {
	return l.window.average(p, x, "GlobalAvgPool")
}

// Lower adds the pooling to an integer model.
func (l *GlobalAvgPool) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	return b.AvgPool(x, l.window.integers())
}

// Params returns nothing.
func (*GlobalAvgPool) Params() []*Param { return nil }
