package quantops

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
)

// newTestLinear makes a quantizer of activations or weights.
func newTestLinear(t testing.TB, method string, target Target) *linear {
	t.Helper()
	q, err := MustParse(method).Quantizer(target)
	require.NoError(t, err)
	return q.(*linear)
}

var observedActivations = Target{Role: Activations, Channels: 1, Size: 16, Signed: true}

// histogramOf counts batches one after the other.
func histogramOf(batches ...[]float32) *rangeHistogram {
	h := &rangeHistogram{}
	for _, x := range batches {
		h.add(x, kernel.Dense(len(x)))
	}
	return h
}

// What a histogram holds does not depend on the order of the numbers or on how they come in batches.
func TestHistogramMerges(t *testing.T) {
	t.Parallel()
	x := conformanceTensors["wide"]
	want := histogramOf(x)
	require.Equal(t, want, histogramOf(x[:50], x[50:51], x[51:]))
	require.Equal(t, want, histogramOf(x[150:], x[:150]))
	total := want.zeros
	for _, n := range want.magnitudes() {
		total += n
	}
	require.EqualValues(t, len(x), total)
	low, high := kernel.Range(x, kernel.Dense(len(x)))
	require.Equal(t, []float32{low, high}, []float32{want.low, want.high})
	require.LessOrEqual(t, want.reach/2, max(-float64(low), float64(high)), "at least half of the bins are in use")

	h := histogramOf(make([]float32, 7), []float32{-0.5, 0.25})
	require.EqualValues(t, 7, h.zeros)
	require.EqualValues(t, 1, h.negative[magnitudeBins/2])
	require.EqualValues(t, 1, h.positive[magnitudeBins/4])
	h.add([]float32{3.5}, kernel.Dense(1))
	require.EqualValues(t, 1, h.negative[magnitudeBins/8])
}

// At least the given share of the numbers lies inside the range, and without its outermost bin less of them.
func TestPercentileObserver(t *testing.T) {
	t.Parallel()
	x := noise(10000, 51)
	inside := func(low, high float32) (n int) {
		for _, v := range x {
			if v >= low && v <= high {
				n++
			}
		}
		return n
	}
	for _, share := range []float64{0.5, 0.9, 0.999, 0.99999, 1} {
		q := newTestLinear(t, fmt.Sprintf("linear:8,observer=percentile,percentile=%v", share), observedActivations)
		theta := make([]float32, 2)
		q.Fit(theta, x[:4000], kernel.Dense(4000), 0)
		q.Fit(theta, x[4000:], kernel.Dense(6000), 1)
		require.GreaterOrEqual(t, float64(inside(theta[0], theta[1])), share*10000)
		bin := float32(q.seen.reach / magnitudeBins)
		require.Less(t, float64(inside(theta[0]+1.01*bin, theta[1]-1.01*bin)), share*10000)
		if share == 1 {
			require.Equal(t, []float32{q.seen.low, q.seen.high}, theta)
		}
	}
	q := newTestLinear(t, "linear:8,observer=percentile,percentile=0.75", Target{Role: Weights, Channels: 2, Size: 8})
	theta := make([]float32, 4)
	q.Fit(theta, []float32{1, -2, 3, 10, -8, 1, 1, 0}, kernel.Dense(8), 0)
	for i, want := range []float32{-2, 3, -1, 1} {
		require.InDelta(t, want, theta[i], 0.005)
	}
}

// No range near the one found has a clearly smaller error, of activations, weights and asymmetric codes.
func TestMSEObserver(t *testing.T) {
	t.Parallel()
	x := noise(4000, 52)
	x[17] = 9
	for _, method := range []string{"linear:2", "linear:3", "linear:4,asymmetric", "linear:4,sign=unsigned", "linear:4,pow2", "linear:8"} {
		for _, role := range []Role{Weights, Activations} {
			q := newTestLinear(t, method+",observer=mse", Target{Role: role, Channels: 1, Size: len(x), Signed: true})
			theta := make([]float32, 2)
			q.Fit(theta, x, kernel.Dense(len(x)), 0)
			low, high := kernel.Range(x, kernel.Dense(len(x)))
			least := math.Inf(1)
			for share := 0.05; share <= 1; share += 0.001 {
				least = min(least, meanSquare(q, x, []float32{low * float32(share), high * float32(share)}))
			}
			require.LessOrEqual(t, meanSquare(q, x, theta), 1.02*least, "%s of %v", method, role)
		}
	}
}

