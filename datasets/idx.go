package datasets

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// The IDX format of MNIST: two zero bytes, a type (8: unsigned byte), the number of dimensions, a big-endian uint32 for
// each dimension, then the elements. Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
const (
	magicLabels = 0x00000801
	magicImages = 0x00000803
)

const (
	firstRead = 1 << 20 // bounds what a header alone can make the reader allocate
	growth    = 64      // how much more than it has read the reader may allocate next
)

// FormatError says what is wrong with the content of a file.
type FormatError struct{ File, Reason string }

func (e *FormatError) Error() string { return "datasets: " + e.File + ": " + e.Reason }

func formatErrorf(file, format string, args ...any) error {
	return &FormatError{File: file, Reason: fmt.Sprintf(format, args...)}
}

// ReadIDXImages reads unsigned bytes of three dimensions, plain or compressed by gzip. pixels is [n][h][w], each of n,
// h and w is at least 1. name stands for r in errors; what is wrong with the content is a *FormatError.
func ReadIDXImages(r io.Reader, name string) (n, h, w int, pixels []uint8, err error) {
	plain, err := uncompressed(r, name)
	if err != nil {
		return 0, 0, 0, nil, err
	}
	dimensions, pixels, err := readIDX(plain, name, magicImages)
	if err != nil {
		return 0, 0, 0, nil, err
	}
	return dimensions[0], dimensions[1], dimensions[2], pixels, nil
}

// ReadIDXLabels reads at least one unsigned byte of one dimension, plain or compressed by gzip. name stands for r in
// errors; what is wrong with the content is a *FormatError.
func ReadIDXLabels(r io.Reader, name string) ([]uint8, error) {
	plain, err := uncompressed(r, name)
	if err != nil {
		return nil, err
	}
	_, labels, err := readIDX(plain, name, magicLabels)
	return labels, err
}

// uncompressed looks at the first bytes of r and puts a decompressor before it if they are gzip's.
func uncompressed(r io.Reader, name string) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	start, err := buffered.Peek(2)
	if err != nil && err != io.EOF {
		return nil, readError(name, err)
	}
	if !bytes.Equal(start, []byte{0x1f, 0x8b}) {
		return buffered, nil
	}
	z, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, readError(name, err)
	}
	return z, nil
}

// readIDX reads a header with that magic number and exactly the elements that it declares, up to the end of r.
func readIDX(r io.Reader, name string, magic uint32) (dimensions []int, data []uint8, err error) {
	header := make([]byte, 4+4*(magic&0xff))
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, nil, readError(name, err)
	}
	if got := binary.BigEndian.Uint32(header); got != magic {
		return nil, nil, formatErrorf(name, "magic number %#08x; expected %#08x", got, magic)
	}
	size := uint64(1)
	for at := 4; at < len(header); at += 4 {
		n := uint64(binary.BigEndian.Uint32(header[at:]))
		// Neither factor is above 2^32, so the product can't overflow.
		size *= n
		if n == 0 || size > maxElements {
			return nil, nil, formatErrorf(name, "dimension %d of %d; each must be at least 1 and all together at most %d", n, at/4, maxElements)
		}
		dimensions = append(dimensions, int(n))
	}
	data, err = readExactly(r, name, int(size))
	return dimensions, data, err
}

// readExactly reads size bytes and the end of r. Memory grows with what r really gives, and one byte too many is
// enough to stop.
func readExactly(r io.Reader, name string, size int) ([]uint8, error) {
	data := make([]uint8, 0, min(size+1, firstRead))
	for len(data) <= size {
		if len(data) == cap(data) {
			data = slices.Grow(data, min(size+1, growth*cap(data))-len(data))
		}
		n, err := r.Read(data[len(data):min(cap(data), size+1)])
		data = data[:len(data)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, readError(name, err)
		}
	}
	if len(data) < size {
		return nil, formatErrorf(name, "truncated: %d of %d elements", len(data), size)
	}
	if len(data) > size {
		return nil, formatErrorf(name, "bytes after the %d declared elements", size)
	}
	return data, nil
}

