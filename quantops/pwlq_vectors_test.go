package quantops

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

// pwlqCase is the quantizer that a case of the vectors describes, with further options.
func pwlqCase(t *testing.T, c golden.Case, channels int, options string) *pwlq {
	t.Helper()
	text := fmt.Sprintf("pwlq:%d", c.Int("bits"))
	if c.Bool("overlapping") {
		text += ",overlap"
	}
	return newPWLQFor(t, text+options, channels, len(c.Float32("w")))
}

func newPWLQFor(t *testing.T, text string, channels, size int) *pwlq {
	t.Helper()
	made, err := MustParse(text).Quantizer(Target{Role: Weights, Channels: channels, Size: size, Signed: true})
	require.NoError(t, err)
	return made.(*pwlq)
}

// requirePieces checks regions, codes and values of the vectors for given parameters. They tell the tails apart, count those of
// negative numbers from -m up, and where steps count from zero both tails are one.
func requirePieces(t *testing.T, c golden.Case, q *pwlq, theta []float32) {
	t.Helper()
	x, y, region, code, tie := c.Float32("w"), c.Float32("y"), c.Integers("region"), c.Integers("code"), c.Integers("near_tie")
	shape := []int{q.channels, len(x) / q.channels}
	w, err := q.Encode(x, theta, shape)
	require.NoError(t, err)
	values := make([]float32, len(x))
	q.Levels(values, x, theta)
	requireBits(t, values, w.Decode())
	for i := range x {
		r, k, sign := q.index(int(w.Codes[i]))
		gotRegion, gotCode := int64(r), int64(k)
		if r == 1 && !q.overlap && sign < 0 {
			gotRegion, gotCode = 2, int64(k)+1<<(q.bits-1)-1
		}
		require.Equal(t, region[i], gotRegion, "region of weight %d, %v", i, x[i])
		require.LessOrEqual(t, max(gotCode-code[i], code[i]-gotCode), tie[i], "code of weight %d, %v", i, x[i])
		if tie[i] == 0 {
			reach := q.row(theta, i/shape[1])[1]
			require.InDelta(t, y[i], values[i], 1e-6*float64(reach), "value of weight %d", i)
		}
	}
}

// given are parameters with the breakpoints and reaches of a case.
func (q *pwlq) given(breakpoints []float64, reaches []float32) []float32 {
	theta := make([]float32, q.channels*len(q.theta.Columns))
	for c := range q.channels {
		copy(q.row(theta, c), []float32{float32(breakpoints[c]), reaches[c], 1, 0}[:len(q.theta.Columns)])
	}
	return theta
}

func TestPWLQVectors(t *testing.T) {
	golden.Run(t, "pwlq", "weights", func(t *testing.T, c golden.Case) {
		channels := c.Shape("w")[0]
		q := pwlqCase(t, c, channels, "")
		requirePieces(t, c, q, q.given(c.Float64("breakpoint"), c.Float32("abs_max")))
		requirePieceErrors(t, c, q)
		requireCorrected(t, c, pwlqCase(t, c, channels, ",correct"))
	})
}

// requirePieceErrors checks the root of the squared error of every channel at the given breakpoint, in two ways.
func requirePieceErrors(t *testing.T, c golden.Case, q *pwlq) {
	t.Helper()
	x, breakpoints, reaches := c.Float32("w"), c.Float64("breakpoint"), c.Float32("abs_max")
	theta := q.given(breakpoints, reaches)
	values := make([]float32, len(x))
	q.Levels(values, x, theta)
	eachChannel(q.channels, x, func(ch, from, to int) {
		sum := 0.0
		for i := from; i < to; i++ {
			d := float64(values[i]) - float64(x[i])
			sum += d * d
		}
		require.InEpsilon(t, c.Float64("l2_error")[ch], math.Sqrt(sum), 1e-5, "error of channel %d", ch)
		got := q.squaredError([]float32{float32(breakpoints[ch])}, x[from:to], reaches[ch])
		require.InEpsilon(t, sum, got, 1e-5)
	})
}

// requireCorrected compares the corrected values. Theirs are (w_q + mean(w) - mean(w_q))·gain, which lie (gain-1)·mean(w) beside ours.
func requireCorrected(t *testing.T, c golden.Case, q *pwlq) {
	t.Helper()
	x, want, tie := c.Float32("w"), c.Float32("y_bias_corrected"), c.Integers("near_tie")
	theta := q.given(c.Float64("breakpoint"), c.Float32("abs_max"))
	values := make([]float32, len(x))
	eachChannel(q.channels, x, func(ch, from, to int) {
		row := q.row(theta, ch)
		_, mean, squares := spread(x[from:to])
		q.fitCorrection(row, x[from:to], mean, squares)
		q.Levels(values, x, theta)
		if slices.Contains(tie[from:to], 1) {
			return
		}
		for i := from; i < to; i++ {
			beside := (float64(row[2]) - 1) * mean
			require.InDelta(t, float64(want[i]), float64(values[i])+beside, 5e-6*float64(row[1]), "corrected weight %d", i)
		}
	})
}

