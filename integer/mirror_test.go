package integer_test

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// mirror builds a network twice: with a Builder, and as straightforward real arithmetic in float64
// that is told nothing of zero points, folding or requantizers. At every quantization the two are compared.
type mirror struct {
	t       testing.TB
	random  *rand.Rand
	builder *integer.Builder
	pixels  [][256]float32
	input   integer.Shape
	checked *int // codes compared
}

// twin is a value of both networks.
type twin struct {
	value integer.Value
	real  func(trace []integer.Tensor) []float64
}

func newMirror(t testing.TB, seed uint64, input integer.Shape) *mirror {
	m := &mirror{t: t, random: rand.New(rand.NewPCG(seed, 0)), input: input, checked: new(int)}
	m.pixels = make([][256]float32, input.Channels)
	for c := range m.pixels {
		for p := range m.pixels[c] {
			m.pixels[c][p] = 5 * (float32(p)/255 - 0.4) / float32(c+4)
		}
	}
	m.builder = integer.NewBuilder(integer.Input{Channels: input.Channels, Height: input.Height, Width: input.Width, Pixel: m.pixels})
	return m
}

// image quantizes the input; an image's codes stand for its pixels' reals by definition of Grid.
func (m *mirror) image(g integer.Grid) twin {
	v, err := m.builder.Quantize(m.builder.Input(), g)
	require.NoError(m.t, err)
	return twin{v, func(trace []integer.Tensor) []float64 {
		if g.Table != nil && len(v.Planes()) == 1 {
			require.Zero(m.t, trace[0].Zero)
		} else {
			require.Equal(m.t, g.Zero, trace[0].Zero)
		}
		real := make([]float64, m.input.Len())
		for i, level := range levels(trace, v) {
			real[i] = float64(float32(level) * g.Scale)
		}
		return real
	}}
}

// levels returns the integers that the planes of a value stand for.
func levels(trace []integer.Tensor, v integer.Value) []int32 {
	g, _ := v.Grid()
	values := make([]int32, v.Shape().Len())
	for p, factor := range g.Factors() {
		plane := trace[v.Planes()[p]]
		for i, x := range plane.Values {
			values[i] += factor * (x - plane.Zero)
		}
	}
	return values
}

// weights draws a random tensor, of two's complement codes where one plane of up to 8 bits allows it.
func (m *mirror) weights(bits uint8, planes int, shape ...int) *integer.Weights {
	count := 1
	for _, d := range shape {
		count *= d
	}
	w := &integer.Weights{Shape: shape, Bits: bits, Codes: make([]uint16, count)}
	for i := range w.Codes {
		w.Codes[i] = uint16(m.random.IntN(1 << bits))
	}
	for p := range planes {
		plane := integer.Plane{Table: make([]int8, 1<<bits), Scale: make([]float64, shape[0])}
		for code := range plane.Table {
			plane.Table[code] = int8(m.random.IntN(256) - 128)
		}
		if p == 0 && bits <= 8 {
			plane.Table = integer.SignedTable(bits)
		}
		for o := range plane.Scale {
			plane.Scale[o] = float64(float32((0.5 + m.random.Float64()) / float64(count/shape[0]) / float64(int(1)<<(4*p))))
		}
		w.Planes = append(w.Planes, plane)
	}
	return w
}

// vectors draws a random tensor whose codes stand for d weights each.
func (m *mirror) vectors(d int, bits uint8, planes int, shape ...int) *integer.Weights {
	w := m.weights(bits, planes, shape...)
	w.Vector, w.Codes = d, w.Codes[:len(w.Codes)/d]
	for p := range w.Planes {
		w.Planes[p].Table = make([]int8, d<<bits)
		for i := range w.Planes[p].Table {
			w.Planes[p].Table[i] = int8(m.random.IntN(256) - 128)
		}
	}
	return w
}

func (m *mirror) bias(channels int) []float32 {
	bias := make([]float32, channels)
	for o := range bias {
		bias[o] = float32(m.random.Float64() - 0.5)
	}
	return bias
}

