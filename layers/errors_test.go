package layers

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

func TestNetworkErrors(t *testing.T) {
	image := Shape{Channels: 4, Height: 6, Width: 5}
	edge := Shape{Channels: 1, Height: 1, Width: 1}
	for want, c := range map[string]struct {
		in   Shape
		root Layer
	}{
		"layers: input shape 0x6x5: want positive sizes":                                                                        {Shape{Height: 6, Width: 5}, Sequential{}},
		"layers: input shape 1x65536x65536 has more than 2^31 elements":                                                         {Shape{Channels: 1, Height: 1 << 16, Width: 1 << 16}, Sequential{}},
		"layers: conv1: 0 outputs, kernel 3, stride 0, 0 groups: want positive numbers":                                         {image, &Conv2D{Kernel: 3}},
		"layers: conv1: 2 outputs, kernel 0, stride 0, 0 groups: want positive numbers":                                         {image, &Conv2D{Outputs: 2}},
		"layers: conv1: 2 outputs, kernel 3, stride -1, 0 groups: want positive numbers":                                        {image, &Conv2D{Outputs: 2, Kernel: 3, Stride: -1}},
		"layers: conv1: 2 outputs, kernel 3, stride 0, -2 groups: want positive numbers":                                        {image, &Conv2D{Outputs: 2, Kernel: 3, Groups: -2}},
		"layers: first: padding 3: want 0 or more and less than the kernel, 3":                                                  {image, &Conv2D{Name: "first", Outputs: 2, Kernel: 3, Pad: 3}},
		"layers: conv1: padding -1: want 0 or more and less than the kernel, 3":                                                 {image, &Conv2D{Outputs: 2, Kernel: 3, Pad: -1}},
		"layers: conv1: padding 1 besides \"same\": want one of the two":                                                        {image, &Conv2D{Outputs: 2, Kernel: 3, Pad: 1, Same: true}},
		"layers: conv1: 3 groups: want a divisor of 4 input and of 6 output channels":                                           {image, &Conv2D{Outputs: 6, Kernel: 3, Groups: 3}},
		"layers: conv1: 4 groups: want a divisor of 4 input and of 6 output channels":                                           {image, &Conv2D{Outputs: 6, Kernel: 3, Groups: 4}},
		"layers: conv1: kernel 8 is larger than the padded input of 4x6x5":                                                      {image, &Conv2D{Outputs: 6, Kernel: 8, Pad: 1}},
		"layers: conv1: output shape 2147483647x6x5 has more than 2^31 elements":                                                {image, &Conv2D{Outputs: 1<<31 - 1, Kernel: 1}},
		"layers: conv1: weights [8192 1 4097 4097] have more than 2^31 elements":                                                {edge, &Conv2D{Outputs: 8192, Kernel: 4097, Pad: 4096, Stride: 5000}},
		"layers: fc1: weights [2147483647 2] have more than 2^31 elements":                                                      {Shape{Channels: 2, Height: 1, Width: 1}, &Linear{Outputs: 1<<31 - 1}},
		"layers: fc1: 0 outputs: want a positive number":                                                                        {edge, &Linear{}},
		"layers: fc1: input 4x6x5 has rows and columns: put a Flatten before it":                                                {image, &Linear{Outputs: 3}},
		"layers: fc2: input 4x6x5 has rows and columns: put a Flatten before it":                                                {image, Sequential{Sequential{Flatten{}, &Linear{Outputs: 3}}, misplaced{image}, &Linear{Outputs: 3}}},
		`layers: two layers are named "a"`:                                                                                      {image, Sequential{&Conv2D{Name: "a", Outputs: 2, Kernel: 1}, Flatten{}, &Linear{Name: "a", Outputs: 1}}},
		`layers: two layers are named "conv1"`:                                                                                  {image, Sequential{&Conv2D{Outputs: 2, Kernel: 1}, &Conv2D{Name: "conv1", Outputs: 2, Kernel: 1}}},
		"layers: MaxPool2D: window 0, stride 0: want positive numbers":                                                          {image, MaxPool2D{}},
		"layers: MaxPool2D: window 2, stride -1: want positive numbers":                                                         {image, MaxPool2D{Window: 2, Stride: -1}},
		"layers: MaxPool2D: window 257: want at most 256":                                                                       {image, MaxPool2D{Window: 257}},
		"layers: MaxPool2D: padding 2: want 0 to half the window, 1":                                                            {image, MaxPool2D{Window: 3, Pad: 2}},
		"layers: AvgPool2D: padding -1: want 0 to half the window, 1":                                                           {image, AvgPool2D{Window: 2, Pad: -1}},
		"layers: AvgPool2D: window 6 is larger than the padded input of 4x6x5":                                                  {image, AvgPool2D{Window: 6}},
		`layers: fc1: quantops: method "linear:16": weights of linear have 2 to 8 bits`:                                         {edge, &Linear{Outputs: 1, Methods: Methods{Weights: quantops.MustParse("lsq:8").WithBits(16)}}},
		`layers: fc1: quantops: method "linear:16": activations of linear have 2 to 8 bits`:                                     {edge, &Linear{Outputs: 1, Methods: Methods{Activations: quantops.MustParse("lsq:8").WithBits(16)}}},
		`layers: conv1: quantops: method "lsq:4,per=channel": per=channel is for weights; activations have one step per tensor`: {edge, &Conv2D{Outputs: 1, Kernel: 1, Methods: methods("lsq:4", "lsq:4,per=channel")}},
	} {
		net, err := NewNetwork(c.root, c.in, 1)
		require.EqualError(t, err, want)
		require.Nil(t, net)
	}
}

