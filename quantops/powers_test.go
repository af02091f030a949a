package quantops

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

func newPowerWeights(t testing.TB, method string, size int) *powerWeights {
	t.Helper()
	q, err := MustParse(method).Quantizer(Target{Role: Weights, Channels: 1, Size: size, Signed: true})
	require.NoError(t, err)
	return q.(*powerWeights)
}

func newPowerActivations(t testing.TB, method string, signed bool) *powerActivations {
	t.Helper()
	q, err := MustParse(method).Quantizer(Target{Role: Activations, Channels: 1, Size: 1, Signed: signed})
	require.NoError(t, err)
	return q.(*powerActivations)
}

// powerTermBits is k of a vector file's level sets.
func powerTermBits(c golden.Case, bits int) int {
	if c.Bool("additive") {
		return 2
	}
	return bits
}

// runPowerVectors runs every kind of vectors that pot and apot have in common.
func runPowerVectors(t *testing.T, name string) {
	golden.Run(t, name, "levels", requirePowerSums)
	golden.Run(t, name, "weight", func(t *testing.T, c golden.Case) { requirePowerWeights(t, name, c) })
	golden.Run(t, name, "act", func(t *testing.T, c golden.Case) { requirePowerActivations(t, name, c) })
	golden.Run(t, name, "tie", requirePowerTies)
}

func requirePowerSums(t *testing.T, c golden.Case) {
	bits := c.Int("B")
	sums := powerSums(bits, powerTermBits(c, bits))
	levels, official := c.Float64("levels"), c.Float32("levels_f32_official")
	require.Len(t, sums, len(levels))
	for i, sum := range sums {
		level := float64(sum) / float64(sums[len(sums)-1])
		require.InDelta(t, levels[i], level, 1e-15)
		require.InDelta(t, official[i], level, 1e-7)
	}
}

// powerMethod is the method string for a variant of the authors' code.
func powerMethod(name string, bits int, variant string, role Role) string {
	text := fmt.Sprintf("%s:%d", name, bits)
	if role == Weights {
		text += ",rescale=false"
		if variant == "imagenet" {
			text += ",gradient=full,clipgrad=calibrated"
		}
		return text
	}
	return text + ",sign=unsigned,negative=" + variant
}

// powerVectors is a case with what was computed for it. Norm is what was compared with alpha.
type powerVectors struct {
	golden.Case
	levels *powerLevels
	alpha  float32
	norm   []float32
}

// requireLevels checks codes, exactly but for near ties, and values.
func (v powerVectors) requireLevels(t *testing.T, levels []float32) {
	t.Helper()
	codes, tie, y := v.Integers("code"), v.Integers("near_tie"), v.Float32("y")
	require.Len(t, levels, len(codes))
	unit := v.levels.unit(v.alpha)
	for i, level := range levels {
		at, found := slices.BinarySearch(v.levels.levels, int32(level))
		require.True(t, found, "level %v", level)
		require.LessOrEqual(t, math.Abs(float64(codes[i]-int64(at-v.levels.zero))), float64(tie[i]), "code of element %d", i)
		if tie[i] == 0 {
			require.InDelta(t, y[i], level*unit, 1e-6*math.Abs(float64(y[i])), "value of element %d", i)
		}
	}
}

// alphaTerms returns Σ |dy·slope|, relative to which the gradient of alpha is compared: slopes are 1 where x, the number
// that is compared with alpha, lies above it or below floor times it.
func alphaTerms(dy []float64, y, x []float32, alpha, floor float64) float64 {
	terms := 0.0
	for i, v := range x {
		at := float64(v) / alpha
		slope := float64(y[i])/alpha - at
		if at > 1 || at < floor {
			slope = 1
		}
		terms += math.Abs(dy[i] * slope)
	}
	return terms
}

