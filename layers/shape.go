package layers

import (
	"fmt"

	"github.com/goqat/goqat/internal/kernel"
	"gorgonia.org/tensor"
)

// Shape is the size of one image's activations, and whether they can be negative.
type Shape struct {
	Channels, Height, Width int
	Signed                  bool
}

// Len returns the number of elements.
func (s Shape) Len() int { return s.Channels * s.Height * s.Width }

// String returns for example "16x5x5".
func (s Shape) String() string { return fmt.Sprintf("%dx%dx%d", s.Channels, s.Height, s.Width) }

// tensor is the shape of the graph's tensor of that many blocks.
func (s Shape) tensor(blocks int) tensor.Shape {
	return tensor.Shape{blocks, s.Channels, s.Height, s.Width, kernel.Lanes}
}

// maxElements bounds every tensor, so that its size fits an int32.
const maxElements = 1<<31 - 1

// fits says whether a tensor of that shape, of positive sizes, keeps the bound.
func fits(shape []int) bool {
	rest := maxElements
	for _, n := range shape {
		rest /= n
	}
	return rest > 0
}

func (s Shape) validate() error {
	if s.Channels < 1 || s.Height < 1 || s.Width < 1 {
		return fmt.Errorf("shape %v: want positive sizes", s)
	}
	if s.Channels > maxElements/s.Height/s.Width {
		return fmt.Errorf("shape %v has more than 2^31 elements", s)
	}
	return nil
}
