package datasets

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireBatch compares a batch with its definition.
func requireBatch(t *testing.T, want *Sampler, d *Dataset, a Augmentation, batch, step int, got Batch) {
	t.Helper()
	indices := want.Batch(step)
	images, labels := make([]float32, len(got.Images)), make([]int32, len(got.Labels))
	d.FillAugmented(images, labels, indices, a, 7, step*batch)
	require.Equal(t, indices, got.Indices)
	require.Equal(t, images, got.Images)
	require.Equal(t, labels, got.Labels)
}

func TestLoaderIsFillAugmented(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	d := sample(50)
	for _, processors := range []int{1, 2, 5} {
		runtime.GOMAXPROCS(processors)
		for _, batch := range []int{1, 16, 20, 70} {
			a := Augmentation{Pad: 2, Flip: true}
			sampler, err := NewSampler(50, batch, 7)
			require.NoError(t, err)
			l, err := NewLoader(d, batch, 7, a)
			require.NoError(t, err)
			for _, step := range []int{0, 1, 2, 3, 3, 10, 11, 12, 13, 14, 4, 0, 1, 100, 2, 3} {
				requireBatch(t, sampler, d, a, batch, step, l.Next(step))
			}
			l.Close()
			l.Close()
			require.Panics(t, func() { l.Next(4) })
		}
	}
}

func TestLoaderStartsAtAnyStep(t *testing.T) {
	d := sample(50)
	sampler, err := NewSampler(50, 20, 7)
	require.NoError(t, err)
	l, err := NewLoader(d, 20, 7, Augmentation{})
	require.NoError(t, err)
	defer l.Close()
	for step := 37; step < 50; step++ {
		requireBatch(t, sampler, d, Augmentation{}, 20, step, l.Next(step))
	}
	require.Panics(t, func() { l.Next(-1) })
}

func TestLoaderEndsItsGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		l, err := NewLoader(sample(50), 20, 7, Augmentation{})
		require.NoError(t, err)
		l.Next(3) // leaves two batches prepared or in preparation
		l.Close()
		select {
		case <-l.stopped:
		default:
			require.Fail(t, "Close returned before the end")
		}
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before+1)
}

func TestLoaderAllocatesNothing(t *testing.T) {
	d := sample(100000)
	l, err := NewLoader(d, 64, 7, Augmentation{Pad: 2, Flip: true})
	require.NoError(t, err)
	defer l.Close()
	step := 0
	for ; step < 10; step++ {
		l.Next(step)
	}
	allocated := testing.AllocsPerRun(100, func() {
		l.Next(step)
		step++
	})
	require.Zero(t, allocated)
}

func TestLoaderRefuses(t *testing.T) {
	d := sample(4)
	_, err := NewLoader(d, 0, 1, Augmentation{})
	require.ErrorContains(t, err, "batch of 0 images")
	_, err = NewLoader(d, maxElements/2, 1, Augmentation{})
	require.ErrorContains(t, err, "images of 2×3×5; at most 71582784 are possible")
	_, err = NewLoader(d, 4, 1, Augmentation{Pad: 3})
	require.ErrorContains(t, err, "augmentation pads by 3")
	d.Labels[0] = 9
	_, err = NewLoader(d, 4, 1, Augmentation{})
	require.ErrorContains(t, err, "label 9 of image 0")
}
