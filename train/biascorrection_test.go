package train

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
)

// trainedPair is a float network that has learned a little, and its quantized network, calibrated.
func trainedPair(t *testing.T, build func(layers.Methods, int, uint64) (*layers.Network, error), m layers.Methods, d *datasets.Dataset) (float, quantized *layers.Network) {
	t.Helper()
	float, err := build(layers.Methods{}, 0, 1)
	require.NoError(t, err)
	trainer := Trainer{Network: float, Data: d, Epochs: 2, Batch: 20, LearningRate: 0.05}
	require.NoError(t, trainer.Run(t.Context()))
	require.NoError(t, trainer.Close())
	quantized, err = build(m, 0, 1)
	require.NoError(t, err)
	require.NoError(t, adopt(quantized, snapshot(float)))
	require.NoError(t, Calibrate(quantized, d, 100))
	return float, quantized
}

// meanLogits are those of evaluation, which for a quantized network is the engine's.
func meanLogits(t *testing.T, network *layers.Network, d *datasets.Dataset) []float64 {
	t.Helper()
	score, err := evaluate(t.Context(), network, d)
	require.NoError(t, err)
	classes := network.Output.Len()
	mean := make([]float64, classes)
	for i, v := range score.logits {
		mean[i%classes] += float64(v) / float64(d.Len())
	}
	return mean
}

// distance is the largest difference between two lists of numbers.
func distance(a, b []float64) float64 {
	largest := 0.0
	for i := range a {
		largest = max(largest, math.Abs(a[i]-b[i]))
	}
	return largest
}

// Behind a correction, every layer's mean output is that of the float network: so the mean logits are, which evaluation
// computes in another way.
func TestBiasCorrectionRestoresMeans(t *testing.T) {
	d := digits(t, 150, 1).Train
	for _, c := range []struct {
		name    string
		build   func(layers.Methods, int, uint64) (*layers.Network, error)
		weights int // layers with some
	}{{"small", smallNetwork, 4}, {"normalized", normalizedNetwork, 3}} {
		float, quantized := trainedPair(t, c.build, methods("linear:3,per=tensor", "linear:4"), d)
		b := &BiasCorrection{Float: float, Data: d, Images: 150}
		before := distance(meanLogits(t, float, d), meanLogits(t, quantized, d))
		left, err := b.Run(t.Context(), quantized)
		require.NoError(t, err)
		require.Empty(t, left)
		after := distance(meanLogits(t, float, d), meanLogits(t, quantized, d))
		require.Greater(t, before, 0.05, c.name)
		require.Less(t, after, 0.02*before, c.name)

		want, err := newMeter(float)
		require.NoError(t, err)
		got, err := newMeter(quantized)
		require.NoError(t, err)
		require.Len(t, got.sites, c.weights)
		wanted, err := b.means(t.Context(), want, want.sites)
		require.NoError(t, err)
		reached, err := b.means(t.Context(), got, got.sites)
		require.NoError(t, err)
		require.InDelta(t, 0, distance(meanLogits(t, float, d), wanted[c.weights-1]), 1e-5, "what it measures is what evaluation computes")
		for i, s := range got.sites {
			if s.bias != nil {
				require.InDelta(t, 0, distance(wanted[i], reached[i]), 1e-5, s.name)
				continue
			}
			shifted := make([]float64, len(wanted[i])) // relative to the running mean
			for k := range shifted {
				shifted[k] = reached[i][k] - float64(runningMean(s.norm).Data()[k]) + float64(runningMean(want.sites[i].norm).Data()[k])
			}
			require.InDelta(t, 0, distance(wanted[i], shifted), 1e-5, s.name)
		}
		require.NoError(t, want.graph.close())
		require.NoError(t, got.graph.close())
		for _, l := range batchNorms(quantized.Root) {
			require.False(t, l.Frozen)
		}
	}
}

