package integer_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// build returns one of the shared networks and random images for it.
func build(t *testing.T, name string, seed uint64, images int) (*integer.Model, []uint8) {
	m := newMirror(t, seed, networkInputs[name])
	model, _ := m.output(networks[name](m))
	return model, m.randomImages(images)
}

func TestRunEqualsTraceForAnyNumberOfThreads(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for name := range networks {
		model, images := build(t, name, 21, 17)
		var want []int32
		for image := range slices.Chunk(images, model.Input.Len()) {
			trace, err := model.Program.Trace(image)
			require.NoError(t, err)
			want = append(want, trace[len(trace)-1].Values...)
		}
		for _, threads := range []int{1, 2, 5} {
			runtime.GOMAXPROCS(threads)
			got, err := model.Program.Run(images)
			require.NoError(t, err)
			require.Equal(t, want, got, "%s on %d threads", name, threads)
		}
	}
}

func TestRunOfNoImages(t *testing.T) {
	model, _ := build(t, "averaging", 22, 0)
	logits, err := model.Program.Run(nil)
	require.NoError(t, err)
	require.Empty(t, logits)
}

func TestRunRefuses(t *testing.T) {
	model, images := build(t, "averaging", 22, 1)
	_, err := model.Program.Run(images[1:])
	require.EqualError(t, err, "integer: 167 pixels: want a multiple of 168, for images of 4x6x7")
	_, err = model.Program.Trace(images[1:])
	require.EqualError(t, err, "integer: 167 pixels: want 168, for an image of 4x6x7")
	_, err = (&integer.Program{}).Run(images)
	require.ErrorContains(t, err, "input of shape 0x0x0")
	_, err = (&integer.Program{}).Trace(images)
	require.Error(t, err)
}

func TestArgmaxTakesTheLowestOfEquals(t *testing.T) {
	require.Equal(t, []int{1, 0, 2}, integer.Argmax([]int32{-3, 5, 5, 0, 0, 0, -9, -9, -8}, 3))
}

func TestCost(t *testing.T) {
	model, _ := build(t, "lenet", 23, 0)
	cost, err := model.Program.Cost()
	require.NoError(t, err)
	convolutions, matrices := 28*28*150+100*2400, 400*120+120*84+84*10
	pooling := 4 * (6*14*14 + 16*5*5)
	require.EqualValues(t, convolutions+matrices+pooling, cost.Operations)
	_, err = (&integer.Program{}).Cost()
	require.Error(t, err)
}

// BenchmarkLeNet runs LeNet-5 on 28x28 images, 416 520 multiply-accumulates each, on all cores.
func BenchmarkLeNet(b *testing.B) {
	m := newMirror(b, 24, networkInputs["lenet"])
	model, _ := m.output(lenet(m))
	images := m.randomImages(256)
	b.ReportAllocs()
	for b.Loop() {
		_, err := model.Program.Run(images)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.N)*256/b.Elapsed().Seconds(), "images/s")
}

// resNet20 is ResNet-20 for CIFAR-10 images with weights of the given width, activations on a grid, shortcuts of option A and
// a wide residual stream: 40.5 million multiply-accumulates.
func resNet20(m *mirror, bits uint8, grid integer.Grid) twin {
	same := integer.ConvGeometry{PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	x := m.conv("stem", m.image(asymmetric(0.02)), m.weights(8, 1, 16, 3, 3, 3), m.bias(16), same)
	x = m.widen(m.relu(m.scale(x, false)))
	for i := range 9 {
		channels, stride := 16<<(i/3), 1
		shortcut := x
		if i == 3 || i == 6 {
			stride = 2
			shortcut = m.sample(x, 2, channels/4, channels/4)
		}
		first := same
		first.StrideHeight, first.StrideWidth = stride, stride
		y := m.quantize(x, grid)
		y = m.conv(fmt.Sprint(i, "a"), y, m.weights(bits, 1, channels, x.value.Shape().Channels, 3, 3), nil, first)
		y = m.quantize(m.relu(m.scale(y, false)), grid)
		y = m.conv(fmt.Sprint(i, "b"), y, m.weights(bits, 1, channels, channels, 3, 3), nil, same)
		x = m.relu(m.add(m.scale(y, false), shortcut))
	}
	x = m.quantize(m.flatten(m.pool(x, integer.Window{Height: 8, Width: 8}, true)), unsigned(8, 0.01))
	return m.linear("last", x, m.weights(8, 1, 10, 64), m.bias(10))
}

// BenchmarkResNet20 is the time of one image in batches of a size, on all cores.
func BenchmarkResNet20(b *testing.B) {
	for _, c := range []struct {
		name string
		bits uint8
		grid integer.Grid
	}{
		{"W4A4", 4, unsigned(4, 1./8)}, {"W8A8", 8, unsigned(8, 1./128)},
		{"W4A4unequal", 4, apot(1. / 24)}, {"W8A8twoplanes", 8, logarithmic(1./16384, 16, 127)},
	} {
		m := newMirror(b, 25, integer.Shape{Channels: 3, Height: 32, Width: 32})
		model, _ := m.output(resNet20(m, c.bits, c.grid))
		for _, batch := range []int{1, 16, 10000} {
			images := m.randomImages(batch)
			b.Run(fmt.Sprintf("%s/%d", c.name, batch), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, err := model.Program.Run(images)
					require.NoError(b, err)
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*batch), "us/image")
			})
		}
	}
}

// A model with float activations has no program; its user gets an error.
func TestRunWithoutProgram(t *testing.T) {
	t.Parallel()
	_, err := new(integer.Model).Program.Run(make([]uint8, 4))
	require.EqualError(t, err, "integer: the model has no program: its activations stay real, it holds codes and tables alone")
}
