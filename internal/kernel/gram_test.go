package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainMoments is [Moments] by definition: panels of samples [sample][i].
func plainMoments(p, q [][]float32) []float64 {
	rows, columns := len(p[0]), len(q[0])
	sums := make([]float64, rows*columns)
	for from := 0; from < len(p); from += PanelSamples {
		for r := range rows {
			for c := range columns {
				sum := 0.0
				for s := from; s < min(from+PanelSamples, len(p)); s++ {
					sum = fma(float64(p[s][r]), float64(q[s][c]), sum)
				}
				sums[r*columns+c] += sum
			}
		}
	}
	return sums
}

// fillPanel puts random samples into a panel and returns them.
func fillPanel(stream *rand.Rand, p *Panel, samples int) [][]float32 {
	p.Reset()
	all := make([][]float32, samples)
	for i := range all {
		all[i] = make([]float32, p.width)
	}
	for p.samples < samples {
		n := min(Lanes, samples-p.samples)
		for i := range p.width {
			var v [Lanes]float32
			for lane := range n {
				v[lane] = float32(stream.NormFloat64())
				all[p.samples+lane][i] = v[lane]
			}
			p.set(i, v[:], n, 1)
		}
		p.samples += n
	}
	return all
}

func TestMomentsFollowTheDocumentedOrder(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		for _, c := range []struct{ rows, columns, samples int }{{1, 1, 1}, {9, 9, 16}, {27, 5, 300}, {101, 16, 256}, {144, 100, 40}, {230, 97, 20}} {
			for _, threads := range []int{1, 3} {
				t.Run(fmt.Sprintf("%dx%d of %d samples on %d threads", c.rows, c.columns, c.samples, threads), func(t *testing.T) {
					stream := rand.New(rand.NewPCG(1, uint64(c.rows)))
					p, q := NewPanel(c.rows), NewPanel(c.columns)
					cross, gram := NewMoments(c.rows, c.columns), NewMoments(c.rows, c.rows)
					var ps, qs [][]float32
					withThreads(threads, func() {
						for left := c.samples; left > 0; left -= PanelSamples {
							ps = append(ps, fillPanel(stream, p, min(left, PanelSamples))...)
							qs = append(qs, fillPanel(stream, q, min(left, PanelSamples))...)
							cross.Add(p, q)
							gram.Add(p, p)
						}
					})
					gram.Mirror()
					require.Equal(t, plainMoments(ps, qs), cross.Sums)
					require.Equal(t, plainMoments(ps, ps), gram.Sums)
					require.Equal(t, c.samples, gram.Samples)
				})
			}
		}
	})
}

func TestPatchesAndResponsesAreThoseOfTheConvolution(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		for seed := range uint64(20) {
			stream := rand.New(rand.NewPCG(seed, 5))
			c := randomCase(stream)
			c.batch = 16
			xs, ys, ws := c.sizes()
			x, w, y := make([]float32, xs), make([]float32, ws), make([]float32, ys)
			for i := range x {
				x[i] = float32(stream.IntN(7) - 3) // sums of integers have no order
			}
			for i := range w {
				w[i] = float32(stream.IntN(7) - 3)
			}
			conv := c.conv()
			conv.Forward(y, x, w, nil, nil)
			out, lanes := c.out/c.groups, 1+stream.IntN(Lanes)
			in, response := NewPanel(conv.PatchWidth()), NewPanel(out)
			group, row, column := stream.IntN(c.groups), stream.IntN(c.rows.Out), stream.IntN(c.columns.Out)
			conv.Patch(in, x, group, row, column, lanes, 0.5)
			conv.Patch(in, x, group, row, column, lanes, 2)
			require.Equal(t, 2*lanes, in.Samples())
			NewResponder(w[group*out*in.width:][:out*in.width], out, in.width).Respond(response, in)
			for o := range out {
				at := (((group*out+o)*c.rows.Out+row)*c.columns.Out + column) * Lanes
				for lane := range lanes {
					require.Equal(t, y[at+lane], 2*response.At(lane, o), c)
					require.Equal(t, 2*y[at+lane], response.At(lanes+lane, o), c)
				}
			}
		}
	})
}

func TestPatchRefuses(t *testing.T) {
	conv, x := NewLinear(1, 2, 3), make([]float32, 2*Lanes)
	p := NewPanel(2)
	for !p.Full() {
		conv.Patch(p, x, 0, 0, 0, Lanes, 1)
	}
	want := "kernel: Conv.Patch: the panel is full, or of another width"
	require.PanicsWithValue(t, want, func() { conv.Patch(p, x, 0, 0, 0, Lanes, 1) })
	require.PanicsWithValue(t, want, func() { conv.Patch(NewPanel(3), x, 0, 0, 0, Lanes, 1) })
}

// A linear layer's only place is row and column 0.
func TestPatchOfALinearLayer(t *testing.T) {
	conv := NewLinear(1, 5, 3)
	x := make([]float32, 5*Lanes)
	for i := range x {
		x[i] = float32(i)
	}
	p := NewPanel(conv.PatchWidth())
	conv.Patch(p, x, 0, 0, 0, 3, 1)
	for lane := range 3 {
		for i := range 5 {
			require.Equal(t, x[i*Lanes+lane], p.At(lane, i))
		}
	}
}

// Sums over integers of a byte are exact.
func TestMomentsOfBytesAreExact(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		p := NewPanel(3)
		for range PanelSamples / Lanes {
			for i := range 3 {
				var v [Lanes]float32
				for lane := range v {
					v[lane] = 255
				}
				p.set(i, v[:], Lanes, 1)
			}
			p.samples += Lanes
		}
		require.True(t, p.Full())
		m := NewMoments(3, 3)
		m.Add(p, p)
		m.Add(p, p)
		require.Equal(t, float64(2*PanelSamples*255*255), m.Sums[0])
	})
}

func BenchmarkGram(b *testing.B) {
	for _, width := range []int{144, 576, 2304, 4608} {
		b.Run(fmt.Sprint(width), func(b *testing.B) {
			p, m := NewPanel(width), NewMoments(width, width)
			fillPanel(rand.New(rand.NewPCG(1, 1)), p, PanelSamples)
			b.ReportAllocs()
			for b.Loop() {
				m.Add(p, p)
			}
			flops := float64(PanelSamples) * float64(width) * float64(width+1)
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
