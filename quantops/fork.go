package quantops

import (
	"fmt"

	"github.com/goqat/goqat/internal/kernel"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Fork makes two values of one, for a residual block's shortcut and its body. The gradients of both add up in one
// operation of its own; where a value is simply used twice, Gorgonia inserts additions that allocate in
// every step and run on one thread.
//
// Both results are x, and its memory. Gorgonia follows gradients to main; side is for a path that has learned parameters
// of its own, see [Side].
func Fork(x Input) (main, side *gorgonia.Node, err error) {
	if main, err = Apply(fork{}, x.Node.Shape(), x); err != nil {
		return nil, nil, err
	}
	side, err = Side(main)
	return main, side, err
}

// Side returns a second node of the result of a [Summing] function, whose users leave their gradients to it. A path from
// the side needs learned parameters of its own: differentiating fails where it has none.
func Side(n *gorgonia.Node) (*gorgonia.Node, error) {
	o, ok := n.Op().(*operation)
	if ok {
		_, ok = o.function.(Summing)
	}
	if !ok {
		return nil, fmt.Errorf("quantops: node %v can't have a side: its function does not add up gradients", n)
	}
	side, err := Apply(sideways{o}, n.Shape(), Input{Node: n, Constant: true})
	o.sides = append(o.sides, side)
	return side, err
}

// Keeping is a Differentiable that computes something on the way to its result that others take in as well, see [Kept].
type Keeping interface {
	Differentiable
	// Keep hands over the memory for it, which Forward fills.
	Keep(memory []float32)
	// BackwardKept is Backward, for a result with gradient dy and what has been kept with gradient dkept.
	BackwardKept(dx [][]float32, dy, dkept, y []float32, x [][]float32) error
}

// Kept returns a node of the given shape for what the node's [Keeping] function keeps. Like a side's users, its one user
// leaves the gradient to the function and needs learned parameters of its own.
func Kept(n *gorgonia.Node, shape tensor.Shape) (*gorgonia.Node, error) {
	o, ok := n.Op().(*operation)
	if ok {
		_, ok = o.function.(Keeping)
	}
	if !ok || len(o.sides) > 0 {
		return nil, fmt.Errorf("quantops: node %v keeps nothing, or has been asked before", n)
	}
	kept, err := Apply(keeper{o}, shape, Input{Node: n, Constant: true})
	if err != nil {
		return nil, err
	}
	o.sides = append(o.sides, kept)
	memory, err := Result(kept)
	if err != nil {
		return nil, err
	}
	o.function.(Keeping).Keep(memory)
	return kept, nil
}

// sideUsers is how many nodes take in the operation's sides. Gorgonia differentiates them first, since the operation is
// among what they depend on.
func (o *operation) sideUsers() int {
	users := 0
	for _, side := range o.sides {
		users += side.Graph().To(side.ID()).Len()
	}
	return users
}

// passing is a Function whose result is its first input, in the same memory.
type passing interface{ passing() }

// fork is the identity that adds up gradients.
type fork struct{}

var _ Summing = fork{}

func (fork) String() string { return "fork" }
func (fork) passing()       {}

// Forward is not called, since the result is the input.
func (fork) Forward([]float32, [][]float32) error { return nil }

// Replaces allows the sum to stand where the first gradient was.
func (fork) Replaces() int { return 0 }

func (fork) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	copy(dx[0], dy)
	return nil
}

func (fork) BackwardSum(dx, dy [][]float32, _ []float32, _ [][]float32) error {
	kernel.Add(dx[0], dy...)
	return nil
}

// sideways is the identity whose gradient goes to the operation it is a side of.
type sideways struct{ of *operation }

func (sideways) String() string      { return "side" }
func (sideways) passing()            {}
func (s sideways) owner() *operation { return s.of }

// Forward is not called, since the result is the input.
func (sideways) Forward([]float32, [][]float32) error { return nil }

// keeper is what an operation keeps, whose gradient goes to the operation.
type keeper struct{ of *operation }

func (keeper) String() string      { return "kept" }
func (k keeper) owner() *operation { return k.of }

// Forward has nothing to do: the operation has filled the memory.
func (keeper) Forward([]float32, [][]float32) error { return nil }
