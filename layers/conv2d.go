package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ Layer = (*Conv2D)(nil)

// Conv2D is a two-dimensional convolution (cross-correlation) with square kernels and zero padding:
//
//	y[o,i,j] = Σ_{c,k,l} Q(x)[c,i·Stride-above+k,j·Stride-left+l] · Q(w)[o,c,k,l] + bias[o]
//
// Inputs are [channels][height][width] an image, weights [Outputs][channels/Groups][Kernel][Kernel]. With Pad on every side
// the output has (height + 2·Pad - Kernel)/Stride + 1 rows, rounded down, and columns likewise. With Same, TensorFlow's
// "same" padding, it has height/Stride, rounded up, and the padding is what they need, shared out evenly; an odd
// row of zeros goes below and an odd column to the right:
//
//	total = max((rows - 1)·Stride + Kernel - height, 0), above = total/2 rounded down, below = total - above
type Conv2D struct {
	Name    string // default conv1, conv2, …
	Outputs int    // output channels
	Kernel  int    // rows and columns of the kernel
	Stride  int    // 0 means 1
	Pad     int    // zeros on each side, less than Kernel
	Same    bool   // pad as TensorFlow's "same", in place of Pad
	Groups  int    // 0 means 1; as many as input channels is a depthwise convolution
	NoBias  bool
	Methods Methods

	weighted
	geometry integer.ConvGeometry
}

func (l *Conv2D) methods() Methods     { return l.Methods }
func (l *Conv2D) setMethods(m Methods) { l.Methods = m }

// Build makes weight and bias.
func (l *Conv2D) Build(b *Build, in Shape) (Shape, error) {
	var err error
	if l.weighted.name, err = b.Name(l.Name, "conv"); err != nil {
		return Shape{}, err
	}
	stride, groups := max(1, l.Stride), max(1, l.Groups)
	rows, columns := l.axis(in.Height, stride), l.axis(in.Width, stride)
	if err := l.validate(in, rows, columns, groups); err != nil {
		return Shape{}, fmt.Errorf("layers: %s: %w", l.weighted.name, err)
	}
	top, bottom := l.padding(in.Height, stride)
	left, right := l.padding(in.Width, stride)
	l.geometry = integer.ConvGeometry{
		StrideHeight: stride, StrideWidth: stride, Groups: groups,
		PadTop: top, PadBottom: bottom, PadLeft: left, PadRight: right,
	}
	l.in, l.out = in, Shape{Channels: l.Outputs, Height: rows.Out, Width: columns.Out, Signed: true}
	l.plan = func(blocks int) *kernel.Conv {
		return kernel.NewConv(blocks, in.Channels, l.Outputs, groups, rows, columns)
	}
	l.apart = true
	if groups == 1 && kernel.WinogradPays(in.Channels, l.Outputs) {
		l.winograd = func(blocks int) (*kernel.Winograd, bool) {
			return kernel.NewWinograd(blocks, in.Channels, l.Outputs, rows, columns)
		}
	}
	return l.out, l.build(b, l.Methods, []int{l.Outputs, in.Channels / groups, l.Kernel, l.Kernel}, !l.NoBias)
}

func (l *Conv2D) axis(in, stride int) kernel.Axis {
	before, behind := l.padding(in, stride)
	return kernel.Axis{In: in, Out: (before+in+behind-l.Kernel)/stride + 1, Kernel: l.Kernel, Stride: stride, Before: before}
}

// padding returns the zeros on both sides of a row or column of in numbers.
func (l *Conv2D) padding(in, stride int) (before, behind int) {
	if !l.Same {
		return l.Pad, l.Pad
	}
	out := (in-1)/stride + 1
	total := max((out-1)*stride+l.Kernel-in, 0)
	return total / 2, total - total/2
}

func (l *Conv2D) validate(in Shape, rows, columns kernel.Axis, groups int) error {
	switch {
	case l.Outputs < 1 || l.Kernel < 1 || l.Stride < 0 || l.Groups < 0:
		return fmt.Errorf("%d outputs, kernel %d, stride %d, %d groups: want positive numbers", l.Outputs, l.Kernel, l.Stride, l.Groups)
	case l.Pad < 0 || l.Pad >= l.Kernel:
		return fmt.Errorf("padding %d: want 0 or more and less than the kernel, %d", l.Pad, l.Kernel)
	case l.Same && l.Pad != 0:
		return fmt.Errorf("padding %d besides \"same\": want one of the two", l.Pad)
	case in.Channels%groups != 0 || l.Outputs%groups != 0:
		return fmt.Errorf("%d groups: want a divisor of %d input and of %d output channels", groups, in.Channels, l.Outputs)
	case !l.Same && min(in.Height, in.Width)+2*l.Pad < l.Kernel:
		return fmt.Errorf("kernel %d is larger than the padded input of %v", l.Kernel, in)
	}
	return nil
}

// Forward adds the layer to a pass.
func (l *Conv2D) Forward(p *Pass, x Value) (Value, error) { return l.forward(p, x) }

// Lower adds the layer's integers to an integer model.
func (l *Conv2D) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	x, weights, bias, err := l.integers(b, x)
	if err != nil {
		return x, err
	}
	return b.Conv(l.weighted.name, x, weights, bias, l.geometry)
}
