// # kmeans
//
// Scalar k-means: each weight is one of the 2^b values of its layer that are closest to all weights.
//
//	w = value[code]      codes and values of the least Σ (w - value)²
//	d(value)             the mean of dy over its weights
//
//	      ·     · ·  · ··· · ·   ·      ·
//	------|-----|-|--|-|||-|-|---|------|------      values are dense where weights are
//
// Codes are found once, by Lloyd's steps from k-means++; training moves the values, which are bytes with a scale for the
// whole layer. Layers of few weights have fewer values, less than a quarter of their weights. It is pq with vectors of
// one weight.
//
// Use it to shrink a file at bits where uniform steps lose too much, without training above all; lsq, which moves codes too,
// trains to more.
//
// Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman
// Coding", 2016.
package quantops

var kmeansSpec = Spec{
	Name:        "kmeans",
	Doc:         "values of weights from a codebook, trained while their codes stay",
	Paper:       "Han, Mao, Dally, Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding, 2016",
	Weights:     Bits{1, 8},
	NewCodebook: newKMeans,
}

func init() { Register(&kmeansSpec) }

func newKMeans(bits int, _ Options, shape []int) (*Codebook, error) {
	return newCodebook(shape, 1, 1<<bits)
}
