package integer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"
)

// Encode returns the model as the bytes of a .goq file. Equal models give equal bytes.
func Encode(m *Model) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	w := &writer{data: make([]byte, headerLength), version: versionOf(m.Layers)}
	w.section(sectionMetadata, func() { w.metadata(m.Metadata) })
	w.section(sectionClasses, func() { w.classes(m.Classes) })
	w.section(sectionInput, func() {
		w.u32(m.Input.Channels, m.Input.Height, m.Input.Width)
		w.f64(m.LogitScale)
	})
	w.section(sectionLayers, func() { w.layers(m.Layers) })
	if m.Program != nil {
		w.section(sectionProgram, func() { w.program(m.Program) })
	}
	payload := w.data[headerLength:]
	if len(payload) > maxPayload {
		w.fail("%d bytes: want less than 2^31", len(payload))
	}
	if w.err != nil {
		return nil, w.err
	}
	writeHeader(w.data, w.version)
	return w.data, nil
}

// writeHeader fills in the header of a file whose payload is in place.
func writeHeader(file []byte, version uint32) {
	payload := file[headerLength:]
	copy(file, magic)
	binary.LittleEndian.PutUint32(file[4:], version)
	binary.LittleEndian.PutUint64(file[8:], uint64(len(payload)))
	sum := sha256.Sum256(payload)
	copy(file[16:], sum[:])
}

// writer appends the format's items and keeps the first error.
type writer struct {
	data    []byte
	version uint32
	err     error
}

// versionOf returns the oldest version of the format that holds the layers.
func versionOf(layers []Layer) uint32 {
	for i := range layers {
		if layers[i].Weights.Vector > 1 {
			return vectorVersion
		}
	}
	return plainVersion
}

func (w *writer) fail(format string, arguments ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("integer: a .goq file can't hold the model: "+format, arguments...)
	}
}

func (w *writer) u8(v uint8)    { w.data = append(w.data, v) }
func (w *writer) i32(v int32)   { w.data = binary.LittleEndian.AppendUint32(w.data, uint32(v)) }
func (w *writer) i64(v int64)   { w.data = binary.LittleEndian.AppendUint64(w.data, uint64(v)) }
func (w *writer) f32(v float32) { w.i32(int32(math.Float32bits(v))) }
func (w *writer) f64(v float64) { w.i64(int64(math.Float64bits(v))) }

// u16 writes a count or an index.
func (w *writer) u16(v int) {
	if v > math.MaxUint16 {
		w.fail("a count of %d: want at most %d", v, math.MaxUint16)
	}
	w.data = binary.LittleEndian.AppendUint16(w.data, uint16(v))
}

// u32 writes sizes, which a valid model keeps below 2^31.
func (w *writer) u32(sizes ...int) {
	for _, v := range sizes {
		if v > maxElements {
			w.fail("a size of %d: want less than 2^31", v)
		}
		w.data = binary.LittleEndian.AppendUint32(w.data, uint32(v))
	}
}

func (w *writer) string(s string) {
	w.u16(len(s))
	w.characters(s)
}

func (w *writer) text(s string) {
	w.u32(len(s))
	w.characters(s)
}

func (w *writer) characters(s string) {
	if !utf8.ValidString(s) {
		w.fail("text %q is not UTF-8", s)
	}
	w.data = append(w.data, s...)
}

// section writes a name, the length of what content writes, and that.
func (w *writer) section(name string, content func()) {
	w.data = append(w.data, name...)
	start := len(w.data)
	w.u32(0)
	content()
	length := len(w.data) - start - 4
	if length > maxPayload {
		w.fail("section %s of %d bytes: want less than 2^31", name, length)
	}
	binary.LittleEndian.PutUint32(w.data[start:], uint32(length))
}

func (w *writer) metadata(metadata map[string]string) {
	w.u32(len(metadata))
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		w.string(key)
		w.text(metadata[key])
	}
}

func (w *writer) classes(classes []string) {
	w.u16(len(classes))
	for _, name := range classes {
		w.string(name)
	}
}

