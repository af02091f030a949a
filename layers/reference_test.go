package layers

import (
	"math"

	"github.com/goqat/goqat/internal/random"
)

// taps is a convolution by its definition, one multiplication after the other, on [images][channels][height][width].
// A linear layer is one of kernel 1.
type taps struct {
	in, out                     Shape
	kernel, stride, pad, groups int
}

// visit calls do with the places in x, w and y of every multiplication of an image.
func (g taps) visit(do func(x, w, y int)) {
	channels, outputs := g.in.Channels/g.groups, g.out.Channels/g.groups
	for at := range g.out.Len() {
		o, i, j := at/(g.out.Height*g.out.Width), at/g.out.Width%g.out.Height, at%g.out.Width
		for tap := range channels * g.kernel * g.kernel {
			c, k, l := tap/(g.kernel*g.kernel), tap/g.kernel%g.kernel, tap%g.kernel
			row, column := i*g.stride-g.pad+k, j*g.stride-g.pad+l
			if row >= 0 && row < g.in.Height && column >= 0 && column < g.in.Width {
				do(((o/outputs*channels+c)*g.in.Height+row)*g.in.Width+column, o*channels*g.kernel*g.kernel+tap, at)
			}
		}
	}
}

// forward is y = x*w + bias.
func (g taps) forward(x, w, bias []float64, images int) []float64 {
	y := make([]float64, images*g.out.Len())
	for n := range images {
		xn, yn := x[n*g.in.Len():], y[n*g.out.Len():][:g.out.Len()]
		for i := range yn {
			if bias != nil {
				yn[i] = bias[i/(g.out.Height*g.out.Width)]
			}
		}
		g.visit(func(x, wi, y int) { yn[y] += xn[x] * w[wi] })
	}
	return y
}

// backward returns the gradients of x, w and bias.
func (g taps) backward(x, w, dy []float64, images int) (dx, dw, db []float64) {
	dx, dw, db = make([]float64, len(x)), make([]float64, len(w)), make([]float64, g.out.Channels)
	for n := range images {
		xn, dxn, dyn := x[n*g.in.Len():], dx[n*g.in.Len():], dy[n*g.out.Len():][:g.out.Len()]
		g.visit(func(x, wi, y int) {
			dxn[x] += dyn[y] * w[wi]
			dw[wi] += dyn[y] * xn[x]
		})
		for i, d := range dyn {
			db[i/(g.out.Height*g.out.Width)] += d
		}
	}
	return dx, dw, db
}

// steps is uniform quantization by its definition: code = clamp(round(x/scale) + zero, min, max).
type steps struct{ scale, zero, min, max float64 }

func (s steps) value(x float64) float64 {
	code := math.RoundToEven(x/s.scale) + s.zero
	return (math.Max(s.min, math.Min(code, s.max)) - s.zero) * s.scale
}

// slopes are the surrogate gradients by x and by scale.
func (s steps) slopes(x float64) (dx, dscale float64) {
	v := x / s.scale
	switch code := math.RoundToEven(v) + s.zero; {
	case code < s.min:
		return 0, s.min - s.zero
	case code > s.max:
		return 0, s.max - s.zero
	}
	return 1, math.RoundToEven(v) - v
}

// quantized maps every element with the steps of its channel.
func quantized(x []float64, channels []steps) []float64 {
	y, n := make([]float64, len(x)), len(x)/len(channels)
	for i, v := range x {
		y[i] = channels[i/n].value(v)
	}
	return y
}

// surrogate turns the gradient of values into that of x, and of every channel's scale with the sum of its terms in
// magnitude.
func surrogate(x, dvalue []float64, channels []steps) (dx, dscale, magnitude []float64) {
	dx, dscale, magnitude = make([]float64, len(x)), make([]float64, len(channels)), make([]float64, len(channels))
	n := len(x) / len(channels)
	for i, v := range x {
		pass, slope := channels[i/n].slopes(v)
		dx[i] = dvalue[i] * pass
		dscale[i/n] += dvalue[i] * slope
		magnitude[i/n] += math.Abs(dvalue[i] * slope)
	}
	return dx, dscale, magnitude
}

func float64s(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// noise returns n normally distributed numbers.
func noise(n int, seed uint64) []float32 {
	s := random.New(seed, "test")
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(s.Normal())
	}
	return x
}