// misplaced claims a shape with rows and columns.
type misplaced struct{ shape Shape }

func (l misplaced) Build(*Build, Shape) (Shape, error)                             { return l.shape, nil }
func (misplaced) Forward(_ *Pass, x Value) (Value, error)                          { return x, nil }
func (misplaced) Params() []*Param                                                 { return nil }
func (misplaced) Lower(_ *integer.Builder, x integer.Value) (integer.Value, error) { return x, nil }

func TestForwardErrors(t *testing.T) {
	net, err := NewNetwork(Sequential{&Conv2D{Outputs: 8, Kernel: 3, Pad: 1}, Flatten{}, &Linear{Outputs: 2}}, Shape{Channels: 1, Height: 8, Width: 8}, 1)
	require.NoError(t, err)
	for _, c := range []struct {
		images, length int
		want           string
	}{
		{0, 0, "layers: a pass of 0 images: want at least 1"},
		{-16, 0, "layers: a pass of -16 images: want at least 1"},
		{17, 1024, "layers: 1024 numbers for 17 images of 1x8x8: want 2048"},
		{16, 1025, "layers: 1025 numbers for 16 images of 1x8x8: want 1024"},
	} {
		for _, mode := range []Mode{Training, Calibration, Evaluation} {
			_, err := net.Forward(NewPass(mode, c.images), make([]float32, c.length))
			require.EqualError(t, err, c.want)
		}
	}
}

// A tensor whose size would not fit is refused before there is memory for it.
func TestForwardOfTooManyImages(t *testing.T) {
	wide := &Conv2D{Outputs: 1 << 20, Kernel: 1}
	net, err := NewNetwork(wide, Shape{Channels: 1, Height: 4, Width: 4}, 1)
	require.NoError(t, err)
	_, err = net.Forward(NewPass(Training, 129), make([]float32, 9*16*16))
	require.EqualError(t, err, "layers: conv1: 129 images of 1048576x4x4 make a tensor of more than 2^31 elements; use a smaller batch")
}

func smallRig(t *testing.T) *rig {
	root := Sequential{&Conv2D{Outputs: 3, Kernel: 3}, ReLU{}, Flatten{}, &Linear{Outputs: 4}}
	Quantize(root, methods("lsq:4", "lsq:4"), 0)
	return newRig(t, root, Shape{Channels: 1, Height: 5, Width: 5}, 2, random.New(1, "small"))
}

func TestEvaluationErrors(t *testing.T) {
	r := smallRig(t)
	evaluate := func(refresh bool) error {
		p := NewPass(Evaluation, 2)
		if _, err := r.net.Forward(p, r.batch); err != nil {
			return err
		}
		if refresh {
			if err := p.Refresh(); err != nil {
				return err
			}
		}
		machine := gorgonia.NewTapeMachine(p.Graph)
		defer machine.Close()
		return machine.RunAll()
	}
	require.EqualError(t, evaluate(true), "layers: conv1: integer: grid scale 0: want a finite positive number", "not calibrated")
	r.calibrate()
	require.NoError(t, evaluate(true))
	require.ErrorContains(t, evaluate(false), "layers: conv1: evaluation before Pass.Refresh")

	p := NewPass(Evaluation, 2)
	_, err := r.net.Forward(p, r.batch)
	require.NoError(t, err)
	weights := r.watched[1].core.weight.Params()[0].Data()
	weights[5] = float32(math.NaN())
	require.EqualError(t, p.Refresh(), "layers: fc1: quantops: weight 5 is not a number")
	_, err = r.net.Lower(r.pixel, make([]string, 4))
	require.EqualError(t, err, "layers: fc1: quantops: weight 5 is not a number")
}

func TestFirstNotFinite(t *testing.T) {
	r := smallRig(t)
	r.calibrate()
	p, _, machine := r.pass(Training)
	require.NoError(t, machine.RunAll())
	machine.Reset()
	require.Empty(t, p.FirstNotFinite())
	for i, layer := range []string{"fc1", "conv1"} { // the later layer first, so that the earlier one hides it
		r.watched[1-i].core.bias.Data()[0] = float32(math.Inf(1))
		require.NoError(t, machine.RunAll())
		machine.Reset()
		require.Equal(t, layer, p.FirstNotFinite())
	}
}
