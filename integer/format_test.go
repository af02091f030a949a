package integer_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

var update = flag.Bool("update", false, "rewrite testdata/small.goq")

func encode(t testing.TB, m *integer.Model) []byte {
	data, err := integer.Encode(m)
	require.NoError(t, err)
	return data
}

func TestDecodeReversesEncode(t *testing.T) {
	for name := range networks {
		model, images := build(t, name, 31, 5)
		model.Metadata = map[string]string{"method": "linear:4", "accuracy": "0.99", "": "ünïcode"}
		data := encode(t, model)
		decoded, err := integer.Decode(data)
		require.NoError(t, err)
		require.Equal(t, model, decoded)
		require.Equal(t, data, encode(t, decoded))
		want, err := model.Program.Run(images)
		require.NoError(t, err)
		got, err := decoded.Program.Run(images)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// Every width and every form of scales must survive, without a program too.
func TestLayersSurvive(t *testing.T) {
	m := newMirror(t, 32, integer.Shape{Channels: 1, Height: 1, Width: 1})
	model := &integer.Model{Input: m.input, Metadata: map[string]string{}}
	for bits := uint8(1); bits <= 16; bits++ {
		w := m.weights(bits, 1+int(bits)%3, 3, 7)
		for _, plane := range w.Planes {
			switch bits % 4 {
			case 0:
				plane.Scale[0] = 0.1 // no float32
			case 1:
				copy(plane.Scale, []float64{0.1, 0.1, 0.1})
			case 2:
				copy(plane.Scale, []float64{0.5, 0.5, 0.5})
			}
		}
		model.Layers = append(model.Layers, integer.Layer{Name: strings.Repeat("x", int(bits)), Weights: *w, Bias: m.bias(3)})
	}
	model.Layers[0].Bias = nil
	model.Layers[1].Weights.Planes[0].Scale = []float64{0, math.Copysign(0, -1), 0}
	decoded, err := integer.Decode(encode(t, model))
	require.NoError(t, err)
	require.Equal(t, model, decoded)
	require.True(t, math.Signbit(decoded.Layers[1].Weights.Planes[0].Scale[1]))
}

func TestFileSizeOfLeNet(t *testing.T) {
	model, _ := build(t, "lenet", 33, 0)
	weights := 0
	for _, layer := range model.Layers {
		weights += len(layer.Weights.Codes) + len(layer.Bias)
	}
	require.Equal(t, 61706, weights)
	require.Less(t, len(encode(t, model)), 40000)
}

// The committed file and logits hold the format and all arithmetic in place, from the choice of shifts on.
func TestCommittedFile(t *testing.T) {
	model, images := build(t, "asymmetric", 34, 4)
	model.Metadata["purpose"] = "test of the file format"
	data := encode(t, model)
	path := filepath.Join("testdata", "small.goq")
	if *update {
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, data)
	logits, err := model.Program.Run(images)
	require.NoError(t, err)
	bytes := []byte{}
	for _, logit := range logits {
		bytes = binary.LittleEndian.AppendUint32(bytes, uint32(logit))
	}
	sum := sha256.Sum256(bytes)
	require.Equal(t, "b612fd5c792e0094", hex.EncodeToString(sum[:8]))
}

func TestSaveAndLoad(t *testing.T) {
	model, _ := build(t, "averaging", 35, 0)
	path := filepath.Join(t.TempDir(), "model.goq")
	require.NoError(t, integer.Save(path, model))
	loaded, err := integer.Load(path)
	require.NoError(t, err)
	require.Equal(t, model, loaded)

	_, err = integer.Load(path + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Error(t, integer.Save(filepath.Join(path, "x"), model))
	require.NoError(t, os.WriteFile(path, []byte("not a model"), 0o600))
	_, err = integer.Load(path)
	var format *integer.FormatError
	require.ErrorAs(t, err, &format)
	require.EqualError(t, err, "integer: "+path+" is no valid .goq file: byte 11: 11 bytes: want a header of 48")
}

func TestEncodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*integer.Model)
		want   string
	}{
		"input":           {func(m *integer.Model) { m.Input.Width = 0 }, "input shape 4x6x0"},
		"other input":     {func(m *integer.Model) { m.Input.Width = 8 }, "program of input 4x6x7 and 3 classes in a model of 4x6x8 and 3"},
		"classes":         {func(m *integer.Model) { m.Classes = nil }, "in a model of 4x6x7 and 0"},
		"layers":          {func(m *integer.Model) { m.Layers = m.Layers[1:] }, "2 weight tensors in a model of 1 layers"},
		"other weights":   {func(m *integer.Model) { m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0] }, `layer "second" differs from the program's weights`},
		"biases":          {func(m *integer.Model) { m.Layers[0].Bias = m.Layers[0].Bias[1:] }, `layer "first": 6 biases: want 7`},
		"weights":         {func(m *integer.Model) { m.Layers[0].Weights.Bits = 5 }, `layer "first": weights of 5 bits`},
		"logit scale":     {func(m *integer.Model) { m.LogitScale = 3 }, "logit scale 3: want a positive power of two"},
		"no logit scale":  {func(m *integer.Model) { m.LogitScale = math.NaN() }, "want a positive power of two"},
		"without program": {func(m *integer.Model) { m.Program = nil }, "without a program: want 0"},
		"not UTF-8":       {func(m *integer.Model) { m.Metadata["a"] = "\xff" }, "is not UTF-8"},
		"long name":       {func(m *integer.Model) { m.Classes[0] = strings.Repeat("x", 1<<16) }, "a count of 65536: want at most 65535"},
	} {
		model, _ := build(t, "averaging", 36, 0)
		c.change(model)
		_, err := integer.Encode(model)
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "integer: ", name)
	}
}

