package quantops

import (
	"math"

	"github.com/goqat/goqat/internal/kernel"
)

// Distribution is a symmetric distribution of mean 0 and standard deviation 1 that weights are taken to follow.
type Distribution uint8

// The distributions for which breakpoints are known.
const (
	Gaussian Distribution = iota
	Laplace
)

func (d Distribution) String() string { return [...]string{"gaussian", "laplace"}[d] }

// Density returns the probability density at x.
func (d Distribution) Density(x float64) float64 {
	if d == Laplace {
		return kernel.Exp(float64(-math.Sqrt2*math.Abs(x))) / math.Sqrt2
	}
	const norm = 1 / (math.Sqrt2 * math.SqrtPi)
	return norm * kernel.Exp(float64(-0.5*float64(x*x)))
}

// Cumulative returns F(x), the probability of a number up to x, to about 1e-15.
func (d Distribution) Cumulative(x float64) float64 {
	if x < 0 {
		return d.beyond(-x)
	}
	return 1 - d.beyond(x)
}

// beyond is 1-F(x) for x ≥ 0.
func (d Distribution) beyond(x float64) float64 {
	switch {
	case d == Laplace:
		return 0.5 * kernel.Exp(float64(-math.Sqrt2*x))
	case x < 3:
		return 0.5 - float64(d.Density(x)*gaussianSeries(x))
	}
	return d.Density(x) / gaussianFraction(x)
}

// gaussianSeries is (F(x)-1/2)/f(x) = x + x³/3 + x⁵/(3·5) + … (Marsaglia, "Evaluating the Normal Distribution", 2004).
func gaussianSeries(x float64) float64 {
	square := float64(x * x)
	sum, term := x, x
	for n := 3.0; term > 1e-17*sum; n += 2 {
		term = float64(term * (square / n))
		sum += term
	}
	return sum
}

// gaussianFraction is f(x)/(1-F(x)) = x + 1/(x + 2/(x + 3/(x + …))), Laplace's continued fraction.
func gaussianFraction(x float64) float64 {
	const terms = 60
	sum := x
	for n := float64(terms); n > 0; n-- {
		sum = x + n/sum
	}
	return sum
}

// FittedBreakpoint is the closed form of the best single breakpoint without overlap that Fang et al. fitted to reaches
// of 3 to 10 standard deviations, m being the reach max|w|/σ:
//
//	Gaussian: ln(0.86143114·m + 0.607901097496529)      Laplace: 0.80304483·√m - 0.3166785508381478
//
// The result is in standard deviations too, though the paper prints it as a share of m.
func (d Distribution) FittedBreakpoint(reach float64) float64 {
	if d == Laplace {
		return float64(0.80304483*math.Sqrt(reach)) - 0.3166785508381478
	}
	return kernel.Log(float64(0.86143114*reach) + 0.607901097496529)
}

// Piecewise is the expected squared error of piecewise linear quantization as a function of its breakpoints.
// Positions and the reach m, the largest magnitude, are in standard deviations.
type Piecewise struct {
	Distribution Distribution
	Overlap      bool // a region beyond a breakpoint has steps from 0 on, not from the breakpoint on
}

// ExpectedError returns the mean squared error, in variances, at a number of bits from 2 on: Σ over regions of step²/12 times
// the probability of the region, the last of which has all that lies beyond. Without breakpoints it is that of uniform
// quantization, steps of 2m/(2^bits-1). With the best breakpoint it is at most 9/16 of that.
func (e Piecewise) ExpectedError(bits int, reach float64, breakpoints ...float64) float64 {
	sum, above := 0.0, 0.5
	for i := range len(breakpoints) + 1 {
		low, high, beyond := 0.0, reach, 0.0
		if i > 0 {
			low = breakpoints[i-1]
		}
		if i < len(breakpoints) {
			high = breakpoints[i]
			beyond = e.Distribution.beyond(high)
		}
		_, step := pieceSteps(bits, e.Overlap || i == 0, low, high)
		sum += float64(float64(step*step) / 6 * (above - beyond))
		above = beyond
	}
	return sum
}

