package quantops

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

// newTestNNIE makes a quantizer of weights.
func newTestNNIE(t *testing.T, method string) *nnie {
	t.Helper()
	q, err := MustParse(method).Quantizer(Target{Role: Weights, Channels: 1, Size: 1, Signed: true})
	require.NoError(t, err)
	return q.(*nnie)
}

func TestNNIEVectors(t *testing.T) {
	golden.Run(t, "nnie", "nnie8", func(t *testing.T, c golden.Case) {
		exact, integers := newTestNNIE(t, "nnie:8,exact"), newTestNNIE(t, "nnie:8")
		x, theta := c.Float32("x"), c.Float32("data_max")
		levels, dx := make([]float32, len(x)), make([]float32, len(x))
		exact.Levels(levels, x, theta)
		w, err := integers.Encode(x, theta, []int{1, len(x)})
		require.NoError(t, err)
		y, code, wire := c.Float32("y"), c.Integers("code"), c.Integers("byte")
		for i := range x {
			if c.Has("near_tie") && c.Integers("near_tie")[i] != 0 {
				require.InDelta(t, nnieRank(code[i]), nnieRank(signedNNIE(w.Codes[i])), 1, "code of %v", x[i])
				continue
			}
			require.InDelta(t, y[i], levels[i], 1e-6*math.Abs(float64(y[i])), "value of %v", x[i])
			require.EqualValues(t, wire[i], w.Codes[i], "byte of %v", x[i])
			require.Equal(t, code[i], signedNNIE(w.Codes[i]), "code of %v", x[i])
		}
		exact.Backward(dx, nil, c.Float32("dy"), x, theta)
		require.Equal(t, c.Float32("dx"), dx)
		if c.Has("levels_f64") && theta[0] >= nnieSmallest {
			all := exact.stairs(theta[0])
			for i, want := range c.Float64("levels_f64") {
				at := append(all.bounds, float32(math.Inf(1)))[i]
				require.InDelta(t, want, all.steps.Level(at), 1e-6*math.Abs(want), "level %d", i)
			}
		}
	})
}

// nnieRank counts the levels of the vectors' codes: zero lies between -1 and +0.
func nnieRank(code int64) float64 {
	switch {
	case code == -128:
		return 0
	case code >= 0:
		return float64(code + 1)
	}
	return float64(code)
}

// signedNNIE is the vectors' other notation of a byte: +i, -i, and -128 for zero.
func signedNNIE(b uint16) int64 {
	switch {
	case b == 128:
		return -128
	case b > 128:
		return -int64(b - 128)
	}
	return int64(b)
}

