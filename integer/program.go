package integer

import (
	"fmt"
	"sort"
	"sync"
)

// Program is a network as integers only: the arithmetic that every executor must reproduce bit for bit.
//
// Values are numbered: value 0 is the coded image, value i+1 the output of Nodes[i]. The last node's
// output are the logits. A program must not be changed once it has run.
type Program struct {
	Input   Shape            // of the image
	Pixels  [][256]int16     // [channel][pixel]: the code of each pixel, all within one 8-bit carrier
	Zero    int32            // zero point of the coded image
	Weights []IntegerWeights // what Conv and Linear nodes refer to
	Nodes   []Node           // in order of execution
	Classes int              // number of logits

	proveOnce  sync.Once
	proved     *plan
	invalid    error
	readyOnce  sync.Once
	engine     *engine
	decodeOnce sync.Once
	decoded    [][][]int8 // [weights][plane][element]
}

// Kind says what a node computes.
type Kind uint8

// The kinds of nodes. Numbers are those of the file format.
const (
	Conv       Kind = 1 // convolution of codes, requantized
	Linear     Kind = 2 // matrix product with codes of shape Nx1x1, requantized
	MaxPool    Kind = 3 // largest value of each window
	AvgPool    Kind = 4 // sum over each window of the value less its zero point; a wide value
	Flatten    Kind = 5 // the same values as Nx1x1
	Requantize Kind = 6 // element-wise requantization of one value
	Add        Kind = 7 // element-wise requantization of two values of one shape: planes 0 and 1
	Sample     Kind = 8 // every so many rows and columns, with channels of zeros added
	Staircase  Kind = 9 // element-wise steps: bytes in the order of bounds
)

// String returns for example "conv".
func (k Kind) String() string {
	if k < Conv || k > Staircase {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return [...]string{"conv", "linear", "maxpool", "avgpool", "flatten", "requantize", "add", "sample", "staircase"}[k-Conv]
}

// requantizes reports whether nodes of the kind have a requantizer.
func (k Kind) requantizes() bool {
	return k == Conv || k == Linear || k == Requantize || k == Add
}

// inputs returns how many values nodes of the kind take in at least and at most.
func (k Kind) inputs() (low, high int) {
	switch k {
	case Conv, Linear:
		return 1, maxInputs
	case Add:
		return 2, 2
	}
	return 1, 1
}

// Node is one step of a program.
//
// A convolution or matrix product sums x * table[code] over its taps in int32, where x is the code as carried: the zero
// point's share has been folded into the requantizer's bias. It has an accumulator for each input and plane of weights,
// those of the first input before those of the second. Convolutions pad with the input's zero point, which also fills
// the channels that Sample adds. MaxPool skips padding; in AvgPool it adds nothing.
type Node struct {
	Kind        Kind
	Name        string
	Inputs      []int        // numbers of values, each from before this node: two for Add, one or two of one shape for Conv and Linear, else one
	Weights     int          // Conv, Linear: index into Program.Weights
	Geometry    ConvGeometry // Conv, without zero defaults
	Window      Window       // MaxPool, AvgPool, without zero defaults
	Sampling    Sampling     // Sample
	Steps       *Steps       // Staircase
	Requantizer *Requantizer // Conv, Linear (one entry per channel), Requantize, Add (that, or one entry for all)
}

// accumulators returns how many a convolution or matrix product has for each output.
func (n *Node) accumulators(w *IntegerWeights) int { return len(n.Inputs) * len(w.Tables) }

// Steps says what integers a Staircase gives: x becomes Values[#{i: Bounds[i] < x}].
type Steps struct {
	Bounds []int32 // up to 255, never descending
	Values []int16 // one more, all within one 8-bit carrier
}

// index returns the number of bounds below x.
func (s *Steps) index(x int32) int {
	return sort.Search(len(s.Bounds), func(i int) bool { return s.Bounds[i] >= x })
}

// zero returns the zero point of the values of an input with that zero point. Signs have none among their values; theirs is 0.
func (s *Steps) zero(in int32) int32 {
	if len(s.Values) == 2 && s.Values[0] == -s.Values[1] {
		return 0
	}
	return s.at(in)
}

// at returns the value of x.
func (s *Steps) at(x int32) int32 { return int32(s.Values[s.index(x)]) }

// Tensor is a value of a run: what Trace returns.
type Tensor struct {
	Name   string // of the node, or "input"
	Shape  Shape
	Zero   int32   // code of the real number 0; 0 for wide values
	Values []int32 // order c, h, w
}

// Cost is what running one image takes.
type Cost struct {
	Operations int64 // multiply-accumulates of convolutions and matrix products, and elements that pooling reads
	Elements   int64 // at most so many int32s of working memory per worker
	Weights    int64 // at most so many bytes that weights take as the machine reads them, once for all workers
}

// Cost returns what one image takes, so that a program from outside can be judged before it is run.
func (p *Program) Cost() (Cost, error) {
	plan, err := p.plan()
	if err != nil {
		return Cost{}, err
	}
	return plan.cost, nil
}

// Validate proves that Run can neither panic nor overflow: shapes, indices and geometry fit, no
// accumulator reaches 2^31, no requantization 2^62, no logit 2^24, and working memory and packed weights stay
// below 2^31 elements and bytes. It returns the first violation.
func (p *Program) Validate() error {
	_, err := p.plan()
	return err
}
