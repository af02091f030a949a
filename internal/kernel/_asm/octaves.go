package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const notLess = 5 // predicate of VPCMPUD

// Registers of octaves: what stays the same for all elements.
var octave = struct {
	thresholds, counts, levels                            []VecPhysical
	mantissa, base, last, one, sign, bit5, bit6, pos, neg VecPhysical
	shift                                                 VecPhysical
}{
	thresholds: []VecPhysical{Z16, Z17}, counts: []VecPhysical{Z18, Z19},
	levels:   []VecPhysical{Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27},
	mantissa: Z28, base: Z29, last: Z30, one: Z31, sign: Z15, bit5: Z10, bit6: Z11, pos: Z13, neg: Z14, shift: X12,
}

// octaves writes the kernel of octaves: step and level of sixteen elements by lookups in registers.
func octaves() {
	TEXT("octavesAVX512", NOSPLIT, "func(y, x *float32, n int, o *octaves)")
	Doc("octavesAVX512 is Steps.Level of n elements, a multiple of 16, by octaves.")
	Pragma("noescape")
	Load(Param("y"), stairs.y)
	Load(Param("x"), stairs.x)
	Load(Param("n"), stairs.n)
	Load(Param("o"), stairs.tree)
	prepareOctaves()
	XORQ(stairs.at, stairs.at)
	x := Mem{Base: stairs.x, Index: stairs.at, Scale: 4}
	y := Mem{Base: stairs.y, Index: stairs.at, Scale: 4}
	Label("loop")
	PREFETCHT0(x.Offset(loopAhead))
	PREFETCHT0(y.Offset(loopAhead))
	VMOVUPS(x, Z0)
	VPROLD(Imm(1), Z0, Z1)
	octaveStep()
	octaveLevel()
	octaveSign()
	VMOVUPS(Z6, y)
	ADDQ(Imm(Lanes), stairs.at)
	CMPQ(stairs.at, stairs.n)
	JB(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func prepareOctaves() {
	table := func(name string, to []VecPhysical) {
		m := address(Param("o").Dereference(stairs.tree).Field(name).Index(0))
		for i, r := range to {
			VMOVUPS(m.Offset(64*i), r)
		}
	}
	table("thresholds", octave.thresholds)
	table("counts", octave.counts)
	table("levels", octave.levels)
	zero := address(Param("o").Dereference(stairs.tree).Field("zero").Index(0))
	VPBROADCASTD(zero, octave.pos)
	VPBROADCASTD(zero.Offset(4), octave.neg)
	VPBROADCASTD(field("o", stairs.tree, "base"), octave.base)
	VPBROADCASTD(field("o", stairs.tree, "last"), octave.last)
	VMOVQ(field("o", stairs.tree, "shift"), octave.shift.(Vec).AsX())
	for _, c := range []struct {
		value uint32
		to    VecPhysical
	}{{1<<24 - 1, octave.mantissa}, {1, octave.one}, {1 << 31, octave.sign}, {1 << 5, octave.bit5}, {1 << 6, octave.bit6}} {
		MOVL(U32(c.value), EAX)
		VPBROADCASTD(EAX, c.to)
	}
}

// octaveStep finds in Z5 the steps of the keys in Z1.
func octaveStep() {
	VPSRLD(Imm(19), Z1, Z2) // lookups use the low five bits
	VMOVDQA32(Z2, Z3)
	VPERMI2D(octave.thresholds[1], octave.thresholds[0], Z2)
	VPERMI2D(octave.counts[1], octave.counts[0], Z3)
	VPANDD(octave.mantissa, Z1, Z4)
	VPCMPUD(Imm(notLess), Z2, Z4, K1)
	VPSRLD(Imm(24), Z1, Z5)
	VPSLLD(octave.shift, Z5, Z5)
	VPSUBD(octave.base, Z3, Z3)
	VPADDD(Z3, Z5, Z5)
	VPADDD(octave.one, Z5, K1, Z5)
	VPANDD(octave.one, Z1, Z6) // negative numbers have no step 0
	VPMAXSD(Z6, Z5, Z5)
	VPMINSD(octave.last, Z5, Z5)
}

// octaveLevel looks up in Z6 the levels of the steps in Z5.
func octaveLevel() {
	found := []VecPhysical{Z6, Z7, Z8, Z9}
	for i, r := range found {
		VMOVDQA32(Z5, r)
		VPERMI2PS(octave.levels[2*i+1], octave.levels[2*i], r)
	}
	VPTESTMD(octave.bit5, Z5, K2)
	VPTESTMD(octave.bit6, Z5, K3)
	VBLENDMPS(Z7, Z6, K2, Z6)
	VBLENDMPS(Z9, Z8, K2, Z8)
	VBLENDMPS(Z8, Z6, K3, Z6)
}

// octaveSign gives the levels in Z6 the signs of the elements in Z0, and +0 and NaN what they are.
func octaveSign() {
	VPMOVD2M(Z0, K4)
	VPBLENDMD(octave.neg, octave.pos, K4, Z2)
	VPCMPUD(Imm(notLess), Z2, Z1, K5)
	VPANDD(octave.sign, Z0, Z3)
	VPORD_Z(Z3, Z6, K5, Z6)
	VCMPPS(Imm(unordered), Z0, Z0, K1)
	VMOVAPS(Z0, K1, Z6)
}
