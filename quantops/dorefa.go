// # dorefa
//
// Uniform levels of weights bent by a hyperbolic tangent, and of activations between 0 and 1.
//
//	weights      v = tanh(w)/(2·max|tanh w|) + 1/2,  code = round(v·(2^b-1)),  value = m·(2·code/(2^b-1) - 1)
//	             dw = dy·(1 - tanh²w)·m/max|tanh w|
//	1 bit        value = mean|w| for w ≥ 0, else -mean|w|;  dw = dy
//	activations  code = round(min(max(x, 0), 1)·(2^b-1)),  value = code/(2^b-1);  dx = dy where 0 ≤ x ≤ 1, else 0
//	their signs  value = 1 for x ≥ 0, else -1;  dx = dy where -1 ≤ x ≤ 1, else 0
//
//	-1    -5/7  -3/7  -1/7  1/7   3/7   5/7    1 · m
//	 |-----|-----|-----|-----|-----|-----|-----|      3 bits of weights: no zero among them
//
// The maximum goes over the tensor, is measured in each step and counts as a constant in the gradient. With m = 1, as in the
// paper, weights always fill [-1, 1], of which batch normalization takes away the size; nets without it would start far
// from where they were. So m = max|tanh w| here unless rescale=false. Rounding is half to even, a zero weight gets the least
// positive level, and all boundaries are computed back to w: the code of w is how many of
// artanh(max|tanh w|·((2i+1)/(2^b-1) - 1)) lie below it.
//
// The paper leaves the first and the last layer in floating point. Activations that can be negative, as images are, get linear's
// signed codes here, since clipping them to [0, 1] would lose them; at 1 bit they get their signs, as in networks of binary
// activations (Courbariaux et al., 2016), and convolutions pad with a real 0. Behind a rectifier there is nothing but one
// sign: 1 bit is then 0 or 1.
//
// Use it for the low bits of its paper (1 and 2 bits of weights with 2 to 4 of activations), behind layers whose outputs
// lie around [0, 1]; lsq and pact learn where to clip instead.
//
// Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients", 2016.
package quantops

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

var _ WeightQuantizer = (*dorefaWeights)(nil)
var _ Resizing = (*dorefaWeights)(nil)
var _ WeightQuantizer = (*dorefaSigns)(nil)
var _ ActivationQuantizer = (*dorefaActivations)(nil)
var _ ActivationQuantizer = (*signActivations)(nil)

var dorefaSpec = Spec{
	Name:        "dorefa",
	Doc:         "uniform levels of the tangent hyperbolic of weights, and of activations clipped to [0, 1]",
	Paper:       "Zhou et al., DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients, 2016",
	Weights:     Bits{1, 8},
	Activations: Bits{1, 8},
	Options: []Option{
		{Name: "rescale", Doc: "false leaves weights in [-1, 1] as the paper has it, instead of multiplying them by their max|tanh w|", Default: "true", Values: []string{"true", "false"}},
	},
}

func init() {
	dorefaSpec.New = newDoReFa
	Register(&dorefaSpec)
}

func newDoReFa(bits int, options Options, t Target) (Quantizer, error) {
	switch {
	case dorefaSpec.given(options, "rescale") && (t.Role == Activations || bits == 1):
		return nil, fmt.Errorf("rescale=false is for weights of 2 bits or more")
	case t.Role == Activations && t.Signed && bits == 1:
		return &signActivations{dorefaActivations{unsignedCodes(1)}}, nil
	case t.Role == Activations && t.Signed:
		return newLinear(bits, nil, t)
	case t.Role == Activations:
		return &dorefaActivations{unsignedCodes(bits)}, nil
	case bits == 1:
		return &dorefaSigns{}, nil
	}
	return &dorefaWeights{bits: bits, rescale: dorefaSpec.option(options, "rescale") == "true"}, nil
}

// dorefaWeights are weights of 2 bits or more; see the package comment. Levels are the odd numbers 2·code - (2^b-1).
type dorefaWeights struct {
	bits    int
	rescale bool
	last    atomic.Pointer[dorefaStairs]
}

// dorefaStairs are the boundaries for one maximum. They never change.
type dorefaStairs struct {
	reach float32
	steps *kernel.Steps
}

func (q *dorefaWeights) Theta() Theta {
	return Theta{Name: "range", Kind: Derived, Rows: 1, Columns: []string{"max"}}
}

// Fit measures max|tanh w|, at least 2^-23.
func (q *dorefaWeights) Fit(theta, x []float32, e Extent, _ int) {
	low, high := kernel.Range(x, e)
	theta[0] = float32(max(hyperbolicTangent(float64(max(-low, high))), smallestScale))
}

