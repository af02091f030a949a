package train

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

// The loss and its gradient come out of the graph as the reference has them, padded lanes left out.
func TestCrossEntropyMatchesReference(t *testing.T) {
	golden.Run(t, "layers", "cross_entropy", func(t *testing.T, c golden.Case) {
		shape, targets := c.Shape("logits"), c.Int32("target")
		n, classes := shape[0], shape[1]
		blocks := kernel.Blocks(n)
		packed := make([]float32, blocks*classes*kernel.Lanes)
		kernel.Pack(packed, c.Float32("logits"), n, classes)
		f := &crossEntropy{loss: kernel.CrossEntropy{Classes: classes, Smoothing: c.Number("label_smoothing")}, labels: make([]int32, blocks*kernel.Lanes)}
		for i := range f.labels {
			f.labels[i] = -1
		}
		copy(f.labels, targets)

		g := gorgonia.NewGraph()
		logits := gorgonia.NewTensor(g, tensor.Float32, 5, gorgonia.WithName("logits"), gorgonia.WithShape(blocks, classes, 1, 1, kernel.Lanes),
			gorgonia.WithValue(tensor.New(tensor.WithShape(blocks, classes, 1, 1, kernel.Lanes), tensor.WithBacking(packed))))
		loss, err := f.apply(logits)
		require.NoError(t, err)
		gradients, err := gorgonia.Grad(loss, logits)
		require.NoError(t, err)
		value, err := result(loss)
		require.NoError(t, err)
		gradient, err := result(gradients[0])
		require.NoError(t, err)
		machine := gorgonia.NewTapeMachine(g)
		defer machine.Close()
		require.NoError(t, machine.RunAll())

		scale := 1.0 // the reference's sum is the mean of n images
		if c.Text("reduction") == "sum" {
			scale = float64(n)
		}
		require.InEpsilon(t, c.Float64("loss")[0], scale*float64(value[0]), 1e-6)
		got := make([]float32, n*classes)
		kernel.Unpack(got, gradient, n, classes)
		for i, want := range c.Float32("dlogits") {
			require.InDelta(t, want, scale*float64(got[i]), 1e-6, "element %d", i)
		}
		for i := range gradient {
			if image := i/kernel.Lanes/classes*kernel.Lanes + i%kernel.Lanes; image >= n {
				require.Zero(t, gradient[i], "padded lane, element %d", i)
			}
		}
	})
}

// The first loss that a trainer reports is the smoothed cross-entropy of its first batch, here of all images.
func TestTrainerSmoothsLabels(t *testing.T) {
	d := digits(t, 20, 1).Train
	for _, smoothing := range []float64{0, 0.1, 1} {
		network, err := smallNetwork(methods("none", "none"), 0, 1)
		require.NoError(t, err)
		evaluator, err := NewEvaluator(network, 20)
		require.NoError(t, err)
		indices := make([]int, 20)
		for i := range indices {
			indices[i] = i
		}
		logits, err := evaluator.Logits(d, indices)
		require.NoError(t, err)
		want := 0.0
		for i := range indices {
			want += smoothedLoss(logits[i*10:][:10], int(d.Labels[i]), smoothing) / 20
		}
		var got float64
		trainer := Trainer{Network: network, Data: d, Epochs: 1, Batch: 20, Smoothing: smoothing,
			AfterStep: func(s Step) error { got = s.Loss; return nil }}
		require.NoError(t, trainer.Run(context.Background()))
		require.InEpsilon(t, want, got, 1e-6, "smoothing %v", smoothing)
	}
}

// smoothedLoss is -Σ t·log softmax with t = (1-e)·onehot + e/classes.
func smoothedLoss(logits []float32, label int, smoothing float64) float64 {
	sum, loss := 0.0, 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l))
	}
	for k, l := range logits {
		target := smoothing / float64(len(logits))
		if k == label {
			target += 1 - smoothing
		}
		loss -= target * (float64(l) - math.Log(sum))
	}
	return loss
}
