package quantops

import (
	"fmt"

	"github.com/goqat/goqat/internal/kernel"
	"gorgonia.org/gorgonia"
)

// Fork makes two values of one, for a residual block's shortcut and its body. The gradients of both add up in one
// operation with a buffer of its own; where a value is simply used twice, Gorgonia inserts additions that allocate in
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

func (sideways) String() string { return "side" }
func (sideways) passing()       {}

// Forward is not called, since the result is the input.
func (sideways) Forward([]float32, [][]float32) error { return nil }
