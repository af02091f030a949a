package train

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

var whole = Group{Rate: 1, Decay: 1}

// requireTrajectory runs o over the gradients of a reference case and compares the values after each step.
func requireTrajectory(t *testing.T, c golden.Case, o Optimizer) {
	t.Helper()
	names := []string{"p0", "p1"}
	parameters := make([]Parameter, len(names))
	for i, name := range names {
		parameters[i] = Parameter{Name: name, Value: slices.Clone(c.Float32(name + "_init")), Group: whole}
	}
	for step := range c.Int("steps") {
		if c.Has("lrs") {
			o.SetLearningRate(c.Float64("lrs")[step])
		}
		for i, name := range names {
			n := len(parameters[i].Value)
			parameters[i].Gradient = c.Float32(name + "_grads")[step*n:][:n]
		}
		require.NoError(t, o.Update(parameters))
		for i, name := range names {
			n := len(parameters[i].Value)
			require.InDeltaSlice(t, c.Float32(name)[step*n:][:n], parameters[i].Value, 2e-5, "%s after step %d", name, step)
		}
	}
}

func optional(c golden.Case, name string) float64 {
	if c.HasParam(name) {
		return c.Number(name)
	}
	return 0
}

func TestOptimizersMatchReference(t *testing.T) {
	golden.Run(t, "layers", "sgd", func(t *testing.T, c golden.Case) {
		requireTrajectory(t, c, &SGD{
			LearningRate: c.Number("lr"), Momentum: optional(c, "momentum"), WeightDecay: optional(c, "weight_decay"),
			Nesterov: c.HasParam("nesterov") && c.Bool("nesterov"),
		})
	})
	golden.Run(t, "layers", "adamw", func(t *testing.T, c golden.Case) {
		requireTrajectory(t, c, &AdamW{LearningRate: c.Number("lr"), WeightDecay: c.Number("weight_decay")})
	})
	golden.Run(t, "layers", "adam", func(t *testing.T, c golden.Case) {
		requireTrajectory(t, c, &AdamW{LearningRate: c.Number("lr"), WeightDecay: c.Number("weight_decay"), L2: true})
	})
}

// optimizers are configurations that between them use every branch of the updates.
var optimizers = map[string]func() Optimizer{
	"plain":     func() Optimizer { return &SGD{LearningRate: 0.1, WeightDecay: 0.01} },
	"momentum":  func() Optimizer { return &SGD{LearningRate: 0.1, Momentum: 0.9, Dampening: 0.5, WeightDecay: 0.01} },
	"nesterov":  func() Optimizer { return &SGD{LearningRate: 0.1, Momentum: 0.9, Nesterov: true} },
	"decoupled": func() Optimizer { return &SGD{LearningRate: 0.1, Momentum: 0.9, WeightDecay: 0.01, Decoupled: true} },
	"adamw":     func() Optimizer { return &AdamW{LearningRate: 0.01, WeightDecay: 0.1} },
	"adam":      func() Optimizer { return &AdamW{LearningRate: 0.01, WeightDecay: 0.1, L2: true} },
}

// sample returns two parameters whose gradients depend on the step, without products next to sums.
func sample(step int) []Parameter {
	parameters := []Parameter{
		{Name: "weight", Value: make([]float32, 5), Gradient: make([]float32, 5), Group: whole},
		{Name: "bias", Value: make([]float32, 3), Gradient: make([]float32, 3), Group: Group{Rate: 2}},
	}
	for _, p := range parameters {
		for i := range p.Value {
			p.Value[i] = 1 / float32(i+2)
		}
	}
	setGradients(parameters, step)
	return parameters
}

func setGradients(parameters []Parameter, step int) {
	for _, p := range parameters {
		for i := range p.Gradient {
			p.Gradient[i] = float32((i*7+step*5)%11-5) / 7
		}
	}
}

func advance(t *testing.T, o Optimizer, parameters []Parameter, from, to int) {
	t.Helper()
	for step := from; step < to; step++ {
		setGradients(parameters, step)
		require.NoError(t, o.Update(parameters))
	}
}

