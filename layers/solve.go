package layers

import (
	"fmt"

	"github.com/goqat/goqat/quantops"
)

// Solvable returns the names of the layers whose weights can be searched for, in the order of the layers: their
// quantizer is a [quantops.Solver].
func (n *Network) Solvable() (names []string) {
	walk(n.Root, func(l Layer) {
		if w, ok := l.(interface{ core() *weighted }); ok && w.core().solver() != nil {
			names = append(names, w.core().name)
		}
	})
	return names
}

// solver returns the quantizer of the weights if it is one; nil otherwise.
func (w *weighted) solver() quantops.Solver {
	p, ok := w.weight.(*projected)
	if !ok {
		return nil
	}
	s, _ := p.quantizer.(quantops.Solver)
	return s
}

// Solve replaces the weights of a layer by those that its quantizer finds for the moments of its groups of channels, see
// [quantops.Solver].
func (n *Network) Solve(layer string, groups []quantops.Moments) (solution quantops.Solution, err error) {
	err = fmt.Errorf("layers: %s has no weights that could be searched for", layer)
	walk(n.Root, func(l Layer) {
		w, ok := l.(interface{ core() *weighted })
		if !ok || w.core().name != layer || w.core().solver() == nil {
			return
		}
		p := w.core().weight.(*projected)
		if solution, err = w.core().solver().Solve(p.value.Data(), p.theta.Data(), groups); err != nil {
			err = fmt.Errorf("layers: %s: %w", layer, err)
		}
	})
	return solution, err
}