func (v powerVectors) requireAlphaGradient(t *testing.T, got float32, floor float64) {
	t.Helper()
	dy, ties := float64s(v.Float32("dy")), 0.0
	for i, tie := range v.Integers("near_tie") {
		ties += math.Abs(dy[i]) * float64(tie)
	}
	terms := alphaTerms(dy, v.Float32("y"), v.norm, float64(v.alpha), floor)
	require.InDelta(t, v.Float64("dalpha_f64")[0], got, 5e-6*terms+ties, "gradient of alpha")
}

// requireWithin compares, but for marked elements, with an error relative to the largest number.
func requireWithin(t *testing.T, want, got []float32, relative float64, edge []int64, what string) {
	t.Helper()
	require.Len(t, got, len(want))
	largest := 0.0
	for _, v := range want {
		largest = math.Max(largest, math.Abs(float64(v)))
	}
	for i, v := range want {
		if edge == nil || edge[i] == 0 {
			require.InDelta(t, v, got[i], relative*largest, "%s %d", what, i)
		}
	}
}

func requirePowerWeights(t *testing.T, name string, c golden.Case) {
	bits, w, dy := c.Int("bits"), c.Float32("w"), c.Float32("dy")
	q := newPowerWeights(t, powerMethod(name, bits, c.Text("variant"), Weights), len(w))
	require.Equal(t, c.Bool("grad_clipped"), q.clipped)
	require.Len(t, q.levels, c.Int("n_levels"))
	theta := []float32{c.Float32("alpha")[0], nan, nan}
	q.Measure(theta, w)
	require.InDelta(t, c.Number("mean"), theta[1], 1e-8)
	require.InEpsilon(t, c.Number("std_unbiased"), theta[2], 1e-6)
	v := powerVectors{c, q.powerLevels, theta[0], make([]float32, len(w))}
	q.normalized(v.norm, w, theta)
	requireWithin(t, c.Float32("w_norm"), v.norm, 1e-6, nil, "normalized weight")

	levels, dw, dtheta := make([]float32, len(w)), make([]float32, len(w)), []float32{nan, nan, nan}
	q.Levels(levels, w, theta)
	v.requireLevels(t, levels)
	q.Backward(dw, dtheta, dy, w, theta)
	requireWithin(t, c.Float32("dw"), dw, 5e-6, c.Integers("edge"), "dw")
	v.requireAlphaGradient(t, dtheta[0], -1)
	require.Equal(t, []float32{0, 0}, dtheta[1:], "measured")
}

// powerVectorActivations goes beyond what the method offers: 5 bits of pot fit no two bytes.
func powerVectorActivations(t *testing.T, name string, bits int, variant string) *powerActivations {
	if name == "pot" && bits == 5 {
		return &powerActivations{newPowerLevels(5, powerSums(5, 5), false), variant == "imagenet"}
	}
	return newPowerActivations(t, powerMethod(name, bits, variant, Activations), true)
}

func requirePowerActivations(t *testing.T, name string, c golden.Case) {
	x, dy := c.Float32("x"), c.Float32("dy")
	q := powerVectorActivations(t, name, c.Int("bits"), c.Text("variant"))
	theta := c.Float32("alpha")
	v := powerVectors{c, q.powerLevels, theta[0], x}
	levels, dx, dtheta := make([]float32, len(x)), make([]float32, len(x)), []float32{nan}
	q.BackwardLevels(levels, dx, dtheta, dy, x, theta)
	v.requireLevels(t, levels)
	requireWithin(t, c.Float32("dx"), dx, 0, c.Integers("edge"), "dx")
	v.requireAlphaGradient(t, dtheta[0], math.Inf(-1))
}

// What the authors' code does with a middle depends on the order of a Python set; here the level nearer to zero gets it,
// where alpha/denominator is exact.
func requirePowerTies(t *testing.T, c golden.Case) {
	bits := c.Int("bits")
	q := &powerActivations{powerLevels: newPowerLevels(bits, powerSums(bits, powerTermBits(c, bits)), false)}
	x, low, high := c.Float32("x"), c.Float32("y_low"), c.Float32("y_high")
	levels := make([]float32, len(x))
	q.Levels(levels, x, []float32{1})
	for i, level := range levels {
		y := float64(level * q.unit(1))
		if !c.Bool("additive") || math.Abs(y-float64(high[i])) > 1e-6 {
			require.InDelta(t, low[i], y, 1e-6, "value of %v", x[i])
		}
	}
}

