package quantops

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

// searchCase is a layer with data.
type searchCase struct {
	w               []float32 // [outputs][inputs]
	x, y            []float64 // [samples][inputs], [samples][outputs]
	outputs, inputs int
}

// moments are those of the case by definition.
func (c *searchCase) moments() Moments {
	samples := len(c.x) / c.inputs
	m := Moments{Samples: samples, Inputs: c.inputs, Gram: make([]float64, c.inputs*c.inputs),
		Cross: make([]float64, c.outputs*c.inputs), Energy: make([]float64, c.outputs)}
	for s := range samples {
		x, y := c.x[s*c.inputs:][:c.inputs], c.y[s*c.outputs:][:c.outputs]
		for i, a := range x {
			for j, b := range x {
				m.Gram[i*c.inputs+j] += float64(a * b)
			}
			for o, b := range y {
				m.Cross[o*c.inputs+i] += float64(a * b)
			}
		}
		for o, b := range y {
			m.Energy[o] += float64(b * b)
		}
	}
	return m
}

// error is ‖Y - X·Wᵀ‖² of other weights.
func (c *searchCase) error(w []float32) float64 {
	sum := 0.0
	for s := range len(c.x) / c.inputs {
		for o := range c.outputs {
			d := c.y[s*c.outputs+o]
			for i := range c.inputs {
				d -= float64(c.x[s*c.inputs+i] * float64(w[o*c.inputs+i]))
			}
			sum += float64(d * d)
		}
	}
	return sum
}

// solve searches for codes.
func (c *searchCase) solve(t testing.TB, method string) (codes []int32, theta []float32, s Solution) {
	t.Helper()
	q, w := newBitsplitOf(t, method, c), slices.Clone(c.w)
	theta = make([]float32, c.outputs)
	s, err := q.Solve(w, theta, []Moments{c.moments()})
	require.NoError(t, err)
	codes = make([]int32, len(w))
	for i, v := range w {
		codes[i] = int32(math.RoundToEven(float64(v / theta[i/c.inputs])))
		require.Equal(t, v, float32(codes[i])*theta[i/c.inputs])
	}
	require.InEpsilon(t, c.error(w), s.Error, 1e-3)
	require.LessOrEqual(t, s.Error, s.Start)
	return codes, theta, s
}

func newBitsplitOf(t testing.TB, method string, c *searchCase) *bitsplit {
	t.Helper()
	q, err := MustParse(method).Quantizer(Target{Role: Weights, Channels: c.outputs, Size: len(c.w), Signed: true})
	require.NoError(t, err)
	return q.(*bitsplit)
}

func TestBitsplitVectors(t *testing.T) {
	golden.Run(t, "bitsplit", "layer", func(t *testing.T, c golden.Case) {
		s := &searchCase{w: c.Float32("W"), x: c.Float64("X"), y: c.Float64("Y"), outputs: c.Int("M"), inputs: c.Int("N")}
		method := "bitsplit:" + string(rune('0'+c.Int("bits")))
		q := newBitsplitOf(t, method, s)

		theta, levels := make([]float32, s.outputs), make([]float32, len(s.w))
		q.Fit(theta, s.w, kernel.Dense(len(s.w)), 0)
		q.Levels(levels, s.w, theta)
		for i, want := range c.Float64("alpha_init_fwa") {
			require.InEpsilon(t, want, theta[i], 1e-6)
		}
		for i, want := range c.Integers("q_fwa") {
			require.EqualValues(t, want, levels[i])
		}

		got, scales, solution := s.solve(t, method+",sweeps=100")
		different := 0
		for i, want := range c.Integers("q_ofwa_rr") {
			if int64(got[i]) != want {
				different++
			}
		}
		require.Zero(t, different, "codes")
		for i, want := range c.Float64("alpha_refit") {
			require.InEpsilon(t, want, scales[i], 1e-6)
		}
		require.LessOrEqual(t, solution.Error, c.Number("obj_ofwa_rr_alpha_refit")*(1+1e-4))
		require.InEpsilon(t, c.Number("obj_fwa_alpha_refit"), solution.Start, 1e-4)
		require.InEpsilon(t, c.Number("y_energy"), solution.Energy, 1e-6)
		_, _, thorough := s.solve(t, method+",thorough")
		require.Less(t, thorough.Error, 0.95*solution.Error)
		t.Logf("thoroughly %.6g after %d sweeps", thorough.Error, thorough.Sweeps)
		t.Logf("error %.6g after %d sweeps, reference %.6g; at first %.6g", solution.Error, solution.Sweeps, c.Number("obj_ofwa_rr_alpha_refit"), solution.Start)
	})
}

// randomSearch is a layer over correlated rectified inputs.
func randomSearch(stream *rand.Rand, outputs, inputs, samples int) *searchCase {
	c := &searchCase{outputs: outputs, inputs: inputs, w: make([]float32, outputs*inputs), x: make([]float64, samples*inputs), y: make([]float64, samples*outputs)}
	for i := range c.w {
		c.w[i] = float32(stream.NormFloat64())
	}
	for s := range samples {
		common := stream.NormFloat64()
		for i := range inputs {
			c.x[s*inputs+i] = max(0, common+stream.NormFloat64())
		}
	}
	c.respond()
	return c
}

