package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// clip writes the gradient of a learned range. What lies above is blended last, as it comes first in Go.
func clip() {
	low, high, below, above, unit, reach := Y10, Y11, Y12, Y13, Y14, Y15
	inner, levels := R8, R9
	loop("clipAVX2", "clipAVX2 is Clip.gradientChunk of n elements, a multiple of 16, adding to lanes; inner is 0 or 1, without it levels stay unread.",
		"(lanes *float64, dx, dy, x *float32, n int, c *Clip, inner int, levels *float32)", []string{"dx", "dy", "x"},
		func() {
			eachWideSum(func(sum VecPhysical, at Mem) { VMOVUPD(at, sum) })
			Load(Param("c"), RBX)
			for _, f := range []struct {
				name string
				to   VecPhysical
			}{{"Low", low}, {"High", high}, {"Below", below}, {"Above", above}, {"Unit", unit}, {"Range", reach}} {
				VBROADCASTSS(field("c", RBX, f.name), f.to)
			}
			Load(Param("inner"), inner)
			Load(Param("levels"), levels)
		},
		func(at []Mem, half int) {
			VMOVUPS(at[2], Y1)
			VXORPS(Y2, Y2, Y2) // slope
			outer := "outer" + string(rune('0'+half))
			TESTQ(inner, inner)
			JE(LabelRef(outer))
			VMULPS(Mem{Base: levels, Index: RAX, Scale: 4, Disp: 32 * half}, unit, Y2)
			VDIVPS(reach, Y1, Y3)
			VSUBPS(Y3, Y2, Y2)
			Label(outer)
			VCMPPS(Imm(lessThan), low, Y1, Y3)
			VCMPPS(Imm(greaterThan), high, Y1, Y4)
			VBLENDVPS(Y3, below, Y2, Y2)
			VBLENDVPS(Y4, above, Y2, Y2)
			VORPS(Y4, Y3, Y3)
			VMOVUPS(at[1], Y1)
			VMULPS(Y1, Y2, Y2)
			VANDNPS(Y1, Y3, Y1)
			VMOVUPS(Y1, at[0])
			addWide(Y2, Y4, half)
		},
		func() { eachWideSum(func(sum VecPhysical, at Mem) { VMOVUPD(sum, at) }) })
}
