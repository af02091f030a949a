package torch

import (
	"encoding/binary"
	"math"
)

// storageClass is an element type by the name that PyTorch's module torch gives its storages.
type storageClass struct {
	name    string
	bytes   int                       // of an element
	float32 func(data []byte) float32 // of the first element of data; nil for types that are not read
}

var storageClasses = []*storageClass{
	{"FloatStorage", 4, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }},
	{"DoubleStorage", 8, func(b []byte) float32 { return float32(math.Float64frombits(binary.LittleEndian.Uint64(b))) }},
	{"HalfStorage", 2, Float16},
	{"BFloat16Storage", 2, BFloat16},
	{"LongStorage", 8, func(b []byte) float32 { return float32(int64(binary.LittleEndian.Uint64(b))) }},
	// These may be in a checkpoint, beside the state dictionary, but no weight is of such a type.
	{"IntStorage", 4, nil}, {"ShortStorage", 2, nil}, {"CharStorage", 1, nil}, {"ByteStorage", 1, nil}, {"BoolStorage", 1, nil},
	{"ComplexFloatStorage", 8, nil}, {"ComplexDoubleStorage", 16, nil},
}

// counterClass is the type of BatchNorm's num_batches_tracked.
const counterClass = "LongStorage"

// BFloat16 returns the little-endian bfloat16 number at the start of data: the upper half of a float32.
func BFloat16(data []byte) float32 {
	return math.Float32frombits(uint32(binary.LittleEndian.Uint16(data)) << 16)
}

// Float16 returns the little-endian IEEE 754 binary16 number at the start of data. Every one is a float32 exactly.
func Float16(data []byte) float32 {
	bits := uint32(binary.LittleEndian.Uint16(data))
	sign, exponent, fraction := bits>>15<<31, bits>>10&31, bits&1023
	switch exponent {
	case 0: // zero and subnormal numbers count units of 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 31: // infinities and NaN
		return math.Float32frombits(sign | 255<<23 | fraction<<13)
	}
	const bias = 127 - 15
	return math.Float32frombits(sign | (exponent+bias)<<23 | fraction<<13)
}
