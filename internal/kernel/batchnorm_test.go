package kernel

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// normCase is a batch normalization with operands of its shape.
type normCase struct {
	BatchNorm
	x, dy                []float32
	scale, slope, offset []float32 // of every channel
}

func newNormCase(stream *rand.Rand, images, channels, size int, fill func(*rand.Rand, int) []float32) normCase {
	n := Blocks(images) * channels * size * Lanes
	return normCase{BatchNorm{Images: images, Channels: channels, Size: size}, fill(stream, n), fill(stream, n),
		fill(stream, channels), fill(stream, channels), fill(stream, channels)}
}

// randomNormCase has awkward numbers in every other case.
func randomNormCase(stream *rand.Rand) normCase {
	fill := random
	if stream.IntN(2) == 0 {
		fill = awkward
	}
	return newNormCase(stream, 1+stream.IntN(50), 1+stream.IntN(5), 1+stream.IntN(70), fill)
}

// spoil fills the padded lanes with NaN.
func (c normCase) spoil() {
	for i := range c.x {
		if block := i / (c.Channels * c.Size * Lanes); block*Lanes+i%Lanes >= c.Images {
			c.x[i], c.dy[i] = float32(math.NaN()), float32(math.NaN())
		}
	}
}

type normResults struct {
	mean, variance, sum, product []float64
	y, dx                        []float32
}

func (c normCase) results(t *testing.T) normResults {
	wide := func() []float64 { return slices.Repeat([]float64{7}, c.Channels) } // what is there does not matter
	y, yIntact := guarded(t, len(c.x))
	dx, dxIntact := guarded(t, len(c.x))
	r := normResults{wide(), wide(), wide(), wide(), y, dx}
	c.Statistics(r.mean, r.variance, c.x)
	sums := c.NewSums()
	for i := range sums {
		b, k := i/c.Channels, i%c.Channels
		px, pdy := c.at(c.x, b, k), c.at(c.dy, b, k)
		Affine(c.at(y, b, k), px, c.scale[k], c.offset[k])
		NormGradient(c.at(dx, b, k), pdy, px, c.scale[k], c.slope[k], c.offset[k])
		half := len(px) / 2 / Lanes * Lanes
		c.AddGradients(sums, b, k, pdy[:half], px[:half], c.offset[k], true, false)
		c.AddGradients(sums, b, k, pdy[half:], px[half:], c.offset[k], half == 0, true)
	}
	c.Totals(r.sum, r.product, sums)
	yIntact()
	dxIntact()
	return r
}

// plain is the definition of all results.
func (c normCase) plain() normResults {
	r := normResults{y: make([]float32, len(c.x)), dx: make([]float32, len(c.x))}
	place := func(block, channel, i int) int { return ((block*c.Channels+channel)*c.Size + i) * Lanes }
	for channel := range c.Channels {
		ofBlock := func(b int, term func(at int) float32) float64 {
			var wide [Lanes]float64
			for l := range min(Lanes, c.Images-b*Lanes) {
				lane := float32(0)
				for i := range c.Size {
					lane += term(place(b, channel, i) + l)
				}
				wide[l] = float64(lane)
			}
			return halve(&wide)
		}
		total := func(term func(at int) float32) (sum float64) {
			for b := range c.blocks() {
				sum += ofBlock(b, term)
			}
			return sum
		}
		first, n := float64(c.x[place(0, channel, 0)]), float64(c.Images*c.Size)
		var sum, squares float64
		for b := range c.blocks() {
			origin := c.x[place(b, channel, 0)]
			shift, count := float64(origin)-first, float64(min(Lanes, c.Images-b*Lanes)*c.Size)
			s := ofBlock(b, func(at int) float32 { return c.x[at] - origin })
			sum += s + float64(count*shift)
			squares += ofBlock(b, func(at int) float32 { return float32((c.x[at] - origin) * (c.x[at] - origin)) }) + float64(shift*(2*s+float64(count*shift)))
		}
		r.mean = append(r.mean, first+sum/n)
		r.variance = append(r.variance, max(0, squares/n-float64(sum/n*(sum/n))))
		r.sum = append(r.sum, total(func(at int) float32 { return c.dy[at] }))
		r.product = append(r.product, total(func(at int) float32 { return float32(c.dy[at] * (c.x[at] - c.offset[channel])) }))
	}
	for i, v := range c.x {
		k := i / (c.Size * Lanes) % c.Channels
		a, d := float64(c.scale[k]), float64(c.offset[k])
		r.y[i] = float32(fma(float64(v), a, d))
		r.dx[i] = float32(fma(float64(c.dy[i]), a, fma(float64(v), float64(c.slope[k]), d)))
	}
	return r
}

