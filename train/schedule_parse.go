package train

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/goqat/goqat/internal/registry"
)

// ScheduleSpec describes a schedule that ParseSchedule knows, for help texts.
type ScheduleSpec struct {
	Name    string
	Doc     string
	Example string   // a string that ParseSchedule accepts
	Keys    []string // the keys it takes besides "warmup"

	build func(options *scheduleOptions) Schedule
}

// warmUpKey is taken by every schedule.
const warmUpKey = "warmup"

var scheduleSpecs = []ScheduleSpec{
	{
		Name: "constant", Doc: "the base rate throughout", Example: "constant",
		build: func(*scheduleOptions) Schedule { return Constant{} },
	},
	{
		Name: "cosine", Doc: "half a cosine from the base rate to min (default 0) at the end of the run",
		Example: "cosine,min=0.001,warmup=5", Keys: []string{"min"},
		build: func(o *scheduleOptions) Schedule { return Cosine{Min: o.float("min", 0, atLeastZero)} },
	},
	{
		Name: "exponential", Doc: "times gamma an epoch, smoothly",
		Example: "exponential,gamma=0.95", Keys: []string{"gamma"},
		build: func(o *scheduleOptions) Schedule {
			o.require("gamma")
			return Exponential{Gamma: o.float("gamma", 1, factor)}
		},
	},
	{
		Name: "multistep", Doc: "times gamma (default 0.1) at each of the epochs at",
		Example: "multistep,at=10:20,gamma=0.1", Keys: []string{"at", "gamma"},
		build: func(o *scheduleOptions) Schedule {
			o.require("at")
			return MultiStep{At: o.milestones(), Gamma: o.float("gamma", 0.1, factor)}
		},
	},
	{
		Name: "step", Doc: "times gamma (default 0.1) every so many epochs",
		Example: "step,every=3,gamma=0.1", Keys: []string{"every", "gamma"},
		build: func(o *scheduleOptions) Schedule {
			o.require("every")
			return StepDecay{Every: o.float("every", 0, aboveZero), Gamma: o.float("gamma", 0.1, factor)}
		},
	},
}

var schedules = registerSchedules()

func registerSchedules() *registry.Registry[ScheduleSpec] {
	r := registry.New[ScheduleSpec]("schedule")
	for _, spec := range scheduleSpecs {
		r.Register(spec.Name, spec)
	}
	return r
}

// Schedules lists the schedules that ParseSchedule knows, by name.
func Schedules() []ScheduleSpec { return schedules.All() }

// ParseSchedule reads a schedule of the form name,key=value,… such as "cosine,min=1e-4,warmup=5" or
// "multistep,at=10:20,gamma=0.1". Every schedule takes warmup, the epochs of linear warm-up at its start, fractions
// allowed. The result's String reads back as the same schedule.
func ParseSchedule(text string) (Schedule, error) {
	s, err := parseSchedule(text)
	if err != nil {
		return nil, fmt.Errorf("train: schedule %q: %w", text, err)
	}
	return s, nil
}

func parseSchedule(text string) (Schedule, error) {
	name, rest, more := strings.Cut(text, ",")
	spec, err := schedules.Lookup(strings.TrimSpace(name))
	if err != nil {
		return nil, err
	}
	options := &scheduleOptions{values: map[string]string{}}
	if more {
		if err := options.read(spec, strings.Split(rest, ",")); err != nil {
			return nil, err
		}
	}
	schedule := spec.build(options)
	if _, given := options.values[warmUpKey]; given {
		schedule = WarmUp{Epochs: options.float(warmUpKey, 0, atLeastZero), Then: schedule}
	}
	return schedule, options.err
}

// scheduleOptions holds the key=value pairs of a schedule and the first error met in reading them.
type scheduleOptions struct {
	values map[string]string
	err    error
}

func (o *scheduleOptions) read(spec ScheduleSpec, pairs []string) error {
	return o.readKeys(spec.Name, append(slices.Clone(spec.Keys), warmUpKey), pairs)
}

// readKeys reads pairs whose keys are among those that name has.
func (o *scheduleOptions) readKeys(name string, known, pairs []string) error {
	keys := registry.New[struct{}](name + " key")
	for _, key := range known {
		keys.Register(key, struct{}{})
	}
	for _, pair := range pairs {
		key, value, found := strings.Cut(strings.TrimSpace(pair), "=")
		if !found {
			return fmt.Errorf("option %q has no value; want key=value", pair)
		}
		if _, err := keys.Lookup(key); err != nil {
			return err
		}
		if _, twice := o.values[key]; twice {
			return fmt.Errorf("key %q is given twice", key)
		}
		o.values[key] = value
	}
	return nil
}

func (o *scheduleOptions) fail(format string, arguments ...any) {
	if o.err == nil {
		o.err = fmt.Errorf(format, arguments...)
	}
}

func (o *scheduleOptions) require(key string) {
	if _, given := o.values[key]; !given {
		o.fail("the key %q is missing", key)
	}
}

// interval is a range of allowed values.
type interval struct {
	holds func(float64) bool
	text  string
}

var (
	atLeastZero = interval{nonNegative, "a finite number, at least 0"}
	aboveZero   = interval{func(x float64) bool { return nonNegative(x) && x > 0 }, "a finite number above 0"}
	factor      = interval{func(x float64) bool { return x > 0 && x <= 1 }, "a number above 0 and at most 1"}
)

func (o *scheduleOptions) float(key string, byDefault float64, allowed interval) float64 {
	text, given := o.values[key]
	if !given {
		return byDefault
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !allowed.holds(x) {
		o.fail("%s=%s; want %s", key, text, allowed.text)
	}
	return math.Abs(x) // -0 and 0 are one value
}

func (o *scheduleOptions) milestones() []float64 {
	var at []float64
	for _, text := range strings.Split(o.values["at"], ":") {
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !aboveZero.holds(x) || len(at) > 0 && x <= at[len(at)-1] {
			o.fail("at=%s; want rising epochs above 0, such as 10:20", o.values["at"])
			return nil
		}
		at = append(at, x)
	}
	return at
}