// real returns what a weight is worth, in float64 throughout.
func real(w *integer.Weights, i int) float64 {
	d := max(1, w.Vector)
	sum, each := 0.0, len(w.Codes)*d/w.Shape[0]
	for _, plane := range w.Planes {
		sum += plane.Scale[i/each] * float64(plane.Table[int(w.Codes[i/d])*d+i%d])
	}
	return sum
}

func (m *mirror) conv(name string, x twin, w *integer.Weights, bias []float32, g integer.ConvGeometry) twin {
	v, err := m.builder.Conv(name, x.value, w, bias, g)
	require.NoError(m.t, err)
	in, out := x.value.Shape(), v.Shape()
	return twin{v, func(trace []integer.Tensor) []float64 {
		return convReal(x.real(trace), in, out, w, bias, g)
	}}
}

// convReal is the definition of convolution, one output after the other.
func convReal(x []float64, in, out integer.Shape, w *integer.Weights, bias []float32, g integer.ConvGeometry) []float64 {
	strideHeight, strideWidth, groups := max(g.StrideHeight, 1), max(g.StrideWidth, 1), max(g.Groups, 1)
	var result []float64
	for o := range out.Channels {
		for y := range out.Height {
			for c := range out.Width {
				sum := 0.0
				if bias != nil {
					sum = float64(bias[o])
				}
				for tap := range w.Shape[1] * w.Shape[2] * w.Shape[3] {
					i, ky, kx := tap/(w.Shape[2]*w.Shape[3]), tap/w.Shape[3]%w.Shape[2], tap%w.Shape[3]
					row, column := y*strideHeight+ky-g.PadTop, c*strideWidth+kx-g.PadLeft
					if row < 0 || row >= in.Height || column < 0 || column >= in.Width {
						continue
					}
					i += o / (out.Channels / groups) * w.Shape[1]
					sum += x[(i*in.Height+row)*in.Width+column] * real(w, o*w.Shape[1]*w.Shape[2]*w.Shape[3]+tap)
				}
				result = append(result, sum)
			}
		}
	}
	return result
}

func (m *mirror) linear(name string, x twin, w *integer.Weights, bias []float32) twin {
	v, err := m.builder.Linear(name, x.value, w, bias)
	require.NoError(m.t, err)
	as4 := *w
	as4.Shape = []int{w.Shape[0], w.Shape[1], 1, 1}
	return twin{v, func(trace []integer.Tensor) []float64 {
		return convReal(x.real(trace), x.value.Shape(), v.Shape(), &as4, bias, integer.ConvGeometry{})
	}}
}

// each maps every element by its channel.
func each(x twin, v integer.Value, f func(channel int, x float64) float64) twin {
	size := x.value.Shape().Height * x.value.Shape().Width
	return twin{v, func(trace []integer.Tensor) []float64 {
		values := x.real(trace)
		mapped := make([]float64, len(values))
		for i := range values {
			mapped[i] = f(i/size, values[i])
		}
		return mapped
	}}
}

func (m *mirror) relu(x twin) twin {
	return each(x, m.builder.ReLU(x.value), func(_ int, x float64) float64 { return max(x, 0) })
}

// scale draws a normalization, with factors of both signs unless positive.
func (m *mirror) scale(x twin, positive bool) twin {
	channels := x.value.Shape().Channels
	gamma, beta := make([]float64, channels), make([]float64, channels)
	for c := range gamma {
		gamma[c], beta[c] = 0.5+m.random.Float64(), m.random.Float64()/2-0.25
		if !positive && c%3 == 1 {
			gamma[c] = -gamma[c]
		}
	}
	v, err := m.builder.Scale(x.value, gamma, beta)
	require.NoError(m.t, err)
	return each(x, v, func(c int, x float64) float64 { return x*gamma[c] + beta[c] })
}

func (m *mirror) flatten(x twin) twin {
	v, err := m.builder.Flatten(x.value)
	require.NoError(m.t, err)
	return twin{v, x.real}
}

