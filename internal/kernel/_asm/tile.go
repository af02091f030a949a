package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// tileRegisters holds what the loops of a tile keep in general registers.
var tileRegisters = struct {
	tile                    Register
	x, w                    steps
	xColumn, wColumn        Register
	channels, rows, columns Register
}{
	tile: RAX,
	x:    steps{RSI, R8, R9, R10}, w: steps{base: RDX, one: R11, three: R12},
	xColumn: R14, wColumn: R15,
	channels: RCX, rows: RBX, columns: R13,
}

// carries are the distances from behind the last tap of a row or channel to the first of the next.
type carries struct{ xRow, wRow, xChannel, wChannel Mem }

// tiles writes the kernel of tile.run.
func tiles(v width) {
	r := tileRegisters
	arguments, doc := "", "tileAVX512 is tile.run."
	if v.bytes < 64 {
		arguments = ", pixel, pixels, half int"
		doc = "tileAVX2 is tile.run of pixels targets from pixel on, on the lower (half = 0) or upper (1) eight lanes."
	}
	TEXT("tile"+v.name, NOSPLIT, "func(y, x, w *float32, t *tile"+arguments+")")
	Doc(doc)
	Pragma("noescape")
	Load(Param("t"), r.tile)
	for _, d := range []struct {
		name string
		to   Register
	}{{"xPixel", r.x.one}, {"wOutput", r.w.one}, {"xColumn", r.xColumn}, {"wColumn", r.wColumn}} {
		stride(field("t", r.tile, d.name), d.to)
	}
	c := tileCarries()
	n := tileCounts{more: AllocLocal(8), done: AllocLocal(8)}
	MOVQ(field("t", r.tile, "more"), RDI)
	MOVQ(RDI, n.more)
	MOVQ(U32(0), n.done)
	if v.bytes < 64 {
		skipTo("x", r.x.one)
		stride(field("t", r.tile, "yPixel"), RBX)
		skipTo("y", RBX)
		Load(Param("pixels"), RDI)
	} else {
		MOVQ(field("t", r.tile, "pixels"), RDI)
	}
	r.x.prepare(v.pixels)
	r.w.prepare(v.outputs)
	MOVQ(field("t", r.tile, "outputs"), RBX)
	v.variants(RBX, RDI, func(s shape) { v.tile(s, c, n) })
}

// tileCounts are the register tiles still to come behind the one at work, and four times the outputs of those done.
type tileCounts struct{ more, done Mem }

// skipTo moves a pointer among the arguments to the first pixel and the half of the lanes that they ask for; step is in bytes.
func skipTo(pointer string, step Register) {
	Load(Param("pixel"), RDI)
	IMULQ(step, RDI)
	ADDQ(RDI, address(Param(pointer)))
	Load(Param("half"), RDI)
	SHLQ(Imm(5), RDI)
	ADDQ(RDI, address(Param(pointer)))
}

func tileCarries() carries {
	r := tileRegisters
	carry := func(outer, count, inner string) Mem {
		MOVQ(field("t", r.tile, inner), RDI)
		IMULQ(field("t", r.tile, count), RDI)
		MOVQ(field("t", r.tile, outer), RBX)
		SUBQ(RDI, RBX)
		SHLQ(Imm(2), RBX)
		local := AllocLocal(8)
		MOVQ(RBX, local)
		return local
	}
	return carries{xRow: carry("xRow", "columns", "xColumn"), wRow: carry("wRow", "columns", "wColumn"),
		xChannel: carry("xChannel", "rows", "xRow"), wChannel: carry("wChannel", "rows", "wRow")}
}

