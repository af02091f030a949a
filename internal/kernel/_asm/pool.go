package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// poolRegisters holds what the loops over windows keep in general registers.
var poolRegisters = struct{ span, x, y, tap, first, xRow, rows, columns, count, step Register }{
	span: RAX, x: RSI, y: RDI, tap: RDX, first: R8, xRow: R9, rows: RBX, columns: RCX, count: R10, step: R11,
}

// The number of the current tap and 1 in sixteen words.
var tapNumber, tapOne = Y14, Y15

func pools() {
	maxPool()
	maxPoolGradient()
	averagePool()
	averagePoolGradient()
}

// numberedWindows is windows with the number of the current tap in tapNumber and the place of the window's in r.tap.
func numberedWindows(begin func(), body func(x Mem), end func()) {
	r := poolRegisters
	Load(Param("tap"), r.tap)
	VPCMPEQW(tapOne, tapOne, tapOne)
	VPABSW(tapOne, tapOne)
	windows(func() {
		VPBROADCASTW(field("s", r.span, "tap"), tapNumber)
		begin()
	}, func(x Mem) {
		body(x)
		VPADDW(tapOne, tapNumber, tapNumber)
	}, func() {
		VPBROADCASTW(field("s", r.span, "tapSkip"), Y13)
		VPADDW(Y13, tapNumber, tapNumber)
	}, func() {
		end()
		ADDQ(Imm(32), r.tap)
	})
}

// windows writes the loops over windows and their taps: body is called with the place of a tap, row behind a row of them.
func windows(begin func(), body func(x Mem), row, end func()) {
	r := poolRegisters
	Load(Param("s"), r.span)
	MOVQ(field("s", r.span, "count"), r.count)
	stride(field("s", r.span, "xStep"), r.step)
	stride(field("s", r.span, "xRow"), r.xRow)
	MOVQ(field("s", r.span, "columns"), r.columns)
	SHLQ(Imm(6), r.columns)
	SUBQ(r.columns, r.xRow) // from behind the last tap of a row to the first of the next
	Label("window")
	MOVQ(r.x, r.first)
	begin()
	MOVQ(field("s", r.span, "rows"), r.rows)
	Label("row")
	MOVQ(field("s", r.span, "columns"), r.columns)
	Label("tap")
	body(Mem{Base: r.x})
	ADDQ(Imm(64), r.x)
	DECQ(r.columns)
	JNE(LabelRef("tap"))
	ADDQ(r.xRow, r.x)
	row()
	DECQ(r.rows)
	JNE(LabelRef("row"))
	end()
	LEAQ(Mem{Base: r.first, Index: r.step, Scale: 1}, r.x)
	ADDQ(Imm(64), r.y)
	DECQ(r.count)
	JNE(LabelRef("window"))
	VZEROUPPER()
	RET()
}

func maxPool() {
	r := poolRegisters
	TEXT("maxAVX2", NOSPLIT, "func(y *float32, tap *uint16, x *float32, s *poolSpan)")
	Doc("maxAVX2 is poolSpan.max.")
	Pragma("noescape")
	Load(Param("y"), r.y)
	Load(Param("x"), r.x)
	numberedWindows(func() {
		VMOVUPS(Mem{Base: r.x}, Y0)
		VMOVUPS(Mem{Base: r.x, Disp: 32}, Y1)
		VMOVDQA(tapNumber, Y2)
	}, func(x Mem) {
		VMOVUPS(x, Y3)
		VMOVUPS(x.Offset(32), Y4)
		VCMPPS(Imm(greaterThan), Y0, Y3, Y5)
		VCMPPS(Imm(greaterThan), Y1, Y4, Y6)
		VBLENDVPS(Y5, Y3, Y0, Y0)
		VBLENDVPS(Y6, Y4, Y1, Y1)
		VPACKSSDW(Y6, Y5, Y5) // masks of words, the middle quarters exchanged
		VPERMQ(Imm(0xD8), Y5, Y5)
		VPBLENDVB(Y5, tapNumber, Y2, Y2)
	}, func() {
		VMOVUPS(Y0, Mem{Base: r.y})
		VMOVUPS(Y1, Mem{Base: r.y, Disp: 32})
		VMOVDQU(Y2, Mem{Base: r.tap})
	})
}

func maxPoolGradient() {
	r := poolRegisters
	TEXT("maxGradientAVX2", NOSPLIT, "func(dx, dy *float32, tap *uint16, s *poolSpan)")
	Doc("maxGradientAVX2 is poolSpan.maxGradient.")
	Pragma("noescape")
	Load(Param("dy"), r.y)
	Load(Param("dx"), r.x)
	numberedWindows(func() {
		VMOVUPS(Mem{Base: r.y}, Y0)
		VMOVUPS(Mem{Base: r.y, Disp: 32}, Y1)
		VMOVDQU(Mem{Base: r.tap}, Y2)
	}, func(x Mem) {
		VPCMPEQW(tapNumber, Y2, Y3)
		VPMOVSXWD(X3, Y4)
		VEXTRACTI128(Imm(1), Y3, X3)
		VPMOVSXWD(X3, Y5)
		for i, mask := range []VecPhysical{Y4, Y5} {
			at := x.Offset(32 * i)
			VMOVUPS(at, Y6)
			VADDPS([]VecPhysical{Y0, Y1}[i], Y6, Y7)
			VBLENDVPS(mask, Y7, Y6, Y6)
			VMOVUPS(Y6, at)
		}
	}, func() {})
}

func averagePool() {
	r := poolRegisters
	TEXT("averageAVX2", NOSPLIT, "func(y, x *float32, s *poolSpan, divisor float32)")
	Doc("averageAVX2 is poolSpan.average.")
	Pragma("noescape")
	Load(Param("y"), r.y)
	Load(Param("x"), r.x)
	constants([]string{"divisor"}, Y2)
	windows(func() {
		VXORPS(Y0, Y0, Y0)
		VXORPS(Y1, Y1, Y1)
	}, func(x Mem) {
		VADDPS(x, Y0, Y0)
		VADDPS(x.Offset(32), Y1, Y1)
	}, nothing, func() {
		for i, sum := range []VecPhysical{Y0, Y1} {
			VDIVPS(Y2, sum, sum)
			VMOVUPS(sum, Mem{Base: r.y, Disp: 32 * i})
		}
	})
}

func averagePoolGradient() {
	r := poolRegisters
	TEXT("averageGradientAVX2", NOSPLIT, "func(dx, dy *float32, s *poolSpan, divisor float32)")
	Doc("averageGradientAVX2 is poolSpan.averageGradient.")
	Pragma("noescape")
	Load(Param("dy"), r.y)
	Load(Param("dx"), r.x)
	constants([]string{"divisor"}, Y2)
	shares := []VecPhysical{Y0, Y1}
	windows(func() {
		for i, share := range shares {
			VMOVUPS(Mem{Base: r.y, Disp: 32 * i}, share)
			VDIVPS(Y2, share, share)
		}
	}, func(x Mem) {
		for i, share := range shares {
			VADDPS(x.Offset(32*i), share, Y3)
			VMOVUPS(Y3, x.Offset(32*i))
		}
	}, nothing, nothing)
}
