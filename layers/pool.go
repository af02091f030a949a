package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

// window is the geometry that pooling layers share: symmetric padding, and a stride that is the window's own size where
// it is 0.
type window struct{ height, width, stride, pad int }

// square is a window of equal sides.
func square(size, stride, pad int) window { return window{size, size, stride, pad} }

// shape returns the shape of the pooled activation; a window that does not fit is an error.
func (w window) shape(layer string, in Shape) (Shape, error) {
	switch {
	case w.height < 1 || w.width < 1 || w.stride < 0:
		return Shape{}, fmt.Errorf("layers: %s: window %d, stride %d: want positive numbers", layer, w.height, w.stride)
	case w.pad < 0 || 2*w.pad > min(w.height, w.width):
		return Shape{}, fmt.Errorf("layers: %s: padding %d: want 0 to half the window, %d", layer, w.pad, min(w.height, w.width)/2)
	case w.height > in.Height+2*w.pad || w.width > in.Width+2*w.pad:
		return Shape{}, fmt.Errorf("layers: %s: window %d is larger than the padded input of %v", layer, w.height, in)
	}
	rows, columns := w.axes(in)
	return Shape{Channels: in.Channels, Height: rows.Out, Width: columns.Out, Signed: in.Signed}, nil
}

func (w window) axes(in Shape) (rows, columns kernel.Axis) {
	axis := func(n, size int) kernel.Axis {
		stride := w.step(size)
		return kernel.Axis{In: n, Out: (n+2*w.pad-size)/stride + 1, Kernel: size, Stride: stride, Before: w.pad}
	}
	return axis(in.Height, w.height), axis(in.Width, w.width)
}

func (w window) step(size int) int {
	if w.stride == 0 {
		return size
	}
	return w.stride
}

func (w window) kernel(p *Pass, in Shape) kernel.Window {
	rows, columns := w.axes(in)
	return kernel.Window{Planes: p.Blocks() * in.Channels, Rows: rows, Columns: columns, CountPadding: true}
}

func (w window) integers() integer.Window {
	return integer.Window{
		Height: w.height, Width: w.width, StrideHeight: w.step(w.height), StrideWidth: w.step(w.width),
		PadTop: w.pad, PadLeft: w.pad, PadBottom: w.pad, PadRight: w.pad,
	}
}
