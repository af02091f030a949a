package train

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
)

// benches are the two benchmarks.
var benches = map[string]func(context.Context, *layers.Network, int, int) (StepCost, error){"training": BenchTraining, "evaluation": BenchEvaluation}

func TestBench(t *testing.T) {
	for name, bench := range benches {
		for _, method := range []string{"none", "lsq:4"} {
			network, err := smallNetwork(methods(method, method), 8, 1)
			require.NoError(t, err)
			before := append([]float32{}, theta(t, network, "conv2.weight")...)
			cost, err := bench(t.Context(), network, 20, 2)
			require.NoError(t, err)
			require.Len(t, cost.Seconds, 2)
			for _, s := range cost.Seconds {
				require.Positive(t, s)
			}
			require.GreaterOrEqual(t, cost.Bytes, cost.Allocations, "an allocation is at least a byte")
			after := theta(t, network, "conv2.weight")
			if name == "training" {
				require.NotEqual(t, before, after, method)
			} else {
				require.Equal(t, before, after, method)
			}
		}
	}
}

// A step of a search allocates no tensor: neither what the choice is made by, four numbers a weight, nor anything of the
// weights' size.
func TestSearchStepAllocatesNoTensor(t *testing.T) {
	m := methods("lbw:2", "none")
	m.State = layers.StateBatchNorm{On: true, Every: 1}
	root := layers.Sequential{layers.Flatten{}, &layers.Linear{Outputs: 512, Methods: m}, &layers.BatchNorm{}, layers.ReLU{}, &layers.Linear{Outputs: 10}}
	network, err := layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, 1)
	require.NoError(t, err)
	cost, err := BenchTraining(t.Context(), network, 16, 4)
	require.NoError(t, err)
	require.Less(t, cost.Bytes, 4.0*512*784/8, "bytes a step")
}

func TestBenchRefuses(t *testing.T) {
	network, err := smallNetwork(methods("none", "none"), 8, 1)
	require.NoError(t, err)
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for name, bench := range benches {
		_, err := bench(t.Context(), network, 0, 1)
		require.EqualError(t, err, "train: benchmark of 1 steps of 0 images: want at least 1 of each", name)
		_, err = bench(t.Context(), network, 1, -1)
		require.EqualError(t, err, "train: benchmark of -1 steps of 1 images: want at least 1 of each", name)
		_, err = bench(t.Context(), network, 1<<40, 1)
		require.ErrorContains(t, err, "use a smaller batch", name)
		_, err = bench(interrupted, network, 4, 1)
		require.ErrorIs(t, err, ErrInterrupted, name)
	}
}

// The steps to warm up are neither timed nor counted; short ones are more.
func TestTimeSteps(t *testing.T) {
	done := 0
	cost, err := timeSteps(t.Context(), 4, func() error {
		done++
		kept = make([]byte, 1<<20)
		time.Sleep(warmUpTime/warmUp + time.Millisecond)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, warmUp+4, done)
	require.Len(t, cost.Seconds, 4)
	require.InDelta(t, 1<<20, cost.Bytes, 1<<18)

	begin := time.Now()
	cost, err = timeSteps(t.Context(), 4, func() error { return nil })
	require.NoError(t, err)
	require.Len(t, cost.Seconds, 4)
	require.GreaterOrEqual(t, time.Since(begin), warmUpTime)

	_, err = timeSteps(t.Context(), 4, func() error { return errors.ErrUnsupported })
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// kept makes an allocation outlive the step.
var kept []byte
