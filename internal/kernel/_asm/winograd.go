package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// winogradRegisters holds what the loops over channels keep in general registers.
var winogradRegisters = struct {
	structure, count Register
	rows, columns    []Register // of the source; the first column is at the row's place
	frequencies      steps      // of the scratch: places of four frequencies
	channel          Register   // the first of them in the channel
	channelStep      Register
}{
	structure: RAX, count: RCX,
	rows: []Register{RSI, R8, R9, R10}, columns: []Register{R11, R12, R13},
	frequencies: steps{base: RDX, one: RBX, three: R14},
	channel:     RDI, channelStep: R15,
}

func winograd(v width) {
	v.winogradInput()
	v.winogradOutput()
}

// halves is into how many registers a vector of sixteen lanes goes.
func (v *width) halves() int { return 4 * Lanes / v.bytes }

// winogradInput writes the kernel of winogradInput.run: one loop for tiles inside the image, one for those at an edge.
func (v *width) winogradInput() {
	r := winogradRegisters
	TEXT("winogradInput"+v.name, NOSPLIT, "func(v, x, zeros *float32, t *winogradInput)")
	Doc("winogradInput" + v.name + " is winogradInput.run.")
	Pragma("noescape")
	Load(Param("t"), r.structure)
	step := v.winogradRows()
	array := func(name string, i int) Mem {
		return address(Param("t").Dereference(r.structure).Field(name).Index(i))
	}
	for i, c := range r.columns {
		stride(array("column", i+1), c)
	}
	for i, m := range v.registers[12:16] {
		VBROADCASTSS(array("mask", i), m)
	}
	Load(Param("v"), r.channel)
	stride(field("t", r.structure, "vChannel"), r.channelStep)
	stride(field("t", r.structure, "vFrequency"), r.frequencies.one)
	r.frequencies.prepare(4)
	MOVQ(field("t", r.structure, "channels"), r.count)
	CMPQ(field("t", r.structure, "edge"), Imm(0))
	JNE(LabelRef("edge"))
	v.winogradInputLoop("inside", step, func(at Mem, _ int, to VecPhysical) { VMOVUPS(at, to) })
	v.winogradInputLoop("edge", step, func(at Mem, column int, to VecPhysical) { VANDPS(at, v.registers[12+column], to) })
}

// winogradRows points the row registers at the first channel, or at the zeros where a row is outside, and returns where
// the rows' distances to the next channel lie.
func (v *width) winogradRows() (step []Mem) {
	r := winogradRegisters
	x, zeros, distance, nothing := RDI, RDX, R15, R14
	Load(Param("x"), x)
	Load(Param("zeros"), zeros)
	stride(field("t", r.structure, "xChannel"), distance)
	XORQ(nothing, nothing)
	for i, row := range r.rows {
		MOVQ(address(Param("t").Dereference(r.structure).Field("row").Index(i)), RBX)
		LEAQ(Mem{Base: x, Index: RBX, Scale: 4}, row)
		MOVQ(distance, RCX)
		TESTQ(RBX, RBX)
		CMOVQLT(zeros, row)
		CMOVQLT(nothing, RCX)
		local := AllocLocal(8)
		MOVQ(RCX, local)
		step = append(step, local)
	}
	return step
}

// winogradInputLoop writes the loop over channels. The two middle columns stay in registers for all four sums.
func (v *width) winogradInputLoop(label string, step []Mem, load func(at Mem, column int, to VecPhysical)) {
	r := winogradRegisters
	middle := [2][]VecPhysical{v.registers[0:4], v.registers[4:8]}
	d := v.registers[8:12]
	Label(label)
	for half := range v.halves() {
		at := func(row, column int) Mem {
			m := Mem{Base: r.rows[row], Disp: 32 * half}
			if column > 0 {
				m.Index, m.Scale = r.columns[column-1], 1
			}
			return m
		}
		for row := range 4 {
			load(at(row, 1), 1, middle[0][row])
			load(at(row, 2), 2, middle[1][row])
		}
		MOVQ(r.channel, r.frequencies.base)
		for j, sum := range []func(row int){
			func(row int) { load(at(row, 0), 0, d[row]); VSUBPS(middle[1][row], d[row], d[row]) },
			func(row int) { VADDPS(middle[1][row], middle[0][row], d[row]) },
			func(row int) { VSUBPS(middle[0][row], middle[1][row], d[row]) },
			func(row int) { load(at(row, 3), 3, d[row]); VSUBPS(d[row], middle[0][row], d[row]) },
		} {
			for row := range 4 {
				sum(row)
			}
			winogradStore(d, half, j < 3)
		}
	}
	for i, row := range r.rows {
		ADDQ(step[i], row)
	}
	ADDQ(r.channelStep, r.channel)
	DECQ(r.count)
	JNE(LabelRef(label))
	VZEROUPPER()
	RET()
}

