package quantops

import (
	"math"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

// Relaxation is a method that searches for weights among discrete levels instead of rounding real ones. It owns no real
// tensor but logits, [levels][channels][n], one for each level and weight. Training sees soft levels, a choice that gets
// sharper as the temperature falls, with an exact gradient; what is deployed are hard levels, those of the largest logits.
// As for a [Quantizer], a level is worth level · unit.
type Relaxation interface {
	// Search describes the search.
	Search() Search
	// Start sets logits, and what a channel's weights have to be multiplied with, from real weights x, [channels][n].
	Start(logits, scales, x []float32)
	// Soft computes the soft level of every weight at a temperature above 0.
	Soft(levels, logits []float32, temperature float32)
	// Hard computes the hard level of every weight.
	Hard(levels, logits []float32)
	// Backward computes the gradient of logits from that of soft levels. It overwrites dlogits.
	Backward(dlogits, dlevels, logits []float32, temperature float32)
	// Encode returns the integers of the hard levels for weights of the given shape [outputs][…], of which channel o is
	// multiplied with scales[o].
	Encode(logits, scales []float32, shape []int) (*integer.Weights, error)
}

// Search describes a [Relaxation].
type Search struct {
	Levels      []float32 // ascending, integers
	Unit        float32   // what level 1 is worth, before a channel's scale
	Scale       Scaling
	FromWeights bool    // logits start from real weights where there are any, else at random
	Rate, Decay float64 // of logits: multiply the learning rate and the weight decay
}

// Scaling says whether weights that are searched for have a learned scale for each output channel.
type Scaling uint8

// The kinds of scaling.
const (
	ScaledWithoutNorm Scaling = iota // where no batch normalization follows, which would take the scale away
	Scaled
	NotScaled
)

// Searches says whether the method searches for weights, by a [Relaxation].
func (m Method) Searches() bool { return !m.None() && m.spec.Relax != nil }

// Relaxation makes the method's relaxation for one tensor of weights; nil where the method is none.
func (m Method) Relaxation(t Target) (Relaxation, error) {
	if !m.Searches() {
		return nil, nil
	}
	if err := m.check(t.Role); err != nil {
		return nil, err
	}
	r, err := m.spec.Relax(m.bits, m.options, t)
	if err != nil {
		return nil, &MethodError{m.String(), err.Error()}
	}
	return r, nil
}

// Entropy returns the mean over weights of the entropy of their choice among levels at a temperature, in bits: log2 of the
// number of levels where all are as likely, 0 where the choice is one-hot or the temperature 0. Weights go in chunks, which
// add up in order.
func Entropy(logits []float32, levels int, temperature float32) float64 {
	if temperature == 0 {
		return 0
	}
	n := len(logits) / levels
	sums := make([]float64, (n+kernel.Chunk-1)/kernel.Chunk)
	kernel.Parallel(len(sums), func(chunk int) {
		for i := chunk * kernel.Chunk; i < min(n, (chunk+1)*kernel.Chunk); i++ {
			sums[chunk] += entropy(logits[i:], levels, n, float64(temperature))
		}
	})
	sum := 0.0
	for _, s := range sums {
		sum += s
	}
	return sum / float64(n) / math.Ln2
}

// entropy is that of a weight, in nats: log Σ e^x - Σ P·x, with x the logits over the temperature less the largest. The
// logits stand apart by stride.
func entropy(logits []float32, levels, stride int, temperature float64) float64 {
	top := float64(logits[0])
	for k := range levels {
		top = max(top, float64(logits[k*stride]))
	}
	sum, mean := 0.0, 0.0
	for k := range levels {
		x := (float64(logits[k*stride]) - top) / temperature
		if e := kernel.Exp(x); e > 0 {
			sum += e
			mean += float64(e * x)
		}
	}
	return kernel.Log(sum) - mean/sum
}
