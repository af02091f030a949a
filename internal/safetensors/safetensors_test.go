package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func sample() *File {
	return &File{
		Metadata: map[string]string{"b": `{"nested":"<json>"}`, "a": "naïve\n"},
		Tensors: []Tensor{
			FromUint8("bytes", []int{3}, []uint8{1, 2, 255}),
			FromFloat32("y", []int{2, 1}, []float32{1.5, float32(math.Inf(-1))}),
			FromFloat32("x", nil, []float32{-0.25}),
			FromInt32("codes", []int{2}, []int32{-1, math.MaxInt32}),
			FromInt64("steps", []int{1}, []int64{math.MinInt64}),
			FromFloat64("empty", []int{0, 4}, nil),
		},
	}
}

func TestEncodedBytes(t *testing.T) {
	got, err := Encode(&File{
		Metadata: map[string]string{"format": "pt"},
		Tensors:  []Tensor{FromUint8("b", []int{2}, []uint8{7, 8}), FromFloat32("a", []int{1}, []float32{1})},
	})
	require.NoError(t, err)
	header := `{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},` +
		`"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}`
	header += strings.Repeat(" ", 7-(len(header)+7)%8)
	require.Equal(t, "\x90\x00\x00\x00\x00\x00\x00\x00"+header+"\x00\x00\x80\x3f\x07\x08", string(got))
}

func TestRoundTrip(t *testing.T) {
	encoded, err := Encode(sample())
	require.NoError(t, err)
	f, err := Decode(encoded)
	require.NoError(t, err)
	require.Equal(t, sample().Metadata, f.Metadata)
	names := []string{}
	for _, tensor := range f.Tensors {
		names = append(names, tensor.Name)
	}
	require.Equal(t, []string{"empty", "steps", "codes", "x", "y", "bytes"}, names)
	for _, want := range sample().Tensors {
		got, err := f.Tensor(want.Name)
		require.NoError(t, err)
		require.Equal(t, want.Data, append([]byte{}, got.Data...), want.Name)
		require.Equal(t, append([]int{}, want.Shape...), got.Shape, want.Name)
	}
	again, err := Encode(f)
	require.NoError(t, err)
	require.Equal(t, encoded, again)
}

func TestValues(t *testing.T) {
	f := sample()
	value := func(name string, read func(*Tensor) (any, error)) any {
		tensor, err := f.Tensor(name)
		require.NoError(t, err)
		v, err := read(tensor)
		require.NoError(t, err)
		return v
	}
	require.Equal(t, []float32{1.5, float32(math.Inf(-1))}, value("y", func(x *Tensor) (any, error) { return x.Float32() }))
	require.Equal(t, []float64{}, value("empty", func(x *Tensor) (any, error) { return x.Float64() }))
	require.Equal(t, []int64{math.MinInt64}, value("steps", func(x *Tensor) (any, error) { return x.Int64() }))
	require.Equal(t, []int32{-1, math.MaxInt32}, value("codes", func(x *Tensor) (any, error) { return x.Int32() }))
	require.Equal(t, []uint8{1, 2, 255}, value("bytes", func(x *Tensor) (any, error) { return x.Uint8() }))
}

func TestAccessErrors(t *testing.T) {
	f := sample()
	_, err := f.Tensor("weight")
	require.EqualError(t, err, `safetensors: no tensor "weight" in the file`)
	var missing *NotFoundError
	require.ErrorAs(t, err, &missing)

	_, err = f.Tensors[0].Float32()
	require.EqualError(t, err, `safetensors: tensor "bytes" holds U8, not F32`)
	var dtype *DtypeError
	require.ErrorAs(t, err, &dtype)

	short := Tensor{Name: "short", Dtype: "F32", Shape: []int{2}, Data: make([]byte, 7)}
	_, err = short.Float32()
	require.EqualError(t, err, `safetensors: tensor "short": F32[2] needs 8 bytes, not 7`)
}

// raw makes a file of that header and so many bytes of data, right or wrong.
func raw(header string, body int) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), make([]byte, body)...)
}

func tensorHeader(fields string) string { return `{"w":{` + fields + `}}` }

