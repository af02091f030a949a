package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPackUnpack(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 15, 16, 17, 33} {
		const size = 7
		images := random(stream, n*size)
		blocks, intact := guarded(t, Blocks(n)*size*Lanes)
		Pack(blocks, images, n, size)
		intact()
		for image := range Blocks(n) * Lanes {
			for i := range size {
				want := float32(0)
				if image < n {
					want = images[image*size+i]
				}
				require.Equal(t, want, blocks[(image/Lanes*size+i)*Lanes+image%Lanes], "image %d of %d, element %d", image, n, i)
			}
		}
		back, backIntact := guarded(t, n*size)
		Unpack(back, blocks, n, size)
		backIntact()
		requireSame(t, images, back, "unpacked")
	}
}

func TestBlocks(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, 16: 1, 17: 2, 32: 2, 33: 3} {
		require.Equal(t, want, Blocks(n), "%d images", n)
	}
}

func TestHalveOrder(t *testing.T) {
	// Only the documented order cancels the large numbers before the small ones are lost.
	lanes := [Lanes]float32{0: 1e20, 8: -1e20, 1: 1, 9: 1, 2: 3e20, 10: -3e20}
	require.Equal(t, float32(2), halve(&lanes))
}
