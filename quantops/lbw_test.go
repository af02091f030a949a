package quantops

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

// relaxation makes the relaxation of a method for weights of some channels.
func relaxation(t *testing.T, method string, channels, size int) Relaxation {
	t.Helper()
	r, err := MustParse(method).Relaxation(Target{Role: Weights, Channels: channels, Size: size, Signed: true})
	require.NoError(t, err)
	require.NotNil(t, r)
	return r
}

func TestLBWVectors(t *testing.T) {
	t.Parallel()
	golden.Run(t, "slb", "weight", func(t *testing.T, c golden.Case) {
		shape := c.Shape("A")
		m := shape[len(shape)-1]
		logits := axisFirst(c.Float32("A"), shape, len(shape)-1)
		n := len(logits) / m
		r := relaxation(t, fmt.Sprintf("lbw:%d", c.Int("bits")), shape[0], n)
		s, temperature := r.Search(), float32(c.Number("tau"))
		for k, v := range c.Float64("values") {
			require.InDelta(t, v, float64(s.Levels[k])*float64(s.Unit), 1e-7)
		}
		reach := 0.0
		for _, a := range logits {
			reach = max(reach, math.Abs(float64(a)))
		}
		tolerance := 1e-6 + 3e-7*reach/c.Number("tau")
		soft, hard, dsoft, dlogits := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n*m)
		r.Soft(soft, logits, temperature)
		r.Hard(hard, logits)
		wantHard, index, dW := c.Float32("W_q"), c.Integers("index"), c.Float32("dW")
		for i, want := range c.Float64("W_c_f64") {
			require.InDelta(t, want, float64(soft[i])*float64(s.Unit), tolerance)
			require.InDelta(t, wantHard[i], hard[i]*s.Unit, 1e-7)
			require.Equal(t, s.Levels[index[i]], hard[i], "index of element %d", i)
			dsoft[i] = dW[i] * s.Unit
		}
		r.Backward(dlogits, dsoft, logits, temperature)
		largest := 0.0
		for _, g := range dW {
			largest = max(largest, math.Abs(float64(g)))
		}
		for i, want := range axisFirst(c.Float32("dA"), shape, len(shape)-1) {
			require.InDelta(t, want, dlogits[i], 2e-6*largest/c.Number("tau"))
		}
	})
}

// The gradient is exact: that of differences, at any temperature.
func TestLBWGradientByDifferences(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"lbw:1", "lbw:2", "lbw:2,values=-1:0:1", "lbw:4"} {
		for _, temperature := range []float32{1, 0.1, 0.01} {
			r := relaxation(t, method, 2, 24)
			m, n := len(r.Search().Levels), 24
			logits, dy := noise(m*n, 21), noise(n, 22)
			for i := range logits {
				logits[i] *= 2 * temperature // so that the choice is open
			}
			loss := func() float64 {
				levels, sum := make([]float32, n), 0.0
				r.Soft(levels, logits, temperature)
				for i, v := range levels {
					sum += float64(v) * float64(dy[i])
				}
				return sum
			}
			got := make([]float32, m*n)
			r.Backward(got, dy, logits, temperature)
			h := temperature / 64
			for i, a := range logits {
				logits[i] = a + h
				above, high := loss(), logits[i]
				logits[i] = a - h
				want := (above - loss()) / float64(high-logits[i])
				logits[i] = a
				require.InDelta(t, want, got[i], 2e-3/float64(temperature), "%s at %v: logit %d", method, temperature, i)
			}
		}
	}
}

// At 1/τ = 1e7 all is finite, and soft weights are hard ones.
func TestLBWAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"lbw:1", "lbw:2", "lbw:4"} {
		r := relaxation(t, method, 1, 200)
		logits := noise(200*len(r.Search().Levels), 23)
		soft, hard, dlogits := make([]float32, 200), make([]float32, 200), make([]float32, len(logits))
		r.Soft(soft, logits, 1e-7)
		r.Hard(hard, logits)
		require.Equal(t, hard, soft)
		r.Backward(dlogits, noise(200, 24), logits, 1e-7)
		require.True(t, kernel.Finite(dlogits))
		require.InDelta(t, 0, Entropy(logits, len(r.Search().Levels), 1e-7), 1e-6)
	}
}

