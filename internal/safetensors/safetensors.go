// Package safetensors reads and writes the safetensors container of named tensors.
//
// A file is a little-endian uint64 header length, a JSON header of that length and the tensors' bytes:
//
//	{"__metadata__": {key: string, …}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [from, to]}, …}
//
// Offsets count from the end of the header. Elements are little-endian and row-major. The reader takes every
// input for hostile: it refuses headers above 100 MB, duplicate keys, unknown fields, holes or overlaps between
// tensors, sizes that overflow or that the file does not hold, and bytes that belong to no tensor.
//
// Source: https://huggingface.co/docs/safetensors, section "Format".
package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

const (
	lengthBytes    = 8           // the uint64 header length before the header
	maxHeaderBytes = 100_000_000 // the format's own limit
	maxRank        = 32          // bounds what a header can make the reader allocate for one shape
	metadataKey    = "__metadata__"
)

// elementBytes holds the size in bytes of one element of every dtype that the package carries.
var elementBytes = map[string]int{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8,
}

// FormatError says which rule of the format a file, or a File about to be written, breaks.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "safetensors: " + e.Reason }

func formatErrorf(format string, args ...any) error {
	return &FormatError{Reason: fmt.Sprintf(format, args...)}
}

// DtypeError reports values asked for in another type than the tensor holds.
type DtypeError struct{ Tensor, Dtype, Want string }

func (e *DtypeError) Error() string {
	return fmt.Sprintf("safetensors: tensor %q holds %s, not %s", e.Tensor, e.Dtype, e.Want)
}

// NotFoundError reports a tensor name that the file does not hold.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("safetensors: no tensor %q in the file", e.Name)
}

// File is the content of one safetensors file.
type File struct {
	Metadata map[string]string // free text by key; nil when the file has none
	Tensors  []Tensor          // in the order of their bytes in the file
}

// Tensor returns the tensor of that name, or a *NotFoundError.
func (f *File) Tensor(name string) (*Tensor, error) {
	for i := range f.Tensors {
		if f.Tensors[i].Name == name {
			return &f.Tensors[i], nil
		}
	}
	return nil, &NotFoundError{Name: name}
}

// Tensor is one named array. Data is row-major and little-endian; an empty Shape is a scalar.
type Tensor struct {
	Name  string
	Dtype string // "F32", "F64", "I64", "I32", "U8", …
	Shape []int
	Data  []byte
}

// Float32 returns a copy of the elements of an F32 tensor; for another dtype the error is a *DtypeError.
func (t *Tensor) Float32() ([]float32, error) { return values[float32](t, "F32") }

// Float64 returns a copy of the elements of an F64 tensor; for another dtype the error is a *DtypeError.
func (t *Tensor) Float64() ([]float64, error) { return values[float64](t, "F64") }

// Int64 returns a copy of the elements of an I64 tensor; for another dtype the error is a *DtypeError.
func (t *Tensor) Int64() ([]int64, error) { return values[int64](t, "I64") }

// Int32 returns a copy of the elements of an I32 tensor; for another dtype the error is a *DtypeError.
func (t *Tensor) Int32() ([]int32, error) { return values[int32](t, "I32") }

// Uint8 returns a copy of the elements of a U8 tensor; for another dtype the error is a *DtypeError.
func (t *Tensor) Uint8() ([]uint8, error) { return values[uint8](t, "U8") }

// FromFloat32 makes an F32 tensor of a copy of v.
func FromFloat32(name string, shape []int, v []float32) Tensor { return from(name, "F32", shape, v) }

// FromFloat64 makes an F64 tensor of a copy of v.
func FromFloat64(name string, shape []int, v []float64) Tensor { return from(name, "F64", shape, v) }

// FromInt64 makes an I64 tensor of a copy of v.
func FromInt64(name string, shape []int, v []int64) Tensor { return from(name, "I64", shape, v) }

// FromInt32 makes an I32 tensor of a copy of v.
func FromInt32(name string, shape []int, v []int32) Tensor { return from(name, "I32", shape, v) }

// FromUint8 makes a U8 tensor of a copy of v.
func FromUint8(name string, shape []int, v []uint8) Tensor { return from(name, "U8", shape, v) }

type element interface {
	float32 | float64 | int64 | int32 | uint8
}

func values[E element](t *Tensor, dtype string) ([]E, error) {
	if t.Dtype != dtype {
		return nil, &DtypeError{Tensor: t.Name, Dtype: t.Dtype, Want: dtype}
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	v := make([]E, len(t.Data)/elementBytes[dtype])
	if _, err := binary.Decode(t.Data, binary.LittleEndian, v); err != nil {
		return nil, fmt.Errorf("safetensors: tensor %q: %w", t.Name, err)
	}
	return v, nil
}

func from[E element](name, dtype string, shape []int, v []E) Tensor {
	data := make([]byte, len(v)*elementBytes[dtype])
	// Encode fails for a short buffer or an unsized type only; the lines above rule out both.
	if _, err := binary.Encode(data, binary.LittleEndian, v); err != nil {
		panic("safetensors: " + err.Error())
	}
	return Tensor{Name: name, Dtype: dtype, Shape: slices.Clone(shape), Data: data}
}

// check reports whether dtype, shape and data agree.
func (t *Tensor) check() error {
	size, err := byteSize(t.Name, t.Dtype, t.Shape)
	if err != nil {
		return err
	}
	if len(t.Data) != size {
		return formatErrorf("tensor %q: %s%v needs %d bytes, not %d", t.Name, t.Dtype, t.Shape, size, len(t.Data))
	}
	return nil
}

// byteSize returns the number of bytes of a tensor; the product can't overflow unnoticed.
func byteSize(name, dtype string, shape []int) (int, error) {
	size, ok := elementBytes[dtype]
	if !ok {
		return 0, formatErrorf("tensor %q: unknown dtype %q", name, dtype)
	}
	if len(shape) > maxRank {
		return 0, formatErrorf("tensor %q: more than %d dimensions", name, maxRank)
	}
	for _, n := range shape {
		if n < 0 {
			return 0, formatErrorf("tensor %q: negative dimension in shape %v", name, shape)
		}
		if n > 0 && size > math.MaxInt/n {
			return 0, formatErrorf("tensor %q: size of shape %v overflows", name, shape)
		}
		size *= n
	}
	return size, nil
}