var defects = map[string]struct {
	data []byte
	want string
}{
	"empty":                 {nil, "0 bytes are too short"},
	"truncated length":      {make([]byte, 7), "7 bytes are too short"},
	"truncated header":      {raw(`{}`, 0)[:9], "header of 2 bytes, but only 1 follow"},
	"header above limit":    {binary.LittleEndian.AppendUint64(nil, 100_000_001), "above the limit"},
	"header length wraps":   {binary.LittleEndian.AppendUint64(nil, math.MaxUint64), "above the limit"},
	"header empty":          {raw("", 0), "does not start with '{'"},
	"header leading space":  {raw(" {}", 0), "does not start with '{'"},
	"header not UTF-8":      {raw("{\"\xff\":{}}", 0), "not UTF-8"},
	"header not JSON":       {raw(`{"w"}`, 0), "not JSON"},
	"header unclosed":       {raw(`{"w":{"dtype":"F32"`, 0), "not JSON"},
	"header trailing comma": {raw(`{"__metadata__":{},}`, 0), "not JSON"},
	"header trailing text":  {raw(`{} x`, 0), "after the header's JSON"},
	"header second object":  {raw(`{}{}`, 0), "after the header's JSON"},
	"metadata not object":   {raw(`{"__metadata__":[]}`, 0), "[ in place of {"},
	"metadata not text":     {raw(`{"__metadata__":{"a":1}}`, 0), "1 is not a string"},
	"metadata nested":       {raw(`{"__metadata__":{"a":{}}}`, 0), "{ is not a string"},
	"metadata duplicate":    {raw(`{"__metadata__":{"a":"","a":""}}`, 0), `duplicate key "a"`},
	"tensor duplicate": {
		raw(`{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2),
		`duplicate key "w"`,
	},
	"tensor duplicate escaped": {
		raw(`{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0077":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2),
		`duplicate key "w"`,
	},
	"tensor null":          {raw(`{"w":null}`, 0), "in place of {"},
	"tensor field twice":   {raw(tensorHeader(`"dtype":"U8","dtype":"U8"`), 0), `duplicate key "dtype"`},
	"tensor field unknown": {raw(tensorHeader(`"strides":[1]`), 0), `unknown field "strides"`},
	"dtype missing":        {raw(tensorHeader(`"shape":[1],"data_offsets":[0,1]`), 1), "are needed"},
	"dtype unknown":        {raw(tensorHeader(`"dtype":"I4","shape":[1],"data_offsets":[0,1]`), 1), `unknown dtype "I4"`},
	"dtype not text":       {raw(tensorHeader(`"dtype":4`), 0), "4 is not a string"},
	"shape missing":        {raw(tensorHeader(`"dtype":"U8","data_offsets":[0,1]`), 1), "are needed"},
	"shape negative":       {raw(tensorHeader(`"dtype":"U8","shape":[-1],"data_offsets":[0,1]`), 1), "-1 is not a size"},
	"shape fraction":       {raw(tensorHeader(`"dtype":"U8","shape":[1.0],"data_offsets":[0,1]`), 1), "1.0 is not a size"},
	"shape text":           {raw(tensorHeader(`"dtype":"U8","shape":["1"],"data_offsets":[0,1]`), 1), "1 is not a size"},
	"shape nested":         {raw(tensorHeader(`"dtype":"U8","shape":[[1]],"data_offsets":[0,1]`), 1), "[ is not a size"},
	"shape number too large": {
		raw(tensorHeader(`"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]`), 1), "is not a size",
	},
	"shape product overflows": {
		raw(tensorHeader(`"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]`), 0), "overflows",
	},
	"shape rank":       {raw(tensorHeader(`"dtype":"U8","shape":[1`+strings.Repeat(",1", 32)+`]`), 1), "more than 32 numbers"},
	"offsets missing":  {raw(tensorHeader(`"dtype":"U8","shape":[1]`), 1), "are needed"},
	"offsets one":      {raw(tensorHeader(`"dtype":"U8","shape":[1],"data_offsets":[0]`), 1), "are needed"},
	"offsets three":    {raw(tensorHeader(`"dtype":"U8","shape":[1],"data_offsets":[0,1,1]`), 1), "more than 2 numbers"},
	"offsets reversed": {raw(tensorHeader(`"dtype":"U8","shape":[1],"data_offsets":[0,-1]`), 1), "-1 is not a size"},
	"data truncated":   {raw(tensorHeader(`"dtype":"F32","shape":[2],"data_offsets":[0,8]`), 7), "do not lie in the 7 bytes"},
	"data shorter than shape": {
		raw(tensorHeader(`"dtype":"F32","shape":[2],"data_offsets":[0,7]`), 7), "F32[2] needs 8 bytes, not 7",
	},
	"data trailing":      {raw(tensorHeader(`"dtype":"U8","shape":[1],"data_offsets":[0,1]`), 3), "2 bytes after the last tensor"},
	"hole at the start":  {raw(tensorHeader(`"dtype":"U8","shape":[1],"data_offsets":[1,2]`), 2), "starts at byte 1; without hole or overlap it would at 0"},
	"hole in the middle": {twoTensors(0, 1, 2, 3), `"b" starts at byte 2; without hole or overlap it would at 1`},
	"overlap":            {twoTensors(0, 2, 1, 3), `"b" starts at byte 1; without hole or overlap it would at 2`},
	"end before start":   {twoTensors(0, 3, 3, 2), "bytes 3 to 2"},
}

func twoTensors(a0, a1, b0, b1 int) []byte {
	return raw(fmt.Sprintf(`{"a":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]},"b":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}}`,
		a1-a0, a0, a1, max(b1-b0, 0), b0, b1), 3)
}

func TestDecodeRefuses(t *testing.T) {
	for name, test := range defects {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(test.data)
			require.ErrorContains(t, err, test.want)
			var format *FormatError
			require.ErrorAs(t, err, &format)
			require.True(t, strings.HasPrefix(err.Error(), "safetensors: "))
		})
	}
}

