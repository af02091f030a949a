package train

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
)

// statistics returns copies of the running statistics of batch normalizations.
func statistics(network *layers.Network) map[string][]float32 {
	found := map[string][]float32{}
	for _, p := range network.Params() {
		if strings.Contains(p.Name, "running_") {
			found[p.Name] = slices.Clone(p.Data())
		}
	}
	return found
}

// In the last epochs running statistics stand still while everything else learns on; before them nothing is different.
func TestFreezeBatchNorm(t *testing.T) {
	d := digits(t, 100, 1).Train
	train := func(freeze int) (losses []float64, moved []bool, network *layers.Network) {
		network, err := normalizedNetwork(methods("lsq:4", "lsq:4"), 0, 1)
		require.NoError(t, err)
		require.NoError(t, Calibrate(network, d, 100))
		before := statistics(network)
		require.Len(t, before, 4)
		trainer := Trainer{Network: network, Data: d, Epochs: 4, Batch: 20, LearningRate: 0.02, FreezeBatchNorm: freeze, AfterStep: func(s Step) error {
			now := statistics(network)
			losses, moved = append(losses, s.Loss), append(moved, !maps.EqualFunc(before, now, slices.Equal))
			before = now
			return nil
		}}
		require.NoError(t, trainer.Run(t.Context()))
		require.NoError(t, trainer.Close())
		for _, l := range batchNorms(network.Root) {
			require.False(t, l.Frozen, "the network itself is as it was")
		}
		return losses, moved, network
	}
	plain, _, unfrozen := train(0)
	for _, freeze := range []int{1, 3, 4, 9} {
		losses, moved, network := train(freeze)
		first := max(0, 5*(4-freeze)) // step of the first frozen epoch
		require.Equal(t, slices.Repeat([]bool{true}, first), moved[:first])
		require.Equal(t, slices.Repeat([]bool{false}, 20-first), moved[first:])
		require.Equal(t, plain[:first], losses[:first])
		require.NotEqual(t, plain[first], losses[first])
		require.NotEqual(t, losses[first], losses[19], "it learns on")
		require.NotEqual(t, WeightsHash(unfrozen), WeightsHash(network))
	}
}

// The float phase of a run is not frozen, its quantized phase is, to its last checkpoint.
func TestFrozenRun(t *testing.T) {
	r := newRig(t, t.TempDir(), frozen)
	var before map[string][]float32
	r.atStep(QuantizedPhase, 8, func() { before = statistics(r.network) })
	result := r.complete(t)
	require.Equal(t, before, statistics(r.network))
	require.Equal(t, 1.0, *result.Agreement)
	float, err := r.trainer(FloatPhase, r.network)
	require.NoError(t, err)
	require.Zero(t, float.FreezeBatchNorm)
}

func TestFreezeRefuses(t *testing.T) {
	r := newRig(t, t.TempDir(), func(c *Config) { c.FreezeBN = 1 })
	_, err := r.Run(t.Context())
	require.EqualError(t, err, "train: freeze_bn 1: small has no batch normalization")
	require.Empty(t, files(t, r.Folder))

	d, _ := counted(t, 8)
	hidden := struct{ *layers.BatchNorm }{&layers.BatchNorm{Name: "bn"}}
	network, err := layers.NewNetwork(layers.Sequential{hidden, layers.Flatten{}, &layers.Linear{Outputs: 3}}, layers.Shape{Channels: 1, Height: 2, Width: 2}, 1)
	require.NoError(t, err)
	trainer := Trainer{Network: network, Data: d, Epochs: 1, Batch: 4, FreezeBatchNorm: 1}
	require.EqualError(t, trainer.Run(t.Context()), `train: "bn.running_mean" is a statistic of a layer that is no batch normalization, or inside a layer of an unknown kind`)
	trainer.FreezeBatchNorm = -1
	require.EqualError(t, trainer.Run(t.Context()), "train: batch normalization frozen in -1 epochs: want 0 or more")
}
