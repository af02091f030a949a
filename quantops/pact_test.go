package quantops

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

func newTestPACT(t *testing.T, method string, signed bool) *pact {
	t.Helper()
	q, err := MustParse(method).Quantizer(Target{Role: Activations, Channels: 1, Size: 1, Signed: signed})
	require.NoError(t, err)
	return q.(*pact)
}

func TestPACTVectors(t *testing.T) {
	golden.Run(t, "pact", "pact", func(t *testing.T, c golden.Case) {
		v := newVectors(c, -1)
		q := newTestPACT(t, fmt.Sprintf("pact:%d", c.Int("bits")), false)
		x, dy, alpha := v.floats("x"), v.floats("dy"), v.floats("alpha")
		levels, units := make([]float32, len(x)), make([]float32, 1)
		q.Levels(levels, x, alpha)
		q.Units(units, alpha)
		v.requireLevels(t, levels, []int64{0})
		v.requireValues(t, levels, units)
		requireGrid(t, q.codes, units[0], 0, x, levels)
		dx, dalpha, sum := make([]float32, len(x)), make([]float32, 1), 0.0
		q.Backward(dx, dalpha, dy, x, alpha)
		require.Equal(t, v.floats("dx"), dx)
		for _, g := range dy {
			sum += math.Abs(float64(g))
		}
		require.InDelta(t, c.Float64("dalpha_f64")[0], dalpha[0], 1e-6*sum)
	})
}

// Of tensors with negative numbers both ends are clipped and pull at the clipping level.
func TestPACTSigned(t *testing.T) {
	q := newTestPACT(t, "pact:3", true)
	x, dy := []float32{-5, -2, -1.9, -0.3, 0, 0.4, 1.9, 2, 7}, []float32{1, 2, 3, 4, 5, 6, 7, 8, 9}
	alpha, levels, dx, dalpha := []float32{2}, make([]float32, 9), make([]float32, 9), make([]float32, 1)
	q.Levels(levels, x, alpha)
	require.Equal(t, []float32{-3, -3, -3, 0, 0, 1, 3, 3, 3}, levels)
	q.Backward(dx, dalpha, dy, x, alpha)
	require.Equal(t, []float32{0, 0, 3, 4, 5, 6, 7, 0, 0}, dx)
	require.EqualValues(t, -1-2+8+9, dalpha[0])
	unsigned := newTestPACT(t, "pact:3,sign=unsigned", true)
	unsigned.Levels(levels, x, alpha)
	require.Equal(t, []float32{0, 0, 0, 0, 0, 1, 7, 7, 7}, levels)
}

func TestPACTStart(t *testing.T) {
	t.Parallel()
	x := noise(20000, 31)
	rectified := make([]float32, len(x))
	kernel.ReLU(rectified, x)
	fit := func(method string, signed bool, x []float32) float32 {
		theta := make([]float32, 1)
		newTestPACT(t, method, signed).Fit(theta, x, kernel.Dense(len(x)), 0)
		return theta[0]
	}
	require.EqualValues(t, 6, fit("pact:4", false, rectified))
	require.InDelta(t, 3.29, fit("pact:4,init=percentile", false, rectified), 0.2) // of |x| 0.1 % lie beyond 3.29
	require.Equal(t, fit("pact:4,init=percentile", false, rectified), fit("pact:4,init=percentile", false, x), "negative numbers don't count")
	for name, c := range map[string]struct {
		signed bool
		x      []float32
	}{"unsigned": {false, rectified}, "signed": {true, x}, "negative to be clipped": {false, x}} {
		q := newTestPACT(t, "pact:2,init=mse", c.signed)
		found, least := fit("pact:2,init=mse", c.signed, c.x), math.Inf(1)
		relevant := c.x
		if !c.signed {
			relevant = rectified
		}
		for alpha := 0.1; alpha < 5; alpha += 0.02 {
			least = min(least, squaredErrorOf(q.codes, relevant, alpha/float64(q.max)))
		}
		require.LessOrEqual(t, squaredErrorOf(q.codes, relevant, float64(found)/float64(q.max)), 1.01*least, name)
	}
	require.EqualValues(t, 3*smallestScale, fit("pact:2,init=mse", false, make([]float32, 16)))
}

// The start is averaged over the calibration batches, α is decayed with the weights and never reaches zero.
func TestPACTTheta(t *testing.T) {
	q, theta := newTestPACT(t, "pact:2,init=percentile", false), make([]float32, 1)
	for i, x := range [][]float32{{1, 2}, {4, 4}, {0, 0}} {
		q.Fit(theta, x, kernel.Dense(2), i)
	}
	require.InEpsilon(t, 2, theta[0], 1e-6)
	require.Equal(t, Theta{Name: "alpha", Kind: Learned, Rows: 1, Columns: []string{"alpha"}, Minimum: []float32{3 * smallestScale}, Rate: 1, Decay: 1}, q.Theta())
}

// First and last layers have weights as well, of which pact has none.
func TestPACTEdges(t *testing.T) {
	require.Equal(t, "linear:8", MustParse("pact:4").WithBits(8).String())
}
