package train

import (
	"math"
	"strconv"
	"strings"

	"github.com/goqat/goqat/internal/kernel"
)

// Progress is a moment of a training run. Epochs are fractional: Step/StepsPerEpoch.
type Progress struct {
	Step          int // index of the step about to be made, from 0
	Steps         int // steps in the whole run
	StepsPerEpoch int // at least 1
	WarmUp        int // steps of warm-up at the start; set by WarmUp alone
}

// Epoch returns the epochs completed, fractions included.
func (p Progress) Epoch() float64 { return float64(p.Step) / float64(max(p.StepsPerEpoch, 1)) }

// Schedule gives the learning rate of each step. Schedules are pure functions with the same bits on every platform.
// The schedules that count epochs of a paper's table (StepDecay, MultiStep) count them from the start of the run; the smooth
// ones (Cosine, Exponential) begin where a warm-up ends.
type Schedule interface {
	// Rate returns the learning rate of the step at p for the base rate base.
	Rate(base float64, p Progress) float64
	// String returns the form that ParseSchedule reads.
	String() string
}

var (
	_ Schedule = Constant{}
	_ Schedule = StepDecay{}
	_ Schedule = MultiStep{}
	_ Schedule = Exponential{}
	_ Schedule = Cosine{}
	_ Schedule = WarmUp{}
)

// Constant is the base rate throughout.
type Constant struct{}

// Rate returns base.
func (Constant) Rate(base float64, _ Progress) float64 { return base }

func (Constant) String() string { return "constant" }

// StepDecay multiplies the rate by Gamma every Every epochs: base·γ^⌊epoch/every⌋.
type StepDecay struct {
	Every float64 // epochs, fractions allowed; 0 means never
	Gamma float64 // in (0, 1]; 0 means 0.1
}

// Rate returns base·γ^⌊epoch/every⌋.
func (s StepDecay) Rate(base float64, p Progress) float64 {
	if s.Every == 0 {
		return base
	}
	return base * power(s.gamma(), math.Floor(p.Epoch()/s.Every))
}

func (s StepDecay) String() string {
	return "step,every=" + number(s.Every) + ",gamma=" + number(s.gamma())
}

func (s StepDecay) gamma() float64 { return orDefault(s.Gamma, 0.1) }

// MultiStep multiplies the rate by Gamma at each milestone: base·γ^(number of milestones ≤ epoch).
type MultiStep struct {
	At    []float64 // milestones in epochs, rising, fractions allowed; none leaves the rate constant
	Gamma float64   // in (0, 1]; 0 means 0.1
}

// Rate returns base·γ^(number of milestones ≤ epoch).
func (s MultiStep) Rate(base float64, p Progress) float64 {
	passed := 0
	for _, milestone := range s.At {
		if milestone <= p.Epoch() {
			passed++
		}
	}
	return base * power(s.gamma(), float64(passed))
}

func (s MultiStep) String() string {
	milestones := make([]string, len(s.At))
	for i, milestone := range s.At {
		milestones[i] = number(milestone)
	}
	return "multistep,at=" + strings.Join(milestones, ":") + ",gamma=" + number(s.gamma())
}

func (s MultiStep) gamma() float64 { return orDefault(s.Gamma, 0.1) }

// Exponential falls smoothly by Gamma an epoch, from the end of the warm-up on: base·γ^epoch.
type Exponential struct {
	Gamma float64 // in (0, 1]; 0 means 1
}

// Rate returns base·γ^epoch, at fractional epochs too.
func (s Exponential) Rate(base float64, p Progress) float64 {
	p.Step -= p.WarmUp
	return base * kernel.Exp(p.Epoch()*kernel.Log(s.gamma()))
}

func (s Exponential) String() string { return "exponential,gamma=" + number(s.gamma()) }

func (s Exponential) gamma() float64 { return orDefault(s.Gamma, 1) }

// Cosine falls from the base rate to Min along half a cosine, over the steps after the warm-up:
// min + (base−min)·(1 + cos(π·t))/2 with t from 0 to 1. Loshchilov and Hutter, arXiv:1608.03983, without restarts.
type Cosine struct {
	Min float64 // rate at the end, absolute, ≥ 0
}

// Rate returns min + (base−min)·(1 + cos(π·t))/2, and Min from the last step's end on.
func (s Cosine) Rate(base float64, p Progress) float64 {
	done, span := p.Step-p.WarmUp, p.Steps-p.WarmUp
	if done >= span {
		return s.Min
	}
	t := float64(done) / float64(span)
	return s.Min + float64((base-s.Min)*float64(0.5*(1+kernel.Cos(math.Pi*t))))
}

func (s Cosine) String() string {
	if s.Min == 0 {
		return "cosine"
	}
	return "cosine,min=" + number(s.Min)
}

// WarmUp raises the rate linearly over the first Epochs epochs and then follows Then. It covers
// W = ⌈Epochs·StepsPerEpoch⌉ steps; step i of them has the rate base·(i+1)/W. Goyal et al., arXiv:1706.02677.
type WarmUp struct {
	Epochs float64  // ≥ 0, fractions allowed
	Then   Schedule // not another WarmUp; nil means Constant
}

// Rate returns base·(step+1)/W during the warm-up and Then's rate after it.
func (s WarmUp) Rate(base float64, p Progress) float64 {
	steps := math.Ceil(s.Epochs * float64(max(p.StepsPerEpoch, 1)))
	if float64(p.Step) < steps {
		return base * float64(p.Step+1) / steps
	}
	p.WarmUp += int(steps)
	return s.then().Rate(base, p)
}

func (s WarmUp) String() string { return s.then().String() + ",warmup=" + number(s.Epochs) }

func (s WarmUp) then() Schedule {
	if s.Then == nil {
		return Constant{}
	}
	return s.Then
}

// power is gamma^n for a whole n ≥ 0, by repeated squaring.
func power(gamma, n float64) float64 {
	product := 1.0
	for left := uint64(min(max(n, 0), math.MaxInt32)); left > 0; left >>= 1 {
		if left&1 == 1 {
			product *= gamma
		}
		gamma *= gamma
	}
	return product
}

// number is the shortest decimal that reads back as x.
func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