func TestPowerSums(t *testing.T) {
	for _, c := range []struct {
		bits, k int
		want    []int32
	}{
		{1, 2, []int32{0, 1}},
		{2, 2, []int32{0, 1, 2, 4}},
		{3, 2, []int32{0, 1, 2, 3, 4, 6, 8, 10}},
		{4, 2, []int32{0, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 48}},
		{3, 1, []int32{0, 1, 2, 3, 4, 5, 6, 7}}, // uniform
		{3, 3, []int32{0, 1, 2, 4, 8, 16, 32, 64}},
		{3, 4, []int32{0, 1, 2, 4, 8, 16, 32, 64}},
		{4, 3, []int32{0, 1, 2, 4, 8, 9, 10, 12, 16, 24, 32, 40, 64, 72, 128, 136}}, // the odd bit is worth 8
	} {
		require.Equal(t, c.want, powerSums(c.bits, c.k), "%d bits, terms of %d", c.bits, c.k)
	}
	for bits, largest := range map[int]int32{5: 100, 6: 448, 7: 904} {
		sums := powerSums(bits, 2)
		require.Len(t, sums, 1<<bits)
		require.Equal(t, largest, sums[len(sums)-1])
	}
}

// All sums differ, so that no code is wasted, and k = 1 has equal steps.
func TestPowerSumsDiffer(t *testing.T) {
	for k := 1; k <= 4; k++ {
		for bits := 1; bits <= 7; bits++ {
			sums := powerSums(bits, k)
			require.Len(t, slices.Compact(slices.Clone(sums)), 1<<bits)
			if k == 1 {
				require.EqualValues(t, 1<<bits-1, sums[len(sums)-1])
			}
		}
	}
}

// For odd bits, the terms of the authors' code: their exponents begin at 1.
func TestPowerTerms(t *testing.T) {
	terms, rungs := powerTerms(3, 2)
	require.Equal(t, [][]int{{0, 1, 3}, {2}}, terms)
	require.Equal(t, 4, rungs)
	terms, rungs = powerTerms(5, 2)
	require.Equal(t, [][]int{{0, 2, 5}, {1, 3, 6}, {4}}, terms)
	require.Equal(t, 7, rungs)
	terms, _ = powerTerms(7, 2)
	require.Equal(t, [][]int{{0, 3, 7}, {1, 4, 8}, {2, 5, 9}, {6}}, terms)
	terms, _ = powerTerms(5, 3)
	require.Equal(t, [][]int{{0, 1, 3, 4, 6, 7, 9}, {2, 5, 8}}, terms)
}

func TestPowerErrors(t *testing.T) {
	for _, c := range []struct {
		method string
		role   Role
		want   string
	}{
		{"apot:6,k=4", Weights, "magnitudes of 5 bits in terms of 4 bits reach 32896 times the smallest, two bytes 32639 times; a smaller k reaches less far"},
		{"apot:6", Activations, "activations of apot have 2 to 5 bits"},
		{"pot:5", Activations, "activations of pot have 2 to 4 bits"},
		{"pot:4,sign=signed", Weights, "sign=signed is for activations"},
		{"pot:4,negative=imagenet", Weights, "negative=imagenet is for activations"},
		{"apot:4,rescale=false", Activations, "rescale=false is for weights"},
		{"apot:4,clipgrad=on", Activations, "clipgrad=on is for weights"},
		{"apot:4,normalize=false,gradient=full", Weights, "gradient=full is for normalized weights"},
		{"apot:4,normalize=false,rescale=false", Weights, "rescale=false is for normalized weights"},
		{"apot:4,sign=signed,negative=imagenet", Activations, "negative=imagenet is for unsigned codes"},
	} {
		_, err := MustParse(c.method).Quantizer(Target{Role: c.role, Channels: 1, Size: 1, Signed: true})
		require.EqualError(t, err, fmt.Sprintf("quantops: method %q: %s", MustParse(c.method), c.want))
	}
	_, err := MustParse("apot:5,k=4").Quantizer(Target{Role: Weights, Channels: 1, Size: 1, Signed: true})
	require.NoError(t, err, "4 bits of magnitude fit")
}

