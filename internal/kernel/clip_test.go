package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

var infinity = float32(math.Inf(1))

var clips = []Clip{
	{Low: 0, High: 5.9999995, Above: 1},
	{Low: -0.5, High: 0.75, Below: -8, Above: 7, Inner: true, Range: 0.3, Unit: 0.1},
	{Low: -1, High: 1, Below: -1, Above: 1, Inner: true, Range: 3, Unit: 1.0 / 48},
	{Low: -infinity, High: infinity, Below: 3, Above: 4},
	{Low: 0.5, High: -0.5, Below: 3, Above: 4}, // both sides at once: above comes first
	{Low: -1e-45, High: 1e-45, Below: 1e38, Above: -1e38, Inner: true, Range: 1e-45, Unit: 1e38},
}

// plain is the definition; it returns a term of the sum and fills in an element's gradient.
func (c *Clip) plain(dx *float32, level, dy, x float32) float64 {
	slope := float32(0)
	if c.Inner {
		slope = float32(level*c.Unit) - float32(x/c.Range)
	}
	*dx = dy
	if x < c.Low {
		*dx, slope = 0, c.Below
	}
	if x > c.High {
		*dx, slope = 0, c.Above
	}
	return float64(float32(dy * slope))
}

// plainSum is the definition of the whole gradient, dx included.
func (c *Clip) plainSum(dx, levels, dy, x []float32) float64 {
	total := 0.0
	for from := 0; from < len(x); from += Chunk {
		var lanes [Lanes]float64
		for i := from; i < min(len(x), from+Chunk); i++ {
			lanes[i%Lanes] += c.plain(&dx[i], levels[i], dy[i], x[i])
		}
		total += halve(&lanes)
	}
	return total
}

func requireClip(t *testing.T, c Clip, levels, dy, x []float32) {
	t.Helper()
	note := fmt.Sprintf("%+v of %d", c, len(x))
	want := make([]float32, len(x))
	sum := c.plainSum(want, levels, dy, x)
	got, intact := guarded(t, len(x))
	gotSum := c.Gradient(got, levels, dy, x)
	intact()
	requireSame(t, want, got, note)
	require.True(t, math.Float64bits(sum) == math.Float64bits(gotSum) || sum != sum && gotSum != gotSum, "%s: %x, want %x", note, gotSum, sum)
	if !c.Inner {
		clear(got)
		withoutLevels := c.Gradient(got, nil, dy, x)
		requireSame(t, want, got, note+" without levels")
		require.Equal(t, math.Float64bits(gotSum), math.Float64bits(withoutLevels), "%s without levels", note)
	}
}

func TestClipEqualsItsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(41, 42))
		for _, c := range clips {
			for _, n := range lengths() {
				x := random(stream, n)
				for i := range min(n, 6) { // on the bounds and beside them
					b := []float32{c.Low, c.High}[i%2]
					x[n-1-i] = []float32{b, math.Nextafter32(b, -infinity), math.Nextafter32(b, infinity)}[i/2]
				}
				levels := make([]float32, n+1)[1:]
				for i := range levels {
					levels[i] = float32(stream.IntN(32) - 16)
				}
				requireClip(t, c, levels, random(stream, n), x)
				requireClip(t, c, levels, awkward(stream, n), awkward(stream, n))
			}
		}
	})
}

func TestClipNaN(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		for _, c := range clips[:2] {
			x, dx := make([]float32, 40), make([]float32, 40)
			x[3], x[37] = float32(math.NaN()), float32(math.NaN())
			sum := c.Gradient(dx, x, onesLike(x), x)
			require.Equal(t, onesLike(x), dx)
			require.Equal(t, c.Inner, math.IsNaN(sum))
		}
	})
}

func TestClipRefusesShortSlices(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		c, long, short := clips[1], make([]float32, 32), make([]float32, 31)[:31:31]
		require.Panics(t, func() { c.Gradient(short, long, long, long) })
		require.Panics(t, func() { c.Gradient(long, short, long, long) })
		require.Panics(t, func() { c.Gradient(long, long, short, long) })
		require.Panics(t, func() { c.Gradient(long, nil, long, long) })
	})
}

func TestClipAllocatesNothing(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		x, dx := make([]float32, Chunk), make([]float32, Chunk)
		for _, c := range clips {
			require.Zero(t, testing.AllocsPerRun(10, func() { c.Gradient(dx, x, x, x) }))
		}
	})
}

func BenchmarkClip(b *testing.B) {
	defer func(before path) { live = before }(live)
	stream := rand.New(rand.NewPCG(43, 44))
	for live = portable; live <= supported(); live++ {
		for _, size := range []int{1 << 14, benchElements} {
			x, dy, dx, levels := aligned(stream, size), aligned(stream, size), make([]float32, size), make([]float32, size)
			for _, c := range clips[:2] {
				b.Run(fmt.Sprintf("inner %v/%s/%d", c.Inner, Path(), size), func(b *testing.B) {
					bytes := 12
					if c.Inner {
						bytes = 16
					}
					for b.Loop() {
						c.Gradient(dx, levels, dy, x)
					}
					reportElements(b, size, bytes)
				})
			}
		}
	}
}
