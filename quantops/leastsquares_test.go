package quantops

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
)

// No step size near the one found has a clearly smaller squared error on the numbers themselves.
func TestLeastSquaresStep(t *testing.T) {
	t.Parallel()
	s := random.New(1, "least squares")
	x := make([]float32, 4096)
	for i := range x {
		x[i] = float32(s.Normal())
	}
	rectified := make([]float32, len(x))
	kernel.ReLU(rectified, x)
	for name, c := range map[string]struct {
		codes codes
		x     []float32
	}{"signed": {signedCodes(3, false), x}, "narrow": {signedCodes(4, true), x}, "rectified": {unsignedCodes(2), rectified}} {
		found := c.codes.leastSquares(c.x, kernel.Dense(len(c.x)))
		least := math.Inf(1)
		for step := 0.02; step < 4; step += 0.01 {
			least = min(least, squaredErrorOf(c.codes, c.x, step))
		}
		require.LessOrEqual(t, squaredErrorOf(c.codes, c.x, found), 1.01*least, name)
	}
}

func squaredErrorOf(c codes, x []float32, step float64) float64 {
	u, sum := c.uniform(float32(step), 0), 0.0
	for _, v := range x {
		d := float64(v) - float64(u.Level(v))*step
		sum += d * d
	}
	return sum
}

// Padded lanes don't count, and numbers without a scale have the smallest step.
func TestLeastSquaresEdges(t *testing.T) {
	t.Parallel()
	c := unsignedCodes(2)
	x := make([]float32, 2*kernel.Lanes)
	require.Zero(t, c.leastSquares(x, kernel.Dense(len(x))))
	x[3], x[kernel.Lanes+5] = 1, 1000
	want := c.leastSquares(x[:kernel.Lanes], kernel.Dense(kernel.Lanes))
	require.Equal(t, want, c.leastSquares(x, kernel.Extent{Full: kernel.Lanes, Lanes: 5}))
	x[0] = float32(math.NaN())
	require.True(t, math.IsNaN(c.leastSquares(x, kernel.Dense(len(x)))))
	q, err := MustParse("lsq:2,init=mse").Quantizer(Target{Role: Activations, Channels: 1, Size: 8})
	require.NoError(t, err)
	theta := []float32{0}
	q.Fit(theta, make([]float32, kernel.Lanes), kernel.Dense(kernel.Lanes), 0)
	require.Equal(t, []float32{smallestScale}, theta)
}
