package kernel

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// onEveryDotPath runs the same check on every way to multiply bytes that the machine has.
func onEveryDotPath(t *testing.T, check func(t *testing.T)) {
	before := liveDots
	defer func() { liveDots = before }()
	for _, liveDots = range supportedDots() {
		t.Run(DotPath(), check)
	}
}

func TestBestDotPathIsLive(t *testing.T) {
	supported := supportedDots()
	if os.Getenv("GOQAT_SIMD") == "" {
		require.Equal(t, supported[len(supported)-1], liveDots)
	}
	require.Equal(t, chooseDots(live, supported), liveDots)
	require.Equal(t, dotPathNames[liveDots], DotPath())
}

func TestChooseDots(t *testing.T) {
	all := []dotPath{dotPortable, dotAVX2, dotVNNI256, dotVNNI512}
	for _, c := range []struct {
		path      path
		supported int
		want      dotPath
	}{
		{portable, 4, dotPortable},
		{avx2, 4, dotAVX2}, // held down, since the machine could do better
		{avx2, 3, dotVNNI256},
		{avx2, 2, dotAVX2},
		{avx512, 2, dotAVX2},
		{avx512, 3, dotVNNI256},
		{avx512, 4, dotVNNI512},
		{avx512, 1, dotPortable},
	} {
		require.Equal(t, c.want, chooseDots(c.path, all[:c.supported]), "%v", c)
	}
}

// guardedIntegers is n elements at an odd place between guards, which the returned check wants untouched.
func guardedIntegers[T uint8 | int32](t *testing.T, n int) (v []T, check func()) {
	t.Helper()
	all := make([]T, 2*margin+n)
	for i := range all {
		all[i] = 0x5A
	}
	v = all[margin-1:][:n:n]
	return v, func() {
		t.Helper()
		for i, g := range all {
			if i < margin-1 || i >= margin-1+n {
				require.EqualValues(t, 0x5A, g, "guard at %d of %d", i-margin+1, n)
			}
		}
	}
}

// dotCase is a convolution of one line of pixels.
type dotCase struct {
	outputs, inputs, rows, columns, pixels int
	extreme                                bool // all bytes are 255, all weights -128
}

// check compares with the definition.
func (c dotCase) check(t *testing.T, stream *rand.Rand) {
	padded := ceil(c.inputs, 4) * 4
	view := DotView{Pixel: stream.IntN(3) * padded, Column: padded + stream.IntN(2)*4, Row: 3 * stream.IntN(50)}
	x := make([]uint8, (c.pixels-1)*view.Pixel+(c.rows-1)*view.Row+(c.columns-1)*view.Column+padded)
	for i := range x {
		x[i] = uint8(stream.UintN(256))
		if c.extreme {
			x[i] = 255
		}
	}
	weights := make([]int8, c.outputs*c.inputs*c.rows*c.columns)
	for i := range weights {
		weights[i] = int8(stream.IntN(256) - 128)
		if c.extreme {
			weights[i] = -128
		}
	}
	offset := int32(stream.IntN(2) * -128)
	w := PackBytes(weights, c.outputs, c.inputs, c.rows, c.columns, offset)
	require.GreaterOrEqual(t, w.Bytes(), len(weights))
	sumPixel := ceil(c.outputs, Lanes)*Lanes + stream.IntN(3)
	sums, untouched := guardedIntegers[int32](t, (c.pixels-1)*sumPixel+ceil(c.outputs, Lanes)*Lanes)
	w.Dots(sums, sumPixel, x, view, c.pixels)
	untouched()
	for p := range c.pixels {
		for o := range c.outputs {
			want := int32(0)
			for i, v := range weights[o*len(weights)/c.outputs : (o+1)*len(weights)/c.outputs] {
				input, row, column := i/(c.rows*c.columns), i/c.columns%c.rows, i%c.columns
				want += (int32(x[p*view.Pixel+row*view.Row+column*view.Column+input]) + offset) * int32(v)
			}
			require.Equal(t, want, sums[p*sumPixel+o], "%+v, pixel %d, output %d", c, p, o)
		}
	}
}

