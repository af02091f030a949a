package models

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goqat/goqat/internal/atomicfile"
	"github.com/goqat/goqat/internal/safetensors"
	"github.com/goqat/goqat/internal/torch"
	"github.com/goqat/goqat/layers"
)

// maxTensorFile bounds the size of a safetensors file that is read, 16 GiB.
const maxTensorFile = 16 << 30

// A checkpoint of a goqat training is a safetensors file with this metadata; its parameters' names have a prefix.
const (
	checkpointFormat  = "goqat checkpoint"
	checkpointVersion = "1"
	checkpointPrefix  = "parameter/"
)

// Tensor is one array of a checkpoint, row-major. An empty Shape is a scalar.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// ReadTensors returns the tensors of a checkpoint file, whatever its name: of a safetensors file, of a checkpoint of a
// goqat training, whose optimizer state is left out, or of a file of PyTorch's torch.save, of which nothing is run. Elements
// of type float32, float64, float16, bfloat16 and int64 become float32; int64 scalars, which count batches, are left out.
// The names are the file's own; [Assign] knows how they correspond to a network's.
func ReadTensors(path string) ([]Tensor, error) {
	tensors, err := readTensors(path)
	if err != nil {
		return nil, fmt.Errorf("models: import of %s: %w", path, err)
	}
	return tensors, nil
}

func readTensors(path string) ([]Tensor, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return decodeTensors(f, info.Size())
}

// decodeTensors reads a file of size bytes.
func decodeTensors(f io.ReaderAt, size int64) ([]Tensor, error) {
	isSafetensors, err := startsSafetensors(f)
	if err != nil {
		return nil, err
	}
	if isSafetensors {
		return decodeSafetensors(f, size)
	}
	read, err := torch.Decode(f, size)
	tensors := make([]Tensor, len(read))
	for i, t := range read {
		tensors[i] = Tensor(t)
	}
	return tensors, err
}

// startsSafetensors tells from the JSON that begins after the header's length. A zip file has a compression method of 0
// or 8 there and PyTorch's legacy format a part of its magic number.
func startsSafetensors(f io.ReaderAt) (bool, error) {
	var head [9]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && err != io.EOF {
		return false, err
	}
	return head[8] == '{', nil
}

func decodeSafetensors(f io.ReaderAt, size int64) ([]Tensor, error) {
	if size > maxTensorFile {
		return nil, fmt.Errorf("%d bytes: a safetensors file may have %d", size, int64(maxTensorFile))
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), data); err != nil {
		return nil, err
	}
	file, err := safetensors.Decode(data)
	if err != nil {
		return nil, err
	}
	prefix := ""
	if file.Metadata["format"] == checkpointFormat {
		if version := file.Metadata["version"]; version != checkpointVersion {
			return nil, fmt.Errorf("a checkpoint of version %q; this program reads version %s", version, checkpointVersion)
		}
		prefix = checkpointPrefix
	}
	return convertTensors(file, prefix)
}

// convertTensors returns the tensors whose names have a prefix, without it.
func convertTensors(file *safetensors.File, prefix string) ([]Tensor, error) {
	var tensors []Tensor
	for i := range file.Tensors {
		t := &file.Tensors[i]
		name, ok := strings.CutPrefix(t.Name, prefix)
		if !ok || t.Dtype == "I64" && len(t.Shape) == 0 {
			continue
		}
		data, err := convertTensor(t)
		if err != nil {
			return nil, err
		}
		tensors = append(tensors, Tensor{name, t.Shape, data})
	}
	return tensors, nil
}

// convertTensor returns the elements of a tensor as float32, rounded to nearest.
func convertTensor(t *safetensors.Tensor) ([]float32, error) {
	switch t.Dtype {
	case "F32":
		return t.Float32()
	case "F64":
		v, err := t.Float64()
		return rounded(v), err
	case "I64":
		v, err := t.Int64()
		return rounded(v), err
	case "F16":
		return widened(t.Data, torch.Float16), nil
	case "BF16":
		return widened(t.Data, torch.BFloat16), nil
	}
	return nil, fmt.Errorf("tensor %q holds %s: elements may be F32, F64, F16, BF16 or I64", t.Name, t.Dtype)
}

func rounded[E float64 | int64](v []E) []float32 {
	list := make([]float32, len(v))
	for i := range v {
		list[i] = float32(v[i])
	}
	return list
}

// widened returns numbers of two bytes.
func widened(data []byte, number func([]byte) float32) []float32 {
	list := make([]float32, len(data)/2)
	for i := range list {
		list[i] = number(data[2*i:])
	}
	return list
}

// WriteTensors writes what the network's parameters would be without quantizers (of weights that are searched for, the hard ones) into a safetensors file of float32
// tensors under the network's names, which ReadTensors and other programs read. A reader sees the old file or the new one, whole.
func WriteTensors(path string, network *layers.Network) error {
	// Other programs want to know whose layout the tensors have: convolutions are [out][in][rows][columns], as PyTorch's.
	file := &safetensors.File{Metadata: map[string]string{"format": "pt"}}
	for _, p := range network.FloatParams() {
		file.Tensors = append(file.Tensors, safetensors.FromFloat32(p.Name, p.Shape, p.Get()))
	}
	data, err := safetensors.Encode(file)
	if err == nil {
		err = atomicfile.Write(path, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("models: export: %w", err)
	}
	return nil
}