// Bits must not depend on GOAMD64: the table holds the first weight and the second bias after ten steps.
func TestOptimizerBits(t *testing.T) {
	t.Parallel()
	want := map[string][2]uint32{
		"plain":     {0x3f026302, 0x3e7d8fdc},
		"momentum":  {0x3f31e86a, 0x3e5cd8e4},
		"nesterov":  {0x3ef208b2, 0x3ebdd882},
		"decoupled": {0x3ee59262, 0x3ef0bd17},
		"adamw":     {0x3f00f200, 0x3eab3c8e},
		"adam":      {0x3f000f98, 0x3eab3c8e},
	}
	for name, newOptimizer := range optimizers {
		parameters := sample(0)
		advance(t, newOptimizer(), parameters, 0, 10)
		got := [2]uint32{math.Float32bits(parameters[0].Value[0]), math.Float32bits(parameters[1].Value[1])}
		require.Equal(t, want[name], got, "%q: {%#x, %#x},", name, got[0], got[1])
	}
}

// A run that stops, saves and resumes in another process goes on with the same bits, and so does its state.
func TestResume(t *testing.T) {
	t.Parallel()
	for name, newOptimizer := range optimizers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, parameters := newOptimizer(), sample(0)
			advance(t, first, parameters, 0, 4)
			saved := first.State()
			resumed, copies := newOptimizer(), sample(0)
			for i := range copies {
				copy(copies[i].Value, parameters[i].Value)
			}
			require.NoError(t, resumed.Restore(saved))
			slices.Reverse(copies) // order is no part of the state
			advance(t, first, parameters, 4, 9)
			advance(t, resumed, copies, 4, 9)
			slices.Reverse(copies)
			require.Equal(t, parameters, copies)
			require.Equal(t, first.State(), resumed.State())
			if len(saved) > 0 {
				require.NotEqual(t, saved, first.State(), "State must be a copy")
			}
		})
	}
}

func TestStateOrder(t *testing.T) {
	t.Parallel()
	adam := &AdamW{LearningRate: 0.5}
	require.Empty(t, adam.State())
	advance(t, adam, sample(0), 0, 2)
	var names []string
	for _, s := range adam.State() {
		names = append(names, s.Name)
		require.EqualValues(t, 2, s.Steps)
	}
	require.Equal(t, []string{"first_moment/bias", "second_moment/bias", "bias_powers/bias",
		"first_moment/weight", "second_moment/weight", "bias_powers/weight"}, names)
	require.Equal(t, []float64{0.9 * 0.9, 0.999 * 0.999}, adam.State()[2].Float64)
}

func TestGroups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		group Group
		want  float32
	}{
		{Group{}, 2 - 0.5*1},
		{Group{Rate: 0.5}, 2 - 0.25*1},
		{Group{Decay: 1}, 2 - 0.5*(1+0.25*2)},
		{Group{Rate: 2, Decay: 2}, 2 - 1*(1+0.5*2)},
	} {
		for _, decoupled := range []bool{false, true} { // without momentum both are the same
			p := []Parameter{{Name: "p", Value: []float32{2}, Gradient: []float32{1}, Group: c.group}}
			sgd := &SGD{LearningRate: 0.5, WeightDecay: 0.25, Decoupled: decoupled}
			require.NoError(t, sgd.Update(p))
			require.Equal(t, c.want, p[0].Value[0], "%+v decoupled=%v", c.group, decoupled)
		}
	}
}

// With a buffer, L2 decay is remembered and decoupled decay is not; dampening spares the first step.
func TestDecayAndDampening(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sgd    SGD
		buffer float32
	}{
		{SGD{WeightDecay: 0.25}, 0.5*(1+0.25*2) + (1 + 0.25*1.25)},
		{SGD{WeightDecay: 0.25, Decoupled: true}, 0.5*1 + 1},
		{SGD{Dampening: 0.75}, 0.5*1 + 0.25*1},
	} {
		sgd := c.sgd
		sgd.LearningRate, sgd.Momentum = 0.5, 0.5
		p := []Parameter{{Name: "p", Value: []float32{2}, Gradient: []float32{1}, Group: whole}}
		require.NoError(t, sgd.Update(p))
		require.NoError(t, sgd.Update(p))
		require.Equal(t, []State{{Name: "momentum/p", Steps: 2, Float32: []float32{c.buffer}}}, sgd.State())
	}
}

