package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// halve writes halveGroups: eight accumulators at a time become one vector of their sums. Each step adds lane i+8, i+4,
// i+2, i+1 to lane i as the documented order wants, for two accumulators in one register from the second step on.
func halve() {
	TEXT("halveGroups", NOSPLIT, "func(totals, sums *float32, groups int)")
	Doc("halveGroups adds up the lanes of groups times eight sums and adds that to their totals.")
	Pragma("noescape")
	totals, sums, groups := RDI, RSI, RCX
	Load(Param("totals"), totals)
	Load(Param("sums"), sums)
	Load(Param("groups"), groups)
	y := avx2.registers
	Label("group")
	for i, sum := range []int{0, 4, 1, 5, 2, 6, 3, 7} { // the order that the shuffles below undo
		at := Mem{Base: sums, Disp: 64 * sum}
		VMOVUPS(at, y[i])
		VADDPS(at.Offset(32), y[i], y[i])
	}
	for i := 0; i < 8; i += 2 {
		VPERM2F128(Imm(0x20), y[i+1], y[i], y[8])
		VPERM2F128(Imm(0x31), y[i+1], y[i], y[9])
		VADDPS(y[9], y[8], y[i/2])
	}
	for i := 0; i < 4; i += 2 {
		pairwise(y[i], y[i+1], y[i/2], 0x44, 0xEE)
	}
	pairwise(y[0], y[1], y[0], 0x88, 0xDD)
	VADDPS(Mem{Base: totals}, y[0], y[0])
	VMOVUPS(y[0], Mem{Base: totals})
	ADDQ(U32(64*8), sums)
	ADDQ(Imm(32), totals)
	DECQ(groups)
	JNE(LabelRef("group"))
	VZEROUPPER()
	RET()
}

// pairwise adds two selections of lanes from a and b.
func pairwise(a, b, sum VecPhysical, first, second uint64) {
	y := avx2.registers
	VSHUFPS(Imm(first), b, a, y[8])
	VSHUFPS(Imm(second), b, a, y[9])
	VADDPS(y[9], y[8], sum)
}
