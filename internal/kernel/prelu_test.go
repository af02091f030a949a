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

// preluCase is a parametric rectifier with operands of its shape.
type preluCase struct {
	PReLU
	x, dy, slope []float32
}

// newPReLUCase shares operands with batch normalization's cases.
func newPReLUCase(n normCase) preluCase {
	return preluCase{PReLU{Images: n.Images, Channels: n.Channels, Size: n.Size}, n.x, n.dy, n.scale}
}

type preluResults struct {
	y, dx []float32
	sum   []float64
}

func (c preluCase) results(t *testing.T) preluResults {
	y, yIntact := guarded(t, len(c.x))
	dx, dxIntact := guarded(t, len(c.x))
	r := preluResults{y, dx, make([]float64, c.Channels)}
	for i := range r.sum {
		r.sum[i] = 7 // what is there does not matter
	}
	c.Forward(y, c.x, c.slope)
	c.InputGradient(dx, c.dy, c.x, c.slope)
	c.SlopeGradient(r.sum, c.dy, c.x)
	yIntact()
	dxIntact()
	return r
}

// counts says whether a slope applies to v: where it is at most 0; a NaN goes by its sign.
func counts(v float32) bool { return v <= 0 || v != v && math.Signbit(float64(v)) }

// plain is the definition of all results.
func (c preluCase) plain() preluResults {
	r := preluResults{make([]float32, len(c.x)), make([]float32, len(c.x)), make([]float64, c.Channels)}
	for i, v := range c.x {
		r.y[i], r.dx[i] = v, c.dy[i]
		if slope := c.slope[i/(c.Size*Lanes)%c.Channels]; counts(v) {
			r.y[i], r.dx[i] = v*slope, c.dy[i]*slope
		}
	}
	for at := range len(c.x) / (c.Size * Lanes) {
		var wide [Lanes]float64
		for l := range min(Lanes, c.Images-at/c.Channels*Lanes) {
			lane := float32(0)
			for i := range c.Size {
				if k := (at*c.Size+i)*Lanes + l; counts(c.x[k]) {
					lane += float32(c.x[k] * c.dy[k])
				}
			}
			wide[l] = float64(lane)
		}
		r.sum[at%c.Channels] += halve(&wide)
	}
	return r
}

func (r preluResults) requireSame(t *testing.T, got preluResults, note string) {
	t.Helper()
	requireSame(t, r.y, got.y, note+": y")
	requireSame(t, r.dx, got.dx, note+": dx")
	requireSameWide(t, r.sum, got.sum, note+": slope")
}

// The bits are those of the definition for any number of images and threads, and padded lanes don't show in a sum.
func TestPReLUEqualsDefinition(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 1))
	for i := range 60 {
		n := randomNormCase(stream)
		n.spoil()
		c := newPReLUCase(n)
		want := c.plain()
		withThreads(1+i%5, func() { want.requireSame(t, c.results(t), fmt.Sprintf("%+v", c.PReLU)) })
	}
}

// Zeros of both signs count as not positive, the smallest positive number as positive.
func TestPReLUAtZero(t *testing.T) {
	least, infinite := float32(math.SmallestNonzeroFloat32), float32(math.Inf(1))
	c := preluCase{PReLU{Images: 8, Channels: 1, Size: 1}, make([]float32, Lanes), make([]float32, Lanes), []float32{0.5}}
	copy(c.x, []float32{0, float32(math.Copysign(0, -1)), least, -least, 1, -1, infinite, -infinite})
	for i := range c.dy {
		c.dy[i] = 4
	}
	r := c.results(t)
	c.plain().requireSame(t, r, "special numbers")
	require.Equal(t, []float32{2, 2, 4, 2, 4, 2, 4, 2}, r.dx[:8])
	require.Equal(t, []float32{0, 0, least, 0, 1, -0.5, infinite, -infinite}, r.y[:8])
}

// The bits are the same at every microarchitecture level and on every machine.
func TestPinnedPReLUBits(t *testing.T) {
	r := newPReLUCase(newNormCase(rand.New(rand.NewPCG(7, 7)), 33, 5, 21, even)).results(t)
	hash := fnv.New64a()
	for _, v := range []any{r.y, r.dx, r.sum} {
		require.NoError(t, binary.Write(hash, binary.LittleEndian, v))
	}
	require.Equal(t, "8bb0ca68c5d3b470", fmt.Sprintf("%x", hash.Sum64()))
}

func BenchmarkPReLU(b *testing.B) {
	c := newPReLUCase(newNormCase(rand.New(rand.NewPCG(1, 1)), 64, 16, 32*32, random))
	y, sum := make([]float32, len(c.x)), make([]float64, c.Channels)
	for name, do := range map[string]func(){
		"forward": func() { c.Forward(y, c.x, c.slope) },
		"input":   func() { c.InputGradient(y, c.dy, c.x, c.slope) },
		"slope":   func() { c.SlopeGradient(sum, c.dy, c.x) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(4 * len(c.x)))
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}