func meanSquare(q *linear, x, theta []float32) float64 {
	levels, units, sum := make([]float32, len(x)), make([]float32, q.channels), 0.0
	q.Levels(levels, x, theta)
	q.Units(units, theta)
	for i, v := range x {
		sum += math.Pow(float64(levels[i])*float64(units[i*q.channels/len(x)])-float64(v), 2)
	}
	return sum / float64(len(x))
}

// Looking at every fifth range first and giving up early costs next to nothing against trying all to the end.
func TestMSEObserverReference(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"linear:2", "linear:3", "linear:4", "linear:8"} {
		x := noise(8*300, 53)
		q := newTestLinear(t, method+",observer=mse", Target{Role: Weights, Channels: 8, Size: len(x)})
		found, least := make([]float32, 16), math.Inf(1)
		q.Fit(found, x, kernel.Dense(len(x)), 0)
		sum, reference := 0.0, 0.0
		eachChannel(8, x, func(c, from, to int) {
			one := newTestLinear(t, method, Target{Role: Weights, Channels: 1, Size: to - from})
			low, high := kernel.Range(x[from:to], kernel.Dense(to-from))
			least = math.Inf(1)
			for i := range rangeCandidates {
				share := float64(100-i) / 100
				least = min(least, meanSquare(one, x[from:to], []float32{float32(share * float64(low)), float32(share * float64(high))}))
			}
			got := meanSquare(one, x[from:to], found[2*c:2*c+2])
			require.LessOrEqual(t, got, 1.1*least, "channel %d", c)
			sum, reference = sum+got, reference+least
		})
		require.LessOrEqual(t, sum, 1.01*reference, method)
	}
}

// divergenceOf is the definition of [divergence.at], with both distributions written out.
func divergenceOf(counts []int64, end, levels int) float64 {
	p, q := make([]float64, end), make([]float64, end)
	for i, n := range counts {
		p[min(i, end-1)] += float64(n)
	}
	for g := range levels {
		from, to := g*end/levels, (g+1)*end/levels
		sum, filled := 0.0, 0.0
		for _, n := range counts[from:to] {
			sum += float64(n)
			if n > 0 {
				filled++
			}
		}
		for i := from; i < to; i++ {
			if counts[i] > 0 {
				q[i] = sum / filled
			}
		}
	}
	totalP, totalQ, divergence := 0.0, 0.0, 0.0
	for i := range p {
		totalP, totalQ = totalP+p[i], totalQ+q[i]
	}
	for i := range p {
		if p[i] > 0 {
			divergence += p[i] / totalP * math.Log(p[i]/totalP/(q[i]/totalQ))
		}
	}
	return divergence
}

func TestDivergence(t *testing.T) {
	t.Parallel()
	counts := make([]int64, 256)
	for i, v := range noise(3000, 54) {
		if j := int(math.Abs(float64(v)) * 60); i%50 != 0 || j < 100 {
			counts[min(j, 255)]++
		}
	}
	d := newDivergence(counts)
	for _, levels := range []int{2, 8, 16} {
		for end := levels; end <= d.end; end++ {
			want, got := divergenceOf(counts, end, levels), d.at(end, levels)
			if math.IsInf(want, 0) || math.IsNaN(want) {
				require.True(t, math.IsInf(got, 1), "%d levels of %d bins", levels, end)
			} else {
				require.InDelta(t, want, got, 1e-9, "%d levels of %d bins", levels, end)
			}
		}
	}
}

// The range of least divergence leaves out an outlier, is narrower with fewer levels, and does not see zeros.
func TestKLObserver(t *testing.T) {
	t.Parallel()
	x := append(noise(50000, 55), 40)
	fit := func(method string, x []float32) float32 {
		q := newTestLinear(t, method+",observer=kl", observedActivations)
		theta := make([]float32, 2)
		q.Fit(theta, x, kernel.Dense(len(x)), 0)
		return max(-theta[0], theta[1])
	}
	eight, four := fit("linear:8", x), fit("linear:4", x)
	require.Less(t, eight, float32(6))
	require.Less(t, four, eight)
	require.Greater(t, four, float32(1))
	require.Equal(t, four, fit("linear:4", append(make([]float32, 100000), x...)))
	require.Less(t, fit("linear:4,asymmetric", x), eight)

	q := newTestLinear(t, "linear:4,observer=kl", Target{Role: Weights, Channels: 1, Size: 600})
	theta := make([]float32, 2)
	q.Fit(theta, append(noise(599, 56), 60), kernel.Dense(600), 0)
	require.Less(t, max(-theta[0], theta[1]), float32(8), "weights are few: wide bins")
}

