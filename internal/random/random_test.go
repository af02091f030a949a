package random

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Recorded runs depend on these values: a change of them is a change of every training result.
func TestFirstValuesArePinned(t *testing.T) {
	s := New(7, "init")
	require.Equal(t, []uint64{0x86b1c292074cc6ca, 0x220518f2471e3204, 0x9fde503ef11e1bc8}, []uint64{s.Uint64(), s.Uint64(), s.Uint64()})
	require.Equal(t, []uint64{4, 994, 3563316250123476107}, []uint64{s.Below(10), s.Below(1000), s.Below(1 << 63)})
	require.Equal(t, uint64(0x3fd1fbe033340664), math.Float64bits(s.Float64()))
	require.Equal(t, uint32(0x3d09d060), math.Float32bits(s.Float32()))
	require.Equal(t, []uint64{0x3fcb455220df7e19, 0xbfe380984d1b0bdb, 0xbfcdc7d9299431f7}, []uint64{
		math.Float64bits(s.Normal()), math.Float64bits(s.Normal()), math.Float64bits(s.Normal()),
	})
	require.Equal(t, []int{8, 3, 6, 0, 2, 7, 9, 1, 5, 4}, s.Permutation(10))
}

func TestStreamsDifferBySeedAndName(t *testing.T) {
	first := map[uint64]bool{}
	for _, s := range []*Stream{New(0, ""), New(1, ""), New(0, "init"), New(1, "init"), New(0, "shuffle/0"), New(0, "shuffle/1")} {
		first[s.Uint64()] = true
	}
	require.Len(t, first, 6)
	require.Equal(t, New(3, "augment").Uint64(), New(3, "augment").Uint64())
}

func TestBelow(t *testing.T) {
	s := New(1, "below")
	for range 100 {
		require.Zero(t, s.Below(1))
		require.Less(t, s.Below(1<<63+1), uint64(1<<63+1)) // rejects almost half of the engine's outputs
	}
	const n, draws = 6, 60_000
	var counts [n]float64
	for range draws {
		counts[s.Below(n)]++
	}
	chi := 0.0
	for _, c := range counts {
		chi += (c - draws/n) * (c - draws/n) / (draws / n)
	}
	require.Less(t, chi, 20.5) // 5 degrees of freedom: exceeded once in a thousand seeds
	require.Panics(t, func() { s.Below(0) })
}

func TestUniformRange(t *testing.T) {
	s := New(1, "uniform")
	sum := 0.0
	const draws = 100_000
	for range draws {
		x, y := s.Float64(), s.Float32()
		require.True(t, x >= 0 && x < 1 && y >= 0 && y < 1)
		sum += x + float64(y)
	}
	require.InDelta(t, 0.5, sum/(2*draws), 0.003)
}

func TestNormalMoments(t *testing.T) {
	s := New(1, "normal")
	var moments [5]float64
	const draws = 200_000
	for range draws {
		x := s.Normal()
		power := 1.0
		for i := range moments {
			moments[i] += power / draws
			power *= x
		}
	}
	for i, want := range []float64{1, 0, 1, 0, 3} {
		require.InDelta(t, want, moments[i], 0.06, "moment %d", i)
	}
}

func TestPermutation(t *testing.T) {
	s := New(1, "permutation")
	require.Empty(t, s.Permutation(0))
	counts := map[[3]int]int{}
	for range 6000 {
		counts[[3]int(s.Permutation(3))]++
	}
	require.Len(t, counts, 6)
	for order, count := range counts {
		require.InDelta(t, 1000, count, 130, "%v", order)
	}
}

func TestStateRoundTrip(t *testing.T) {
	s := New(9, "augment")
	s.Normal()
	saved, err := json.Marshal(s)
	require.NoError(t, err)
	want := []float64{s.Normal(), s.Float64(), s.Normal()}
	var restored Stream
	require.NoError(t, json.Unmarshal(saved, &restored))
	require.Equal(t, want, []float64{restored.Normal(), restored.Float64(), restored.Normal()})
}

func TestUnmarshalTextRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"prefix":        "abc:00112233445566778899aabbccddeeff",
		"too short":     "pcg:00112233445566778899aabbccddee",
		"too long":      "pcg:00112233445566778899aabbccddeeff00",
		"not hex":       "pcg:00112233445566778899aabbccddeezz",
		"binary prefix": "pcg\x00" + "00112233445566778899aabbccddeeff",
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, new(Stream).UnmarshalText([]byte(text)), "random: ")
		})
	}
}

func BenchmarkNormal(b *testing.B) {
	s := New(1, "benchmark")
	for b.Loop() {
		s.Normal()
	}
}

func BenchmarkPermutation60000(b *testing.B) {
	s := New(1, "benchmark")
	for b.Loop() {
		s.Permutation(60000)
	}
}
