package torch

import (
	"io"

	"github.com/nlpodyssey/gopickle/types"
)

// archive is a checkpoint file while it is read.
type archive struct {
	reader   io.ReaderAt
	size     int64 // bytes of the file
	storages map[string]*storage
	open     func(*storage) ([]byte, error) // reads a storage's bytes

	read     int64 // bytes of members read so far: members of a hostile zip file may overlap
	elements int64 // of the tensors so far
}

// storage is an array that tensors are views of.
type storage struct {
	class    *storageClass
	key      string
	elements int   // in range: as many fit into the file
	offset   int64 // of its bytes in a legacy file
	located  bool  // offset is known
	data     []byte
}

// persistent resolves a pickle's reference to a storage:
// ("storage", class, key, location, elements) and, in the legacy format, a view, which current versions leave None.
func (a *archive) persistent(id any) (any, error) {
	t, ok := id.(*types.Tuple)
	if !ok || t.Len() < 5 || t.Len() > 6 || t.Get(0) != any("storage") {
		return nil, formatErrorf("a reference to something other than a storage")
	}
	class, isClass := t.Get(1).(*storageClass)
	key, isKey := t.Get(2).(string)
	elements, isCount := t.Get(4).(int)
	if !isClass || !isKey || !isCount {
		return nil, formatErrorf("a reference to a storage without class, key or element count")
	}
	if t.Len() == 6 && t.Get(5) != nil {
		return nil, formatErrorf("storage %q is a view of another: save the file again with a current PyTorch", key)
	}
	if elements < 0 || int64(elements) > a.size/int64(class.bytes) {
		return nil, formatErrorf("storage %q of %d elements can't be in a file of %d bytes", key, elements, a.size)
	}
	if known := a.storages[key]; known != nil {
		if known.class != class || known.elements != elements {
			return nil, formatErrorf("storage %q is described in two ways", key)
		}
		return known, nil
	}
	s := &storage{class: class, key: key, elements: elements}
	a.storages[key] = s
	return s, nil
}

// bytes returns the content of a storage.
func (a *archive) bytes(s *storage) ([]byte, error) {
	if s.data == nil {
		data, err := a.open(s)
		if err != nil {
			return nil, err
		}
		s.data = data
	}
	return s.data, nil
}

// tensors returns the tensors of the state dictionary in root.
func (a *archive) tensors(root any) ([]Tensor, error) {
	entries, err := stateDict(root)
	if err != nil {
		return nil, err
	}
	var tensors []Tensor
	seen := map[string]bool{}
	for _, e := range entries {
		name, isName := e.Key.(string)
		v, isView := e.Value.(*view)
		if !isName || !isView || v.counter() {
			continue
		}
		if seen[name] {
			return nil, formatErrorf("two tensors are named %q", name)
		}
		seen[name] = true
		data, err := a.values(name, v)
		if err != nil {
			return nil, err
		}
		tensors = append(tensors, Tensor{name, v.shape, data})
	}
	return tensors, nil
}

// values returns the elements of a view in row-major order.
func (a *archive) values(name string, v *view) ([]float32, error) {
	class := v.storage.class
	if class.float32 == nil {
		return nil, formatErrorf("tensor %q is a view of a %s: elements may be float32, float64, float16, bfloat16 or int64", name, class.name)
	}
	n, ok := v.count(a.size - a.elements)
	if !ok {
		return nil, formatErrorf("tensor %q of sizes %v: all tensors together may have as many elements as the file has bytes, %d", name, v.shape, a.size)
	}
	if n > 0 && !v.inside() {
		return nil, formatErrorf("tensor %q of sizes %v and strides %v from element %d leaves its storage of %d elements", name, v.shape, v.stride, v.offset, v.storage.elements)
	}
	a.elements += n
	raw, err := a.bytes(v.storage)
	if err != nil {
		return nil, err
	}
	return v.gather(raw, n), nil
}
