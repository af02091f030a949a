// Package torch reads the tensors of PyTorch checkpoints without PyTorch and without running anything that they hold.
//
// torch.save writes one of two containers around a pickle of protocol 2. The zip container (since 1.6) holds
// ARCHIVE/data.pkl and one stored member ARCHIVE/data/KEY for each storage. The legacy one is a magic number, a protocol
// version, a dictionary about the writer's machine, the object and a list of storage keys, all of them pickles, and
// then for each key an int64 element count and the elements. A tensor in the pickle is a view of a storage: offset,
// sizes and strides, all in elements.
//
// Files are taken for hostile. A pickle is walked before it is run: only the opcodes that torch.save writes, classes from
// a fixed list, and arguments inside the file pass; see scan. Element counts and views are compared with the file
// before memory is taken for them, and all tensors together have at most as many elements as the file has bytes.
//
// Source: torch/serialization.py and torch/_weights_only_unpickler.py of PyTorch 1.13 and 2.x.
package torch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	maxFile   = 16 << 30 // bytes of a checkpoint
	maxPickle = 4 << 20  // bytes of the pickles in it; those of 1,000 tensors and their optimizer are about 0.3 MB
	headBytes = 512      // that tell the formats apart
)

// Tensor is one array of a checkpoint, row-major. An empty Shape is a scalar.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// FormatError says why a file is not read as a checkpoint.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "torch: " + e.Reason }

func formatErrorf(format string, args ...any) error {
	return &FormatError{fmt.Sprintf(format, args...)}
}

// Read returns the tensors of the checkpoint file at path; see [Decode].
func Read(path string) ([]Tensor, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("torch: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("torch: %s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("torch: %w", err)
	}
	defer f.Close()
	tensors, err := Decode(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return tensors, nil
}

// Decode returns the tensors of a checkpoint of size bytes in the order in which its state dictionary holds them. The
// dictionary may be the saved object itself or lie in it, as in {"state_dict": {…}, "epoch": 9}. Elements of type float32,
// float64, float16, bfloat16 and int64 become float32, rounded to nearest; int64 scalars, which count batches, are left
// out, as is everything that is no tensor. What is wrong with the content is a *[FormatError].
func Decode(r io.ReaderAt, size int64) ([]Tensor, error) {
	if size < 0 || size > maxFile {
		return nil, formatErrorf("%d bytes: a checkpoint has at most %d", size, int64(maxFile))
	}
	head := make([]byte, min(size, headBytes))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("torch: %w", err)
	}
	a := &archive{reader: r, size: size, storages: map[string]*storage{}}
	var root any
	var err error
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		root, err = a.openZip()
	case bytes.HasPrefix(head, []byte(legacyMagic)):
		root, err = a.openLegacy()
	case len(head) > 262 && string(head[257:262]) == "ustar":
		err = formatErrorf("a tar archive: PyTorch before 0.2 wrote those; load it there and save it again")
	default:
		err = formatErrorf("neither a zip file nor PyTorch's legacy format: it starts with % x", head[:min(8, len(head))])
	}
	if err != nil {
		return nil, err
	}
	return a.tensors(root)
}
