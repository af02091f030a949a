package kernel

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// winogradAxis is a random axis that the algorithm applies to.
func winogradAxis(stream *rand.Rand) Axis {
	return Axis{In: 1 + stream.IntN(11), Out: 1 + stream.IntN(12), Kernel: 3, Stride: 1, Before: stream.IntN(3)}
}

func winogradCase(stream *rand.Rand) convCase {
	return convCase{batch: 1 + stream.IntN(40), in: 1 + stream.IntN(20), out: 1 + stream.IntN(20), groups: 1,
		rows: winogradAxis(stream), columns: winogradAxis(stream)}
}

func (c convCase) winograd() *Winograd {
	w, ok := NewWinograd(Blocks(c.batch), c.in, c.out, c.rows, c.columns)
	if !ok {
		panic("no Winograd for " + c.String())
	}
	return w
}

// fast runs the products of Winograd between guards.
func (c convCase) fast(t *testing.T, x, dy, w, scale, bias []float32) (y, dx []float32) {
	t.Helper()
	xs, ys, _ := c.sizes()
	y, yIntact := guarded(t, ys)
	dx, dxIntact := guarded(t, xs)
	c.winograd().Forward(y, x, w, scale, bias)
	c.winograd().InputGradient(dx, dy, w)
	yIntact()
	dxIntact()
	return y, dx
}

// The matrices of F(2x2, 3x3), as the paper gives them, each product of which is in the documented order.
func inputTransform(d [4]float32) [4]float32 {
	return [4]float32{d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]}
}

func kernelTransform(g [3]float32) [4]float32 {
	return [4]float32{g[0], float32((g[0] + g[2] + g[1]) / 2), float32((g[0] + g[2] - g[1]) / 2), g[2]}
}

func outputTransform(m [4]float32) [2]float32 {
	return [2]float32{m[0] + m[1] + m[2], m[1] - m[2] - m[3]}
}

// winogradTileOf is Aᵀ [ Σ_c (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A by definition; d(c, i, j) and g(c, i, j) are its operands.
func winogradTileOf(channels int, d, g func(c, i, j int) float32) (y [2][2]float32) {
	var m [4][4]float64
	for c := range channels {
		var t, v, u [4][4]float32
		for i := range 4 {
			t[i] = inputTransform([4]float32{d(c, i, 0), d(c, i, 1), d(c, i, 2), d(c, i, 3)})
		}
		var half [3][4]float32
		for j := range 3 {
			half[j] = kernelTransform([3]float32{g(c, 0, j), g(c, 1, j), g(c, 2, j)})
		}
		for k := range 4 {
			v[k] = inputTransform([4]float32{t[0][k], t[1][k], t[2][k], t[3][k]})  // of column k
			u[k] = kernelTransform([3]float32{half[0][k], half[1][k], half[2][k]}) // of row k
		}
		for i := range 4 {
			for j := range 4 {
				m[i][j] = fma(float64(v[j][i]), float64(u[i][j]), m[i][j])
			}
		}
	}
	var s [2][4]float32
	for j := range 4 {
		column := outputTransform([4]float32{float32(m[0][j]), float32(m[1][j]), float32(m[2][j]), float32(m[3][j])})
		s[0][j], s[1][j] = column[0], column[1]
	}
	return [2][2]float32{outputTransform(s[0]), outputTransform(s[1])}
}

// winogradPlain is Forward of images [blocks][in][rows.In][columns.In][16] by definition; g gives a tap.
func winogradPlain(blocks, in, out int, rows, columns Axis, x []float32, g func(o, c, i, j int) float32) []float32 {
	y := make([]float32, blocks*out*rows.Out*columns.Out*Lanes)
	for at := range y {
		lane, column, row := at%Lanes, at/Lanes%columns.Out, at/Lanes/columns.Out%rows.Out
		o, n := at/Lanes/columns.Out/rows.Out%out, at/Lanes/columns.Out/rows.Out/out
		if row%2 != 0 || column%2 != 0 {
			continue // part of the tile at its upper left
		}
		tile := winogradTileOf(in, func(c, i, j int) float32 {
			r, s := row-rows.Before+i, column-columns.Before+j
			if r < 0 || r >= rows.In || s < 0 || s >= columns.In {
				return 0
			}
			return x[(((n*in+c)*rows.In+r)*columns.In+s)*Lanes+lane]
		}, func(c, i, j int) float32 { return g(o, c, i, j) })
		for i := range min(2, rows.Out-row) {
			for j := range min(2, columns.Out-column) {
				y[at+(i*columns.Out+j)*Lanes] = tile[i][j]
			}
		}
	}
	return y
}

func TestWinogradEqualsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(7, 7))
		for i := range 12 {
			c := winogradCase(stream)
			fill := random
			if i%4 == 3 {
				fill = awkward
			}
			x, dy, w, scale, bias := c.operands(stream, fill)
			y := winogradPlain(Blocks(c.batch), c.in, c.out, c.rows, c.columns, x,
				func(o, in, i, j int) float32 { return w[(o*c.in+in)*9+i*3+j] })
			dx := winogradPlain(Blocks(c.batch), c.out, c.in, c.rows.transposed(), c.columns.transposed(), dy,
				func(in, o, i, j int) float32 { return w[(o*c.in+in)*9+8-i*3-j] })
			bare, _ := c.fast(t, x, dy, w, nil, nil)
			requireSame(t, y, bare, "y without scale and bias of "+c.String())
			for i := range y {
				o := i / (c.rows.Out * c.columns.Out * Lanes) % c.out
				y[i] = float32(y[i]*scale[o]) + bias[o]
			}
			gotY, gotDx := c.fast(t, x, dy, w, scale, bias)
			requireSame(t, y, gotY, "y of "+c.String())
			requireSame(t, dx, gotDx, "dx of "+c.String())
		}
	})
}

// directErrors are the largest error of y and the largest magnitude of a sum, against a direct sum in float64.
func (c convCase) directErrors(x, w, y []float32) (worst, largest float64) {
	for at := range y {
		lane, column, row := at%Lanes, at/Lanes%c.columns.Out, at/Lanes/c.columns.Out%c.rows.Out
		o, n := at/Lanes/c.columns.Out/c.rows.Out%c.out, at/Lanes/c.columns.Out/c.rows.Out/c.out
		sum := 0.0
		for in := range c.in {
			for i := range 3 {
				for j := range 3 {
					r, s := row-c.rows.Before+i, column-c.columns.Before+j
					if r >= 0 && r < c.rows.In && s >= 0 && s < c.columns.In {
						xv := x[(((n*c.in+in)*c.rows.In+r)*c.columns.In+s)*Lanes+lane]
						sum += float64(xv) * float64(w[(o*c.in+in)*9+i*3+j])
					}
				}
			}
		}
		worst, largest = max(worst, math.Abs(float64(y[at])-sum)), max(largest, math.Abs(sum))
	}
	return worst, largest
}

// The documentation of Winograd names these errors.
func TestWinogradErrorAgainstDirectSum(t *testing.T) {
	axis := Axis{In: 8, Out: 8, Kernel: 3, Stride: 1, Before: 1}
	for _, s := range []struct {
		channels int
		most     float64
	}{{16, 4e-7}, {64, 8e-7}, {256, 1.3e-6}, {512, 1.9e-6}} {
		stream := rand.New(rand.NewPCG(8, 8))
		c := convCase{batch: 16, in: s.channels, out: 8, groups: 1, rows: axis, columns: axis}
		x, _, w, _, _ := c.operands(stream, random)
		y := make([]float32, 8*64*Lanes)
		c.winograd().Forward(y, x, w, nil, nil)
		worst, largest := c.directErrors(x, w, y)
		require.Less(t, worst/largest, s.most, "%d channels", s.channels)
		c.conv().Forward(y, x, w, nil, nil)
		direct, _ := c.directErrors(x, w, y)
		t.Logf("%d channels: %.2g of the largest output, Conv %.2g", s.channels, worst/largest, direct/largest)
	}
}

func TestWinogradThreadCounts(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		c := convCase{batch: 40, in: 5, out: 9, groups: 1, rows: Axis{11, 11, 3, 1, 1}, columns: Axis{9, 8, 3, 1, 0}}
		stream := rand.New(rand.NewPCG(9, 9))
		x, dy, w, scale, bias := c.operands(stream, random)
		var y, dx []float32
		withThreads(1, func() { y, dx = c.fast(t, x, dy, w, scale, bias) })
		for threads := 2; threads <= 5; threads++ {
			withThreads(threads, func() {
				gotY, gotDx := c.fast(t, x, dy, w, scale, bias)
				requireSame(t, y, gotY, "y")
				requireSame(t, dx, gotDx, "dx")
			})
		}
	})
}

func TestWinogradPinnedBits(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(10, 10))
		c := convCase{batch: 33, in: 7, out: 6, groups: 1, rows: Axis{9, 9, 3, 1, 1}, columns: Axis{6, 7, 3, 1, 2}}
		xs, ys, ws := c.sizes()
		y, dx := c.fast(t, even(stream, xs), even(stream, ys), even(stream, ws), even(stream, c.out), even(stream, c.out))
		hash := fnv.New64a()
		for _, v := range [][]float32{y, dx} {
			require.NoError(t, binary.Write(hash, binary.LittleEndian, v))
		}
		require.Equal(t, "d7f73660818ece89", fmt.Sprintf("%x", hash.Sum64()))
	})
}

