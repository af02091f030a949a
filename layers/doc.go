// Package layers holds the layers of quantized networks. A layer is its fields; Build gives it its parameters,
// Forward builds the nodes of a Gorgonia graph, Lower hands its integers to the integer model's builder.
//
// There is one layer type for float and quantized networks: Conv2D and Linear take a method for their weights and
// one for their input activations, and both may be none.
//
// # Passes
//
// A [Network] outlives its graphs. Each [Pass] turns its parameters into the nodes of one graph: training with
// surrogate gradients, calibration, which runs in floating point and lets the quantizers see their inputs, and evaluation.
//
// Weights that are searched for have two states, soft in training and hard where they are deployed; a pass sees one
// ([Branch]), and [StateBatchNorm] keeps statistics of both.
//
// # Steps wait
//
// Memory is slower than arithmetic. Normalization, residual sums, rectifiers and quantizers of real numbers therefore wait
// ([Value]) for the convolution or linear layer that takes them in, which does them block by block, in the cache, on the
// way in, and once more on the way back; only its sums and the residual stream are kept. A layer that needs its input as
// it is settles it first.
//
// # Evaluation is exact
//
// Between two quantizers an evaluation pass computes what the integer engine computes: convolutions run on
// integer-valued floats that stay below 2^24 and are exact, and their sums go through the engine's own requantization.
// Codes and classes of an all-integer network are therefore equal in graph and engine, every one of them.
package layers
