package models

import (
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// Every 3x3 kernel of ResNet-20 but those of the first layer is a vector. With centroids of two bytes a number, as the paper
// has them, its convolutions are 14.8 times smaller; with one byte 21 times.
func TestCodebooksOfResNet20(t *testing.T) {
	network, err := New("resnet20", Options{
		Input: layers.Shape{Channels: 3, Height: 32, Width: 32, Signed: true}, Classes: 10, EdgeBits: 8, Seed: 1,
		Methods: layers.Methods{Weights: quantops.MustParse("pq:d=9,k=256")},
	})
	require.NoError(t, err)
	books := network.Codebooks()
	require.Len(t, books, 18)
	weights, codeBits, numbers := 0, 0, 0
	for _, b := range books {
		n, centroids := len(b.Values()), len(b.Centroids().Data())
		require.Equal(t, 9, b.Length())
		weights, codeBits, numbers = weights+n, codeBits+n/9*(bits.Len(uint(centroids/9))-1), numbers+centroids
	}
	require.Equal(t, 267264, weights)
	require.InDelta(t, 14.8, float64(4*weights)/float64(codeBits/8+2*numbers), 0.05)
	require.InDelta(t, 21.3, float64(4*weights)/float64(codeBits/8+numbers), 0.05)
}

// The kernels of depthwise convolutions are vectors too, of which there are few.
func TestCodebooksOfMobileNet(t *testing.T) {
	network, err := New("mobilenet", Options{
		Input: layers.Shape{Channels: 3, Height: 32, Width: 32, Signed: true}, Classes: 10, EdgeBits: 8, Seed: 1,
		Methods: layers.Methods{Weights: quantops.MustParse("pq"), Activations: quantops.MustParse("linear:8")},
	})
	require.NoError(t, err)
	depthwise := 0
	for _, b := range network.Codebooks() {
		if b.Length() != 9 {
			continue
		}
		depthwise++
		left, err := b.Find(nil)
		require.NoError(t, err)
		require.True(t, b.Found())
		require.Positive(t, left)
		require.Equal(t, max(2, len(b.Values())/9/8), len(b.Centroids().Data())/9, b.Layer)
	}
	require.Positive(t, depthwise)
}
