// # ternary
//
// Weights on three levels: those larger than 0.7 times the mean magnitude become plus or minus one step, the rest 0.
//
//	t = 0.7 · mean|w|      level = -1, 0, 1 for w < -t, |w| ≤ t, w > t      value = level · s
//	s = mean of |w| over |w| > t
//
//	  -s     0     s
//	---|-----|-----|---
//
// The gradient passes straight through. It is here as the example of a method of one's own: this file, copied into
// package quantops, is all that it takes to train, list, inspect and export it.
//
// Li, Zhang and Liu, "Ternary Weight Networks", 2016.
package quantops

import (
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ WeightQuantizer = (*ternary)(nil)

type ternary struct{}

func init() {
	Register(&Spec{
		Name:    "ternary",
		Doc:     "three levels, the threshold at 0.7 times the mean magnitude",
		Paper:   "Li, Zhang and Liu, Ternary Weight Networks, 2016",
		Weights: Bits{2, 2},
		New:     func(int, Options, Target) (Quantizer, error) { return ternary{}, nil },
	})
}

func (ternary) Theta() Theta {
	return Theta{Name: "ternary", Kind: Derived, Rows: 1, Columns: []string{"threshold", "step"}}
}

func (ternary) Fit(theta, x []float32, e Extent, _ int) {
	theta[0] = float32(0.7 * kernel.MeanAbsolute(x, e))
	sum, count := 0.0, 0
	for _, v := range x {
		if v > theta[0] || v < -theta[0] {
			sum += max(float64(v), -float64(v))
			count++
		}
	}
	theta[1] = max(float32(sum/float64(max(count, 1))), smallestScale)
}

func (ternary) Levels(levels, x, theta []float32) {
	for i, v := range x {
		switch {
		case v != v:
			levels[i] = v
		case v > theta[0]:
			levels[i] = 1
		case v < -theta[0]:
			levels[i] = -1
		default:
			levels[i] = 0
		}
	}
}

func (ternary) Units(units, theta []float32) { units[0] = theta[1] }

func (ternary) Backward(dx, _, dy, _, _ []float32) { copy(dx, dy) }

func (q ternary) Encode(x, theta []float32, shape []int) (*integer.Weights, error) {
	levels := make([]float32, len(x))
	q.Levels(levels, x, theta)
	return signedCodes(2, true).encode(levels, theta[1:], nil, shape)
}
