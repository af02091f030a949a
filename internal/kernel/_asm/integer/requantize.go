package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Distances in bytes between the numbers of a group of 16 channels; each is eight int64 of even channels, then of odd ones.
const (
	biasAt       = 0
	shiftAt      = 128
	halfAt       = 256
	oneAt        = 384
	zeroAt       = 512
	multiplierAt = 640
	numberBytes  = 128
)

// General registers of a requantization.
var (
	job, numbers, first          = RAX, RSI, R15
	output, outputPixel, outputs = RDI, R8, R9 // outputs is where the pixel's begin
	at, sumAt                    = R10, R11    // distances in bytes of group and pixel from a plane's first sum
	pixelsLeft, groupsLeft       = R12, R13
	group                        = R14 // the group's numbers, kept over the loop of its planes
	plane, planesLeft, planeSums = RBX, RCX, RDX
)

// requantization writes the loops around body, which does 16 channels of a pixel and stores elements of so many bytes.
func requantization(name string, narrow bool, before func(), body func(element int)) {
	element, kind := 4, "int32"
	if narrow {
		element, kind = 1, "uint8"
	}
	TEXT(name, NOSPLIT, "func(out *"+kind+", numbers *int64, r *requantization)")
	Doc(name + " is requantization.run.")
	Pragma("noescape")
	Load(Param("r"), job)
	Load(Param("numbers"), first)
	Load(Param("out"), outputs)
	MOVQ(field("r", job, "outPixel"), outputPixel)
	if !narrow {
		SHLQ(Imm(2), outputPixel)
	}
	before()
	MOVQ(field("r", job, "pixels"), pixelsLeft)
	XORQ(sumAt, sumAt)
	Label("pixel")
	MOVQ(first, numbers)
	MOVQ(outputs, output)
	MOVQ(sumAt, at)
	MOVQ(field("r", job, "groups"), groupsLeft)
	Label("group")
	MOVQ(field("r", job, "planes"), planesLeft)
	body(element)
	ADDQ(Imm(64), at)
	ADDQ(Imm(uint64(16*element)), output)
	DECQ(groupsLeft)
	JNE(LabelRef("group"))
	ADDQ(outputPixel, outputs)
	MOVQ(field("r", job, "sumPixel"), RBX)
	LEAQ(Mem{Base: sumAt, Index: RBX, Scale: 4}, sumAt)
	DECQ(pixelsLeft)
	JNE(LabelRef("pixel"))
	VZEROUPPER()
	RET()
}

// planeLoop writes the loop over planes around body, which adds the products of a plane's sums and multipliers.
func planeLoop(body func(sums, multipliers Mem)) {
	LEAQ(address(Param("r").Dereference(job).Field("sums").Index(0)), plane)
	Label("plane")
	MOVQ(Mem{Base: plane}, planeSums)
	body(Mem{Base: planeSums, Index: at, Scale: 1}, Mem{Base: numbers, Disp: multiplierAt})
	ADDQ(Imm(8), plane)
	ADDQ(U32(numberBytes), numbers)
	DECQ(planesLeft)
	JNE(LabelRef("plane"))
}

func requantize512() {
	for _, narrow := range []bool{true, false} {
		name := "requantizeWideAVX512"
		if narrow {
			name = "requantizeNarrowAVX512"
		}
		requantization(name, narrow, before512, group512)
	}
}

func before512() {
	VPBROADCASTQ(field("r", job, "min"), Z6)
	VPBROADCASTQ(field("r", job, "max"), Z7)
	MOVL(U32(0xAAAA), RBX.As32())
	KMOVW(RBX.As32(), K1)
}

func group512(element int) {
	even, odd := Z0, Z1
	VMOVDQU64(Mem{Base: numbers, Disp: biasAt}, even)
	VMOVDQU64(Mem{Base: numbers, Disp: biasAt + 64}, odd)
	MOVQ(numbers, group)
	planeLoop(func(sums, multipliers Mem) {
		VMOVDQU64(sums, Z2)
		VPMULDQ(multipliers, Z2, Z3)
		VPSRLQ(Imm(32), Z2, Z2)
		VPMULDQ(multipliers.Offset(64), Z2, Z2)
		VPADDQ(Z3, even, even)
		VPADDQ(Z2, odd, odd)
	})
	for i, v := range []VecPhysical{even, odd} {
		number := func(at int) Mem { return Mem{Base: group, Disp: at + 64*i} }
		VMOVDQU64(number(shiftAt), Z4)
		VPSRLVQ(Z4, v, Z3)
		VPADDQ(number(halfAt), v, v)
		VPANDQ(number(oneAt), Z3, Z3)
		VPADDQ(Z3, v, v)
		VPSRLVQ(Z4, v, v)
		VPADDQ(number(zeroAt), v, v)
		VPMAXSQ(Z6, v, v)
		VPMINSQ(Z7, v, v)
	}
	VPSLLQ(Imm(32), odd, odd)
	VMOVDQA32(odd, K1, even)
	if element == 1 {
		VPMOVDB(even, Mem{Base: output})
	} else {
		VMOVDQU64(even, Mem{Base: output})
	}
	ADDQ(U32(multiplierAt), numbers)
}

