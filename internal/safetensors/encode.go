package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// Encode returns the file's bytes, the same for equal content: metadata keys are sorted, tensors lie by element
// size from large to small and then by name, and spaces pad the header so that the data start at a multiple of
// 8 bytes. f itself is not changed. The error is a *FormatError.
func Encode(f *File) ([]byte, error) {
	tensors, err := ordered(f.Tensors)
	if err != nil {
		return nil, err
	}
	header, err := encodeHeader(f.Metadata, tensors)
	if err != nil {
		return nil, err
	}
	total := lengthBytes + len(header)
	for _, t := range tensors {
		total += len(t.Data)
	}
	out := make([]byte, 0, total)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(header)))
	out = append(out, header...)
	for _, t := range tensors {
		out = append(out, t.Data...)
	}
	return out, nil
}

// ordered returns the tensors in the order of the file after checking each.
func ordered(tensors []Tensor) ([]Tensor, error) {
	sorted := slices.Clone(tensors)
	slices.SortStableFunc(sorted, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(elementBytes[b.Dtype], elementBytes[a.Dtype]), cmp.Compare(a.Name, b.Name))
	})
	seen := map[string]bool{metadataKey: true}
	for i := range sorted {
		t := &sorted[i]
		if seen[t.Name] {
			return nil, formatErrorf("tensor name %q is taken", t.Name)
		}
		seen[t.Name] = true
		if err := t.check(); err != nil {
			return nil, err
		}
	}
	return sorted, nil
}

func encodeHeader(metadata map[string]string, tensors []Tensor) ([]byte, error) {
	w := &headerWriter{}
	w.buffer.WriteByte('{')
	if len(metadata) > 0 {
		w.key(metadataKey)
		w.buffer.WriteByte('{')
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			w.comma(i)
			w.key(key)
			w.text(metadata[key])
		}
		w.buffer.WriteByte('}')
	}
	from := 0
	for i, t := range tensors {
		w.comma(i + len(metadata))
		w.tensor(t, from)
		from += len(t.Data)
	}
	w.buffer.WriteByte('}')
	for w.buffer.Len()%lengthBytes != 0 {
		w.buffer.WriteByte(' ')
	}
	if w.buffer.Len() > maxHeaderBytes {
		return nil, formatErrorf("header of %d bytes is above the limit of %d", w.buffer.Len(), maxHeaderBytes)
	}
	return w.buffer.Bytes(), w.err
}

// headerWriter writes compact JSON and keeps the first error.
type headerWriter struct {
	buffer bytes.Buffer
	err    error
}

func (w *headerWriter) comma(written int) {
	if written > 0 {
		w.buffer.WriteByte(',')
	}
}

func (w *headerWriter) key(s string) {
	w.text(s)
	w.buffer.WriteByte(':')
}

func (w *headerWriter) text(s string) {
	if !utf8.ValidString(s) && w.err == nil {
		w.err = formatErrorf("%q is not UTF-8", s)
	}
	encoder := json.NewEncoder(&w.buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil && w.err == nil {
		w.err = formatErrorf("%q: %v", s, err)
	}
	w.buffer.Truncate(w.buffer.Len() - 1) // the encoder's newline
}

func (w *headerWriter) tensor(t Tensor, from int) {
	w.key(t.Name)
	fmt.Fprintf(&w.buffer, `{"dtype":%q,"shape":[`, t.Dtype)
	for i, n := range t.Shape {
		w.comma(i)
		fmt.Fprint(&w.buffer, n)
	}
	fmt.Fprintf(&w.buffer, `],"data_offsets":[%d,%d]}`, from, from+len(t.Data))
}
