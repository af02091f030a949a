package datasets

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"runtime"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// idx makes a file of that magic number, declared dimensions and elements, right or wrong.
func idx(magic uint32, dimensions []uint32, elements ...uint8) []byte {
	out := binary.BigEndian.AppendUint32(nil, magic)
	for _, n := range dimensions {
		out = binary.BigEndian.AppendUint32(out, n)
	}
	return append(out, elements...)
}

func compressed(data []byte) []byte {
	var buffer bytes.Buffer
	w := gzip.NewWriter(&buffer)
	_, err := w.Write(data)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err)
	}
	return buffer.Bytes()
}

func changed(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[(len(data)+at)%len(data)] ^= 0x55
	return data
}

var (
	goodImages = idx(magicImages, []uint32{2, 1, 3}, 1, 2, 3, 4, 5, 6)
	goodLabels = idx(magicLabels, []uint32{2}, 1, 0)
)

func TestReadIDX(t *testing.T) {
	for name, wrap := range map[string]func([]byte) []byte{
		"plain":             bytes.Clone,
		"gzip":              compressed,
		"gzip of two parts": func(data []byte) []byte { return append(compressed(data[:7]), compressed(data[7:])...) },
	} {
		t.Run(name, func(t *testing.T) {
			n, h, w, pixels, err := ReadIDXImages(bytes.NewReader(wrap(goodImages)), "images")
			require.NoError(t, err)
			require.Equal(t, []int{2, 1, 3}, []int{n, h, w})
			require.Equal(t, []uint8{1, 2, 3, 4, 5, 6}, pixels)
			labels, err := ReadIDXLabels(iotest.OneByteReader(bytes.NewReader(wrap(goodLabels))), "labels")
			require.NoError(t, err)
			require.Equal(t, []uint8{1, 0}, labels)
		})
	}
}

var idxDefects = map[string]struct {
	data []byte
	want string
}{
	"empty":               {nil, "truncated"},
	"one byte":            {[]byte{0x1f}, "truncated"},
	"truncated header":    {goodImages[:15], "truncated"},
	"no elements":         {goodImages[:16], "truncated: 0 of 6 elements"},
	"truncated elements":  {goodImages[:21], "truncated: 5 of 6 elements"},
	"trailing byte":       {append(bytes.Clone(goodImages), 0), "bytes after the 6 declared elements"},
	"labels for images":   {append(bytes.Clone(goodLabels), make([]byte, 8)...), "magic number 0x00000801; expected 0x00000803"},
	"magic little-endian": {idx(0x03080000, []uint32{2, 1, 3}, 1, 2, 3, 4, 5, 6), "magic number 0x03080000"},
	"floats":              {idx(0x00000d03, []uint32{2, 1, 3}, 1, 2, 3, 4, 5, 6), "magic number 0x00000d03"},
	"zero images":         {idx(magicImages, []uint32{0, 28, 28}), "dimension 0 of 1"},
	"zero height":         {idx(magicImages, []uint32{2, 0, 28}), "dimension 0 of 2"},
	"zero width":          {idx(magicImages, []uint32{2, 28, 0}), "dimension 0 of 3"},
	"oversized":           {idx(magicImages, []uint32{1 << 31, 1, 1}), "dimension 2147483648 of 1"},
	"oversized product":   {idx(magicImages, []uint32{1 << 16, 1 << 8, 1 << 8}), "all together at most 2147483647"},
	"product wraps":       {idx(magicImages, []uint32{1 << 30, 1 << 17, 1 << 17}), "all together at most 2147483647"},
	"large and truncated": {idx(magicImages, []uint32{1, 1, 1<<31 - 1}, 7), "truncated: 1 of 2147483647 elements"},
	"gzip header only":    {compressed(goodImages)[:10], "truncated"},
	"gzip truncated":      {compressed(goodImages)[:20], "truncated"},
	"gzip no checksum":    {compressed(goodImages)[:len(compressed(goodImages))-8], "truncated"},
	"gzip method":         {changed(compressed(goodImages), 2), "corrupt gzip: gzip: invalid header"},
	"gzip block":          {changed(compressed(goodImages), 10), "corrupt gzip: flate: corrupt input"},
	"gzip checksum":       {changed(compressed(goodImages), -8), "corrupt gzip: gzip: invalid checksum"},
	"gzip length":         {changed(compressed(goodImages), -1), "corrupt gzip: gzip: invalid checksum"},
	"gzip trailing":       {append(compressed(goodImages), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), "corrupt gzip: gzip: invalid header"},
	"gzip bomb":           {compressed(append(bytes.Clone(goodImages), make([]byte, 50<<20)...)), "bytes after the 6 declared elements"},
	"gzip in gzip":        {compressed(compressed(goodImages)), "magic number 0x1f8b0800"},
}

