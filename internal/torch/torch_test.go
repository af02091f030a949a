package torch

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/torch/checkpoints"
)

// decode reads a file given as its bytes.
func decode(data []byte) ([]Tensor, error) { return Decode(bytes.NewReader(data), int64(len(data))) }

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return data
}

// ramp is what fixtures.py calls so.
func ramp(n int) []float32 {
	list := make([]float32, n)
	for i := range list {
		list[i] = float32(i)/8 - 1
	}
	return list
}

// fixtureTensors are those of zip.pt and legacy.pt, without the counter.
func fixtureTensors() []Tensor {
	m := ramp(12)
	infinity := float32(math.Inf(1))
	return []Tensor{
		{"float32", []int{2, 3}, ramp(6)},
		{"float64", []int{2, 2}, []float32{-1.0 / 3, -0.875 / 3, -0.25, -0.625 / 3}},
		{"float16", []int{5}, []float32{1, -2.5, 65504, 0x1p-24, infinity}},
		{"bfloat16", []int{3}, []float32{1, -2.5, math.Float32frombits(0x7f62 << 16)}},
		{"int64", []int{3}, []float32{-1, 0, 1 << 24}},
		{"matrix", []int{3, 4}, m},
		{"transposed", []int{4, 3}, []float32{m[0], m[4], m[8], m[1], m[5], m[9], m[2], m[6], m[10], m[3], m[7], m[11]}},
		{"slice", []int{2, 2}, []float32{m[4], m[6], m[8], m[10]}},
		{"scalar", []int{}, []float32{0.5}},
		{"empty", []int{0, 3}, []float32{}},
		{"parameter", []int{2}, ramp(2)},
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	w := []Tensor{{"w", []int{2}, ramp(2)}}
	for name, want := range map[string][]Tensor{
		"zip.pt": fixtureTensors(), "legacy.pt": fixtureTensors(), "wrapped.pt": w, "unnamed-wrapper.pt": w,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(filepath.Join("testdata", name))
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"malicious.pt":        `class "posix.system" is refused`,
		"malicious-legacy.pt": `class "posix.system" is refused`,
		"module.pt":           `class "torch.nn.modules.linear.Linear" is refused`,
		"uint8.pt":            `tensor "w" is a view of a ByteStorage`,
		"expanded.pt":         "as many elements as the file has bytes",
		"protocol4.pt":        "pickle protocol 4: want 2",
		"list.pt":             "no dictionary of tensors",
		"two-dictionaries.pt": `none is the obvious one: "a", "b"`,
		"torchscript.pt":      "a TorchScript program",
		"fixtures.py":         "neither a zip file nor PyTorch's legacy format",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(filepath.Join("testdata", name))
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, name)
			var format *FormatError
			require.ErrorAs(t, err, &format)
		})
	}
}

func TestReadNoFile(t *testing.T) {
	t.Parallel()
	_, err := Read(filepath.Join(t.TempDir(), "absent.pt"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Read(t.TempDir())
	require.ErrorContains(t, err, "is not a file")
}

// TestTruncated cuts files everywhere: no part of one is a file.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"zip.pt", "legacy.pt"} {
		data := fixture(t, name)
		for n := range data {
			_, err := decode(data[:n])
			var format *FormatError
			require.ErrorAs(t, err, &format, "%s, %d bytes", name, n)
		}
	}
}