func requireSameResults(t *testing.T, want, got normResults, note string) {
	t.Helper()
	for i, v := range [][2][]float64{{want.mean, got.mean}, {want.variance, got.variance}, {want.sum, got.sum}, {want.product, got.product}} {
		requireSameWide(t, v[0], v[1], fmt.Sprintf("%s: sum %d", note, i))
	}
	requireSame(t, want.y, got.y, note+": y")
	requireSame(t, want.dx, got.dx, note+": dx")
}

// requireSameWide wants equal bits; one NaN is as good as another.
func requireSameWide(t *testing.T, want, got []float64, note string) {
	t.Helper()
	require.Len(t, got, len(want), note)
	for i, w := range want {
		require.True(t, math.Float64bits(w) == math.Float64bits(got[i]) || w != w && got[i] != got[i],
			"%s: element %d is %x, want %x", note, i, got[i], w)
	}
}

// Every path gives the bits of the definition for any number of images and threads, and padded lanes don't show in a sum.
func TestBatchNormEqualsDefinition(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 1))
	for i := range 60 {
		c := randomNormCase(stream)
		c.spoil()
		want := c.plain()
		onEveryPath(t, func(t *testing.T) {
			withThreads(1+i%5, func() { requireSameResults(t, want, c.results(t), fmt.Sprintf("%+v", c.BatchNorm)) })
		})
	}
}

// A plane of this size is a task of its own, smaller ones go several to a task.
func TestBatchNormLargePlanes(t *testing.T) {
	stream := rand.New(rand.NewPCG(2, 2))
	for _, size := range []int{chunk/Lanes - 1, chunk / Lanes, chunk/Lanes + 1, 32 * 32} {
		c := newNormCase(stream, 33, 3, size, random)
		want := c.plain()
		onEveryPath(t, func(t *testing.T) { requireSameResults(t, want, c.results(t), fmt.Sprintf("size %d", size)) })
	}
}

// A mean much larger than the deviation costs no digits.
func TestStatisticsOfDistantMean(t *testing.T) {
	n := BatchNorm{Images: 32, Channels: 1, Size: 4}
	x := make([]float32, 2*4*Lanes)
	for i := range x {
		x[i] = 1<<20 + float32(i%2)
	}
	mean, variance := make([]float64, 1), make([]float64, 1)
	onEveryPath(t, func(t *testing.T) {
		n.Statistics(mean, variance, x)
		require.Equal(t, 1<<20+0.5, mean[0])
		require.Equal(t, 0.25, variance[0])
	})
}

// The bits are the same on every path, at every microarchitecture level and on every machine.
func TestPinnedBatchNormBits(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(7, 7))
		r := newNormCase(stream, 33, 5, 21, even).results(t)
		hash := fnv.New64a()
		for _, v := range []any{r.mean, r.variance, r.sum, r.product, r.y, r.dx} {
			require.NoError(t, binary.Write(hash, binary.LittleEndian, v))
		}
		require.Equal(t, "2c1e318d0851b2b3", fmt.Sprintf("%x", hash.Sum64()))
	})
}
