package kernel

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

// convCase is a convolution of random shape.
type convCase struct {
	batch, in, out, groups int
	rows, columns          Axis
}

func (c convCase) String() string {
	return fmt.Sprintf("batch %d, %d→%d channels in %d groups, rows %+v, columns %+v", c.batch, c.in, c.out, c.groups, c.rows, c.columns)
}

func (c convCase) conv() *Conv {
	return NewConv(Blocks(c.batch), c.in, c.out, c.groups, c.rows, c.columns)
}

func (c convCase) sizes() (x, y, w int) {
	return Blocks(c.batch) * c.in * c.rows.In * c.columns.In * Lanes, Blocks(c.batch) * c.out * c.rows.Out * c.columns.Out * Lanes,
		c.out * c.in / c.groups * c.rows.Kernel * c.columns.Kernel
}

func randomAxis(stream *rand.Rand) Axis { return randomWindows(stream, 1+stream.IntN(5)) }

// randomWindows is an axis of windows of the given size, padded before and behind by different amounts.
func randomWindows(stream *rand.Rand, kernel int) Axis {
	for {
		a := Axis{In: 1 + stream.IntN(20), Kernel: kernel, Stride: 1 + stream.IntN(3), Before: stream.IntN(4)}
		padded := a.In + a.Before + stream.IntN(4)
		if a.Out = (padded-a.Kernel)/a.Stride + 1; padded >= a.Kernel {
			return a
		}
	}
}

func randomCase(stream *rand.Rand) convCase {
	groups := 1 + stream.IntN(3)
	return convCase{batch: 1 + stream.IntN(40), in: groups * (1 + stream.IntN(8)), out: groups * (1 + stream.IntN(9)), groups: groups,
		rows: randomAxis(stream), columns: randomAxis(stream)}
}

// plain holds the three products of a convolution by definition, element by element in the documented order.
type plain struct{ y, dx, dw []float32 }

func (c convCase) plain(x, dy, w, scale, bias []float32) plain {
	xs, ys, ws := c.sizes()
	y, dx, p := make([]float64, ys), make([]float64, xs), plain{y: make([]float32, ys), dx: make([]float32, xs), dw: make([]float32, ws)}
	in, out := c.in/c.groups, c.out/c.groups
	for n := range Blocks(c.batch) {
		for o := range c.out {
			for i := range in {
				for k := range c.rows.Kernel {
					for l := range c.columns.Kernel {
						at := ((o*in+i)*c.rows.Kernel+k)*c.columns.Kernel + l
						var lanes [Lanes]float32
						for r := range c.rows.Out {
							for s := range c.columns.Out {
								yAt := (((n*c.out+o)*c.rows.Out+r)*c.columns.Out + s) * Lanes
								xr, xc := r*c.rows.Stride-c.rows.Before+k, s*c.columns.Stride-c.columns.Before+l
								if xr < 0 || xr >= c.rows.In || xc < 0 || xc >= c.columns.In {
									continue
								}
								xAt := (((n*c.in+o/out*in+i)*c.rows.In+xr)*c.columns.In + xc) * Lanes
								for lane := range Lanes {
									xv, dyv := float64(x[xAt+lane]), float64(dy[yAt+lane])
									y[yAt+lane] = fma(xv, float64(w[at]), y[yAt+lane])
									dx[xAt+lane] = fma(dyv, float64(w[at]), dx[xAt+lane])
									lanes[lane] = float32(fma(dyv, xv, float64(lanes[lane])))
								}
							}
						}
						p.dw[at] += halve(&lanes)
					}
				}
			}
		}
	}
	for i, v := range y {
		o := i / (c.rows.Out * c.columns.Out * Lanes) % c.out
		p.y[i] = float32(float32(v)*scale[o]) + bias[o]
	}
	for i, v := range dx {
		p.dx[i] = float32(v)
	}
	return p
}

// results runs the four products of a convolution between guards.
func (c convCase) results(t *testing.T, x, dy, w, scale, bias []float32) (p plain, db []float32) {
	t.Helper()
	xs, ys, ws := c.sizes()
	conv := c.conv()
	y, yIntact := guarded(t, ys)
	dx, dxIntact := guarded(t, xs)
	dw, dwIntact := guarded(t, ws)
	db, dbIntact := guarded(t, c.out)
	conv.Forward(y, x, w, scale, bias)
	conv.InputGradient(dx, dy, w)
	conv.WeightGradient(dw, x, dy)
	conv.BiasGradient(db, dy)
	yIntact()
	dxIntact()
	dwIntact()
	dbIntact()
	return plain{y, dx, dw}, db
}

