// # apot
//
// Additive powers of two: a level is a sum of n numbers, each of which is zero or a power of two. Two such terms spread
// levels far better than pot's single one, and a product is still n shifts and an addition. With B bits of magnitude (b
// for unsigned activations, b-1 for weights and signed activations) there are n = B/k terms of k bits, k = 2 unless the
// option says otherwise:
//
//	level = γ·Σ p_i,  i = 0 … n-1,  γ such that the largest level is α
//	p_i ∈ {0, 2^-i, 2^-(i+n), 2^-(i+2n), …, 2^-(i+(2^k-2)·n)}
//
// Where k does not divide B, a term of the remaining r bits joins the ladder of exponents evenly: its j-th power follows the
// others' j·2^(k-r)-th powers. For odd B and k = 2 that is one bit between the second and the third rung, as in the authors'
// code, which ends at B = 5. The levels, as integers:
//
//	B = 1   0 1                                             /1
//	B = 2   0 1 2 4                                         /4
//	B = 3   0 1 2 3 4 6 8 10                                /10
//	B = 4   0 1 2 3 4 6 8 9 12 16 18 24 32 33 36 48         /48
//	B = 5   32 levels /100     B = 6   64 levels /448     B = 7   128 levels /904
//
// Three bits of activations:
//
//	0     1     2     3     4           6           8          10 · α/10
//	├─────┼─────┼─────┼─────┼───────────┼───────────┼───────────┤
//
// k = 1 is uniform, k = B is pot. Levels of weights beyond 127 (with k = 2 from 7 bits on) take two planes, and none may exceed
// 32639 times the smallest, which refuses k = 4 above B = 4.
//
// Weights are normalized first (less their mean, over their standard deviation), which keeps the gradient of α from
// exploding, and multiplied by the deviation again: batch normalization makes no difference of that, nets without it need
// it. α is learned, its gradient that of the reparameterized clipping function:
//
//	y  = α·Π(clip(x/α, ±1))            Π: to the nearest level, a middle towards zero
//	dα = Σ dy·(sign(x) beyond α, else Π(x/α) - x/α)
//	dx = dy, for activations 0 beyond α; weights have x = (w - mean)/std
//
// The learning rate of α is 2.5 times the net's for activations and half of it for weights, and weight decay acts on it, as
// in the paper's training (0.1 and 0.02 beside 0.04). Start from a float net and go down in bits (--init).
//
// Use it for 2 to 5 bits, where weights and activations crowd around zero and uniform steps waste their codes.
//
// Li, Dong, Wang, "Additive Powers-of-Two Quantization: An Efficient Non-uniform Discretization for Neural Networks", 2020.
package quantops

import "strconv"

var apotSpec = Spec{
	Name:        "apot",
	Doc:         "sums of powers of two below a learned clipping threshold",
	Paper:       "Li, Dong, Wang, Additive Powers-of-Two Quantization, 2020",
	Weights:     Bits{2, 8},
	Activations: Bits{2, 5},
	Options: append([]Option{
		{Name: "k", Doc: "bits of a term; a level of B bits has B/k terms", Default: "2", Values: []string{"2", "1", "3", "4"}},
	}, powerOptions...),
}

func init() {
	apotSpec.New = newAPoT
	Register(&apotSpec)
}

func newAPoT(bits int, options Options, t Target) (Quantizer, error) {
	k, err := strconv.Atoi(apotSpec.option(options, "k"))
	if err != nil {
		return nil, err
	}
	return newPowers(&apotSpec, bits, k, options, t)
}
