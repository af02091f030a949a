package kernel

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// peak is what the machine's multiply-add units do on one core, in operations a second, measured once per path.
var peak = map[path]float64{}

func measuredPeak() float64 {
	if peak[live] == 0 {
		for range 5 {
			start := time.Now()
			operations := Probe(1 << 18)
			peak[live] = max(peak[live], operations/time.Since(start).Seconds())
		}
	}
	return peak[live]
}

// report adds GFLOP/s and the share of the peak of all threads.
func report(b *testing.B, operations float64) {
	rate := operations * float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate/1e9, "GFLOP/s")
	b.ReportMetric(100*rate/measuredPeak()/float64(runtime.GOMAXPROCS(0)), "%peak")
}

type convBench struct {
	name        string
	batch       int
	in, out     int
	image       int
	kernel      int
	stride, pad int
}

var convBenches = []convBench{
	{"lenet conv1", 64, 1, 6, 28, 5, 1, 2},
	{"lenet conv2", 64, 6, 16, 14, 5, 1, 0},
	{"resnet conv1", 128, 3, 16, 32, 3, 1, 1},
	{"resnet 16x32", 128, 16, 16, 32, 3, 1, 1},
	{"resnet 16-32 stride 2", 128, 16, 32, 32, 3, 2, 1},
	{"resnet 32x16", 128, 32, 32, 16, 3, 1, 1},
	{"resnet 32-64 stride 2", 128, 32, 64, 16, 3, 2, 1},
	{"resnet 64x8", 128, 64, 64, 8, 3, 1, 1},
	{"pointwise 64x8", 128, 64, 64, 8, 1, 1, 0},
	{"vgg 128x16", 64, 128, 128, 16, 3, 1, 1},
}

func BenchmarkConv(b *testing.B) {
	for _, s := range convBenches {
		axis := Axis{In: s.image, Out: (s.image+2*s.pad-s.kernel)/s.stride + 1, Kernel: s.kernel, Stride: s.stride, Before: s.pad}
		operations := 2 * float64(s.batch*s.in*s.out*s.kernel*s.kernel*axis.Out*axis.Out)
		c := convCase{batch: s.batch, in: s.in, out: s.out, groups: 1, rows: axis, columns: axis}
		benchmarkConv(b, s.name, c.conv(), operations)
	}
}

// A depthwise convolution does few multiply-adds per float, so GB/s of x and y, each once, says as much as the share of
// the peak.
func BenchmarkDepthwise(b *testing.B) {
	for _, s := range []struct{ batch, channels, image, kernel, stride int }{{128, 64, 32, 3, 1}, {128, 64, 32, 3, 2}, {128, 256, 8, 3, 1},
		{16, 64, 8, 3, 1}, {16, 64, 16, 3, 2}, {128, 64, 16, 5, 1}} {
		axis := Axis{In: s.image, Out: (s.image-1)/s.stride + 1, Kernel: s.kernel, Stride: s.stride, Before: s.kernel / 2}
		conv := NewConv(Blocks(s.batch), s.channels, s.channels, s.channels, axis, axis)
		operations := 2 * float64(s.batch*s.channels*s.kernel*s.kernel*axis.Out*axis.Out)
		benchmarkConv(b, fmt.Sprintf("%dx%d² batch %d %dx%d stride %d", s.channels, s.image, s.batch, s.kernel, s.kernel, s.stride), conv, operations)
	}
}

func BenchmarkLinear(b *testing.B) {
	for _, s := range [][2]int{{400, 120}, {120, 84}, {84, 10}} {
		benchmarkConv(b, fmt.Sprintf("%d-%d batch 64", s[0], s[1]), NewLinear(4, s[0], s[1]), 2*64*float64(s[0]*s[1]))
	}
}

func benchmarkConv(b *testing.B, name string, conv *Conv, operations float64) {
	stream := rand.New(rand.NewPCG(1, 1))
	x, y, w := aligned(stream, conv.sizes[0]), aligned(stream, conv.sizes[1]), aligned(stream, conv.sizes[2])
	bias := random(stream, conv.groups*conv.outputs)
	for _, k := range []struct {
		name string
		do   func()
	}{
		{"forward", func() { conv.Forward(y, x, w, nil, bias) }},
		{"input gradient", func() { conv.InputGradient(x, y, w) }},
		{"weight gradient", func() { conv.WeightGradient(w, x, y) }},
		{"bias gradient", func() { conv.BiasGradient(bias, y) }},
	} {
		b.Run(name+"/"+k.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.do()
			}
			report(b, operations)
			b.ReportMetric(4*float64(len(x)+len(y))*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
		})
	}
}

// aligned is random at the start of an allocation, as tensors are: a vector that straddles two cache lines costs double.
func aligned(stream *rand.Rand, n int) []float32 {
	return append([]float32(nil), random(stream, n)...)
}

// The images of one layer of ResNet-20's first stage, batch 128.
const benchElements = 8 * 16 * 32 * 32 * Lanes