func TestDotsEqualTheirDefinition(t *testing.T) {
	onEveryDotPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(1, 2))
		for outputs := 1; outputs <= 90; outputs += 11 { // tiles of 1 to 4 vectors, and two of 3
			for pixels := 1; pixels <= DotPixels; pixels++ {
				c := dotCase{outputs: outputs, inputs: 1 + stream.IntN(9), rows: 1 + stream.IntN(3), columns: 1 + stream.IntN(3), pixels: pixels}
				most := PackBytes(make([]int8, outputs), outputs, 1, 1, 1, 0).Pixels()
				c.pixels = min(c.pixels, most)
				c.check(t, stream)
			}
		}
		dotCase{outputs: 17, inputs: 65, rows: 3, columns: 3, pixels: 4, extreme: true}.check(t, stream)
	})
}

// A sum that passes 2^31 wraps around on every path: offsets rely on it.
func TestDotsWrapAround(t *testing.T) {
	const n = 1 << 17
	x, weights := make([]uint8, n), make([]int8, n)
	for i := range x {
		x[i], weights[i] = 255, 127
	}
	onEveryDotPath(t, func(t *testing.T) {
		sums := make([]int32, Lanes)
		PackBytes(weights, 1, n, 1, 1, -128).Dots(sums, Lanes, x, DotView{Pixel: n, Column: n, Row: n}, 1)
		require.EqualValues(t, n*127*127, sums[0])
	})
}

func TestDotsRefuseShortSlices(t *testing.T) {
	onEveryDotPath(t, func(t *testing.T) {
		w := PackBytes(make([]int8, 3*5), 3, 5, 1, 1, 0)
		view := DotView{Pixel: 8, Column: 8, Row: 8}
		require.Panics(t, func() { w.Dots(make([]int32, 32), 16, make([]uint8, 15), view, 2) })
		require.Panics(t, func() { w.Dots(make([]int32, 31), 16, make([]uint8, 16), view, 2) })
		w.Dots(make([]int32, 32), 16, make([]uint8, 16), view, 2)
	})
}

func TestLargestBytes(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(3, 4))
		for n := range 100 {
			y, untouched := guardedIntegers[uint8](t, n)
			x, want := make([]uint8, n), make([]uint8, n)
			for i := range y {
				x[i], y[i] = uint8(stream.UintN(256)), uint8(stream.UintN(256))
				want[i] = max(x[i], y[i])
			}
			LargestBytes(y, x)
			untouched()
			require.Equal(t, want, y)
		}
	})
}

// BenchmarkDots is the inner product of ResNet-20's three sizes of layers, for one row of pixels.
func BenchmarkDots(b *testing.B) {
	defer func(before dotPath) { liveDots = before }(liveDots)
	for _, path := range supportedDots() {
		for channels := 16; channels <= 64; channels *= 2 {
			liveDots = path
			w := PackBytes(make([]int8, channels*channels*9), channels, channels, 3, 3, 0)
			x := make([]uint8, 3*34*channels)
			sums := make([]int32, DotPixels*channels)
			view := DotView{Pixel: channels, Column: channels, Row: 34 * channels}
			b.Run(fmt.Sprintf("%s/%d", DotPath(), channels), func(b *testing.B) {
				for b.Loop() {
					w.Dots(sums, channels, x, view, w.Pixels())
				}
				b.ReportMetric(float64(b.N)*float64(channels*channels*9*w.Pixels())/b.Elapsed().Seconds()/1e9, "GMAC/s")
			})
		}
	}
}

// The integer kernels promise a machine without floating point that nothing of theirs needs one. The requantization of
// blocks is that of the training graph, whose integers are held in floats.
func TestIntegerAssemblyHasNoFloats(t *testing.T) {
	assembly, err := os.ReadFile("integer_amd64.s")
	require.NoError(t, err)
	floats := regexp.MustCompile(`(?m)^\tV?[A-Z0-9]*[PS][SD]\s`)
	for _, function := range strings.Split(string(assembly), "\nTEXT ")[1:] {
		if strings.HasPrefix(function, "·requantizeBlocks") {
			continue
		}
		for _, found := range floats.FindAllString(function, -1) {
			require.Equal(t, "VPDPBUSD", strings.TrimSpace(found))
		}
	}
	require.Regexp(t, floats, "\tVADDPS Y0, Y1, Y2")
}