// The vendor's own test vector.
func TestNNIEPublishedVector(t *testing.T) {
	q := newTestNNIE(t, "nnie:8,exact")
	x := []float32{-9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	theta, levels := make([]float32, 1), make([]float32, len(x))
	q.Fit(theta, x, kernel.Dense(len(x)), 0)
	q.Levels(levels, x, theta)
	require.Equal(t, []float32{-8.7240619659, 0, 1, 2, 2.9536523819, 4, 4.9674310684, 5.9073047638, 7.0250086784, 8, 8.7240619659}, levels)
}

// defineNNIE is the published formula in float64, with package math, of the place of x among the levels of position m.
func defineNNIE(m int, x float64) int {
	d, h := math.Exp2(float64(m)/16), math.Log(256)/128
	switch {
	case -math.Exp2(float64(m-143)/16) < x && x <= math.Exp2(float64(m-144)/16):
		return 127
	case x > 0:
		return 128 + int(math.Min(127, math.Max(0, math.RoundToEven(math.Log(256*x/d)/h))))
	}
	return 127 - int(math.Min(127, math.Max(1, math.RoundToEven(math.Log(-256*x/d)/h))))
}

// A float32 and the next one on both sides of every boundary, for every position that a largest magnitude can give the levels, have
// the codes of the published formula; so has every other number, since codes ascend.
func TestNNIEBoundaries(t *testing.T) {
	t.Parallel()
	q := newTestNNIE(t, "nnie:8")
	last := math.Inf(-1)
	for position := nniePosition(nnieSmallest); position <= nniePosition(math.MaxFloat32); position++ {
		for i, bound := range q.bounds(position) {
			if defineNNIE(position+1, float64(bound)) != i || defineNNIE(position+1, float64(math.Nextafter32(bound, math.MaxFloat32))) != i+1 {
				require.Failf(t, "boundary", "%d of position %d: %v", i, position, bound)
			}
		}
		require.Greater(t, nniePower(2*position), last)
		last = nniePower(2 * position)
	}
}

// The position is floor(16·log2 max), also where max is a power of two or a float32 beside one of the levels.
func TestNNIEPosition(t *testing.T) {
	for _, c := range []struct {
		reach float32
		want  int
	}{{1, 0}, {8, 48}, {9, 50}, {math.Nextafter32(8, 0), 47}, {1.2418577, 4}, {1.2418580, 5}, {0x1p-40, -640}, {math.MaxFloat32, 2047}} {
		require.Equal(t, c.want, nniePosition(c.reach), "%v", c.reach)
	}
	for k := -64; k < 64; k++ {
		at := nnieFloor(math.Exp2(float64(k) / 16))
		want := k - 1
		if k%16 == 0 {
			want = k
		}
		require.Equal(t, want, nniePosition(at), "%v", at)
		require.Equal(t, k, nniePosition(math.Nextafter32(at, 100)), "above %v", at)
	}
}

// At every number of bits a number gets the level nearest to it in the ratio, and zero below half of the smallest.
func TestNNIENearest(t *testing.T) {
	t.Parallel()
	for bits := 3; bits <= 8; bits++ {
		q := newTestNNIE(t, fmt.Sprintf("nnie:%d,exact", bits))
		s := q.stairs(3.7)
		x := noise(5000, uint64(bits))
		for i, v := range x {
			v *= float32(math.Exp2(float64(-(i % 12))))
			magnitude, sign, first := math.Abs(float64(v)), 1.0, 0
			if v < 0 {
				sign, first = -1, 1
			}
			best, smallest := math.Inf(1), nniePower(q.exponent(s.position, first))
			for k := first; k < q.positives(); k++ {
				level := nniePower(q.exponent(s.position, k))
				if math.Abs(math.Log(level/magnitude)) < math.Abs(math.Log(best/magnitude)) {
					best = level
				}
			}
			if magnitude <= smallest/2 {
				best = 0
			}
			require.InDelta(t, sign*best, s.steps.Level(v), 1e-6*best, "%d bits: %v", bits, v)
		}
	}
}

// The steps to the octave are those of least squared error for normally distributed numbers.
func TestNNIESteps(t *testing.T) {
	t.Parallel()
	x := noise(4096, 21)
	for bits := 3; bits <= 8; bits++ {
		chosen, least, best := 0, math.Inf(1), 0
		for _, steps := range []int{1, 2, 4, 8, 16} {
			q := newTestNNIE(t, fmt.Sprintf("nnie:%d,exact", bits))
			if q.step == nnieOctave/steps {
				chosen = steps
			}
			q.step = nnieOctave / steps
			theta, levels, sum := make([]float32, 1), make([]float32, len(x)), 0.0
			q.Fit(theta, x, kernel.Dense(len(x)), 0)
			q.Levels(levels, x, theta)
			for i, v := range x {
				sum += math.Pow(float64(v-levels[i]), 2)
			}
			if sum < least {
				least, best = sum, steps
			}
		}
		require.Equal(t, chosen, best, "%d bits", bits)
	}
}

// Integer levels are what the definition's are worth to within half a unit, and two signed bytes hold them.
func TestNNIEIntegers(t *testing.T) {
	for bits := 3; bits <= 8; bits++ {
		q, real := newTestNNIE(t, fmt.Sprintf("nnie:%d", bits)), newTestNNIE(t, fmt.Sprintf("nnie:%d,exact", bits))
		s, exact := q.stairs(0.7), real.stairs(0.7)
		require.Len(t, q.levels, 1<<bits)
		require.EqualValues(t, nnieLargest, q.levels[len(q.levels)-1])
		for i, bound := range s.bounds {
			require.Less(t, q.levels[i], q.levels[i+1])
			want := exact.steps.Level(bound)
			require.InDelta(t, want, s.steps.Level(bound)*s.unit, 0.5001*float64(s.unit))
			require.InDelta(t, want, s.steps.Level(bound)*s.unit, 0.004*math.Abs(float64(want)))
		}
		planes := q.planes(1, 1)
		for place, level := range q.levels {
			code := q.code(place)
			require.Equal(t, level, 256*int32(planes[0].Table[code])+int32(planes[1].Table[code]))
		}
	}
}

// Real levels have no integers.
func TestNNIEExactRefuses(t *testing.T) {
	q := newTestNNIE(t, "nnie:8,exact")
	_, err := q.Encode([]float32{1}, []float32{1}, []int{1, 1})
	require.ErrorIs(t, err, errNNIEExact)
	_, err = q.Grid([]float32{1})
	require.ErrorIs(t, err, errNNIEExact)
}

// A table of activations gives every number the level that training gives it.
func TestNNIEGrid(t *testing.T) {
	t.Parallel()
	for _, reach := range []float32{0, 0.3, 2.7, 1e37} {
		made, err := MustParse("nnie:5").Quantizer(Target{Role: Activations, Channels: 1, Size: 1})
		require.NoError(t, err)
		q, theta := made.(*nnie), []float32{reach}
		g, err := q.Grid(theta)
		require.NoError(t, err)
		require.Zero(t, g.Table.Levels[g.Zero])
		require.EqualValues(t, []int32{0, 31}, []int32{g.Min, g.Max})
		x, levels, units := noise(1000, 23), make([]float32, 1000), make([]float32, 1)
		q.Levels(levels, x, theta)
		q.Units(units, theta)
		require.Equal(t, units[0], g.Scale)
		for i, v := range x {
			code := 0
			for _, bound := range g.Table.Bounds {
				if bound < v {
					code++
				}
			}
			require.EqualValues(t, g.Table.Levels[code], levels[i])
		}
	}
}

// What is too small, or was never seen, is zero at any size.
func TestNNIEZero(t *testing.T) {
	q := newTestNNIE(t, "nnie:8")
	x := []float32{0, 1, -1, 1e38, -1e38, 1e-40}
	for _, reach := range []float32{0, 5e-16} {
		levels, units := make([]float32, len(x)), make([]float32, 1)
		q.Levels(levels, x, []float32{reach})
		require.Equal(t, make([]float32, len(x)), levels)
		q.Units(units, []float32{reach})
		require.EqualValues(t, smallestScale, units[0])
	}
	bounds := q.bounds(nnieNowhere)
	for i := range bounds[1:] {
		require.Less(t, bounds[i], bounds[i+1])
	}
}

// Goroutines that compute with different parameters don't disturb each other.
func TestNNIEConcurrent(t *testing.T) {
	q := newTestNNIE(t, "nnie:8")
	x := noise(1000, 22)
	var done sync.WaitGroup
	for g := range 8 {
		theta := []float32{float32(math.Exp2(float64(g) / 3))}
		want := make([]float32, len(x))
		newTestNNIE(t, "nnie:8").Levels(want, x, theta)
		done.Go(func() {
			for range 50 {
				got := make([]float32, len(x))
				q.Levels(got, x, theta)
				require.Equal(t, want, got)
			}
		})
	}
	done.Wait()
}

// The largest activation follows the batches as linear's range does, and moves in training.
func TestNNIERunningMaximum(t *testing.T) {
	fit := func(method string) *subject {
		q, err := MustParse(method).Quantizer(Target{Role: Activations, Channels: 1, Size: 2})
		require.NoError(t, err)
		s := &subject{Quantizer: q, theta: []float32{9}}
		for i, x := range [][]float32{{-1, 2}, {-4, 1}} {
			q.Fit(s.theta, x, kernel.Dense(len(x)), i)
		}
		return s
	}
	s := fit("nnie:8,constant=0.5")
	require.Equal(t, []float32{3}, s.theta)
	s.Quantizer.(RangeFollower).Observe(s.theta, -1, 5)
	require.Equal(t, []float32{4}, s.theta)
	s = fit("nnie:8,observer=minmax")
	require.Equal(t, []float32{4}, s.theta)
	s.Quantizer.(RangeFollower).Observe(s.theta, -1, 3)
	require.Equal(t, []float32{4}, s.theta)
}
