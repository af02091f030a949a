package integer_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// randomSteps are so many values in ascending order between bounds spread evenly or by octaves.
func randomSteps(random *rand.Rand, values int, octaves bool) *integer.Steps {
	s := &integer.Steps{Values: []int16{0}}
	for i := range values - 1 {
		bound := random.Int32N(1<<24) - 1<<23
		if octaves {
			bound = int32(math.Exp2(20 * random.Float64()))
			bound -= 2 * bound * random.Int32N(2)
		}
		s.Bounds, s.Values = append(s.Bounds, bound), append(s.Values, int16(i+1))
	}
	slices.Sort(s.Bounds)
	return s
}

// Any number of values, whatever the spread of bounds, at every bound and beyond all.
func TestStairsCountBounds(t *testing.T) {
	random := rand.New(rand.NewPCG(71, 0))
	for values := 1; values <= 256; values++ {
		s := randomSteps(random, values, values%2 == 0)
		x := []int32{math.MinInt32, math.MinInt32 + 1, -1, 0, 1, math.MaxInt32 - 1, math.MaxInt32}
		if values > 3 {
			s.Bounds[0], s.Bounds[values-2] = math.MinInt32, math.MaxInt32
		}
		for _, bound := range s.Bounds {
			x = append(x, max(bound, math.MinInt32+1)-1, bound, min(bound, math.MaxInt32-1)+1)
		}
		for range 100 {
			x = append(x, int32(random.Uint32()), random.Int32N(1<<24)-1<<23)
		}
		y := make([]uint8, len(x))
		integer.Climb(s)(y, x)
		for i := range x {
			require.EqualValues(t, below(s.Bounds, x[i]), y[i], "%d of %d values", x[i], values)
		}
	}
}

func BenchmarkStairs(b *testing.B) {
	random := rand.New(rand.NewPCG(72, 0))
	x := make([]int32, 16384)
	for i := range x {
		x[i] = int32(random.NormFloat64() * (1 << 17))
	}
	y := make([]uint8, len(x))
	for _, values := range []int{2, 4, 8, 16, 32, 127, 255} {
		climb := integer.Climb(randomSteps(random, values, true))
		b.Run(fmt.Sprint(values), func(b *testing.B) {
			for b.Loop() {
				climb(y, x)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/element")
		})
	}
}