func requantize256() {
	for _, narrow := range []bool{true, false} {
		name := "requantizeWideAVX2"
		if narrow {
			name = "requantizeNarrowAVX2"
		}
		requantization(name, narrow, before256, group256)
	}
}

func before256() {
	VPBROADCASTQ(field("r", job, "min"), Y6)
	VPBROADCASTQ(field("r", job, "max"), Y7)
}

// group256 does the same in registers of half the size: Y0 and Y1 are even and odd of the lower eight channels, Y2 and Y3 of the
// upper.
func group256(element int) {
	v := ymm[:4]
	place := func(i int) int { return i%2*64 + i/2*32 }
	for i := range v {
		VMOVDQU(Mem{Base: numbers, Disp: biasAt + place(i)}, v[i])
	}
	MOVQ(numbers, group)
	planeLoop(func(sums, multipliers Mem) {
		for half := range 2 {
			VMOVDQU(sums.Offset(32*half), Y4)
			VPMULDQ(multipliers.Offset(32*half), Y4, Y5)
			VPADDQ(Y5, v[2*half], v[2*half])
			VPSRLQ(Imm(32), Y4, Y4)
			VPMULDQ(multipliers.Offset(64+32*half), Y4, Y4)
			VPADDQ(Y4, v[2*half+1], v[2*half+1])
		}
	})
	for i := range v {
		number := func(at int) Mem { return Mem{Base: group, Disp: at + place(i)} }
		VMOVDQU(number(shiftAt), Y4)
		VPSRLVQ(Y4, v[i], Y5)
		VPADDQ(number(halfAt), v[i], v[i])
		VPAND(number(oneAt), Y5, Y5)
		VPADDQ(Y5, v[i], v[i])
		VPSRLVQ(Y4, v[i], v[i])
		VPADDQ(number(zeroAt), v[i], v[i])
		VPCMPGTQ(v[i], Y6, Y5)
		VPBLENDVB(Y5, Y6, v[i], v[i])
		VPCMPGTQ(Y7, v[i], Y5)
		VPBLENDVB(Y5, Y7, v[i], v[i])
	}
	for half := range 2 {
		VPSLLQ(Imm(32), v[2*half+1], v[2*half+1])
		VPBLENDD(Imm(0xAA), v[2*half+1], v[2*half], v[2*half])
		if element == 4 {
			VMOVDQU(v[2*half], Mem{Base: output, Disp: 32 * half})
		}
	}
	if element == 1 { // the numbers fit in a byte, so that nothing saturates
		VPACKUSDW(Y2, Y0, Y0)
		VPERMQ(Imm(0xD8), Y0, Y0)
		VEXTRACTI128(Imm(1), Y0, X1)
		VPACKUSWB(X1, X0, X0)
		VMOVDQU(X0, Mem{Base: output})
	}
	ADDQ(U32(multiplierAt), numbers)
}

// largest writes the maximum of bytes.
func largest() {
	TEXT("largestAVX2", NOSPLIT, "func(y, x *uint8, n int)")
	Doc("largestAVX2 is LargestBytes of n bytes, a multiple of 32.")
	Pragma("noescape")
	Load(Param("y"), RDI)
	Load(Param("x"), RSI)
	Load(Param("n"), RCX)
	Label("next")
	VMOVDQU(Mem{Base: RSI}, Y0)
	VPMAXUB(Mem{Base: RDI}, Y0, Y0)
	VMOVDQU(Y0, Mem{Base: RDI})
	ADDQ(Imm(32), RSI)
	ADDQ(Imm(32), RDI)
	SUBQ(Imm(32), RCX)
	JNE(LabelRef("next"))
	VZEROUPPER()
	RET()
}