func TestPowerTheta(t *testing.T) {
	for _, name := range []string{"pot:4", "apot:4"} {
		weights := newPowerWeights(t, name, 1).Theta()
		require.Equal(t, []string{"alpha", "mean", "std"}, weights.Columns)
		require.Equal(t, 2, weights.Measured)
		require.Equal(t, []float64{0.5, 1}, []float64{weights.Rate, weights.Decay}) // 0.02 beside 0.04
		bare := newPowerWeights(t, name+",normalize=false", 1).Theta()
		require.Equal(t, []string{"alpha"}, bare.Columns)
		require.Zero(t, bare.Measured)
		activations := newPowerActivations(t, name, false).Theta()
		require.Equal(t, []string{"alpha"}, activations.Columns)
		require.Equal(t, []float64{2.5, 1}, []float64{activations.Rate, activations.Decay}) // 0.1 beside 0.04
	}
}

// powerNeighbours are the bounds of a staircase with the numbers before and after, and numbers all over and beyond.
func powerNeighbours(l *powerLevels, alpha float32) []float32 {
	x := []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), alpha, -alpha}
	for _, b := range l.bounds(alpha) {
		x = append(x, b, math.Nextafter32(b, float32(math.Inf(1))), math.Nextafter32(b, float32(math.Inf(-1))))
	}
	return append(x, each(noise(500, 21), func(_ int, v float32) float32 { return v * alpha })...)
}

// The nearest level by definition: search all of them. Numbers within float32 error of a middle may go either way.
func TestPowerLevelsAreNearest(t *testing.T) {
	for _, method := range []string{"pot:2", "pot:4", "apot:2", "apot:3", "apot:4", "apot:5", "apot:5,k=3", "apot:5,k=1"} {
		for _, signed := range []bool{false, true} {
			q := newPowerActivations(t, method, signed)
			for _, alpha := range []float32{1, 0.3, 17.25, smallestScale, 3e38} {
				x := powerNeighbours(q.powerLevels, alpha)
				levels := make([]float32, len(x))
				q.Levels(levels, x, []float32{alpha})
				unit := float64(alpha) / float64(q.largest())
				for i, v := range x {
					at := math.Max(-1e6, math.Min(float64(v)/unit, 1e6))
					least := math.Inf(1)
					for _, level := range q.levels {
						least = math.Min(least, math.Abs(at-float64(level)))
					}
					require.InDelta(t, least, math.Abs(at-float64(levels[i])), 1e-6*math.Abs(at), "%s, alpha %v: level %v of %v", method, alpha, levels[i], v)
				}
			}
		}
	}
}

// Signed levels are symmetric, in the middles as well.
func TestPowerSymmetry(t *testing.T) {
	for _, method := range []string{"pot:4", "apot:4", "apot:5"} {
		q := newPowerActivations(t, method, true)
		for _, alpha := range []float32{1, 0.7, 12} {
			x := powerNeighbours(q.powerLevels, alpha)
			for _, m := range q.middles {
				x = append(x, m*q.unit(alpha))
			}
			levels, mirrored := make([]float32, len(x)), make([]float32, len(x))
			q.Levels(levels, x, []float32{alpha})
			q.Levels(mirrored, each(x, func(_ int, v float32) float32 { return -v }), []float32{alpha})
			require.Equal(t, levels, each(mirrored, func(_ int, v float32) float32 { return 0 - v }), method)
		}
	}
	q := newPowerActivations(t, "apot:3", true) // -1 -1/2 -1/4 0 1/4 1/2 1
	levels := make([]float32, 4)
	q.Levels(levels, []float32{-0.75, -0.125, 0.125, 0.75}, []float32{1})
	require.Equal(t, []float32{-2, 0, 0, 2}, levels)
}

