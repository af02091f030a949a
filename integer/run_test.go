package integer_test

import (
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
