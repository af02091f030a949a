package train

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/goqat/goqat/internal/kernel"
)

// Anneal is how the temperature τ of weights that are searched for falls over a training. With t from 0 at the share Start of
// its steps to 1 at the share End, the sharpness 1/τ is
//
//	exp      From·(To/From)^t               by equal factors, as in the published settings
//	linear   From + (To-From)·t
//	sin      From + (To-From)·sin(π·t/2)    fast at first
//
// From before, and from the share End on the choice is one-hot. The settings of the paper multiply 1/τ by 1.03 to 1.06 an epoch
// between 0.4 and 0.9 of 500 epochs: it ends between 10³ and 10⁶.
//
// Yang et al., "Searching for Low-Bit Weights in Quantized Neural Networks", 2020.
type Anneal struct {
	Shape      string  // exp, linear or sin; empty means exp
	From, To   float64 // sharpness at Start and at End; 0 means 1 and 100
	Start, End float64 // shares of the training; both 0 means 0 and 0.8
}

// annealShapes are the shapes by name; each leads from 0 to 1.
var annealShapes = []string{"exp", "linear", "sin"}

// maxSharpness bounds 1/τ, so that it and τ are far inside the range of float32.
const maxSharpness = 1e7

// filled returns a with the defaults in place of what is not set.
func (a Anneal) filled() Anneal {
	if a.Shape == "" {
		a.Shape = "exp"
	}
	a.From, a.To = orDefault(a.From, 1), orDefault(a.To, 100)
	if a.Start == 0 && a.End == 0 {
		a.End = 0.8
	}
	return a
}

// String returns the form that ParseAnneal reads.
func (a Anneal) String() string {
	a = a.filled()
	return a.Shape + ",from=" + number(a.From) + ",to=" + number(a.To) + ",start=" + number(a.Start) + ",end=" + number(a.End)
}

// ParseAnneal reads a schedule of the form shape,key=value,… such as "exp,from=1,to=1000,end=0.9", with the fields of
// [Anneal] as keys. The empty text is the default.
func ParseAnneal(text string) (Anneal, error) {
	if text == "" {
		return Anneal{}.filled(), nil
	}
	a, err := parseAnneal(text)
	if err != nil {
		return Anneal{}, fmt.Errorf("train: annealing %q: %w", text, err)
	}
	return a, nil
}

func parseAnneal(text string) (Anneal, error) {
	shape, rest, more := strings.Cut(text, ",")
	if !slices.Contains(annealShapes, shape) {
		return Anneal{}, fmt.Errorf("unknown shape %q (known: %s)", shape, strings.Join(annealShapes, ", "))
	}
	o := &scheduleOptions{values: map[string]string{}}
	if more {
		if err := o.readKeys("annealing", []string{"from", "to", "start", "end"}, strings.Split(rest, ",")); err != nil {
			return Anneal{}, err
		}
	}
	standard := Anneal{}.filled()
	a := Anneal{
		Shape: shape, From: o.float("from", standard.From, sharpness), To: o.float("to", standard.To, sharpness),
		Start: o.float("start", standard.Start, share), End: o.float("end", standard.End, share),
	}
	switch {
	case o.err != nil:
		return Anneal{}, o.err
	case a.To < a.From:
		return Anneal{}, fmt.Errorf("from=%v to=%v: want a sharpness that does not fall", a.From, a.To)
	case a.End <= a.Start:
		return Anneal{}, fmt.Errorf("start=%v end=%v: want an end behind the start", a.Start, a.End)
	}
	return a, nil
}

var (
	sharpness = interval{func(x float64) bool { return x >= 1/maxSharpness && x <= maxSharpness }, "a number from 1e-7 to 1e7"}
	share     = interval{func(x float64) bool { return x >= 0 && x <= 1 }, "a share of the training, 0 to 1"}
)

// Temperature returns τ when a share of the training is done, 0 where the choice is one-hot.
func (a Anneal) Temperature(done float64) float64 {
	a = a.filled()
	if done >= a.End {
		return 0
	}
	return 1 / a.sharpness(max(0, (done-a.Start)/(a.End-a.Start)))
}

// sharpness returns 1/τ at t.
func (a Anneal) sharpness(t float64) float64 {
	switch a.Shape {
	case "linear":
		return a.From + float64((a.To-a.From)*t)
	case "sin":
		return a.From + float64((a.To-a.From)*kernel.Sin(t*math.Pi/2))
	}
	return a.From * kernel.Exp(t*kernel.Log(a.To/a.From))
}