func (m *mirror) pool(x twin, w integer.Window, average bool) twin {
	pool := m.builder.MaxPool
	if average {
		pool = m.builder.AvgPool
	}
	v, err := pool(x.value, w)
	require.NoError(m.t, err)
	in, out := x.value.Shape(), v.Shape()
	return twin{v, func(trace []integer.Tensor) []float64 { return poolReal(x.real(trace), in, out, w, average) }}
}

func poolReal(x []float64, in, out integer.Shape, w integer.Window, average bool) []float64 {
	if w.StrideHeight == 0 {
		w.StrideHeight = w.Height
	}
	if w.StrideWidth == 0 {
		w.StrideWidth = w.Width
	}
	result := make([]float64, out.Len())
	for i := range result {
		c, y, column := i/(out.Height*out.Width), i/out.Width%out.Height, i%out.Width
		sum, largest := 0.0, math.Inf(-1)
		for k := range w.Height * w.Width {
			r, s := y*w.StrideHeight+k/w.Width-w.PadTop, column*w.StrideWidth+k%w.Width-w.PadLeft
			if r < 0 || r >= in.Height || s < 0 || s >= in.Width {
				continue
			}
			v := x[(c*in.Height+r)*in.Width+s]
			sum, largest = sum+v, max(largest, v)
		}
		result[i] = largest
		if average {
			result[i] = sum / float64(w.Height*w.Width)
		}
	}
	return result
}

func (m *mirror) add(x, y twin) twin {
	v, err := m.builder.Add(x.value, y.value)
	require.NoError(m.t, err)
	return twin{v, func(trace []integer.Tensor) []float64 {
		a, b := x.real(trace), y.real(trace)
		sum := make([]float64, len(a))
		for i := range a {
			sum[i] = a[i] + b[i]
		}
		return sum
	}}
}

// widen changes nothing but where the numbers live.
func (m *mirror) widen(x twin) twin {
	v, err := m.builder.Widen(x.value)
	require.NoError(m.t, err)
	_, _, wide := v.Wide()
	_, codes := v.Grid()
	require.True(m.t, wide || codes)
	return twin{v, x.real}
}

func (m *mirror) sample(x twin, stride, before, after int) twin {
	v, err := m.builder.Sample(x.value, stride, before, after)
	require.NoError(m.t, err)
	in, out := x.value.Shape(), v.Shape()
	require.Equal(m.t, integer.Shape{Channels: before + in.Channels + after, Height: (in.Height + stride - 1) / stride, Width: (in.Width + stride - 1) / stride}, out)
	return twin{v, func(trace []integer.Tensor) []float64 {
		values, sampled := x.real(trace), make([]float64, out.Len())
		for i := range in.Len() {
			c, y, x := i/(in.Height*in.Width)+before, i/in.Width%in.Height, i%in.Width
			if y%stride == 0 && x%stride == 0 {
				sampled[(c*out.Height+y/stride)*out.Width+x/stride] = values[i]
			}
		}
		return sampled
	}}
}

// prelu draws slopes, also above 1 and, unless positive, below 0.
func (m *mirror) prelu(x twin, positive bool) twin {
	slopes := make([]float64, x.value.Shape().Channels)
	for c := range slopes {
		slopes[c] = 1.5 * m.random.Float64()
		if !positive && c%3 == 1 {
			slopes[c] = -slopes[c]
		}
	}
	v, err := m.builder.PReLU(x.value, slopes)
	require.NoError(m.t, err)
	return each(x, v, func(c int, x float64) float64 { return max(x, 0) + min(x, 0)*slopes[c] })
}

// slack is how far, in codes, a real may lie beyond a rounding boundary: multipliers have 31 bits and
// wide values 24, of a range that the weights' worst case sets.
const slack = 2e-3

// boundSlack is how far a real may lie beyond a boundary between levels.
const boundSlack = 2e-5

