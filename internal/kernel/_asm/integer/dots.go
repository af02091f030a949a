package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// dots is one way to multiply and add bytes on vectors of 16 outputs.
type dots struct {
	name    string
	weights string // type of the packed weights
	pixels  []int  // at index vectors-1: the most pixels of a tile with so many vectors
	parts   int    // registers that a vector of outputs takes
	step    int    // bytes of packed weights that a vector takes for four inputs
	sums    []VecPhysical
	move    func(from, to Op) // of a whole register
	prepare func()            // before the loops
	tap     func(d *dots, vectors, pixels int)
}

var (
	vnni512 = dots{name: "VNNI512", weights: "int8", pixels: []int{12, 12, 6, 6}, parts: 1, step: 64, sums: zmm,
		move: func(from, to Op) { VMOVDQU64(from, to) }, prepare: func() {}, tap: tap512}
	vnni256 = dots{name: "VNNI256", weights: "int8", pixels: []int{6}, parts: 2, step: 64, sums: ymm,
		move: VMOVDQU, prepare: func() {}, tap: tap256}
	avx2 = dots{name: "AVX2", weights: "int16", pixels: []int{4}, parts: 2, step: 128, sums: ymm,
		move: VMOVDQU, prepare: lowBytes, tap: tapPairs}
)

// General registers: x holds the inputs of pixels 0 to 5, upper those of 6 to 11.
var (
	x, upper, pixel, pixel3, pixel5 = RSI, RDI, R8, R9, R10
	weight                          = RDX
	quads, columns, rows            = RCX, R11, R12
	toColumn, toRow                 = R13, R15
	tile                            = RAX
)

// sum is the register of a pixel's vector of outputs, or of its lower (part = 0) or upper half.
func (d *dots) sum(vectors, v, part, p int) VecPhysical {
	return d.sums[(p*vectors+v)*d.parts+part]
}

// kernel writes the function and all its tiles.
func (d *dots) kernel() {
	TEXT("dots"+d.name, NOSPLIT, "func(sums *int32, x *uint8, w *"+d.weights+", start *int32, t *dotTile)")
	Doc("dots" + d.name + " is dotTile.run.")
	Pragma("noescape")
	Load(Param("t"), tile)
	Load(Param("x"), x)
	Load(Param("w"), weight)
	MOVQ(field("t", tile, "xPixel"), pixel)
	LEAQ(Mem{Base: pixel, Index: pixel, Scale: 2}, pixel3)
	LEAQ(Mem{Base: pixel, Index: pixel, Scale: 4}, pixel5)
	LEAQ(Mem{Base: x, Index: pixel3, Scale: 2}, upper)
	d.prepare()
	d.distances()
	d.search()
	for v := 1; v <= len(d.pixels); v++ {
		for p := 1; p <= d.pixels[v-1]; p++ {
			d.tile(v, p)
		}
	}
}

// distances computes what leads from behind the last tap of a run or row to the first of the next.
func (d *dots) distances() {
	MOVQ(field("t", tile, "quads"), RBX)
	SHLQ(Imm(2), RBX)
	MOVQ(field("t", tile, "xColumn"), toColumn)
	SUBQ(RBX, toColumn)
	MOVQ(field("t", tile, "columns"), RBX)
	IMULQ(field("t", tile, "xColumn"), RBX)
	MOVQ(field("t", tile, "xRow"), toRow)
	SUBQ(RBX, toRow)
}

func label(part string, vectors, pixels int) string {
	return fmt.Sprintf("%s%dx%d", part, vectors, pixels)
}

// search jumps to the tile of the given size.
func (d *dots) search() {
	MOVQ(field("t", tile, "pixels"), RBX)
	MOVQ(field("t", tile, "vectors"), RCX)
	for v := len(d.pixels); v > 1; v-- {
		CMPQ(RCX, Imm(uint64(v)))
		JE(LabelRef(fmt.Sprintf("vectors%d", v)))
	}
	for v := 1; v <= len(d.pixels); v++ {
		Label(fmt.Sprintf("vectors%d", v))
		for p := d.pixels[v-1]; p > 1; p-- {
			CMPQ(RBX, Imm(uint64(p)))
			JE(LabelRef(label("tile", v, p)))
		}
		JMP(LabelRef(label("tile", v, 1)))
	}
}