// The grid of the integer model has the bounds of training: the same codes bit for bit, also beside every bound.
func TestPowerGrid(t *testing.T) {
	for _, method := range []string{"pot:2", "pot:4", "apot:2", "apot:3", "apot:4", "apot:5"} {
		for _, signed := range []bool{false, true} {
			q := newPowerActivations(t, method, signed)
			for _, alpha := range []float32{1, 0.3, 17.25, smallestScale} {
				g, err := q.Grid([]float32{alpha})
				require.NoError(t, err)
				require.EqualValues(t, 0, g.Table.Levels[g.Zero])
				require.True(t, slices.IsSorted(g.Table.Bounds) && len(g.Table.Bounds) == len(g.Table.Levels)-1)
				x := powerNeighbours(q.powerLevels, alpha)
				levels := make([]float32, len(x))
				q.Levels(levels, x, []float32{alpha})
				for i, v := range x {
					code := 0
					for _, b := range g.Table.Bounds {
						if b < v {
							code++
						}
					}
					require.Equal(t, float32(g.Table.Levels[code]), levels[i], "%s: level of %v", method, v)
				}
			}
		}
	}
}

// A code is sign·index in two's complement. One plane holds levels within a byte, two hold 256·high + low.
func TestPowerEncode(t *testing.T) {
	encode := func(method string, x []float32) *integer.Weights {
		q := newPowerWeights(t, method, len(x))
		w, err := q.Encode(x, []float32{1}, []int{2, len(x) / 2})
		require.NoError(t, err)
		return w
	}
	w := encode("apot:4,normalize=false", []float32{0, 0.1, -0.1, 1, -1, 0.62})
	require.Equal(t, []uint16{0, 1, 15, 7, 9, 5}, w.Codes)
	require.Len(t, w.Planes, 1)
	require.Equal(t, []int8{0, 1, 2, 3, 4, 6, 8, 10, 0, -10, -8, -6, -4, -3, -2, -1}, w.Planes[0].Table) // 8 does not occur
	require.Equal(t, slices.Repeat([]float64{float64(float32(0.1))}, 2), w.Planes[0].Scale)

	w = encode("pot:5,normalize=false", []float32{0, 1, -1, 0.5, 1. / 128, -1. / 16384})
	require.Equal(t, []uint16{0, 15, 17, 14, 8, 31}, w.Codes)
	require.Len(t, w.Planes, 2)
	require.Equal(t, []float64{1. / 64, 1. / 64}, w.Planes[0].Scale)
	require.Equal(t, []float32{0, 1, -1, 0.5, 1. / 128, -1. / 16384}, w.Decode())

	require.Len(t, encode("apot:6,normalize=false", make([]float32, 2)).Planes, 1)
	require.Len(t, encode("apot:7,normalize=false", make([]float32, 2)).Planes, 2)
	require.Len(t, encode("apot:8,normalize=false", make([]float32, 2)).Planes, 2)
}

// Shift and add: the magnitude of every code is a sum of as many powers of two as there are terms, so that products need no
// multiplication.
func TestPowerShiftAdd(t *testing.T) {
	for bits := 1; bits <= 7; bits++ {
		for k := 1; k <= 4; k++ {
			for _, sum := range powerSums(bits, k) {
				ones := strings.Count(fmt.Sprintf("%b", sum), "1")
				require.LessOrEqual(t, ones, (bits+k-1)/k)
			}
		}
	}
}