// respond makes y the responses of the weights.
func (c *searchCase) respond() {
	for s := range len(c.x) / c.inputs {
		for o := range c.outputs {
			c.y[s*c.outputs+o] = 0
			for i := range c.inputs {
				c.y[s*c.outputs+o] += float64(c.x[s*c.inputs+i] * float64(c.w[o*c.inputs+i]))
			}
		}
	}
}

// leastError tries all codes.
func (c *searchCase) leastError(most int) float64 {
	m, k := c.moments(), c.inputs
	codes, least := make([]float64, k), math.Inf(1)
	var try func(n int)
	try = func(n int) {
		if n < k {
			for code := -most; code <= most; code++ {
				codes[n] = float64(code)
				try(n + 1)
			}
			return
		}
		cross, square := 0.0, 0.0
		for i, a := range codes {
			cross += a * m.Cross[i]
			for j, b := range codes {
				square += a * b * m.Gram[i*k+j]
			}
		}
		if square > 0 {
			least = min(least, m.Energy[0]-cross*cross/square)
		}
	}
	try(0)
	return least
}

// The search is greedy: on small problems all codes can be tried, which bounds what it misses.
func TestBitsplitNearTheBestOfAllCodes(t *testing.T) {
	for method, bounds := range map[string][2]float64{"": {1.5, 6}, ",thorough": {1.1, 5}} {
		mean, worst := gaps(t, rand.New(rand.NewPCG(7, 7)), method)
		t.Logf("with %q the error is at worst %.3g times the least, in the mean %.3g times", method, worst, mean)
		require.Less(t, mean, bounds[0])
		require.Less(t, worst, bounds[1])
	}
}

// gaps returns by how much the errors reached lie above the least ones, in the geometric mean and at worst.
func gaps(t *testing.T, stream *rand.Rand, options string) (mean, worst float64) {
	t.Helper()
	logs, problems := 0.0, 0
	for _, p := range []struct{ bits, inputs int }{{2, 3}, {2, 6}, {3, 4}, {3, 5}, {3, 6}, {4, 4}} {
		for range 12 {
			c := randomSearch(stream, 1, p.inputs, 40)
			_, _, s := c.solve(t, "bitsplit:"+string(rune('0'+p.bits))+options)
			least := c.leastError(1<<(p.bits-1) - 1)
			require.GreaterOrEqual(t, s.Error, least*(1-1e-4)-1e-7*s.Energy)
			ratio := s.Error / least
			worst, logs, problems = max(worst, ratio), logs+math.Log(ratio), problems+1
		}
	}
	return math.Exp(logs / float64(problems)), worst
}

// Each sweep more leaves the error as it is or lowers it, in every output; so does none at all.
func TestBitsplitErrorNeverRises(t *testing.T) {
	for _, bits := range []string{"2", "3", "5", "8"} {
		c := randomSearch(rand.New(rand.NewPCG(3, 1)), 5, 120, 300)
		before := math.Inf(1)
		for _, sweeps := range []int{1, 2, 3, 5, 20} {
			_, _, s := c.solve(t, fmt.Sprintf("bitsplit:%s,sweeps=%d", bits, sweeps))
			require.LessOrEqual(t, s.Error, before)
			require.LessOrEqual(t, s.Sweeps, sweeps)
			require.True(t, s.Settled || s.Sweeps == sweeps, "it stopped early")
			before = s.Error
		}
	}
}

// The most sweeps are those from each start: of bits, and thoroughly of codes, from there and from every scale.
func TestBitsplitSweepsAreLimited(t *testing.T) {
	c := randomSearch(rand.New(rand.NewPCG(3, 1)), 5, 120, 300)
	_, _, s := c.solve(t, "bitsplit:8,sweeps=1")
	require.Equal(t, 1, s.Sweeps)
	require.False(t, s.Settled)
	_, _, s = c.solve(t, "bitsplit:8,thorough,sweeps=1")
	require.Equal(t, 2+len(thoroughStarts), s.Sweeps)
}

// Where Y are the responses of the weights themselves, moments without Cross say the same.
func TestBitsplitWithoutCross(t *testing.T) {
	c := randomSearch(rand.New(rand.NewPCG(4, 1)), 6, 130, 400)
	m := c.moments()
	m.Cross, m.Energy = nil, nil
	w, theta := slices.Clone(c.w), make([]float32, c.outputs)
	s, err := newBitsplitOf(t, "bitsplit:3", c).Solve(w, theta, []Moments{m})
	require.NoError(t, err)
	_, _, want := c.solve(t, "bitsplit:3")
	require.InEpsilon(t, want.Energy, s.Energy, 1e-5)
	require.InEpsilon(t, want.Start, s.Start, 1e-3)
	require.InEpsilon(t, c.error(w), s.Error, 1e-3)
}