// readError tells broken content from a failing disk.
func readError(name string, err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return formatErrorf(name, "truncated")
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return formatErrorf(name, "corrupt gzip: %v", err)
	}
	return fmt.Errorf("datasets: %s: %w", name, err)
}

// IDXFiles names the four files of a data set in MNIST's format.
type IDXFiles struct {
	TrainImages, TrainLabels, TestImages, TestLabels string

	// Checksums holds the SHA-256 (hexadecimal) of the uncompressed content by file name; files not in it are not checked.
	Checksums map[string]string
}

// FindIDX looks in a folder for the four files under their usual names, train-images-idx3-ubyte and so on, also
// with a point before idx and with .gz at the end. Of several, the first in that order is taken, plain before .gz.
func FindIDX(folder fs.FS) (IDXFiles, error) {
	var files IDXFiles
	for _, part := range []struct {
		file *string
		name string
	}{
		{&files.TrainImages, "train-images-idx3-ubyte"},
		{&files.TrainLabels, "train-labels-idx1-ubyte"},
		{&files.TestImages, "t10k-images-idx3-ubyte"},
		{&files.TestLabels, "t10k-labels-idx1-ubyte"},
	} {
		name, err := findFile(folder, ".", part.name)
		if err != nil {
			return IDXFiles{}, err
		}
		*part.file = name
	}
	return files, nil
}

// LoadIDX reads the four files from a folder. like gives the Name, Classes, Mean and Std of both parts; the sizes come
// from the files, and Channels is 1. The result is validated.
func LoadIDX(folder fs.FS, files IDXFiles, like Dataset) (Split, error) {
	train, err := loadIDXPart(folder, files.TrainImages, files.TrainLabels, files.Checksums, like)
	if err != nil {
		return Split{}, err
	}
	test, err := loadIDXPart(folder, files.TestImages, files.TestLabels, files.Checksums, like)
	if err != nil {
		return Split{}, err
	}
	if test.Height != train.Height || test.Width != train.Width {
		return Split{}, formatErrorf(files.TestImages, "images of %d×%d, but those of %s are %d×%d",
			test.Height, test.Width, files.TrainImages, train.Height, train.Width)
	}
	return Split{Train: train, Test: test}, nil
}

func loadIDXPart(folder fs.FS, images, labels string, checksums map[string]string, like Dataset) (*Dataset, error) {
	dimensions, pixels, err := openIDX(folder, images, magicImages, checksums)
	if err != nil {
		return nil, err
	}
	_, classes, err := openIDX(folder, labels, magicLabels, checksums)
	if err != nil {
		return nil, err
	}
	if len(classes) != dimensions[0] {
		return nil, formatErrorf(images, "%d images, but %s holds %d labels", dimensions[0], labels, len(classes))
	}
	d := like
	d.Channels, d.Height, d.Width, d.Pixels = 1, dimensions[1], dimensions[2], pixels
	d.Labels = make([]uint16, len(classes))
	for i, class := range classes {
		d.Labels[i] = uint16(class)
	}
	return &d, d.Validate()
}

// openIDX reads one file of a folder and compares its checksum if there is one.
func openIDX(folder fs.FS, name string, magic uint32, checksums map[string]string) ([]int, []uint8, error) {
	f, err := folder.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("datasets: %w", err)
	}
	defer f.Close()
	plain, err := uncompressed(f, name)
	if err != nil {
		return nil, nil, err
	}
	want, checked := checksums[name]
	if !checked {
		return readIDX(plain, name, magic)
	}
	// readIDX reads up to the end, so the hash has seen everything once it succeeds.
	hash := sha256.New()
	dimensions, data, err := readIDX(io.TeeReader(plain, hash), name, magic)
	if err != nil {
		return nil, nil, err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		return nil, nil, formatErrorf(name, "SHA-256 of the uncompressed content is %s; expected %s", got, want)
	}
	return dimensions, data, nil
}
