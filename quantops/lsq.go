// # lsq
//
// Uniform steps whose size s is learned by gradient.
//
//	code = clamp(round(x/s), -Qn, Qp)           value = code·s
//	dx   = dy inside the range, else 0
//	ds   = g · Σ dy·(round(x/s) - x/s inside, -Qn below, Qp above),  g = 1/√(N·Qp)
//
//	-4s  -3s  -2s  -s   0   s   2s   3s
//	 |----|----|----|---|---|----|----|      3 bits, signed: codes -4…3
//
// Rounding is half to even, and inside is decided on the rounded code, as for linear; N is the number of weights (of a
// channel, with a step per channel) or of activations in one image. Signed codes have Qn = 2^(b-1), Qp = 2^(b-1)-1, unsigned
// ones Qn = 0, Qp = 2^b-1. The step starts at 2·mean|x|/√Qp, as the paper has it, or with init=mse at the one of least
// squared error: behind a rectifier most activations are zero, which makes their mean a poor measure, most of all at 2 bits.
// For activations it is averaged over the calibration batches. It stays at or above 2^-23.
//
// Use it for training at 2 to 8 bits, from a trained float net; it is the method to beat. Without training linear's
// observers choose better ranges.
//
// Esser et al., "Learned Step Size Quantization", 2020.
package quantops

import (
	"fmt"
	"math"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ WeightQuantizer = (*lsq)(nil)
var _ ActivationQuantizer = (*lsq)(nil)
var _ LevelGradient = (*lsq)(nil)

// lsq is uniform quantization with a learned step size; see the package comment.
type lsq struct {
	codes
	channels int
	size     int     // N
	exact    bool    // inside decided on x/s itself
	mse      bool    // start at the least squared error
	factor   float64 // g
}

var lsqSpec = Spec{
	Name:        "lsq",
	Doc:         "uniform steps whose size is learned by gradient",
	Paper:       "Esser et al., Learned Step Size Quantization, 2020",
	Weights:     Bits{2, 8},
	Activations: Bits{2, 8},
	Options: []Option{
		{Name: "per", Doc: "one step per tensor or per output channel (weights)", Default: "tensor", Values: []string{"tensor", "channel"}},
		{Name: "range", Doc: "narrow leaves out the lowest signed code, so that both sides are equal", Default: "full", Values: []string{"full", "narrow"}},
		{Name: "sign", Doc: "signed or unsigned codes (auto: signed where negative numbers occur)", Default: "auto", Values: []string{"auto", "signed", "unsigned"}},
		{Name: "init", Doc: "where the step starts: at the paper's 2·mean|x|/√Qp or at the least squared error", Default: "mean", Values: []string{"mean", "mse"}},
		{Name: "inside", Doc: "where the gradient passes: where the rounded code is in the range, or x/s itself as the paper prints it", Default: "rounded", Values: []string{"rounded", "exact"}},
	},
}

func init() {
	lsqSpec.New = newLSQ
	Register(&lsqSpec)
}

func newLSQ(bits int, options Options, t Target) (Quantizer, error) {
	get := func(name string) string { return lsqSpec.option(options, name) }
	switch {
	case t.Role == Activations && get("per") == "channel":
		return nil, fmt.Errorf("per=channel is for weights; activations have one step per tensor")
	case get("range") == "narrow" && get("sign") == "unsigned":
		return nil, fmt.Errorf("range=narrow is for signed codes")
	}
	q := &lsq{channels: 1, size: t.Size, exact: get("inside") == "exact", mse: get("init") == "mse"}
	if get("per") == "channel" {
		q.channels, q.size = t.Channels, t.Size/t.Channels
	}
	q.codes = unsignedCodes(bits)
	if get("sign") == "signed" || get("sign") == "auto" && (t.Signed || t.Role == Weights) {
		q.codes = signedCodes(bits, get("range") == "narrow")
	}
	q.factor = 1 / math.Sqrt(float64(q.size)*float64(q.max))
	return q, nil
}

func (q *lsq) Theta() Theta {
	return Theta{Name: "step", Kind: Learned, Rows: q.channels, Columns: []string{"step"}, Minimum: []float32{smallestScale}, Rate: 1}
}

func (q *lsq) Fit(theta, x []float32, e Extent, batches int) {
	fit := func(c int, x []float32, e Extent) {
		step := max(q.start(x, e), smallestScale)
		if batches > 0 {
			step = float64(theta[c]) + (step-float64(theta[c]))/float64(batches+1)
		}
		theta[c] = float32(step)
	}
	if q.channels == 1 {
		fit(0, x, e)
		return
	}
	eachChannel(q.channels, x, func(c, from, to int) { fit(c, x[from:to], kernel.Dense(to-from)) })
}

// start is the step that training starts from.
func (q *lsq) start(x []float32, e Extent) float64 {
	if q.mse {
		return q.codes.leastSquares(x, e)
	}
	return 2 * kernel.MeanAbsolute(x, e) / math.Sqrt(float64(q.max))
}

func (q *lsq) Levels(levels, x, theta []float32) {
	eachChannel(q.channels, x, func(c, from, to int) {
		u := q.uniform(theta[c], 0)
		u.Levels(levels[from:to], x[from:to])
	})
}

func (q *lsq) Units(units, theta []float32) { copy(units, theta) }

func (q *lsq) Backward(dx, dtheta, dy, x, theta []float32) {
	eachChannel(q.channels, x, func(c, from, to int) {
		u := q.uniform(theta[c], 0)
		dtheta[c] = float32(q.factor * u.StepGradient(dx[from:to], nil, dy[from:to], x[from:to], q.exact))
	})
}

func (q *lsq) BackwardLevels(levels, dx, dtheta, dy, x, theta []float32) {
	eachChannel(q.channels, x, func(c, from, to int) {
		u := q.uniform(theta[c], 0)
		dtheta[c] = float32(q.factor * u.StepGradient(dx[from:to], levels[from:to], dy[from:to], x[from:to], q.exact))
	})
}

func (q *lsq) Encode(x, theta []float32, shape []int) (*integer.Weights, error) {
	levels := make([]float32, len(x))
	q.Levels(levels, x, theta)
	var zeros []int32
	if q.min == 0 {
		zeros = []int32{0} // unsigned codes are no two's complement
	}
	return q.encode(levels, theta, zeros, shape)
}

func (q *lsq) Grid(theta []float32) (integer.Grid, error) { return q.grid(theta[0], 0) }