// A search that starts from weights is close to them at τ = 1, and its hard weights are the nearest values.
func TestLBWStartsFromWeights(t *testing.T) {
	t.Parallel()
	for method, within := range map[string]float64{"lbw:2": 0.35, "lbw:3": 0.15, "lbw:4": 0.08, "lbw:4,init=max": 0.03} {
		r := relaxation(t, method, 2, 400)
		s, x := r.Search(), noise(400, 25)
		logits, scales := make([]float32, 400*len(s.Levels)), make([]float32, 2)
		r.Start(logits, scales, x)
		soft, hard := make([]float32, 400), make([]float32, 400)
		r.Soft(soft, logits, 1)
		r.Hard(hard, logits)
		error, power := 0.0, 0.0
		for i, w := range x {
			scale := float64(scales[i/200])
			error += math.Pow(float64(soft[i]*s.Unit)*scale-float64(w), 2)
			power += float64(w) * float64(w)
			for _, level := range s.Levels {
				require.LessOrEqual(t, math.Abs(float64(hard[i]*s.Unit)*scale-float64(w)), math.Abs(float64(level*s.Unit)*scale-float64(w))+1e-6)
			}
		}
		require.Less(t, math.Sqrt(error/power), within, method)
	}
}

func TestEntropy(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 2, Entropy(make([]float32, 40), 4, 1), 1e-12)
	require.Zero(t, Entropy(noise(40, 26), 4, 0))
	// One weight of two values with P = 1/4 and 3/4.
	require.InDelta(t, 2-0.75*math.Log2(3), Entropy([]float32{0, float32(math.Log(3))}, 2, 1), 1e-7)
	require.InDelta(t, 1, Entropy([]float32{0, float32(math.Log(3))}, 2, 1000), 1e-5)
}

func TestLBWOptions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"lbw:2,values=1:0":    `quantops: method "lbw:2,values=1:0": option values="1:0": values is even or ascending integers of at most 127 in magnitude, for example -1:0:1`,
		"lbw:2,values=0:128":  `quantops: method "lbw:2,values=0:128": option values="0:128": values is even or ascending integers of at most 127 in magnitude, for example -1:0:1`,
		"lbw:2,values=1":      `quantops: method "lbw:2,values=1": option values="1": values has 2 to 16 values`,
		"lbw:2,rate=0":        `quantops: method "lbw:2,rate=0": option rate="0": rate is a number above 0 and at most 1e+06`,
		"lbw:5":               `quantops: method "lbw:5": lbw has 1 to 4 bits for weights and no bits for activations`,
		"lbw:2,scale=maximum": `quantops: method "lbw:2,scale=maximum": option scale="maximum": scale is one of auto, channel, none`,
	} {
		_, err := Parse(text)
		require.EqualError(t, err, want)
	}
	_, err := MustParse("lbw:1,values=-1:0:1").Relaxation(Target{Channels: 1, Size: 1})
	require.EqualError(t, err, `quantops: method "lbw:1,values=-1:0:1": 3 values are too many for 1 bits: want at most 2`)
	_, err = MustParse("lbw:1").Relaxation(Target{Role: Activations, Channels: 1, Size: 1})
	require.EqualError(t, err, `quantops: method "lbw:1": lbw is not for activations`)
	_, err = MustParse("lbw:1").Quantizer(Target{Channels: 1, Size: 1})
	require.EqualError(t, err, `quantops: method "lbw:1": lbw quantizes no given tensor`)
	for _, text := range []string{"none", "lsq:2"} {
		r, err := MustParse(text).Relaxation(Target{Channels: 1, Size: 1})
		require.NoError(t, err)
		require.Nil(t, r)
	}
	s := relaxation(t, "lbw:2,values=-2:0:1,decay,rate=7,scale=none,init=he", 1, 1).Search()
	require.Equal(t, Search{Levels: []float32{-2, 0, 1}, Unit: 0.5, Scale: NotScaled, Rate: 7, Decay: 1}, s)
}
