package quantops

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"

	"github.com/goqat/goqat/integer"
)

// Codebook describes how the weights of one tensor, [outputs][…], become codes: the weights of every output channel, in
// their order, are cut into vectors of Length weights, each of which is replaced by one of the tensor's Centroids:
//
//	w[o][j·Length + i] = centroid[code[o][j]][i]
//
// In 3x3 kernels a vector of 9 weights is the kernel of one input channel.
type Codebook struct {
	Length    int  // of a vector; divides the weights of an output channel
	Centroids int  // how many there are, a power of two
	Weighted  bool // Fit needs the Gram matrix of the layer's inputs
}

// maxCentroids is what codes of 16 bits tell apart.
const maxCentroids = 1 << 16

// newCodebook describes a codebook of up to so many centroids: the largest power of two that is strictly below a quarter of
// the number of vectors, where that is less; but not fewer than two.
func newCodebook(shape []int, length, centroids int) (*Codebook, error) {
	weights, each := 1, 1
	for i, n := range shape {
		weights *= n
		if i > 0 {
			each *= n
		}
	}
	if length > each || each%length != 0 {
		return nil, fmt.Errorf("vectors of %d weights do not divide the %d weights of an output channel; those of %s would", length, each, divisors(each, length))
	}
	vectors := weights / length
	limit := 1 << bits.Len(uint((vectors-1)/4)) >> 1 // largest power of two p with 4·p < vectors
	return &Codebook{Length: length, Centroids: min(centroids, max(2, limit))}, nil
}

// divisors names the divisors of n that are closest to a number.
func divisors(n, number int) string {
	below, above := 1, n
	for d := 1; d <= n; d++ {
		switch {
		case n%d != 0:
		case d <= number:
			below = d
		default:
			above = min(above, d)
		}
	}
	if below == above || n < number {
		return strconv.Itoa(below)
	}
	return fmt.Sprintf("%d or %d", below, above)
}

// Bits returns the bits of a code.
func (c *Codebook) Bits() uint8 { return uint8(bits.Len(uint(c.Centroids)) - 1) }

// Quantizer returns the quantizer of the centroids, one channel of [Centroids·Length] numbers: 8 bits of one scale, so that a
// centroid is a row of bytes. It is linear's, its gradient that of the centroids as they are.
func (c *Codebook) Quantizer() (Quantizer, error) {
	m := Method{spec: &linearSpec, bits: 8, options: Options{"per": "tensor"}}
	return m.Quantizer(Target{Role: Weights, Channels: 1, Size: c.Centroids * c.Length, Signed: true})
}

// Expand puts the centroids, or their levels, in the place of their codes: whole numbers below Centroids.
func (c *Codebook) Expand(w, codes, centroids []float32) {
	for j, code := range codes {
		copy(w[j*c.Length:][:c.Length], centroids[int(code)*c.Length:])
	}
}

// Gradient overwrites the gradients of the centroids with the mean of the gradients of their vectors, dw, summed in float64 in the
// order of vectors: steps are then of the size that weights of their own would make. Those without vectors have 0.
// Scratch has room for Centroids·(Length + 1) numbers.
func (c *Codebook) Gradient(dcentroids []float32, scratch []float64, dw, codes []float32) {
	clear(scratch)
	sums, counts := scratch[:len(dcentroids)], scratch[len(dcentroids):]
	for j, code := range codes {
		counts[int(code)]++
		sum := sums[int(code)*c.Length:][:c.Length]
		for i, d := range dw[j*c.Length:][:c.Length] {
			sum[i] += float64(d)
		}
	}
	for i, sum := range sums {
		dcentroids[i] = float32(sum / max(1, counts[i/c.Length]))
	}
}

// Check refuses codes that are not of the codebook.
func (c *Codebook) Check(codes []float32) error {
	for j, code := range codes {
		if !(code >= 0 && int(code) < c.Centroids) || float32(int(code)) != code {
			return fmt.Errorf("quantops: code %v of vector %d: want a whole number below %d", code, j, c.Centroids)
		}
	}
	return nil
}

// Encode returns the integers of weights of a shape that have these codes and levels of centroids, of a unit.
func (c *Codebook) Encode(codes, levels []float32, unit float32, shape []int) (*integer.Weights, error) {
	w := &integer.Weights{
		Shape: slices.Clone(shape), Bits: c.Bits(), Vector: c.Length, Codes: make([]uint16, len(codes)),
		Planes: []integer.Plane{{Table: make([]int8, len(levels)), Scale: slices.Repeat([]float64{float64(unit)}, shape[0])}},
	}
	for j, code := range codes {
		w.Codes[j] = uint16(code)
	}
	for i, level := range levels {
		w.Planes[0].Table[i] = int8(level)
	}
	return w, w.Validate()
}
