package train

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

// The reference tables have one value an epoch, so an epoch is one step here.
func requireTable(t *testing.T, c golden.Case, s Schedule, steps int) {
	t.Helper()
	for epoch, want := range c.Float64("lr") {
		got := s.Rate(c.Number("lr0"), Progress{Step: epoch, Steps: steps, StepsPerEpoch: 1})
		require.InDelta(t, want, got, 1e-12, "%v at epoch %d", s, epoch)
	}
}

func TestSchedulesMatchReference(t *testing.T) {
	golden.Run(t, "layers", "lr_cosine", func(t *testing.T, c golden.Case) {
		requireTable(t, c, Cosine{Min: c.Number("eta_min")}, c.Int("T_max"))
	})
	golden.Run(t, "layers", "lr_multistep", func(t *testing.T, c golden.Case) {
		var at []float64
		for _, milestone := range c.Ints("milestones") {
			at = append(at, float64(milestone))
		}
		requireTable(t, c, MultiStep{At: at, Gamma: c.Number("gamma")}, 30)
	})
	golden.Run(t, "layers", "lr_step", func(t *testing.T, c golden.Case) {
		requireTable(t, c, StepDecay{Every: c.Number("step_size"), Gamma: c.Number("gamma")}, 10)
	})
	golden.Run(t, "layers", "lr_exp", func(t *testing.T, c golden.Case) {
		requireTable(t, c, Exponential{Gamma: c.Number("gamma")}, 12)
	})
	golden.Run(t, "layers", "lr_warmup_cosine", func(t *testing.T, c golden.Case) {
		requireTable(t, c, WarmUp{Epochs: c.Number("warmup"), Then: Cosine{}}, c.Int("N"))
	})
}

func TestScheduleWithinEpochs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		schedule Schedule
		step     int // of 100, 10 an epoch
		want     float64
	}{
		{Constant{}, 57, 1},
		{StepDecay{}, 57, 1},
		{StepDecay{Every: 0.5}, 4, 1},
		{StepDecay{Every: 0.5}, 5, 0.1},
		{StepDecay{Every: 1e-300, Gamma: 0.5}, 99, 0},
		{StepDecay{Every: 2, Gamma: 0.5}, 79, 0.125},
		{MultiStep{}, 99, 1},
		{MultiStep{At: []float64{2.5, 5}}, 24, 1},
		{MultiStep{At: []float64{2.5, 5}}, 25, 0.1},
		{MultiStep{At: []float64{2.5, 5}, Gamma: 0.5}, 50, 0.25},
		{Exponential{}, 57, 1},
		{Exponential{Gamma: 0.25}, 5, 0.5},
		{Cosine{}, 50, 0.5},
		{Cosine{Min: 0.2}, 50, 0.6},
		{Cosine{Min: 0.2}, 100, 0.2},
		{Cosine{Min: 0.2}, 1000, 0.2},
		{WarmUp{Epochs: 1}, 0, 0.1},
		{WarmUp{Epochs: 1}, 9, 1},
		{WarmUp{Epochs: 1}, 10, 1},
		{WarmUp{Epochs: 0.35}, 0, 0.25}, // 3.5 steps are rounded up to 4
		{WarmUp{}, 0, 1},
		{WarmUp{Epochs: 2, Then: Cosine{}}, 20, 1},
		{WarmUp{Epochs: 2, Then: Cosine{}}, 60, 0.5},
		{WarmUp{Epochs: 2, Then: Exponential{Gamma: 0.25}}, 25, 0.5},
		{WarmUp{Epochs: 2, Then: MultiStep{At: []float64{3}}}, 29, 1},   // milestones count from the
		{WarmUp{Epochs: 2, Then: MultiStep{At: []float64{3}}}, 30, 0.1}, // start of the run
		{WarmUp{Epochs: 2, Then: StepDecay{Every: 3}}, 30, 0.1},
		{WarmUp{Epochs: 1e300}, 50, 51e-301},
	} {
		got := c.schedule.Rate(1, Progress{Step: c.step, Steps: 100, StepsPerEpoch: 10})
		require.InDelta(t, c.want, got, 1e-15, "%v at step %d", c.schedule, c.step)
	}
}

func TestScheduleOfEmptyRun(t *testing.T) {
	t.Parallel()
	for _, spec := range Schedules() {
		s, err := ParseSchedule(spec.Example)
		require.NoError(t, err)
		require.False(t, math.IsNaN(s.Rate(1, Progress{})), spec.Name)
	}
}

