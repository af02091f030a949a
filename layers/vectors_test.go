package layers

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

// imageShape reads [images][channels][height][width], or fewer dimensions, of which the last ones are missing.
func imageShape(c golden.Case, name string) (images int, s Shape) {
	dimensions := append(c.Shape(name), 1, 1, 1)
	return dimensions[0], Shape{Channels: dimensions[1], Height: dimensions[2], Width: dimensions[3], Signed: true}
}

// requireVectors runs a layer on the case's x and dy and compares outputs and gradients.
func requireVectors(t *testing.T, c golden.Case, l Layer, params map[string]string, tolerances map[string]float64) {
	t.Helper()
	images, in := imageShape(c, "x")
	p := newProbe(t, l, in, images)
	for vector, name := range params {
		copy(p.params[name].Data(), c.Float32(vector))
	}
	p.set(c.Float32("x"), c.Float32("dy"))
	_, out := imageShape(c, "y")
	out.Signed = p.out.Signed
	require.Equal(t, out, p.out)
	for range 2 { // gradients come out the same in every step
		p.run(t)
		requireClose(t, c.Float64("y"), p.output(), tolerances["y"], "y")
		requireClose(t, c.Float64("dx"), p.gradient("x"), tolerances["dx"], "dx")
		for vector, name := range params {
			requireClose(t, c.Float64("d"+vector), p.gradient(name), tolerances["d"+vector], "d"+vector)
		}
	}
}

func TestConv2DVectors(t *testing.T) {
	golden.Run(t, "layers", "conv2d", func(t *testing.T, c golden.Case) {
		require.Equal(t, 1, c.Int("dilation"))
		w := c.Shape("w")
		l := &Conv2D{Name: "conv", Outputs: w[0], Kernel: w[2], Stride: c.Int("stride"), Pad: c.Int("pad"), Groups: c.Int("groups"), NoBias: !c.Bool("bias")}
		params := map[string]string{"w": "conv.weight", "b": "conv.bias"}
		if l.NoBias {
			delete(params, "b")
		}
		requireVectors(t, c, l, params, map[string]float64{"y": 5e-6, "dx": 5e-6, "dw": 1e-5, "db": 1e-5})
	})
}

// rel2e6 is the tolerance of all layers but convolution, relative to the tensor's largest number as well.
var rel2e6 = map[string]float64{"y": 2e-6, "dx": 2e-6, "dw": 2e-6, "db": 2e-6}

func TestLinearVectors(t *testing.T) {
	golden.Run(t, "layers", "linear", func(t *testing.T, c golden.Case) {
		l := &Linear{Name: "fc", Outputs: c.Shape("w")[0]}
		requireVectors(t, c, l, map[string]string{"w": "fc.weight", "b": "fc.bias"}, rel2e6)
	})
}

func TestMaxPool2DVectors(t *testing.T) {
	golden.Run(t, "layers", "maxpool", func(t *testing.T, c golden.Case) {
		if c.HasParam("ceil_mode") {
			t.Skip("sizes are rounded down here")
		}
		requireVectors(t, c, MaxPool2D{Window: c.Int("kernel_size"), Stride: c.Int("stride"), Pad: padding(c)}, nil, rel2e6)
	})
}

func TestAvgPool2DVectors(t *testing.T) {
	golden.Run(t, "layers", "avgpool", func(t *testing.T, c golden.Case) {
		if c.HasParam("count_include_pad") && !c.Bool("count_include_pad") {
			t.Skip("padding counts here")
		}
		requireVectors(t, c, AvgPool2D{Window: c.Int("kernel_size"), Stride: c.Int("stride"), Pad: padding(c)}, nil, rel2e6)
	})
}

func padding(c golden.Case) int {
	if c.HasParam("padding") {
		return c.Int("padding")
	}
	return 0
}

func TestReLUVectors(t *testing.T) {
	golden.Run(t, "layers", "relu", func(t *testing.T, c golden.Case) {
		requireVectors(t, c, ReLU{}, nil, rel2e6)
	})
}
