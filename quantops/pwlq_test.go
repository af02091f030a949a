package quantops

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
)

// heavyTailed are numbers of four channels with a few far out.
func heavyTailed() []float32 {
	x, factor := noise(4*300, 21), noise(4*300, 22)
	return each(x, func(i int, v float32) float32 { return 0.1 * v * (1 + float32(factor[i]*factor[i])) * float32(1+i/300) })
}

// fittedPWLQ makes a quantizer of four channels and fits it.
func fittedPWLQ(t *testing.T, text string, x []float32) (q Quantizer, theta []float32) {
	t.Helper()
	q, err := MustParse(text).Quantizer(Target{Role: Weights, Channels: 4, Size: len(x), Signed: true})
	require.NoError(t, err)
	theta = make([]float32, q.Theta().Rows*len(q.Theta().Columns))
	q.Fit(theta, x, kernel.Dense(len(x)), 0)
	return q, theta
}

// distance is Σ (x - Q(x))².
func distance(q Quantizer, x, theta []float32) float64 {
	levels, units := make([]float32, len(x)), make([]float32, q.Theta().Rows)
	q.Levels(levels, x, theta)
	q.Units(units, theta)
	sum := 0.0
	for i := range x {
		d := float64(x[i]) - float64(levels[i])*float64(units[i/(len(x)/len(units))])
		sum += d * d
	}
	return sum
}

func TestPWLQPictureOfThreeBits(t *testing.T) {
	q := newPWLQFor(t, "pwlq:3", 1, 1)
	seen := map[float32]bool{}
	for x := float32(-1.5); x <= 1.5; x += 1.0 / 1024 {
		y := make([]float32, 1)
		q.Levels(y, []float32{x}, []float32{0.35, 1.4})
		seen[y[0]] = true
	}
	levels := []float32{}
	for level := range seen {
		levels = append(levels, level)
	}
	slices.Sort(levels)
	require.InDeltaSlice(t, []float32{-1.4, -1.05, -0.7, -0.35, -0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.35, 0.7, 1.05, 1.4}, levels, 1e-6)
}

func TestPieceCodesRoundTrip(t *testing.T) {
	for bits := 2; bits <= 8; bits++ {
		for breakpoints := 1; breakpoints <= maxBreakpoints; breakpoints++ {
			for _, overlap := range []bool{false, true} {
				c, seen := pieceCodes{bits: bits, breakpoints: breakpoints, overlap: overlap}, map[uint16]bool{}
				for r := range breakpoints + 1 {
					for k := range 1 << (bits - 1) {
						for _, negative := range []bool{false, true} {
							code := c.code(r, k, negative)
							require.False(t, seen[code] && !(k == 0 && c.fromZero(r)), "code %d twice", code)
							seen[code] = true
							gotRegion, gotIndex, sign := c.index(int(code))
							want, wantSign := k, int8(1)
							if negative {
								want = -k
							}
							if negative && !c.fromZero(r) {
								wantSign = -1
							}
							require.Equal(t, []int{r, want}, []int{gotRegion, int(gotIndex)})
							require.Equal(t, wantSign, sign)
							require.Less(t, int(code), 1<<c.width())
						}
					}
				}
			}
		}
	}
}

// Centre, tail and its sign are sums of their own, so are the parts of further breakpoints, and the offset of a correction.
func TestPWLQPlanes(t *testing.T) {
	x := heavyTailed()
	for text, planes := range map[string]int{
		"pwlq:8": 3, "pwlq:4,correct": 4, "pwlq:4,overlap": 2, "pwlq:4,overlap,breakpoints=3": 4,
		"pwlq:4,breakpoints=2": 5, "pwlq:8,breakpoints=3": 7, "pwlq:8,breakpoints=3,correct": 8, "pwlq:8,breakpoint=learned,breakpoints=3,correct": 8,
	} {
		q, theta := fittedPWLQ(t, text, x)
		w, err := q.(WeightQuantizer).Encode(x, theta, []int{4, 300})
		require.NoError(t, err)
		require.Len(t, w.Planes, planes, text)
		levels := make([]float32, len(x))
		q.Levels(levels, x, theta)
		requireBits(t, levels, w.Decode())
	}
}