// hyperbolicTangent is tanh x for x ≥ 0 to within 1e-14 of it.
func hyperbolicTangent(x float64) float64 {
	if x < 1.0/16 {
		square := float64(x * x)
		return float64(x * (1 + float64(square*(-1./3+float64(square*(2./15+float64(square*(-17./315+float64(square*(62./2835))))))))))
	}
	return 1 - 2/(kernel.Exp(2*x)+1)
}

// inverseTangent is artanh t for |t| < 1 to within 1e-14 of it.
func inverseTangent(t float64) float64 {
	if math.Abs(t) < 1.0/64 {
		square := float64(t * t)
		return float64(t * (1 + float64(square*(1./3+float64(square*(1./5+float64(square*(1./7+float64(square*(1./9))))))))))
	}
	return kernel.Log((1+t)/(1-t)) / 2
}

// top is the largest level.
func (q *dorefaWeights) top() int { return 1<<q.bits - 1 }

// stairs returns the levels for a maximum. Several goroutines may ask.
func (q *dorefaWeights) stairs(reach float32) *kernel.Steps {
	if s := q.last.Load(); s != nil && s.reach == reach {
		return s.steps
	}
	bounds, levels := make([]float32, q.top()), make([]float32, q.top()+1)
	for code := range levels {
		levels[code] = float32(2*code - q.top())
	}
	for i := range bounds {
		share := float64(2*i+1-q.top()) / float64(q.top())
		bounds[i] = float32(inverseTangent(float64(float64(reach) * share)))
	}
	bounds[q.top()/2] = -math.SmallestNonzeroFloat32 // zero is a tie, which goes to an even code: upwards
	s := &dorefaStairs{reach, kernel.NewSteps(bounds, levels)}
	q.last.Store(s)
	return s.steps
}

func (q *dorefaWeights) Levels(levels, x, theta []float32) {
	q.stairs(theta[0]).Levels(levels, x)
}

func (q *dorefaWeights) Units(units, theta []float32) {
	units[0] = q.size(theta) / float32(q.top())
}

// Resizes says whether max|tanh w| is left to batch normalization.
func (q *dorefaWeights) Resizes() bool { return !q.rescale }

// size is m, what the largest level is worth.
func (q *dorefaWeights) size(theta []float32) float32 {
	if q.rescale {
		return theta[0]
	}
	return 1 + (theta[0] - theta[0]) // what is not finite stays that
}

func (q *dorefaWeights) Backward(dx, _, dy, x, theta []float32) {
	factor := q.size(theta) / theta[0]
	kernel.Parallel((len(x)+kernel.Chunk-1)/kernel.Chunk, func(i int) {
		to := min(len(x), (i+1)*kernel.Chunk)
		for j := i * kernel.Chunk; j < to; j++ {
			dx[j] = dy[j] * float32(factor*tangentSlope(x[j]))
		}
	})
}

// slopeNodes are 1 - tanh²x and its first derivatives, over their factorials, at x = i/slopeSteps.
var slopeNodes = func() (nodes [slopeReach*slopeSteps + 1][4]float64) {
	for i := range nodes {
		t := hyperbolicTangent(float64(i) / slopeSteps)
		e := kernel.Exp(-2 * float64(i) / slopeSteps)
		f, square := 4*e/float64((1+e)*(1+e)), float64(t*t)
		nodes[i] = [4]float64{f, -2 * float64(t*f), float64(f * (3*square - 1)), float64(float64(f*t) * (8./3 - 4*square))}
	}
	return nodes
}()

const (
	slopeSteps = 32 // nodes per unit
	slopeReach = 10 // beyond it the slope is less than 1e-8
)

// tangentSlope is 1 - tanh²x to within 5e-8: the Taylor series at the nearest node. NaN has slope NaN.
func tangentSlope(x float32) float32 {
	v := math.Abs(float64(x))
	if !(v < slopeReach) {
		if v != v {
			return x
		}
		return 0
	}
	i := int(v*slopeSteps + 0.5)
	n, d := &slopeNodes[i], v-float64(i)/slopeSteps
	return float32(n[0] + float64(d*(n[1]+float64(d*(n[2]+float64(d*n[3]))))))
}

// Encode returns the codes of the formula. At 8 bits levels don't fit a byte: level = 2·(code-128) + 1 is two planes.
func (q *dorefaWeights) Encode(x, theta []float32, shape []int) (*integer.Weights, error) {
	levels, units := make([]float32, len(x)), make([]float32, 1)
	q.Levels(levels, x, theta)
	q.Units(units, theta)
	w := &integer.Weights{Shape: shape, Bits: uint8(q.bits), Codes: make([]uint16, len(x)), Planes: q.planes(float64(units[0]), shape[0])}
	for i, level := range levels {
		if level != level {
			return nil, fmt.Errorf("quantops: weight %d is not a number", i)
		}
		w.Codes[i] = uint16((int(level) + q.top()) / 2)
	}
	return w, w.Validate()
}

