// Package kernel holds the arithmetic of training on plain float32 slices: convolution, pooling, activations,
// losses and the loops of the quantizers, portable and in SIMD assembly behind one dispatch boundary.
//
// # Layout
//
// Activations lie batch-innermost, as [blocks][channels][height][width][16]: sixteen images stand side by side
// in one vector of [Lanes] floats, a block. The lane order does not depend on the vector width of the machine, a
// last partial block is padded, and a convolution of any size, stride and padding is a loop of vector
// multiply-adds with one broadcast weight. Weights are [outputs][inputs/groups][height][width], row-major.
//
// # Order of arithmetic
//
// Every path gives the same bits for any number of threads, because each sum has one order:
//
//   - multiply-accumulate is fused (one rounding), on the portable path by exact emulation ([fma]);
//   - an output of a convolution starts at +0 and takes its taps in the order input channel, kernel row, kernel
//     column; taps outside the image are skipped; then come the multiplication by the channel's scale and the
//     addition of its bias, each rounded;
//   - an input gradient starts at +0 and takes its taps in the order output channel, kernel row, kernel column;
//   - a weight gradient is, for each block, sixteen lane sums over output rows and columns in row-major order, added
//     up by halving (lane i takes lane i+8, then i+4, i+2, i+1); blocks are added in order. In a linear layer
//     the blocks are the columns of one row, so that lanes are added up once;
//   - sums over elements that are not convolutions (bias and quantizer gradients, losses, statistics) keep sixteen
//     lane sums over a chunk in order, halve them, and add chunks in order; their documentation says in which precision.
//
// [Winograd] adds up in an order of its own, which its documentation gives.
//
// A NaN comes out where one is due, but which of its bit patterns is left open.
//
// # Paths
//
// The kernels run on AVX-512, else AVX2 and FMA, else Go alone: [Path] names the live path and the environment variable
// GOQAT_SIMD holds it down. The build tag purego leaves the assembly out. The assembly of the register tiles has a
// variant for every number of output channels and of pixels, with all loops over taps inside; weight gradients and
// depthwise convolutions of 3x3 taps have kernels of their own. The elementwise loops wait for memory, so both paths
// share their AVX2 code; staircases, which search in registers, have code of their own for each. All of it is written by
// the generator in _asm (go generate), and everything it reads is checked against the plan's sizes before.
package kernel
