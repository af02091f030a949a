package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// requantizeCase is a requantizer with what it was made from.
type requantizeCase struct {
	multiplier      [][]int32
	bias            []int64
	shift           []uint8
	zero, low, high int64
	limit           []int64 // [plane]: magnitude of sums that keeps the result below 2^62
}

func randomRequantizer(stream *rand.Rand, planes, channels int) requantizeCase {
	c := requantizeCase{zero: int64(stream.IntN(256)), high: 255}
	for range planes {
		multiplier := make([]int32, channels)
		for i := range multiplier {
			multiplier[i] = int32(stream.Uint32()|1) >> stream.IntN(31)
		}
		c.multiplier = append(c.multiplier, multiplier)
		c.limit = append(c.limit, 1<<31/int64(2*planes))
	}
	for range channels {
		c.bias = append(c.bias, stream.Int64N(1<<61)>>stream.IntN(61)*int64(1-2*stream.IntN(2)))
		c.shift = append(c.shift, uint8(stream.IntN(63)))
	}
	return c
}

// want is the definition.
func (c *requantizeCase) want(channel int, sums [][]int32, at int) int64 {
	v := c.bias[channel]
	for p := range sums {
		v += int64(sums[p][at]) * int64(c.multiplier[p][channel])
	}
	if s := c.shift[channel]; s > 0 {
		whole, rest, half := v>>s, v&(1<<s-1), int64(1)<<(s-1)
		if rest > half || rest == half && whole&1 == 1 {
			whole++
		}
		v = whole
	}
	return min(max(v+c.zero, c.low), c.high)
}

func TestRequantizeEqualsItsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(5, 6))
		for i := range 300 {
			planes, channels, pixels := 1+i%MaxPlanes, 1+stream.IntN(40), 1+stream.IntN(4)
			c := randomRequantizer(stream, planes, channels)
			if i%2 == 0 {
				c.zero, c.low, c.high = stream.Int64N(1<<32)-1<<31, math.MinInt32, math.MaxInt32
			}
			width := ceil(channels, Lanes) * Lanes
			sums := make([][]int32, planes)
			for p := range sums {
				sums[p] = make([]int32, pixels*width+3)[3:]
				for k := range sums[p] {
					sums[p][k] = int32(stream.Int64N(2*c.limit[p]) - c.limit[p])
					if stream.IntN(4) == 0 {
						sums[p][k] = int32(stream.IntN(9) - 4)
					}
				}
			}
			r := NewRequantizer(c.multiplier, c.bias, c.shift, c.zero, c.low, c.high)
			wide, untouched := guardedIntegers[int32](t, (pixels-1)*channels+width)
			r.Wide(wide, channels, sums, width, pixels)
			untouched()
			narrow, untouched := guardedIntegers[uint8](t, (pixels-1)*channels+width)
			r.Bytes(narrow, channels, sums, width, pixels)
			untouched()
			for p := range pixels {
				for channel := range channels {
					want := c.want(channel, sums, p*width+channel)
					require.EqualValues(t, want, wide[p*channels+channel], "case %d, channel %d of %d", i, channel, channels)
					if c.high == 255 {
						require.EqualValues(t, want, narrow[p*channels+channel], "case %d, channel %d of %d", i, channel, channels)
					}
				}
			}
		}
	})
}

// Ties of every shift, on both sides of zero and next to it; a shift of 62 alone tells a bias of 2^62 from one of 2^63.
func TestRequantizeTies(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		for shift := range uint8(63) {
			for _, quotient := range []int64{-3, -2, -1, 0, 1, 2} {
				for _, beside := range []int64{-1, 0, 1} {
					bias := quotient<<shift + int64(1)<<shift>>1 + beside
					if bias <= -1<<62 || bias >= 1<<62 {
						continue
					}
					c := requantizeCase{multiplier: [][]int32{{0}}, bias: []int64{bias}, shift: []uint8{shift}, low: math.MinInt32, high: math.MaxInt32}
					sums := [][]int32{make([]int32, Lanes)}
					out := make([]int32, Lanes)
					NewRequantizer(c.multiplier, c.bias, c.shift, 0, c.low, c.high).Wide(out, 1, sums, 1, 1)
					require.EqualValues(t, c.want(0, sums, 0), out[0], "%d / 2^%d", bias, shift)
				}
			}
		}
	})
}

func TestRequantizeRefusesShortSlices(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		r := NewRequantizer([][]int32{{1, 1}}, []int64{0, 0}, []uint8{0, 0}, 0, 0, 255)
		sums := [][]int32{make([]int32, 18)}
		require.Panics(t, func() { r.Bytes(make([]uint8, 17), 2, sums, 2, 2) })
		require.Panics(t, func() { r.Wide(make([]int32, 17), 2, sums, 2, 2) })
		require.Panics(t, func() { r.Wide(make([]int32, 18), 2, [][]int32{sums[0][:17]}, 2, 2) })
		r.Wide(make([]int32, 18), 2, sums, 2, 2)
		r.Wide(nil, 2, sums, 2, 0)
	})
}

// BenchmarkRequantize is a layer of 16 channels and 1024 pixels.
func BenchmarkRequantize(b *testing.B) {
	defer func(before path) { live = before }(live)
	stream := rand.New(rand.NewPCG(7, 8))
	c := randomRequantizer(stream, 1, 16)
	r := NewRequantizer(c.multiplier, c.bias, c.shift, 0, 0, 255)
	sums, out := [][]int32{make([]int32, 16*1024)}, make([]uint8, 16*1024)
	for live = portable; live <= supported(); live++ {
		b.Run(Path(), func(b *testing.B) {
			for b.Loop() {
				r.Bytes(out, 16, sums, 16, 1024)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(16*1024), "ns/element")
		})
	}
}
