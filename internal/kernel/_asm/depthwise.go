package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// depthwiseRegisters holds what the loops of a depthwise convolution keep in general registers: x has one for every
// kernel row.
var depthwiseRegisters = struct {
	places
	x             [3]Register
	y             Register
	xTap, xColumn Register
	yColumn       Register
}{
	places: places{structure: RAX, columnTaps: R12, rowTaps: R13, taps: RBX, here: R14, edges: RCX, columns: R15, inner: R14},
	x:      [3]Register{RSI, RDI, R8}, y: RDX, xTap: R9, xColumn: R10, yColumn: R11,
}

// depthwiseLocals are the number of rows left and the distances from behind the last place of a row to the next row.
type depthwiseLocals struct{ rows, xCarry, yCarry Mem }

// depthwise writes the kernel of depthwise.run. The weights stay in registers; places follow one another fast enough
// for the sums of several to be under way at a time.
func depthwise(v width) {
	r := depthwiseRegisters
	arguments, doc := "", "depthwiseAVX512 is depthwise.run."
	if v.bytes < 64 {
		arguments = ", half int"
		doc = "depthwiseAVX2 is depthwise.run on the lower (half = 0) or upper (1) eight lanes."
	}
	TEXT("depthwise"+v.name, NOSPLIT, "func(y, x *float32, t *depthwise"+arguments+")")
	Doc(doc)
	Pragma("noescape")
	Load(Param("t"), r.structure)
	l := depthwiseLocals{AllocLocal(8), AllocLocal(8), AllocLocal(8)}
	v.depthwisePlaces(l)
	v.depthwiseConstants()
	v.depthwiseLoops(l)
	VZEROUPPER()
	RET()
}

// depthwisePlaces loads pointers and distances.
func (v *width) depthwisePlaces(l depthwiseLocals) {
	r := depthwiseRegisters
	Load(Param("x"), r.x[0])
	Load(Param("y"), r.y)
	v.half(r.inner, r.x[0], r.y)
	for _, start := range []struct {
		name string
		to   Register
	}{{"xStart", r.x[0]}, {"yStart", r.y}} {
		stride(r.field(start.name), r.inner)
		ADDQ(r.inner, start.to)
	}
	stride(r.field("xRow"), r.inner)
	LEAQ(Mem{Base: r.x[0], Index: r.inner, Scale: 1}, r.x[1])
	LEAQ(Mem{Base: r.x[0], Index: r.inner, Scale: 2}, r.x[2])
	for _, carry := range []struct {
		name string
		to   Mem
	}{{"xCarry", l.xCarry}, {"yCarry", l.yCarry}} {
		stride(r.field(carry.name), r.inner)
		MOVQ(r.inner, carry.to)
	}
	MOVQ(r.field("rows"), r.inner)
	MOVQ(r.inner, l.rows)
	stride(r.field("xTap"), r.xTap)
	stride(r.field("xColumn"), r.xColumn)
	stride(r.field("yColumn"), r.yColumn)
	MOVQ(r.base("rowTaps"), r.rowTaps)
}

// depthwiseConstants are the registers of scale and bias, behind the nine weights and the sum.
func (v *width) depthwiseConstants() {
	r := depthwiseRegisters
	weights := address(Param("t").Dereference(r.structure).Field("weights").Index(0))
	for tap := range 9 {
		VBROADCASTSS(weights.Offset(4*tap), v.registers[tap])
	}
	for i, name := range []string{"scale", "bias"} {
		MOVQ(r.base(name), r.inner)
		TESTQ(r.inner, r.inner)
		JE(LabelRef(name + "Nil"))
		VBROADCASTSS(Mem{Base: r.inner}, v.registers[10+i])
		Label(name + "Nil")
	}
}

// depthwiseLoops writes the loops over places, the inner one for every number of kernel rows and columns that a phase
// has.
func (v *width) depthwiseLoops(l depthwiseLocals) {
	r := depthwiseRegisters
	r.loops(func() {
		v.depthwisePlace("edge", shape{3, 3}, r.ifInside)
	}, func() {
		MOVQ(r.field("shape"), r.edges)
		for rows := 3; rows > 0; rows-- {
			for columns := 3; columns > 0; columns-- {
				v.depthwiseInner(shape{rows, columns})
			}
		}
		Label("right")
	}, func() {
		for k := range r.x {
			ADDQ(l.xCarry, r.x[k])
		}
		ADDQ(l.yCarry, r.y)
		DECQ(l.rows)
	})
}

// depthwiseInner writes the inner loop for phases of some kernel rows and columns; what is left at last is 1x1.
func (v *width) depthwiseInner(taps shape) {
	r := depthwiseRegisters
	inner := taps.label("inner")
	if taps.outputs*taps.pixels > 1 {
		CMPQ(r.edges, Imm(uint64(3*taps.outputs+taps.pixels)))
		JNE(LabelRef(inner + "not"))
	}
	Label(inner)
	v.depthwisePlace(inner, taps, always)
	DECQ(r.inner)
	JNE(LabelRef(inner))
	if taps.outputs*taps.pixels > 1 {
		JMP(LabelRef("right"))
		Label(inner + "not")
	}
}

// depthwisePlace writes one target of that many kernel rows and columns, each tap by when.
func (v *width) depthwisePlace(name string, taps shape, when func(tap int, do func())) {
	r := depthwiseRegisters
	sum := v.registers[9]
	v.clear(sum)
	for k := range taps.outputs {
		for l := range taps.pixels {
			at := Mem{Base: r.x[k]}
			if l > 0 {
				at.Index, at.Scale = r.xTap, uint8(l)
			}
			when(3*k+l, func() { VFMADD231PS(at, v.registers[3*k+l], sum) })
		}
	}
	for i, factor := range []string{"scale", "bias"} {
		skip := name + "No" + factor
		CMPQ(r.base(factor), Imm(0))
		JE(LabelRef(skip))
		[]func(...Op){VMULPS, VADDPS}[i](v.registers[10+i], sum, sum)
		Label(skip)
	}
	VMOVUPS(sum, Mem{Base: r.y})
	for _, x := range r.x {
		ADDQ(r.xColumn, x)
	}
	ADDQ(r.yColumn, r.y)
}
