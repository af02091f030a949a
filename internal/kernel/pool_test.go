package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

// poolAxis is a pooling axis; ceil_mode adds a last window that lies partly behind the padding.
func poolAxis(in, out int, c golden.Case) Axis {
	a := Axis{In: in, Out: out, Kernel: c.Int("kernel_size"), Stride: c.Int("stride")}
	if c.HasParam("padding") {
		a.Before = c.Int("padding")
	}
	return a
}

func goldenWindow(c golden.Case) *Window {
	x, y := c.Shape("x"), c.Shape("y")
	return &Window{Planes: Blocks(x[0]) * x[1], Rows: poolAxis(x[2], y[2], c), Columns: poolAxis(x[3], y[3], c)}
}

func TestMaxPoolGolden(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		golden.Run(t, "layers", "maxpool", func(t *testing.T, c golden.Case) {
			w := goldenWindow(c)
			x, dy := packed(c, "x"), packed(c, "dy")
			y, tap, dx := make([]float32, len(dy)), make([]uint16, len(dy)), make([]float32, len(x))
			w.Max(y, tap, x)
			w.MaxGradient(dx, dy, tap)
			requireGolden(t, c, "y", y, 0)
			requireGolden(t, c, "dx", dx, 2e-6)
			taps := make([]float32, len(tap))
			for i, v := range tap {
				taps[i] = float32(w.place(i, int(v)))
			}
			places := make([]float32, len(c.Int32("argmax")))
			Unpack(places, taps, c.Shape("x")[0], len(places)/c.Shape("x")[0])
			for i, want := range c.Int32("argmax") {
				require.Equal(t, want, int32(places[i]), "argmax %d", i)
			}
		})
	})
}

// place is where in its plane the tap of output element i lies.
func (w *Window) place(i, tap int) int {
	row, column := i/Lanes/w.Columns.Out%w.Rows.Out, i/Lanes%w.Columns.Out
	return (row*w.Rows.Stride-w.Rows.Before+tap/w.Columns.Kernel)*w.Columns.In +
		column*w.Columns.Stride - w.Columns.Before + tap%w.Columns.Kernel
}

func TestAveragePoolGolden(t *testing.T) {
	golden.Run(t, "layers", "avgpool", func(t *testing.T, c golden.Case) {
		w := goldenWindow(c)
		w.CountPadding = !c.HasParam("count_include_pad") || c.Bool("count_include_pad")
		checkAverage(t, c, w)
	})
}

func TestGlobalAveragePoolGolden(t *testing.T) {
	golden.Run(t, "layers", "adaptive_avgpool", func(t *testing.T, c golden.Case) {
		x := c.Shape("x")
		if c.Ints("output_size")[0] != 1 {
			t.Skip("bins of unequal size are no window")
		}
		axis := func(in int) Axis { return Axis{In: in, Out: 1, Kernel: in, Stride: 1} }
		checkAverage(t, c, &Window{Planes: Blocks(x[0]) * x[1], Rows: axis(x[2]), Columns: axis(x[3])})
	})
}

func checkAverage(t *testing.T, c golden.Case, w *Window) {
	t.Helper()
	x, dy := packed(c, "x"), packed(c, "dy")
	y, dx := make([]float32, len(dy)), make([]float32, len(x))
	w.Average(y, x)
	w.AverageGradient(dx, dy)
	requireGolden(t, c, "y", y, 2e-6)
	requireGolden(t, c, "dx", dx, 2e-6)
	w.Sum = true
	sums := make([]float32, len(y))
	w.Average(sums, x)
	for i, v := range sums {
		at := (i / Lanes) % (w.Rows.Out * w.Columns.Out)
		taps := min(w.Rows.Kernel, w.Rows.In) * min(w.Columns.Kernel, w.Columns.In)
		if w.Rows.Before == 0 && at >= 0 {
			require.InDelta(t, y[i], v/float32(taps), 1e-6)
		}
	}
}

