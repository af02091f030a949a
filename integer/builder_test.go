package integer_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

func TestNetworksAgreeWithRealArithmetic(t *testing.T) {
	for name, network := range networks {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t, 11, networkInputs[name])
			_, check := m.output(network(m))
			size := m.input.Len()
			images := m.randomImages(3)
			for i := range 3 {
				check(images[i*size : (i+1)*size])
			}
			require.Positive(t, *m.checked)
		})
	}
}

// The evaluation graph computes with levels, real zeros as padding, and requantizers that know no
// zero point of the input. The engine's folded integers must give the same codes, all of them.
func TestFoldedConvolutionEqualsLevels(t *testing.T) {
	in := integer.Grid{Bits: 8, Scale: 0.02, Zero: 93, Max: 255}
	out := integer.Grid{Bits: 8, Scale: 0.03, Zero: -17, Min: -128, Max: 127}
	geometry := integer.ConvGeometry{StrideHeight: 2, PadTop: 2, PadLeft: 1, PadRight: 2, Groups: 2}
	m := newMirror(t, 12, integer.Shape{Channels: 4, Height: 9, Width: 10})
	w, bias := m.weights(5, 2, 6, 2, 3, 3), m.bias(6)
	x := m.image(in)
	model, _ := m.output(m.flatten(m.quantize(m.conv("conv", x, w, bias, geometry), out)))
	trace, err := model.Program.Trace(m.randomImages(1))
	require.NoError(t, err)

	a := integer.Affine{Bias: make([]float64, 6)}
	for o := range a.Bias {
		a.Bias[o] = float64(bias[o])
	}
	for _, plane := range w.Planes {
		scale := make([]float64, 6)
		for o := range scale {
			scale[o] = float64(in.Scale) * plane.Scale[o]
		}
		a.Scale = append(a.Scale, scale)
	}
	r, err := integer.NewRequantizer(a, w.Bound(in.Magnitude()), out)
	require.NoError(t, err)

	real := make([]float64, len(trace[0].Values))
	for i, q := range trace[0].Values {
		real[i] = float64(q - in.Zero)
	}
	acc := make([][]float64, len(w.Planes)) // sums of integers, exact in float64
	for p, plane := range w.Planes {
		single := *w
		single.Planes = []integer.Plane{{Table: plane.Table, Scale: []float64{1, 1, 1, 1, 1, 1}}}
		acc[p] = convReal(real, trace[0].Shape, trace[1].Shape, &single, nil, geometry)
	}
	size := trace[1].Shape.Height * trace[1].Shape.Width
	for i, q := range trace[1].Values {
		require.Equal(t, r.Apply(i/size, []int32{int32(acc[0][i]), int32(acc[1][i])}), q)
	}
}

// A sum that ends the network is its logits as it stands.
func TestOutputOfAWideValue(t *testing.T) {
	m := newMirror(t, 15, integer.Shape{Channels: 3, Height: 1, Width: 1})
	x := m.image(signed(8, 0.02))
	model, check := m.output(m.add(x, x))
	require.Len(t, model.Program.Nodes, 1)
	check([]uint8{0, 100, 255})
}

// A quantizer may use the memory of its grid again.
func TestBuilderKeepsItsGrids(t *testing.T) {
	m := newMirror(t, 17, integer.Shape{Channels: 1, Height: 1, Width: 1})
	g := logarithmic(1./32768, 1, 7)
	x, err := m.builder.Quantize(m.builder.Input(), g)
	require.NoError(t, err)
	clear(g.Table.Levels)
	clear(g.Table.Bounds)
	kept, ok := x.Grid()
	require.True(t, ok)
	require.True(t, kept.Equal(logarithmic(1./32768, 1, 7)))
	_, err = m.builder.Quantize(m.builder.Input(), logarithmic(1./32768, 1, 7))
	require.NoError(t, err)
}

