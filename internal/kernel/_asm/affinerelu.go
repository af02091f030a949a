package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// affineReLUs writes the passes over what a normalization and a rectifier do together, without and with a further term.
func affineReLUs() {
	affineReLU("affineReLUAVX2", "", "(y, x *float32, n int, scale, offset float32)", "y", "x")
	affineReLU("affineReLUSumAVX2", " with a term", "(y, x, term *float32, n int, scale, offset float32)", "y", "x", "term")
	affineReLUGradient("affineReLUGradientAVX2", "", "(sum, product, dx, dy, z, x *float32, n int, mean float32)", "dx", "dy", "z", "x")
	affineReLUGradient("affineReLUGradientSumAVX2", " with a term", "(sum, product, dx, dy, z, x, term *float32, n int, mean float32)",
		"dx", "dy", "z", "x", "term")
	affineReLUBackward()
}

func affineReLU(name, with, signature string, slices ...string) {
	loop(name, name+" is AffineReLU"+with+" of n elements, a multiple of 16.", signature, slices,
		func() {
			constants([]string{"scale", "offset"}, Y0, Y1)
			VXORPS(Y2, Y2, Y2)
		},
		func(at []Mem, _ int) {
			VMOVUPS(at[1], Y3)
			VFMADD213PS(Y1, Y0, Y3)
			if len(at) > 2 {
				VADDPS(at[2], Y3, Y3)
			}
			VMAXPS(Y3, Y2, Y3) // the second operand, the sum, where it is NaN or both are zeros
			VMOVUPS(Y3, at[0])
		}, nothing)
}

func affineReLUGradient(name, with, signature string, slices ...string) {
	names := [2]string{"sum", "product"}
	loop(name, name+" is affineReLUGradient"+with+" of n elements, a multiple of 16.", signature, slices,
		func() {
			eachLaneSum(names, func(r VecPhysical, at Mem) { VMOVUPS(at, r) })
			constants([]string{"mean"}, Y4)
			VXORPS(Y7, Y7, Y7)
		},
		func(at []Mem, half int) {
			sum, product := laneSumPair[0][half], laneSumPair[1][half]
			VMOVUPS(at[1], Y5)
			if len(at) > 4 {
				VADDPS(at[4], Y5, Y5)
			}
			VMOVUPS(at[2], Y6)
			VCMPPS(Imm(greaterThan), Y7, Y6, Y6)
			VANDPS(Y5, Y6, Y5)
			VMOVUPS(Y5, at[0])
			VADDPS(Y5, sum, sum)
			VMOVUPS(at[3], Y6)
			VSUBPS(Y4, Y6, Y6)
			VMULPS(Y6, Y5, Y5)
			VADDPS(Y5, product, product)
		},
		func() { eachLaneSum(names, func(r VecPhysical, at Mem) { VMOVUPS(r, at) }) })
}

func affineReLUBackward() {
	names := [2]string{"sum", "product"}
	loop("affineReLUBackwardAVX2", "affineReLUBackwardAVX2 is affineReLUBackward of n elements, a multiple of 16.",
		"(sum, product, dx, dy, x *float32, n int, scale, offset, mean float32)", []string{"dx", "dy", "x"},
		func() {
			eachLaneSum(names, func(r VecPhysical, at Mem) { VMOVUPS(at, r) })
			constants([]string{"mean", "scale", "offset"}, Y4, Y8, Y9)
			VXORPS(Y7, Y7, Y7)
		},
		func(at []Mem, half int) {
			sum, product := laneSumPair[0][half], laneSumPair[1][half]
			VMOVUPS(at[2], Y6)
			VMOVAPS(Y8, Y10)
			VFMADD213PS(Y9, Y6, Y10)
			VCMPPS(Imm(greaterThan), Y7, Y10, Y11)
			VANDPS(at[1], Y11, Y5)
			VMOVUPS(Y5, at[0])
			VMAXPS(Y10, Y7, Y10) // the second operand where it is NaN or both are zeros
			VMOVUPS(Y10, at[1])
			VADDPS(Y5, sum, sum)
			VSUBPS(Y4, Y6, Y6)
			VMULPS(Y6, Y5, Y5)
			VADDPS(Y5, product, product)
		},
		func() { eachLaneSum(names, func(r VecPhysical, at Mem) { VMOVUPS(r, at) }) })
}
