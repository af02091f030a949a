package train

import (
	"context"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
)

// pointwise is a network for counted images whose first layer, a convolution of 1x1, makes two multiples of each pixel.
func pointwise(t *testing.T, m layers.Methods) *layers.Network {
	t.Helper()
	root := layers.Sequential{
		&layers.Conv2D{Name: "conv", Outputs: 2, Kernel: 1, NoBias: true, Methods: m}, &layers.BatchNorm{Name: "bn"},
		layers.Flatten{}, &layers.Linear{Name: "fc", Outputs: 3, Methods: m},
	}
	network, err := layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 2, Width: 2}, 1)
	require.NoError(t, err)
	return network
}

// Statistics are the averages of those of the batches that training would see, with weights and activations quantized.
func TestReestimationAveragesStatisticsOfQuantizedBatches(t *testing.T) {
	d, _ := counted(t, 200)
	network := pointwise(t, methods("linear:3,per=tensor", "linear:3"))
	require.NoError(t, Calibrate(network, d, 200))
	images, err := (&Reestimation{Data: d, Images: 120, Batch: 50, Seed: 7}).Run(t.Context(), network)
	require.NoError(t, err)
	require.Equal(t, 150, images)

	model, err := Export(network, d, nil)
	require.NoError(t, err)
	weights, high := model.Layers[0].Weights.Decode(), theta(t, network, "conv.input.range")[1]
	sampler, err := datasets.NewSampler(200, 50, 7)
	require.NoError(t, err)
	for o, w := range weights {
		mean, variance := 0.0, 0.0
		for step := range 3 {
			first, second := 0.0, 0.0
			for _, i := range sampler.Batch(step) {
				level := min(math.RoundToEven(float64(i)/255/float64(high)*7), 7)
				y := level * float64(high) / 7 * float64(w)
				first, second = first+y/50, second+y*y/50
			}
			mean += first / 3
			variance += (second - first*first) * 200 / 199 / 3 // each image has four pixels
		}
		require.InEpsilon(t, mean, theta(t, network, "bn.running_mean")[o], 1e-5)
		require.InEpsilon(t, variance, theta(t, network, "bn.running_var")[o], 1e-5)
	}
}

// Images are augmented as in training: batch by batch those of a Loader.
func TestReestimationAugments(t *testing.T) {
	d := digits(t, 90, 1).Train
	root := layers.Sequential{&layers.BatchNorm{Name: "bn"}, layers.Flatten{}, &layers.Linear{Outputs: 10}}
	network, err := layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, 1)
	require.NoError(t, err)
	r := Reestimation{Data: d, Images: 60, Batch: 20, Augmentation: datasets.Augmentation{Pad: 9, Flip: true}, Seed: 3}
	_, err = r.Run(t.Context(), network)
	require.NoError(t, err)
	loader, err := datasets.NewLoader(d, 20, 3, r.Augmentation)
	require.NoError(t, err)
	defer loader.Close()
	mean := 0.0
	for step := range 3 {
		for i, v := range loader.Next(step).Images {
			if block, lane := i/16/784, i%16; block*16+lane < 20 {
				mean += float64(v) / (60 * 784)
			}
		}
	}
	require.InEpsilon(t, mean, theta(t, network, "bn.running_mean")[0], 1e-5)
}

// What is not a statistic stays as it was, and what the statistics were does not matter.
func TestReestimationSetsStatisticsAlone(t *testing.T) {
	d, _ := counted(t, 256)
	statistic := map[string]bool{"bn.running_mean": true, "bn.running_var": true}
	var first []Tensor
	for _, old := range []float32{0, 1, 1e30} {
		network := pointwise(t, methods("linear:8", "linear:8,observer=minmax"))
		require.NoError(t, Calibrate(network, d, 50)) // dark ones; a range that follows the others would grow
		for name := range statistic {
			for c := range theta(t, network, name) {
				theta(t, network, name)[c] = old
			}
		}
		bn := batchNorms(network.Root)[0]
		bn.Momentum, bn.Frozen = 0.3, true
		before := snapshot(network)
		_, err := (&Reestimation{Data: d, Images: 256, Batch: 64}).Run(t.Context(), network)
		require.NoError(t, err)
		require.Equal(t, 0.3, bn.Momentum)
		require.True(t, bn.Frozen)
		after := snapshot(network)
		for i := range after {
			require.Equal(t, statistic[after[i].Name], !slices.Equal(before[i].Data, after[i].Data), after[i].Name)
		}
		if first == nil {
			first = after
		}
		require.Equal(t, first, after)

		trained := Trainer{Network: network, Data: d, Epochs: 1, Batch: 64}
		require.NoError(t, trained.Run(t.Context()))
		require.NoError(t, trained.Close())
		require.NotEqual(t, before[slices.IndexFunc(before, func(p Tensor) bool { return p.Name == "conv.input.range" })].Data,
			theta(t, network, "conv.input.range"), "in training ranges follow again")
	}
}

