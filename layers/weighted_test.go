package layers

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
)

// Weights that leave their size to batch normalization are calibrated with the batch's statistics: activations then have
// the range that they have with weights of the right size.
func TestCalibrationOfResizedWeights(t *testing.T) {
	largest := func(weights string) float32 {
		second := &Linear{Outputs: 3, Methods: methods("none", "linear:8")}
		root := Sequential{&Conv2D{Outputs: 5, Kernel: 3, Methods: methods(weights, "none")}, &BatchNorm{}, ReLU{}, Flatten{}, second}
		r := newRig(t, root, Shape{Channels: 3, Height: 6, Width: 6, Signed: true}, 18, random.New(1, "resized"))
		if weights == "none" { // the running statistics of a trained network
			for range 200 {
				r.run(Training)
			}
		}
		r.calibrate()
		return r.watched[1].core.input.theta.Data()[1]
	}
	want := largest("none")
	for _, weights := range []string{"apot:5,rescale=false", "pot:5,rescale=false", "dorefa:8,rescale=false"} {
		require.InEpsilon(t, want, largest(weights), 0.2, weights)
	}
}

// Folding would multiply the size that is left to the normalization into the weights again and again.
func TestResizedWeightsAreNotFolded(t *testing.T) {
	m := methods("apot:4,rescale=false", "lsq:4")
	m.FoldBatchNorm = true
	_, err := NewNetwork(Sequential{&Conv2D{Outputs: 2, Kernel: 3, Methods: m}, &BatchNorm{}, Flatten{}}, Shape{Channels: 1, Height: 4, Width: 4}, 1)
	require.EqualError(t, err, "layers: conv1: batch normalization can't be folded into weights of apot:4,rescale=false, which leaves their size to it")
}

// Levels without integers train and are evaluated as real numbers.
func TestEvaluationWithoutIntegers(t *testing.T) {
	for _, m := range []Methods{methods("nnie:8,exact", "lsq:8"), methods("lsq:8", "nnie:8,exact"), methods("nnie:8,exact", "nnie:8,exact")} {
		root := Sequential{&Conv2D{Outputs: 4, Kernel: 3, Methods: m}, ReLU{}, Flatten{}, &Linear{Outputs: 3, Methods: m}}
		r := newRig(t, root, Shape{Channels: 2, Height: 5, Width: 5, Signed: true}, 3, random.New(1, "exact"))
		r.calibrate()
		trained, _ := r.run(Training)
		evaluated, out := r.run(Evaluation)
		for i := range evaluated {
			require.InDelta(t, trained[i], float64(evaluated[i])*out.Unit(), 1e-5)
		}
		_, err := r.net.Lower(r.pixel, make([]string, 3))
		require.ErrorContains(t, err, "no integers")
	}
}