func BenchmarkElementwise(b *testing.B) {
	stream := rand.New(rand.NewPCG(1, 1))
	x, y, z := aligned(stream, benchElements), aligned(stream, benchElements), aligned(stream, benchElements)
	for _, k := range elementwiseKernels {
		b.Run(k.name, func(b *testing.B) {
			b.SetBytes(4 * benchElements)
			for b.Loop() {
				k.run(y, x, z)
			}
		})
	}
	b.Run("Range", func(b *testing.B) {
		b.SetBytes(4 * benchElements)
		for b.Loop() {
			Range(x, Dense(len(x)))
		}
	})
}

// The passes of a residual network that are no convolutions, over the images of one layer of ResNet-20's first stage.
// GB/s counts what a pass has to read and write.
func BenchmarkResidual(b *testing.B) {
	stream := rand.New(rand.NewPCG(1, 1))
	x, y, z := aligned(stream, benchElements), aligned(stream, benchElements), aligned(stream, benchElements)
	norm := &BatchNorm{Images: 128, Channels: 16, Size: 32 * 32}
	sums, products, planes := make([]float64, norm.Channels), make([]float64, norm.Channels), norm.NewSums()
	p, q, r := random(stream, norm.Channels), random(stream, norm.Channels), random(stream, norm.Channels)
	sample := &Sample{Blocks: 8, Channels: 16, Height: 32, Width: 32, Stride: 2, Before: 8, After: 8}
	plane := Axis{In: 32, Out: 1, Kernel: 32, Stride: 1}
	global := &Window{Planes: 8 * 16, Rows: plane, Columns: plane}
	for _, k := range []struct {
		name    string
		tensors float64 // of the full size that it reads and writes
		do      func()
	}{
		{"Statistics", 1, func() { norm.Statistics(sums, products, x) }},
		{"Affine", 2, func() { norm.each(func(b, c int) { Affine(norm.at(y, b, c), norm.at(x, b, c), p[c], q[c]) }) }},
		{"AddGradients", 2, func() {
			norm.each(func(b, c int) { norm.AddGradients(planes, b, c, norm.at(y, b, c), norm.at(x, b, c), p[c], true, true) })
		}},
		{"NormGradient", 3, func() {
			norm.each(func(b, c int) {
				NormGradient(norm.at(y, b, c), norm.at(z, b, c), norm.at(x, b, c), p[c], q[c], r[c])
			})
		}},
		{"copy", 2, func() { chunks(len(x), func(from, to int) { copy(y[from:to], x[from:to]) }) }}, // what memory allows
		{"Add", 3, func() { Add(y, x, z) }},
		{"Add in place", 3, func() { Add(y, y, x) }},
		{"Add 3", 4, func() { Add(y, y, x, z) }},
		{"Sample", 0.75, func() { sample.Forward(y[:benchElements/2], x) }},
		{"Sample gradient", 1.25, func() { sample.Gradient(y, x[:benchElements/2]) }},
		{"global Average", 1, func() { global.Average(y, x) }},
		{"global AverageGradient", 1, func() { global.AverageGradient(y, x) }},
		{"Finite", 1, func() { Finite(x) }},
		{"MeanAbsolute", 1, func() { MeanAbsolute(x, Dense(len(x))) }},
	} {
		b.Run(k.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.do()
			}
			b.ReportMetric(4*benchElements*k.tensors*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
		})
	}
}

func BenchmarkPool(b *testing.B) {
	stream := rand.New(rand.NewPCG(1, 1))
	axis := Axis{In: 32, Out: 16, Kernel: 2, Stride: 2}
	w := &Window{Planes: 8 * 16, Rows: axis, Columns: axis}
	x, y, tap := aligned(stream, benchElements), aligned(stream, benchElements/4), make([]uint16, benchElements/4)
	for _, k := range []struct {
		name string
		do   func()
	}{
		{"Max", func() { w.Max(y, tap, x) }},
		{"MaxGradient", func() { w.MaxGradient(x, y, tap) }},
		{"Average", func() { w.Average(y, x) }},
		{"AverageGradient", func() { w.AverageGradient(x, y) }},
	} {
		b.Run(k.name, func(b *testing.B) {
			b.SetBytes(4 * benchElements)
			for b.Loop() {
				k.do()
			}
		})
	}
}

func BenchmarkCrossEntropy(b *testing.B) {
	stream := rand.New(rand.NewPCG(1, 1))
	logits, gradient, labels := aligned(stream, 8*10*Lanes), make([]float32, 8*10*Lanes), make([]int32, 8*Lanes)
	for b.Loop() {
		CrossEntropy{Classes: 10}.Loss(gradient, logits, labels)
	}
}

func BenchmarkPack(b *testing.B) {
	images, blocks := make([]float32, 128*3*32*32), make([]float32, 128*3*32*32)
	b.SetBytes(int64(4 * len(images)))
	for b.Loop() {
		Pack(blocks, images, 128, 3*32*32)
	}
}