// Every path gives the bits of the portable one, NaN and zeros of both signs included.
func TestPoolPaths(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		w := &Window{Planes: 1 + stream.IntN(5), Rows: poolingAxis(stream), Columns: poolingAxis(stream),
			CountPadding: stream.IntN(2) == 0, Sum: stream.IntN(3) == 0}
		x := awkward(stream, w.Planes*w.Rows.In*w.Columns.In*Lanes)
		dy := awkward(stream, w.Planes*w.Rows.Out*w.Columns.Out*Lanes)
		type result struct {
			y, dx, average, spread []float32
			tap                    []uint16
		}
		run := func() (r result) {
			y, yIntact := guarded(t, len(dy))
			dx, dxIntact := guarded(t, len(x))
			average, averageIntact := guarded(t, len(dy))
			spread, spreadIntact := guarded(t, len(x))
			r = result{y, dx, average, spread, make([]uint16, len(dy)+1)[1:]}
			w.Max(r.y, r.tap, x)
			w.MaxGradient(r.dx, dy, r.tap)
			w.Average(r.average, x)
			w.AverageGradient(r.spread, dy)
			yIntact()
			dxIntact()
			averageIntact()
			spreadIntact()
			return r
		}
		var want result
		onPath(portable, func() { want = run() })
		onEveryPath(t, func(t *testing.T) {
			got := run()
			note := fmt.Sprintf("%+v", *w)
			requireSame(t, want.y, got.y, "y of "+note)
			requireSame(t, want.dx, got.dx, "dx of "+note)
			requireSame(t, want.average, got.average, "average of "+note)
			requireSame(t, want.spread, got.spread, "spread gradient of "+note)
			require.Equal(t, want.tap, got.tap, note)
		})
	}
}

// poolingAxis is a random axis all of whose windows overlap the input.
func poolingAxis(stream *rand.Rand) Axis {
	a := randomAxis(stream)
	a.Before = min(a.Before, a.Kernel-1)
	a.Out = max(1, (a.In+a.Before-1)/a.Stride+1-stream.IntN(2))
	return a
}

func TestMaxTakesTheFirstTap(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		w := &Window{Planes: 1, Rows: Axis{2, 1, 2, 2, 0}, Columns: Axis{2, 1, 2, 2, 0}}
		nan := float32(math.NaN())
		for _, c := range []struct {
			x   [4]float32
			tap uint16
		}{
			{[4]float32{1, 1, 1, 1}, 0},
			{[4]float32{0, 2, 1, 2}, 1},
			{[4]float32{-3, -2, -1, -4}, 2},
			{[4]float32{nan, 2, 1, 2}, 0},
			{[4]float32{1, nan, 2, nan}, 2},
		} {
			x, y, tap := make([]float32, 4*Lanes), make([]float32, Lanes), make([]uint16, Lanes)
			for i, v := range c.x {
				x[i*Lanes+5] = v
			}
			w.Max(y, tap, x)
			require.Equal(t, c.tap, tap[5], "%v", c.x)
			require.Equal(t, math.Float32bits(c.x[c.tap]), math.Float32bits(y[5]))
			require.Zero(t, tap[4])
		}
	})
}

func TestWindowRefusesBadShapes(t *testing.T) {
	w := &Window{Planes: 1, Rows: Axis{4, 2, 2, 2, 0}, Columns: Axis{4, 2, 2, 2, 0}}
	x, y, tap := make([]float32, 256), make([]float32, 64), make([]uint16, 64)
	require.PanicsWithValue(t, "kernel: Window.Max: slices of the shapes of x and y have 255 and 64 elements, want 256 and 64", func() { w.Max(y, tap, x[1:]) })
	require.Panics(t, func() { w.MaxGradient(x, y, tap[1:]) })
	require.Panics(t, func() { w.Average(y[1:], x) })
	require.Panics(t, func() { w.AverageGradient(x[1:], y) })
	w.Rows.Before = 2
	require.PanicsWithValue(t, "kernel: Window: a window of {Planes:1 Rows:{In:4 Out:2 Kernel:2 Stride:2 Before:2} Columns:{In:4 Out:2 Kernel:2 Stride:2 Before:0} CountPadding:false Sum:false} lies outside the image", func() { w.Max(y, tap, x) })
}