func TestZeroRateOfASchedule(t *testing.T) {
	t.Parallel()
	for name, newOptimizer := range optimizers {
		o, parameters := newOptimizer(), sample(1)
		o.SetLearningRate(0)
		require.NoError(t, o.Update(parameters), name)
		require.Equal(t, sample(1), parameters, name)
	}
}

// Whatever is wrong anywhere, no value and no state has changed.
func TestNonFinite(t *testing.T) {
	t.Parallel()
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		fault func(p Parameter)
		what  string
	}{
		{func(p Parameter) { p.Gradient[2] = nan }, "gradient"},
		{func(p Parameter) { p.Gradient[2] = inf }, "gradient"},
		{func(p Parameter) { p.Value[2] = nan }, "update"},
		{func(p Parameter) { p.Value[2], p.Gradient[2] = -math.MaxFloat32, math.MaxFloat32 }, "update"},
	} {
		for name, newOptimizer := range optimizers {
			o, parameters := newOptimizer(), sample(0)
			advance(t, o, parameters, 0, 2)
			state := o.State()
			c.fault(parameters[1])
			o.SetLearningRate(1e3)
			before := fmt.Sprint(parameters)
			err := o.Update(parameters)
			require.Equal(t, &NonFiniteError{Parameter: "bias", What: c.what, Index: 2}, err, name)
			require.Equal(t, before, fmt.Sprint(parameters), name)
			require.Equal(t, state, o.State(), name)
		}
	}
	require.EqualError(t, &NonFiniteError{"conv1.weight", "gradient", 7},
		`train: the gradient of parameter "conv1.weight" is NaN or Inf at element 7`)
}

// A second moment that overflows would stop its weight for good without a NaN.
func TestOverflowOfSecondMoment(t *testing.T) {
	t.Parallel()
	p := []Parameter{{Name: "p", Value: []float32{0}, Gradient: []float32{1e25}}}
	require.Equal(t, &NonFiniteError{"p", "update", 0}, (&AdamW{LearningRate: 1}).Update(p))
	require.Equal(t, []float32{0}, p[0].Value)
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, c := range []struct {
		optimizer Optimizer
		want      string
	}{
		{&SGD{}, "train: the learning rate was never set; set the field LearningRate or call SetLearningRate"},
		{&AdamW{}, "train: the learning rate was never set; set the field LearningRate or call SetLearningRate"},
		{&SGD{LearningRate: -1}, "train: learning rate -1; it must be finite and not negative"},
		{&AdamW{LearningRate: math.Inf(1)}, "train: learning rate +Inf; it must be finite and not negative"},
		{&SGD{LearningRate: 1, Momentum: 1}, "train: SGD momentum 1; want [0, 1)"},
		{&SGD{LearningRate: 1, Momentum: nan}, "train: SGD momentum NaN; want [0, 1)"},
		{&SGD{LearningRate: 1, Momentum: 0.9, Dampening: 2}, "train: SGD dampening 2; want [0, 1]"},
		{&SGD{LearningRate: 1, Dampening: 0.5}, "train: SGD dampening 0.5 has no effect without momentum"},
		{&SGD{LearningRate: 1, WeightDecay: -1}, "train: SGD weight decay -1; it must be finite and not negative"},
		{&SGD{LearningRate: 1, Nesterov: true}, "train: SGD with Nesterov needs momentum above 0 and no dampening; it has 0 and 0"},
		{&AdamW{LearningRate: 1, Beta1: 1}, "train: AdamW betas 1 and 0.999; want (0, 1), or 0 for the default"},
		{&AdamW{LearningRate: 1, Beta2: -0.1}, "train: AdamW betas 0.9 and -0.1; want (0, 1), or 0 for the default"},
		{&AdamW{LearningRate: 1, Epsilon: 1e-50}, "train: AdamW epsilon 1e-50; want at least 1e-38, or 0 for 1e-8"},
		{&AdamW{LearningRate: 1, WeightDecay: nan}, "train: AdamW weight decay NaN; it must be finite and not negative"},
	} {
		require.EqualError(t, c.optimizer.Update(sample(0)), c.want)
	}
}

