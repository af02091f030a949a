package models

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/torch/checkpoints"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// resnet8Logits are those of the reference's weights on the image of TestResNet8GoldenLogits, computed by independent
// code in float64.
var resnet8Logits = []float64{3.812677, 2.100423, -15.125149, -19.816976, -28.398978, -27.995385, -13.897792, -27.069408, -5.343600, -15.089224}

// TestResNet8GoldenLogits runs the imported network on raw pixels. Padding on the wrong side, another epsilon or a missing bias
// would show.
func TestResNet8GoldenLogits(t *testing.T) {
	tensors, err := ReadTensors(checkpoints.Path(t, "resnet8-mlperf-tiny.safetensors"))
	require.NoError(t, err)
	network, err := New("resnet8", Options{Input: cifar, Classes: 10})
	require.NoError(t, err)
	report, err := Assign(network, tensors)
	require.NoError(t, err)
	require.Equal(t, "48 of 48 parameters matched\n", report.String())

	image := make([]float32, cifar.Len())
	for i := range image {
		image[i] = float32(i * 7919 % 256)
	}
	pass, batch := layers.NewPass(layers.Evaluation, 1), make([]float32, cifar.Len()*kernel.Lanes)
	kernel.Pack(batch, image, 1, cifar.Len())
	out, err := network.Forward(pass, batch)
	require.NoError(t, err)
	require.NoError(t, pass.Refresh())
	machine := gorgonia.NewTapeMachine(pass.Graph)
	defer machine.Close()
	require.NoError(t, machine.RunAll())
	packed, err := quantops.Result(out.Node)
	require.NoError(t, err)
	logits := make([]float32, 10)
	kernel.Unpack(logits, packed, 1, 10)
	for k, want := range resnet8Logits {
		require.InDelta(t, want, logits[k], 2e-4, "class %d", k)
	}
}