// tile writes start, loops and end of one size.
func (d *dots) tile(vectors, pixels int) {
	Label(label("tile", vectors, pixels))
	Load(Param("start"), RBX)
	d.each(vectors, pixels, func(v, part, p int) {
		d.move(Mem{Base: RBX, Disp: 64*v + 32*part}, d.sum(vectors, v, part, p))
	})
	MOVQ(field("t", tile, "rows"), rows)
	Label(label("row", vectors, pixels))
	MOVQ(field("t", tile, "columns"), columns)
	Label(label("column", vectors, pixels))
	MOVQ(field("t", tile, "quads"), quads)
	Label(label("quad", vectors, pixels))
	d.tap(d, vectors, pixels)
	advance := func(by Op) {
		ADDQ(by, x)
		if pixels > 6 {
			ADDQ(by, upper)
		}
	}
	advance(Imm(4))
	ADDQ(U32(d.step*vectors), weight)
	DECQ(quads)
	JNE(LabelRef(label("quad", vectors, pixels)))
	advance(toColumn)
	DECQ(columns)
	JNE(LabelRef(label("column", vectors, pixels)))
	advance(toRow)
	DECQ(rows)
	JNE(LabelRef(label("row", vectors, pixels)))
	Load(Param("sums"), RBX)
	MOVQ(field("t", tile, "sumPixel"), RCX)
	SHLQ(Imm(2), RCX)
	last := 0
	d.each(vectors, pixels, func(v, part, p int) {
		if p != last {
			ADDQ(RCX, RBX)
			last = p
		}
		d.move(d.sum(vectors, v, part, p), Mem{Base: RBX, Disp: 64*v + 32*part})
	})
	VZEROUPPER()
	RET()
}

func (d *dots) each(vectors, pixels int, do func(v, part, p int)) {
	for p := range pixels {
		for v := range vectors {
			for part := range d.parts {
				do(v, part, p)
			}
		}
	}
}

// quad is the place of four inputs of a pixel.
func quad(p int) Mem {
	base := x
	if p >= 6 {
		base, p = upper, p-6
	}
	switch p {
	case 0:
		return Mem{Base: base}
	case 3:
		return Mem{Base: base, Index: pixel3, Scale: 1}
	case 5:
		return Mem{Base: base, Index: pixel5, Scale: 1}
	}
	return Mem{Base: base, Index: pixel, Scale: uint8(p)}
}

func tap512(d *dots, vectors, pixels int) {
	free := zmm[vectors*pixels:]
	for v := range vectors {
		VMOVDQU64(Mem{Base: weight, Disp: 64 * v}, free[v])
	}
	free, loaded := free[vectors:], free
	for p := range pixels {
		input := free[p%len(free)]
		VPBROADCASTD(quad(p), input)
		for v := range vectors {
			VPDPBUSD(loaded[v], input, d.sum(vectors, v, 0, p))
		}
	}
}

func tap256(d *dots, vectors, pixels int) {
	VMOVDQU(Mem{Base: weight}, Y12)
	VMOVDQU(Mem{Base: weight, Disp: 32}, Y13)
	for p := range pixels {
		input := 14 + p%2
		VPBROADCASTD(quad(p), ymm[input])
		for part := range 2 {
			vexDot(12+part, input, d.sum(vectors, 0, part, p))
		}
	}
}

// vexDot is VPDPBUSD in the encoding of AVX-VNNI, which the assembler lacks: registers by number, the last one the sum.
func vexDot(weights, input int, sum VecPhysical) {
	number := 0
	for ymm[number] != sum {
		number++
	}
	second, third := byte(0xE2), byte(0x05|(^input&15)<<3)
	if number >= 8 {
		second &^= 0x80
	}
	if weights >= 8 {
		second &^= 0x20
	}
	Commentf("VPDPBUSD Y%d, Y%d, Y%d", weights, input, number)
	for _, b := range []byte{0xC4, second, third, 0x50, byte(0xC0 | number&7<<3 | weights&7)} {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{Imm(uint64(b))}})
	}
}

// lowBytes makes the mask of the bytes 0 and 2 of four.
func lowBytes() {
	VPCMPEQW(Y15, Y15, Y15)
	VPSRLW(Imm(8), Y15, Y15)
}

// tapPairs multiplies inputs 0 and 2, then 1 and 3, as words; no product or sum of two comes near saturation.
func tapPairs(d *dots, vectors, pixels int) {
	for i := range 4 {
		VMOVDQU(Mem{Base: weight, Disp: 32 * i}, ymm[8+i])
	}
	for p := range pixels {
		VPBROADCASTD(quad(p), Y12)
		VPSRLW(Imm(8), Y12, Y13)
		VPAND(Y15, Y12, Y12)
		for i := range 4 {
			VPMADDWD(ymm[8+i], ymm[12+i%2], Y14)
			VPADDD(Y14, d.sum(vectors, 0, i/2, p), d.sum(vectors, 0, i/2, p))
		}
	}
}
