package models

import (
	"math"
	"testing"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/torch/checkpoints"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
)

var cifar = layers.Shape{Channels: 3, Height: 32, Width: 32, Signed: true}

func TestParameters(t *testing.T) {
	t.Parallel()
	// Weights, biases, scales and offsets: the papers' 0.27M, 0.46M, 0.66M and 0.85M for ResNets.
	for name, want := range map[string]int{"resnet20": 269722, "resnet32": 464154, "resnet44": 658586, "resnet56": 853018, "resnet20b": 272474, "resnet20p": 270410, "resnet8": 78186, "vggsmall": 4660106, "mobilenet": 274506} {
		network, err := New(name, Options{Input: cifar, Classes: 10})
		require.NoError(t, err)
		count := 0
		for _, p := range network.Params() {
			if p.Kind == quantops.Learned {
				count += len(p.Data())
			}
		}
		require.Equal(t, want, count, name)
	}
}

// TestResNet20GoldenLogits runs the imported network on the first golden image.
func TestResNet20GoldenLogits(t *testing.T) {
	path := checkpoints.Path(t, "resnet20-12fca82f.th")
	tensors, err := ReadTensors(path)
	require.NoError(t, err)
	network, err := New("resnet20", Options{Input: cifar, Classes: 10})
	require.NoError(t, err)
	report, err := Assign(network, tensors)
	require.NoError(t, err, report)
	c := golden.Load(t, "resnet20")[0]

	pass := layers.NewPass(layers.Evaluation, 1)
	images := make([]float32, cifar.Len()*kernel.Lanes)
	kernel.Pack(images, c.Float32("input_first"), 1, cifar.Len())
	out, err := network.Forward(pass, images)
	require.NoError(t, err)
	require.NoError(t, pass.Refresh())
	machine := gorgonia.NewTapeMachine(pass.Graph)
	defer machine.Close()
	require.NoError(t, machine.RunAll())
	packed, err := quantops.Result(out.Node)
	require.NoError(t, err)
	logits := make([]float32, 10)
	kernel.Unpack(logits, packed, 1, 10)
	for k, want := range c.Float32("logits")[:10] {
		require.LessOrEqual(t, math.Abs(float64(logits[k]-want)), 2e-4, "class %d", k)
	}
}