// powerLoss is Σ dy·y of the surrogate for which Backward gives the gradients, in float64: rounding moves every element by
// what it moves it now, r, and is a constant; mean and std are those of w, or constants.
func (q *powerWeights) powerLoss(w []float64, dy, r []float64, alpha, mean, std float64) float64 {
	if q.full {
		mean, std = moments(w)
	}
	if !q.normalize {
		mean, std = 0, 1
	}
	loss := 0.0
	for i, v := range w {
		y := alpha * (math.Max(-1, math.Min((v-mean)/std/alpha, 1)) + r[i])
		if q.rescale {
			y *= std
		}
		loss += dy[i] * y
	}
	return loss
}

func moments(w []float64) (mean, std float64) {
	for _, v := range w {
		mean += v / float64(len(w))
	}
	for _, v := range w {
		std += (v - mean) * (v - mean) / float64(len(w)-1)
	}
	return mean, math.Sqrt(std)
}

func float64s(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func TestPowerWeightDifferences(t *testing.T) {
	const n = 150
	for _, method := range []string{
		"apot:4,clipgrad=on", "apot:3,clipgrad=on,rescale=false", "pot:4,clipgrad=on,normalize=false", "pot:2,clipgrad=on",
		"apot:4,clipgrad=on,gradient=full", "apot:4,clipgrad=on,gradient=full,rescale=false", "apot:7,clipgrad=calibrated,gradient=full",
	} {
		q := newPowerWeights(t, method, n)
		x, dy := each(noise(n, 31), func(_ int, v float32) float32 { return 0.2*v + 0.05 }), noise(n, 32)
		theta := make([]float32, len(q.Theta().Columns))
		q.Fit(theta, x, kernel.Dense(n), 0)
		theta[0] *= 0.6 // so that there is something to clip
		dw, dtheta, levels := make([]float32, n), make([]float32, len(theta)), make([]float32, n)
		q.Backward(dw, dtheta, dy, x, theta)
		q.Levels(levels, x, theta)

		w, up, alpha := float64s(x), float64s(dy), float64(theta[0])
		mean, std := 0.0, 1.0
		if q.normalize {
			mean, std = moments(w)
		}
		r := make([]float64, n)
		for i, level := range levels {
			r[i] = float64(level)/float64(q.largest()) - math.Max(-1, math.Min((w[i]-mean)/std/alpha, 1))
		}
		const h = 1e-6
		difference := (q.powerLoss(w, up, r, alpha+h, mean, std) - q.powerLoss(w, up, r, alpha-h, mean, std)) / (2 * h)
		require.InDelta(t, difference, dtheta[0], 1e-5*n*std, "%s: gradient of alpha", method)
		for i := range w {
			v := w[i]
			w[i] = v + h
			above := q.powerLoss(w, up, r, alpha, mean, std)
			w[i] = v - h
			below := q.powerLoss(w, up, r, alpha, mean, std)
			w[i] = v
			require.InDelta(t, (above-below)/(2*h), dw[i], 2e-5/std, "%s: gradient of weight %d", method, i)
		}
	}
}

func TestPowerActivationDifferences(t *testing.T) {
	for _, method := range []string{"apot:4", "pot:3", "apot:4,negative=imagenet"} {
		for _, signed := range []bool{false, true} {
			q := newPowerActivations(t, method, signed)
			x, dy, theta, dtheta := noise(300, 33), noise(300, 34), []float32{1.3}, []float32{nan}
			dx, levels := make([]float32, len(x)), make([]float32, len(x))
			q.BackwardLevels(levels, dx, dtheta, dy, x, theta)
			low := math.Inf(-1) // clip(x/α) reaches down as far as the gradient passes
			switch {
			case q.signed():
				low = -1
			case q.stopNegative:
				low = 0
			}
			const h = 1e-6
			alpha, sum := float64(theta[0]), 0.0
			for i, v := range float64s(x) {
				clip := func(v float64) float64 { return math.Max(low, math.Min(v, 1)) }
				r := float64(levels[i])/float64(q.largest()) - clip(v/alpha)
				value := func(v, alpha float64) float64 { return alpha * (clip(v/alpha) + r) }
				sum += float64(dy[i]) * (value(v, alpha+h) - value(v, alpha-h)) / (2 * h)
				require.InDelta(t, float64(dy[i])*(value(v+h, alpha)-value(v-h, alpha))/(2*h), dx[i], 1e-6, "%s: gradient of %v", method, v)
			}
			require.InDelta(t, sum, dtheta[0], 1e-4, "%s: gradient of alpha", method)
		}
	}
}

// Multiplying by the deviation again changes values by that factor and leaves the gradient of weights as it came.
func TestPowerRescale(t *testing.T) {
	x, dy := each(noise(100, 41), func(_ int, v float32) float32 { return v / 8 }), noise(100, 42)
	with, without := newPowerWeights(t, "apot:4", 100), newPowerWeights(t, "apot:4,rescale=false", 100)
	theta := make([]float32, 3)
	with.Fit(theta, x, kernel.Dense(100), 0)
	unit, bare := make([]float32, 1), make([]float32, 1)
	with.Units(unit, theta)
	without.Units(bare, theta)
	require.Equal(t, bare[0]*theta[2], unit[0])
	dw, dtheta, bareW, bareTheta := make([]float32, 100), make([]float32, 3), make([]float32, 100), make([]float32, 3)
	with.Backward(dw, dtheta, dy, x, theta)
	without.Backward(bareW, bareTheta, dy, x, theta)
	require.Equal(t, dy, dw)
	require.Equal(t, each(dy, func(_ int, v float32) float32 { return v / theta[2] }), bareW)
	require.InEpsilon(t, bareTheta[0]*theta[2], dtheta[0], 1e-6)
}

func TestPowerStart(t *testing.T) {
	x := noise(4000, 51)
	weights, activations := make([]float32, 3), make([]float32, 1)
	newPowerWeights(t, "apot:4,init=paper", len(x)).Fit(weights, x, kernel.Dense(len(x)), 0)
	newPowerActivations(t, "apot:4,init=paper", false).Fit(activations, x, kernel.Dense(len(x)), 0)
	require.EqualValues(t, 3, weights[0])
	require.EqualValues(t, 8, activations[0])

	q := newPowerActivations(t, "apot:3", false)
	for batch, want := range []float32{2, 1.5, 2} { // each batch has one positive number, which alpha is to be
		q.Fit(activations, []float32{-9, 0, [...]float32{2, 1, 3}[batch], 0}, kernel.Dense(4), batch)
		require.InEpsilon(t, want, activations[0], 2e-3) // the width of a histogram bin
	}
	q.Fit(activations, []float32{-1, -2}, kernel.Dense(2), 0)
	require.EqualValues(t, smallestScale, activations[0], "no positive numbers")
}

// The start has about the least squared error that any alpha has.
func TestPowerStartIsLeastSquares(t *testing.T) {
	x := noise(4000, 52)
	for _, method := range []string{"pot:4", "apot:2", "apot:3", "apot:5"} {
		for _, signed := range []bool{false, true} {
			q := newPowerActivations(t, method, signed)
			squares := func(alpha float32) float64 {
				levels, sum := make([]float32, len(x)), 0.0
				q.Levels(levels, x, []float32{alpha})
				for i, level := range levels {
					d := float64(x[i]) - float64(level*q.unit(alpha))
					sum += d * d
				}
				return sum
			}
			least := math.Inf(1)
			for alpha := float32(0.1); alpha < 5; alpha += 0.01 {
				least = math.Min(least, squares(alpha))
			}
			theta := make([]float32, 1)
			q.Fit(theta, x, kernel.Dense(len(x)), 0)
			require.LessOrEqual(t, squares(theta[0]), 1.02*least, "%s, signed %v", method, signed)
		}
	}
}

// Blocks of activations go through one quantizer at the same time.
func TestPowerConcurrent(t *testing.T) {
	q := newPowerActivations(t, "apot:4", false)
	x, dy := noise(500, 61), noise(500, 62)
	run := func(alpha float32) (levels, dx, dtheta []float32) {
		levels, dx, dtheta = make([]float32, len(x)), make([]float32, len(x)), make([]float32, 1)
		q.BackwardLevels(levels, dx, dtheta, dy, x, []float32{alpha})
		return levels, dx, dtheta
	}
	for _, alpha := range []float32{1, 2, 0.5} {
		levels, dx, dtheta := run(alpha)
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				other := []float32{alpha, alpha / 2}[i%2] // not even another alpha disturbs
				again, dxAgain, dthetaAgain := run(other)
				if other == alpha && !(slices.Equal(levels, again) && slices.Equal(dx, dxAgain) && slices.Equal(dtheta, dthetaAgain)) {
					t.Errorf("alpha %v: results differ", alpha)
				}
			})
		}
		group.Wait()
	}
}

