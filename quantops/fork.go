package quantops

import (
	"fmt"

	"github.com/goqat/goqat/internal/kernel"
	"gorgonia.org/gorgonia"
)

// Fork makes two values of one, for a residual block's body and its shortcut. The gradients of both add up in one
// operation with a buffer of its own; where a value is simply used twice, Gorgonia inserts additions that allocate in
// every step and run on one thread.
//
// Both results are x; main must have a gradient path to the cost for side's to count.
func Fork(x Input) (main, side *gorgonia.Node, err error) {
	f := &fork{}
	if main, err = Apply(f, x.Node.Shape(), x); err != nil {
		return nil, nil, err
	}
	side, err = Apply(&sideways{f}, x.Node.Shape(), Input{Node: main, Constant: true})
	return main, side, err
}

// fork is the identity that collects gradients: Gorgonia brings that of main, and operations that take side in leave
// theirs here. Gorgonia differentiates them first, since main is among what they depend on.
type fork struct{ gradients gorgonia.Nodes }

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
