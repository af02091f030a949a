// Package train trains, calibrates and evaluates quantized networks, and keeps what a run is made of: configuration,
// metrics, checkpoints, results.
//
// A [Trainer] trains a network on a data set; an [Experiment] is a whole run in a folder: float epochs, quantized
// epochs, the integer model and its score.
//
// # Determinism
//
// The same configuration and seed give the same bits of every weight for any number of threads, on any supported
// processor, and after being interrupted and resumed. Nothing here reads the clock on the way to a number;
// every random stream is derived from the seed and named; the position in the run is all there is to remember of them.
package train
