package quantops

import (
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
)

// The tests of this file run over the registry: a method is tested by being registered.

// noise returns n normally distributed numbers.
func noise(n int, seed uint64) []float32 {
	s := random.New(seed, "test")
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(s.Normal())
	}
	return x
}

// each maps every element.
func each(x []float32, f func(i int, v float32) float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = f(i, v)
	}
	return y
}

const conformanceChannels = 4 // of every tensor of more than one element

// conformanceTensors are the shapes of data that every method must take.
var conformanceTensors = map[string][]float32{
	"normal":        noise(200, 1),
	"zero":          make([]float32, 200),
	"one element":   {-0.7},
	"one zero":      {0},
	"constant":      slices.Repeat([]float32{0.3}, 200),
	"huge":          each(noise(200, 2), func(_ int, v float32) float32 { return v * 1e37 }),
	"wide":          each(noise(200, 3), func(i int, v float32) float32 { return v * float32(math.Pow(10, float64(i%20-10))) }),
	"tiny":          each(noise(200, 4), func(_ int, v float32) float32 { return v * 1e-30 }),
	"subnormal":     each(noise(200, 5), func(_ int, v float32) float32 { return v * 1e-42 }),
	"negative":      each(noise(200, 6), func(_ int, v float32) float32 { return -max(v, -v) - 0.1 }),
	"positive":      each(noise(200, 7), func(_ int, v float32) float32 { return max(v, -v) + 0.1 }),
	"zero channels": each(noise(200, 8), func(i int, v float32) float32 { return v * float32(i/50%2) }),
	"signed zeros":  each(make([]float32, 200), func(i int, _ float32) float32 { return float32(math.Copysign(0, float64(i%2)-0.5)) }),
	"outlier":       each(noise(200, 9), func(i int, v float32) float32 { return v + float32(i/199)*1000 }),
}

// subject is a quantizer under test with its data and fitted parameters.
type subject struct {
	Quantizer
	method   Method
	target   Target
	channels int
	x, theta []float32
}

func newSubject(t *testing.T, m Method, role Role, signed bool, x []float32) *subject {
	t.Helper()
	s := &subject{method: m, channels: min(len(x), conformanceChannels), x: x}
	s.target = Target{Role: role, Channels: s.channels, Size: len(x), Signed: signed}
	if role == Activations {
		s.target.Channels = 1
	}
	var err error
	s.Quantizer, err = m.Quantizer(s.target)
	require.NoError(t, err)
	s.theta = s.fit(x)
	return s
}

// fit returns parameters fitted to x alone.
func (s *subject) fit(x []float32) []float32 {
	theta := make([]float32, s.Theta().Rows*len(s.Theta().Columns))
	s.Fit(theta, x, kernel.Dense(len(x)), 0)
	return theta
}

// values is fake quantization.
func (s *subject) values(x []float32) []float32 {
	units := make([]float32, s.Theta().Rows)
	s.Units(units, s.theta)
	n := len(x) / len(units)
	return each(s.levels(x), func(i int, level float32) float32 { return level * units[i/n] })
}

// transforms says whether weights are normalized, bent or corrected, or their levels lie in the regions of others.
func (s *subject) transforms() bool {
	o := s.method.options
	return s.target.Role == Weights && (s.method.Name() == "dorefa" || slices.Contains(s.Theta().Columns, "mean") ||
		o["correct"] == "true" || o["overlap"] == "true")
}

func (s *subject) levels(x []float32) []float32 {
	levels := make([]float32, len(x))
	s.Levels(levels, x, s.theta)
	return levels
}

func (s *subject) backward(dy []float32) (dx, dtheta []float32) {
	// What was there before must not matter.
	dx, dtheta = slices.Repeat([]float32{nan}, len(s.x)), slices.Repeat([]float32{nan}, len(s.theta))
	s.Backward(dx, dtheta, dy, s.x, s.theta)
	return dx, dtheta
}

var nan = float32(math.NaN())