// quantize compares the codes with the reals and goes on from the codes.
func (m *mirror) quantize(x twin, g integer.Grid) twin {
	v, err := m.builder.Quantize(x.value, g)
	require.NoError(m.t, err)
	return twin{v, func(trace []integer.Tensor) []float64 {
		want, zero := x.real(trace), g.Zero
		if g.Table != nil {
			zero = 0
		}
		for _, plane := range v.Planes() {
			require.Equal(m.t, v.Shape(), trace[plane].Shape)
			require.Equal(m.t, zero, trace[plane].Zero)
		}
		require.Len(m.t, want, v.Shape().Len())
		real := make([]float64, len(want))
		for i, level := range levels(trace, v) {
			m.compare(g, want[i], level)
			real[i] = float64(float32(level) * g.Scale)
		}
		return real
	}}
}

// compare checks that a level is that of a real number or, next to a boundary, a neighbour.
func (m *mirror) compare(g integer.Grid, want float64, level int32) {
	*m.checked++
	if g.Table == nil {
		exact := math.Max(float64(g.Min), math.Min(want/float64(g.Scale)+float64(g.Zero), float64(g.Max)))
		require.InDelta(m.t, exact, float64(level+g.Zero), 0.5+slack)
		return
	}
	q, known := slices.BinarySearch(g.Table.Levels, level)
	require.True(m.t, known, "level %d", level)
	if q > 0 {
		require.Greater(m.t, want, float64(g.Table.Bounds[q-1])-boundSlack)
	}
	if q < len(g.Table.Bounds) {
		require.LessOrEqual(m.t, want, float64(g.Table.Bounds[q])+boundSlack)
	}
}

// output ends the network; the returned check runs an image through both and compares the logits too.
func (m *mirror) output(x twin) (*integer.Model, func(image []uint8)) {
	classes := make([]string, x.value.Shape().Len())
	for i := range classes {
		classes[i] = string(rune('a' + i))
	}
	model, err := m.builder.Output(x.value, classes)
	require.NoError(m.t, err)
	return model, func(image []uint8) {
		trace, err := model.Program.Trace(image)
		require.NoError(m.t, err)
		for i, want := range x.real(trace) {
			got := float64(trace[len(trace)-1].Values[i]) * model.LogitScale
			require.InDelta(m.t, want, got, 1e-4*(1+math.Abs(want)))
		}
	}
}

func (m *mirror) randomImages(n int) []uint8 {
	images := make([]uint8, n*m.input.Len())
	for i := range images {
		images[i] = uint8(m.random.UintN(256))
	}
	return images
}

// unsigned and signed are grids as training gives them; asymmetric has real 0 in its midst.
func unsigned(bits uint8, scale float32) integer.Grid {
	return integer.Grid{Bits: bits, Scale: scale, Max: 1<<bits - 1}
}

func signed(bits uint8, scale float32) integer.Grid {
	return integer.Grid{Bits: bits, Scale: scale, Min: -(1 << (bits - 1)), Max: 1<<(bits-1) - 1}
}

func asymmetric(scale float32) integer.Grid {
	return integer.Grid{Bits: 8, Scale: scale, Zero: 93, Max: 255}
}

// table is a grid of the given levels with boundaries halfway between them.
func table(scale float32, levels ...int32) integer.Grid {
	g := integer.Grid{Bits: uint8(bits.Len(uint(len(levels) - 1))), Scale: scale, Max: int32(len(levels) - 1), Table: &integer.Table{Levels: levels}}
	g.Zero = int32(slices.Index(levels, 0))
	for i, level := range levels[1:] {
		g.Table.Bounds = append(g.Table.Bounds, float32(level+levels[i])/2*scale)
	}
	return g
}

// apot are the levels of four bits of additive powers of two.
func apot(scale float32) integer.Grid {
	return table(scale, 0, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 48)
}

// pot are powers of two of both signs.
func pot(scale float32) integer.Grid {
	return table(scale, -128, -64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64)
}

