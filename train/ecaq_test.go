package train

import (
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
		require.NoError(t, restore(quantized, snapshot(network), ownParams))
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
