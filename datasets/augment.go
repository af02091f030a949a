package datasets

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/goqat/goqat/internal/random"
)

// Augmentation changes training images at random. The zero value changes nothing.
//
// An image is first surrounded by Pad rows and columns of raw zero bytes, which are normalized like every other byte, and
// cut to its own size again at one of (2·Pad+1)² equally likely places; then it is mirrored left to right with
// probability ½ if Flip is set. Pad 4 and Flip are the usual choice for CIFAR (He et al., "Deep Residual Learning for
// Image Recognition", 2016, section 4.2).
type Augmentation struct {
	Pad  int  // below the images' height and width
	Flip bool // mirror half of the images
}

// Validate reports a Pad that is negative or as large as an image of d.
func (a Augmentation) Validate(d *Dataset) error {
	if limit := min(d.Height, d.Width) - 1; a.Pad < 0 || a.Pad > limit {
		return fmt.Errorf("datasets: %s: augmentation pads by %d; 0 to %d are possible for images of %d×%d", d.Name, a.Pad, limit, d.Height, d.Width)
	}
	return nil
}

// FillAugmented is Fill with every image changed by a. position is the place of indices[0] in the run's sequence of
// samples, step·batch for a Sampler's step. What happens to a sample depends on seed and its place in that sequence
// alone: not on the batch size, the number of threads or what was drawn before.
//
// The draws of the sample at place p are the first words of SHA-256(key, p as 8 little-endian bytes), where key is the
// first four words of the random stream "augment" of the seed.
//
// It panics if Fill would, if position is negative or a.Validate fails.
func (d *Dataset) FillAugmented(dst []float32, labels []int32, indices []int, a Augmentation, seed uint64, position int) {
	newFiller(d, a, seed).fill(dst, labels, indices, position)
}

// plan is what happens to one image: the padded image's row and column that become the first ones, and mirroring.
type plan struct {
	top, left int
	mirror    bool
}

// planner draws plans.
type planner struct {
	Augmentation
	message [40]byte // the key, and room for a position
}

func newPlanner(a Augmentation, seed uint64) planner {
	p := planner{Augmentation: a}
	stream := random.New(seed, "augment")
	for i := range 4 {
		binary.LittleEndian.PutUint64(p.message[8*i:], stream.Uint64())
	}
	return p
}

// plan returns what happens to the sample at a position. The high word of a random word times n is uniform in [0, n) up
// to n/2^64, which nobody can notice.
func (p *planner) plan(position int) plan {
	binary.LittleEndian.PutUint64(p.message[32:], uint64(position))
	sum := sha256.Sum256(p.message[:])
	places := uint64(2*p.Pad + 1)
	top, _ := bits.Mul64(binary.LittleEndian.Uint64(sum[0:]), places)
	left, _ := bits.Mul64(binary.LittleEndian.Uint64(sum[8:]), places)
	return plan{int(top), int(left), p.Flip && sum[16]&1 == 1}
}

// apply writes planes of height × width, padded by pad, cut and mirrored, to dst.
func (p plan) apply(dst, src []uint8, height, width, pad int) {
	clear(dst)
	// Output row y is source row y+down; output column x, before mirroring, is source column x+right.
	down, right := p.top-pad, p.left-pad
	from, to := max(0, -right), min(width, width-right)
	for plane := 0; plane < len(dst); plane += height * width {
		for y := max(0, -down); y < min(height, height-down); y++ {
			out := dst[plane+y*width:][:width]
			in := src[plane+(y+down)*width:][:width]
			if !p.mirror {
				copy(out[from:to], in[from+right:to+right])
				continue
			}
			for x := from; x < to; x++ {
				out[width-1-x] = in[x+right]
			}
		}
	}
}