// Searched ranges are fitted in calibration, which starts anew with its first batch, and stand still in training.
// The iteration over bins comes to a step as good as that over each number by itself.
func TestLloydObserver(t *testing.T) {
	x := each(noise(3000, 21), func(i int, v float32) float32 { return v * (1 + float32(i%7)) })
	for _, c := range []struct {
		method string
		target Target
		codes  codes
	}{
		{"linear:4,observer=lloyd", Target{Role: Activations, Channels: 1, Size: 3000, Signed: true}, signedCodes(4, false)},
		{"linear:4,observer=lloyd", Target{Role: Activations, Channels: 1, Size: 3000}, unsignedCodes(4)},
		{"linear:6,observer=lloyd", Target{Role: Weights, Channels: 1, Size: 3000}, signedCodes(6, true)},
	} {
		q := newTestLinear(t, c.method, c.target)
		theta, unit := make([]float32, 2), make([]float32, 1)
		if c.target.Role == Activations {
			q.Fit(theta, x[:1600], kernel.Dense(1600), 0)
			q.Fit(theta, x[1600:], kernel.Dense(1400), 1)
		} else {
			q.Fit(theta, x, kernel.Dense(3000), 0)
		}
		q.Units(unit, theta)
		got, want := c.codes.errorOf(x, float64(unit[0])), c.codes.errorOf(x, c.codes.iterate(x, 200))
		require.LessOrEqual(t, got, 1.02*want, "%s of %v", c.method, c.target)
		low, high := kernel.Range(x, kernel.Dense(len(x)))
		require.Less(t, got, c.codes.errorOf(x, max(float64(high)/float64(c.codes.max), float64(low)/float64(min(-1, c.codes.min)))))
	}
	_, err := MustParse("linear:4,asymmetric,observer=lloyd").Quantizer(Target{Role: Activations, Channels: 1, Size: 9})
	require.ErrorContains(t, err, "observer=lloyd finds scales alone")
}

func (c codes) level(v, step float64) float64 {
	return min(max(math.RoundToEven(v/step), float64(c.min)), float64(c.max))
}

// iterate is Lloyd's iteration by definition.
func (c codes) iterate(x []float32, times int) float64 {
	step := 0.0
	for _, v := range x {
		step = max(step, float64(v)/float64(c.max))
		if c.min < 0 {
			step = max(step, float64(v)/float64(c.min))
		}
	}
	for range times {
		product, square := 0.0, 0.0
		for _, v := range x {
			level := c.level(float64(v), step)
			product, square = product+float64(v)*level, square+level*level
		}
		step = product / square
	}
	return step
}

func (c codes) errorOf(x []float32, step float64) (sum float64) {
	for _, v := range x {
		d := float64(v) - c.level(float64(v), step)*step
		sum += d * d
	}
	return sum
}

func TestSearchedRangesStandStill(t *testing.T) {
	for _, observer := range []string{"percentile", "mse", "kl", "lloyd"} {
		q := newTestLinear(t, "linear:4,observer="+observer, observedActivations)
		a, b := noise(300, 57), noise(200, 58)
		theta, again := make([]float32, 2), make([]float32, 2)
		q.Fit(again, []float32{1000}, kernel.Dense(1), 0)
		for _, theta := range [][]float32{theta, again} {
			q.Fit(theta, a, kernel.Dense(len(a)), 0)
			q.Fit(theta, b, kernel.Dense(len(b)), 1)
		}
		require.Equal(t, theta, again)
		q.Observe(theta, -100, 100)
		require.Equal(t, again, theta)
	}
}