func (c convCase) operands(stream *rand.Rand, fill func(*rand.Rand, int) []float32) (x, dy, w, scale, bias []float32) {
	xs, ys, ws := c.sizes()
	return fill(stream, xs), fill(stream, ys), fill(stream, ws), random(stream, c.out), random(stream, c.out)
}

// Every path equals the definition bit for bit, on awkward numbers too.
func TestConvEqualsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(1, 1))
		cases := 60
		if live == portable {
			cases = 12
		}
		for i := range cases {
			c := randomCase(stream)
			fill := random
			if i%4 == 3 {
				fill = awkward
			}
			c.requireDefinition(t, stream, fill)
		}
	})
}

// requireDefinition wants all products between guards to equal the definition bit for bit.
func (c convCase) requireDefinition(t *testing.T, stream *rand.Rand, fill func(*rand.Rand, int) []float32) {
	t.Helper()
	x, dy, w, scale, bias := c.operands(stream, fill)
	want := c.plain(x, dy, w, scale, bias)
	got, _ := c.results(t, x, dy, w, scale, bias)
	requireSame(t, want.y, got.y, "y of "+c.String())
	requireSame(t, want.dx, got.dx, "dx of "+c.String())
	requireSame(t, want.dw, got.dw, "dw of "+c.String())
}

// Kernels of 3x3 taps have paths of their own, and depthwise ones further ones.
func TestConv3x3EqualsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(7, 7))
		cases := 60
		if live == portable {
			cases = 12
		}
		for i := range cases {
			c := convCase{batch: 1 + stream.IntN(40), rows: randomWindows(stream, 3), columns: randomWindows(stream, 3)}
			c.groups = 1 + stream.IntN(5)
			c.in, c.out = c.groups, c.groups
			if i%3 == 2 { // not depthwise
				c.in, c.out = c.groups*(1+stream.IntN(4)), c.groups*(1+stream.IntN(7))
			}
			fill := random
			if i%4 == 3 {
				fill = awkward
			}
			c.requireDefinition(t, stream, fill)
		}
	})
}

func TestConvDepthwiseTable(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(8, 8))
		for _, a := range []Axis{
			{In: 8, Out: 8, Kernel: 3, Stride: 1, Before: 1},
			{In: 8, Out: 4, Kernel: 3, Stride: 2, Before: 0}, // one behind alone, as frameworks that pad to the same size have it
			{In: 8, Out: 4, Kernel: 3, Stride: 2, Before: 1},
			{In: 7, Out: 4, Kernel: 3, Stride: 2, Before: 1},
			{In: 7, Out: 7, Kernel: 3, Stride: 1, Before: 2},
			{In: 9, Out: 9, Kernel: 3, Stride: 1, Before: 0},
			{In: 7, Out: 5, Kernel: 3, Stride: 1, Before: 0}, // no padding
			{In: 1, Out: 1, Kernel: 3, Stride: 1, Before: 1},
			{In: 2, Out: 6, Kernel: 3, Stride: 1, Before: 3},  // outputs without taps
			{In: 10, Out: 2, Kernel: 3, Stride: 5, Before: 1}, // inputs without outputs
			{In: 8, Out: 4, Kernel: 2, Stride: 2, Before: 0},
			{In: 8, Out: 8, Kernel: 5, Stride: 1, Before: 2},
		} {
			c := convCase{batch: 17, in: 3, out: 3, groups: 3, rows: a, columns: a}
			c.requireDefinition(t, stream, random)
			c.columns = Axis{In: 5, Out: 5, Kernel: 3, Stride: 1, Before: 1}
			c.requireDefinition(t, stream, awkward)
		}
	})
}

