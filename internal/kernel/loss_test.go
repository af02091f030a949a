package kernel

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

func TestReLUGolden(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		golden.Run(t, "layers", "relu", func(t *testing.T, c golden.Case) {
			x := c.Float32("x")
			y, dx := make([]float32, len(x)), make([]float32, len(x))
			ReLU(y, x)
			ReLUGradient(dx, c.Float32("dy"), x)
			require.Equal(t, c.Float32("y"), y)
			require.Equal(t, c.Float32("dx"), dx)
		})
	})
}

func TestCrossEntropyGolden(t *testing.T) {
	golden.Run(t, "layers", "cross_entropy", func(t *testing.T, c golden.Case) {
		target := c.Int32("target")
		logits := packed(c, "logits")
		labels := make([]int32, Blocks(len(target))*Lanes)
		for i := range labels {
			labels[i] = -1
		}
		copy(labels, target)
		for i := range logits { // padded lanes must not matter
			if labels[i/Lanes/c.Int("classes")*Lanes+i%Lanes] < 0 {
				logits[i] = 1e30
			}
		}
		gradient := make([]float32, len(logits))
		loss := CrossEntropy{Classes: c.Int("classes"), Smoothing: c.Number("label_smoothing")}.Loss(gradient, logits, labels)
		images := 1.0 // the mean over images is what the package computes
		if c.Text("reduction") == "sum" {
			images = float64(len(target))
		}
		want := c.Float64("loss")[0]
		require.InDelta(t, want, loss*images, 1e-6*want)
		got := make([]float32, len(c.Float32("dlogits")))
		Unpack(got, gradient, len(target), c.Int("classes"))
		for i, w := range c.Float32("dlogits") {
			require.InDelta(t, w, float64(got[i])*images, 1e-6)
		}
		for i, g := range gradient {
			if labels[i/Lanes/c.Int("classes")*Lanes+i%Lanes] < 0 {
				require.Zero(t, g)
			}
		}
	})
}
