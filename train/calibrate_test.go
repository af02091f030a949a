package train

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
)

// theta returns the parameters of a quantizer.
func theta(t *testing.T, network *layers.Network, name string) []float32 {
	t.Helper()
	for _, p := range network.Params() {
		if p.Name == name {
			return p.Data()
		}
	}
	require.Fail(t, "no parameter "+name)
	return nil
}

// lsqStep is 2·mean|x|/√Qp for the inputs of a layer: the mean over the calibration batches, each of which counts as
// one, a short last one too.
func lsqStep(d *datasets.Dataset, images, largest int) float64 {
	steps, batches := 0.0, 0
	for indices := range datasets.Batches(images, calibrationBatch) {
		sum, count := 0.0, 0
		for _, i := range indices {
			for _, pixel := range d.Image(i) {
				sum += float64(float32(float64(pixel) / 255))
				count++
			}
		}
		steps += 2 * sum / float64(count) / math.Sqrt(float64(largest))
		batches++
	}
	return steps / float64(batches)
}

func TestCalibrationSetsTheDocumentedSteps(t *testing.T) {
	d := digits(t, 300, 1).Train
	for _, images := range []int{1, 50, 128, 200, 300, 1000} {
		network, err := smallNetwork(methods("lsq:4", "lsq:4"), 8, 1)
		require.NoError(t, err)
		require.NoError(t, Calibrate(network, d, images))
		want := lsqStep(d, min(images, 300), 255)
		require.InEpsilon(t, want, theta(t, network, "conv1.input.step")[0], 1e-6, "%d images", images)

		sum := 0.0
		weights := theta(t, network, "conv2.weight")
		for _, w := range weights {
			sum += math.Abs(float64(w))
		}
		require.InEpsilon(t, 2*sum/float64(len(weights))/math.Sqrt(7), theta(t, network, "conv2.weight.step")[0], 1e-6)
		for _, name := range []string{"conv2.input.step", "fc1.input.step", "fc2.input.step"} {
			require.Greater(t, theta(t, network, name)[0], float32(0), name)
		}
	}
}

// Ranges follow batches as documented: the first batch's own, then a moving average, or minimum and maximum.
func TestCalibrationFollowsRanges(t *testing.T) {
	d, _ := counted(t, 256) // the last of each batch is its brightest
	build := func(method string) *layers.Network {
		root := layers.Sequential{layers.Flatten{}, &layers.Linear{Name: "fc", Outputs: 3, Methods: methods("none", method)}}
		network, err := layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 2, Width: 2}, 1)
		require.NoError(t, err)
		return network
	}
	first, second := 127/255.0, 199/255.0
	for method, want := range map[string][2]float64{
		"linear:8,constant=0.25":   {0.25 * 128 / 255, first + 0.25*(second-first)},
		"linear:8,observer=minmax": {0, second},
	} {
		network := build(method)
		require.NoError(t, Calibrate(network, d, 200))
		got := theta(t, network, "fc.input.range")
		require.InDelta(t, want[0], got[0], 1e-6, method)
		require.InDelta(t, want[1], got[1], 1e-6, method)
	}
}

func TestCalibrateRefuses(t *testing.T) {
	t.Parallel()
	d, network := counted(t, 30)
	require.EqualError(t, Calibrate(network, d, 0), "train: calibration on 0 images: want at least 1")
	require.EqualError(t, Calibrate(network, d.Slice(0, 0), 5), "train: counted has no images")
	require.EqualError(t, Calibrate(network, digits(t, 5, 1).Train, 5), "train: the network takes images of 1x2x2, mnist has 1x28x28")
}