// winogradStore writes the vertical differences of d and their stores, and goes on to the next four frequencies.
func winogradStore(d []VecPhysical, half int, more bool) {
	f := winogradRegisters.frequencies
	store := func(i int, from VecPhysical) { VMOVUPS(from, f.at(i).Offset(32*half)) }
	VSUBPS(d[2], d[0], d[0])
	store(0, d[0])
	VADDPS(d[2], d[1], d[0])
	store(1, d[0])
	VSUBPS(d[1], d[2], d[2])
	store(2, d[2])
	VSUBPS(d[3], d[1], d[3])
	store(3, d[3])
	if more {
		LEAQ(Mem{Base: f.base, Index: f.one, Scale: 4}, f.base)
	}
}

// winogradTarget holds what winogradOutput keeps of the target.
var winogradTarget = struct{ y, row, step, scale, bias, rows, columns Register }{RSI, R8, R9, R10, R11, R12, R13}

// winogradOutput writes the kernel of winogradOutput.run.
func (v *width) winogradOutput() {
	r, y := winogradRegisters, winogradTarget
	TEXT("winogradOutput"+v.name, NOSPLIT, "func(y, m *float32, t *winogradOutput)")
	Doc("winogradOutput" + v.name + " is winogradOutput.run.")
	Pragma("noescape")
	Load(Param("t"), r.structure)
	Load(Param("y"), y.y)
	Load(Param("m"), r.channel)
	stride(field("t", r.structure, "mOutput"), r.channelStep)
	stride(field("t", r.structure, "mFrequency"), r.frequencies.one)
	stride(field("t", r.structure, "yOutput"), y.step)
	stride(field("t", r.structure, "yRow"), y.row)
	r.frequencies.prepare(4)
	MOVQ(address(Param("t").Dereference(r.structure).Field("scale").Base()), y.scale)
	MOVQ(address(Param("t").Dereference(r.structure).Field("bias").Base()), y.bias)
	MOVQ(field("t", r.structure, "rows"), y.rows)
	MOVQ(field("t", r.structure, "columns"), y.columns)
	MOVQ(field("t", r.structure, "outputs"), r.count)
	Label("output")
	for half := range v.halves() {
		v.winogradSums(half)
		v.winogradAffine("scale", half, y.scale, VMULPS)
		v.winogradAffine("bias", half, y.bias, VADDPS)
		v.winogradStoreOutput(half)
	}
	for _, p := range []Register{y.scale, y.bias} { // those that are nil go unread
		ADDQ(Imm(4), p)
	}
	ADDQ(y.step, y.y)
	ADDQ(r.channelStep, r.channel)
	DECQ(r.count)
	JNE(LabelRef("output"))
	VZEROUPPER()
	RET()
}

// winogradSums writes the sums of half the lanes: of column j of the frequencies in registers j and 4+j, then of rows in
// registers 0, 1 (upper outputs) and 4, 5.
func (v *width) winogradSums(half int) {
	r := winogradRegisters
	m := v.registers[8:12]
	MOVQ(r.channel, r.frequencies.base)
	for j := range 4 {
		for i := range 4 {
			VMOVUPS(r.frequencies.at(i).Offset(32*half), m[i])
		}
		winogradPair(m[0], m[1], m[2], m[3], v.registers[j], v.registers[4+j])
		if j < 3 {
			LEAQ(Mem{Base: r.frequencies.base, Index: r.frequencies.one, Scale: 4}, r.frequencies.base)
		}
	}
	for i := 0; i < 8; i += 4 {
		u := v.registers[i : i+4]
		winogradPair(u[0], u[1], u[2], u[3], u[0], u[1])
	}
}

// winogradPair writes first = (a+b)+c and second = (b-c)-d; the results may lie in a and b.
func winogradPair(a, b, c, d, first, second VecPhysical) {
	VADDPS(b, a, first)
	VSUBPS(c, b, second)
	VADDPS(c, first, first)
	VSUBPS(d, second, second)
}

// winogradAffine writes the multiplication by the output's scale or the addition of its bias, skipped where it is nil.
func (v *width) winogradAffine(name string, half int, at Register, do func(...Op)) {
	skip := fmt.Sprintf("no%s%d", name, half)
	CMPQ(address(Param("t").Dereference(winogradRegisters.structure).Field(name).Base()), Imm(0))
	JE(LabelRef(skip))
	VBROADCASTSS(Mem{Base: at}, v.registers[12])
	for _, i := range []int{0, 1, 4, 5} {
		do(v.registers[12], v.registers[i], v.registers[i])
	}
	Label(skip)
}

// winogradStoreOutput writes the stores of those of the four outputs that lie in the image.
func (v *width) winogradStoreOutput(half int) {
	y := winogradTarget
	label := func(name string) string { return fmt.Sprintf("%s%d", name, half) }
	row := func(at Mem, first int, narrow string) {
		VMOVUPS(v.registers[first], at)
		CMPQ(y.columns, Imm(2))
		JB(LabelRef(narrow))
		VMOVUPS(v.registers[first+1], at.Offset(4*Lanes))
		Label(narrow)
	}
	row(Mem{Base: y.y, Disp: 32 * half}, 0, label("narrowUpper"))
	CMPQ(y.rows, Imm(2))
	JB(LabelRef(label("stored")))
	row(Mem{Base: y.y, Index: y.row, Scale: 1, Disp: 32 * half}, 4, label("narrowLower"))
	Label(label("stored"))
}
