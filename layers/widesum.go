package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

// wideSum is the engine's sum of two wide values as a Function.
type wideSum struct {
	x, y        func() (accumulators, error)
	result      accumulators
	requantizer *kernel.BlockRequantizer
}

func (f *wideSum) String() string { return "add integers" }

func (f *wideSum) prepare() error {
	x, err := f.x()
	if err != nil {
		return err
	}
	y, err := f.y()
	if err != nil {
		return err
	}
	a := integer.Affine{Scale: [][]float64{x.affine.Scale[0], y.affine.Scale[0]}, Bias: []float64{0}}
	bound := [][]int64{x.bound[0], y.bound[0]}
	scale := integer.WideScale(a, bound, integer.WideBits)
	r, err := integer.NewWideRequantizer(a, bound, scale)
	if err != nil {
		return fmt.Errorf("layers: residual sum: %w", err)
	}
	f.requantizer = blockRequantizer(r, [][]part{{{factor: 1}}, {{factor: 1}}})
	f.result = single(scale, r.Bound(bound))
	return nil
}

// Forward requantizes the sums, for which one multiplier each serves all channels.
func (f *wideSum) Forward(y []float32, x [][]float32) error {
	kernel.Parallel((len(y)+kernel.Chunk-1)/kernel.Chunk, func(i int) {
		f.requantizer.Span(0, y, x, i*kernel.Chunk, min(len(y), (i+1)*kernel.Chunk))
	})
	return nil
}
