package layers

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
)

// TensorFlow's documentation: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
func TestSamePadding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, kernel, stride, out, before, behind int }{
		{32, 3, 1, 32, 1, 1},
		{32, 3, 2, 16, 0, 1},
		{33, 3, 2, 17, 1, 1},
		{32, 1, 2, 16, 0, 0}, // the last column takes part in no window
		{13, 6, 5, 3, 1, 2},
		{5, 4, 1, 5, 1, 2},
		{7, 2, 4, 2, 0, 0},
		{2, 5, 1, 2, 2, 2}, // a kernel larger than the image
		{1, 3, 9, 1, 1, 1},
	} {
		l := &Conv2D{Kernel: c.kernel, Same: true}
		before, behind := l.padding(c.in, c.stride)
		require.Equal(t, [2]int{c.before, c.behind}, [2]int{before, behind}, "%+v", c)
		require.Equal(t, kernel.Axis{In: c.in, Out: c.out, Kernel: c.kernel, Stride: c.stride, Before: c.before}, l.axis(c.in, c.stride))
	}
}

// The zeros of "same" lie where another framework puts them: the layer computes what one without padding does on an image
// that has them.
func TestSamePaddingIsExplicitPadding(t *testing.T) {
	t.Parallel()
	in, padded := Shape{Channels: 2, Height: 6, Width: 8, Signed: true}, Shape{Channels: 2, Height: 7, Width: 9, Signed: true}
	same := newProbe(t, &Conv2D{Name: "conv", Outputs: 3, Kernel: 3, Stride: 2, Same: true}, in, 2)
	plain := newProbe(t, &Conv2D{Name: "conv", Outputs: 3, Kernel: 3, Stride: 2}, padded, 2)
	x, dy := noise(2*in.Len(), 1), noise(2*same.out.Len(), 2)
	wide := make([]float32, 2*padded.Len())
	place := func(i int) int { // of element i in the padded images
		row, column := i/in.Width, i%in.Width
		return (row/in.Height*padded.Height+row%in.Height)*padded.Width + column
	}
	for i, v := range x {
		wide[place(i)] = v
	}
	same.set(x, dy)
	plain.set(wide, dy)
	same.run(t)
	plain.run(t)
	requireClose(t, float64s(plain.output()), same.output(), 1e-6, "y")
	requireClose(t, float64s(plain.gradient("conv.weight")), same.gradient("conv.weight"), 1e-6, "dw")
	dx := plain.gradient("x")
	for i, v := range same.gradient("x") {
		require.InDelta(t, dx[place(i)], v, 1e-5, "dx %d", i)
	}
}