func TestReadIDXImagesRefuses(t *testing.T) {
	for name, test := range idxDefects {
		t.Run(name, func(t *testing.T) {
			_, _, _, _, err := ReadIDXImages(bytes.NewReader(test.data), "images.gz")
			require.ErrorContains(t, err, test.want)
			var format *FormatError
			require.ErrorAs(t, err, &format)
			require.Equal(t, "images.gz", format.File)
		})
	}
}

func TestReadIDXLabelsRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"images":    {goodImages, "magic number 0x00000803; expected 0x00000801"},
		"truncated": {goodLabels[:9], "truncated: 1 of 2 elements"},
		"trailing":  {append(bytes.Clone(goodLabels), 0), "bytes after the 2 declared elements"},
		"none":      {idx(magicLabels, []uint32{0}), "dimension 0 of 1"},
		"gzip":      {compressed(goodLabels)[:5], "truncated"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadIDXLabels(bytes.NewReader(test.data), "labels")
			require.ErrorContains(t, err, test.want)
			var format *FormatError
			require.ErrorAs(t, err, &format)
		})
	}
}

func TestReadIDXKeepsOtherErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, sound := range []int{0, 1, 10, 18} {
		_, _, _, _, err := ReadIDXImages(io.MultiReader(bytes.NewReader(goodImages[:sound]), iotest.ErrReader(broken)), "images")
		require.ErrorIs(t, err, broken)
		var format *FormatError
		require.False(t, errors.As(err, &format))
	}
}