// slope is the derivative of the error by a breakpoint p between its neighbours, but for a factor: that of
//
//	(p-low)²·P(low ≤ |x| < p) + (high-p)²·P(p ≤ |x| < high)   or with overlap   p²·P(low ≤ |x| < p) + high²·P(p ≤ |x| < high)
//
// with the probability beyond low and high given. Between 0 and the reach it is p - 2m + 2m·F(p) + m·f(p)·(2p-m).
func (e Piecewise) slope(p, low, high, beyondLow, beyondHigh float64) float64 {
	beyond, density := e.Distribution.beyond(p), e.Distribution.Density(p)
	inside, outside := p-low, high-p
	if e.Overlap {
		return float64(2*p*(beyondLow-beyond)) + float64(density*(float64(p*p)-float64(high*high)))
	}
	return float64(2*inside*(beyondLow-beyond)) - float64(2*outside*(beyond-beyondHigh)) +
		float64(density*(float64(inside*inside)-float64(outside*outside)))
}

// neighbours returns what stands beside breakpoint i and the probabilities beyond it; beyond the reach there is nothing.
func (e Piecewise) neighbours(p []float64, i int, reach float64) (low, high, beyondLow, beyondHigh float64) {
	low, high, beyondLow = 0, reach, 0.5
	if i > 0 {
		low = p[i-1]
		beyondLow = e.Distribution.beyond(low)
	}
	if i+1 < len(p) {
		high = p[i+1]
		beyondHigh = e.Distribution.beyond(high)
	}
	return low, high, beyondLow, beyondHigh
}

// Bisect fills p with the ascending breakpoints of least expected error, from the zero of its derivative. Several are
// placed one after the other, each in what the former leave beyond them, and then moved in turns until
// they rest, within a ten-thousandth of the reach.
func (e Piecewise) Bisect(p []float64, reach float64) {
	const sweeps = 50
	for i := range p {
		p[i] = e.bisect(p[:i+1], i, reach)
	}
	for range sweeps {
		moved := 0.0
		for i := 0; i < len(p) && len(p) > 1; i++ {
			was := p[i]
			p[i] = e.bisect(p, i, reach)
			moved = max(moved, math.Abs(p[i]-was))
		}
		if !(moved > 1e-4*reach) {
			return
		}
	}
}

// bisect returns the best place of breakpoint i between its neighbours.
func (e Piecewise) bisect(p []float64, i int, reach float64) float64 {
	const halvings = 20
	low, high, beyondLow, beyondHigh := e.neighbours(p, i, reach)
	from, to := low, high
	for range halvings {
		middle := from + (to-from)/2
		if e.slope(middle, low, high, beyondLow, beyondHigh) < 0 {
			from = middle
		} else {
			to = middle
		}
	}
	return from + (to-from)/2
}

// Descend fills p as Bisect does, by gradient descent from equal spacing on: p ← p - 0.1·dE/dp, up to 500 times or until
// nothing moves by more than a millionth of the reach. DE/dp is that of [Piecewise], divided by the probability between the
// neighbours, which one breakpoint has all of: far out there is little, and the slope next to nothing.
func (e Piecewise) Descend(p []float64, reach float64) {
	const (
		steps = 500
		rate  = 0.1
	)
	for i := range p {
		p[i] = reach * float64(i+1) / float64(len(p)+1)
	}
	for range steps {
		moved := 0.0
		for i := range p {
			low, high, beyondLow, beyondHigh := e.neighbours(p, i, reach)
			between := 2 * (beyondLow - beyondHigh)
			if between == 0 {
				continue
			}
			next := p[i] - float64(rate*e.slope(p[i], low, high, beyondLow, beyondHigh))/between
			next = min(max(next, low), high)
			moved = max(moved, math.Abs(next-p[i]))
			p[i] = next
		}
		if !(moved > 1e-6*reach) {
			return
		}
	}
}

// leastRatio is the share of a range at which an error is least: of 0.1 … 0.9 in steps of 0.1, then around the best in steps
// of 0.01 and 0.001.
func leastRatio(err func(ratio float64) float64) float64 {
	best, least := 0.5, math.Inf(1)
	for _, stage := range [...]struct {
		step float64
		each int
	}{{0.1, 4}, {0.01, 10}, {0.001, 10}} {
		centre := best
		for i := -stage.each; i <= stage.each; i++ {
			ratio := centre + float64(float64(i)*stage.step)
			if ratio <= 0 || ratio >= 1 {
				continue
			}
			if e := err(ratio); e < least {
				best, least = ratio, e
			}
		}
	}
	return best
}
