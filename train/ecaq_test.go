package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/quantops"
)

// Channels of their own size have scales of their own, and the network's logits stay the very same.
func TestECAQ(t *testing.T) {
	d := digits(t, 100, 50)
	p := newPost(t, "normalized", t.TempDir(), nil)
	network, err := p.Build(methods("none", "none"))
	require.NoError(t, err)
	require.NoError(t, p.initialize(network))
	gamma, beta := theta(t, network, "bn1.weight"), theta(t, network, "bn1.bias")
	for c, size := range []float32{1, 0.01, 7, 30} { // of the channels that conv2 takes in, and fc
		gamma[c], beta[c] = size*gamma[c], size*beta[c]
	}
	before, err := evaluate(t.Context(), network, d.Test)
	require.NoError(t, err)
	spread := func() float64 {
		u, err := (&ECAQ{Activations: quantops.MustParse("linear:4"), Data: d.Train, Images: 100}).measure(t.Context(), network)
		require.NoError(t, err)
		least, most := u["conv2"][0], u["conv2"][0]
		for _, unit := range u["conv2"] {
			least, most = min(least, unit), max(most, unit)
		}
		return most / least
	}
	require.Greater(t, spread(), 300.0)

	channels, err := (&ECAQ{Activations: quantops.MustParse("linear:4"), Data: d.Train, Images: 100}).Run(t.Context(), network)
	require.NoError(t, err)
	require.GreaterOrEqual(t, channels, 3)
	after, err := evaluate(t.Context(), network, d.Test)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Less(t, spread(), 8.0, "powers of two, and one compromise for conv2 and fc")
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
