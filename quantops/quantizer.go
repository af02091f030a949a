package quantops

import (
	"errors"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

// Role says what a quantizer is for.
type Role uint8

// The two roles.
const (
	Weights Role = iota
	Activations
)

func (r Role) String() string { return [...]string{"weights", "activations"}[r] }

// Target describes the tensor that a quantizer is made for.
type Target struct {
	Role     Role
	Channels int  // weights: output channels, the first dimension; activations: 1
	Size     int  // weights: elements of the whole tensor; activations: elements of one image
	Signed   bool // whether the tensor can hold negative numbers
}

// Kind says where the numbers of a parameter come from.
type Kind uint8

// The kinds of parameters.
const (
	Learned Kind = iota // follows a gradient
	Derived             // computed from the tensor each time
	Fixed               // found once, by a search
	Running             // follows the data during calibration and training, and stands still in evaluation
)

// Theta describes the parameters of a quantizer: a matrix [Rows][len(Columns)], a row per channel.
type Theta struct {
	Name    string // of the whole: "step", "range", …
	Kind    Kind
	Rows    int       // channels, or 1 where one row serves the tensor
	Columns []string  // "step"; "low", "high"; …
	Minimum []float32 // of each column; learned parameters are kept at or above it after each step; nil for none
	Rate    float64   // of learned parameters: multiplies the learning rate
	Decay   float64   // of learned parameters: multiplies the weight decay
	// Measured counts the last columns that follow no gradient though the others do: see [Measuring].
	Measured int
}

// Extent says which elements of a tensor of blocks are there; padded lanes of a short batch are not.
type Extent = kernel.Extent

// Quantizer is a projection made for one tensor. Theta holds its parameters, row-major; x is
// [channels][n] for weights and a tensor of blocks (one channel) for activations.
type Quantizer interface {
	// Theta describes theta.
	Theta() Theta
	// Fit sets theta from data; batches counts the batches that theta has been fitted to before.
	Fit(theta, x []float32, e Extent, batches int)
	// Levels computes the level of every element of x.
	Levels(levels, x, theta []float32)
	// Units computes the worth of level 1 in every channel.
	Units(units, theta []float32)
	// Backward computes the surrogate gradients from dy = ∂L/∂(level·unit). It overwrites dx and dtheta.
	Backward(dx, dtheta, dy, x, theta []float32)
}

// Measuring is a Quantizer of weights some of whose parameters are learned and others, the last columns of theta, measured
// on the tensor each time before it is used. Backward writes 0 for these.
type Measuring interface {
	Quantizer
	// Measure sets the measured columns.
	Measure(theta, x []float32)
}

// Measure brings theta up to date with the weights x: derived parameters and measured columns.
func Measure(q Quantizer, theta, x []float32) {
	if q.Theta().Kind == Derived {
		q.Fit(theta, x, kernel.Dense(len(x)), 0)
	}
	if m, ok := q.(Measuring); ok {
		m.Measure(theta, x)
	}
}

// RangeFollower is a Quantizer of activations whose running parameters follow, in training, the smallest and the largest
// number of each batch. A step uses what the steps before it have left. Running parameters of other quantizers stand
// still after calibration.
type RangeFollower interface {
	Quantizer
	// Observe moves theta towards a batch with numbers from low to high.
	Observe(theta []float32, low, high float32)
}

// LevelGradient is a Quantizer that computes levels on the way to the gradients, which costs less than one after the other:
// layers need both in their backward pass, since they keep neither.
type LevelGradient interface {
	Quantizer
	// BackwardLevels is Backward and Levels.
	BackwardLevels(levels, dx, dtheta, dy, x, theta []float32)
}

// BackwardLevels computes gradients and levels of any quantizer.
func BackwardLevels(q Quantizer, levels, dx, dtheta, dy, x, theta []float32) {
	if both, ok := q.(LevelGradient); ok {
		both.BackwardLevels(levels, dx, dtheta, dy, x, theta)
		return
	}
	q.Backward(dx, dtheta, dy, x, theta)
	q.Levels(levels, x, theta)
}

// ErrNoIntegers says that a quantizer's levels are real numbers: it trains and is evaluated, and can't be exported.
var ErrNoIntegers = errors.New("its levels are real numbers, for which there are no integers")

// Resizing is a Quantizer of weights whose values may be of another size than the weights, which batch normalization
// makes up for.
type Resizing interface {
	Quantizer
	Resizes() bool
}

// WeightQuantizer is a projection of weights that can be exported.
type WeightQuantizer interface {
	Quantizer
	// Encode returns the integers of weights x of the given shape [outputs][…].
	Encode(x, theta []float32, shape []int) (*integer.Weights, error)
}

// ActivationQuantizer is a projection of activations that can be exported.
type ActivationQuantizer interface {
	Quantizer
	// Grid returns the integer coding of the activations.
	Grid(theta []float32) (integer.Grid, error)
}
