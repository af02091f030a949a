package datasets

import (
	"fmt"
	"iter"

	"github.com/goqat/goqat/internal/random"
)

// Sampler deals out the training images: an endless sequence of epochs, each a permutation of all images drawn from
// the random stream "shuffle/<epoch>" of the seed, cut into full batches. What one epoch leaves over opens the next
// epoch's first batch. The step number is all there is to remember. A Sampler is not safe for concurrent use.
type Sampler struct {
	length, batch int
	seed          uint64
	indices       []int
	cache         [2]struct { // by epoch modulo 2
		epoch int64
		order []int
	}
}

// NewSampler returns the sampler of length images in batches of batch, which may exceed length.
func NewSampler(length, batch int, seed uint64) (*Sampler, error) {
	if length < 1 || length > maxElements {
		return nil, fmt.Errorf("datasets: sampling from %d images; 1 to %d are possible", length, maxElements)
	}
	if batch < 1 || batch > maxElements {
		return nil, fmt.Errorf("datasets: batch of %d images; 1 to %d are possible", batch, maxElements)
	}
	return &Sampler{length: length, batch: batch, seed: seed, indices: make([]int, batch)}, nil
}

// Batch returns the indices of the images of a step, counted from 0. The result depends on step alone and is valid
// until the next call. It panics if step is negative.
func (s *Sampler) Batch(step int) []int {
	if step < 0 {
		panic("datasets: Batch of a negative step")
	}
	position := int64(step) * int64(s.batch)
	for i := range s.indices {
		epoch, offset := position/int64(s.length), position%int64(s.length)
		s.indices[i] = s.order(epoch)[offset]
		position++
	}
	return s.indices
}

// StepsUntil returns floor(epoch·length/batch): the number of steps that lie wholly in the first so many epochs, which
// is also the first step that holds an image of a later one.
func (s *Sampler) StepsUntil(epoch int) int {
	return int(int64(epoch) * int64(s.length) / int64(s.batch))
}

func (s *Sampler) order(epoch int64) []int {
	c := &s.cache[epoch%2]
	if c.order == nil || c.epoch != epoch {
		c.epoch = epoch
		c.order = random.New(s.seed, fmt.Sprintf("shuffle/%d", epoch)).Permutation(s.length)
	}
	return c.order
}

// Batches yields the indices [0, length) once and in order, batch at a time; the last slice may be shorter. A slice is
// valid until the next one. It panics if batch is below 1.
func Batches(length, batch int) iter.Seq[[]int] {
	if batch < 1 {
		panic("datasets: Batches of less than one image")
	}
	return func(yield func([]int) bool) {
		indices := make([]int, 0, min(length, batch))
		for from := 0; from < length; from += batch {
			indices = indices[:0]
			for i := from; i < min(from+batch, length); i++ {
				indices = append(indices, i)
			}
			if !yield(indices) {
				return
			}
		}
	}
}