// find returns the offset of the bytes' first occurrence.
func find(t testing.TB, data []byte, what string) int {
	i := strings.Index(string(data), what)
	require.GreaterOrEqual(t, i, 0)
	return i
}

// defects are edits of a valid file of the averaging network; those of the payload get a right checksum
// afterwards. Layer "first" begins with its name: rank, four sizes, bits and codes follow.
var defects = map[string]struct {
	edit func(t testing.TB, data []byte) []byte
	want string
}{
	"empty":              {func(_ testing.TB, d []byte) []byte { return nil }, "0 bytes: want a header of 48"},
	"truncated-header":   {func(_ testing.TB, d []byte) []byte { return d[:47] }, "47 bytes: want a header"},
	"truncated-payload":  {func(_ testing.TB, d []byte) []byte { return d[:len(d)-1] }, "want equal numbers"},
	"appended-byte":      {func(_ testing.TB, d []byte) []byte { return append(d, 0) }, "want equal numbers"},
	"wrong-magic":        {func(_ testing.TB, d []byte) []byte { d[3] = '1'; return d }, `starts with "GOQ1"`},
	"later-version":      {func(_ testing.TB, d []byte) []byte { d[4] = 2; return sealed(d) }, "size 2161900467"},
	"wrong-version":      {func(_ testing.TB, d []byte) []byte { d[4] = 3; return d }, "version 3: want 1 or 2"},
	"wrong-checksum":     {func(_ testing.TB, d []byte) []byte { d[20] ^= 1; return d }, "checksum differs"},
	"flipped-bit":        {func(_ testing.TB, d []byte) []byte { d[len(d)-9] ^= 1; return d }, "checksum differs"},
	"huge-length":        {func(_ testing.TB, d []byte) []byte { d[15] = 0x80; return d }, "want equal numbers below 2^31"},
	"no-sections":        {func(_ testing.TB, d []byte) []byte { return sealed(d[:48]) }, "4 bytes needed, 0 left"},
	"wrong-section":      {put("META", 'X'), `section "XETA": want "META"`},
	"long-section":       {put("META", 'M', 'E', 'T', 'A', 0xff, 0xff, 0xff, 0x7f), "2147483647 items of at least 1 bytes"},
	"short-section":      {put("INPT", 'I', 'N', 'P', 'T', 19), "8 bytes needed, 7 left"},
	"overlong-section":   {put("INPT", 'I', 'N', 'P', 'T', 21), "section INPT has 1 bytes too many"},
	"huge-count":         {put("META", 'M', 'E', 'T', 'A', 40, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f), "2147483647 items of at least 6 bytes"},
	"negative-count":     {put("META", 'M', 'E', 'T', 'A', 40, 0, 0, 0, 0xff, 0xff, 0xff, 0xff), "size 4294967295"},
	"unsorted-keys":      {put("key1", 'z'), `metadata key "key2" after "zey1"`},
	"repeated-keys":      {put("key2", 'k', 'e', 'y', '1'), `metadata key "key1" after "key1"`},
	"text-not-utf8":      {put("key1", 0xff), "is not UTF-8"},
	"zero-width":         {put("INPT", 'I', 'N', 'P', 'T', 20, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 0), "input shape 4x6x0"},
	"rank-three":         {put("first", 'f', 'i', 'r', 's', 't', 3), "weights of 3 dimensions"},
	"zero-dimension":     {put("first", 'f', 'i', 'r', 's', 't', 4, 0), "weight shape [0 4 3 3]"},
	"huge-dimension":     {put("first", 'f', 'i', 'r', 's', 't', 4, 0, 0, 0, 0x40), "less than 2^31 weights"},
	"more-codes":         {put("first", 'f', 'i', 'r', 's', 't', 4, 0, 0, 0, 1), "bytes needed"},
	"no-bits":            {put("first", 'f', 'i', 'r', 's', 't', 4, 7, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0), "weights of 0 bits"},
	"seventeen-bits":     {put("first", 'f', 'i', 'r', 's', 't', 4, 7, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 17), "weights of 17 bits"},
	"no-planes":          {at("first", 5+18+189, 0), "weights of 0 planes"},
	"nine-planes":        {at("first", 5+18+189, 9), "weights of 9 planes"},
	"scale-form":         {at("first", 5+18+190+64, 4), "form of scales 4"},
	"scale-not-finite":   {at("first", 5+18+190+64+1, 0, 0, 0x80, 0x7f), "channel 0 has scale +Inf"},
	"bias-mark":          {at("first", 5+18+190+64+1+28, 2), "bias mark 2"},
	"bias-not-finite":    {at("first", 5+18+190+64+1+28+1, 0, 0, 0xc0, 0x7f), "bias NaN of channel 0"},
	"left-over-bits":     {at("second", 6+18+18, 0xff), "bits left over after the last code"},
	"carrier":            {at("PROG", 12, 2), "carrier 2: want 0 or 1"},
	"zero-point":         {at("PROG", 8, 0, 1), "want a range that 8 bits hold"},
	"too-many-nodes":     {at("PROG", 13+4*256, 0xff, 0xff), "items of at least 6 bytes"},
	"more-nodes":         {at("PROG", 13+4*256, 8), "bytes needed, 0 left"},
	"fewer-nodes":        {at("PROG", 13+4*256, 6), "section PROG has"},
	"unknown-kind":       {at("PROG", 13+4*256+2, 10), "node of kind 10: want 1 to 9"},
	"no-inputs":          {at("PROG", 13+4*256+2+8, 0), "items of at least 9 bytes"},
	"more-inputs":        {at("PROG", 13+4*256+2+8, 2), "bytes needed"},
	"many-inputs":        {at("PROG", 13+4*256+2+8, 0xff), "255 items of at least 2 bytes"},
	"later-input":        {at("PROG", 13+4*256+2+9, 1), `node "first": input 1`},
	"unknown-layer":      {at("PROG", 13+4*256+2+11, 2), `node "first": weights 2 of 2`},
	"zero-stride":        {at("PROG", 13+4*256+2+13, 0), "want positive sizes"},
	"no-groups":          {at("PROG", 13+4*256+2+13+24, 0), "in 0 groups"},
	"requantizer-planes": {at("PROG", 13+4*256+2+13+28, 0xff), "items of at least 1029 bytes"},
	"requantizer-mark":   {at("PROG", 13+4*256+2+13+28+1, 2), "mark 2 of numbers for negative sums: want 0 or 1"},
	"negative-numbers":   {at("PROG", 13+4*256+2+13+28+1, 1), "node of kind 0"},
	"requantizer-count":  {at("PROG", 13+4*256+2+13+28+2, 6), "bytes needed"},
	"requantizer-shift":  {at("PROG", 13+4*256+2+13+28+6+12, 63), "channel 0: shift 63"},
	"requantizer-bias":   {at("PROG", 13+4*256+2+13+28+6+12+7+7, 0x7f), "beyond 2^62"},
	"lowest-multiplier":  {at("PROG", 13+4*256+2+13+28+6+12+7+56, 0, 0, 0, 0x80), "multiplier -2^31"},
	"cut-section":        {put("CLAS", 'C', 'L', 'A', 'S', 8, 0, 0, 0, 2), `want "INPT"`},
	"trailing-bytes":     {func(_ testing.TB, d []byte) []byte { return sealed(append(d, 1, 2)) }, "2 bytes after the last section"},
}