func (w *writer) layers(layers []Layer) {
	w.u16(len(layers))
	for i := range layers {
		w.layer(&layers[i])
	}
}

func (w *writer) layer(l *Layer) {
	w.string(l.Name)
	w.u8(uint8(len(l.Weights.Shape)))
	w.u32(l.Weights.Shape...)
	w.u8(l.Weights.Bits)
	if w.version == vectorVersion {
		w.u32(max(1, l.Weights.Vector))
	}
	w.data = packCodes(w.data, l.Weights.Codes, l.Weights.Bits)
	w.u8(uint8(len(l.Weights.Planes)))
	for _, plane := range l.Weights.Planes {
		for _, level := range plane.Table {
			w.u8(uint8(level))
		}
		w.scales(plane.Scale)
	}
	if l.Bias == nil {
		w.u8(0)
		return
	}
	w.u8(1)
	for _, bias := range l.Bias {
		w.f32(bias)
	}
}

// scales writes the shortest form that keeps every bit.
func (w *writer) scales(scales []float64) {
	form := uint8(scalesShared | scalesFloat32)
	for _, scale := range scales {
		if math.Float64bits(scale) != math.Float64bits(scales[0]) {
			form &^= scalesShared
		}
		if float64(float32(scale)) != scale {
			form &^= scalesFloat32
		}
	}
	w.u8(form)
	if form&scalesShared != 0 {
		scales = scales[:1]
	}
	for _, scale := range scales {
		if form&scalesFloat32 != 0 {
			w.f32(float32(scale))
		} else {
			w.f64(scale)
		}
	}
}

func (w *writer) program(p *Program) {
	w.i32(p.Zero)
	var all []int16
	for _, table := range p.Pixels {
		all = append(all, table[:]...)
	}
	w.carried(all)
	w.u16(len(p.Nodes))
	for i := range p.Nodes {
		w.node(&p.Nodes[i])
	}
}

// carried writes codes that one carrier holds.
func (w *writer) carried(codes []int16) {
	carrier := uint8(carrierUnsigned)
	if slices.Min(codes) < 0 {
		carrier = carrierSigned
	}
	w.u8(carrier)
	for _, code := range codes {
		w.u8(uint8(code))
	}
}

func (w *writer) node(n *Node) {
	w.u8(uint8(n.Kind))
	w.string(n.Name)
	w.u8(uint8(len(n.Inputs)))
	for _, input := range n.Inputs {
		w.u16(input)
	}
	switch n.Kind {
	case Conv:
		g := n.Geometry
		w.u16(n.Weights)
		w.u32(g.StrideHeight, g.StrideWidth, g.PadTop, g.PadLeft, g.PadBottom, g.PadRight, g.Groups)
	case Linear:
		w.u16(n.Weights)
	case MaxPool, AvgPool:
		p := n.Window
		w.u32(p.Height, p.Width, p.StrideHeight, p.StrideWidth, p.PadTop, p.PadLeft, p.PadBottom, p.PadRight)
	case Sample:
		w.u32(n.Sampling.Stride, n.Sampling.Before, n.Sampling.After)
	case Staircase:
		w.steps(n.Steps)
	}
	if n.Kind.requantizes() {
		w.requantizer(n.Requantizer)
	}
}

func (w *writer) steps(s *Steps) {
	w.u8(uint8(len(s.Bounds)))
	for _, bound := range s.Bounds {
		w.i32(bound)
	}
	w.carried(s.Values)
}

func (w *writer) requantizer(r *Requantizer) {
	w.u8(uint8(len(r.Multiplier)))
	branches := r.branches()
	w.u8(uint8(len(branches) - 1))
	w.u32(len(r.Shift))
	w.i32(r.Zero)
	w.i32(r.Min)
	w.i32(r.Max)
	w.data = append(w.data, r.Shift...)
	for _, b := range branches {
		w.branch(b)
	}
}

func (w *writer) branch(b *Branch) {
	for _, bias := range b.Bias {
		w.i64(bias)
	}
	for _, plane := range b.Multiplier {
		for _, m := range plane {
			w.i32(m)
		}
	}
}