// Each rule finds the vectors' breakpoints in the vectors' weights.
func TestPWLQBreakpointVectors(t *testing.T) {
	rules := map[string]string{"norm": "gaussian", "laplace": "laplace"}
	golden.Run(t, "pwlq", "weights", func(t *testing.T, c golden.Case) {
		x, channels := c.Float32("w"), c.Shape("w")[0]
		options := ",breakpoint=" + rules[c.Text("breakpoint")]
		switch {
		case c.Text("breakpoint") == "search":
			options = ",breakpoint=search"
		case !c.Bool("approximate"):
			options = ",breakpoint=numeric,dist=" + rules[c.Text("breakpoint")]
		}
		q := pwlqCase(t, c, channels, options)
		theta := make([]float32, channels*len(q.theta.Columns))
		q.Fit(theta, x, kernel.Dense(len(x)), 0)
		eachChannel(channels, x, func(ch, from, to int) {
			row := q.row(theta, ch)
			require.Equal(t, c.Float32("abs_max")[ch], row[1])
			ratio := float64(row[0]) / float64(row[1])
			switch {
			case c.Text("breakpoint") == "search":
				got := math.Sqrt(q.squaredError(row[:1], x[from:to], row[1]))
				require.LessOrEqual(t, got, 1.001*c.Float64("l2_error")[ch])
			case c.Bool("approximate"):
				require.InDelta(t, c.Float64("bkp_ratio")[ch], ratio, 1e-6)
			default:
				require.InDelta(t, c.Float64("bkp_ratio_exact_root")[ch], ratio, 1e-5)
			}
		})
	})
}

func TestPWLQExplicitVectors(t *testing.T) {
	golden.Run(t, "pwlq", "explicit", func(t *testing.T, c golden.Case) {
		q := pwlqCase(t, c, 1, "")
		theta := q.given([]float64{c.Number("breakpoint")}, []float32{float32(c.Number("abs_max"))})
		requirePieces(t, c, q, theta)
	})
}

func TestBreakpointTableVectors(t *testing.T) {
	golden.Run(t, "pwlq", "breakpoint_table", func(t *testing.T, c golden.Case) {
		for i, reach := range c.Float64("m") {
			for d, name := range map[Distribution]string{Gaussian: "p_norm", Laplace: "p_laplace"} {
				require.InDelta(t, c.Float64(name + "_approx")[i], d.FittedBreakpoint(reach), 1e-6)
				for _, overlap := range []bool{false, true} {
					table := name
					if overlap {
						table += "_overlap"
					}
					want := c.Float64(table)[i]
					p := make([]float64, 1)
					Piecewise{d, overlap}.Bisect(p, reach)
					require.InDelta(t, want, p[0], 5e-3, "%s at %v", table, reach)
					Piecewise{d, overlap}.Descend(p, reach)
					require.InDelta(t, want, p[0], 5e-3, "%s at %v by descent", table, reach)
				}
			}
		}
	})
}

// The original quantizes activations uniformly, in a range that is the mean over batches of the median of the ten smallest and of
// the ten largest numbers. The arithmetic is that of linear; the observer is here alone.
func TestPWLQActivationVectors(t *testing.T) {
	golden.Run(t, "pwlq", "activations", func(t *testing.T, c golden.Case) {
		low, high := float64(c.Float32("min_bound")[0]), float64(c.Float32("max_bound")[0])
		if !c.HasParam("batches_in") {
			gotLow, gotHigh := medianRange(batches(c, -1))
			require.InDelta(t, low, gotLow, 1e-6)
			require.InDelta(t, high, gotHigh, 1e-6)
		}
		format, scale := unsignedCodes(c.Int("bits")), high/float64(int(1)<<c.Int("bits")-1)
		if c.Bool("signed") {
			format, scale = signedCodes(c.Int("bits"), false), 2*max(-low, high)/float64(int(1)<<c.Int("bits")-1)
		}
		require.InEpsilon(t, c.Float64("scale")[0], scale, 1e-6)
		u := format.uniform(float32(scale), 0)
		x, y, levels := c.Float32("x"), c.Float32("y"), make([]float32, len(c.Float32("x")))
		u.Levels(levels, x)
		for i, code := range c.Integers("code") {
			tie := c.Integers("near_tie")[i]
			require.LessOrEqual(t, math.Abs(float64(code)-float64(levels[i])), float64(tie), "code of %v", x[i])
			if tie == 0 {
				require.InDelta(t, y[i], levels[i]*float32(scale), 1e-6*high)
			}
		}
	})
}

func medianRange(batches [][]float32) (low, high float64) {
	for _, batch := range batches {
		sorted := slices.Clone(batch)
		slices.Sort(sorted)
		low += float64(sorted[4]) / float64(len(batches))
		high += float64(sorted[len(sorted)-6]) / float64(len(batches))
	}
	return low, high
}