// put overwrites the bytes from the first occurrence of a mark.
func put(mark string, bytes ...byte) func(testing.TB, []byte) []byte { return at(mark, 0, bytes...) }

// at overwrites the bytes at a distance from the first occurrence of a mark.
func at(mark string, distance int, bytes ...byte) func(testing.TB, []byte) []byte {
	return func(t testing.TB, data []byte) []byte {
		copy(data[find(t, data, mark)+distance:], bytes)
		return sealed(data)
	}
}

// sealed gives an edited payload a right header, of the version that is there.
func sealed(data []byte) []byte {
	integer.WriteHeader(data, max(1, uint32(data[4])))
	return data
}

func defectFree(t *testing.T) []byte {
	model, _ := build(t, "averaging", 37, 0)
	model.Metadata = map[string]string{"key1": "value1", "key2": "value2"}
	return encode(t, model)
}

// vectorDefects are edits of the network whose codes stand for vectors. Layer "first" begins with its name, rank, four sizes, bits and the
// weights of a vector; 24 codes of 3 bits follow, and a table of 72 entries.
var vectorDefects = map[string]struct {
	edit func(t testing.TB, data []byte) []byte
	want string
}{
	"earlier-version": {func(_ testing.TB, d []byte) []byte { d[4] = 1; return sealed(d) }, "weights of 147 planes"},
	"no-vector":       {at("first", 5+1+16+1, 0), "vectors of 0 weights: want a divisor of the 36 weights of an output"},
	"odd-vector":      {at("first", 5+1+16+1, 8), "vectors of 8 weights: want a divisor of the 36 weights of an output"},
	"long-vector":     {at("first", 5+1+16+1, 72), "vectors of 72 weights: want a divisor of the 36 weights of an output"},
	"huge-vector":     {at("first", 5+1+16+1, 0, 0, 0, 0x40), "vectors of 1073741824 weights"},
	"negative-vector": {at("first", 5+1+16+1, 0, 0, 0, 0x80), "size 2147483648"},
	"more-codes":      {at("first", 5+1+16+1, 1), "weights of 224 planes"},
}

