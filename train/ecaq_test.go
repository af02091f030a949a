package train

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// A network some of whose channels are small, and their weights large, loses much to quantization; scales of their own
// give it back. The float network's logits stay the very same all the time.
func TestECAQ(t *testing.T) {
	p := newPost(t, "normalized", t.TempDir(), nil)
	training, test := p.Data.Train, p.Data.Test
	network, err := p.Build(methods("none", "none"))
	require.NoError(t, err)
	require.NoError(t, p.initialize(network))
	before, err := evaluate(t.Context(), network, test)
	require.NoError(t, err)
	loss := func() float64 {
		float, err := evaluate(t.Context(), network, test)
		require.NoError(t, err)
		require.Equal(t, before, float)
		quantized, err := p.Build(methods("linear:8", "linear:8"))
		require.NoError(t, err)
		require.NoError(t, adopt(quantized, floatSnapshot(network)))
		require.NoError(t, Calibrate(quantized, training, 100))
		score, err := evaluate(t.Context(), quantized, test)
		require.NoError(t, err)
		return score.Loss - before.Loss
	}
	ecaq := &ECAQ{Activations: quantops.MustParse("linear:8"), Data: training, Images: 100}
	spread := func() float64 {
		units, err := ecaq.measure(t.Context(), network)
		require.NoError(t, err)
		return slices.Max(units["conv2"]) / slices.Min(units["conv2"])
	}

	equalization, err := layers.NewEqualization(network)
	require.NoError(t, err)
	sizes := map[string][]float64{"conv2": {512, 1, 256, 1}}
	require.Equal(t, 3, equalization.Apply(sizes)) // and the other way for the activations
	uneven, unevenLoss := spread(), loss()
	channels, err := ecaq.Run(t.Context(), network)
	require.NoError(t, err)
	require.Positive(t, channels)
	require.Less(t, spread(), uneven/50)
	require.Less(t, loss(), unevenLoss/4)
}

// Without batch normalization the weights take the scales, at no cost worth mentioning, whether their steps are those of
// channels or of whole tensors: nearly dead channels, and what they would make of the weights, are no harm.
func TestECAQWithoutBatchNormalization(t *testing.T) {
	for _, weights := range []string{"linear:4", "lsq:4"} {
		for _, activations := range []string{"linear:8", "linear:4"} {
			accuracy := func(ecaq bool) float64 {
				p := newPost(t, "small", filepath.Join(t.TempDir(), "run"), func(p *PostTraining) {
					p.Config.Weights, p.Config.Acts, p.ECAQ = quantops.MustParse(weights), quantops.MustParse(activations), ecaq
					p.Config.Init = nearlyDead(t, trainedFloat(t, "small"))
				})
				return *quantized(t, p).Accuracy.FakeQuant
			}
			plain, scaled := accuracy(false), accuracy(true)
			t.Logf("%s %s: %.4f, with ECAQ %.4f", weights, activations, plain, scaled)
			require.Greater(t, plain, 0.4)
			require.Greater(t, scaled, plain-0.03, weights)
		}
	}
}

// nearlyDead returns the checkpoint of a run of the small network, some of whose channels hardly say anything any more.
func nearlyDead(t *testing.T, run string) string {
	t.Helper()
	c, err := LoadCheckpoint(filepath.Join(run, CheckpointFile))
	require.NoError(t, err)
	params := tensorsByName(c.Params)
	for name, channel := range map[string]int{"conv2": 3, "fc1": 5} {
		for _, kind := range []string{".weight", ".bias"} {
			p := params[name+kind]
			each := len(p.Data) / p.Shape[0]
			for i := range p.Data[channel*each:][:each] {
				p.Data[channel*each+i] *= 1e-4
			}
		}
	}
	path := filepath.Join(t.TempDir(), "dying.safetensors")
	require.NoError(t, c.Save(path))
	return path
}

func TestECAQRefuses(t *testing.T) {
	t.Parallel()
	d, network := counted(t, 30)
	_, err := (&ECAQ{Activations: quantops.MustParse("linear:4"), Data: d}).Run(t.Context(), network)
	require.EqualError(t, err, "train: scales of channels on 0 images: want at least 1")
	_, err = (&ECAQ{Activations: quantops.MustParse("pwlq:4"), Data: d, Images: 3}).Run(t.Context(), network)
	require.ErrorContains(t, err, "pwlq is not for activations")
	_, err = (&ECAQ{Activations: quantops.MustParse("linear:4"), Data: d.Slice(0, 0), Images: 3}).Run(t.Context(), network)
	require.ErrorContains(t, err, "want at least 1")
}