func TestParameterErrors(t *testing.T) {
	t.Parallel()
	one := []float32{1}
	for _, c := range []struct {
		parameters []Parameter
		want       string
	}{
		{[]Parameter{{Value: one, Gradient: one}}, "train: parameter 0 has no name; its state is kept under its name"},
		{[]Parameter{{"p", one, one, whole}, {"p", one, one, whole}}, `train: two parameters are named "p"; names must be unique`},
		{[]Parameter{{"p", one, nil, whole}}, `train: parameter "p" has 1 values and 0 gradients; want equal numbers, at least 1`},
		{[]Parameter{{"p", nil, nil, whole}}, `train: parameter "p" has 0 values and 0 gradients; want equal numbers, at least 1`},
		{[]Parameter{{"p", one, one, Group{"alpha", -1, 0}}},
			`train: group "alpha" of parameter "p" has rate -1 and decay 0; both must be finite and not negative`},
	} {
		require.EqualError(t, (&SGD{LearningRate: 1}).Update(c.parameters), c.want)
	}
}

func TestRestoreErrors(t *testing.T) {
	t.Parallel()
	good := func() []State {
		return []State{
			{Name: "first_moment/p", Steps: 3, Float32: []float32{1, 2}},
			{Name: "second_moment/p", Steps: 3, Float32: []float32{1, 2}},
			{Name: "bias_powers/p", Steps: 3, Float64: []float64{0.5, 0.5}},
		}
	}
	require.NoError(t, (&AdamW{}).Restore(good()))
	for _, c := range []struct {
		damage func(s []State) []State
		want   string
	}{
		{func(s []State) []State { s[0].Name = "p"; return s }, `"p" has no name of the form slot/parameter`},
		{func(s []State) []State { s[0].Name = "first_moment/"; return s }, `"first_moment/" has no name of the form slot/parameter`},
		{func(s []State) []State { s[0].Name = "momentum/p"; return s },
			`"momentum/p" has a slot this optimizer does not have (it has: first_moment, second_moment, bias_powers)`},
		{func(s []State) []State { s[0].Steps = 0; return s },
			`"first_moment/p" has 0 steps; want at least 1 and as many as the parameter's other slots`},
		{func(s []State) []State { s[1].Steps = 4; return s },
			`"second_moment/p" has 4 steps; want at least 1 and as many as the parameter's other slots`},
		{func(s []State) []State { return append(s, s[0]) }, `"first_moment/p" appears twice`},
		{func(s []State) []State { return append(s, s[2]) }, `"bias_powers/p" appears twice`},
		{func(s []State) []State { s[0].Float32 = nil; return s }, `"first_moment/p" must hold float32 values`},
		{func(s []State) []State { s[0].Float64 = s[2].Float64; return s }, `"first_moment/p" must hold float32 values`},
		{func(s []State) []State { s[2].Float64 = []float64{0.5}; return s }, `"bias_powers/p" must hold 2 float64 values`},
		{func(s []State) []State { s[2].Float64[1] = 1; return s }, `"bias_powers/p" holds 1; want a product of betas, in [0, 1)`},
		{func(s []State) []State { s[1].Float32[1] = float32(math.NaN()); return s }, `"second_moment/p" is NaN or Inf at element 1`},
		{func(s []State) []State { s[1].Float32 = []float32{1}; return s },
			`"second_moment/p" holds 1 values; its slot first_moment holds 2`},
		{func(s []State) []State { return s[:2] }, `"bias_powers/p" is missing`},
		{func(s []State) []State { return s[1:] }, `"first_moment/p" is missing`},
	} {
		adam := &AdamW{}
		require.NoError(t, adam.Restore(good()))
		err := adam.Restore(c.damage(good()))
		require.EqualError(t, err, "train: optimizer state "+c.want)
		require.ErrorAs(t, err, new(*StateError))
		require.Equal(t, good(), adam.State(), "a refused Restore changes nothing")
	}
	require.EqualError(t, (&SGD{}).Restore(good()[:1]),
		`train: optimizer state "first_moment/p" has a slot this optimizer does not have (it has: none)`)
}