// A header alone must not make the reader allocate what it declares.
func TestDeclaredSizeIsNotAllocated(t *testing.T) {
	data := idx(magicImages, []uint32{1, 1, 1<<31 - 1}, 7)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, _, _, err := ReadIDXImages(bytes.NewReader(data), "images")
	runtime.ReadMemStats(&after)
	require.Error(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
}

var like = Dataset{Name: "tiny", Classes: []string{"no", "yes"}, Mean: []float32{0.5}, Std: []float32{0.5}}

func tinyFolder() fstest.MapFS {
	return fstest.MapFS{
		"train-images-idx3-ubyte":    {Data: goodImages},
		"train-labels-idx1-ubyte.gz": {Data: compressed(goodLabels)},
		"t10k-images.idx3-ubyte":     {Data: goodImages},
		"t10k-labels.idx1-ubyte.gz":  {Data: compressed(goodLabels)},
	}
}

func TestLoadIDX(t *testing.T) {
	files, err := FindIDX(tinyFolder())
	require.NoError(t, err)
	require.Equal(t, IDXFiles{
		TrainImages: "train-images-idx3-ubyte", TrainLabels: "train-labels-idx1-ubyte.gz",
		TestImages: "t10k-images.idx3-ubyte", TestLabels: "t10k-labels.idx1-ubyte.gz",
	}, files)
	sum := sha256.Sum256(goodLabels)
	files.Checksums = map[string]string{"train-labels-idx1-ubyte.gz": hex.EncodeToString(sum[:])}
	split, err := LoadIDX(tinyFolder(), files, like)
	require.NoError(t, err)
	want := like
	want.Channels, want.Height, want.Width = 1, 1, 3
	want.Pixels, want.Labels = []uint8{1, 2, 3, 4, 5, 6}, []uint16{1, 0}
	require.Equal(t, &want, split.Train)
	require.Equal(t, &want, split.Test)
}

func TestFindIDXPrefersPlainFiles(t *testing.T) {
	folder := tinyFolder()
	folder["train-labels-idx1-ubyte"] = &fstest.MapFile{Data: goodLabels}
	files, err := FindIDX(folder)
	require.NoError(t, err)
	require.Equal(t, "train-labels-idx1-ubyte", files.TrainLabels)
}

func TestFindIDXNamesTheMissingFile(t *testing.T) {
	for file, want := range map[string]string{
		"train-images-idx3-ubyte":   "no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in the folder",
		"t10k-labels.idx1-ubyte.gz": "no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz in the folder",
	} {
		folder := tinyFolder()
		delete(folder, file)
		_, err := FindIDX(folder)
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

func TestLoadIDXRefuses(t *testing.T) {
	labels := func(elements ...uint8) []byte {
		return idx(magicLabels, []uint32{uint32(len(elements))}, elements...)
	}
	for name, test := range map[string]struct {
		file string
		data []byte
		want string
	}{
		"more labels than images": {"train-labels-idx1-ubyte.gz", labels(0, 1, 0),
			"datasets: train-images-idx3-ubyte: 2 images, but train-labels-idx1-ubyte.gz holds 3 labels"},
		"fewer labels than images": {"t10k-labels.idx1-ubyte.gz", labels(0),
			"datasets: t10k-images.idx3-ubyte: 2 images, but t10k-labels.idx1-ubyte.gz holds 1 labels"},
		"label without class": {"train-labels-idx1-ubyte.gz", labels(0, 2),
			"datasets: tiny: label 2 of image 1; there are 2 classes"},
		"other size": {"t10k-images.idx3-ubyte", idx(magicImages, []uint32{2, 3, 1}, 1, 2, 3, 4, 5, 6),
			"datasets: t10k-images.idx3-ubyte: images of 3×1, but those of train-images-idx3-ubyte are 1×3"},
		"corrupt images": {"train-images-idx3-ubyte", goodImages[:20], "datasets: train-images-idx3-ubyte: truncated"},
		"corrupt gzip":   {"train-images-idx3-ubyte", compressed(goodImages)[:5], "datasets: train-images-idx3-ubyte: truncated"},
		"corrupt labels": {"t10k-labels.idx1-ubyte.gz", goodImages, "magic number 0x00000803; expected 0x00000801"},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := FindIDX(tinyFolder())
			require.NoError(t, err)
			folder := maps.Clone(tinyFolder())
			folder[test.file] = &fstest.MapFile{Data: test.data}
			_, err = LoadIDX(folder, files, like)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestLoadIDXChecksums(t *testing.T) {
	files, err := FindIDX(tinyFolder())
	require.NoError(t, err)
	files.Checksums = map[string]string{"t10k-images.idx3-ubyte": "00"}
	_, err = LoadIDX(tinyFolder(), files, like)
	require.ErrorContains(t, err, "datasets: t10k-images.idx3-ubyte: SHA-256 of the uncompressed content is ")
	folder := tinyFolder()
	folder["t10k-images.idx3-ubyte"] = &fstest.MapFile{Data: goodImages[:17]}
	_, err = LoadIDX(folder, files, like)
	require.ErrorContains(t, err, "truncated")
	delete(folder, "t10k-images.idx3-ubyte")
	_, err = LoadIDX(folder, files, like)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// FuzzReadIDXImages demands that what is accepted is whole.
func FuzzReadIDXImages(f *testing.F) {
	for name, defect := range idxDefects {
		if name != "gzip bomb" {
			f.Add(defect.data)
		}
	}
	f.Add(goodImages)
	f.Add(compressed(goodImages))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, h, w, pixels, err := ReadIDXImages(bytes.NewReader(data), "images")
		if err != nil {
			var format *FormatError
			require.ErrorAs(t, err, &format)
			return
		}
		require.Len(t, pixels, n*h*w)
		require.NotEmpty(t, pixels)
	})
}

// FuzzReadIDXLabels demands that what is accepted is the file, byte for byte.
func FuzzReadIDXLabels(f *testing.F) {
	f.Add(goodLabels)
	f.Add(goodImages)
	f.Add(goodLabels[:9])
	f.Add(idx(magicLabels, []uint32{1<<32 - 1}))
	f.Fuzz(func(t *testing.T, data []byte) {
		labels, err := ReadIDXLabels(bytes.NewReader(data), "labels")
		if err != nil {
			var format *FormatError
			require.ErrorAs(t, err, &format)
			return
		}
		if data[0] != 0x1f {
			require.Equal(t, data, idx(magicLabels, []uint32{uint32(len(labels))}, labels...))
		}
	})
}
