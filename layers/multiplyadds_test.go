package layers

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMultiplyAdds(t *testing.T) {
	t.Parallel()
	image := Shape{Channels: 4, Height: 7, Width: 5}
	conv := func(outputs, groups int) *Conv2D {
		return &Conv2D{Outputs: outputs, Kernel: 3, Stride: 2, Pad: 1, Groups: groups}
	}
	for name, c := range map[string]struct {
		root              Layer
		forward, training int64
	}{
		"no weights":      {Sequential{ReLU{}, Flatten{}}, 0, 0},
		"linear":          {Sequential{Flatten{}, &Linear{Outputs: 3}}, 140 * 3, 2 * 140 * 3},
		"convolution":     {conv(6, 1), 4 * 3 * 6 * 4 * 9, 2 * 4 * 3 * 6 * 4 * 9},
		"depthwise":       {conv(4, 4), 4 * 3 * 4 * 9, 2 * 4 * 3 * 4 * 9},
		"first and later": {Sequential{conv(6, 1), ReLU{}, Flatten{}, &Linear{Outputs: 2}}, 4*3*6*36 + 72*2, 2*4*3*6*36 + 3*72*2},
		"residual": {
			Sequential{conv(2, 1), &Residual{Body: conv(8, 1), Shortcut: &Conv2D{Outputs: 8, Kernel: 1, Stride: 2}}},
			4*3*2*36 + 2*2*8*2*9 + 2*2*8*2, 2*4*3*2*36 + 3*2*2*8*2*9 + 3*2*2*8*2,
		},
	} {
		net, err := NewNetwork(c.root, image, 1)
		require.NoError(t, err, name)
		require.Equal(t, c.forward, net.MultiplyAdds(Evaluation), name)
		require.Equal(t, c.forward, net.MultiplyAdds(Calibration), name)
		require.Equal(t, c.training, net.MultiplyAdds(Training), name)
	}
}