func TestReestimationIsTheSameForAnyNumberOfThreads(t *testing.T) {
	d := digits(t, 200, 1).Train
	hashes := map[string]bool{}
	for _, threads := range []int{1, 2, 3} {
		network, err := normalizedNetwork(methods("lsq:3", "linear:4"), 8, 1)
		require.NoError(t, err)
		require.NoError(t, Calibrate(network, d, 100))
		before := runtime.GOMAXPROCS(threads)
		_, err = (&Reestimation{Data: d, Images: 200, Batch: 70, Augmentation: datasets.Augmentation{Pad: 2}}).Run(t.Context(), network)
		runtime.GOMAXPROCS(before)
		require.NoError(t, err)
		hashes[WeightsHash(network)] = true
	}
	require.Len(t, hashes, 1)
}

// Where it fails, the network is as it was.
func TestReestimationRefuses(t *testing.T) {
	d, plain := counted(t, 60)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	hidden := struct{ *layers.BatchNorm }{&layers.BatchNorm{Name: "bn"}}
	covered, err := layers.NewNetwork(layers.Sequential{hidden, layers.Flatten{}, &layers.Linear{Outputs: 3}}, layers.Shape{Channels: 1, Height: 2, Width: 2}, 1)
	require.NoError(t, err)
	folded, err := foldedNetwork("lsq:4")
	require.NoError(t, err)
	exploding := pointwise(t, layers.Methods{})
	theta(t, exploding, "conv.weight")[1] = 3e38
	theta(t, exploding, "conv.weight")[0] = 3e38
	for want, c := range map[string]struct {
		r       Reestimation
		network *layers.Network
		ctx     context.Context
	}{
		"train: re-estimation on 0 images in batches of 0: want at least 1":                                                       {Reestimation{Data: d}, plain, t.Context()},
		"train: re-estimation on 9 images in batches of -1: want at least 1":                                                      {Reestimation{Data: d, Images: 9, Batch: -1}, plain, t.Context()},
		`train: "bn.running_mean" is a statistic of a layer that is no batch normalization, or inside a layer of an unknown kind`: {Reestimation{Data: d, Images: 9}, covered, t.Context()},
		"train: counted has no images": {Reestimation{Data: d.Slice(0, 0), Images: 9}, pointwise(t, layers.Methods{}), t.Context()},
		"train: re-estimation: datasets: counted: augmentation pads by 5; 0 to 1 are possible for images of 2×2":                                 {Reestimation{Data: d, Images: 9, Augmentation: datasets.Augmentation{Pad: 5}}, pointwise(t, layers.Methods{}), t.Context()},
		"train: re-estimation: weights follow the statistics of batch normalization that is folded into them; build the network without folding": {Reestimation{Data: d, Images: 9}, folded, t.Context()},
		ErrInterrupted.Error(): {Reestimation{Data: d, Images: 9}, pointwise(t, layers.Methods{}), ended},
		"train: re-estimation: bn.running_var is not finite; the first layer whose output is not is the loss itself": {Reestimation{Data: d, Images: 9, Batch: 9}, exploding, t.Context()},
	} {
		before := snapshot(c.network)
		_, err := c.r.Run(c.ctx, c.network)
		require.EqualError(t, err, want)
		require.Equal(t, before, snapshot(c.network))
	}
	images, err := (&Reestimation{Data: d, Images: 9}).Run(t.Context(), plain)
	require.NoError(t, err, "nothing to do")
	require.Zero(t, images)
}
