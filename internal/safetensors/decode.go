package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Decode reads a whole file. The tensors' Data are parts of data, not copies. The error is a *FormatError.
func Decode(data []byte) (*File, error) {
	header, body, err := split(data)
	if err != nil {
		return nil, err
	}
	r := newHeaderReader(header)
	f := &File{}
	var entries []entry
	err = r.object("header", func(key string) error {
		if key == metadataKey {
			f.Metadata, err = r.metadata()
			return err
		}
		e, err := r.entry(key)
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimRight(header[r.decoder.InputOffset():], " ")) > 0 {
		return nil, formatErrorf("bytes other than spaces after the header's JSON")
	}
	f.Tensors, err = place(entries, body)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// split cuts the file into header and tensor bytes.
func split(data []byte) (header, body []byte, err error) {
	if len(data) < lengthBytes {
		return nil, nil, formatErrorf("%d bytes are too short for a header length", len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	rest := data[lengthBytes:]
	if n > maxHeaderBytes {
		return nil, nil, formatErrorf("header of %d bytes is above the limit of %d", n, maxHeaderBytes)
	}
	if n > uint64(len(rest)) {
		return nil, nil, formatErrorf("header of %d bytes, but only %d follow", n, len(rest))
	}
	header, body = rest[:n], rest[n:]
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, formatErrorf("header does not start with '{'")
	}
	// encoding/json would replace bad UTF-8 silently, and two different names could become one.
	if !utf8.Valid(header) {
		return nil, nil, formatErrorf("header is not UTF-8")
	}
	return header, body, nil
}

// entry is one tensor as the header describes it.
type entry struct {
	name, dtype string
	shape       []int
	from, to    int
}

// place sorts the entries by their bytes and checks that they cover the body without holes or overlaps.
func place(entries []entry, body []byte) ([]Tensor, error) {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.name, b.name))
	})
	tensors := make([]Tensor, len(entries))
	end := 0
	for i, e := range entries {
		size, err := byteSize(e.name, e.dtype, e.shape)
		if err != nil {
			return nil, err
		}
		if e.from != end {
			return nil, formatErrorf("tensor %q starts at byte %d; without hole or overlap it would at %d", e.name, e.from, end)
		}
		if e.to < e.from || e.to > len(body) {
			return nil, formatErrorf("tensor %q: bytes %d to %d do not lie in the %d bytes of data", e.name, e.from, e.to, len(body))
		}
		if e.to-e.from != size {
			return nil, formatErrorf("tensor %q: %s%v needs %d bytes, not %d", e.name, e.dtype, e.shape, size, e.to-e.from)
		}
		tensors[i] = Tensor{Name: e.name, Dtype: e.dtype, Shape: e.shape, Data: body[e.from:e.to:e.to]}
		end = e.to
	}
	if end != len(body) {
		return nil, formatErrorf("%d bytes after the last tensor", len(body)-end)
	}
	return tensors, nil
}

// headerReader walks the JSON token by token, because encoding/json's Unmarshal lets duplicate keys pass.
type headerReader struct{ decoder *json.Decoder }

func newHeaderReader(header []byte) *headerReader {
	d := json.NewDecoder(bytes.NewReader(header))
	d.UseNumber()
	return &headerReader{decoder: d}
}

func (r *headerReader) token() (json.Token, error) {
	t, err := r.decoder.Token()
	if err != nil {
		return nil, formatErrorf("header is not JSON: %v", err)
	}
	return t, nil
}

func (r *headerReader) delimiter(where string, want json.Delim) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	if t != want {
		return formatErrorf("%s: %v in place of %v", where, t, want)
	}
	return nil
}

// object reads an object, calling field for every key; keys must differ.
func (r *headerReader) object(where string, field func(key string) error) error {
	if err := r.delimiter(where, '{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for r.decoder.More() {
		key, err := r.text(where)
		if err != nil {
			return err
		}
		if seen[key] {
			return formatErrorf("%s: duplicate key %q", where, key)
		}
		seen[key] = true
		if err := field(key); err != nil {
			return err
		}
	}
	return r.delimiter(where, '}')
}

func (r *headerReader) text(where string) (string, error) {
	t, err := r.token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", formatErrorf("%s: %v is not a string", where, t)
	}
	return s, nil
}

// naturals reads an array of at most limit integers that are not negative.
func (r *headerReader) naturals(where string, limit int) ([]int, error) {
	if err := r.delimiter(where, '['); err != nil {
		return nil, err
	}
	list := []int{}
	for r.decoder.More() {
		if len(list) == limit {
			return nil, formatErrorf("%s: more than %d numbers", where, limit)
		}
		t, err := r.token()
		if err != nil {
			return nil, err
		}
		number, _ := t.(json.Number)
		n, err := strconv.ParseInt(number.String(), 10, strconv.IntSize)
		if err != nil || n < 0 {
			return nil, formatErrorf("%s: %v is not a size", where, t)
		}
		list = append(list, int(n))
	}
	return list, r.delimiter(where, ']')
}

func (r *headerReader) metadata() (map[string]string, error) {
	m := map[string]string{}
	err := r.object(metadataKey, func(key string) (err error) {
		m[key], err = r.text(metadataKey)
		return err
	})
	return m, err
}

func (r *headerReader) entry(name string) (entry, error) {
	e := entry{name: name}
	where := "tensor " + strconv.Quote(name)
	var offsets []int
	err := r.object(where, func(key string) (err error) {
		switch key {
		case "dtype":
			e.dtype, err = r.text(where)
		case "shape":
			e.shape, err = r.naturals(where, maxRank)
		case "data_offsets":
			offsets, err = r.naturals(where, 2)
		default:
			err = formatErrorf("%s: unknown field %q", where, key)
		}
		return err
	})
	if err != nil {
		return e, err
	}
	if e.dtype == "" || e.shape == nil || len(offsets) != 2 {
		return e, formatErrorf("%s: dtype, shape and two data_offsets are needed", where)
	}
	e.from, e.to = offsets[0], offsets[1]
	return e, nil
}