// With pow2 every scale is the power of two at or above what it is without, so that no number is clipped more.
func TestPowerOfTwoScales(t *testing.T) {
	for _, method := range []string{"linear:4", "linear:8,asymmetric", "linear:3,sign=unsigned"} {
		plain, pow2 := newTestLinear(t, method, observedActivations), newTestLinear(t, method+",pow2", observedActivations)
		for _, r := range [][2]float32{{-1, 2}, {0, 7.5}, {-3, 0}, {0, 0}, {-0.01, 0.02}, {-3e38, 3e38}, {-7.5, 7.5}} {
			if method != "linear:4" && r[1] > 1e38 {
				continue // their range is no float32
			}
			s, _ := plain.scale(r[0], r[1])
			p, zero := pow2.scale(r[0], r[1])
			fraction, _ := math.Frexp(float64(p))
			require.Equal(t, 0.5, fraction)
			require.GreaterOrEqual(t, p, s)
			require.Less(t, float64(p), 2*float64(s))
			u := pow2.codes.uniform(p, zero)
			if !plain.affine || plain.asymmetric {
				require.LessOrEqual(t, float64(u.Low)*float64(p), float64(r[0])+0.5*float64(p))
				require.GreaterOrEqual(t, float64(u.High)*float64(p), float64(r[1])-0.5*float64(p))
			}
		}
		_, err := pow2.Grid([]float32{nan, nan})
		require.Error(t, err)
	}
}

func BenchmarkLinearFit(b *testing.B) {
	x := noise(688*392, 59)
	for _, method := range []string{"linear:4", "linear:4,observer=percentile", "linear:4,observer=mse", "linear:8,observer=mse", "linear:4,observer=mse,per=tensor", "linear:4,observer=kl", "linear:8,observer=kl"} {
		b.Run(method, func(b *testing.B) {
			q := newTestLinear(b, method, Target{Role: Weights, Channels: 688, Size: len(x), Signed: true})
			theta := make([]float32, 2*688)
			b.ReportAllocs()
			for b.Loop() {
				q.Fit(theta, x, kernel.Dense(len(x)), 0)
			}
		})
	}
}

// Numbers are the same on every processor, instruction set and number of threads.
func TestObserverBits(t *testing.T) {
	for _, c := range []struct {
		method string
		role   Role
		want   string
	}{
		{"linear:4,observer=percentile,percentile=0.99", Weights, "351b362f"},
		{"linear:4,observer=percentile,percentile=0.99", Activations, "0176170f"},
		{"linear:4,observer=mse", Weights, "06bf16d7"},
		{"linear:4,observer=mse,asymmetric", Activations, "d5ef8bfc"},
		{"linear:3,observer=kl", Weights, "c58fb75c"},
		{"linear:3,observer=kl", Activations, "a391746a"},
		{"linear:4,pow2", Weights, "774cead7"},
		{"nnie:8", Weights, "9a37aeeb"},
		{"nnie:4", Activations, "b2689aa6"},
		{"nnie:8,exact", Weights, "bc540455"},
		{"dorefa:1", Weights, "a5952964"},
		{"dorefa:3", Weights, "64ec9d0b"},
		{"dorefa:8,rescale=false", Weights, "7ba05645"},
		{"dorefa:3", Activations, "b640754c"},
		{"pact:2,init=mse", Activations, "f5c0493e"},
		{"pact:4,init=percentile", Activations, "8d3f944c"},
	} {
		q, err := MustParse(c.method).Quantizer(Target{Role: c.role, Channels: 8, Size: 8 * 1500})
		require.NoError(t, err)
		require.Equal(t, c.want, bitsOf(q), "%s of %v", c.method, c.role)
	}
}

// bitsOf returns a hash of all that a quantizer computes from some numbers.
func bitsOf(q Quantizer) string {
	x, dy := noise(8*1500, 61), noise(8*1500, 62)
	p := q.Theta()
	theta, units := make([]float32, p.Rows*len(p.Columns)), make([]float32, p.Rows)
	levels, dx, dtheta := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(theta))
	q.Fit(theta, x, kernel.Dense(len(x)), 0)
	q.Units(units, theta)
	BackwardLevels(q, levels, dx, dtheta, dy, x, theta)
	h := fnv.New32a()
	for _, numbers := range [][]float32{theta, units, levels, dx, dtheta} {
		_ = binary.Write(h, binary.LittleEndian, numbers) // a hash takes everything
	}
	return fmt.Sprintf("%08x", h.Sum32())
}