func TestDecodeRefusesDefectsOfVectors(t *testing.T) {
	model, _ := build(t, "vectors", 40, 0)
	data := encode(t, model)
	for name, c := range vectorDefects {
		_, err := integer.Decode(c.edit(t, slices.Clone(data)))
		var format *integer.FormatError
		require.ErrorAs(t, err, &format, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

// A file has the version that its layers need, and codes of one weight are as they ever were.
func TestVersionOfFile(t *testing.T) {
	m := newMirror(t, 41, integer.Shape{Channels: 1, Height: 1, Width: 1})
	plain, vectors := m.weights(4, 1, 3, 8), m.vectors(4, 2, 2, 3, 8)
	save := func(weights ...*integer.Weights) []byte {
		model := &integer.Model{Input: m.input, Metadata: map[string]string{}}
		for _, w := range weights {
			model.Layers = append(model.Layers, integer.Layer{Name: "x", Weights: *w})
		}
		data := encode(t, model)
		decoded, err := integer.Decode(data)
		require.NoError(t, err)
		require.Equal(t, data, encode(t, decoded))
		for i, w := range weights {
			require.Equal(t, w.Decode(), decoded.Layers[i].Weights.Decode())
		}
		return data
	}
	data := save(plain)
	require.EqualValues(t, 1, data[4])
	plain.Vector = 1
	require.Equal(t, data, save(plain))
	require.EqualValues(t, 2, save(plain, vectors)[4])

	at := find(t, data, "LAYR")
	data[at+4] += 4
	data = slices.Insert(data, at+8+2+3+1+8+1, 1, 0, 0, 0) // behind the count, name, rank, sizes and bits
	data[4] = 2
	_, err := integer.Decode(sealed(data))
	require.ErrorContains(t, err, "no codes of vectors in a file of version 2: want version 1")
}

func TestWeightsOfVectorsAreChecked(t *testing.T) {
	for want, change := range map[string]func(w *integer.Weights){
		"vectors of 3 weights for shape [3 8]: want a divisor of 8":  func(w *integer.Weights) { w.Vector = 3 },
		"vectors of -4 weights for shape [3 8]: want a divisor of 8": func(w *integer.Weights) { w.Vector = -4 },
		"6 weight codes for shape [3 8]: want 12":                    func(w *integer.Weights) { w.Vector = 2 },
		"weights of 3 bits with a table of 16 entries":               func(w *integer.Weights) { w.Bits = 3 },
		"weight table of 15 entries":                                 func(w *integer.Weights) { w.Planes[0].Table = w.Planes[0].Table[:15] },
		"tables of different lengths":                                func(w *integer.Weights) { w.Planes[1].Table = w.Planes[1].Table[:8] },
		"weight code 4 at 5: want less than 4":                       func(w *integer.Weights) { w.Codes[5] = 4 },
	} {
		w := newMirror(t, 42, integer.Shape{Channels: 1, Height: 1, Width: 1}).vectors(4, 2, 2, 3, 8)
		require.NoError(t, w.Validate())
		change(w)
		require.ErrorContains(t, w.Validate(), want)
	}
}

func TestDecodeRefusesDefects(t *testing.T) {
	for name, c := range defects {
		data := defectFree(t)
		_, err := integer.Decode(c.edit(t, data))
		var format *integer.FormatError
		require.ErrorAs(t, err, &format, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

// stairDefects are edits of the first staircase of the network of unequal steps; its numbers follow kind, name and input.
var stairDefects = map[string]struct {
	edit func(t testing.TB, data []byte) []byte
	want string
}{
	"carrier":      {at("staircase3", 10+3+1+4*15, 2), "codes of carrier 2: want 0 or 1"},
	"descending":   {at("staircase3", 10+3+1+3, 0x7f), `node "staircase3": staircase of bounds that descend`},
	"more-bounds":  {at("staircase3", 10+3, 0xff), "codes of carrier 113: want 0 or 1"},
	"fewer-bounds": {at("staircase3", 10+3, 0), "codes of carrier 245: want 0 or 1"},
	"two-inputs":   {at("staircase3", 10, 2), "codes of carrier 255: want 0 or 1"},
}

func TestDecodeRefusesDefectsOfStaircases(t *testing.T) {
	model, _ := build(t, "table", 39, 0)
	data := encode(t, model)
	for name, c := range stairDefects {
		_, err := integer.Decode(c.edit(t, slices.Clone(data)))
		var format *integer.FormatError
		require.ErrorAs(t, err, &format, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

// Every prefix and every damaged byte, with a right checksum, must give an error or a model that runs.
func TestDecodeSurvivesEveryDamagedByte(t *testing.T) {
	data := defectFree(t)
	for i := 48; i < len(data); i++ {
		_, err := integer.Decode(sealed(data[:i:i]))
		require.Error(t, err)
		damaged := append([]byte{}, data...)
		damaged[i] ^= 0x81
		decodeAndRun(t, sealed(damaged))
	}
}

// decodeAndRun runs what decodes on both engines, unless that takes long.
func decodeAndRun(t testing.TB, data []byte) {
	m, err := integer.Decode(data)
	if err != nil {
		var format *integer.FormatError
		require.ErrorAs(t, err, &format)
		return
	}
	again, err := integer.Decode(encode(t, m))
	require.NoError(t, err)
	require.Equal(t, m, again)
	if m.Program == nil {
		return
	}
	cost, err := m.Program.Cost()
	require.NoError(t, err)
	if cost.Operations > 1e7 || cost.Elements > 1e7 || cost.Weights > 1e7 {
		return
	}
	image := make([]uint8, m.Input.Len())
	for i := range image {
		image[i] = uint8(37 * i)
	}
	logits, err := m.Program.Run(image)
	require.NoError(t, err)
	trace, err := m.Program.Trace(image)
	require.NoError(t, err)
	require.Equal(t, trace[len(trace)-1].Values, logits)
}

// FuzzDecode seals what the fuzzer makes, or the checksum would stop it at the door.
func FuzzDecode(f *testing.F) {
	valid, err := os.ReadFile(filepath.Join("testdata", "small.goq"))
	require.NoError(f, err)
	f.Add(valid[48:])
	f.Add([]byte{})
	for _, name := range []string{"INPT", "PROG"} {
		f.Add(valid[48:find(f, valid, name)])
	}
	for _, name := range []string{"resnet", "prelu", "table", "planes", "vectors"} { // kinds and numbers that the small file has not
		m := newMirror(f, 38, networkInputs[name])
		model, _ := m.output(networks[name](m))
		f.Add(encode(f, model)[48:])
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for version := range 2 {
			file := append(make([]byte, 48), payload...)
			file[4] = byte(version + 1)
			decodeAndRun(t, sealed(file))
		}
	})
}