// tile writes the loops over taps of one shape, and its end. Where a tile ends the arguments x, y and w point at the next.
func (v *width) tile(s shape, c carries, n tileCounts) {
	r := tileRegisters
	Label(s.label("again"))
	Load(Param("x"), r.x.base)
	Load(Param("w"), r.w.base)
	v.announce(s)
	for o := range s.outputs {
		for p := range s.pixels {
			v.clear(v.sum(o, p))
		}
	}
	done := LabelRef(s.label("done"))
	for _, count := range []struct {
		name string
		to   Register
	}{{"columns", r.columns}, {"rows", r.rows}, {"channels", r.channels}} {
		MOVQ(field("t", r.tile, count.name), count.to)
		TESTQ(count.to, count.to)
		JE(done)
	}
	Label(s.label("tap"))
	v.tap(s)
	ADDQ(r.xColumn, r.x.base)
	ADDQ(r.wColumn, r.w.base)
	DECQ(r.columns)
	JNE(LabelRef(s.label("tap")))
	ADDQ(c.xRow, r.x.base)
	ADDQ(c.wRow, r.w.base)
	MOVQ(field("t", r.tile, "columns"), r.columns)
	DECQ(r.rows)
	JNE(LabelRef(s.label("tap")))
	ADDQ(c.xChannel, r.x.base)
	ADDQ(c.wChannel, r.w.base)
	MOVQ(field("t", r.tile, "rows"), r.rows)
	DECQ(r.channels)
	JNE(LabelRef(s.label("tap")))
	Label(s.label("done"))
	v.affine(s, n, "scale", VMULPS)
	v.affine(s, n, "bias", VADDPS)
	v.store(s)
	IMUL3Q(Imm(uint64(s.outputs)), r.w.one, RDI)
	ADDQ(RDI, address(Param("w")))
	ADDQ(Imm(uint64(4*s.outputs)), n.done)
	DECQ(n.more)
	JGE(LabelRef(s.label("again")))
	VZEROUPPER()
	RET()
}

// tap writes the multiply-adds of one tap: the smaller side's operands stay in registers, the other's pass through one.
func (v *width) tap(s shape) {
	r := tileRegisters
	if v.bytes == 64 {
		for o := range s.outputs {
			VBROADCASTSS(r.w.at(o), v.free(o))
		}
		for p := range s.pixels {
			x := v.free(v.outputs + p%(len(v.registers)-v.outputs*v.pixels-v.outputs))
			VMOVUPS(r.x.at(p), x)
			for o := range s.outputs {
				VFMADD231PS(x, v.free(o), v.sum(o, p))
			}
		}
		return
	}
	for p := range s.pixels {
		VMOVUPS(r.x.at(p), v.free(p))
	}
	for o := range s.outputs {
		VBROADCASTSS(r.w.at(o), v.free(v.pixels))
		for p := range s.pixels {
			VFMADD231PS(v.free(p), v.free(v.pixels), v.sum(o, p))
		}
	}
}

// affine writes the multiplication by the outputs' scales or the addition of their biases, skipped where they are nil.
func (v *width) affine(s shape, n tileCounts, name string, do func(...Op)) {
	r := tileRegisters
	skip := s.label("no" + name)
	MOVQ(address(Param("t").Dereference(r.tile).Field(name).Base()), RBX)
	TESTQ(RBX, RBX)
	JE(LabelRef(skip))
	ADDQ(n.done, RBX)
	for o := range s.outputs {
		VBROADCASTSS(Mem{Base: RBX, Disp: 4 * o}, v.free(0))
		for p := range s.pixels {
			do(v.free(0), v.sum(o, p), v.sum(o, p))
		}
	}
	Label(skip)
}

// announce asks for the places where the sums go: to get them from far memory takes as long as to compute the sums.
func (v *width) announce(s shape) {
	if v.bytes < 64 {
		return
	}
	r := tileRegisters
	stride(field("t", r.tile, "yPixel"), RDI)
	stride(field("t", r.tile, "yOutput"), RCX)
	Load(Param("y"), RBX)
	for range s.outputs {
		MOVQ(RBX, R13)
		for range s.pixels {
			PREFETCHT0(Mem{Base: R13})
			ADDQ(RDI, R13)
		}
		ADDQ(RCX, RBX)
	}
}

// store writes the sums to their places and moves the argument y to those of the next tile.
func (v *width) store(s shape) {
	r := tileRegisters
	y := steps{RBX, RDI, R13, RCX}
	Load(Param("y"), y.base)
	stride(field("t", r.tile, "yPixel"), y.one)
	y.prepare(s.pixels)
	stride(field("t", r.tile, "yOutput"), r.x.base) // x itself is not needed any more
	for o := range s.outputs {
		for p := range s.pixels {
			VMOVUPS(v.sum(o, p), y.at(p))
		}
		ADDQ(r.x.base, y.base)
	}
	MOVQ(y.base, address(Param("y")))
}
