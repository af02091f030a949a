package quantops

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

// stepTerms returns, for each channel, Σ |dy · slope| over the elements, from the vectors' own codes, and what
// near ties may add to a difference: Σ |dy| over these.
func (v vectors) stepTerms(scale, zeros []float32, low, high float64) (sum, ties []float64) {
	x, dy, tie := v.floats("x"), v.floats("dy"), v.integers("near_tie")
	sum, ties = make([]float64, v.channels), make([]float64, v.channels)
	eachChannel(v.channels, x, func(c, from, to int) {
		for i := from; i < to; i++ {
			at := float64(x[i]) / float64(scale[c])
			zero := float64(zeros[c])
			slope := math.RoundToEven(at) - at
			switch code := math.RoundToEven(at) + zero; {
			case code < low:
				slope = low - zero
			case code > high:
				slope = high - zero
			}
			sum[c] += math.Abs(float64(dy[i]) * slope)
			ties[c] += float64(tie[i]) * math.Abs(float64(dy[i]))
		}
	})
	return sum, ties
}

// requireStepGradient compares sums before any gradient factor; got has a sum for each channel.
func (v vectors) requireStepGradient(t *testing.T, got, scale, zeros []float32, low, high, factor float64) {
	t.Helper()
	sum, ties := v.stepTerms(scale, zeros, low, high)
	for c, want := range v.Float64("dscale_f64") {
		require.InDelta(t, want/factor, got[c], 5e-6*sum[c]+ties[c], "gradient of step %d", c)
	}
}

// The vectors' zero point is learned as well, which no method here does. What is tested is all that a fixed zero point
// leaves: codes, values, dx and the step's gradient, in the kernel that lsq calls, with the range shifted by
// the zero point. Not covered is dzero_point, and the rounding of zero + x/s as one sum where the zero point is odd and
// x/s a tie (here it is round(x/s) + zero, as for linear); the vectors mark such elements as near ties.
func TestLearnableVectors(t *testing.T) {
	golden.Run(t, "lsq", "torch_learnable", func(t *testing.T, c golden.Case) {
		v := newVectors(c, c.Int("axis"))
		low, high := c.Int("qmin"), c.Int("qmax")
		format := codes{bitsBetween(low, high), int32(low), int32(high)}
		scale, used := c.Float32("scale"), c.Integers("zero_point_used")
		x, dy := v.floats("x"), v.floats("dy")
		levels, dx := make([]float32, len(x)), make([]float32, len(x))
		steps, zeros := make([]float32, v.channels), make([]float32, v.channels)
		eachChannel(v.channels, x, func(ch, from, to int) {
			u := format.uniform(scale[ch], int32(used[ch]))
			u.Levels(levels[from:to], x[from:to])
			steps[ch] = float32(u.StepGradient(dx[from:to], nil, dy[from:to], x[from:to], false))
			zeros[ch] = float32(used[ch])
		})
		v.requireLevels(t, levels, used)
		requireNear(t, v.floats("dx"), dx, 0, "dx")
		v.requireValues(t, levels, scale)
		v.requireStepGradient(t, steps, scale, zeros, float64(low), float64(high), c.Number("grad_factor"))
	})
}

// requireValues checks level·scale, but for near ties, whose codes have been checked.
func (v vectors) requireValues(t *testing.T, levels, scale []float32) {
	t.Helper()
	n, tie := len(levels)/v.channels, v.integers("near_tie")
	for i, want := range v.floats("y") {
		if tie[i] == 0 {
			require.InDelta(t, want, levels[i]*scale[i/n], 1e-6*math.Abs(float64(want)), "value of element %d", i)
		}
	}
}

// lsqMethod is the method that a case of zhutmost/lsq-net describes.
func lsqMethod(c golden.Case) (Method, Role) {
	text, role := fmt.Sprintf("lsq:%d,inside=exact", c.Int("bits")), Weights
	if c.Bool("all_positive") {
		role = Activations
	}
	if c.Bool("symmetric") {
		text += ",range=narrow"
	}
	if c.Bool("per_channel") {
		text += ",per=channel"
	}
	return MustParse(text), role
}

