package layers

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
)

// randomRequantizer returns a requantizer that sums of several terms, each below 2^24 times a factor of at most 16, can't
// take to 2^62.
func randomRequantizer(s *random.Stream, planes, parts, channels int) *integer.Requantizer {
	r := &integer.Requantizer{Multiplier: make([][]int32, planes), Min: math.MinInt32 + 1, Max: math.MaxInt32}
	if s.Below(2) == 0 {
		r.Zero, r.Max = int32(s.Below(256)), 255
		r.Min = pick(s, 0, r.Zero)
	}
	for range channels {
		r.Bias = append(r.Bias, int64(s.Uint64())>>pick(s, 2, 2+s.Below(62)))
		r.Shift = append(r.Shift, uint8(s.Below(63)))
		for p := range planes {
			largest := int64(math.MaxInt32) / int64(planes*parts)
			m := int64(s.Below(uint64(2*largest+1))) - largest
			r.Multiplier[p] = append(r.Multiplier[p], int32(pick(s, m, m, m>>s.Below(32), largest, -largest)))
		}
	}
	return r
}

// randomSums are integers below 2^24 in magnitude.
func randomSums(s *random.Stream, n int) []float32 {
	sums := make([]float32, n)
	for i := range sums {
		v := int32(s.Below(2*sumLimit-1)) - (sumLimit - 1)
		sums[i] = float32(pick(s, v, v, v>>s.Below(24), sumLimit-1, 1-sumLimit))
	}
	return sums
}

// The kernel gives what the engine's definition gives.
func TestBlockRequantizerIsTheEngines(t *testing.T) {
	s := random.New(1, "requantizers")
	for range 300 {
		channels, blocks, spatial := 1+int(s.Below(4)), 1+int(s.Below(2)), kernel.Lanes*(1+int(s.Below(3)))
		planes := make([][]part, 1+s.Below(3))
		parts, terms := 1+int(s.Below(3)), [][]float32(nil)
		for p := range planes {
			for range parts {
				planes[p] = append(planes[p], part{factor: pick[int32](s, 1, 16)})
				terms = append(terms, randomSums(s, blocks*channels*spatial))
			}
		}
		r := randomRequantizer(s, len(planes), parts, channels)
		f, fast := &requantize{requantizer: r, planes: planes}, blockRequantizer(r, planes)
		want, got := make([]float32, len(terms[0])), make([]float32, len(terms[0]))
		for from := 0; from < len(want); from += spatial {
			channel := from / spatial % channels
			f.elements(channel, want, terms, from, from+spatial)
			fast.Span(channel, got, terms, from, from+spatial)
		}
		require.Equal(t, want, got)
	}
}

// Negative sums with numbers of their own are for the engine's definition.
func TestBlockRequantizerOfBranches(t *testing.T) {
	r := randomRequantizer(random.New(1, "branches"), 1, 1, 2)
	require.NotNil(t, blockRequantizer(r, [][]part{{{factor: 1}}}))
	r.Negative = &integer.Branch{Multiplier: r.Multiplier, Bias: r.Bias}
	require.Nil(t, blockRequantizer(r, [][]part{{{factor: 1}}}))
	require.Nil(t, blockRequantizer(nil, nil))
}