// logarithmic are levels of both signs in two planes, so many steps to an octave.
func logarithmic(scale float32, steps, count int) integer.Grid {
	levels := []int32{0}
	for i := range count {
		if v := int32(math.Round(integer.MaxLevel * math.Exp2(float64(i-count+1)/float64(steps)))); v > levels[len(levels)-1] {
			levels = append(levels, v)
		}
	}
	for _, v := range levels[1:] {
		levels = append(levels, -v)
	}
	slices.Sort(levels)
	return table(scale, levels...)
}

// networks are the nets that the tests of builder, engine, file and second reader share.
var networks = map[string]func(m *mirror) twin{
	"lenet":      lenet,
	"asymmetric": asymmetricNet,
	"residual":   residual,
	"averaging":  averaging,
	"resnet":     resnet,
	"prelu":      preluNet,
	"table":      tableNet,
	"planes":     planesNet,
	"vectors":    vectorsNet,
}

var networkInputs = map[string]integer.Shape{
	"lenet":      {Channels: 1, Height: 28, Width: 28},
	"asymmetric": {Channels: 3, Height: 11, Width: 9},
	"residual":   {Channels: 2, Height: 8, Width: 8},
	"averaging":  {Channels: 4, Height: 6, Width: 7},
	"resnet":     {Channels: 3, Height: 9, Width: 10},
	"prelu":      {Channels: 3, Height: 7, Width: 6},
	"table":      {Channels: 2, Height: 9, Width: 8},
	"planes":     {Channels: 3, Height: 9, Width: 8},
	"vectors":    {Channels: 4, Height: 7, Width: 8},
}