func TestBuilderValueAccessors(t *testing.T) {
	m := newMirror(t, 13, integer.Shape{Channels: 2, Height: 4, Width: 4})
	x := m.image(unsigned(8, 0.02))
	g, ok := x.value.Grid()
	require.True(t, ok)
	require.Equal(t, unsigned(8, 0.02), g)
	sum := m.add(x, x)
	_, ok = sum.value.Grid()
	require.False(t, ok)
	scale, bound, ok := sum.value.Wide()
	require.True(t, ok)
	require.Less(t, bound, int64(1)<<integer.WideBits)
	require.InDelta(t, 2*255*0.02, scale*float64(bound), 1e-3)
}

// refusals are user mistakes: each must be an error that names the layer or value and never a panic.
func TestBuilderRefuses(t *testing.T) {
	type (
		builder = *integer.Builder
		value   = integer.Value
	)
	grid := unsigned(8, 0.02)
	conv := func(b builder, x value, w *integer.Weights, g integer.ConvGeometry) error {
		_, err := b.Conv("conv1", x, w, nil, g)
		return err
	}
	pool := func(f func(value, integer.Window) (value, error), x value, w integer.Window) error {
		_, err := f(x, w)
		return err
	}
	for name, c := range map[string]struct {
		try  func(m *mirror, b builder, x, pending value) error
		want string
	}{
		"conv of the image": {func(m *mirror, b builder, x, _ value) error {
			return conv(b, b.Input(), m.weights(4, 1, 1, 2, 3, 3), integer.ConvGeometry{})
		}, `layer "conv1": input "input" is the unquantized image: want codes`},
		"conv of pending": {func(m *mirror, b builder, _, p value) error {
			return conv(b, p, m.weights(4, 1, 1, 3, 1, 1), integer.ConvGeometry{})
		}, `layer "conv1": input "stem" is a pending value`},
		"no weights": {func(m *mirror, b builder, x, _ value) error { return conv(b, x, nil, integer.ConvGeometry{}) }, `layer "conv1" has no weights`},
		"linear weights": {func(m *mirror, b builder, x, _ value) error {
			return conv(b, x, m.weights(4, 1, 1, 2), integer.ConvGeometry{})
		}, "want [O][I][KH][KW]"},
		"channels": {func(m *mirror, b builder, x, _ value) error {
			return conv(b, x, m.weights(4, 1, 1, 3, 3, 3), integer.ConvGeometry{})
		}, `layer "conv1": weights of shape [1 3 3 3] in 1 groups for an input of 2x6x6`},
		"groups": {func(m *mirror, b builder, x, _ value) error {
			return conv(b, x, m.weights(4, 1, 3, 1, 3, 3), integer.ConvGeometry{Groups: 2})
		}, "groups that divide both channels"},
		"negative groups": {func(m *mirror, b builder, x, _ value) error {
			return conv(b, x, m.weights(4, 1, 3, 1, 3, 3), integer.ConvGeometry{Groups: -2})
		}, "groups that divide"},
		"negative stride": {func(m *mirror, b builder, x, _ value) error {
			return conv(b, x, m.weights(4, 1, 1, 2, 3, 3), integer.ConvGeometry{StrideWidth: -1})
		}, "want positive sizes"},
		"kernel": {func(m *mirror, b builder, x, _ value) error {
			return conv(b, x, m.weights(4, 1, 1, 2, 7, 3), integer.ConvGeometry{})
		}, "window 7x3 is larger than the padded input 6x6"},
		"padding": {func(m *mirror, b builder, x, _ value) error {
			return conv(b, x, m.weights(4, 1, 1, 2, 3, 3), integer.ConvGeometry{PadLeft: 3})
		}, "less than the window 3x3"},
		"huge padding": {func(m *mirror, b builder, x, _ value) error {
			return pool(b.MaxPool, x, integer.Window{Height: math.MaxInt, Width: 1, PadTop: math.MaxInt - 1, PadBottom: math.MaxInt - 1})
		}, `maxpool of "input"`},
		"bias count": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Conv("conv1", x, m.weights(4, 1, 1, 2, 3, 3), []float32{1, 2}, integer.ConvGeometry{})
			return err
		}, `layer "conv1": 2 biases: want 1`},
		"bias not finite": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Conv("conv1", x, m.weights(4, 1, 1, 2, 3, 3), []float32{float32(math.NaN())}, integer.ConvGeometry{})
			return err
		}, "bias NaN of channel 0"},
		"accumulator": {func(m *mirror, _ builder, _, _ value) error {
			big := integer.NewBuilder(integer.Input{Channels: 70000, Height: 1, Width: 1, Pixel: make([][256]float32, 70000)})
			x, err := big.Quantize(big.Input(), grid)
			require.NoError(t, err)
			w := m.weights(8, 1, 2, 70000)
			for i := 70000; i < 140000; i++ {
				w.Codes[i] = 0x80
			}
			_, err = big.Linear("fc", x, w, nil)
			return err
		}, `layer "fc": channel 1: accumulators reach 2284800000`},
		"two names": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Conv("stem", x, m.weights(4, 1, 1, 2, 3, 3), nil, integer.ConvGeometry{})
			return err
		}, `two layers are named "stem"`},
		"no name": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Conv("", x, m.weights(4, 1, 1, 2, 3, 3), nil, integer.ConvGeometry{})
			return err
		}, "a layer has no name"},
		"linear of planes": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Linear("fc", x, m.weights(4, 1, 1, 2), nil)
			return err
		}, "flatten it first"},
		"conv weights": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Linear("fc", x, m.weights(4, 1, 1, 2, 3, 3), nil)
			return err
		}, `layer "fc": weight shape [1 2 3 3]: want [O][I]`},
		"grid": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Quantize(p, integer.Grid{Bits: 12})
			return err
		}, `output of "stem": grid of 12 bits`},
		"grid too fine": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Quantize(p, unsigned(8, 1e-30))
			return err
		}, `output of "stem": channel 0: scale and bias`},
		"two image grids": {func(m *mirror, b builder, _, _ value) error {
			_, err := b.Quantize(b.Input(), unsigned(4, 1))
			return err
		}, "input is quantized on two grids"},
		"pixel tables": {func(m *mirror, _ builder, _, _ value) error {
			b := integer.NewBuilder(integer.Input{Channels: 2, Height: 1, Width: 1})
			_, err := b.Quantize(b.Input(), grid)
			return err
		}, "with 0 pixel tables"},
		"two image tables": {func(_ *mirror, _ builder, _, _ value) error {
			b := integer.NewBuilder(integer.Input{Channels: 1, Height: 1, Width: 1, Pixel: make([][256]float32, 1)})
			_, err := b.Quantize(b.Input(), apot(1))
			require.NoError(t, err)
			_, err = b.Quantize(b.Input(), apot(1))
			require.NoError(t, err)
			_, err = b.Quantize(b.Input(), moved(apot(1)))
			return err
		}, "input is quantized on two grids, one of 4 bits, codes 0 to 15 around 0, scale 1, levels [0 1 2"},
		"table": {func(m *mirror, b builder, _, p value) error {
			g := apot(0.1)
			g.Table.Levels[1] = 7
			_, err := b.Quantize(p, g)
			return err
		}, `output of "stem": grid level 2 at 2: want ascending levels`},
		"table of a value not finite": {func(m *mirror, b builder, _, p value) error {
			p, err := b.Scale(p, []float64{1, math.Inf(1), 1}, []float64{0, 0, 0})
			require.NoError(t, err)
			_, err = b.Quantize(p, apot(0.1))
			return err
		}, `output of "stem": `},
		"accumulator of two planes": {func(m *mirror, _ builder, _, _ value) error {
			big := integer.NewBuilder(integer.Input{Channels: 140000, Height: 1, Width: 1, Pixel: make([][256]float32, 140000)})
			x, err := big.Quantize(big.Input(), table(1, 0, integer.MaxLevel))
			require.NoError(t, err)
			w := m.weights(8, 1, 1, 140000)
			for i := range w.Codes {
				w.Codes[i] = 0x80
			}
			_, err = big.Linear("fc", x, w, nil)
			return err
		}, `layer "fc": channel 0: accumulators reach 2275840000`},
		"scale of two planes": {func(m *mirror, b builder, _, p value) error {
			p, err := b.Quantize(p, logarithmic(1, 1, 12))
			require.NoError(t, err)
			_, err = b.Scale(p, []float64{1, 1, 1}, []float64{0, 0, 0})
			return err
		}, `scale of "stem", which is codes: want a pending or wide value`},
		"max pooling of two planes": {func(m *mirror, b builder, _, p value) error {
			p, err := b.Quantize(p, logarithmic(1, 1, 12))
			require.NoError(t, err)
			p, err = b.MaxPool(p, integer.Window{Height: 2, Width: 2})
			require.NoError(t, err)
			_, err = b.Conv("conv1", p, m.weights(4, 1, 1, 3, 3, 3), nil, integer.ConvGeometry{})
			return err
		}, `layer "conv1": window 3x3 is larger than the padded input 2x2`},
		"scale after ReLU": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Scale(b.ReLU(p), []float64{1, 1, 1}, []float64{0, 0, 0})
			return err
		}, `scale of "stem": it follows a ReLU`},
		"negative scale after pooling": {func(m *mirror, b builder, _, p value) error {
			p, err := b.MaxPool(p, integer.Window{Height: 2, Width: 2})
			require.NoError(t, err)
			_, err = b.Scale(p, []float64{1, -1, 1}, []float64{0, 0, 0})
			return err
		}, "a negative factor that follows max pooling"},
		"scale after flattening": {func(m *mirror, b builder, _, p value) error {
			p, err := b.Flatten(p)
			require.NoError(t, err)
			_, err = b.Scale(p, make([]float64, 48), make([]float64, 48))
			return err
		}, "it follows a flattening"},
		"scale of codes": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Scale(x, []float64{1, 1}, []float64{0, 0})
			return err
		}, "which is codes: want a pending or wide value"},
		"scale count": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Scale(p, []float64{1}, []float64{0})
			return err
		}, "1 factors and 1 offsets for 3 channels"},
		"scale not finite": {func(m *mirror, b builder, _, p value) error {
			p, err := b.Scale(p, []float64{1, math.Inf(1), 1}, []float64{0, 0, 0})
			require.NoError(t, err)
			_, err = b.Quantize(p, grid)
			return err
		}, `output of "stem": channel 1`},
		"ReLU of the image": {func(m *mirror, b builder, _, _ value) error {
			_, err := b.Quantize(b.ReLU(b.Input()), grid)
			return err
		}, `ReLU of "input", which is the unquantized image`},
		"ReLU of nothing": {func(m *mirror, b builder, _, _ value) error {
			_, err := b.Quantize(b.ReLU(value{}), grid)
			return err
		}, "value of another builder or of none"},
		"another builder": {func(m *mirror, b builder, x, _ value) error {
			_, err := integer.NewBuilder(integer.Input{}).Add(x, x)
			return err
		}, "value of another builder"},
		"pool of the image": {func(m *mirror, b builder, _, _ value) error {
			return pool(b.MaxPool, b.Input(), integer.Window{Height: 2, Width: 2})
		}, "maxpool of the unquantized image"},
		"average of the image": {func(m *mirror, b builder, _, _ value) error {
			return pool(b.AvgPool, b.Input(), integer.Window{Height: 2, Width: 2})
		}, "before it is quantized"},
		"empty window": {func(m *mirror, b builder, x, _ value) error { return pool(b.AvgPool, x, integer.Window{}) }, `average of "input": window 0x0`},
		"large window": {func(m *mirror, _ builder, _, _ value) error {
			b := integer.NewBuilder(integer.Input{Channels: 1, Height: 3000, Width: 3000, Pixel: make([][256]float32, 1)})
			x, err := b.Quantize(b.Input(), grid)
			require.NoError(t, err)
			return pool(b.AvgPool, x, integer.Window{Height: 3000, Width: 3000})
		}, "leaves no bits"},
		"sample of the image": {func(m *mirror, b builder, _, _ value) error {
			_, err := b.Sample(b.Input(), 2, 0, 0)
			return err
		}, "sample of the unquantized image"},
		"sample without stride": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Sample(x, 0, 0, 0)
			return err
		}, `sample of "input": sampling with stride 0 and 0 and 0 channels added: want a stride of at least 1`},
		"sample of fewer channels": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Sample(p, 1, 2, -1)
			return err
		}, `sample of "stem": sampling with stride 1 and 2 and -1 channels`},
		"sample of huge channels": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Sample(p, 1, math.MaxInt, math.MaxInt)
			return err
		}, "less than 2^31"},
		"scale after sampling": {func(m *mirror, b builder, _, p value) error {
			p, err := b.Sample(p, 2, 0, 1)
			require.NoError(t, err)
			_, err = b.Scale(p, make([]float64, 4), make([]float64, 4))
			return err
		}, `scale of "stem": it follows a sampling that added channels`},
		"scale after PReLU": {func(m *mirror, b builder, _, p value) error {
			p, err := b.PReLU(p, []float64{1, 1, 1})
			require.NoError(t, err)
			_, err = b.Scale(p, []float64{1, 1, 1}, []float64{0, 0, 0})
			return err
		}, `scale of "stem": it follows a ReLU`},
		"PReLU of the image": {func(m *mirror, b builder, _, _ value) error {
			_, err := b.PReLU(b.Input(), []float64{1, 1})
			return err
		}, `PReLU of "input", which is the unquantized image`},
		"slopes": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.PReLU(x, []float64{1})
			return err
		}, `PReLU of "input": 1 slopes for 2 channels`},
		"slope not finite": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.PReLU(x, []float64{1, math.Inf(-1)})
			return err
		}, `PReLU of "input": slope -Inf of channel 1`},
		"negative slope after pooling": {func(m *mirror, b builder, _, p value) error {
			p, err := b.MaxPool(p, integer.Window{Height: 2, Width: 2})
			require.NoError(t, err)
			_, err = b.PReLU(p, []float64{1, -1, 1})
			return err
		}, `PReLU of "stem": a negative factor that follows max pooling`},
		"PReLU after flattening": {func(m *mirror, b builder, _, p value) error {
			p, err := b.Flatten(p)
			require.NoError(t, err)
			_, err = b.PReLU(p, make([]float64, 48))
			return err
		}, "it follows a flattening"},
		"slope too large": {func(m *mirror, b builder, _, p value) error {
			p, err := b.PReLU(p, []float64{1e300, 1, 1})
			require.NoError(t, err)
			_, err = b.Quantize(p, grid)
			return err
		}, `output of "stem": channel 0: scale and bias`},
		"widen the image": {func(m *mirror, b builder, _, _ value) error {
			v, err := b.Widen(b.Input())
			require.NoError(t, err)
			_, err = b.Add(v, v)
			return err
		}, "before it is quantized"},
		"widen of another builder": {func(m *mirror, b builder, _, p value) error {
			_, err := integer.NewBuilder(integer.Input{}).Widen(p)
			return err
		}, "value of another builder"},
		"sum of shapes": {func(m *mirror, b builder, x, p value) error {
			_, err := b.Add(x, p)
			return err
		}, `sum of "input" and "stem": shapes 2x6x6 and 3x4x4 differ`},
		"classes": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Output(p, []string{"a", "b"})
			return err
		}, `output of "stem": shape 3x4x4 for 2 classes`},
		"no classes": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Output(p, nil)
			return err
		}, "for 0 classes"},
		"after the output": {func(m *mirror, b builder, _, p value) error {
			_, err := b.Output(p, make([]string, 48))
			require.NoError(t, err)
			_, err = b.Quantize(p, grid)
			return err
		}, "already has its output"},
		"unused layer": {func(m *mirror, b builder, x, _ value) error {
			_, err := b.Output(x, make([]string, 72))
			return err
		}, `layer "stem" is not used by the output`},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t, 14, integer.Shape{Channels: 2, Height: 6, Width: 6})
			x := m.image(grid)
			p := m.conv("stem", x, m.weights(4, 1, 3, 2, 3, 3), m.bias(3), integer.ConvGeometry{})
			require.ErrorContains(t, c.try(m, m.builder, x.value, p.value), c.want)
		})
	}
}
