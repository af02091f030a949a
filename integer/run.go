package integer

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// errNoProgram is what running a model with float activations gives.
var errNoProgram = errors.New("integer: the model has no program: its activations stay real, it holds codes and tables alone")

// Run computes the logits, [n][Classes], of n images of raw pixels, [n][C][H][W], on all cores. The
// result depends neither on how many there are nor on their instructions: it is that of Trace.
func (p *Program) Run(images []uint8) ([]int32, error) {
	if p == nil {
		return nil, errNoProgram
	}
	pl, err := p.plan()
	if err != nil {
		return nil, err
	}
	size := p.Input.Len()
	if len(images)%size != 0 {
		return nil, fmt.Errorf("integer: %d pixels: want a multiple of %d, for images of %v", len(images), size, p.Input)
	}
	logits := make([]int32, len(images)/size*p.Classes)
	e := p.ready(pl)
	if len(logits) == p.Classes {
		e.run(logits, images)
		return logits, nil
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(len(images)/size, runtime.GOMAXPROCS(0)) {
		workers.Go(func() { e.runShare(logits, images, &next) })
	}
	workers.Wait()
	return logits, nil
}

// Trace runs one image, [C][H][W], and returns every value: the coded image, then the output of each node. It is
// the plain reading of the formulas in the package comment, and slow.
func (p *Program) Trace(image []uint8) ([]Tensor, error) {
	pl, err := p.plan()
	if err != nil {
		return nil, err
	}
	if len(image) != p.Input.Len() {
		return nil, fmt.Errorf("integer: %d pixels: want %d, for an image of %v", len(image), p.Input.Len(), p.Input)
	}
	r := newRunner(p, pl)
	r.run(image)
	trace := make([]Tensor, len(pl.values))
	for i, v := range pl.values {
		name := "input"
		if i > 0 {
			name = p.Nodes[i-1].Name
		}
		trace[i] = Tensor{Name: name, Shape: v.shape, Zero: v.zero, Values: slices.Clone(r.values[i])}
	}
	return trace, nil
}
