package quantops

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
)

// streamed returns the Gram matrix of samples of rectified inputs, nine taps of each channel alike, and how long the
// matrix took.
func streamed(stream *rand.Rand, inputs, samples int) (Moments, time.Duration) {
	panel, gram := kernel.NewPanel(inputs), kernel.NewMoments(inputs, inputs)
	plan := kernel.NewLinear(1, inputs, 1)
	x := make([]float32, inputs*kernel.Lanes)
	var took time.Duration
	flush := func() {
		start := time.Now()
		gram.Add(panel, panel)
		panel.Reset()
		took += time.Since(start)
	}
	for range samples / kernel.Lanes {
		for lane := range kernel.Lanes {
			channel := 0.0
			for i := range inputs {
				if i%9 == 0 {
					channel = stream.NormFloat64()
				}
				x[i*kernel.Lanes+lane] = float32(max(0, channel+0.7*stream.NormFloat64()))
			}
		}
		if plan.Patch(panel, x, 0, 0, 0, kernel.Lanes, 1); panel.Full() {
			flush()
		}
	}
	flush()
	gram.Mirror()
	return Moments{Samples: gram.Samples, Inputs: inputs, Gram: gram.Sums}, took
}

// resnet18 are the convolutions of ResNet-18 by weights of an output and outputs, and how many there are of each.
var resnet18 = []struct{ inputs, outputs, count int }{
	{147, 64, 1}, {576, 64, 4}, {576, 128, 1}, {64, 128, 1}, {1152, 128, 3}, {1152, 256, 1}, {128, 256, 1},
	{2304, 256, 3}, {2304, 512, 1}, {256, 512, 1}, {4608, 512, 3},
}

// BenchmarkBitsplitLayer searches for the weights of one layer: bitsplit:4, 12,000 samples. Its metrics are the
// seconds of the Gram matrix and of the search, sweeps, and the error as a share of that of rounding.
func BenchmarkBitsplitLayer(b *testing.B) {
	for _, l := range resnet18 {
		b.Run(fmt.Sprintf("%dx%d", l.outputs, l.inputs), func(b *testing.B) { benchmarkSearch(b, l.inputs, l.outputs, 1) })
	}
}

// BenchmarkBitsplitResNet18 does all the convolutions of ResNet-18, each with its Gram matrix; the samples come on top.
func BenchmarkBitsplitResNet18(b *testing.B) {
	for range b.N {
		total, search := 0.0, 0.0
		for _, l := range resnet18 {
			gram, solved := benchmarkSearch(b, l.inputs, l.outputs, l.count)
			total, search = total+gram+solved, search+solved
		}
		b.ReportMetric(total, "s")
		b.ReportMetric(search, "search-s")
	}
}

// benchmarkSearch returns the seconds of the Gram matrices and searches of some equal layers.
func benchmarkSearch(b *testing.B, inputs, outputs, count int) (gram, search float64) {
	stream := rand.New(rand.NewPCG(uint64(inputs), uint64(outputs)))
	var s Solution
	for range count {
		m, took := streamed(stream, inputs, 12_000)
		w, theta := make([]float32, outputs*inputs), make([]float32, outputs)
		for i := range w {
			w[i] = float32(stream.NormFloat64())
		}
		q, err := MustParse("bitsplit:4").Quantizer(Target{Role: Weights, Channels: outputs, Size: len(w), Signed: true})
		require.NoError(b, err)
		start := time.Now()
		s, err = q.(Solver).Solve(w, theta, []Moments{m})
		require.NoError(b, err)
		gram, search = gram+took.Seconds(), search+time.Since(start).Seconds()
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	b.ReportMetric(gram, "gram-s")
	b.ReportMetric(search, "search-s")
	b.ReportMetric(float64(s.Sweeps), "sweeps")
	b.ReportMetric(s.Error/s.Start, "of-rounding")
	b.ReportMetric(float64(memory.Sys)/(1<<20), "MiB")
	return gram, search
}