// Corrected weights have the mean and the deviation of the weights, channel by channel, and a constant channel stays what it is.
func TestPWLQCorrection(t *testing.T) {
	x := heavyTailed()
	for i := range x {
		if x[i] += 0.05; i >= 900 {
			x[i] = 0.3
		}
	}
	for bits := 2; bits <= 8; bits++ {
		for _, options := range []string{"", ",overlap", ",breakpoints=3", ",breakpoint=learned"} {
			q, theta := fittedPWLQ(t, fmt.Sprintf("pwlq:%d,correct%s", bits, options), x)
			y := make([]float32, len(x))
			q.Levels(y, x, theta)
			eachChannel(4, x, func(c, from, to int) {
				_, mean, squares := spread(x[from:to])
				_, gotMean, gotSquares := spread(y[from:to])
				require.InDelta(t, mean, gotMean, 1e-6*math.Abs(mean), "%d bits%s", bits, options)
				require.InDelta(t, math.Sqrt(squares), math.Sqrt(gotSquares), 1e-5*math.Sqrt(squares)+1e-6)
			})
		}
	}
}

// Piecewise beats uniform quantization by more than the bound, more breakpoints beat fewer, and search beats the rules.
func TestPWLQErrors(t *testing.T) {
	x := heavyTailed()
	of := func(text string) float64 {
		q, theta := fittedPWLQ(t, text, x)
		return distance(q, x, theta)
	}
	for bits := 3; bits <= 8; bits++ {
		m := fmt.Sprintf("pwlq:%d", bits)
		searched := of(m + ",breakpoint=search")
		for _, rule := range []string{"gaussian", "laplace", "numeric", "descent", "numeric,dist=laplace"} {
			require.Less(t, of(m+",breakpoint="+rule), 9.0/16*of(fmt.Sprintf("linear:%d", bits)), "%d bits, %s", bits, rule)
			require.LessOrEqual(t, searched, 1.001*of(m+",breakpoint="+rule), "%d bits, %s", bits, rule)
		}
		require.Less(t, of(m+",breakpoint=search,breakpoints=2"), searched)
		require.Less(t, of(m+",breakpoint=search,breakpoints=3"), of(m+",breakpoint=search,breakpoints=2"))
		require.Less(t, of(m+",breakpoint=numeric,breakpoints=2"), of(m+",breakpoint=numeric"))
		require.Less(t, of(m+",breakpoint=numeric,breakpoints=3"), of(m+",breakpoint=numeric,breakpoints=2"))
		require.Less(t, searched, of(m+",breakpoint=search,overlap"))
		require.Less(t, searched, of(m+",breakpoint=search,per=tensor"))
	}
}

// A learned breakpoint comes, from either side, near what search finds: less so where there are more levels than numbers to tell their
// error by, and where several breakpoints share them. It needs no gradient from above.
func TestPWLQLearnedBreakpoints(t *testing.T) {
	x := heavyTailed()
	dx, dy := make([]float32, len(x)), make([]float32, len(x))
	for text, within := range map[string]float64{"pwlq:2": 1.01, "pwlq:4": 1.02, "pwlq:8": 1.3, "pwlq:4,overlap": 1.15, "pwlq:5,breakpoints=3": 2.1} {
		searched, best := fittedPWLQ(t, text+",breakpoint=search", x)
		least := distance(searched, x, best)
		for _, start := range []float32{0.02, 0.9} {
			q, theta := fittedPWLQ(t, text+",breakpoint=learned", x)
			dtheta := make([]float32, len(theta))
			columns := len(q.Theta().Columns)
			for i := range theta {
				if k := i % columns; k < columns-1 {
					theta[i] = start * theta[i-k+columns-1] * float32(k+1) / float32(columns-1)
				}
			}
			for range 3000 {
				Measure(q, theta, x)
				q.Backward(dx, dtheta, dy, x, theta)
				for i, g := range dtheta {
					theta[i] = max(theta[i]-0.002*g, q.Theta().Minimum[i%columns])
				}
			}
			require.Less(t, distance(q, x, theta), within*least, "%s from %v", text, start)
		}
	}
}

// What is measured follows the weights and has no gradient, what is learned stays; breakpoints beyond a reach that has shrunk count as
// just below it.
func TestPWLQMeasured(t *testing.T) {
	x := heavyTailed()
	q, theta := fittedPWLQ(t, "pwlq:4,breakpoint=learned,correct", x)
	require.Equal(t, 3, q.Theta().Measured)
	before := slices.Clone(theta)
	small := each(x, func(_ int, v float32) float32 { return v / 1000 })
	Measure(q, theta, small)
	dtheta := make([]float32, len(theta))
	q.Backward(make([]float32, len(x)), dtheta, make([]float32, len(x)), small, theta)
	for c := range 4 {
		require.Equal(t, before[4*c], theta[4*c])
		require.InEpsilon(t, before[4*c+1]/1000, theta[4*c+1], 1e-6)
		require.Positive(t, dtheta[4*c], "back into the range")
		require.Equal(t, []float32{0, 0, 0}, dtheta[4*c+1:4*c+4])
	}
	w, err := q.(WeightQuantizer).Encode(small, theta, []int{4, 300})
	require.NoError(t, err)
	levels := make([]float32, len(x))
	q.Levels(levels, small, theta)
	requireBits(t, levels, w.Decode())
}

