package quantops

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
)

// newTestDoReFa makes a quantizer of weights and its parameters for x.
func newTestDoReFa(t *testing.T, method string, x []float32) (q WeightQuantizer, theta []float32, unit float32) {
	t.Helper()
	made, err := MustParse(method).Quantizer(Target{Role: Weights, Channels: 1, Size: len(x), Signed: true})
	require.NoError(t, err)
	theta, units := make([]float32, 1), make([]float32, 1)
	made.Fit(theta, x, kernel.Dense(len(x)), 0)
	made.Units(units, theta)
	return made.(WeightQuantizer), theta, units[0]
}

// Codes, values and exported codes are those of the paper's formula, computed the way it is printed.
func TestDoReFaDefinition(t *testing.T) {
	t.Parallel()
	for bits := 2; bits <= 8; bits++ {
		for _, size := range []float32{0.001, 0.05, 1, 20} {
			x := each(noise(3000, uint64(bits)), func(_ int, v float32) float32 { return v * size })
			reach, top := 0.0, float64(int(1)<<bits-1)
			for _, v := range x {
				reach = max(reach, math.Abs(math.Tanh(float64(v))))
			}
			for _, rescale := range []bool{true, false} {
				method, m := fmt.Sprintf("dorefa:%d,rescale=%t", bits, rescale), 1.0
				if rescale {
					m = reach
				}
				q, theta, unit := newTestDoReFa(t, method, x)
				require.InEpsilon(t, reach, theta[0], 1e-6)
				levels := make([]float32, len(x))
				q.Levels(levels, x, theta)
				w, err := q.Encode(x, theta, []int{1, len(x)})
				require.NoError(t, err)
				for i, v := range x {
					scaled := top * (math.Tanh(float64(v))/(2*reach) + 0.5)
					if code := math.RoundToEven(scaled); math.Abs(math.Abs(scaled-code)-0.5) > 1e-4 {
						require.EqualValues(t, code, w.Codes[i], "%s: code of %v", method, v)
						require.InDelta(t, m*(2*code/top-1), levels[i]*unit, 1e-6*m, "%s: value of %v", method, v)
					}
				}
			}
		}
	}
}

// Zero lies in the middle between two levels and gets the upper one; the smallest numbers beside it get their own side's.
func TestDoReFaZero(t *testing.T) {
	for bits := 1; bits <= 8; bits++ {
		tiny := float32(1e-30)
		x := []float32{0, float32(math.Copysign(0, -1)), tiny, -tiny, 1}
		q, theta, _ := newTestDoReFa(t, fmt.Sprintf("dorefa:%d", bits), x)
		levels := make([]float32, len(x))
		q.Levels(levels, x, theta)
		require.Equal(t, []float32{1, 1, 1, -1}, levels[:4])
	}
}

// One bit is the sign times the mean magnitude.
func TestDoReFaSigns(t *testing.T) {
	x := []float32{-3, 1, 0, 2}
	q, theta, unit := newTestDoReFa(t, "dorefa:1", x)
	require.EqualValues(t, 1.5, unit)
	w, err := q.Encode(x, theta, []int{2, 2})
	require.NoError(t, err)
	require.Equal(t, []float32{-1.5, 1.5, 1.5, 1.5}, w.Decode())
	dx := make([]float32, 4)
	q.Backward(dx, nil, []float32{1, 2, 3, 4}, x, theta)
	require.Equal(t, []float32{1, 2, 3, 4}, dx)
}

// The gradient is that of m·tanh(w)/max|tanh w|, the maximum held constant.
func TestDoReFaGradient(t *testing.T) {
	t.Parallel()
	for method, rescaled := range map[string]bool{"dorefa:3": true, "dorefa:3,rescale=false": false} {
		x, dy := noise(20000, 41), noise(20000, 42)
		q, theta, _ := newTestDoReFa(t, method, x)
		dx := make([]float32, len(x))
		q.Backward(dx, nil, dy, x, theta)
		factor := 1.0
		if !rescaled {
			factor = 1 / float64(theta[0])
		}
		for i, v := range x {
			const h = 1e-5
			slope := (math.Tanh(float64(v)+h) - math.Tanh(float64(v)-h)) / (2 * h)
			require.InDelta(t, factor*slope*float64(dy[i]), dx[i], 2e-7*math.Abs(factor*float64(dy[i])), "%s: %v", method, v)
		}
	}
}

func TestDoReFaFunctions(t *testing.T) {
	for x := 1e-9; x < 50; x *= 1.01 {
		require.InEpsilon(t, math.Tanh(x), hyperbolicTangent(x), 1e-14, "tanh %v", x)
		if y := math.Tanh(x); y < 0.999 {
			require.InEpsilon(t, math.Atanh(y), inverseTangent(y), 1e-13, "artanh %v", y)
			require.InEpsilon(t, -math.Atanh(y), inverseTangent(-y), 1e-13, "artanh %v", -y)
		}
		want := 1 / math.Pow(math.Cosh(float64(float32(x))), 2)
		require.InDelta(t, want, tangentSlope(float32(x)), 5e-8+6e-8*want, "slope at %v", x)
		require.Equal(t, tangentSlope(float32(x)), tangentSlope(-float32(x)))
	}
	require.Zero(t, tangentSlope(float32(math.Inf(-1))))
	require.EqualValues(t, 1, tangentSlope(0))
	require.True(t, math.IsNaN(float64(tangentSlope(nan))))
}

// Activations are clipped to [0, 1] whatever the data; those with negative numbers are linear's.
func TestDoReFaActivations(t *testing.T) {
	made, err := MustParse("dorefa:2").Quantizer(Target{Role: Activations, Channels: 1, Size: 6})
	require.NoError(t, err)
	x, theta, units := []float32{-1, 0, 0.4, 0.9, 1, 7}, make([]float32, 1), make([]float32, 1)
	levels, dx := make([]float32, 6), make([]float32, 6)
	made.Fit(theta, x, kernel.Dense(6), 0)
	made.Levels(levels, x, theta)
	made.Units(units, theta)
	require.Equal(t, []float32{0, 0, 1, 3, 3, 3}, levels)
	require.EqualValues(t, float32(1)/3, units[0])
	made.Backward(dx, nil, []float32{1, 2, 3, 4, 5, 6}, x, theta)
	require.Equal(t, []float32{0, 2, 3, 4, 5, 0}, dx)
	_, follows := made.(RangeFollower)
	require.False(t, follows)

	signed := Target{Role: Activations, Channels: 1, Size: 6, Signed: true}
	made, err = MustParse("dorefa:8").Quantizer(signed)
	require.NoError(t, err)
	want, err := MustParse("linear:8").Quantizer(signed)
	require.NoError(t, err)
	require.Equal(t, want, made)
}

func BenchmarkDoReFa(b *testing.B) {
	x, dy := noise(270000, 43), noise(270000, 44)
	made, err := MustParse("dorefa:4").Quantizer(Target{Role: Weights, Channels: 1, Size: len(x), Signed: true})
	require.NoError(b, err)
	theta, y := make([]float32, 1), make([]float32, len(x))
	b.Run("Fit+Levels", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x[0] += 1e-3
			made.Fit(theta, x, kernel.Dense(len(x)), 0)
			made.Levels(y, x, theta)
		}
	})
	b.Run("Backward", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			made.Backward(y, nil, dy, x, theta)
		}
	})
}