// TestResNet20 compares a public legacy checkpoint with what PyTorch 1.13 reads from it.
func TestResNet20(t *testing.T) {
	t.Parallel()
	tensors, err := Read(checkpoints.Path(t, "resnet20-12fca82f.th"))
	require.NoError(t, err)
	require.Len(t, tensors, 97)
	for i, want := range map[int]Tensor{
		0:  {"module.conv1.weight", []int{16, 3, 3, 3}, []float32{-0.13818146288394928}},
		1:  {"module.bn1.weight", []int{16}, []float32{0.610402524471283}},
		45: {"module.layer2.1.conv1.weight", []int{32, 32, 3, 3}, []float32{0.033203139901161194}},
		95: {"module.linear.weight", []int{10, 64}, []float32{-1.0598125457763672}},
		96: {"module.linear.bias", []int{10}, []float32{0.19355906546115875}},
	} {
		require.Equal(t, want.Name, tensors[i].Name)
		require.Equal(t, want.Shape, tensors[i].Shape)
		require.Equal(t, want.Data, tensors[i].Data[:len(want.Data)])
	}
	require.Equal(t, "72d8687c39598736001098cb592d2ec59d2f659b285f003abed03d2644ef5837", digest(tensors))
}

// digest is the SHA-256 of each tensor's name, a zero byte and its elements as little-endian float32.
func digest(tensors []Tensor) string {
	h := sha256.New()
	for _, tensor := range tensors {
		h.Write(append([]byte(tensor.Name), 0))
		for _, v := range tensor.Data {
			h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// The functions below write pickles.

func number(n int) string { return "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }

func text(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func tuple(numbers ...int) string {
	items := ""
	for _, n := range numbers {
		items += number(n)
	}
	return "(" + items + "t"
}

func storageOf(class string, elements int) string {
	return "(" + text("storage") + "ctorch\n" + class + "\n" + text("0") + text("cpu") + number(elements) + "NtQ"
}

func tensorOf(storage string, offset int, shape, stride string) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + shape + stride + "tR"
}

// entry is a dictionary of one value.
func entry(value string) string { return "}" + text("w") + value + "s" }

const (
	machine = "\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
	keys    = "\x80\x02]X\x01\x00\x00\x000a."
)

// legacyFile is a file of an object with storage "0" of two float32.
func legacyFile(object string) []byte {
	body := "\x02\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x80\x3f\x00\x00\x00\x40"
	return []byte(legacyMagic + legacyVersion + machine + "\x80\x02" + object + "." + keys + body)
}

// zipFile is a zip container of the same.
func zipFile(t testing.TB, method uint16, object string, extra ...string) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := zip.NewWriter(&buffer)
	contents := map[string]string{
		"a/data.pkl": "\x80\x02" + object + ".", "a/byteorder": "big", "a/data/0": "\x00\x00\x80\x3f\x00\x00\x00\x40",
	}
	for _, name := range append([]string{"a/data.pkl", "a/data/0"}, extra...) {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		require.NoError(t, err)
		_, err = f.Write([]byte(contents[name]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buffer.Bytes()
}

var (
	two  = storageOf("FloatStorage", 2)
	pair = entry(tensorOf(two, 0, tuple(2), tuple(1)))
)

func TestDecode(t *testing.T) {
	t.Parallel()
	want := []Tensor{{"w", []int{2}, []float32{1, 2}}}
	for name, data := range map[string][]byte{
		"legacy":                  legacyFile(pair),
		"legacy, bytes after":     append(legacyFile(pair), "more"...),
		"zip":                     zipFile(t, zip.Store, pair),
		"first rebuild function":  legacyFile(strings.ReplaceAll(pair, "_rebuild_tensor_v2", "_rebuild_tensor")),
		"other values":            legacyFile("}" + text("epoch") + number(3) + "s" + number(1) + number(2) + "s" + text("w") + tensorOf(two, 0, tuple(2), tuple(1)) + "s"),
		"dictionary under itself": legacyFile("}q\x00" + text("state_dict") + "h\x00s" + text("w") + tensorOf(two, 0, tuple(2), tuple(1)) + "s"),
		"dictionary under a key":  legacyFile("}" + text("mean") + tensorOf(two+"q\x00", 0, tuple(), tuple()) + "s" + text("student") + pair + "s"),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decode(data)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

// pickleDefects are objects of a legacy file and what is said of them.
var pickleDefects = map[string]struct{ object, want string }{
	"unknown opcode":             {"\x93", "pickle opcode 0x93"},
	"opcode 255":                 {"\xff", "pickle opcode 0xff"},
	"duplicate top":              {"N2", "pickle opcode 0x32"},
	"class":                      {"cos\nsystem\n", `class "os.system" is refused`},
	"class of Python":            {"c__builtin__\nobject\n", `class "__builtin__.object" is refused`},
	"class without name":         {"c" + strings.Repeat("x", 600), "class without a module or name"},
	"string longer than file":    {"X\xff\xff\x0f\x00", "BINUNICODE: 1048579 bytes, but the pickle ends after"},
	"string above the limit":     {"X\xff\xff\xff\x7f", "a string of 2147483647 bytes"},
	"short string cut":           {"U\xff", "but the pickle ends after"},
	"reference to nothing":       {"h\x07", "object 7, which it has not memoized"},
	"memoized late":              {"]Naq\x00", "not just made"},
	"empty stack":                {"0", "pickle opcode 0x30"},
	"tuple without mark":         {"t", "malformed: the meta stack is empty"},
	"append to a number":         {"K\x01K\x02a", "malformed: APPEND requires"},
	"call of a dictionary":       {"})R", "malformed: REDUCE requires"},
	"call of a storage class":    {"ctorch\nFloatStorage\n)R", "malformed: REDUCE requires"},
	"key that is no key":         {"ccollections\nOrderedDict\n)R(K\x01u", "malformed: runtime error"},
	"long of no bytes":           {"\x8a\x00", "malformed: runtime error"},
	"ordered from a list":        {"ccollections\nOrderedDict\n]\x85R", "malformed: OrderedDictClass.Call"},
	"parameter without tensor":   {"ctorch._utils\n_rebuild_parameter\n)R", "a parameter without a tensor"},
	"tensor without arguments":   {"ctorch._utils\n_rebuild_tensor\n)R", "a tensor of 0 arguments"},
	"tensor without storage":     {entry(tensorOf("N", 0, tuple(2), tuple(1))), "a tensor needs a storage"},
	"sizes that are no tuple":    {entry(tensorOf(two, 0, "]", tuple(1))), "a tensor needs a storage"},
	"sizes that are no numbers":  {entry(tensorOf(two, 0, "(Nt", tuple(1))), "a tensor needs a storage"},
	"fewer strides":              {entry(tensorOf(two, 0, tuple(2, 1), tuple(1))), "as many strides"},
	"rank":                       {entry(tensorOf(two, 0, tuple(make([]int, 33)...), tuple(make([]int, 33)...))), "up to 32 sizes"},
	"negative size":              {entry(tensorOf(two, 0, tuple(-2), tuple(1))), "as many elements as the file has bytes"},
	"huge sizes":                 {entry(tensorOf(two, 0, tuple(1<<30, 1<<30, 1<<30), tuple(0, 0, 0))), "as many elements as the file has bytes"},
	"negative stride":            {entry(tensorOf(two, 1, tuple(2), tuple(-1))), "leaves its storage of 2 elements"},
	"size beyond":                {entry(tensorOf(two, 0, tuple(3), tuple(1))), "leaves its storage"},
	"stride beyond":              {entry(tensorOf(two, 0, tuple(2), tuple(2))), "leaves its storage"},
	"stride overflow":            {entry(tensorOf(two, 0, tuple(2, 2), tuple(1<<30, 1<<30))), "leaves its storage"},
	"second dimension beyond":    {entry(tensorOf(two, 0, tuple(2, 2), tuple(1, 1))), "leaves its storage"},
	"offset beyond":              {entry(tensorOf(two, 2, tuple(), tuple())), "leaves its storage"},
	"offset far beyond":          {entry(tensorOf(two, 9, tuple(1), tuple(1))), "leaves its storage"},
	"negative offset":            {entry(tensorOf(two, -1, tuple(1), tuple(1))), "leaves its storage"},
	"same name":                  {"}" + text("w") + tensorOf(two, 0, tuple(), tuple()) + "s" + text("w") + tensorOf(two, 0, tuple(), tuple()) + "s", `two tensors are named "w"`},
	"storage too large":          {entry(tensorOf(storageOf("FloatStorage", 1<<30), 0, tuple(2), tuple(1))), "of 1073741824 elements can't be in a file"},
	"storage of negative size":   {entry(tensorOf(storageOf("FloatStorage", -1), 0, tuple(2), tuple(1))), "of -1 elements can't be"},
	"storage of another size":    {entry(tensorOf(storageOf("FloatStorage", 1), 0, tuple(1), tuple(1))), "has 2 elements where its tensors say 1"},
	"storage past the end":       {entry(tensorOf(storageOf("DoubleStorage", 2), 0, tuple(2), tuple(1))), "would end at byte"},
	"storage described twice":    {entry("(" + two + storageOf("HalfStorage", 2) + "t"), "described in two ways"},
	"storage not in list":        {entry(tensorOf(strings.Replace(two, text("0"), text("1"), 1), 0, tuple(2), tuple(1))), `names "0", which no tensor uses`},
	"storage that is a view":     {entry(strings.Replace(two, "NtQ", ")tQ", 1)), "a view of another"},
	"reference to a module":      {entry("(" + text("module") + "NNNNtQ"), "other than a storage"},
	"reference that is no tuple": {entry("NQ"), "other than a storage"},
	"reference without class":    {entry(strings.Replace(two, "ctorch\nFloatStorage\n", "N", 1)), "without class, key or element count"},
	"long strings over and over": {text(strings.Repeat("x", 1<<16)) + "q\x00(" + strings.Repeat("h\x00", 1<<12) + "t)R", "strings and references to them"},
	"too many opcodes":           {strings.Repeat("N", 1<<19), "more than 262144 opcodes"},
	"no end below the limit":     {strings.Repeat(text(strings.Repeat("x", 1<<20)), 5), "the pickle ends after"},
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		data []byte
		want string
	}{
		"empty":                    {nil, "neither a zip file"},
		"tar":                      {append(make([]byte, 257), "ustar\x00"...), "a tar archive"},
		"version":                  {[]byte(legacyMagic + "\x80\x02M\xe8\x03."), "protocol version is not 1001"},
		"machine":                  {[]byte(strings.Replace(string(legacyFile(pair)), "little_endian\x88", "little_endian\x89", 1)), "little-endian"},
		"list of storages missing": {[]byte(strings.Replace(string(legacyFile(pair)), keys, "\x80\x02N.", 1)), "list of storages is missing"},
		"storage listed twice":     {[]byte(strings.Replace(string(legacyFile(pair)), keys, "\x80\x02]X\x01\x00\x00\x000aX\x01\x00\x00\x000a.", 1)), "came before"},
		"storage not listed":       {[]byte(strings.Replace(string(legacyFile(pair)), keys, "\x80\x02].", 1)), "is not in the list"},
		"zip of nothing":           {[]byte("PK\x03\x04"), "zip: "},
		"zip compressed":           {zipFile(t, zip.Deflate, pair), "is compressed"},
		"zip of a big-endian":      {zipFile(t, zip.Store, pair, "a/byteorder"), "little-endian"},
		"zip with two pickles":     {zipFile(t, zip.Store, pair, "b/data.pkl"), "2 members FOLDER/data.pkl"},
		"zip with two storages":    {zipFile(t, zip.Store, pair, "a/data/0"), "two members"},
		"zip without storage":      {zipFile(t, zip.Store, strings.Replace(pair, text("0"), text("1"), 1)), `storage "1" is not in the zip file`},
		"zip, another size":        {zipFile(t, zip.Store, entry(tensorOf(storageOf("FloatStorage", 3), 0, tuple(2), tuple(1)))), "has 8 bytes where its tensors say 12"},
		"zip, larger storage":      {zipFile(t, zip.Store, entry(tensorOf(storageOf("FloatStorage", 1), 0, tuple(1), tuple(1)))), "has 8 bytes: want at most 4"},
		"zip, damaged":             {bytes.Replace(zipFile(t, zip.Store, pair), []byte("\x80\x3f"), []byte("\x81\x3f"), 1), "checksum error"},
	}
	for name, d := range pickleDefects {
		cases["pickle: "+name] = struct {
			data []byte
			want string
		}{legacyFile(d.object), d.want}
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := decode(test.data)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "\n")
			require.Less(t, len(err.Error()), 400)
			var format *FormatError
			require.ErrorAs(t, err, &format)
		})
	}
}

// TestOverlap reads many storages that are one member of the zip file: each is as large as the file allows alone.
func TestOverlap(t *testing.T) {
	t.Parallel()
	a := &archive{size: 20, reader: bytes.NewReader(nil)}
	z, err := zip.NewReader(bytes.NewReader(zipFile(t, zip.Store, pair)), int64(len(zipFile(t, zip.Store, pair))))
	require.NoError(t, err)
	f := z.File[1]
	for range 2 {
		_, err := a.member(f, 8)
		require.NoError(t, err)
	}
	_, err = a.member(f, 8)
	require.ErrorContains(t, err, "all members together at most 20")
}

func TestSharedStorageIsBounded(t *testing.T) {
	t.Parallel()
	object := "}" + text("a") + tensorOf(two+"q\x00", 0, tuple(2), tuple(1)) + "s"
	for i := range 300 {
		object += text(string(rune('b'+i))) + "h\x01" + "s"
	}
	object = strings.Replace(object, "tRs", "tRq\x01s", 1)
	tensors, err := decode(legacyFile(object))
	require.NoError(t, err)
	require.Len(t, tensors, 301)
	_, err = decode(legacyFile(strings.ReplaceAll(object, tuple(2)+tuple(1), tuple(1<<9)+tuple(0))))
	require.ErrorContains(t, err, "as many elements as the file has bytes")
}

// TestFloat16 compares every number with its definition.
func TestFloat16(t *testing.T) {
	t.Parallel()
	for bits := range 1 << 16 {
		sign := 1 - 2*float64(bits>>15)
		exponent, fraction := bits>>10&31, float64(bits&1023)
		want := sign * math.Ldexp(1024+fraction, exponent-25)
		switch {
		case exponent == 0:
			want = sign * math.Ldexp(fraction, -24)
		case exponent == 31 && fraction == 0:
			want = math.Inf(int(sign))
		case exponent == 31:
			want = math.NaN()
		}
		got := Float16(binary.LittleEndian.AppendUint16(nil, uint16(bits)))
		if math.IsNaN(want) {
			require.True(t, math.IsNaN(float64(got)), "%04x", bits)
			continue
		}
		require.Equal(t, math.Float32bits(float32(want)), math.Float32bits(got), "%04x", bits)
	}
}

// check demands of whatever Decode accepts that shapes and data agree and that names differ.
func check(t *testing.T, tensors []Tensor, err error) {
	t.Helper()
	var format *FormatError
	if err != nil {
		require.ErrorAs(t, err, &format)
		return
	}
	names := map[string]bool{}
	for _, tensor := range tensors {
		n := 1
		for _, size := range tensor.Shape {
			n *= size
		}
		require.Len(t, tensor.Data, n)
		require.False(t, names[tensor.Name])
		names[tensor.Name] = true
	}
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pt")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, path := range files {
		f.Add(fixture(f, filepath.Base(path)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tensors, err := decode(data)
		check(t, tensors, err)
	})
}

// FuzzPickle reaches deeper than FuzzDecode, which checksums and magic numbers stop.
func FuzzPickle(f *testing.F) {
	f.Add(pair)
	for _, d := range pickleDefects {
		if len(d.object) < 1<<10 {
			f.Add(d.object)
		}
	}
	f.Fuzz(func(t *testing.T, object string) {
		tensors, err := decode(legacyFile(object))
		check(t, tensors, err)
	})
}