// The gradient passes up to the reach, whatever corrects the values.
func TestPWLQGradientIsClipped(t *testing.T) {
	q := newPWLQFor(t, "pwlq:4,correct", 1, 5)
	dx := make([]float32, 5)
	q.Backward(dx, nil, []float32{1, 2, 3, 4, 5}, []float32{-1.5, -1, 0.2, 1, 1.001}, []float32{0.3, 1, 1.1, 0})
	require.Equal(t, []float32{0, 2, 3, 4, 0}, dx)
}

// Parameters, values and gradients have the same bits on every machine.
func TestPWLQBits(t *testing.T) {
	x, h := heavyTailed(), fnv.New64a()
	for _, options := range []string{"", ",breakpoint=laplace", ",breakpoint=descent", ",breakpoint=search,breakpoints=2", ",breakpoint=learned,correct", ",breakpoint=numeric,dist=laplace,breakpoints=3,correct", ",overlap"} {
		q, theta := fittedPWLQ(t, "pwlq:4"+options, x)
		y, dtheta := make([]float32, len(x)), make([]float32, len(theta))
		q.Levels(y, x, theta)
		q.Backward(make([]float32, len(x)), dtheta, x, x, theta)
		for _, v := range slices.Concat(theta, y, dtheta) {
			require.NoError(t, binary.Write(h, binary.LittleEndian, v))
		}
	}
	require.Equal(t, "1f4a930f36ab52c1", fmt.Sprintf("%x", h.Sum64()))
}

func TestPWLQAllocatesNothing(t *testing.T) {
	x := append(heavyTailed(), make([]float32, 4*3000)...)
	dx, dy := make([]float32, len(x)), make([]float32, len(x))
	for _, text := range []string{"pwlq:4", "pwlq:8,correct,breakpoint=search", "pwlq:4,per=tensor", "pwlq:4,breakpoint=learned,breakpoints=2", "pwlq:4,overlap"} {
		q, theta := fittedPWLQ(t, text, x)
		dtheta := make([]float32, len(theta))
		require.Zero(t, testing.AllocsPerRun(2, func() {
			Measure(q, theta, x)
			q.Levels(dx, x, theta)
			q.Backward(dx, dtheta, dy, x, theta)
		}), text)
	}
}

func TestPWLQRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"pwlq:4,dist=laplace":                    `quantops: method "pwlq:4,dist=laplace": dist=laplace is for breakpoint=numeric and descent`,
		"pwlq:4,breakpoint=learned,dist=laplace": `quantops: method "pwlq:4,breakpoint=learned,dist=laplace": dist=laplace is for breakpoint=numeric and descent`,
	} {
		_, err := MustParse(text).Quantizer(Target{Role: Weights, Channels: 1, Size: 1})
		require.EqualError(t, err, want)
	}
	_, err := MustParse("pwlq:4").Quantizer(Target{Role: Activations, Channels: 1, Size: 1})
	require.EqualError(t, err, `quantops: method "pwlq:4": pwlq is not for activations`)
}

// Training steps over the weights of ResNet-20's largest layers: forward and backward.
func BenchmarkPWLQ(b *testing.B) {
	x := noise(64*576, 23)
	levels, dx, dy := make([]float32, len(x)), make([]float32, len(x)), noise(len(x), 24)
	for _, text := range []string{"pwlq:4", "pwlq:8", "pwlq:4,correct", "pwlq:4,breakpoint=numeric", "pwlq:4,breakpoint=search", "pwlq:4,breakpoint=learned"} {
		q, err := MustParse(text).Quantizer(Target{Role: Weights, Channels: 64, Size: len(x), Signed: true})
		require.NoError(b, err)
		theta := make([]float32, q.Theta().Rows*len(q.Theta().Columns))
		dtheta := make([]float32, len(theta))
		q.Fit(theta, x, kernel.Dense(len(x)), 0)
		b.Run(text+"/forward", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Measure(q, theta, x)
				q.Levels(levels, x, theta)
			}
		})
		b.Run(text+"/backward", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q.Backward(dx, dtheta, dy, x, theta)
			}
		})
	}
}
