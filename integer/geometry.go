package integer

import (
	"fmt"
	"math/bits"
)

// Shape is the size of one image's activation: order c, h, w, row-major.
type Shape struct{ Channels, Height, Width int }

// Len returns the number of elements.
func (s Shape) Len() int { return s.Channels * s.Height * s.Width }

// String returns for example 16x5x5.
func (s Shape) String() string { return fmt.Sprintf("%dx%dx%d", s.Channels, s.Height, s.Width) }

// valid reports whether all sizes are positive and their product is below 2^31.
func (s Shape) valid() bool {
	_, ok := product(s.Channels, s.Height, s.Width)
	return ok
}

// ConvGeometry is how a convolution slides over its input; the kernel's size is the weights'.
type ConvGeometry struct {
	StrideHeight, StrideWidth            int // 0 means 1
	PadTop, PadLeft, PadBottom, PadRight int // rows and columns of real zeros, each less than the kernel
	Groups                               int // 0 means 1; as many as input channels is depthwise
}

// Window is how a pooling layer slides over its input.
type Window struct {
	Height, Width                        int // positive
	StrideHeight, StrideWidth            int // 0 means the window's own size
	PadTop, PadLeft, PadBottom, PadRight int // each less than the window; see Node for what padding holds
}

// Sampling is how a Sample node thins out its input.
type Sampling struct {
	Stride        int // every Stride-th row and column is kept, from the first on; at least 1
	Before, After int // channels of zeros added in front of the input's and behind them
}

// output returns the shape of what is sampled from in, or an error that says what does not fit.
func (s Sampling) output(in Shape) (Shape, error) {
	if s.Stride < 1 || min(s.Before, s.After) < 0 || max(s.Before, s.After) > maxElements {
		return Shape{}, fmt.Errorf("sampling with stride %d and %d and %d channels added: want a stride of at least 1 and 0 or more channels, less than 2^31", s.Stride, s.Before, s.After)
	}
	out := Shape{in.Channels + s.Before + s.After, (in.Height-1)/s.Stride + 1, (in.Width-1)/s.Stride + 1}
	if !out.valid() {
		return Shape{}, fmt.Errorf("output of %v: want less than 2^31 elements", out)
	}
	return out, nil
}

// SumBits returns the width that wide values need so that the sum over a window stays below 2^24.
func (w Window) SumBits() int {
	return WideBits - bits.Len(uint(w.Height*w.Width-1))
}

// withDefaults replaces documented zero values.
func (g ConvGeometry) withDefaults() ConvGeometry {
	return ConvGeometry{
		StrideHeight: orDefault(g.StrideHeight, 1), StrideWidth: orDefault(g.StrideWidth, 1),
		PadTop: g.PadTop, PadLeft: g.PadLeft, PadBottom: g.PadBottom, PadRight: g.PadRight,
		Groups: orDefault(g.Groups, 1),
	}
}

// withDefaults replaces documented zero values.
func (w Window) withDefaults() Window {
	w.StrideHeight = orDefault(w.StrideHeight, w.Height)
	w.StrideWidth = orDefault(w.StrideWidth, w.Width)
	return w
}

func orDefault(value, instead int) int {
	if value == 0 {
		return instead
	}
	return value
}

// slide is one sliding window in full: what convolution and pooling have in common.
type slide struct {
	kernelHeight, kernelWidth, strideHeight, strideWidth int
	top, left, bottom, right                             int
}

func (w Window) slide() slide {
	return slide{w.Height, w.Width, w.StrideHeight, w.StrideWidth, w.PadTop, w.PadLeft, w.PadBottom, w.PadRight}
}

// slide needs weights of four dimensions.
func (g ConvGeometry) slide(weights []int) slide {
	return slide{weights[2], weights[3], g.StrideHeight, g.StrideWidth, g.PadTop, g.PadLeft, g.PadBottom, g.PadRight}
}

// padded returns the input's height and width with padding.
func (s slide) padded(in Shape) (height, width int) {
	return in.Height + s.top + s.bottom, in.Width + s.left + s.right
}

// output returns the number of positions of the window, rounded down, or an error that says what does not fit.
func (s slide) output(in Shape) (height, width int, err error) {
	if s.kernelHeight < 1 || s.kernelWidth < 1 || s.strideHeight < 1 || s.strideWidth < 1 {
		return 0, 0, fmt.Errorf("window %dx%d with stride %dx%d: want positive sizes", s.kernelHeight, s.kernelWidth, s.strideHeight, s.strideWidth)
	}
	// A window that lay in the padding alone would have no maximum.
	if min(s.top, s.bottom, s.left, s.right) < 0 || max(s.top, s.bottom) >= s.kernelHeight || max(s.left, s.right) >= s.kernelWidth {
		return 0, 0, fmt.Errorf("padding %d, %d, %d, %d (top, left, bottom, right): want 0 or more and less than the window %dx%d", s.top, s.left, s.bottom, s.right, s.kernelHeight, s.kernelWidth)
	}
	paddedHeight, paddedWidth := s.padded(in)
	if _, ok := product(in.Channels, paddedHeight, paddedWidth); !ok {
		return 0, 0, fmt.Errorf("padded input %dx%dx%d: want less than 2^31 elements", in.Channels, paddedHeight, paddedWidth)
	}
	if s.kernelHeight > paddedHeight || s.kernelWidth > paddedWidth {
		return 0, 0, fmt.Errorf("window %dx%d is larger than the padded input %dx%d", s.kernelHeight, s.kernelWidth, paddedHeight, paddedWidth)
	}
	return (paddedHeight-s.kernelHeight)/s.strideHeight + 1, (paddedWidth-s.kernelWidth)/s.strideWidth + 1, nil
}
