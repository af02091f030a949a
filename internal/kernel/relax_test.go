package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

var relaxations = [][]float32{{-1, 1}, {-1, 0, 1}, {-3, -1, 1, 3}, {-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15}}

func TestExponential(t *testing.T) {
	worst := 0.0
	for x := float32(0); x > exponentialLowest; x -= 0.00737 {
		want := math.Exp(float64(x))
		worst = max(worst, math.Abs(float64(exponential(x))-want)/want)
	}
	require.Less(t, worst, 2e-7)
	require.EqualValues(t, 1, exponential(0))
	require.Positive(t, exponential(exponentialLowest))
	require.Zero(t, exponential(math.Nextafter32(exponentialLowest, -infinity)))
	require.Zero(t, exponential(-infinity))
	require.True(t, math.IsNaN(float64(exponential(float32(math.NaN())))))
}

// plain is the definition in float64: value, gradient of each logit for dy = 1, value of the largest logit.
func (r Relaxation) plain(a []float64) (soft float64, gradient []float64, hard float64) {
	best := 0
	for k := range a {
		if a[k] > a[best] {
			best = k
		}
	}
	sum := 0.0
	for k := range a {
		e := math.Exp(float64(r.sharpness) * (a[k] - a[best]))
		sum += e
		soft += e * float64(r.values[k])
		gradient = append(gradient, e)
	}
	soft /= sum
	for k := range gradient {
		gradient[k] = float64(r.sharpness) * gradient[k] / sum * (float64(r.values[k]) - soft)
	}
	return soft, gradient, float64(r.values[best])
}

func TestRelaxationIsItsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(51, 52))
		for _, values := range relaxations {
			for _, sharpness := range []float32{0.25, 1, 10, 100, 1e7} {
				r, n := NewRelaxation(values, sharpness), 50
				largest := float64(values[len(values)-1])
				a, dy := random(stream, n*len(values)), random(stream, n)
				soft, hard, da := make([]float32, n), make([]float32, n), make([]float32, n*len(values))
				r.Soft(soft, a)
				r.Hard(hard, a)
				r.Gradient(da, dy, a)
				for i := range n {
					logits := make([]float64, len(values))
					for k := range logits {
						logits[k] = float64(a[k*n+i])
					}
					wantSoft, wantGradient, wantHard := r.plain(logits)
					// The float32 argument of the exponential is off by one part in 2^24 of it.
					tolerance := (2e-6 + 3e-7*3*float64(min(sharpness, 100))) * largest
					require.InDelta(t, wantSoft, soft[i], tolerance)
					require.EqualValues(t, wantHard, hard[i])
					for k, want := range wantGradient {
						require.InDelta(t, want*float64(dy[i]), da[k*n+i], 2*tolerance*float64(sharpness)*math.Abs(float64(dy[i])))
					}
				}
			}
		}
	})
}

func TestRelaxationHasEqualBitsOnEveryPath(t *testing.T) {
	stream := rand.New(rand.NewPCG(53, 54))
	for _, values := range relaxations {
		for _, sharpness := range []float32{0.25, 1, 300, 1e7} {
			for _, n := range lengths() {
				for _, make := range []func(*rand.Rand, int) []float32{random, awkward} {
					r, a, dy := NewRelaxation(values, sharpness), make(stream, n*len(values)), make(stream, n)
					requireEqualPaths(t, r, a, dy)
				}
			}
		}
	}
}

func requireEqualPaths(t *testing.T, r Relaxation, a, dy []float32) {
	t.Helper()
	run := func() (results [3][]float32) {
		var intact [3]func()
		for i, size := range []int{len(dy), len(dy), len(a)} {
			results[i], intact[i] = guarded(t, size)
		}
		r.Soft(results[0], a)
		r.Hard(results[1], a)
		r.Gradient(results[2], dy, a)
		for _, check := range intact {
			check()
		}
		return results
	}
	var want [3][]float32
	onPath(portable, func() { want = run() })
	for p := portable + 1; p <= supported(); p++ {
		onPath(p, func() {
			for i, got := range run() {
				requireSame(t, want[i], got, fmt.Sprintf("%v, result %d of %d elements on %s", r, i, len(dy), Path()))
			}
		})
	}
}

// At any sharpness the choice is finite, and in the end one-hot; of equal logits Hard takes the first.
func TestRelaxationAtItsEnds(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		const n = 20
		r := NewRelaxation([]float32{-3, -1, 1, 3}, 1e7)
		a := make([]float32, 4*n)
		for i := range n {
			a[i], a[n+i], a[2*n+i], a[3*n+i] = 0.1, 0.3, 0.30001, -1e4
		}
		y, da := make([]float32, n), make([]float32, 4*n)
		r.Soft(y, a)
		r.Gradient(da, onesLike(y), a)
		require.True(t, Finite(da))
		for i := range n {
			require.EqualValues(t, 1, y[i])
		}
		clear(a)
		r.Hard(y, a)
		for i := range n {
			require.EqualValues(t, -3, y[i], "of equal logits the first")
		}
		NewRelaxation([]float32{-3, -1, 1, 3}, 1).Soft(y, a)
		for i := range n {
			require.Zero(t, y[i])
		}
		a[n+3], a[7] = float32(math.NaN()), infinity
		for _, do := range []func(y, a []float32){r.Soft, r.Hard} {
			do(y, a)
			for i := range n {
				require.Equal(t, i == 3 || i == 7, y[i] != y[i], "element %d", i)
			}
		}
	})
}

func TestRelaxationRefusesOtherSizes(t *testing.T) {
	r, long, short := NewRelaxation([]float32{-1, 1}, 1), make([]float32, 32), make([]float32, 31)
	for _, do := range []func(){
		func() { r.Soft(make([]float32, 16), short) },
		func() { r.Hard(make([]float32, 16), short) },
		func() { r.Gradient(short, make([]float32, 16), long) },
		func() { r.Gradient(long, make([]float32, 16), short) },
		func() { NewRelaxation([]float32{1}, 1) },
		func() { NewRelaxation(make([]float32, 17), 1) },
	} {
		require.Panics(t, do)
	}
}

func BenchmarkRelaxation(b *testing.B) {
	defer func(before path) { live = before }(live)
	stream := rand.New(rand.NewPCG(55, 56))
	const n = 1 << 18
	for live = portable; live <= supported(); live++ {
		for _, values := range relaxations {
			r, a, dy := NewRelaxation(values, 10), aligned(stream, n*len(values)), aligned(stream, n)
			y, da := make([]float32, n), make([]float32, len(a))
			for name, do := range map[string]func(){
				"soft": func() { r.Soft(y, a) }, "hard": func() { r.Hard(y, a) }, "gradient": func() { r.Gradient(da, dy, a) },
			} {
				b.Run(fmt.Sprintf("%s/%d values/%s", name, len(values), Path()), func(b *testing.B) {
					for b.Loop() {
						do()
					}
					reportElements(b, len(a), 4)
				})
			}
		}
	}
}
