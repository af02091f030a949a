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
// Both results are x. Gorgonia follows gradients to main; side is for a path that has learned parameters of its own, and
// differentiating fails where a path from side has none.
func Fork(x Input) (main, side *gorgonia.Node, err error) {
	f := &fork{}
	if main, err = Apply(f, x.Node.Shape(), x); err != nil {
		return nil, nil, err
	}
	f.side, err = Apply(&sideways{f}, x.Node.Shape(), Input{Node: main, Constant: true})
	return main, f.side, err
}

// fork is the identity that collects gradients: Gorgonia brings that of main, and operations that take side in leave
// theirs here. Gorgonia differentiates them first, since main is among what they depend on.
type fork struct {
	side      *gorgonia.Node
	gradients gorgonia.Nodes
}

var _ Differentiable = (*fork)(nil)

func (f *fork) String() string { return "fork" }

func (f *fork) Forward(y []float32, x [][]float32) error {
	copy(y, x[0])
	return nil
}

// Backward is not called: symDiff puts a sum in its place.
func (f *fork) Backward([][]float32, []float32, []float32, [][]float32) error {
	return fmt.Errorf("quantops: fork has no backward function")
}

// symDiff adds the sum of all gradients to the graph.
func (f *fork) symDiff(o *operation, input, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	if o.constant[0] {
		return gorgonia.Nodes{nil}, nil
	}
	if users := f.side.Graph().To(f.side.ID()).Len(); len(f.gradients) != users {
		return nil, fmt.Errorf("quantops: fork: %d of %d users of its side have a gradient; a path from the side needs learned parameters", len(f.gradients), users)
	}
	all := append(gorgonia.Nodes{grad}, f.gradients...)
	s := &gradientSum{gradient: &gradient{of: o}, terms: make([][]float32, len(all))}
	s.setOutput(input.Shape())
	for range all {
		s.types = append(s.types, typeOf(input.Shape()))
	}
	n, err := gorgonia.ApplyOp(s, all...)
	if err != nil {
		return nil, fmt.Errorf("quantops: gradient of fork: %w", err)
	}
	return gorgonia.Nodes{n}, nil
}

// sideways is the identity whose gradient goes to a fork.
type sideways struct{ of *fork }

func (s *sideways) String() string { return "side of fork" }

func (s *sideways) Forward(y []float32, x [][]float32) error {
	copy(y, x[0])
	return nil
}

// gradientSum adds gradients up, in the order of its inputs.
type gradientSum struct {
	*gradient
	terms [][]float32
}

func (s *gradientSum) Do(values ...gorgonia.Value) (gorgonia.Value, error) {
	for i, v := range values {
		term, err := floats(v)
		if err != nil {
			return nil, err
		}
		s.terms[i] = term
	}
	return s.run(s, func(y []float32) error {
		kernel.Add(y, s.terms...)
		return nil
	})
}
