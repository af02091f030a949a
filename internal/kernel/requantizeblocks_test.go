package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// blockCase is a requantizer of blocks with what it was made from.
type blockCase struct {
	requantizeCase
	factors []float32
}

// sums returns sums of a channel in terms, within the limits and with ties among them.
func (c *blockCase) sums(stream *rand.Rand, terms, n int) [][]float32 {
	x := make([][]float32, terms)
	for k := range x {
		x[k] = make([]float32, n+3)[3:]
		for i := range x[k] {
			x[k][i] = float32(stream.IntN(1<<25+1) - 1<<24)
			if stream.IntN(4) == 0 {
				x[k][i] = float32(stream.IntN(9) - 4)
			}
		}
	}
	return x
}

// want is the definition.
func (c *blockCase) want(channel int, x [][]float32, at int) float32 {
	sums := make([][]int32, len(x))
	for k := range x {
		sums[k] = []int32{int32(x[k][at]) * int32(c.factors[k])}
	}
	return float32(c.requantizeCase.want(channel, sums, 0))
}

func randomBlockCase(stream *rand.Rand, terms, channels int) blockCase {
	c := blockCase{requantizeCase: randomRequantizer(stream, terms, channels)}
	c.zero, c.low, c.high = 0, -stream.Int64N(1<<31), stream.Int64N(1<<31)
	if stream.IntN(2) == 0 {
		c.low, c.high = -stream.Int64N(256), stream.Int64N(256)
	}
	for k := range terms {
		// Products of 2^24, factors and multipliers stay below 2^61 together.
		c.factors = append(c.factors, float32(int(1)<<stream.IntN(5)))
		for i := range c.multiplier[k] {
			c.multiplier[k][i] >>= ceil(terms-1, 4)
		}
	}
	return c
}

// pack makes the requantizer.
func (c *blockCase) pack() *BlockRequantizer {
	terms := make([]BlockTerm, len(c.factors))
	for k := range terms {
		terms[k] = BlockTerm{c.multiplier[k], c.factors[k]}
	}
	return NewBlockRequantizer(terms, c.bias, c.shift, int32(c.low), int32(c.high))
}

// all requantizes blocks of channels of so many elements.
func (c *blockCase) all(y []float32, size int, x [][]float32) {
	r := c.pack()
	for from := 0; from < len(y); from += size {
		r.Span(from/size%len(c.bias), y, x, from, from+size)
	}
}

func TestRequantizeBlocksEqualsItsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(9, 10))
		for i := range 200 {
			terms, channels, blocks, size := 1+i%5, 1+stream.IntN(5), 1+stream.IntN(3), Lanes*(1+stream.IntN(7))
			c := randomBlockCase(stream, terms, channels)
			x := c.sums(stream, terms, blocks*channels*size)
			y, untouched := guarded(t, blocks*channels*size)
			c.all(y, size, x)
			untouched()
			for k := range y {
				channel := k / size % channels
				require.Equal(t, c.want(channel, x, k), y[k], "case %d, channel %d of %d, element %d", i, channel, channels, k)
			}
			c.all(x[0], size, x)
			requireSame(t, y, x[0], "in place of a term")
		}
	})
}

// Ties of every shift, on both sides of zero and next to it; a shift of 62 alone tells a bias of 2^62 from one of 2^63.
func TestRequantizeBlocksTies(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		x, y := [][]float32{make([]float32, Lanes)}, make([]float32, Lanes)
		for shift := range uint8(63) {
			for _, quotient := range []int64{-3, -2, -1, 0, 1, 2} {
				for _, beside := range []int64{-1, 0, 1} {
					bias := quotient<<shift + int64(1)<<shift>>1 + beside
					if bias <= -1<<62 || bias >= 1<<62 {
						continue
					}
					c := blockCase{requantizeCase{multiplier: [][]int32{{0}}, bias: []int64{bias}, shift: []uint8{shift}, low: math.MinInt32, high: math.MaxInt32}, []float32{1}}
					c.pack().Span(0, y, x, 0, Lanes)
					for _, got := range y {
						require.Equal(t, c.want(0, x, 0), got, "%d / 2^%d", bias, shift)
					}
				}
			}
		}
	})
}

func TestRequantizeBlocksRefuses(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		r := NewBlockRequantizer([]BlockTerm{{[]int32{1, 1}, 1}}, []int64{0, 0}, []uint8{0, 0}, 0, 255)
		x := make([]float32, 2*Lanes)
		r.Span(1, x, [][]float32{x}, Lanes, 2*Lanes)
		r.Span(1, x, [][]float32{x}, 2*Lanes, 2*Lanes)
		message := "kernel: BlockRequantizer: %d terms of %d elements, want 1 terms and whole vectors"
		require.PanicsWithValue(t, fmt.Sprintf(message, 2, 32), func() { r.Span(0, x, [][]float32{x, x}, 0, 32) })
		require.PanicsWithValue(t, fmt.Sprintf(message, 1, 24), func() { r.Span(0, x, [][]float32{x}, 0, 24) })
		require.Panics(t, func() { r.Span(0, x[:31], [][]float32{x}, 16, 32) })
		require.Panics(t, func() { r.Span(0, x, [][]float32{x[:31]}, 16, 32) })
		require.Panics(t, func() { r.Span(0, x, [][]float32{x}, -16, 16) })
		require.Panics(t, func() { r.Span(0, x, [][]float32{x}, 32, 16) })
		require.Panics(t, func() { r.Span(2, x, [][]float32{x}, 0, 32) })
	})
}

// BenchmarkRequantizeBlocks is a layer of 16 channels and 1024 pixels for a block of images.
func BenchmarkRequantizeBlocks(b *testing.B) {
	defer func(before path) { live = before }(live)
	stream := rand.New(rand.NewPCG(13, 14))
	c := randomBlockCase(stream, 1, 16)
	x, y := c.sums(stream, 1, 16*1024*Lanes), make([]float32, 16*1024*Lanes)
	for live = portable; live <= supported(); live++ {
		b.Run(Path(), func(b *testing.B) {
			for b.Loop() {
				c.all(y, 1024*Lanes, x)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(y)), "ns/element")
		})
	}
}
