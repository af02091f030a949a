package train

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
)

// Of a layer that takes in the images, moments can be told from the pixels.
func TestMomentsOfImages(t *testing.T) {
	t.Parallel()
	d := digits(t, 20, 1).Train
	root := layers.Sequential{&layers.Conv2D{Name: "conv", Outputs: 2, Kernel: 3, Stride: 2, Pad: 1}, layers.Flatten{}, &layers.Linear{Name: "fc", Outputs: 10}}
	network, err := layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, 1)
	require.NoError(t, err)
	c := Collection{Network: network, Data: d, Images: 20}
	all, err := c.Run(context.Background(), "conv")
	require.NoError(t, err)
	require.Len(t, all, 1)
	m := all[0].Groups[0]
	require.Equal(t, 20*14*14, m.Samples)
	require.Nil(t, m.Cross)

	want := make([]float64, 81)
	for n := range 20 {
		pixels := d.Image(n)
		at := func(r, c int) float64 {
			if r < 0 || c < 0 {
				return 0
			}
			return float64(pixels[r*28+c]) / 255
		}
		for i := range 14 {
			for j := range 14 {
				for a := range 9 {
					for b := range 9 {
						want[a*9+b] += at(2*i-1+a/3, 2*j-1+a%3) * at(2*i-1+b/3, 2*j-1+b%3)
					}
				}
			}
		}
	}
	for i := range want {
		require.InEpsilon(t, want[i], m.Gram[i], 1e-5)
	}
}

// Where a network is its own float network, responses follow from the Gram matrix; both are the same on any number of
// threads.
func TestMomentsBesideAFloatNetwork(t *testing.T) {
	d := digits(t, 150, 1).Train
	network, err := smallNetwork(layers.Methods{}, 0, 1)
	require.NoError(t, err)
	weights, err := network.Weights()
	require.NoError(t, err)
	c := Collection{Network: network, Float: network, Data: d, Images: 150, Samples: 1000, Seed: 3}
	all, err := c.Run(context.Background())
	require.NoError(t, err)
	require.Len(t, all, 4)
	for i, l := range all {
		require.Equal(t, weights[i].Layer, l.Layer)
		m, w := l.Groups[0], weights[i].Values
		k := m.Inputs
		for o := range weights[i].Shape[0] {
			energy := 0.0
			for a := range k {
				sum := 0.0
				for b := range k {
					sum += m.Gram[a*k+b] * float64(w[o*k+b])
				}
				require.InDelta(t, sum, m.Cross[o*k+a], 1e-5*(1+m.Gram[a*k+a]), "%s", l.Layer)
				energy += sum * float64(w[o*k+a])
			}
			require.InDelta(t, energy, m.Energy[o], 1e-4*(energy+1))
		}
	}
	require.Equal(t, 7*150, all[0].Groups[0].Samples)
	require.Equal(t, 150, all[2].Groups[0].Samples)

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	again, err := c.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, all, again)
}

// A layer with a quantizer takes in what that lets through.
func TestMomentsSeeQuantizedInputs(t *testing.T) {
	t.Parallel()
	d := digits(t, 100, 1).Train
	network := newSmall(t, methods("lsq:8", "linear:2,observer=minmax"), d)
	all, err := (&Collection{Network: network, Data: d, Images: 100}).Run(context.Background(), "fc2", "conv1")
	require.NoError(t, err)
	require.Equal(t, "conv1", all[0].Layer)
	step := float64(theta(t, network, "fc2.input.range")[1]) / 3
	for _, v := range all[1].Groups[0].Gram {
		ratio := v / (step * step) // sums of integers
		require.InDelta(t, float64(int(ratio+0.5)), ratio, 1e-3*(1+ratio/1000))
	}
}

func TestCollectionRefuses(t *testing.T) {
	t.Parallel()
	d, network := counted(t, 30)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := (&Collection{Network: network, Data: d}).Run(ctx)
	require.EqualError(t, err, "train: moments of 0 samples on 0 images: want 0 or more, and at least 1")
	_, err = (&Collection{Network: network, Data: d, Images: 5}).Run(ctx, "fc", "fd")
	require.EqualError(t, err, `layers: no layer with weights is named "fd"`)
	network.Params()[0].Data()[0] = 1
	cancel()
	_, err = (&Collection{Network: network, Data: d, Images: 5}).Run(ctx)
	require.ErrorIs(t, err, ErrInterrupted)
}