func TestPowerAllocations(t *testing.T) {
	activations, weights := newPowerActivations(t, "apot:4", false), newPowerWeights(t, "apot:4,gradient=full", 1000)
	x, dy := noise(1000, 71), noise(1000, 72)
	dx, levels, theta, dtheta := make([]float32, 1000), make([]float32, 1000), []float32{1, 0, 1}, make([]float32, 3)
	for name, call := range map[string]func(){
		"levels of activations":   func() { activations.Levels(levels, x, theta) },
		"gradient of activations": func() { activations.Backward(dx, dtheta, dy, x, theta) },
		"both":                    func() { activations.BackwardLevels(levels, dx, dtheta, dy, x, theta) },
		"measuring":               func() { weights.Measure(theta, x) },
		"levels of weights":       func() { weights.Levels(levels, x, theta) },
		"gradient of weights":     func() { weights.Backward(dx, dtheta, dy, x, theta) },
	} {
		require.Zero(t, testing.AllocsPerRun(20, call), name)
	}
}

func BenchmarkPower(b *testing.B) {
	q := newPowerActivations(b, "apot:4", false)
	n := kernel.Chunk
	x, dy, dx, levels, theta := noise(n, 81), noise(n, 82), make([]float32, n), make([]float32, n), []float32{1}
	dtheta := make([]float32, 1)
	b.Run("levels", func(b *testing.B) {
		b.SetBytes(int64(4 * n))
		for b.Loop() {
			q.Levels(levels, x, theta)
		}
	})
	b.Run("backward and levels", func(b *testing.B) {
		b.SetBytes(int64(4 * n))
		for b.Loop() {
			q.BackwardLevels(levels, dx, dtheta, dy, x, theta)
		}
	})
	b.Run("weights", func(b *testing.B) {
		const n = 64 * 64 * 9
		q, w, dw, levels, theta := newPowerWeights(b, "apot:4", n), noise(n, 83), make([]float32, n), make([]float32, n), []float32{1, 0, 1}
		dy, dtheta := noise(n, 84), make([]float32, 3)
		b.SetBytes(int64(4 * n))
		for b.Loop() {
			q.Measure(theta, w)
			q.Levels(levels, w, theta)
			q.Backward(dw, dtheta, dy, w, theta)
		}
	})
}

// Alpha's learning rate and weight decay are the paper's unless options say otherwise.
func TestPowerRates(t *testing.T) {
	for text, want := range map[string][2]float64{"apot:4": {0.5, 1}, "pot:3,rate=2,decay=0": {2, 0}} {
		q, err := MustParse(text).Quantizer(Target{Role: Weights, Channels: 2, Size: 8, Signed: true})
		require.NoError(t, err)
		require.Equal(t, want, [2]float64{q.Theta().Rate, q.Theta().Decay}, text)
	}
	q, err := MustParse("apot:4").Quantizer(Target{Role: Activations, Channels: 1, Size: 8})
	require.NoError(t, err)
	require.Equal(t, 2.5, q.Theta().Rate)
	for _, text := range []string{"apot:4,rate=0", "apot:4,rate=x", "apot:4,decay=-1"} {
		_, err := Parse(text)
		require.Error(t, err, text)
	}
}
