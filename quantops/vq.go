// # vq
//
// Vector quantization: all weights of an output channel together are one of the layer's k centroids.
//
//	w[o] = centroid[code[o]]      codes and centroids of the least Σ ‖w[o] - centroid‖²
//
//	   w0   w3 ·c0       w1         output channels that are alike
//	                 c1·   w2       become one
//
// It is pq with vectors as long as they can be; all else that is said of pq holds. Output channels with one code compute the
// same but for what bias and batch normalization make of it, so that little is left of a small network: k is below
// a quarter of the channels. Use pq.
//
// Gong et al., "Compressing Deep Convolutional Networks using Vector Quantization", 2014.
package quantops

var vqSpec = Spec{
	Name:    "vq",
	Doc:     "all weights of an output channel from a codebook",
	Paper:   "Gong et al., Compressing Deep Convolutional Networks using Vector Quantization, 2014",
	Options: []Option{centroidsOption, assignOption},
}

func init() {
	vqSpec.NewCodebook = newVQ
	Register(&vqSpec)
}

func newVQ(_ int, options Options, shape []int) (*Codebook, error) {
	length := 1
	for _, n := range shape[1:] {
		length *= n
	}
	return vqSpec.newCodebook(options, shape, length)
}