func TestDecodeAccepts(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing":             raw(`{}`, 0),
		"odd header length":   raw(`{}   `, 0),
		"header out of order": raw(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"data_offsets":[0,1],"shape":[],"dtype":"U8"}}`, 2),
		"empty tensors":       raw(`{"b":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[3,0],"data_offsets":[0,0]}}`, 0),
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Decode(data)
			require.NoError(t, err)
			for i, want := range []string{"a", "b"}[:len(f.Tensors)] {
				require.Equal(t, want, f.Tensors[i].Name)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	ok := FromUint8("w", []int{1}, []uint8{1})
	for name, test := range map[string]struct {
		file File
		want string
	}{
		"duplicate name":    {File{Tensors: []Tensor{ok, ok}}, `tensor name "w" is taken`},
		"reserved name":     {File{Tensors: []Tensor{FromUint8("__metadata__", []int{1}, []uint8{1})}}, "is taken"},
		"shape and data":    {File{Tensors: []Tensor{FromUint8("w", []int{2}, []uint8{1})}}, "U8[2] needs 2 bytes, not 1"},
		"negative shape":    {File{Tensors: []Tensor{FromUint8("w", []int{-1}, nil)}}, "negative dimension"},
		"rank":              {File{Tensors: []Tensor{FromUint8("w", make([]int, 33), nil)}}, "more than 32 dimensions"},
		"unknown dtype":     {File{Tensors: []Tensor{{Name: "w", Dtype: "F31"}}}, `unknown dtype "F31"`},
		"name not UTF-8":    {File{Tensors: []Tensor{FromUint8("\xff", []int{1}, []uint8{1})}}, "not UTF-8"},
		"metadata no UTF-8": {File{Metadata: map[string]string{"a": "\xff"}}, "not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Encode(&test.file)
			require.ErrorContains(t, err, test.want)
			var format *FormatError
			require.ErrorAs(t, err, &format)
		})
	}
}

// FuzzDecode demands that whatever Decode accepts survives a round trip, and that nothing makes it panic.
func FuzzDecode(f *testing.F) {
	for _, defect := range defects {
		f.Add(defect.data)
	}
	encoded, err := Encode(sample())
	require.NoError(f, err)
	f.Add(encoded)
	vectors, err := filepath.Glob("../golden/testdata/requant.safetensors")
	require.NoError(f, err)
	for _, path := range vectors {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := Decode(data)
		if err != nil {
			return
		}
		encoded, err := Encode(first)
		require.NoError(t, err)
		second, err := Decode(encoded)
		require.NoError(t, err)
		require.Len(t, second.Tensors, len(first.Tensors))
		for _, want := range first.Tensors {
			got, err := second.Tensor(want.Name)
			require.NoError(t, err)
			require.Equal(t, want, *got)
		}
		again, err := Encode(second)
		require.NoError(t, err)
		require.Equal(t, encoded, again)
	})
}
