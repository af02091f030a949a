package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

// window is the geometry that pooling layers share: square windows, symmetric padding.
type window struct{ size, stride, pad int }

// shape returns the shape of the pooled activation; a window that does not fit is an error.
func (w window) shape(layer string, in Shape) (Shape, error) {
	switch {
	case w.size < 1 || w.stride < 0:
		return Shape{}, fmt.Errorf("layers: %s: window %d, stride %d: want positive numbers", layer, w.size, w.stride)
	case w.pad < 0 || 2*w.pad > w.size:
		return Shape{}, fmt.Errorf("layers: %s: padding %d: want 0 to half the window, %d", layer, w.pad, w.size/2)
	case w.size > in.Height+2*w.pad || w.size > in.Width+2*w.pad:
		return Shape{}, fmt.Errorf("layers: %s: window %d is larger than the padded input of %v", layer, w.size, in)
	}
	rows, columns := w.axes(in)
	return Shape{Channels: in.Channels, Height: rows.Out, Width: columns.Out, Signed: in.Signed}, nil
}

func (w window) axes(in Shape) (rows, columns kernel.Axis) {
	axis := func(n int) kernel.Axis {
		return kernel.Axis{In: n, Out: (n+2*w.pad-w.size)/w.step() + 1, Kernel: w.size, Stride: w.step(), Before: w.pad}
	}
	return axis(in.Height), axis(in.Width)
}

// step is the stride, by default the window's size.
func (w window) step() int {
	if w.stride == 0 {
		return w.size
	}
	return w.stride
}

func (w window) kernel(p *Pass, in Shape) kernel.Window {
	rows, columns := w.axes(in)
	return kernel.Window{Planes: p.Blocks() * in.Channels, Rows: rows, Columns: columns, CountPadding: true}
}

func (w window) integers() integer.Window {
	return integer.Window{Height: w.size, Width: w.size, StrideHeight: w.step(), StrideWidth: w.step(), PadTop: w.pad, PadLeft: w.pad, PadBottom: w.pad, PadRight: w.pad}
}
