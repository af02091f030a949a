// Package quantops holds the projections: the functions that map real weights and activations onto few levels,
// with their surrogate gradients and their integer codes. A projection is one file, found through a registry
// by everything else: the command line, the layers, export, comparison and documentation.
//
// # Codes, levels, values
//
// A quantizer maps x to an integer code, which is what an exported model stores. Arithmetic is done on levels: a level
// is a real number, an integer for every linear method (the code less its zero point), and the value that it stands
// for is level · unit, with one unit a channel:
//
//	fake quantization:  Q(x) = level(x) · unit
//
// Training, evaluation and export all call the same functions.
//
// # Codebooks
//
// A [Codebook] maps vectors of weights to codes: each stands for one of a list of vectors, which is found for the weights
// together with the codes and trained afterwards.
//
// # Searches
//
// A [Relaxation] rounds no real weights: it chooses, for each weight, among a few levels, softly in training and finally one.
//
// # Method strings
//
// Methods are named the same way everywhere (command line, configuration, Go): the method, its bits, its options.
//
//	none   linear:8   linear:4,asymmetric   lsq:4   lsq:2,per=channel   pq:d=9,k=64
//
// [Parse] reads one, [Method.String] writes its canonical form.
//
// # Graphs
//
// Quantizers work on plain slices and know no graph. op.go and fork.go alone know gorgonia.Op: they adapt any [Function],
// quantizers and layers alike, to a Gorgonia graph. [FakeQuantize] puts a quantizer into a graph of one's own.
package quantops
