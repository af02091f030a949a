package layers

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/quantops"
)

// chain is convolutions with everything that waits for the layer after.
func chain(method string) Sequential {
	m := Methods{Weights: quantops.MustParse(method), Activations: quantops.MustParse(method)}
	conv := func() *Conv2D { return &Conv2D{Outputs: 32, Kernel: 3, Pad: 1, NoBias: true, Methods: m} }
	return Sequential{
		conv(), &BatchNorm{}, ReLU{},
		&Residual{Body: Sequential{conv(), &BatchNorm{}, ReLU{}, conv(), &BatchNorm{}}}, ReLU{},
		&Conv2D{Outputs: 5, Kernel: 3, Stride: 2, Pad: 1, Methods: m}, ReLU{},
	}
}

// runChain computes the outputs and all gradients of the chain on noise.
func runChain(t *testing.T, method string, images int, winograd bool) (y []float32, gradients map[string][]float32) {
	pass := NewPass(Training, images)
	pass.winograd = winograd
	p := newProbeOn(t, pass, chain(method), Shape{Channels: 32, Height: 6, Width: 7, Signed: true})
	for name, param := range p.params {
		if strings.HasSuffix(name, ".input.step") {
			param.Data()[0] = 0.25
		}
	}
	p.set(noise(images*p.in.Len(), 1), noise(images*p.out.Len(), 2))
	p.run(t)
	p.run(t) // in buffers that hold something
	return p.output(), p.gradients
}

// Blocks apart, or one step after the other where they are too few for the threads, give the same bits.
func TestTrainingIsTheSameForAnyNumberOfThreads(t *testing.T) {
	for _, method := range []string{"none", "lsq:4", "linear:4"} {
		for _, winograd := range []bool{false, true} {
			var y []float32
			var gradients map[string][]float32
			for _, threads := range []int{1, 2, 3, 5} {
				before := runtime.GOMAXPROCS(threads)
				gotY, got := runChain(t, method, 34, winograd)
				runtime.GOMAXPROCS(before)
				if y == nil {
					y, gradients = gotY, got
				}
				require.True(t, slices.Equal(y, gotY), "%s, %d threads", method, threads)
				for name, want := range gradients {
					require.True(t, slices.Equal(want, got[name]), "%s, %d threads: %s", method, threads, name)
				}
			}
		}
	}
}

// Winograd's algorithm computes the same but for rounding, and over few levels the very same sums.
func TestWinogradTraining(t *testing.T) {
	y, gradients := runChain(t, "none", 20, false)
	fastY, fast := runChain(t, "none", 20, true)
	require.False(t, slices.Equal(y, fastY))
	require.Equal(t, len(gradients), len(fast))
	requireClose(t, wide(y), fastY, 1e-5, "y")
	for name, want := range gradients {
		if want == nil {
			continue
		}
		requireClose(t, wide(want), fast[name], 1e-4, name)
	}
	y, _ = runChain(t, "lsq:4", 20, false)
	fastY, _ = runChain(t, "lsq:4", 20, true)
	require.True(t, slices.Equal(y, fastY))
}

func wide(x []float32) []float64 {
	w := make([]float64, len(x))
	for i, v := range x {
		w[i] = float64(v)
	}
	return w
}