// The table holds under every GOAMD64 and on every platform.
func TestScheduleBits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		schedule string
		want     uint64
	}{
		{"cosine,min=1e-4,warmup=0.7", 0x3f9eca26bd09eaf9},
		{"exponential,gamma=0.93", 0x3fa18bd8ac486cf1},
		{"multistep,at=1:2,gamma=0.3", 0x3f6d7dbf487fcb92},
		{"step,every=0.3,gamma=0.7", 0x3f6afc61203c9ca0},
	} {
		s, err := ParseSchedule(c.schedule)
		require.NoError(t, err)
		got := s.Rate(0.04, Progress{Step: 833, Steps: 1955, StepsPerEpoch: 391})
		require.Equal(t, c.want, math.Float64bits(got), "%s gives 0x%016x", c.schedule, math.Float64bits(got))
	}
}

func TestParseSchedule(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want Schedule
	}{
		{"constant", Constant{}},
		{"cosine", Cosine{}},
		{"cosine,min=-0", Cosine{}},
		{"cosine,min=1e-4,warmup=100", WarmUp{100, Cosine{1e-4}}},
		{" cosine, warmup=0.5", WarmUp{0.5, Cosine{}}},
		{"step,every=3,gamma=0.1", StepDecay{3, 0.1}},
		{"step,every=0.5", StepDecay{0.5, 0.1}},
		{"multistep,at=10:20,gamma=0.1", MultiStep{[]float64{10, 20}, 0.1}},
		{"multistep,warmup=1,gamma=1,at=10.5", WarmUp{1, MultiStep{[]float64{10.5}, 1}}},
		{"exponential,gamma=0.95", Exponential{0.95}},
	} {
		got, err := ParseSchedule(c.text)
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, got, c.text)
		again, err := ParseSchedule(got.String())
		require.NoError(t, err, got.String())
		require.Equal(t, got, again)
	}
}

func TestParseScheduleErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                           `unknown schedule "" (known: constant, cosine, exponential, multistep, step)`,
		"cosin":                      `unknown schedule "cosin": did you mean "cosine"? (known: constant, cosine, exponential, multistep, step)`,
		"cosine,":                    `option "" has no value; want key=value`,
		"cosine,mim=1":               `unknown cosine key "mim": did you mean "min"? (known: min, warmup)`,
		"constant,gamma=1":           `unknown constant key "gamma" (known: warmup)`,
		"cosine,min":                 `option "min" has no value; want key=value`,
		"cosine,min=-1":              `min=-1; want a finite number, at least 0`,
		"cosine,min=Inf":             `min=Inf; want a finite number, at least 0`,
		"cosine,min=1e999":           `min=1e999; want a finite number, at least 0`,
		"cosine,min=1,min=2":         `key "min" is given twice`,
		"cosine,warmup=NaN":          `warmup=NaN; want a finite number, at least 0`,
		"step":                       `the key "every" is missing`,
		"step,every=0":               `every=0; want a finite number above 0`,
		"step,every=1,gamma=0":       `gamma=0; want a number above 0 and at most 1`,
		"step,every=1,gamma=1.5":     `gamma=1.5; want a number above 0 and at most 1`,
		"exponential":                `the key "gamma" is missing`,
		"multistep,gamma=0.1":        `the key "at" is missing`,
		"multistep,at=":              `at=; want rising epochs above 0, such as 10:20`,
		"multistep,at=20:10":         `at=20:10; want rising epochs above 0, such as 10:20`,
		"multistep,at=10:10":         `at=10:10; want rising epochs above 0, such as 10:20`,
		"multistep,at=x,gamma=never": `at=x; want rising epochs above 0, such as 10:20`,
	} {
		s, err := ParseSchedule(text)
		require.Nil(t, s, text)
		require.EqualError(t, err, "train: schedule \""+text+"\": "+want)
	}
}

func TestScheduleSpecs(t *testing.T) {
	t.Parallel()
	for _, spec := range Schedules() {
		require.NotEmpty(t, spec.Doc, spec.Name)
		s, err := ParseSchedule(spec.Example)
		require.NoError(t, err)
		require.Equal(t, spec.Example, s.String(), spec.Name)
		for _, key := range spec.Keys {
			require.Contains(t, spec.Example, key+"=", spec.Name)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, spec := range scheduleSpecs {
		f.Add(spec.Example, 7)
	}
	f.Add("multistep,at=1:2,warmup=0x1p-2", 1<<40)
	f.Fuzz(func(t *testing.T, text string, step int) {
		s, err := ParseSchedule(text)
		if err != nil {
			require.Nil(t, s)
			return
		}
		again, err := ParseSchedule(s.String())
		require.NoError(t, err, s.String())
		require.Equal(t, s, again)
		rate := s.Rate(0.1, Progress{Step: max(step, 0), Steps: 1000, StepsPerEpoch: 100})
		require.True(t, nonNegative(rate), "%v at %d: %v", s, step, rate)
	})
}
