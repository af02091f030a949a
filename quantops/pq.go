// # pq
//
// Product quantization: the weights of an output channel are cut into vectors of d weights, 9 for the kernels of a 3x3
// convolution, and every vector is one of the layer's k centroids.
//
//	w[o][j·d + i] = centroid[code[o][j]][i]      log2(k)/d bits a weight, and k·d bytes of centroids
//	plain         codes and centroids of the least Σ ‖v - centroid‖²
//	weighted      of the least Σ (v - centroid)ᵀ·G·(v - centroid), G the Gram matrix of the layer's inputs
//	d(centroid)   the mean of dy over its vectors
//
//	      · c0   v               each v goes to the closest centroid,
//	   v     v        c1 ·       each centroid to the mean of its v
//	       v        v    v
//
// A vector is d weights of neighbouring taps: 9 is the 3x3 kernel of one input channel, 18 those of two. Kernels of one tap and
// linear layers have vectors of their own length, pointwise. Both must divide the weights of an output channel. Where
// k is not below a quarter of the number of vectors, the largest power of two that is takes its place: centroids
// would take more room than they save. Codes are found once, by an expectation-maximization that starts from k-means++; training
// moves the centroids. A centroid is a row of bytes with a scale for the whole layer, in training too.
//
// Weighted assignment looks at the layer's inputs, those of calibration, that come through the layers before it as they are
// quantized already. It minimizes the error of the layer's outputs instead of that of its weights, as the paper does; with
// batch normalization behind it and training after it that is not always better.
//
// Use it where the size of the file counts most: it reaches half a bit to one bit a weight. Without training most
// of the accuracy is lost: `goqat quantize` trains the centroids of each layer, and `goqat train --init` all of them.
//
// Stock et al., "And the Bit Goes Down: Revisiting the Quantization of Neural Networks", 2020;
// Jégou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", 2011.
package quantops

import (
	"fmt"
	"strconv"
)

var pqSpec = Spec{
	Name:  "pq",
	Doc:   "vectors of weights from a codebook, 9 at a time: less than a bit a weight",
	Paper: "Stock et al., And the Bit Goes Down: Revisiting the Quantization of Neural Networks, 2020",
	Options: []Option{
		{Name: "d", Doc: "weights of a vector in kernels of several taps", Default: "9", Check: checkLength},
		{Name: "pointwise", Doc: "weights of a vector in kernels of one tap and linear layers", Default: "4", Check: checkLength},
		centroidsOption,
		assignOption,
	},
}

// Options of codebooks.
var (
	centroidsOption = Option{Name: "k", Doc: "centroids of a layer, a power of two; fewer where that would be a quarter of its vectors", Default: "256", Check: checkCentroids}
	assignOption    = Option{Name: "assign", Doc: "plain: by the squared error of weights; weighted: by that of the layer's outputs on calibration images", Default: "plain", Values: []string{"plain", "weighted"}}
)

func init() {
	pqSpec.NewCodebook = newPQ
	Register(&pqSpec)
}

func newPQ(_ int, options Options, shape []int) (*Codebook, error) {
	name := "d"
	if len(shape) == 2 || shape[2]*shape[3] == 1 {
		name = "pointwise"
	}
	length, _ := strconv.Atoi(pqSpec.option(options, name)) // checked by Parse
	return pqSpec.newCodebook(options, shape, length)
}

// newCodebook describes the codebook of options k and assign.
func (s *Spec) newCodebook(options Options, shape []int, length int) (*Codebook, error) {
	centroids, _ := strconv.Atoi(s.option(options, "k")) // checked by Parse
	c, err := newCodebook(shape, length, centroids)
	if err != nil {
		return nil, err
	}
	c.Weighted = s.option(options, "assign") == "weighted"
	return c, nil
}

// maxLength bounds the length of vectors, so that sizes do not overflow.
const maxLength = 1 << 20

func checkLength(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 1 || n > maxLength || strconv.Itoa(n) != value {
		return fmt.Errorf("is a whole number from 1 to %d", maxLength)
	}
	return nil
}

func checkCentroids(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 2 || n > maxCentroids || n&(n-1) != 0 || strconv.Itoa(n) != value {
		return fmt.Errorf("is a power of two from 2 to %d", maxCentroids)
	}
	return nil
}