func TestRestoredStateMustFindItsParameter(t *testing.T) {
	t.Parallel()
	sgd := &SGD{LearningRate: 1, Momentum: 0.5}
	momentum := func(name string) State { return State{Name: "momentum/" + name, Steps: 1, Float32: []float32{1}} }
	p := func(name string, n int) Parameter {
		return Parameter{Name: name, Value: make([]float32, n), Gradient: make([]float32, n)}
	}
	require.NoError(t, sgd.Restore([]State{momentum("a"), momentum("b")}))
	for _, c := range []struct {
		parameters []Parameter
		want       string
	}{
		{[]Parameter{p("a", 1), p("c", 1)}, `train: optimizer state "momentum/b" was restored, but no parameter has that name`},
		{[]Parameter{p("a", 2), p("b", 1)}, `train: optimizer state "momentum/a" holds 1 values; the parameter has 2`},
	} {
		err := sgd.Update(c.parameters)
		require.EqualError(t, err, c.want)
		require.ErrorAs(t, err, new(*StateError))
	}
	require.NoError(t, sgd.Update([]Parameter{p("a", 1), p("b", 1), p("new", 1)}))
	require.NoError(t, sgd.Update([]Parameter{p("a", 1)}), "later steps may leave parameters out")
	require.Len(t, sgd.State(), 3)
}

// Switching momentum off and on again must not trip over the buffers that remain.
func TestMomentumSwitchedOff(t *testing.T) {
	t.Parallel()
	sgd := &SGD{LearningRate: 1, Momentum: 0.5}
	one := Parameter{Name: "p", Value: []float32{1}, Gradient: []float32{1}}
	two := Parameter{Name: "p", Value: []float32{1, 1}, Gradient: []float32{1, 1}}
	require.NoError(t, sgd.Update([]Parameter{one}))
	sgd.Momentum = 0
	require.Empty(t, sgd.State())
	require.NoError(t, sgd.Update([]Parameter{two}))
	sgd.Momentum = 0.5
	require.ErrorAs(t, sgd.Update([]Parameter{two}), new(*StateError))
	require.NoError(t, sgd.Update([]Parameter{one}))
}

func FuzzRestore(f *testing.F) {
	f.Add("first_moment/p", "second_moment/p", uint64(1), float32(1), 0.5)
	f.Add("momentum/p", "bias_powers/p", uint64(0), float32(math.NaN()), 1.0)
	f.Fuzz(func(t *testing.T, name, other string, steps uint64, x float32, power float64) {
		states := []State{
			{Name: name, Steps: steps, Float32: []float32{x}},
			{Name: other, Steps: steps, Float32: []float32{x}},
			{Name: "bias_powers/p", Steps: steps, Float64: []float64{power, power}},
		}
		for _, o := range []Optimizer{&AdamW{LearningRate: 1}, &SGD{LearningRate: 1, Momentum: 0.5}} {
			for n := range len(states) + 1 {
				if o.Restore(states[:n]) != nil {
					continue
				}
				require.Len(t, o.State(), n)
				p := []Parameter{{Name: "p", Value: []float32{1}, Gradient: []float32{1}}}
				if o.Update(p) == nil {
					require.True(t, finite(p[0].Value[0]))
				}
			}
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	for _, name := range []string{"plain", "momentum", "adamw"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			const n = 270_000 // the parameters of ResNet-20
			p := []Parameter{{Name: "p", Value: make([]float32, n), Gradient: make([]float32, n), Group: whole}}
			o := optimizers[name]()
			for b.Loop() {
				require.NoError(b, o.Update(p))
			}
		})
	}
}
