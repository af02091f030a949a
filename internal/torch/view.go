package torch

import "github.com/nlpodyssey/gopickle/types"

// maxRank bounds the dimensions of a tensor.
const maxRank = 32

// view is a tensor as the pickle describes it: element i of dimension d lies i·stride[d] elements after element 0.
type view struct {
	storage       *storage
	offset        int // of the first element
	shape, stride []int
}

// rebuildTensor is torch._utils._rebuild_tensor(storage, offset, size, stride) and its successor _rebuild_tensor_v2,
// whose further arguments say how the tensor takes part in training.
func rebuildTensor(args ...any) (any, error) {
	if len(args) < 4 {
		return nil, formatErrorf("a tensor of %d arguments: want storage, offset, sizes, strides", len(args))
	}
	s, isStorage := args[0].(*storage)
	offset, isOffset := args[1].(int)
	shape, isShape := integers(args[2])
	stride, isStride := integers(args[3])
	if !isStorage || !isOffset || !isShape || !isStride || len(shape) != len(stride) || len(shape) > maxRank {
		return nil, formatErrorf("a tensor needs a storage, an offset and up to %d sizes and as many strides", maxRank)
	}
	return &view{s, offset, shape, stride}, nil
}

// rebuildParameter is torch._utils._rebuild_parameter(tensor, requires_grad, hooks).
func rebuildParameter(args ...any) (any, error) {
	if len(args) > 0 {
		if v, ok := args[0].(*view); ok {
			return v, nil
		}
	}
	return nil, formatErrorf("a parameter without a tensor")
}

// integers returns the elements of a tuple of integers.
func integers(v any) ([]int, bool) {
	t, ok := v.(*types.Tuple)
	if !ok {
		return nil, false
	}
	list := make([]int, t.Len())
	for i := range list {
		if list[i], ok = t.Get(i).(int); !ok {
			return nil, false
		}
	}
	return list, true
}

// counter says whether the tensor is an integer scalar, as BatchNorm's num_batches_tracked.
func (v *view) counter() bool {
	return v.storage.class.name == counterClass && len(v.shape) == 0
}

// count returns the number of elements; false if that is more than limit.
func (v *view) count(limit int64) (int64, bool) {
	n := int64(1)
	for _, size := range v.shape {
		if size < 0 || size > 0 && n > limit/int64(size) {
			return 0, false
		}
		n *= int64(size)
	}
	return n, n <= limit
}

// inside says whether all elements, of which there is at least one, lie in the storage.
func (v *view) inside() bool {
	room := v.storage.elements - 1 - v.offset
	for d, size := range v.shape {
		stride := v.stride[d]
		if stride < 0 {
			return false
		}
		if stride > 0 && size-1 > room/stride {
			return false
		}
		room -= (size - 1) * stride
	}
	return v.offset >= 0 && room >= 0
}

// gather returns the n elements in row-major order from the bytes of the storage.
func (v *view) gather(raw []byte, n int64) []float32 {
	class := v.storage.class
	data := make([]float32, n)
	index := make([]int, len(v.shape))
	at := v.offset
	for i := range data {
		data[i] = class.float32(raw[at*class.bytes:])
		at += v.next(index)
	}
	return data
}

// next moves index to the next element, the last dimension first, and returns how far that is in the storage.
func (v *view) next(index []int) int {
	step := 0
	for d := len(index) - 1; d >= 0; d-- {
		index[d]++
		step += v.stride[d]
		if index[d] < v.shape[d] {
			return step
		}
		step -= v.shape[d] * v.stride[d]
		index[d] = 0
	}
	return step
}
