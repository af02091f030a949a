package quantops

import (
	"math"

	"github.com/goqat/goqat/internal/kernel"
)

const (
	histogramBins  = 2048 // of a range of numbers
	stepCandidates = 128  // shares of the largest number that the outermost code may be worth
)

// leastSquares returns the step size of least squared error for zero-point-free codes: of stepCandidates equally spaced
// ones, up to the one that leaves nothing outside the range. Numbers count as the middle of their histogram bin.
func (c codes) leastSquares(x []float32, e Extent) float64 {
	low, high := kernel.Range(x, e)
	reach := max(-float64(low), float64(high))
	if !(reach > 0) || math.IsInf(reach, 0) {
		return reach // NaN and infinities show in what comes of them
	}
	counts := histogram(x, e, reach)
	largest := reach / float64(c.max)
	best, least := 0.0, math.Inf(1)
	for i := range stepCandidates {
		step := largest * float64(i+1) / stepCandidates
		if err := c.squaredError(counts, reach, step); err < least {
			best, least = step, err
		}
	}
	return best
}

// histogram counts the numbers of x in equal bins from -reach to reach.
func histogram(x []float32, e Extent, reach float64) *[histogramBins]int64 {
	var counts [histogramBins]int64
	scale := float32(histogramBins / 2 / reach)
	for i, v := range x {
		if i < e.Full || i%kernel.Lanes < e.Lanes {
			counts[min(histogramBins-1, max(0, int(float32(v*scale)+histogramBins/2)))]++
		}
	}
	return &counts
}

// squaredError is that of a histogram's numbers at a step size.
func (c codes) squaredError(counts *[histogramBins]int64, reach, step float64) float64 {
	sum := 0.0
	for i, n := range counts {
		if n == 0 {
			continue
		}
		v := (float64(i) + 0.5 - histogramBins/2) * (2 * reach / histogramBins)
		level := min(max(math.RoundToEven(v/step), float64(c.min)), float64(c.max))
		d := v - float64(level*step)
		sum += float64(float64(n) * float64(d*d))
	}
	return sum
}
