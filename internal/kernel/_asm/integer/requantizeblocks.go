package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Places in bytes of a channel's numbers, each an int64.
const (
	blockBiasAt   = 0
	blockShiftAt  = 8
	blockHalfAt   = 16
	blockOneAt    = 24
	blockUnbiasAt = 32
	blockTermAt   = 40 // multiplier and factor of term 0, and so on
	blockTermSize = 16
	sliceSize     = 24 // of a slice of terms' header, whose first word is the address
)

// General registers of a requantization of blocks.
var (
	blockOut, blockTerms, blockNumbers = RDI, RSI, R8
	blockAt, blockEnd                  = RAX, RCX // elements
	blockFirst                         = RDX      // address of term 0
	blockMore                          = R9       // bytes of the headers of terms behind the first
	blockSource, blockHeader           = RBX, R10
	blockNumber                        = R11
)

// blockVectors are the vector registers of a requantization of blocks.
type blockVectors struct {
	even, odd, sums, product, multiplier, factor, bias, half, one, unbias, min, max VecPhysical

	shift VecPhysical // always an XMM register
	lanes int
	clamp func(x VecPhysical)
	merge func() // of odd into even, both int32 in int64
}

func newBlockVectors(r []VecPhysical, lanes int) *blockVectors {
	return &blockVectors{r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], X12, lanes, nil, nil}
}

func requantizeBlocks512() {
	v := newBlockVectors(zmm, 16)
	v.clamp = func(x VecPhysical) {
		VPMAXSQ(v.min, x, x)
		VPMINSQ(v.max, x, x)
	}
	v.merge = func() { VMOVDQA32(v.odd, K1, v.even) }
	v.requantize("requantizeBlocksAVX512", func() {
		MOVL(U32(0xAAAA), RBX.As32())
		KMOVW(RBX.As32(), K1)
	})
}

func requantizeBlocks256() {
	v := newBlockVectors(ymm, 8)
	v.clamp = func(x VecPhysical) {
		VPCMPGTQ(x, v.min, v.product)
		VPBLENDVB(v.product, v.min, x, x)
		VPCMPGTQ(v.max, x, v.product)
		VPBLENDVB(v.product, v.max, x, x)
	}
	v.merge = func() { VPBLENDD(Imm(0xAA), v.odd, v.even, v.even) }
	v.requantize("requantizeBlocksAVX2", func() {})
}

// requantize writes the loop over vectors of sixteen elements, each in one or two pieces.
func (v *blockVectors) requantize(name string, before func()) {
	TEXT(name, NOSPLIT, "func(y *float32, terms *[]float32, count, from, to int, numbers *int64, limits *blockLimits)")
	Doc(name + " is BlockRequantizer.Span of whole vectors of 16 elements, at least one.")
	Pragma("noescape")
	v.load()
	before()
	Label("loop")
	for piece := range 16 / v.lanes {
		place := func(base Register) Mem { return Mem{Base: base, Index: blockAt, Scale: 4, Disp: 4 * v.lanes * piece} }
		v.sum(place, string(rune('0'+piece)))
		v.finish(v.even)
		v.finish(v.odd)
		VPSLLQ(Imm(32), v.odd, v.odd)
		v.merge()
		VCVTDQ2PS(v.even, v.even)
		VMOVUPS(v.even, place(blockOut))
	}
	ADDQ(Imm(16), blockAt)
	CMPQ(blockAt, blockEnd)
	JB(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// load loads what stays the same for all elements.
func (v *blockVectors) load() {
	for _, p := range []struct {
		name string
		to   Register
	}{{"y", blockOut}, {"terms", blockTerms}, {"count", blockMore}, {"from", blockAt}, {"to", blockEnd}, {"numbers", blockNumbers}} {
		MOVQ(address(Param(p.name)), p.to)
	}
	MOVQ(Mem{Base: blockTerms}, blockFirst)
	IMUL3Q(U32(sliceSize), blockMore, blockMore)
	Load(Param("limits"), RBX)
	VPBROADCASTQ(field("limits", RBX, "min"), v.min)
	VPBROADCASTQ(field("limits", RBX, "max"), v.max)
	for _, n := range []struct {
		at int
		to VecPhysical
	}{{blockBiasAt, v.bias}, {blockHalfAt, v.half}, {blockOneAt, v.one}, {blockUnbiasAt, v.unbias}} {
		VPBROADCASTQ(Mem{Base: blockNumbers, Disp: n.at}, n.to)
	}
	VMOVQ(Mem{Base: blockNumbers, Disp: blockShiftAt}, v.shift)
	v.loadTerm(Mem{Base: blockNumbers, Disp: blockTermAt})
}

// loadTerm loads a term's multiplier and factor.
func (v *blockVectors) loadTerm(at Mem) {
	VPBROADCASTQ(at, v.multiplier)
	VBROADCASTSS(at.Offset(8), v.factor)
}

// sum adds up bias and terms. The first term's numbers stay in registers while it is the only one.
func (v *blockVectors) sum(place func(Register) Mem, piece string) {
	VMOVAPS(v.bias, v.even)
	VMOVAPS(v.bias, v.odd)
	v.addTerm(place(blockFirst))
	CMPQ(blockMore, Imm(sliceSize))
	JE(LabelRef("summed" + piece))
	MOVQ(U32(sliceSize), blockHeader)
	LEAQ(Mem{Base: blockNumbers, Disp: blockTermAt + blockTermSize}, blockNumber)
	Label("term" + piece)
	v.loadTerm(Mem{Base: blockNumber})
	MOVQ(Mem{Base: blockTerms, Index: blockHeader, Scale: 1}, blockSource)
	v.addTerm(place(blockSource))
	ADDQ(Imm(blockTermSize), blockNumber)
	ADDQ(Imm(sliceSize), blockHeader)
	CMPQ(blockHeader, blockMore)
	JB(LabelRef("term" + piece))
	v.loadTerm(Mem{Base: blockNumbers, Disp: blockTermAt})
	Label("summed" + piece)
}

// addTerm adds the products of a term, whose even elements are what VPMULDQ sees of them.
func (v *blockVectors) addTerm(x Mem) {
	VMULPS(x, v.factor, v.sums)
	VCVTTPS2DQ(v.sums, v.sums)
	VPMULDQ(v.multiplier, v.sums, v.product)
	VPADDQ(v.product, v.even, v.even)
	VPSRLQ(Imm(32), v.sums, v.sums)
	VPMULDQ(v.multiplier, v.sums, v.product)
	VPADDQ(v.product, v.odd, v.odd)
}

// finish rounds and limits sums.
func (v *blockVectors) finish(x VecPhysical) {
	VPSRLQ(v.shift, x, v.product)
	VANDPS(v.one, v.product, v.product)
	VPADDQ(v.half, x, x)
	VPADDQ(v.product, x, x)
	VPSRLQ(v.shift, x, x)
	VPADDQ(v.unbias, x, x)
	v.clamp(x)
}
