package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainRange is the definition of Range.
func plainRange(x []float32, e Extent) (low, high float32) {
	first := true
	for i, v := range x {
		switch {
		case !e.has(i):
		case v != v:
			return v, v
		case first:
			low, high, first = v, v, false
		default:
			low, high = min(low, v), max(high, v)
		}
	}
	return low, high
}

func TestRangeEqualsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(1, 1))
		for _, n := range []int{0, 1, 15, 16, 17, 100, 4096, 4099, 3*4096 + 16} {
			for range 10 {
				for _, e := range []Extent{Dense(n), {Full: n / 32 * 16, Lanes: stream.IntN(16)}, {Lanes: 3}} {
					x := random(stream, n)
					if n > 0 && stream.IntN(2) == 0 { // a spike that counts only where the extent has it
						x[stream.IntN(n)] = []float32{100, -100, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))}[stream.IntN(5)]
					}
					wantLow, wantHigh := plainRange(x, e)
					low, high := Range(x, e)
					requireSame(t, []float32{wantLow, wantHigh}, []float32{low, high}, "range")
				}
			}
		}
	})
}

func TestRangeOfSpecialValues(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		inf, negative := float32(math.Inf(1)), float32(math.Copysign(0, -1))
		for _, c := range []struct {
			x         []float32
			low, high float32
		}{
			{nil, 0, 0},
			{[]float32{negative, negative}, 0, 0},
			{[]float32{inf, inf}, inf, inf},
			{[]float32{-inf}, -inf, -inf},
			{[]float32{math.MaxFloat32, -math.MaxFloat32}, -math.MaxFloat32, math.MaxFloat32},
			{make([]float32, 50), 0, 0},
		} {
			low, high := Range(c.x, Dense(len(c.x)))
			requireSame(t, []float32{c.low, c.high}, []float32{low, high}, "range")
		}
		low, high := Range(make([]float32, 32), Extent{})
		requireSame(t, []float32{0, 0}, []float32{low, high}, "no element")
	})
}

func TestMeanAbsolute(t *testing.T) {
	x := make([]float32, 3*Lanes)
	for i := range x {
		x[i] = float32(1 - 2*(i%2))
	}
	require.Equal(t, 1.0, MeanAbsolute(x, Dense(len(x))))
	x[40] = 1000
	require.Equal(t, 1.0, MeanAbsolute(x, Extent{Full: 2 * Lanes, Lanes: 8}), "lane 8 of the last block is padding")
	require.Equal(t, (40.0+1000)/41, MeanAbsolute(x, Extent{Full: 2 * Lanes, Lanes: 9}))
	require.Zero(t, MeanAbsolute(x, Extent{}))
}

func TestImages(t *testing.T) {
	require.Equal(t, Extent{Full: 32 * 7, Lanes: 1}, Images(33, 7))
	require.Equal(t, Extent{Full: 32 * 7}, Images(32, 7))
}

func TestFinite(t *testing.T) {
	x := make([]float32, 100)
	require.True(t, Finite(x))
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		x[99] = float32(v)
		require.False(t, Finite(x), "%v", v)
	}
	x[99] = math.MaxFloat32
	require.True(t, Finite(x))
}
