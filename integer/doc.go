// Package integer is the integer model: what training simulates and what is deployed. It holds the codings of
// activations (Grid) and weights (Weights, whose tables ShiftAdd turns into shifts and additions), the arithmetic that
// leads from accumulators to codes (Requantizer), a Builder that assembles a Program and proves that it can't overflow,
// an engine that runs programs without floating point, in vector instructions where the machine has them, and the
// .goq file. It needs nothing but the standard library and golang.org/x/sys, which tells what the machine has.
//
// # Unequal steps
//
// A Grid with a Table has levels of any distance. A network computes with levels, not with their codes: a sum of products
// is then the same as ever. Levels that one byte does not hold travel as two bytes, level = 256*high + low, in two
// values of the program, which a convolution takes in both. Staircases lead to such levels: they compare wide numbers
// with bounds.
//
// # The .goq file, versions 1 and 2
//
// This section is complete: a reader can be written from it alone. All numbers are little-endian. u8, u16,
// u32 and u64 are unsigned, i32 and i64 two's complement, f32 and f64 IEEE 754. A string is a u16 length
// in bytes and UTF-8; a text is the same with a u32 length. A count is followed by that many items.
//
// Header, 48 bytes:
//
//	4 bytes  "GOQ" and a zero byte
//	u32      version: 2 where codes of any layer stand for vectors of weights, else 1
//	u64      length of the payload, which is the rest of the file, below 2^31
//	32 bytes SHA-256 of the payload
//
// The payload is a sequence of sections META, CLAS, INPT, LAYR, PROG, each once and in this order; only
// PROG may be missing. A section is its name in 4 ASCII bytes, a u32 length, and that many bytes:
//
//	META  u32 count of entries, each: string key, text value; keys ascending bytewise, none twice
//	CLAS  u16 count of class names, each a string, in the order of the logits
//	INPT  u32 channels, height, width of an image; f64 what one unit of a logit is worth
//	      (a power of two; 0 without PROG)
//	LAYR  u16 count of layers, see below
//	PROG  the program, see below
//
// A layer is a weight tensor. With e weights in all, of which O output channels:
//
//	string     name
//	u8         rank, 2 or 4; then as many u32: [O][I] or [O][I][KH][KW], I the channels of one group
//	u8         bits of a code, 1 to 16
//	u32        d, weights of a code: a divisor of e / O. Version 1 does not have this number; d is 1
//	ceil(e/d * bits / 8) bytes: the codes, row-major; code i takes bits i*bits to (i+1)*bits-1 of the byte
//	           sequence, bit k being bit k%8 (0 the lowest) of byte k/8, its lowest bit first. Bits
//	           left over in the last byte are 0
//	u8         count of planes, 1 to 8; each plane:
//	             d * 2^bits bytes: table, d times int8 for each code
//	             u8 form of the scales: bit 0 set: one number for all channels, else O; bit 1 set: f32, else f64
//	             the scales
//	u8         1 if biases follow, else 0; then O times f32
//
// A code stands for d weights that follow each other, row-major: weight i for the entry t = code[i / d] * d + i % d
// of a table, the quotient rounded down, which is code[i] where d is 1. What is called table[code[o][...]] below is entry
// t of that weight. Its value is the sum over planes of scale[o] * table[t]. Scales and biases tell what the integers
// of the trained layer are worth; the program does not need them.
//
// The program:
//
//	i32        zero point of the coded image
//	u8         0: codes of pixels are unsigned bytes, 1: signed bytes
//	channels times 256 bytes: the code of each value that a pixel can have
//	u16        count of nodes, at least 1; each node:
//	             u8 kind, string name, u8 count of inputs, as many u16 numbers of the input values, then by kind:
//	               1 conv        u16 layer, u32 stride height, stride width, padding top, left, bottom,
//	                             right, groups; requantizer
//	               2 linear      u16 layer; requantizer
//	               3 maxpool     window: u32 height, width, stride height, stride width, padding top,
//	                             left, bottom, right
//	               4 avgpool     window, as above
//	               5 flatten     nothing
//	               6 requantize  requantizer
//	               7 add         requantizer
//	               8 sample      u32 stride, channels before, channels after
//	               9 staircase   u8 count B of bounds, B times i32 bound, never descending;
//	                             u8 0: values are unsigned bytes, 1: signed bytes; B + 1 values
//
// Kind 7 has two inputs, kinds 1 and 2 have one or two, all others one. Two inputs have one shape.
//
//	requantizer: u8 planes P, u8 1 if negative sums have numbers of their own, else 0, u32 entries N,
//	             i32 zero, i32 min, i32 max, N times u8 shift,
//	             N times i64 bias, P times N times i32 multiplier,
//	             after a 1 also N times i64 negative bias, P times N times i32 negative multiplier
//
// Value 0 is the coded image, [channels][height][width]; value i+1 is the output of node i (from 0),
// whose inputs have lower numbers. The last value has as many elements as there are classes: the logits,
// all below 2^24 in magnitude. The predicted class is the index of the largest; of equal ones the lowest.
//
// Each value is a tensor of integers x[c][y][x] and has a zero point. A requantizer's output has its zero, the
// coded image the one above, maxpool, flatten and sample keep their input's, avgpool has 0, a staircase what it makes of
// its input's, or 0 where its only values are v and -v. Inputs of conv and linear, zero points included, lie in 0..255 or in -128..127.
//
//	conv        acc_p = sum over i, ky, kx of x[g*I + i][y*sy + ky - top][x*sx + kx - left] * table_p[code[o][i][ky][kx]]
//	            with g = o / (O / groups) rounded down; x outside the input is the input's zero point.
//	            Of two inputs, each has such sums of its own; those of the second follow those of the first, as
//	            acc_{P+p} where the layer has P planes of weights
//	            out = requantize(o, acc). The output has (H + top + bottom - KH) / sy + 1 rows, rounded
//	            down, columns likewise
//	linear      acc_p = sum over i of x[i] * table_p[code[o][i]], acc_{P+p} likewise; out = requantize(o, acc)
//	maxpool     the largest x in the window, positions outside the input left out; sizes as for conv
//	avgpool     the sum of x - zero point over the window, positions outside the input left out
//	flatten     the same values, in the order c, y, x, as channels of 1 x 1
//	requantize  out = requantize(c, x)
//	add         out = requantize(c, first x, second x)
//	sample      out[c][y][x] = x[c - before][y * stride][x * stride]; where c - before is no channel of the input,
//	            the input's zero point. The output has before + C + after channels, (H - 1) / stride + 1 rows, rounded
//	            down, columns likewise
//	staircase   out = values[number of bounds that are less than x]
//
// where, c or o being the channel (entry 0 if N is 1, which is allowed for kinds 6 and 7 only),
//
//	requantize(c, acc) = clamp(round(v / 2^shift[c]) + zero, min, max)
//	v = sum over p of acc_p * multiplier[p][c] + bias[c]
//	v = sum over p of acc_p * negative multiplier[p][c] + negative bias[c], if the first v is below 0 and these numbers are present
//
// rounds to the nearest integer, ties to even. The zero points of the inputs are already part of the
// biases: accumulators sum values as they are. No accumulator of a valid file reaches 2^31 in magnitude
// and no requantization sum 2^62, so int32 and int64 suffice.
package integer
