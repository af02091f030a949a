package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// batchNorm writes the passes over a channel's elements in a block.
func batchNorm() {
	affine()
	inputGradient()
	sumSquares()
	sumProducts()
}

// constants broadcasts parameters of the function.
func constants(names []string, to ...VecPhysical) {
	for i, name := range names {
		VBROADCASTSS(address(Param(name)), to[i])
	}
}

func affine() {
	loop("affineAVX2", "affineAVX2 is y = fma(x, scale, offset) for n elements, a multiple of 16.",
		"(y, x *float32, n int, scale, offset float32)", []string{"y", "x"},
		func() { constants([]string{"scale", "offset"}, Y0, Y1) },
		func(at []Mem, _ int) {
			VMOVUPS(at[1], Y2)
			VFMADD213PS(Y1, Y0, Y2)
			VMOVUPS(Y2, at[0])
		}, nothing)
}

func inputGradient() {
	loop("inputGradientAVX2", "inputGradientAVX2 is dx = fma(dy, scale, fma(x, slope, offset)) for n elements, a multiple of 16.",
		"(dx, dy, x *float32, n int, scale, slope, offset float32)", []string{"dx", "dy", "x"},
		func() { constants([]string{"scale", "slope", "offset"}, Y0, Y1, Y2) },
		func(at []Mem, _ int) {
			VMOVUPS(at[2], Y3)
			VFMADD213PS(Y2, Y1, Y3)
			VFMADD231PS(at[1], Y0, Y3)
			VMOVUPS(Y3, at[0])
		}, nothing)
}

// laneSumPair is two sums of sixteen lanes each, of two registers each.
var laneSumPair = [2][2]VecPhysical{{Y0, Y1}, {Y2, Y3}}

// eachLaneSum moves between the registers of laneSumPair and the arrays behind the parameters named.
func eachLaneSum(names [2]string, move func(r VecPhysical, at Mem)) {
	for i, name := range names {
		Load(Param(name), RBX)
		for half, r := range laneSumPair[i] {
			move(r, Mem{Base: RBX, Disp: 32 * half})
		}
	}
}

func sumSquares() {
	names := [2]string{"sum", "squares"}
	loop("sumSquaresAVX2", "sumSquaresAVX2 is sumSquares of n elements, a multiple of 16.",
		"(sum, squares, x *float32, n int, origin float32)", []string{"x"},
		func() {
			eachLaneSum(names, func(r VecPhysical, at Mem) { VMOVUPS(at, r) })
			constants([]string{"origin"}, Y4)
		},
		func(at []Mem, half int) {
			sum, squares := laneSumPair[0][half], laneSumPair[1][half]
			VMOVUPS(at[0], Y5)
			VSUBPS(Y4, Y5, Y5)
			VADDPS(Y5, sum, sum)
			VMULPS(Y5, Y5, Y5)
			VADDPS(Y5, squares, squares)
		},
		func() { eachLaneSum(names, func(r VecPhysical, at Mem) { VMOVUPS(r, at) }) })
}

func sumProducts() {
	names := [2]string{"sum", "product"}
	loop("sumProductsAVX2", "sumProductsAVX2 is sumProducts of n elements, a multiple of 16.",
		"(sum, product, dy, x *float32, n int, mean float32)", []string{"dy", "x"},
		func() {
			eachLaneSum(names, func(r VecPhysical, at Mem) { VMOVUPS(at, r) })
			constants([]string{"mean"}, Y4)
		},
		func(at []Mem, half int) {
			sum, product := laneSumPair[0][half], laneSumPair[1][half]
			VMOVUPS(at[0], Y5)
			VADDPS(Y5, sum, sum)
			VMOVUPS(at[1], Y6)
			VSUBPS(Y4, Y6, Y6)
			VMULPS(Y6, Y5, Y5)
			VADDPS(Y5, product, product)
		},
		func() { eachLaneSum(names, func(r VecPhysical, at Mem) { VMOVUPS(r, at) }) })
}
