package models

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// The network stays small, and every block looks at each channel for itself before it mixes them.
func TestMobileNet(t *testing.T) {
	t.Parallel()
	for _, in := range []layers.Shape{cifar, mnist} {
		net, err := New("mobilenet", Options{Input: in, Classes: 10})
		require.NoError(t, err)
		count := 0
		for _, p := range net.Params() {
			if p.Kind == quantops.Learned {
				count += len(p.Data())
			}
		}
		require.LessOrEqual(t, count, 300_000)
		require.Less(t, net.MultiplyAdds(layers.Evaluation), int64(30_000_000))
		shapes := map[string][]int{}
		for _, p := range net.Params() {
			shapes[p.Name] = p.Value.Shape()
		}
		require.Equal(t, []int{64, 1, 3, 3}, shapes["block2.depthwise.weight"])
		require.Equal(t, []int{128, 64, 1, 1}, shapes["block2.pointwise.weight"])
	}
}
