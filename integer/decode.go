package integer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Decode reads the bytes of a .goq file and proves the model as Model.Validate does, so that its program
// can be run whatever the bytes were; Program.Cost tells what that takes. The bytes are not
// kept. Everything that is wrong with them is a *FormatError.
func Decode(data []byte) (*Model, error) {
	if err := checkHeader(data); err != nil {
		return nil, err
	}
	r := &reader{data: data, offset: headerLength, end: len(data), version: binary.LittleEndian.Uint32(data[4:])}
	m := &Model{}
	r.section(sectionMetadata, func() { m.Metadata = r.metadata() })
	r.section(sectionClasses, func() { m.Classes = r.classes() })
	r.section(sectionInput, func() {
		m.Input = Shape{r.u32(), r.u32(), r.u32()}
		m.LogitScale = r.f64()
	})
	r.section(sectionLayers, func() { m.Layers = r.layers() })
	if r.err == nil && r.offset < len(data) {
		r.section(sectionProgram, func() { m.Program = r.program(m) })
	}
	if r.err == nil && r.offset < len(data) {
		r.fail("%d bytes after the last section", len(data)-r.offset)
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := m.Validate(); err != nil {
		return nil, &FormatError{Offset: len(data), Reason: strings.TrimPrefix(err.Error(), "integer: ")}
	}
	return m, nil
}

// checkHeader checks magic, version, length and checksum.
func checkHeader(data []byte) error {
	if len(data) < headerLength {
		return &FormatError{Offset: len(data), Reason: fmt.Sprintf("%d bytes: want a header of %d", len(data), headerLength)}
	}
	if string(data[:4]) != magic {
		return &FormatError{Offset: 0, Reason: fmt.Sprintf("starts with %q: want %q", data[:4], magic)}
	}
	if version := binary.LittleEndian.Uint32(data[4:]); version != plainVersion && version != vectorVersion {
		return &FormatError{Offset: 4, Reason: fmt.Sprintf("version %d: want %d or %d", version, plainVersion, vectorVersion)}
	}
	payload := data[headerLength:]
	if length := binary.LittleEndian.Uint64(data[8:]); length != uint64(len(payload)) || length > maxPayload {
		return &FormatError{Offset: 8, Reason: fmt.Sprintf("payload of %d bytes in a file that has %d: want equal numbers below 2^31", length, len(payload))}
	}
	if sum := sha256.Sum256(payload); string(sum[:]) != string(data[16:headerLength]) {
		return &FormatError{Offset: 16, Reason: "checksum differs: the file is damaged"}
	}
	return nil
}

// reader takes the format's items from data[offset:end]. After the first error all reads yield zeros.
type reader struct {
	data        []byte
	offset, end int
	version     uint32
	err         error
}

func (r *reader) fail(format string, arguments ...any) {
	if r.err == nil {
		r.err = &FormatError{Offset: r.offset, Reason: fmt.Sprintf(format, arguments...)}
	}
}

// take returns the next n bytes, or nil with an error if there are fewer.
func (r *reader) take(n int) []byte {
	if r.err == nil && n > r.end-r.offset {
		r.fail("%d bytes needed, %d left", n, r.end-r.offset)
	}
	if r.err != nil {
		return nil
	}
	r.offset += n
	return r.data[r.offset-n : r.offset]
}

// number reads an unsigned integer of n bytes.
func (r *reader) number(n int) uint64 {
	v := uint64(0)
	for i, b := range r.take(n) {
		v |= uint64(b) << (8 * i)
	}
	return v
}

func (r *reader) u8() uint8    { return uint8(r.number(1)) }
func (r *reader) u16() int     { return int(r.number(2)) }
func (r *reader) i32() int32   { return int32(r.number(4)) }
func (r *reader) i64() int64   { return int64(r.number(8)) }
func (r *reader) f32() float32 { return math.Float32frombits(uint32(r.number(4))) }
func (r *reader) f64() float64 { return math.Float64frombits(r.number(8)) }

// u32 reads a size or count.
func (r *reader) u32() int {
	v := r.number(4)
	if v > maxElements {
		r.fail("size %d: want less than 2^31", v)
		return 0
	}
	return int(v)
}

// count returns n if n items of at least the given size can follow, and else 0 with an error.
func (r *reader) count(n, size int) int {
	if r.err == nil && n > (r.end-r.offset)/size {
		r.fail("%d items of at least %d bytes, %d bytes left", n, size, r.end-r.offset)
	}
	if r.err != nil {
		return 0
	}
	return n
}

func (r *reader) characters(n int) string {
	b := r.take(n)
	if !utf8.Valid(b) {
		r.fail("text %q is not UTF-8", b)
	}
	return string(b)
}

func (r *reader) string() string { return r.characters(r.u16()) }
func (r *reader) text() string   { return r.characters(r.u32()) }

// section reads one section, of which content must use every byte.
func (r *reader) section(name string, content func()) {
	if got := r.take(4); r.err == nil && string(got) != name {
		r.fail("section %q: want %q", got, name)
	}
	length := r.count(r.u32(), 1)
	if r.err != nil {
		return
	}
	outer := r.end
	r.end = r.offset + length
	content()
	if r.offset != r.end {
		r.fail("section %s has %d bytes too many", name, r.end-r.offset)
	}
	r.end = outer
}

func (r *reader) metadata() map[string]string {
	metadata := map[string]string{}
	previous := ""
	for i := range r.count(r.u32(), 6) {
		key := r.string()
		if i > 0 && key <= previous {
			r.fail("metadata key %q after %q: want ascending keys", key, previous)
			return nil
		}
		previous = key
		metadata[key] = r.text()
	}
	return metadata
}

func (r *reader) classes() []string {
	var classes []string
	for range r.count(r.u16(), 2) {
		classes = append(classes, r.string())
	}
	return classes
}

func (r *reader) layers() []Layer {
	var layers []Layer
	for range r.count(r.u16(), 8) {
		layers = append(layers, r.layer())
		if r.err != nil {
			return nil
		}
	}
	if want := versionOf(layers); want != r.version {
		r.fail("no codes of vectors in a file of version %d: want version %d", r.version, want)
	}
	return layers
}

func (r *reader) layer() Layer {
	l := Layer{Name: r.string()}
	l.Weights = r.weights()
	switch present := r.u8(); {
	case r.err != nil || present == 0:
		return l
	case present != 1:
		r.fail("bias mark %d: want 0 or 1", present)
	}
	l.Bias = make([]float32, r.count(l.Weights.Shape[0], 4))
	for o := range l.Bias {
		l.Bias[o] = r.f32()
	}
	return l
}

func (r *reader) weights() Weights {
	rank := int(r.u8())
	if rank != 2 && rank != 4 {
		r.fail("weights of %d dimensions: want 2 or 4", rank)
		return Weights{}
	}
	w := Weights{Shape: make([]int, rank)}
	for i := range w.Shape {
		w.Shape[i] = r.u32()
	}
	elements, ok := product(w.Shape...)
	if !ok {
		r.fail("weight shape %v: want positive dimensions and less than 2^31 weights", w.Shape)
	}
	w.Bits = r.u8()
	if w.Bits < 1 || w.Bits > maxWeightBits {
		r.fail("weights of %d bits: want 1 to %d", w.Bits, maxWeightBits)
	}
	if r.version == vectorVersion {
		w.Vector = r.vector(elements / max(1, w.Shape[0]))
	}
	w.Codes = r.codes(elements/max(1, w.Vector), w.Bits)
	planes := int(r.u8())
	if planes < 1 || planes > maxPlanes {
		r.fail("weights of %d planes: want 1 to %d", planes, maxPlanes)
	}
	for p := 0; p < planes && r.err == nil; p++ {
		w.Planes = append(w.Planes, Plane{Table: r.table(max(1, w.Vector) << w.Bits), Scale: r.scales(w.Shape[0])})
	}
	return w
}

func (r *reader) codes(count int, bits uint8) []uint16 {
	packed := r.take(packedLength(count, bits))
	if r.err != nil {
		return nil
	}
	codes, ok := unpackCodes(packed, count, bits)
	if !ok {
		r.fail("bits left over after the last code are not 0")
	}
	return codes
}

// vector reads how many of the weights of an output a code stands for; 0 for one alone.
func (r *reader) vector(each int) int {
	d := r.u32()
	if r.err == nil && (d < 1 || each%d != 0) {
		r.fail("vectors of %d weights: want a divisor of the %d weights of an output", d, each)
	}
	if r.err != nil || d == 1 {
		return 0
	}
	return d
}

func (r *reader) table(entries int) []int8 {
	table := make([]int8, r.count(entries, 1))
	for code := range table {
		table[code] = int8(r.u8())
	}
	return table
}

// scales reads the scales of one plane in any of their forms.
func (r *reader) scales(channels int) []float64 {
	form := r.u8()
	if form&^(scalesShared|scalesFloat32) != 0 {
		r.fail("form of scales %d: want 0 to 3", form)
	}
	read, size := r.f64, 8
	if form&scalesFloat32 != 0 {
		read, size = func() float64 { return float64(r.f32()) }, 4
	}
	if form&scalesShared != 0 {
		shared := read()
		if r.err != nil {
			return nil
		}
		return slices.Repeat([]float64{shared}, channels)
	}
	scales := make([]float64, r.count(channels, size))
	for o := range scales {
		scales[o] = read()
	}
	return scales
}

// program reads the program of a model whose other sections have been read.
func (r *reader) program(m *Model) *Program {
	p := &Program{Input: m.Input, Classes: len(m.Classes), Zero: r.i32()}
	for i := range m.Layers {
		p.Weights = append(p.Weights, *m.Layers[i].Weights.integers())
	}
	for codes := range slices.Chunk(r.carried(m.Input.Channels*256), 256) {
		p.Pixels = append(p.Pixels, [256]int16(codes))
	}
	for range r.count(r.u16(), 6) {
		p.Nodes = append(p.Nodes, r.node())
		if r.err != nil {
			return nil
		}
	}
	return p
}

// carried reads a carrier and n codes in it.
func (r *reader) carried(n int) []int16 {
	carrier := r.u8()
	if carrier != carrierUnsigned && carrier != carrierSigned {
		r.fail("codes of carrier %d: want 0 or 1", carrier)
	}
	bytes := r.take(n)
	codes := make([]int16, len(bytes))
	for i, code := range bytes {
		codes[i] = int16(code)
		if carrier == carrierSigned {
			codes[i] = int16(int8(code))
		}
	}
	return codes
}

func (r *reader) node() Node {
	n := Node{Kind: Kind(r.u8()), Name: r.string()}
	for range r.count(int(r.u8()), 2) {
		n.Inputs = append(n.Inputs, r.u16())
	}
	switch n.Kind {
	case Conv:
		n.Weights = r.u16()
		n.Geometry = ConvGeometry{
			StrideHeight: r.u32(), StrideWidth: r.u32(),
			PadTop: r.u32(), PadLeft: r.u32(), PadBottom: r.u32(), PadRight: r.u32(), Groups: r.u32(),
		}
	case Linear:
		n.Weights = r.u16()
	case MaxPool, AvgPool:
		n.Window = Window{
			Height: r.u32(), Width: r.u32(), StrideHeight: r.u32(), StrideWidth: r.u32(),
			PadTop: r.u32(), PadLeft: r.u32(), PadBottom: r.u32(), PadRight: r.u32(),
		}
	case Sample:
		n.Sampling = Sampling{Stride: r.u32(), Before: r.u32(), After: r.u32()}
	case Staircase:
		n.Steps = r.steps()
	case Flatten, Requantize, Add:
	default:
		r.fail("node of %v: want 1 to 9", n.Kind)
	}
	if n.Kind.requantizes() {
		n.Requantizer = r.requantizer()
	}
	return n
}

func (r *reader) steps() *Steps {
	s := &Steps{Bounds: make([]int32, r.count(int(r.u8()), 4))}
	for i := range s.Bounds {
		s.Bounds[i] = r.i32()
	}
	s.Values = r.carried(len(s.Bounds) + 1)
	return s
}

func (r *reader) requantizer() *Requantizer {
	planes, negative := int(r.u8()), int(r.u8())
	if negative > 1 {
		r.fail("mark %d of numbers for negative sums: want 0 or 1", negative)
	}
	entries := r.count(r.u32(), 1+(1+negative)*(8+4*planes))
	q := &Requantizer{Zero: r.i32(), Min: r.i32(), Max: r.i32()}
	q.Shift = slices.Clone(r.take(entries))
	numbers := r.branch(planes, entries)
	q.Multiplier, q.Bias = numbers.Multiplier, numbers.Bias
	if negative == 1 {
		q.Negative = r.branch(planes, entries)
	}
	return q
}

func (r *reader) branch(planes, entries int) *Branch {
	b := newBranch(planes, entries)
	for o := range b.Bias {
		b.Bias[o] = r.i64()
	}
	for _, plane := range b.Multiplier {
		for o := range plane {
			plane[o] = r.i32()
		}
	}
	return b
}