// Bands of rows, more input channels than stay near, more tiles than keep their sums at a time.
func TestConv3x3Loops(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		if live == portable {
			t.Skip("the portable path has none of these loops")
		}
		stream := rand.New(rand.NewPCG(9, 9))
		rows := Axis{In: 32, Out: 32, Kernel: 3, Stride: 1, Before: 1}
		large := convCase{batch: 17, in: 9, out: 4, groups: 1, rows: rows, columns: Axis{In: 21, Out: 21, Kernel: 3, Stride: 1, Before: 1}}
		require.Greater(t, large.in*large.rows.In*large.columns.In*Lanes, near3x3)
		large.requireDefinition(t, stream, random)
		small := Axis{In: 3, Out: 2, Kernel: 3, Stride: 2, Before: 1}
		convCase{batch: 17, in: sums3x3 + 6, out: 5, groups: 1, rows: small, columns: small}.requireDefinition(t, stream, random)
		convCase{batch: 17, in: 8, out: 8, groups: 8, rows: rows, columns: rows}.requireDefinition(t, stream, random)
	})
}

// A plan of one block has the same results in a task, alone and where another thread waits that helps.
func TestBlockInATask(t *testing.T) {
	three := Axis{In: 6, Out: 6, Kernel: 3, Stride: 1, Before: 1}
	small := Axis{In: 3, Out: 2, Kernel: 3, Stride: 2, Before: 1}
	five := Axis{In: 6, Out: 6, Kernel: 5, Stride: 1, Before: 2}
	for _, c := range []convCase{
		{batch: Lanes, in: 6, out: 6, groups: 1, rows: three, columns: three},
		{batch: Lanes, in: 6, out: 6, groups: 6, rows: three, columns: three},
		{batch: Lanes, in: 70, out: 50, groups: 1, rows: small, columns: small}, // more tiles than keep their totals at a time
		{batch: Lanes, in: 9, out: 10, groups: 1, rows: five, columns: five},
	} {
		x, dy, w, scale, bias := c.operands(rand.New(rand.NewPCG(10, 10)), random)
		want := c.plain(x, dy, w, scale, bias)
		onEveryPath(t, func(t *testing.T) {
			for threads := 1; threads <= 2; threads++ {
				withThreads(threads, func() {
					got := plain{make([]float32, len(dy)), make([]float32, len(x)), make([]float32, len(w))}
					one := NewConv(3, c.in, c.out, c.groups, c.rows, c.columns).Block()
					beside(func() { one.Forward(got.y, x, w, scale, bias) })
					beside(func() { one.InputGradient(got.dx, dy, w) })
					beside(func() { one.WeightGradient(got.dw, x, dy) })
					requireSame(t, want.y, got.y, "y")
					requireSame(t, want.dx, got.dx, "dx")
					requireSame(t, want.dw, got.dw, "dw")
				})
			}
		})
	}
}

// beside calls do in a task, when the thread of another task waits, if there is one.
func beside(do func()) {
	Parallel(2, func(task int) {
		if task == 1 {
			for i := 0; i < 1<<20 && Waiting() == 0; i++ {
			}
			do()
		}
	})
}

// Kernels of more rows or columns than one outer product or one buffer of sums holds.
func TestConvLargeKernels(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(2, 2))
		for _, k := range []struct{ rows, columns, stride int }{{7, 3, 1}, {13, 1, 2}, {1, 9, 1}, {7, 17, 1}} {
			axis := func(kernel int) Axis {
				return Axis{In: 14, Out: (14+4-kernel)/k.stride + 1, Kernel: kernel, Stride: k.stride, Before: 2}
			}
			c := convCase{batch: 3, in: 3, out: 5, groups: 1, rows: axis(k.rows), columns: axis(k.columns)}
			c.requireDefinition(t, stream, random)
		}
	})
}

// Outputs all of whose taps lie in the padding are +0, inputs that no output uses have a gradient of +0.
func TestConvWithoutTaps(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		axis := Axis{In: 4, Out: 5, Kernel: 1, Stride: 2, Before: 3} // outputs 0, 1 and 4 lie outside, inputs 0 and 2 are skipped
		c := convCase{batch: 1, in: 1, out: 1, groups: 1, rows: axis, columns: axis}
		stream := rand.New(rand.NewPCG(3, 3))
		x, dy, w, scale, bias := c.operands(stream, random)
		scale[0], bias[0] = 1, 0
		want := c.plain(x, dy, w, scale, bias)
		got, _ := c.results(t, x, dy, w, scale, bias)
		requireSame(t, want.y, got.y, "y")
		requireSame(t, want.dx, got.dx, "dx")
		requireSame(t, want.dw, got.dw, "dw")
		requireSame(t, make([]float32, Lanes), got.y[:Lanes], "first output")
		requireSame(t, make([]float32, Lanes), got.dx[:Lanes], "first input")
	})
}

