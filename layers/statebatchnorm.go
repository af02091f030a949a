package layers

import (
	"fmt"
	"math"
	"strconv"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

// StateBatchNorm is batch normalization with statistics for both states of the weights before it, for layers whose weights
// are searched for. Training computes with soft weights W_c, inference with hard ones W_q, and on the way there their sums
// are not distributed alike:
//
//	y_c = conv(x, W_c)    out_c = γ·(y_c - mean_c)/√(variance_c + ε) + β
//	y_q = conv(x, W_q)    out_q = γ·(y_q - mean_q)/√(variance_q + ε) + β
//
// with one γ and β. Training goes on from out_c and has its gradient; of y_q it takes the statistics and keeps no number.
// Evaluation and integers use W_q with the statistics of q, which are the normalization's running_mean and running_var;
// those of c are its parameters soft_mean and soft_var.
//
// It is a setting of [Methods] and works on the batch normalization behind a layer, right away or after a parametric
// rectifier, which then belongs to both branches. The zero value is off.
type StateBatchNorm struct {
	On bool
	// Every is how many training steps go by from one look at y_q to the next: 1 takes one in every step, as the paper does.
	// A look then has the weight of that many steps in the running statistics, 1-(1-Momentum)^Every.
	// Where the choice is one-hot y_q is y_c, and every step takes it. 0 takes none: then the statistics of q have to be
	// taken anew, with hard weights, before they are used.
	Every int
}

// String returns what UnmarshalText reads: off, epoch (for none in steps), step, or a number of steps.
func (s StateBatchNorm) String() string {
	switch {
	case !s.On:
		return "off"
	case s.Every == 0:
		return "epoch"
	case s.Every == 1:
		return "step"
	}
	return strconv.Itoa(s.Every)
}

// MarshalText lets configurations hold the setting as a string.
func (s StateBatchNorm) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads off, epoch, step or a number of steps.
func (s *StateBatchNorm) UnmarshalText(text []byte) error {
	switch string(text) {
	case "off":
		*s = StateBatchNorm{}
	case "epoch":
		*s = StateBatchNorm{On: true}
	case "step":
		*s = StateBatchNorm{On: true, Every: 1}
	default:
		n, err := strconv.Atoi(string(text))
		if err != nil || n < 1 || n > 1<<20 {
			return fmt.Errorf("layers: state batch normalization %q: want off, epoch, step or a number of steps up to %d", text, 1<<20)
		}
		*s = StateBatchNorm{On: true, Every: n}
	}
	return nil
}

// Branch says which weights a pass sees of those that are searched for, and which statistics of the [StateBatchNorm] behind
// them.
type Branch uint8

// The branches.
const (
	UsualBranch     Branch = iota // soft in training and calibration, hard in evaluation
	SoftBranch                    // soft weights, their statistics
	HardBranch                    // hard weights, their statistics
	UnmatchedBranch               // hard weights with the statistics of soft ones: what there is without state batch normalization
)

// softWeights says whether the pass sees soft weights.
func (p *Pass) softWeights() bool {
	return p.Branch == SoftBranch || p.Branch == UsualBranch && p.Mode != Evaluation
}

// softStatistics says whether the pass uses the statistics of soft weights.
func (p *Pass) softStatistics() bool { return p.Branch == UnmatchedBranch || p.softWeights() }

// hardBranch is the sums of a layer with hard weights, which its [StateBatchNorm] takes the statistics of.
type hardBranch struct {
	state     StateBatchNorm
	weight    *searched
	norm      *BatchNorm
	rectifier *PReLU // between layer and normalization; nil for none
	step      int    // of training

	kernel  kernel.BatchNorm
	moments []kernel.PlaneSums
	means   []float64
	squares []float64 // variances
	slopes  []float64
	levels  []float32
}

// due says whether this step looks at the hard weights.
func (h *hardBranch) due() bool {
	return h.state.Every > 0 && (h.step%h.state.Every == 0 || h.weight.oneHot())
}

// begin prepares a run over images of a shape and returns the levels of the hard weights.
func (h *hardBranch) begin(images int, out Shape) []float32 {
	h.kernel = kernel.BatchNorm{Images: images, Channels: out.Channels, Size: out.Height * out.Width}
	if planes := kernel.Blocks(images) * out.Channels; len(h.moments) != planes {
		h.moments, h.means, h.squares = h.kernel.NewSums(), make([]float64, out.Channels), make([]float64, out.Channels)
	}
	if h.levels == nil {
		h.levels = make([]float32, h.weight.count())
	}
	if h.rectifier != nil {
		h.slopes = h.rectifier.slopes()
	}
	h.weight.relaxation.Hard(h.levels, h.weight.logits.Data())
	return h.levels
}

// take takes in a block of sums; with a rectifier, it changes them.
func (h *hardBranch) take(block int, y []float32) {
	plane := h.kernel.Size * kernel.Lanes
	for c := range h.kernel.Channels {
		x := y[c*plane:][:plane]
		if h.rectifier != nil {
			kernel.Rectify(x, float32(h.slopes[c]))
		}
		h.kernel.AddStatistics(h.moments, block, c, x)
	}
}

// finish moves the running statistics towards those of the blocks taken in.
func (h *hardBranch) finish() {
	h.kernel.Moments(h.means, h.squares, h.moments)
	moveStatistics(h.norm.mean, h.norm.variance, h.means, h.squares, h.momentum(), h.kernel.Images*h.kernel.Size)
}

// momentum is the weight of a look in the running statistics: that of as many steps as it stands for, so that statistics
// grow old as fast however many these are.
func (h *hardBranch) momentum() float64 {
	m := h.norm.momentum()
	if h.state.Every == 1 || h.weight.oneHot() {
		return m
	}
	return 1 - math.Pow(1-m, float64(h.state.Every))
}

// pairNorms makes batch normalizations behind searched weights state batch normalizations where the layers want it, after
// Build, and leaves scales away that it makes needless.
func pairNorms(root Layer) {
	through := map[*PReLU]*weighted{}
	follow(root, nil, func(before, l Layer) {
		var w *weighted
		var rectifier *PReLU
		switch before := before.(type) {
		case interface{ searching() *weighted }:
			w = before.searching()
		case *PReLU:
			w, rectifier = through[before], before
		}
		if w == nil {
			return
		}
		switch l := l.(type) {
		case *PReLU:
			through[l] = w
		case *BatchNorm:
			w.pair(l, rectifier)
		}
	})
}

// searching returns the layer where its weights are searched for, else nil.
func (w *weighted) searching() *weighted {
	if _, ok := w.weight.(*searched); !ok {
		return nil
	}
	return w
}

// pair lets a normalization behind the layer, and the rectifier between them, know of its weights.
func (w *weighted) pair(norm *BatchNorm, rectifier *PReLU) {
	weight := w.weight.(*searched)
	weight.normalized()
	w.norm = norm
	if !w.state.On {
		return
	}
	norm.addSoftStatistics()
	w.hard = &hardBranch{state: w.state, weight: weight, norm: norm, rectifier: rectifier}
}

// addSoftStatistics gives the normalization running statistics of soft weights.
func (l *BatchNorm) addSoftStatistics() {
	add := func(name string, like *Param) *Param {
		p := newParam(l.name+"."+name, len(like.Data()))
		p.Kind, p.Adopts = quantops.Running, &Adoption{Name: like.Name, Shape: like.Value.Shape(), Set: func(x []float32) { copy(p.Data(), x) }}
		copy(p.Data(), like.Data())
		return p
	}
	l.softMean, l.softVariance = add("soft_mean", l.mean), add("soft_var", l.variance)
}
