// # pot
//
// Powers of two: levels halve from α towards zero, so that a product with one is a shift. With B bits of magnitude (b for
// unsigned activations, b-1 for weights and signed activations, whose levels stand on both sides)
//
//	levels = {0} ∪ {±α·2^-i, i = 0 … 2^B-2}
//
// Three bits of activations, α = 1:
//
//	0       1/8     1/4             1/2                             1
//	├┼┼─┼───┼───────┼───────────────┼───────────────────────────────┤
//
// That is the method's weakness: another bit makes the smallest step finer still and leaves the gap below α as it was. Levels
// are integers over 2^(2^B-2), in one plane of weights to 4 bits and in two at 5 bits; 2 bits of weights are ternary.
//
// Weights are normalized first (less their mean, over their standard deviation), which keeps the gradient of α from
// exploding, and multiplied by the deviation again. α is learned:
//
//	y  = α·Π(clip(x/α, ±1))            Π: to the nearest level, a middle towards zero
//	dα = Σ dy·(sign(x) beyond α, else Π(x/α) - x/α)
//	dx = dy, for activations 0 beyond α; weights have x = (w - mean)/std
//
// Use it where the target has no multiplier; elsewhere apot has the better levels at the same bits.
//
// Miyashita, Lee, Murmann, "Convolutional Neural Networks using Logarithmic Data Representation", 2016; α and normalization
// as in Li, Dong, Wang, "Additive Powers-of-Two Quantization", 2020.
package quantops

var potSpec = Spec{
	Name:        "pot",
	Doc:         "powers of two below a learned clipping threshold",
	Paper:       "Miyashita, Lee, Murmann, Convolutional Neural Networks using Logarithmic Data Representation, 2016",
	Weights:     Bits{2, 5},
	Activations: Bits{2, 4},
	Options:     powerOptions,
}

func init() {
	potSpec.New = newPoT
	Register(&potSpec)
}

// newPoT makes levels of a single term, of all bits.
func newPoT(bits int, options Options, t Target) (Quantizer, error) {
	return newPowers(&potSpec, bits, bits, options, t)
}
