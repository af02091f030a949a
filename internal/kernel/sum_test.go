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

// Every path adds up the magnitudes that the extent has, chunk by chunk, NaN elsewhere or not.
func TestMeanAbsolutePaths(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 15, 16, 17, 100, chunk, chunk + 3, 3*chunk + 16} {
		for _, e := range []Extent{Dense(n), {Full: n / 32 * 16, Lanes: stream.IntN(16)}, {Lanes: 3}, {Full: n / 2, Lanes: 5}, {Full: 2 * n}} {
			x := random(stream, n)
			var sums []float64
			count := 0
			for i, v := range x {
				if i%chunk == 0 {
					sums = append(sums, make([]float64, Lanes)...)
				}
				if !e.has(i) {
					x[i] = float32(math.NaN())
					continue
				}
				sums[i/chunk*Lanes+i%Lanes] += math.Abs(float64(v))
				count++
			}
			want := 0.0
			for i := 0; i < len(sums); i += Lanes {
				want += halve((*[Lanes]float64)(sums[i:]))
			}
			onEveryPath(t, func(t *testing.T) {
				require.Equal(t, want/float64(max(1, count)), MeanAbsolute(x, e), "%d elements, %+v", n, e)
			})
		}
	}
}

func TestImages(t *testing.T) {
	require.Equal(t, Extent{Full: 32 * 7, Lanes: 1}, Images(33, 7))
	require.Equal(t, Extent{Full: 32 * 7}, Images(32, 7))
}

func TestFinite(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		for _, n := range []int{1, 16, 37, chunk + 35} {
			x := make([]float32, n)
			for i := range x {
				x[i] = []float32{math.MaxFloat32, -math.MaxFloat32, 0, float32(math.Copysign(0, -1)), 1e-45}[i%5]
			}
			require.True(t, Finite(x))
			for _, at := range []int{0, n / 2, max(0, n-17), n - 1} {
				was := x[at]
				for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
					x[at] = float32(v)
					require.False(t, Finite(x), "%v at %d of %d", v, at, n)
				}
				x[at] = was
			}
		}
		require.True(t, Finite(nil))
	})
}