// vectorsNet has codes that stand for kernels, for those of two channels, for channels of groups, for outputs as a whole and
// for parts of a row of a matrix, in one plane and in two.
func vectorsNet(m *mirror) twin {
	same := integer.ConvGeometry{PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	x := m.image(asymmetric(0.02))
	x = m.quantize(m.relu(m.conv("first", x, m.vectors(9, 3, 1, 6, 4, 3, 3), m.bias(6), same)), unsigned(8, 0.02))
	grouped := same
	grouped.Groups = 2
	x = m.quantize(m.relu(m.conv("grouped", x, m.vectors(27, 2, 2, 8, 3, 3, 3), nil, grouped)), unsigned(8, 0.02))
	depthwise := same
	depthwise.Groups = 8
	x = m.quantize(m.conv("depthwise", x, m.vectors(3, 4, 1, 8, 1, 3, 3), nil, depthwise), asymmetric(0.02))
	x = m.quantize(m.conv("pairs", x, m.vectors(18, 4, 1, 5, 8, 3, 3), m.bias(5), integer.ConvGeometry{}), signed(8, 0.02))
	x = m.quantize(m.linear("plain", m.flatten(x), m.weights(4, 1, 12, x.value.Shape().Len()), m.bias(12)), signed(8, 0.02))
	return m.linear("last", x, m.vectors(4, 2, 1, 3, 12), m.bias(3))
}

// lenet is LeNet-5 with weights of 4 bits, of 8 in the first and last layer.
func lenet(m *mirror) twin {
	two := integer.Window{Height: 2, Width: 2}
	same := integer.ConvGeometry{PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 2}
	x := m.image(asymmetric(0.02))
	x = m.pool(m.relu(m.conv("conv1", x, m.weights(8, 1, 6, 1, 5, 5), m.bias(6), same)), two, false)
	x = m.quantize(x, unsigned(4, 1.5))
	x = m.pool(m.relu(m.conv("conv2", x, m.weights(4, 1, 16, 6, 5, 5), m.bias(16), integer.ConvGeometry{})), two, false)
	x = m.quantize(m.flatten(x), unsigned(4, 0.5))
	x = m.quantize(m.relu(m.linear("fc1", x, m.weights(4, 1, 120, 400), m.bias(120))), unsigned(4, 0.1))
	x = m.quantize(m.relu(m.linear("fc2", x, m.weights(4, 1, 84, 120), m.bias(84))), unsigned(4, 0.1))
	return m.linear("fc3", x, m.weights(8, 1, 10, 84), m.bias(10))
}

// asymmetricNet has zero points, unequal padding and strides, groups, two and three planes, negative factors.
func asymmetricNet(m *mirror) twin {
	x := m.image(asymmetric(0.02))
	g := integer.ConvGeometry{StrideHeight: 2, StrideWidth: 1, PadTop: 1, PadLeft: 2, PadBottom: 0, PadRight: 1}
	x = m.scale(m.conv("first", x, m.weights(5, 2, 6, 3, 3, 4), m.bias(6), g), false)
	x = m.quantize(x, integer.Grid{Bits: 8, Scale: 0.03, Zero: -40, Min: -128, Max: 127})
	depthwise := integer.ConvGeometry{PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 6}
	x = m.conv("depthwise", x, m.weights(3, 3, 6, 1, 3, 3), nil, depthwise)
	x = m.pool(x, integer.Window{Height: 3, Width: 2, StrideHeight: 1, StrideWidth: 2, PadTop: 1, PadRight: 1}, false)
	x = m.quantize(m.scale(x, true), asymmetric(0.02))
	x = m.conv("grouped", x, m.weights(9, 1, 4, 3, 2, 2), m.bias(4), integer.ConvGeometry{Groups: 2, StrideWidth: 2})
	x = m.flatten(m.quantize(x, signed(6, 0.1)))
	x = m.quantize(m.linear("binary", x, m.weights(1, 1, 5, x.value.Shape().Len()), m.bias(5)), unsigned(3, 0.1))
	return m.linear("last", x, m.weights(6, 2, 4, 5), m.bias(4))
}

// residual has wide sums of every kind of operand, a normalization of a wide value, and an average before the end.
func residual(m *mirror) twin {
	same := integer.ConvGeometry{PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	image := m.image(asymmetric(0.02))
	x := m.conv("stem", image, m.weights(8, 1, 4, 2, 3, 3), m.bias(4), same)
	inner := m.quantize(m.relu(x), unsigned(4, 0.05))
	branch := m.scale(m.conv("branch", inner, m.weights(4, 1, 4, 4, 3, 3), nil, same), false)
	sum := m.relu(m.add(branch, x)) // both pending
	inner = m.quantize(m.scale(sum, false), signed(8, 0.02))
	sum = m.add(sum, m.relu(inner))                                      // wide and codes
	sum = m.add(m.pool(sum, integer.Window{Height: 2, Width: 2}, false), // wide, pooled
		m.conv("shortcut", image, m.weights(2, 1, 4, 2, 1, 1), nil, integer.ConvGeometry{StrideHeight: 2, StrideWidth: 2}))
	average := m.pool(sum, integer.Window{Height: 4, Width: 4}, true)
	return m.linear("last", m.quantize(m.flatten(average), signed(8, 0.05)), m.weights(8, 1, 3, 4), m.bias(3))
}

// averaging ends in an average of codes, without a linear layer, and averages a pending value.
func averaging(m *mirror) twin {
	x := m.image(asymmetric(0.02))
	x = m.relu(m.conv("first", x, m.weights(6, 1, 7, 4, 3, 3), m.bias(7), integer.ConvGeometry{}))
	x = m.pool(x, integer.Window{Height: 2, Width: 3, StrideHeight: 1, StrideWidth: 1, PadTop: 1, PadLeft: 2}, true)
	x = m.quantize(x, integer.Grid{Bits: 7, Scale: 0.02, Zero: 9, Min: 0, Max: 127})
	x = m.quantize(m.conv("second", x, m.weights(7, 1, 3, 7, 1, 1), m.bias(3), integer.ConvGeometry{}), signed(8, 0.01))
	shape := x.value.Shape()
	return m.flatten(m.pool(x, integer.Window{Height: shape.Height, Width: shape.Width}, true))
}

// block is a residual block on a wide stream x, as ResNet has it: two convolutions, the first with a stride, and a shortcut.
func (m *mirror) block(name string, x twin, channels, stride int, shortcut func(x twin) twin) twin {
	same := integer.ConvGeometry{StrideHeight: stride, StrideWidth: stride, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	y := m.quantize(x, unsigned(4, 0.1))
	y = m.scale(m.conv(name+".1", y, m.weights(4, 1, channels, x.value.Shape().Channels, 3, 3), nil, same), false)
	y = m.quantize(m.relu(y), unsigned(4, 0.05))
	same.StrideHeight, same.StrideWidth = 1, 1
	y = m.scale(m.conv(name+".2", y, m.weights(4, 1, channels, channels, 3, 3), nil, same), false)
	return m.relu(m.add(y, shortcut(x)))
}

// resnet has blocks whose shortcuts are the identity, a sampling of the wide stream, a convolution, and a sampling of codes.
func resnet(m *mirror) twin {
	same := integer.ConvGeometry{PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	x := m.image(asymmetric(0.02))
	x = m.scale(m.conv("stem", x, m.weights(8, 1, 4, 3, 3, 3), m.bias(4), same), false)
	x = m.widen(m.relu(x))
	x = m.block("identity", x, 4, 1, func(x twin) twin { return x })
	x = m.block("sample", x, 7, 2, func(x twin) twin { return m.sample(x, 2, 1, 2) })
	x = m.block("conv", x, 5, 2, func(x twin) twin {
		codes := m.quantize(x, asymmetric(0.01))
		return m.conv("shortcut", codes, m.weights(4, 1, 5, 7, 1, 1), nil, integer.ConvGeometry{StrideHeight: 2, StrideWidth: 2})
	})
	x = m.block("codes", x, 8, 1, func(x twin) twin {
		x = m.sample(m.quantize(x, integer.Grid{Bits: 8, Scale: 0.02, Zero: -100, Min: -128, Max: 127}), 1, 0, 3)
		return m.widen(x) // is codes already
	})
	shape := x.value.Shape()
	x = m.pool(x, integer.Window{Height: shape.Height, Width: shape.Width}, true)
	return m.linear("last", m.quantize(m.flatten(x), unsigned(8, 0.01)), m.weights(8, 1, 3, 8), m.bias(3))
}

// preluNet has parametric rectifiers of pending values (after a normalization, twice in a row, before and after pooling, after
// a ReLU, with two planes), of codes and of wide values, and pending values that are sampled and then requantized.
func preluNet(m *mirror) twin {
	two := integer.Window{Height: 2, Width: 2, StrideHeight: 1, StrideWidth: 1}
	x := m.image(asymmetric(0.02))
	x = m.scale(m.conv("first", x, m.weights(5, 2, 5, 3, 2, 2), m.bias(5), integer.ConvGeometry{}), false)
	x = m.pool(m.prelu(m.prelu(x, false), false), two, false)
	x = m.sample(m.relu(m.prelu(x, true)), 2, 1, 1)
	x = m.quantize(m.prelu(m.quantize(x, integer.Grid{Bits: 8, Scale: 0.01, Zero: -3, Min: -128, Max: 127}), false), asymmetric(0.01))
	x = m.relu(m.conv("second", x, m.weights(4, 1, 6, 7, 2, 2), m.bias(6), integer.ConvGeometry{}))
	sum := m.prelu(m.add(m.prelu(x, false), m.conv("third", m.quantize(x, signed(8, 0.01)), m.weights(4, 1, 6, 6, 1, 1), nil, integer.ConvGeometry{})), true)
	x = m.quantize(m.flatten(m.pool(sum, integer.Window{Height: 1, Width: 1}, true)), signed(8, 0.02))
	return m.prelu(m.linear("last", x, m.weights(8, 1, 4, x.value.Shape().Len()), m.bias(4)), false)
}

// tableNet has unequal steps that one byte plane holds, of both signs and of one, and does to such levels all that there
// is to do.
func tableNet(m *mirror) twin {
	same := integer.ConvGeometry{PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	two := integer.Window{Height: 2, Width: 2, StrideHeight: 1, StrideWidth: 1}
	x := m.image(pot(0.01))
	x = m.pool(m.relu(m.conv("first", x, m.weights(4, 2, 6, 2, 3, 3), m.bias(6), same)), two, false)
	x = m.quantize(x, apot(0.02)) // pending, with a step that waits
	first := x
	grouped := same
	grouped.Groups, grouped.StrideHeight = 3, 2
	x = m.scale(m.conv("grouped", x, m.weights(4, 1, 9, 2, 3, 3), m.bias(9), grouped), false)
	x = m.quantize(x, pot(0.01))
	x = m.add(m.relu(x), m.pool(m.sample(x, 1, 0, 0), integer.Window{Height: 1, Width: 1}, false)) // codes and codes
	x = m.quantize(x, apot(0.02))                                                                  // wide
	x = m.quantize(m.prelu(x, false), asymmetric(0.01))
	x = m.quantize(x, pot(0.01)) // codes of a uniform grid with a zero point
	x = m.quantize(x, signed(8, 0.01))
	average := m.pool(m.quantize(first, unsigned(6, 0.02)), two, true)
	average = m.quantize(m.pool(average, two, true), apot(0.015)) // a wide value in a unit that is no power of two
	x = m.quantize(m.linear("fc", m.flatten(x), m.weights(4, 1, 8, x.value.Shape().Len()), m.bias(8)), pot(0.005))
	y := m.quantize(m.linear("other", m.flatten(m.widen(average)), m.weights(8, 1, 8, average.value.Shape().Len()), nil), pot(0.01))
	return m.linear("last", m.quantize(m.add(x, m.pool(y, integer.Window{Height: 1, Width: 1}, true)), apot(0.01)), m.weights(8, 1, 4, 8), m.bias(4))
}

// planesNet has levels in two byte planes and does to them all that there is to do.
func planesNet(m *mirror) twin {
	same := integer.ConvGeometry{PadTop: 1, PadLeft: 2, PadBottom: 1, PadRight: 0}
	two := integer.Window{Height: 2, Width: 2, StrideHeight: 1, StrideWidth: 1}
	fine, coarse := logarithmic(1./32768, 16, 127), logarithmic(2./32768, 1, 7)
	x := m.image(fine)
	x = m.conv("first", x, m.weights(4, 2, 6, 3, 3, 3), m.bias(6), same)
	x = m.quantize(m.flatten(x), fine) // pending, with a step that waits
	flat := x
	stem := m.quantize(m.relu(m.conv("stem", m.image(fine), m.weights(8, 1, 6, 3, 2, 3), m.bias(6), integer.ConvGeometry{StrideHeight: 2})), fine)
	grouped := integer.ConvGeometry{PadTop: 1, PadBottom: 1, StrideWidth: 2, Groups: 2}
	x = m.quantize(m.conv("grouped", stem, m.weights(5, 3, 8, 3, 3, 2), nil, grouped), fine)
	x = m.pool(m.relu(x), two, false)
	x = m.sample(x, 1, 1, 2)
	y := m.quantize(m.conv("depthwise", x, m.weights(6, 1, 11, 1, 2, 2), nil, integer.ConvGeometry{Groups: 11, PadTop: 1, PadLeft: 1}), coarse)
	y = m.add(m.widen(y), m.prelu(x, true))
	y = m.quantize(y, coarse)
	y = m.quantize(m.pool(y, two, true), fine)
	y = m.quantize(m.quantize(y, coarse), pot(1./64)) // from two planes to two, and to one
	y = m.conv("mixed", y, m.weights(4, 1, 4, 11, 1, 1), nil, integer.ConvGeometry{})
	y = m.quantize(m.flatten(y), fine)
	z := m.quantize(m.linear("fc", flat, m.weights(4, 1, 4, flat.value.Shape().Len()), m.bias(4)), coarse)
	z = m.add(z, m.linear("other", y, m.weights(4, 8, 4, y.value.Shape().Len()), nil)) // sixteen accumulators
	return m.quantize(z, fine)
}
