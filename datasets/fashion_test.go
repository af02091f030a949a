package datasets

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFashionMNIST(t *testing.T) {
	split, err := LoadFashionMNIST(realData(t, "fashion-mnist"))
	require.NoError(t, err)
	require.Equal(t, 60000, split.Train.Len())
	require.Equal(t, 10000, split.Test.Len())
	require.Equal(t, []uint16{9, 0, 0, 3, 0, 2, 7, 2}, split.Train.Labels[:8])
	require.Equal(t, []uint16{9, 2, 1, 1, 6, 1, 4, 6}, split.Test.Labels[:8])
	counts, sum := make([]int, 10), 0
	for _, label := range split.Train.Labels {
		counts[label]++
	}
	for _, pixel := range split.Train.Pixels {
		sum += int(pixel)
	}
	require.Equal(t, slices.Repeat([]int{6000}, 10), counts)
	require.InDelta(t, 0.2860, float64(sum)/255/float64(len(split.Train.Pixels)), 5e-5)
	require.Equal(t, "Ankle boot", split.Train.Classes[9])
}

// Files of the right form that are another data set's must not pass for it.
func TestFashionMNISTRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	for _, m := range fashionFiles.Members {
		data := goodImages
		if m.Name[len(m.Name)-len("idx1-ubyte"):] == "idx1-ubyte" {
			data = goodLabels
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, m.Name), data, 0o600))
	}
	_, err := LoadFashionMNIST(dir)
	require.ErrorContains(t, err, "fashion-mnist: folder "+dir+": datasets: train-images-idx3-ubyte: SHA-256 of the uncompressed content is ")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "train-images-idx3-ubyte"), nil, 0o600))
	_, err = LoadFashionMNIST(dir)
	require.ErrorContains(t, err, "train-images-idx3-ubyte: truncated")
}