func (q *dorefaWeights) planes(unit float64, outputs int) []integer.Plane {
	plane := integer.Plane{Table: make([]int8, q.top()+1), Scale: slices.Repeat([]float64{unit}, outputs)}
	if q.bits < 8 {
		for code := range plane.Table {
			plane.Table[code] = int8(2*code - q.top())
		}
		return []integer.Plane{plane}
	}
	one := integer.Plane{Table: slices.Repeat([]int8{1}, q.top()+1), Scale: plane.Scale}
	plane.Scale = slices.Repeat([]float64{2 * unit}, outputs)
	for code := range plane.Table {
		plane.Table[code] = int8(code - 128)
	}
	return []integer.Plane{plane, one}
}

// dorefaSigns are weights of 1 bit: the sign times the mean magnitude.
type dorefaSigns struct{}

func (dorefaSigns) Theta() Theta {
	return Theta{Name: "scale", Kind: Derived, Rows: 1, Columns: []string{"mean"}}
}

func (dorefaSigns) Fit(theta, x []float32, e Extent, _ int) {
	theta[0] = float32(max(kernel.MeanAbsolute(x, e), smallestScale))
}

func (dorefaSigns) Levels(levels, x, _ []float32) {
	for i, v := range x {
		switch {
		case v >= 0:
			v = 1
		case v < 0:
			v = -1
		}
		levels[i] = v // NaN stays
	}
}

func (dorefaSigns) Units(units, theta []float32) { units[0] = theta[0] }

func (dorefaSigns) Backward(dx, _, dy, _, _ []float32) { copy(dx, dy) }

func (q dorefaSigns) Encode(x, theta []float32, shape []int) (*integer.Weights, error) {
	plane := integer.Plane{Table: []int8{-1, 1}, Scale: slices.Repeat([]float64{float64(theta[0])}, shape[0])}
	w := &integer.Weights{Shape: shape, Bits: 1, Codes: make([]uint16, len(x)), Planes: []integer.Plane{plane}}
	for i, v := range x {
		switch {
		case v != v:
			return nil, fmt.Errorf("quantops: weight %d is not a number", i)
		case v >= 0:
			w.Codes[i] = 1
		}
	}
	return w, w.Validate()
}

// dorefaActivations are activations that are never negative.
type dorefaActivations struct{ codes }

// Theta describes the end of the range, always 1.
func (q *dorefaActivations) Theta() Theta {
	return Theta{Name: "range", Kind: Running, Rows: 1, Columns: []string{"high"}}
}

// Fit sets 1, unless the data is not finite: that must show.
func (q *dorefaActivations) Fit(theta, x []float32, e Extent, batches int) {
	low, high := kernel.Range(x, e)
	before := theta[0]
	theta[0] = 1 + (low - low) + (high - high)
	if batches > 0 {
		theta[0] += before - before
	}
}

func (q *dorefaActivations) uniform(theta []float32) kernel.Uniform {
	return q.codes.uniform(theta[0]/float32(q.max), 0)
}

func (q *dorefaActivations) Levels(levels, x, theta []float32) {
	u := q.uniform(theta)
	u.Levels(levels, x)
}

func (q *dorefaActivations) Units(units, theta []float32) { units[0] = theta[0] / float32(q.max) }

func (q *dorefaActivations) Backward(dx, _, dy, x, theta []float32) {
	clip := kernel.Clip{High: theta[0]}
	clip.Gradient(dx, x, dy, x) // levels don't matter, so x stands for them
}

func (q *dorefaActivations) Grid(theta []float32) (integer.Grid, error) {
	return q.grid(theta[0]/float32(q.max), 0)
}

// signActivations are the signs of activations that can be negative.
type signActivations struct{ dorefaActivations }

func (q *signActivations) Levels(levels, x, _ []float32) { dorefaSigns{}.Levels(levels, x, nil) }

func (q *signActivations) Backward(dx, _, dy, x, theta []float32) {
	clip := kernel.Clip{Low: -theta[0], High: theta[0]}
	clip.Gradient(dx, x, dy, x)
}

func (q *signActivations) Grid(theta []float32) (integer.Grid, error) {
	g := integer.Grid{Bits: 1, Scale: theta[0], Zero: 1, Max: 1, Table: &integer.Table{
		Levels: []int32{-1, 1}, Bounds: []float32{-math.SmallestNonzeroFloat32},
	}}
	return g, g.Validate()
}
