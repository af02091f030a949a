package quantops

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
)

func TestDistributions(t *testing.T) {
	for x := -8.0; x <= 8; x += 1.0 / 64 {
		require.InDelta(t, 0.5*math.Erfc(-x/math.Sqrt2), Gaussian.Cumulative(x), 1e-14, "at %v", x)
		require.InDelta(t, math.Exp(-x*x/2)/math.Sqrt(2*math.Pi), Gaussian.Density(x), 1e-14)
		half := 0.5 * math.Exp(-math.Sqrt2*math.Abs(x))
		want := 1 - half
		if x < 0 {
			want = half
		}
		require.InDelta(t, want, Laplace.Cumulative(x), 1e-14)
		require.InDelta(t, math.Sqrt2*half, Laplace.Density(x), 1e-14)
	}
	require.Equal(t, "gaussian laplace", fmt.Sprint(Gaussian, " ", Laplace))
}

// The paper prints 1.592/5 as 0.318.
func TestFittedBreakpoint(t *testing.T) {
	require.InDelta(t, 1.592, Gaussian.FittedBreakpoint(5), 5e-4)
	for reach := 3.0; reach <= 10; reach += 0.25 {
		for _, d := range []Distribution{Gaussian, Laplace} {
			p := make([]float64, 1)
			Piecewise{Distribution: d}.Bisect(p, reach)
			require.InDelta(t, p[0], d.FittedBreakpoint(reach), 0.05, "%v at %v", d, reach)
		}
	}
}

// eachPiecewise runs check for both distributions, with and without overlap, and reaches of 1.5 to 60 standard deviations.
func eachPiecewise(check func(e Piecewise, reach float64)) {
	for _, d := range []Distribution{Gaussian, Laplace} {
		for _, overlap := range []bool{false, true} {
			for _, reach := range []float64{1.5, 2, 2.5, 3, 4, 5, 7, 10, 20, 60} {
				check(Piecewise{d, overlap}, reach)
			}
		}
	}
}

// One more bit for the region leaves at most 9/16 of the error: of 2 bits, where a tail's step is 3/4 of the uniform one.
func TestExpectedErrorBound(t *testing.T) {
	eachPiecewise(func(e Piecewise, reach float64) {
		if e.Overlap {
			return // the bound is for regions that do not overlap
		}
		for bits := 2; bits <= 8; bits++ {
			uniform := e.ExpectedError(bits, reach)
			step := 2 * reach / float64(int(1)<<bits-1)
			require.InEpsilon(t, step*step/12, uniform, 1e-12)
			p := make([]float64, 1)
			e.Bisect(p, reach)
			require.LessOrEqual(t, e.ExpectedError(bits, reach, p...), 9.0/16*uniform, "%v, %d bits, reach %v", e, bits, reach)
			if reach >= 3 && reach <= 10 {
				require.LessOrEqual(t, e.ExpectedError(bits, reach, e.Distribution.FittedBreakpoint(reach)), 9.0/16*uniform)
			}
		}
	})
	// At 2 bits and p = m/2 with all numbers beyond p the bound is met.
	require.InEpsilon(t, 9.0/16, Piecewise{}.ExpectedError(2, 1e-6, 5e-7)/Piecewise{}.ExpectedError(2, 1e-6), 1e-5)
}

// No breakpoint beside the one found has a smaller error. Many bits make the steps of centre and tails, which the derivative takes
// as (2^b-1)/2 of a region each, the same.
func TestBisectFindsTheMinimum(t *testing.T) {
	const bits = 40
	eachPiecewise(func(e Piecewise, reach float64) {
		for n := 1; n <= maxBreakpoints; n++ {
			p := make([]float64, n)
			e.Bisect(p, reach)
			least := e.ExpectedError(bits, reach, p...)
			require.IsIncreasing(t, append([]float64{0}, append(p, reach)...))
			for i, was := range p {
				for share := -0.3; share < 0.35; share += 0.1 {
					if p[i] = was * (1 + share); i > 0 && p[i] < p[i-1] || i+1 < n && p[i] > p[i+1] || p[i] > reach {
						continue
					}
					require.GreaterOrEqual(t, e.ExpectedError(bits, reach, p...), least*(1-1e-4), "%v, reach %v, breakpoint %d of %v", e, reach, i, p)
				}
				p[i] = was
			}
			if n > 1 {
				require.Less(t, least, e.ExpectedError(bits, reach, p[1:]...))
			}
		}
	})
}

// Both ways lead to the same breakpoints.
func TestDescendAgreesWithBisect(t *testing.T) {
	eachPiecewise(func(e Piecewise, reach float64) {
		for n := 1; n <= maxBreakpoints; n++ {
			descended, bisected := make([]float64, n), make([]float64, n)
			e.Descend(descended, reach)
			e.Bisect(bisected, reach)
			require.InDeltaSlice(t, bisected, descended, 5e-3*reach, "%v, reach %v", e, reach)
			require.InEpsilon(t, e.ExpectedError(8, reach, bisected...), e.ExpectedError(8, reach, descended...), 0.01)
		}
	})
}

// The formula tells the error of actual numbers.
func TestExpectedErrorIsMeasured(t *testing.T) {
	x := noise(100000, 31)
	reach, _, squares := spread(x)
	deviation := math.Sqrt(squares / float64(len(x)))
	for _, text := range []string{"pwlq:5", "pwlq:7", "pwlq:6,overlap", "pwlq:6,breakpoint=numeric,breakpoints=2", "pwlq:6,breakpoint=descent,breakpoints=3"} {
		q := newPWLQFor(t, text+",per=tensor", 1, len(x))
		theta := make([]float32, len(q.theta.Columns))
		q.Fit(theta, x, kernel.Dense(len(x)), 0)
		p := make([]float64, q.breakpoints)
		for i := range p {
			p[i] = float64(theta[i]) / deviation
		}
		measured := q.squaredError(theta[:q.breakpoints], x, reach) / squares
		require.InEpsilon(t, q.expected.ExpectedError(q.bits, float64(reach)/deviation, p...), measured, 0.03, text)
	}
}

func TestLeastRatio(t *testing.T) {
	for _, want := range []float64{0.013, 0.1, 0.5, 0.777, 0.987} {
		require.InDelta(t, want, leastRatio(func(ratio float64) float64 { return math.Abs(ratio - want) }), 1e-9)
	}
	require.Equal(t, 0.5, leastRatio(func(float64) float64 { return math.NaN() }))
}