// A block at a time, with weights transformed before, gives the bits of all blocks together.
func TestWinogradBlock(t *testing.T) {
	stream := rand.New(rand.NewPCG(6, 6))
	for range 20 {
		c := winogradCase(stream)
		xs, ys, ws := c.sizes()
		x, dy, w := random(stream, xs), random(stream, ys), random(stream, ws)
		scale, bias := random(stream, c.out), random(stream, c.out)
		y, dx := c.fast(t, x, dy, w, scale, bias)
		b := c.winograd().Block()
		forward, gradient := make([]float32, b.WeightsLen()), make([]float32, b.WeightsLen())
		b.ForwardWeights(forward, w)
		b.GradientWeights(gradient, w)
		blocks := Blocks(c.batch)
		gotY, gotDX := make([]float32, ys), make([]float32, xs)
		for n := range blocks {
			xAt, yAt := n*xs/blocks, n*ys/blocks
			b.Forward(gotY[yAt:][:ys/blocks], x[xAt:][:xs/blocks], forward, scale, bias)
			b.InputGradient(gotDX[xAt:][:xs/blocks], dy[yAt:][:ys/blocks], gradient)
		}
		requireSame(t, y, gotY, c.String()+": y")
		requireSame(t, dx, gotDX, c.String()+": dx")
	}
	b := convCase{batch: 16, in: 2, out: 3, groups: 1, rows: Axis{4, 4, 3, 1, 1}, columns: Axis{4, 4, 3, 1, 1}}.winograd().Block()
	u := make([]float32, b.WeightsLen())
	x, y := make([]float32, 2*16*Lanes), make([]float32, 3*16*Lanes)
	require.Panics(t, func() { b.ForwardWeights(u, make([]float32, 53)) })
	require.Panics(t, func() { b.Forward(y[1:], x, u, nil, nil) })
	require.Panics(t, func() { b.InputGradient(x, y, u[:10]) })
	require.NotPanics(t, func() { b.Forward(y, x, u, nil, nil) })
}

func TestWinogradApplies(t *testing.T) {
	same := Axis{In: 8, Out: 8, Kernel: 3, Stride: 1, Before: 1}
	for _, c := range []struct {
		axis Axis
		want bool
	}{
		{same, true},
		{Axis{8, 6, 3, 1, 0}, true},
		{Axis{8, 10, 3, 1, 2}, true},
		{Axis{8, 4, 3, 2, 1}, false},
		{Axis{8, 8, 5, 1, 2}, false},
		{Axis{8, 8, 1, 1, 0}, false},
		{Axis{8, 9, 3, 1, 3}, false},
		{Axis{2, 0, 3, 1, 0}, false},
	} {
		for _, axes := range [][2]Axis{{c.axis, same}, {same, c.axis}} {
			_, ok := NewWinograd(1, 2, 3, axes[0], axes[1])
			require.Equal(t, c.want, ok, "%+v", axes)
		}
	}
	_, ok := NewWinograd(1, 0, 3, same, same)
	require.False(t, ok)
}

func TestWinogradRefusesShortSlices(t *testing.T) {
	axis := Axis{4, 4, 3, 1, 1}
	w, _ := NewWinograd(1, 2, 3, axis, axis)
	x, y, weights := make([]float32, 512), make([]float32, 768), make([]float32, 54)
	w.Forward(y, x, weights, nil, nil)
	require.PanicsWithValue(t, "kernel: Winograd.Forward: the slice of the shape of x has 511 floats, want 512", func() { w.Forward(y, x[1:], weights, nil, nil) })
	require.PanicsWithValue(t, "kernel: Winograd.InputGradient: the slice of the shape of w has 53 floats, want 54", func() { w.InputGradient(x, y, weights[1:]) })
}

// Shares of the peak count the operations of the sum of taps that lie in the image, for both.
func BenchmarkWinograd(b *testing.B) {
	for _, s := range []struct{ channels, image, batch int }{
		{16, 32, 128}, {32, 16, 128}, {64, 8, 128}, {128, 32, 16}, {128, 16, 64}, {256, 8, 64}, {512, 4, 64},
	} {
		axis := Axis{In: s.image, Out: s.image, Kernel: 3, Stride: 1, Before: 1}
		c := convCase{batch: s.batch, in: s.channels, out: s.channels, groups: 1, rows: axis, columns: axis}
		stream := rand.New(rand.NewPCG(1, 1))
		xs, ys, ws := c.sizes()
		x, y, w := aligned(stream, xs), aligned(stream, ys), aligned(stream, ws)
		direct, fast := c.conv(), c.winograd()
		taps := float64((3*s.image - 2) * (3*s.image - 2))
		for _, k := range []struct {
			name string
			do   func()
		}{
			{"direct", func() { direct.Forward(y, x, w, nil, nil) }},
			{"forward", func() { fast.Forward(y, x, w, nil, nil) }},
			{"input gradient", func() { fast.InputGradient(x, y, w) }},
		} {
			b.Run(fmt.Sprintf("%dx%d/%s", s.channels, s.image, k.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					k.do()
				}
				report(b, 2*float64(s.batch*s.channels*s.channels)*taps)
			})
		}
	}
}