// Behind statistics of the quantized network there is nothing left to correct; the last layer, which has none, is.
func TestBiasCorrectionLeavesReestimatedLayersAlone(t *testing.T) {
	d := digits(t, 150, 1).Train
	float, quantized := trainedPair(t, normalizedNetwork, methods("linear:3", "linear:4"), d)
	_, err := (&Reestimation{Data: d, Images: 150, Batch: 50}).Run(t.Context(), quantized)
	require.NoError(t, err)
	before := snapshot(quantized)
	_, err = (&BiasCorrection{Float: float, Data: d, Images: 150, Reestimated: true}).Run(t.Context(), quantized)
	require.NoError(t, err)
	for i, after := range snapshot(quantized) {
		require.Equal(t, after.Name == "fc.bias", !equalData(before[i], after), after.Name)
	}
	require.InDelta(t, 0, distance(meanLogits(t, float, d), meanLogits(t, quantized, d)), 2e-3)
}

func equalData(a, b Tensor) bool {
	for i := range a.Data {
		if a.Data[i] != b.Data[i] {
			return false
		}
	}
	return true
}

// A normalization behind a layer is found where another Sequential holds it; a layer with neither bias nor normalization is named.
func TestBiasCorrectionFindsItsPlaces(t *testing.T) {
	d := digits(t, 20, 1).Train
	build := func(m layers.Methods, _ int, seed uint64) (*layers.Network, error) {
		root := layers.Sequential{
			layers.Sequential{&layers.Conv2D{Name: "a", Outputs: 2, Kernel: 3, Stride: 3, NoBias: true}}, &layers.BatchNorm{},
			&layers.Residual{Body: &layers.Conv2D{Name: "b", Outputs: 2, Kernel: 1, NoBias: true}, Shortcut: &layers.Conv2D{Name: "c", Outputs: 2, Kernel: 1}},
			&layers.BatchNorm{Name: "behind the sum"}, layers.Flatten{},
			&layers.Linear{Outputs: 10, NoBias: true},
		}
		layers.Quantize(root, m, 0)
		return layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, seed)
	}
	float, quantized := trainedPair(t, build, methods("linear:2", "linear:4"), d)
	left, err := (&BiasCorrection{Float: float, Data: d, Images: 20}).Run(t.Context(), quantized)
	require.NoError(t, err)
	require.Equal(t, []string{"b", "fc1"}, left)
	before := snapshot(float)
	for i, after := range snapshot(quantized) {
		for _, p := range before {
			if p.Name == after.Name {
				changes := p.Name == "c.bias" || p.Name == "bn1.running_mean"
				require.Equal(t, changes, !equalData(p, after), "%d %s", i, p.Name)
			}
		}
	}
}

func TestBiasCorrectionRefuses(t *testing.T) {
	d, float := counted(t, 30)
	_, network := counted(t, 30)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	hidden := struct{ *layers.Linear }{&layers.Linear{Name: "fc", Outputs: 3}}
	covered, err := layers.NewNetwork(layers.Sequential{layers.Flatten{}, hidden}, float.Input, 1)
	require.NoError(t, err)
	for want, c := range map[string]struct {
		b       BiasCorrection
		network *layers.Network
		ctx     context.Context
	}{
		"train: bias correction on 0 images: want at least 1": {BiasCorrection{Float: float, Data: d}, network, t.Context()},
		"train: counted has no images":                        {BiasCorrection{Float: float, Data: d.Slice(0, 0), Images: 9}, network, t.Context()},
		ErrInterrupted.Error():                                {BiasCorrection{Float: float, Data: d, Images: 9}, network, ended},
		`train: bias correction: "fc.weight" belongs to a layer of an unknown kind, or is inside one`: {BiasCorrection{Float: float, Data: d, Images: 9}, covered, t.Context()},
		"train: bias correction: the float network has 1 layers with weights, the quantized one 2":    {BiasCorrection{Float: float, Data: d, Images: 9}, pointwise(t, layers.Methods{}), t.Context()},
	} {
		_, err := c.b.Run(c.ctx, c.network)
		require.EqualError(t, err, want)
	}
	theta(t, float, "fc.weight")[0] = 3e38
	theta(t, float, "fc.weight")[1] = 3e38
	_, err = (&BiasCorrection{Float: float, Data: &datasets.Dataset{
		Name: "bright", Channels: 1, Height: 2, Width: 2, Classes: d.Classes, Pixels: []uint8{255, 255, 255, 255}, Labels: []uint16{0}, Mean: d.Mean, Std: d.Std,
	}, Images: 9}).Run(t.Context(), network)
	require.EqualError(t, err, "train: bias correction: the mean output of fc is not finite")
}