func TestConvThreadCounts(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		c := convCase{batch: 40, in: 5, out: 9, groups: 1, rows: Axis{11, 11, 3, 1, 1}, columns: Axis{9, 5, 3, 2, 1}}
		stream := rand.New(rand.NewPCG(4, 4))
		x, dy, w, scale, bias := c.operands(stream, random)
		var want plain
		var wantBias []float32
		withThreads(1, func() { want, wantBias = c.results(t, x, dy, w, scale, bias) })
		for _, threads := range []int{2, 5} {
			withThreads(threads, func() {
				got, db := c.results(t, x, dy, w, scale, bias)
				requireSame(t, want.y, got.y, "y")
				requireSame(t, want.dx, got.dx, "dx")
				requireSame(t, want.dw, got.dw, "dw")
				requireSame(t, wantBias, db, "db")
			})
		}
	})
}

// A linear layer's weight gradient adds lanes up once for all blocks; the rest is a 1x1 convolution of 1x1 images.
func TestLinearEqualsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(5, 5))
		for range 30 {
			blocks, in, out := 1+stream.IntN(9), 1+stream.IntN(40), 1+stream.IntN(20)
			c := convCase{batch: blocks * Lanes, in: in, out: out, groups: 1, rows: Axis{1, 1, 1, 1, 0}, columns: Axis{1, 1, 1, 1, 0}}
			x, dy, w, scale, bias := c.operands(stream, random)
			want := c.plain(x, dy, w, scale, bias)
			conv := NewLinear(blocks, in, out)
			y, dx, dw, db := make([]float32, len(dy)), make([]float32, len(x)), make([]float32, len(w)), make([]float32, out)
			conv.Forward(y, x, w, scale, bias)
			conv.InputGradient(dx, dy, w)
			conv.WeightGradient(dw, x, dy)
			conv.BiasGradient(db, dy)
			requireSame(t, want.y, y, "y")
			requireSame(t, want.dx, dx, "dx")
			for o := range out {
				var biasLanes [Lanes]float32
				for i := range in {
					var lanes [Lanes]float32
					for n := range blocks {
						for l := range Lanes {
							lanes[l] = float32(fma(float64(dy[(n*out+o)*Lanes+l]), float64(x[(n*in+i)*Lanes+l]), float64(lanes[l])))
						}
					}
					require.Equal(t, halve(&lanes), dw[o*in+i])
				}
				for n := range blocks {
					for l := range Lanes {
						biasLanes[l] += dy[(n*out+o)*Lanes+l]
					}
				}
				require.Equal(t, halve(&biasLanes), db[o])
			}
		}
	})
}

func TestConvRefusesShortSlices(t *testing.T) {
	conv := NewConv(1, 2, 3, 1, Axis{4, 4, 3, 1, 1}, Axis{4, 4, 3, 1, 1})
	x, y, w := make([]float32, 512), make([]float32, 768), make([]float32, 54)
	conv.Forward(y, x, w, nil, nil)
	require.PanicsWithValue(t, "kernel: Conv.Forward: the slice of the shape of x has 511 floats, want 512", func() { conv.Forward(y, x[1:], w, nil, nil) })
	require.PanicsWithValue(t, "kernel: Conv.InputGradient: the slice of the shape of y has 767 floats, want 768", func() { conv.InputGradient(x, y[1:], w) })
	require.PanicsWithValue(t, "kernel: Conv.WeightGradient: the slice of the shape of w has 53 floats, want 54", func() { conv.WeightGradient(w[1:], x, y) })
}

// packed is a golden tensor [batch][...] in blocks.
func packed(c golden.Case, name string) []float32 {
	shape := c.Shape(name)
	n, size := shape[0], len(c.Float32(name))/shape[0]
	dst := make([]float32, Blocks(n)*size*Lanes)
	Pack(dst, c.Float32(name), n, size)
	return dst
}