// requireBits compares bit for bit, which tells apart signed zeros and makes NaN equal.
func requireBits(t *testing.T, want, got []float32) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		if math.Float32bits(want[i]) != math.Float32bits(got[i]) {
			require.Failf(t, "bits differ", "element %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// conform runs check as a subtest for every registered method, its bits and options, in each role that it has.
func conform(t *testing.T, check func(t *testing.T, m Method, role Role, signed bool)) {
	for _, s := range All() {
		if s.New == nil {
			continue // those that search, or have a codebook, have tests of their own
		}
		for _, role := range []Role{Weights, Activations} {
			for bits := max(1, s.role(role).Min); bits <= s.role(role).Max; bits++ {
				for _, text := range s.variants(strconv.Itoa(bits)) {
					conformMethod(t, MustParse(text), role, check)
				}
			}
		}
	}
}

func conformMethod(t *testing.T, m Method, role Role, check func(t *testing.T, m Method, role Role, signed bool)) {
	for _, signed := range []bool{true, false} {
		if role == Weights && !signed {
			continue
		}
		_, err := m.Quantizer(Target{Role: role, Channels: 1, Size: 1, Signed: signed})
		if err != nil {
			require.NotEmpty(t, m.options, "%v of %v: %v", m, role, err) // the plain method has every role it claims
			continue
		}
		t.Run(m.String()+" of "+role.String(), func(t *testing.T) { check(t, m, role, signed) })
	}
}

// onTensors runs check for every quantizer and tensor.
func onTensors(t *testing.T, check func(t *testing.T, s *subject)) {
	conform(t, func(t *testing.T, m Method, role Role, signed bool) {
		for name, x := range conformanceTensors {
			s := newSubject(t, m, role, signed, x)
			if !t.Run(name, func(t *testing.T) { check(t, s) }) {
				return
			}
		}
	})
}

func TestConformanceTheta(t *testing.T) {
	onTensors(t, func(t *testing.T, s *subject) {
		theta := s.Theta()
		require.NotEmpty(t, theta.Name)
		require.NotEmpty(t, theta.Columns)
		require.Contains(t, []int{1, s.target.Channels}, theta.Rows)
		require.Contains(t, []int{0, len(theta.Columns)}, len(theta.Minimum))
		if theta.Kind == Learned {
			require.Positive(t, theta.Rate)
		}
		for i, v := range s.theta {
			require.False(t, math.IsNaN(float64(v)) || math.IsInf(float64(v), 0), "theta %d is %v", i, v)
			if theta.Minimum != nil {
				require.GreaterOrEqual(t, v, theta.Minimum[i%len(theta.Columns)])
			}
		}
		requireBits(t, s.theta, s.fit(s.x)) // Fit is deterministic
	})
}

func TestConformanceIdempotent(t *testing.T) {
	onTensors(t, func(t *testing.T, s *subject) {
		if s.transforms() {
			t.Skip("values are no fixed points")
		}
		y := s.values(s.x)
		for i, v := range y {
			require.False(t, math.IsNaN(float64(v)) || math.IsInf(float64(v), 0), "value %d of %v is %v", i, s.x[i], v)
		}
		requireBits(t, y, s.values(y))
	})
}

func TestConformanceMonotone(t *testing.T) {
	onTensors(t, func(t *testing.T, s *subject) {
		if s.method.options["overlap"] == "true" {
			t.Skip("at the breakpoint the tail's levels may lie before the centre's")
		}
		x := slices.Clone(s.x)
		eachChannel(s.channels, x, func(_, from, to int) { slices.Sort(x[from:to]) })
		levels := s.levels(x)
		eachChannel(s.channels, x, func(_, from, to int) { require.True(t, slices.IsSorted(levels[from:to])) })
	})
}

// What training computes with is what is exported, bit for bit.
func TestConformanceExport(t *testing.T) {
	onTensors(t, func(t *testing.T, s *subject) {
		switch {
		case s.method.options["exact"] == "true":
			requireNoIntegers(t, s)
		case s.target.Role == Weights:
			requireWeights(t, s)
		default:
			requireActivations(t, s)
		}
	})
}

// Levels that are no integers are refused.
func requireNoIntegers(t *testing.T, s *subject) {
	t.Helper()
	var err error
	if s.target.Role == Weights {
		_, err = s.Quantizer.(WeightQuantizer).Encode(s.x, s.theta, []int{s.channels, len(s.x) / s.channels})
	} else {
		_, err = s.Quantizer.(ActivationQuantizer).Grid(s.theta)
	}
	require.ErrorContains(t, err, "exact")
}

func requireWeights(t *testing.T, s *subject) {
	t.Helper()
	w, err := s.Quantizer.(WeightQuantizer).Encode(s.x, s.theta, []int{s.channels, len(s.x) / s.channels})
	require.NoError(t, err)
	require.EqualValues(t, s.codeBits(), w.Bits)
	require.Equal(t, []int{s.channels, len(s.x) / s.channels}, w.Shape)
	for i, code := range w.Codes {
		require.Less(t, int(code), 1<<w.Bits, "code %d", i)
	}
	requireBits(t, s.values(s.x), w.Decode())
}

// codeBits is the width of a code: that of the method, and for pwlq what tells the regions apart.
func (s *subject) codeBits() int {
	switch {
	case s.method.Name() != "pwlq":
		return s.method.Bits()
	case s.method.options["breakpoints"] > "1":
		return s.method.Bits() + 2
	}
	return s.method.Bits() + 1
}

func requireActivations(t *testing.T, s *subject) {
	t.Helper()
	g, err := s.Quantizer.(ActivationQuantizer).Grid(s.theta)
	require.NoError(t, err)
	require.EqualValues(t, s.method.Bits(), g.Bits)
	levels, values := s.levels(s.x), s.values(s.x)
	for i, x := range s.x {
		code := g.Code(x)
		require.Equal(t, math.Float32bits(float32(g.Level(code))), math.Float32bits(levels[i]), "level of %v", x)
		require.Equal(t, math.Float32bits(g.Value(code)), math.Float32bits(values[i]), "value of %v", x)
	}
}

// Gradients of any tensor are finite and overwrite what was there; without an upstream gradient there is none.
func TestConformanceBackward(t *testing.T) {
	onTensors(t, func(t *testing.T, s *subject) {
		dy := noise(len(s.x), 11)
		dx, dtheta := s.backward(dy)
		require.True(t, kernel.Finite(dx))
		again, dthetaAgain := s.backward(dy)
		requireBits(t, dx, again)
		requireBits(t, dtheta, dthetaAgain)
		levels, both, dthetaBoth := make([]float32, len(s.x)), slices.Clone(dx), slices.Repeat([]float32{nan}, len(s.theta))
		BackwardLevels(s.Quantizer, levels, both, dthetaBoth, dy, s.x, s.theta)
		requireBits(t, s.levels(s.x), levels)
		requireBits(t, dx, both)
		requireBits(t, dtheta, dthetaBoth)
		none, dthetaNone := s.backward(make([]float32, len(dy)))
		require.Equal(t, make([]float32, len(dy)), none)
		if s.Theta().Kind == Learned {
			require.True(t, kernel.Finite(dtheta))
			if s.method.options["breakpoint"] != "learned" { // which follows the squared error
				require.Equal(t, make([]float32, len(dtheta)), dthetaNone)
			}
			measured := s.Theta().Measured
			for i, column := range dtheta {
				if i%len(s.Theta().Columns) >= len(s.Theta().Columns)-measured {
					require.Zero(t, column, "measured columns follow no gradient")
				}
			}
		} else {
			requireBits(t, slices.Repeat([]float32{nan}, len(dtheta)), dtheta) // nothing to learn
		}
	})
}

// Where an element may go either way by a rounding, no side is taken: the pass band's ends.
func nearEdge(v, low, high float64) bool {
	return math.Abs(v-low) < 1e-3 || math.Abs(v-high) < 1e-3
}

// The straight-through surrogate of uniform steps is clip(x/s, low-½, high+½)·s: differences of that, not of the steps,
// are what Backward gives. Methods of other levels have surrogates and tests of their own.
func TestConformanceStraightThrough(t *testing.T) {
	onTensors(t, func(t *testing.T, s *subject) {
		var u func(channel int) kernel.Uniform
		exact := false
		switch q := s.Quantizer.(type) {
		case *linear:
			u = func(c int) kernel.Uniform { return q.uniform(s.theta, c%q.channels) }
		case *lsq:
			u = func(c int) kernel.Uniform { return q.codes.uniform(s.theta[c%q.channels], 0) }
			exact = q.exact
		case *bitsplit:
			u = func(c int) kernel.Uniform { return q.codes.uniform(s.theta[c%q.channels], 0) }
		default:
			t.Skip("not of uniform steps")
		}
		// Beyond the fitted range as well, so that there is something to clip.
		stretched := &subject{Quantizer: s.Quantizer, channels: s.channels, theta: s.theta, x: each(s.x, func(i int, v float32) float32 { return v * float32(1+i%3) })}
		dy := noise(len(s.x), 12)
		dx, _ := stretched.backward(dy)
		eachChannel(s.channels, s.x, func(c, from, to int) {
			k := u(c)
			low, high := float64(k.Low), float64(k.High)
			if !exact {
				low, high = low-0.5, high+0.5
			}
			for i := from; i < to; i++ {
				v := float64(stretched.x[i]) / float64(k.Scale)
				clip := func(v float64) float64 { return math.Max(low, math.Min(v, high)) }
				if !nearEdge(v, low, high) {
					const h = 1.0 / 4096
					require.InDelta(t, (clip(v+h)-clip(v-h))/(2*h)*float64(dy[i]), dx[i], 1e-6*math.Abs(float64(dy[i])), "dx of %v", v)
				}
			}
		})
	})
}

// A NaN, in data or parameters, is never turned into a number.
func TestConformanceNaN(t *testing.T) {
	conform(t, func(t *testing.T, m Method, role Role, signed bool) {
		s := newSubject(t, m, role, signed, conformanceTensors["normal"])
		x := slices.Clone(s.x)
		x[77] = nan
		for i, v := range s.values(x) {
			require.Equal(t, i == 77, v != v, "value %d", i)
		}
		if s.target.Role == Weights && m.options["exact"] != "true" {
			_, err := s.Quantizer.(WeightQuantizer).Encode(x, s.theta, []int{4, 50})
			require.EqualError(t, err, "quantops: weight 77 is not a number")
		}
		s.theta = s.fit(x)
		require.False(t, kernel.Finite(s.values(x)))
		require.False(t, kernel.Finite(s.theta))
	})
}

// Infinities are the far ends of the range.
func TestConformanceInfinity(t *testing.T) {
	conform(t, func(t *testing.T, m Method, role Role, signed bool) {
		s := newSubject(t, m, role, signed, conformanceTensors["normal"])
		inf := float32(math.Inf(1))
		x := each(s.x, func(i int, v float32) float32 { return [...]float32{1e30, inf, -1e30, -inf}[i%4] })
		levels := s.levels(x)
		for i := 0; i < len(x); i += 4 {
			require.Equal(t, levels[i], levels[i+1])
			require.Equal(t, levels[i+2], levels[i+3])
			require.Less(t, levels[i+2], levels[i])
		}
		require.True(t, kernel.Finite(levels))
	})
}

// Padded lanes of a short batch show nowhere.
func TestConformancePadding(t *testing.T) {
	conform(t, func(t *testing.T, m Method, role Role, signed bool) {
		if role == Weights {
			t.Skip("weights are never padded")
		}
		const images, size = 21, 6
		x := make([]float32, kernel.Blocks(images)*kernel.Lanes*size)
		source := noise(images*size, 13)
		kernel.Pack(x, source, images, size)
		garbage := slices.Clone(x)
		for i := range garbage {
			if i >= kernel.Lanes*size && i%kernel.Lanes >= images%kernel.Lanes {
				garbage[i] = nan
			}
		}
		s := newSubject(t, m, role, signed, x)
		fit := func(x []float32, e Extent) []float32 {
			theta := make([]float32, len(s.theta))
			for batch := range 3 {
				s.Fit(theta, x, e, batch)
			}
			return theta
		}
		padded := fit(x, kernel.Images(images, size))
		requireBits(t, padded, fit(garbage, kernel.Images(images, size)))
		for i, want := range fit(source, kernel.Dense(images*size)) {
			require.InEpsilon(t, want, padded[i], 1e-6) // sums have another order
		}
	})
}