func TestLSQVectors(t *testing.T) {
	golden.Run(t, "lsq", "lsqnet", func(t *testing.T, c golden.Case) {
		axis := -1
		if c.Bool("per_channel") {
			axis = 0
		}
		v := newVectors(c, axis)
		m, role := lsqMethod(c)
		x, scale := v.floats("x"), c.Float32("scale")
		made, err := m.Quantizer(Target{Role: role, Channels: v.channels, Size: len(x)})
		require.NoError(t, err)
		q := made.(*lsq)
		require.EqualValues(t, c.Int("Qn"), q.min)
		require.EqualValues(t, c.Int("Qp"), q.max)

		levels, dx, step := make([]float32, len(x)), make([]float32, len(x)), make([]float32, v.channels)
		q.Levels(levels, x, scale)
		v.requireLevels(t, levels, make([]int64, v.channels))
		v.requireValues(t, levels, scale)
		q.Backward(dx, step, v.floats("dy"), x, scale)
		requireNear(t, v.floats("dx"), dx, 1e-6, "dx")
		for ch := range step {
			step[ch] = float32(float64(step[ch]) / q.factor) // theirs counts the whole tensor, ours the channel
		}
		v.requireStepGradient(t, step, scale, make([]float32, v.channels), float64(q.min), float64(q.max), c.Number("grad_scale"))
		if c.Has("scale_init_f64") {
			fitted := make([]float32, v.channels)
			q.Fit(fitted, x, kernel.Dense(len(x)), 0)
			for ch, want := range c.Float64("scale_init_f64") {
				require.InEpsilon(t, want, fitted[ch], 1e-6, "initial step %d", ch)
			}
		}
	})
}

// g = 1/√(N·Qp): weights a tensor, weights a channel, activations of an image.
func TestLSQGradientFactor(t *testing.T) {
	for _, c := range []struct {
		method string
		target Target
		want   float64
	}{
		{"lsq:4", Target{Role: Weights, Channels: 8, Size: 288, Signed: true}, 1 / math.Sqrt(288*7)},
		{"lsq:4,per=channel", Target{Role: Weights, Channels: 8, Size: 288, Signed: true}, 1 / math.Sqrt(36*7)},
		{"lsq:4", Target{Role: Activations, Channels: 1, Size: 100}, 1 / math.Sqrt(100*15)},
		{"lsq:4", Target{Role: Activations, Channels: 1, Size: 100, Signed: true}, 1 / math.Sqrt(100*7)},
	} {
		made, err := MustParse(c.method).Quantizer(c.target)
		require.NoError(t, err)
		q := made.(*lsq)
		// One element far above the range has slope Qp; the others are zero and have none.
		x, dy := make([]float32, c.target.Size), make([]float32, c.target.Size)
		x[0], dy[0] = 1000, 1
		step, ones := make([]float32, q.channels), make([]float32, q.channels)
		for i := range ones {
			ones[i] = 1
		}
		q.Backward(make([]float32, len(x)), step, dy, x, ones)
		require.InEpsilon(t, c.want*float64(q.max), step[0], 1e-6, c.method)
	}
}

// The gradient by the step is the derivative of the surrogate in which rounding moves every element by what it moves
// it now: s·(x/s + r), r = round(x/s) - x/s held constant, inside the range, and s·Qp or s·Qn outside.
func TestLSQStepGradientDifferences(t *testing.T) {
	for _, bits := range []int{2, 3, 4, 8} {
		made, err := MustParse(fmt.Sprintf("lsq:%d", bits)).Quantizer(Target{Role: Weights, Channels: 1, Size: 500, Signed: true})
		require.NoError(t, err)
		q := made.(*lsq)
		x, dy := noise(500, 1), noise(500, 2)
		theta := make([]float32, 1)
		q.Fit(theta, x, kernel.Dense(500), 0)
		s, h := float64(theta[0]), float64(theta[0])/1024
		loss := func(step float64) float64 {
			total := 0.0
			for i := range x {
				v := float64(x[i]) / s
				y := step * (float64(x[i])/step + math.RoundToEven(v) - v)
				if r := math.RoundToEven(v); r < float64(q.min) || r > float64(q.max) {
					y = step * math.Max(float64(q.min), math.Min(r, float64(q.max)))
				}
				total += float64(dy[i]) * y
			}
			return total
		}
		got := make([]float32, 1)
		q.Backward(make([]float32, 500), got, dy, x, theta)
		require.InDelta(t, (loss(s+h)-loss(s-h))/(2*h)*q.factor, got[0], 1e-4*q.factor*500, "%d bits", bits)
	}
}

// Calibration averages the batches' first steps.
func TestLSQFitAverages(t *testing.T) {
	made, err := MustParse("lsq:2").Quantizer(Target{Role: Activations, Channels: 1, Size: 2})
	require.NoError(t, err)
	theta := make([]float32, 1)
	for i, x := range [][]float32{{3, 3}, {0, 0}, {9, 9}} {
		made.Fit(theta, x, kernel.Dense(2), i)
	}
	require.InEpsilon(t, 2*4/math.Sqrt(3), theta[0], 1e-6)
}

func TestLSQContradiction(t *testing.T) {
	_, err := MustParse("lsq:4,range=narrow,sign=unsigned").Quantizer(Target{Role: Weights, Channels: 1, Size: 1})
	require.EqualError(t, err, `quantops: method "lsq:4,range=narrow,sign=unsigned": range=narrow is for signed codes`)
}