// requireGolden wants src, packed like the golden tensor, within tolerance times that tensor's largest magnitude.
func requireGolden(t *testing.T, c golden.Case, name string, src []float32, tolerance float64) {
	t.Helper()
	shape := c.Shape(name)
	got := make([]float32, len(c.Float32(name)))
	Unpack(got, src, shape[0], len(got)/shape[0])
	requireNear(t, c.Float32(name), got, tolerance, name)
}

func requireNear(t *testing.T, want, got []float32, tolerance float64, note string) {
	t.Helper()
	require.Len(t, got, len(want), note)
	largest := 0.0
	for _, v := range want {
		largest = max(largest, float64(v), -float64(v))
	}
	for i, w := range want {
		require.InDelta(t, w, got[i], tolerance*largest, "%s: element %d", note, i)
	}
}

func TestConvGolden(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		golden.Run(t, "layers", "conv2d", func(t *testing.T, c golden.Case) {
			x, y, w := c.Shape("x"), c.Shape("y"), c.Shape("w")
			axis := func(d int) Axis {
				return Axis{In: x[d], Out: y[d], Kernel: w[d], Stride: c.Int("stride"), Before: c.Int("pad")}
			}
			conv := NewConv(Blocks(x[0]), x[1], y[1], c.Int("groups"), axis(2), axis(3))
			xs, dys := packed(c, "x"), packed(c, "dy")
			ys, dxs, dws := make([]float32, len(dys)), make([]float32, len(xs)), make([]float32, len(c.Float32("w")))
			var bias []float32
			if c.Bool("bias") {
				bias = c.Float32("b")
				db := make([]float32, len(bias))
				conv.BiasGradient(db, dys)
				requireNear(t, c.Float32("db"), db, 1e-5, "db")
			}
			conv.Forward(ys, xs, c.Float32("w"), nil, bias)
			conv.InputGradient(dxs, dys, c.Float32("w"))
			conv.WeightGradient(dws, xs, dys)
			requireGolden(t, c, "y", ys, 5e-6)
			requireGolden(t, c, "dx", dxs, 5e-6)
			requireNear(t, c.Float32("dw"), dws, 1e-5, "dw")
		})
	})
}

func TestLinearGolden(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		golden.Run(t, "layers", "linear", func(t *testing.T, c golden.Case) {
			xs, dys := packed(c, "x"), packed(c, "dy")
			w, b := c.Float32("w"), c.Float32("b")
			conv := NewLinear(Blocks(c.Shape("x")[0]), c.Shape("x")[1], len(b))
			ys, dxs, dws, dbs := make([]float32, len(dys)), make([]float32, len(xs)), make([]float32, len(w)), make([]float32, len(b))
			conv.Forward(ys, xs, w, nil, b)
			conv.InputGradient(dxs, dys, w)
			conv.WeightGradient(dws, xs, dys)
			conv.BiasGradient(dbs, dys)
			requireGolden(t, c, "y", ys, 2e-6)
			requireGolden(t, c, "dx", dxs, 2e-6)
			requireNear(t, c.Float32("dw"), dws, 2e-6, "dw")
			requireNear(t, c.Float32("db"), dbs, 2e-6, "db")
		})
	})
}

// The bits are pinned, so that builds that do not run side by side (purego, GOAMD64=v3, another machine) are held to
// one another.
func TestPinnedBits(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(6, 6))
		c := convCase{batch: 33, in: 5, out: 6, groups: 1, rows: Axis{9, 5, 3, 2, 1}, columns: Axis{11, 11, 5, 1, 2}}
		xs, ys, ws := c.sizes()
		x, dy, w, scale, bias := even(stream, xs), even(stream, ys), even(stream, ws), even(stream, c.out), even(stream, c.out)
		p, db := c.results(t, x, dy, w, scale, bias)
		hash := fnv.New64a()
		for _, v := range [][]float32{p.y, p.dx, p.dw, db} {
			require.NoError(t, binary.Write(hash, binary.LittleEndian, v))
		}
		u := Uniform{0.01, -20, 30}
		sum := u.StepGradient(p.y, nil, dy, p.y, false)
		require.NoError(t, binary.Write(hash, binary.LittleEndian, p.y))
		require.NoError(t, binary.Write(hash, binary.LittleEndian, sum))
		require.Equal(t, "9f55e8d24b329533", fmt.Sprintf("%x", hash.Sum64()))
	})
}