// The number of threads, and with it how outputs are divided, makes no difference.
func TestBitsplitOnThreads(t *testing.T) {
	c := randomSearch(rand.New(rand.NewPCG(5, 1)), 23, 100, 200)
	codes, theta, s := c.solve(t, "bitsplit:4")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	again, thetaAgain, sAgain := c.solve(t, "bitsplit:4")
	require.Equal(t, codes, again)
	requireBits(t, theta, thetaAgain)
	require.Equal(t, s, sAgain)
}

// Weights that a search has left on a grid are fitted to the same codes.
func TestBitsplitKeepsSearchedWeights(t *testing.T) {
	for bits := 2; bits <= 8; bits++ {
		c := randomSearch(rand.New(rand.NewPCG(uint64(bits), 2)), 8, 27, 60)
		q := newBitsplitOf(t, "bitsplit:"+string(rune('0'+bits)), c)
		w, theta := slices.Clone(c.w), make([]float32, c.outputs)
		_, err := q.Solve(w, theta, []Moments{c.moments()})
		require.NoError(t, err)
		fitted, levels, again := make([]float32, c.outputs), make([]float32, len(w)), make([]float32, len(w))
		q.Fit(fitted, w, kernel.Dense(len(w)), 0)
		q.Levels(levels, w, theta)
		q.Levels(again, w, fitted)
		for o := range c.outputs {
			ratio := math.Round(float64(fitted[o] / theta[o])) // codes may have a common divisor
			require.InEpsilon(t, ratio*float64(theta[o]), fitted[o], 1e-6)
			for i := o * c.inputs; i < (o+1)*c.inputs; i++ {
				require.EqualValues(t, levels[i], float32(ratio)*again[i])
			}
		}
	}
}

// Layers that say little.
func TestBitsplitOfPoorData(t *testing.T) {
	solve := func(c *searchCase) ([]int32, []float32, Solution) {
		codes, theta, s := make([]int32, len(c.w)), make([]float32, c.outputs), Solution{}
		q, w := newBitsplitOf(t, "bitsplit:4", c), slices.Clone(c.w)
		s, err := q.Solve(w, theta, []Moments{c.moments()})
		require.NoError(t, err)
		require.True(t, kernel.Finite(w))
		require.True(t, kernel.Finite(theta))
		require.LessOrEqual(t, s.Error, s.Start)
		for i, v := range w {
			codes[i] = int32(math.RoundToEven(float64(v / theta[i/c.inputs])))
		}
		return codes, theta, s
	}
	stream := rand.New(rand.NewPCG(6, 1))

	zero := randomSearch(stream, 3, 10, 50) // an output whose weights are all zero
	clear(zero.w[10:20])
	zero.respond()
	codes, theta, s := solve(zero)
	require.Equal(t, make([]int32, 10), codes[10:20])
	require.EqualValues(t, 1, theta[1])
	require.True(t, s.Settled)

	dead := randomSearch(stream, 3, 10, 50) // inputs that are always zero keep the weights that they had
	for i := range dead.x {
		if i%10 < 4 {
			dead.x[i] = 0
		}
	}
	dead.respond()
	want := make([]float32, len(dead.w))
	q := newBitsplitOf(t, "bitsplit:4", dead)
	q.Fit(theta, dead.w, kernel.Dense(len(dead.w)), 0)
	q.Levels(want, dead.w, theta)
	codes, _, _ = solve(dead)
	for o := range 3 {
		for i := range 4 {
			require.EqualValues(t, want[o*10+i], codes[o*10+i])
		}
	}

	constant := randomSearch(stream, 3, 10, 50) // every input is the same at all times
	for i := range constant.x {
		constant.x[i] = 0.5
	}
	constant.respond()
	_, _, s = solve(constant)
	require.Less(t, s.Error, 1e-3*s.Energy)

	nothing := randomSearch(stream, 3, 10, 50)
	clear(nothing.x)
	nothing.respond()
	_, _, s = solve(nothing)
	require.Zero(t, s.Error)

	few := randomSearch(stream, 3, 40, 5) // fewer samples than inputs
	_, _, s = solve(few)
	require.Less(t, s.Error, s.Start)
}

func TestBitsplitRefusesForeignMoments(t *testing.T) {
	c := randomSearch(rand.New(rand.NewPCG(6, 1)), 3, 10, 50)
	q, theta := newBitsplitOf(t, "bitsplit:4", c), make([]float32, 3)
	m := c.moments()
	m.Inputs = 9
	_, err := q.Solve(c.w, theta, []Moments{m})
	require.EqualError(t, err, "quantops: moments of 9 inputs for 10 weights of each of 3 outputs")
	m = c.moments()
	m.Gram[0] = math.NaN()
	_, err = q.Solve(c.w, theta, []Moments{m})
	require.EqualError(t, err, "quantops: moments are not finite")
}
