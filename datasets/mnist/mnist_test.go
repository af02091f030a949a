package mnist

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
)

func TestLoadEmbedded(t *testing.T) {
	spec, err := datasets.Lookup("mnist")
	require.NoError(t, err)
	split, err := spec.Load("")
	require.NoError(t, err)
	for _, part := range []struct {
		set    *datasets.Dataset
		images int
		labels []uint16 // the first ones, as published
		counts []int    // images of each digit, as published
		mean   float64  // of pixel/255, the figure in general use
	}{
		{split.Train, 60000, []uint16{5, 0, 4, 1, 9, 2, 1, 3}, []int{5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949}, 0.1307},
		{split.Test, 10000, []uint16{7, 2, 1, 0, 4, 1, 4, 9}, []int{980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009}, 0.1325},
	} {
		d := part.set
		require.NoError(t, d.Validate())
		require.Equal(t, part.images, d.Len())
		require.Equal(t, []int{1, 28, 28}, []int{d.Channels, d.Height, d.Width})
		require.Equal(t, part.labels, d.Labels[:8])
		counts := make([]int, 10)
		for _, label := range d.Labels {
			counts[label]++
		}
		require.Equal(t, part.counts, counts)
		sum := 0
		for _, pixel := range d.Pixels {
			sum += int(pixel)
		}
		require.InDelta(t, part.mean, float64(sum)/255/float64(len(d.Pixels)), 5e-5)
		require.Equal(t, "7", d.Classes[7])
		table := d.PixelTable(0)
		require.Equal(t, []float32{0, 1}, []float32{table[0], table[255]})
	}
}

func TestLoadFolder(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{
		"train-images-idx3-ubyte": "\x00\x00\x08\x03\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02\x0a\x14",
		"train-labels-idx1-ubyte": "\x00\x00\x08\x01\x00\x00\x00\x01\x03",
		"t10k-images-idx3-ubyte":  "\x00\x00\x08\x03\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02\x1e\x28",
		"t10k-labels-idx1-ubyte":  "\x00\x00\x08\x01\x00\x00\x00\x01\x09",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
	}
	split, err := Load(folder)
	require.NoError(t, err)
	require.Equal(t, []uint8{10, 20}, split.Train.Pixels)
	require.Equal(t, []uint16{9}, split.Test.Labels)

	require.NoError(t, os.WriteFile(filepath.Join(folder, "t10k-labels-idx1-ubyte"), nil, 0o600))
	_, err = Load(folder)
	require.EqualError(t, err, "mnist: folder "+folder+": datasets: t10k-labels-idx1-ubyte: truncated")
	_, err = Load(t.TempDir())
	require.ErrorContains(t, err, "no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in the folder")
	_, err = Load(filepath.Join(folder, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, err := Load("")
		require.NoError(b, err)
	}
}
