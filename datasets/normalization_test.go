package datasets

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// colorSample returns an image of random pixels in three channels.
func colorSample() *Dataset {
	d := sample(1)
	d.Channels, d.Height = 3, 2
	return d
}

func TestNormalized(t *testing.T) {
	for name, want := range map[string]struct{ first, last float64 }{ // of byte 0 in channel 0 and byte 255 in channel 2
		"cifar":    {-.4914 / .2470, (1 - .4465) / .2616},
		"imagenet": {-.485 / .229, (1 - .406) / .225},
		"none":     {0, 255},
		"unit":     {0, 1},
	} {
		d, err := colorSample().Normalized(name)
		require.NoError(t, err, name)
		require.NoError(t, d.Validate(), name)
		first, last := d.PixelTable(0), d.PixelTable(2)
		require.InDelta(t, want.first, first[0], 1e-6, name)
		require.InDelta(t, want.last, last[255], 1e-6, name)
		require.Equal(t, colorSample().Pixels, d.Pixels)
	}
	require.Equal(t, []string{"cifar", "imagenet", "none", "unit"}, Normalizations())
}

func TestNormalizedNoneIsTheByte(t *testing.T) {
	d, err := sample(1).Normalized("none")
	require.NoError(t, err)
	for p, x := range d.PixelTable(1) {
		require.Equal(t, float32(p), x)
	}
}

func TestNormalizedRefuses(t *testing.T) {
	_, err := sample(1).Normalized("cifar")
	require.EqualError(t, err, `datasets: sample: normalization "cifar" is for 3 channels; the images have 2`)
	_, err = colorSample().Normalized("imagnet")
	require.EqualError(t, err, `datasets: sample: unknown normalization "imagnet": did you mean "imagenet"? (known: cifar, imagenet, none, unit)`)
}

func TestNormalizedIsACopy(t *testing.T) {
	d, err := colorSample().Normalized("cifar")
	require.NoError(t, err)
	d.Mean[0], d.Std[0] = 7, 7
	d, err = colorSample().Normalized("cifar")
	require.NoError(t, err)
	require.Equal(t, []float32{.4914, .4822, .4465}, d.Mean)
	require.Equal(t, []float32{.2470, .2435, .2616}, d.Std)
}
