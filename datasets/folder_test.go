package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"image/jpeg"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// pictureFolder writes one gray 2×2 picture of that value for every path, below a new folder.
func pictureFolder(t *testing.T, pictures map[string]uint8) string {
	dir := t.TempDir()
	for name, value := range pictures {
		picture := gray(2, 2, bytes.Repeat([]uint8{value}, 4))
		var buffer bytes.Buffer
		if filepath.Ext(name) == ".png" {
			buffer.Write(pngOf(t, picture))
		} else {
			require.NoError(t, jpeg.Encode(&buffer, picture, nil))
		}
		put(t, dir, name, buffer.Bytes())
	}
	return dir
}

func put(t *testing.T, dir, name string, data []byte) {
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// firsts are the first pixels of the images, which tell them apart.
func firsts(d *Dataset) []uint8 {
	var out []uint8
	for i := range d.Len() {
		out = append(out, d.Image(i)[0])
	}
	return out
}

func TestLoadFolderWithParts(t *testing.T) {
	dir := pictureFolder(t, map[string]uint8{
		"train/dog/b.png": 20, "train/dog/a.JPG": 10, "train/cat/z.jpeg": 5, "test/dog/x.png": 30,
	})
	put(t, dir, "train/dog/Thumbs.db", []byte("x"))
	put(t, dir, "train/dog/.hidden.png", []byte("x"))
	put(t, dir, "train/.cache/x.png", []byte("x"))
	put(t, dir, "readme.txt", []byte("x"))
	split, err := LoadFolder(dir, 3, 4, 2)
	require.NoError(t, err)
	require.Equal(t, []string{"cat", "dog"}, split.Train.Classes)
	require.Equal(t, split.Train.Classes, split.Test.Classes)
	require.Equal(t, []uint8{5, 10, 20}, firsts(split.Train))
	require.Equal(t, []uint16{0, 1, 1}, split.Train.Labels)
	require.Equal(t, []uint8{30}, firsts(split.Test))
	require.Equal(t, []uint16{1}, split.Test.Labels)
	require.Equal(t, []int{3, 4, 2}, []int{split.Test.Channels, split.Test.Height, split.Test.Width})
	require.Equal(t, float32(1), split.Test.PixelTable(2)[255])
}

func TestLoadFolderDividesClasses(t *testing.T) {
	pictures := map[string]uint8{"a/0.png": 100}
	for i := range 13 {
		pictures[fmt.Sprintf("b/%02d.png", i)] = uint8(i)
	}
	dir := pictureFolder(t, pictures)
	split, err := LoadFolder(dir, 1, 2, 2)
	require.NoError(t, err)
	require.Equal(t, []uint8{1, 6, 11}, firsts(split.Test))
	require.Equal(t, []uint8{100, 0, 2, 3, 4, 5, 7, 8, 9, 10, 12}, firsts(split.Train))
	require.Equal(t, []uint16{1, 1, 1}, split.Test.Labels)
}

func TestLoadFolderIsRegistered(t *testing.T) {
	spec, err := Lookup("folder")
	require.NoError(t, err)
	_, err = spec.Load("")
	require.EqualError(t, err, "datasets: folder: name the folder of your pictures")
	split, err := spec.Load(pictureFolder(t, map[string]uint8{"a/0.png": 1, "a/1.png": 2}))
	require.NoError(t, err)
	require.Equal(t, []int{3, 32, 32}, []int{split.Train.Channels, split.Train.Height, split.Train.Width})
}

func TestLoadFolderRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		pictures map[string]uint8
		want     string
	}{
		"nothing":         {nil, "datasets: 0 folders of classes in "},
		"no classes":      {map[string]uint8{"a.png": 1}, "0 folders of classes"},
		"empty class":     {map[string]uint8{"a/0.png": 1, "b/c/0.png": 1}, "is a folder within a class"},
		"no pictures":     {map[string]uint8{"a/0.gif": 1}, "no .png, .jpg or .jpeg files in "},
		"one of each":     {map[string]uint8{"a/0.png": 1, "b/0.png": 1}, "no pictures for the test part"},
		"train alone":     {map[string]uint8{"train/a/0.png": 1}, "train and test must both be there, or neither"},
		"test alone":      {map[string]uint8{"test/a/0.png": 1}, "train and test must both be there, or neither"},
		"other test":      {map[string]uint8{"train/a/0.png": 1, "test/b/0.png": 1}, "test holds the class b, which train does not"},
		"no test picture": {map[string]uint8{"train/a/0.png": 1, "test/a/0.txt": 1}, "no pictures for the test part"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := pictureFolder(t, test.pictures)
			_, err := LoadFolder(dir, 1, 2, 2)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "folder "+dir+": ")
		})
	}
	_, err := LoadFolder(filepath.Join(t.TempDir(), "missing"), 1, 2, 2)
	require.ErrorIs(t, err, os.ErrNotExist)
	dir := pictureFolder(t, map[string]uint8{"a/0.png": 1, "a/1.png": 2})
	for _, size := range [][3]int{{0, 2, 2}, {1, -1, 2}, {1, 2, 0}, {3, 1 << 20, 1 << 20}, {1 << 40, 1 << 40, 2}} {
		_, err := LoadFolder(dir, size[0], size[1], size[2])
		require.ErrorContains(t, err, "1 to 2147483647 pixels are possible", "%v", size)
	}
	_, err = LoadFolder(dir, 2, 2, 2)
	require.ErrorContains(t, err, "2 channels; 1 (gray) and 3")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "2.png"), 0o755))
	_, err = LoadFolder(dir, 1, 2, 2)
	require.ErrorContains(t, err, "is a folder within a class")
}

// Of several broken pictures the first in order is reported, on any number of processors.
func TestLoadFolderReportsTheFirstBrokenPicture(t *testing.T) {
	pictures := map[string]uint8{}
	for i := range 40 {
		pictures[fmt.Sprintf("a/%02d.png", i)] = uint8(i)
	}
	dir := pictureFolder(t, pictures)
	for _, broken := range []string{"a/05.png", "a/07.png", "a/39.png"} {
		put(t, dir, broken, []byte("no picture"))
	}
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	for _, processors := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(processors)
		for range 10 {
			_, err := LoadFolder(dir, 1, 2, 2)
			var format *FormatError
			require.ErrorAs(t, err, &format)
			require.Equal(t, filepath.Join(dir, "a", "05.png"), format.File)
		}
	}
}

func TestInParallel(t *testing.T) {
	var calls atomic.Int64
	require.NoError(t, inParallel(1000, func(int) error { calls.Add(1); return nil }))
	require.EqualValues(t, 1000, calls.Load())
	require.NoError(t, inParallel(0, func(int) error { return errors.New("never") }))
}
