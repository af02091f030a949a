package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// outerRegisters holds what the loops of an outer product keep in general registers. The streams share one index.
// The structure's register becomes the counter of columns.
var outerRegisters = struct {
	streams            []Register
	index              Register
	dy                 steps
	dyColumn, xColumn  Register
	rows               Register
	columns, structure Register
}{
	streams: []Register{RSI, RDI, R8, R9, R10, R11}, index: RCX,
	dy:       steps{base: RDX, one: R12, three: R13},
	dyColumn: R14, xColumn: R15,
	rows: RBX, columns: RAX, structure: RAX,
}

// outerLocals are the number of columns and the distances from behind the last column to the first of the next row.
type outerLocals struct{ columns, dyRow, xRow Mem }

// outers writes the kernel of outer.run.
func outers(v width) {
	r := outerRegisters
	arguments, doc := "", "outerAVX512 is outer.run for at least one row and column."
	if v.bytes < 64 {
		arguments = ", stream, streams, half int"
		doc = "outerAVX2 is outer.run of streams streams from stream on, on the lower (half = 0) or upper (1) eight lanes."
	}
	TEXT("outer"+v.name, NOSPLIT, "func(sums, dy, x *float32, t *outer"+arguments+")")
	Doc(doc)
	Pragma("noescape")
	Load(Param("t"), r.structure)
	locals := outerLocals{AllocLocal(8), AllocLocal(8), AllocLocal(8)}
	outerCarry("dyRow", "dyColumn", r.dyColumn, locals.dyRow)
	outerCarry("xRow", "xColumn", r.xColumn, locals.xRow)
	Load(Param("dy"), r.dy.base)
	stride(field("t", r.structure, "dyOutput"), r.dy.one)
	r.dy.prepare(v.outputs)
	v.streams()
	if v.bytes < 64 {
		Load(Param("streams"), r.index)
	} else {
		MOVQ(field("t", r.structure, "streams"), r.index)
	}
	MOVQ(field("t", r.structure, "outputs"), r.rows)
	v.variants(r.rows, r.index, func(s shape) { v.outer(s, locals) })
}

func outerCarry(row, column string, step Register, to Mem) {
	r := outerRegisters
	stride(field("t", r.structure, column), step)
	MOVQ(field("t", r.structure, "columns"), RBX)
	IMULQ(step, RBX)
	stride(field("t", r.structure, row), RCX)
	SUBQ(RBX, RCX)
	MOVQ(RCX, to)
}

// streams points the stream registers at their first vector.
func (v *width) streams() {
	r := outerRegisters
	Load(Param("x"), RCX)
	offset := address(Param("t").Dereference(r.structure).Field("xStream").Index(0))
	if v.bytes < 64 {
		Load(Param("half"), RBX)
		SHLQ(Imm(5), RBX)
		ADDQ(RBX, RCX)
		ADDQ(RBX, r.dy.base)
		Load(Param("stream"), RBX)
		offset.Index, offset.Scale = RBX, 8
	}
	for i := range v.pixels {
		MOVQ(offset.Offset(8*i), r.streams[i])
		LEAQ(Mem{Base: RCX, Index: r.streams[i], Scale: 4}, r.streams[i])
	}
}

// outer writes the loops over rows and columns of one shape.
func (v *width) outer(s shape, l outerLocals) {
	r := outerRegisters
	v.eachSum(s, func(sum VecPhysical, m Mem) { VMOVUPS(m, sum) })
	MOVQ(field("t", r.structure, "rows"), r.rows)
	MOVQ(field("t", r.structure, "columns"), r.columns)
	MOVQ(r.columns, l.columns)
	XORQ(r.index, r.index)
	Label(s.label("column"))
	v.column(s)
	ADDQ(r.xColumn, r.index)
	ADDQ(r.dyColumn, r.dy.base)
	DECQ(r.columns)
	JNE(LabelRef(s.label("column")))
	ADDQ(l.xRow, r.index)
	ADDQ(l.dyRow, r.dy.base)
	MOVQ(l.columns, r.columns)
	DECQ(r.rows)
	JNE(LabelRef(s.label("column")))
	v.eachSum(s, func(sum VecPhysical, m Mem) { VMOVUPS(sum, m) })
	VZEROUPPER()
	RET()
}

// column writes the multiply-adds of one place: the side with more vectors passes through one register or two.
func (v *width) column(s shape) {
	r := outerRegisters
	x := func(i int) Mem { return Mem{Base: r.streams[i], Index: r.index, Scale: 1} }
	if v.bytes == 64 {
		for o := range s.outputs {
			VMOVUPS(r.dy.at(o), v.free(o))
		}
		for i := range s.pixels {
			stream := v.free(v.outputs + i%v.outputs)
			VMOVUPS(x(i), stream)
			for o := range s.outputs {
				VFMADD231PS(stream, v.free(o), v.sum(o, i))
			}
		}
		return
	}
	for i := range s.pixels {
		VMOVUPS(x(i), v.free(i))
	}
	for o := range s.outputs {
		VMOVUPS(r.dy.at(o), v.free(v.pixels))
		for i := range s.pixels {
			VFMADD231PS(v.free(i), v.free(v.pixels), v.sum(o, i))
		}
	}
}

// eachSum calls do with every accumulator of the shape and its place in memory.
func (v *width) eachSum(s shape, do func(VecPhysical, Mem)) {
	r := outerRegisters
	Load(Param("sums"), r.index)
	if v.bytes < 64 {
		for _, part := range []struct {
			name  string
			shift uint64
		}{{"stream", 6}, {"half", 5}} {
			Load(Param(part.name), r.rows)
			SHLQ(Imm(part.shift), r.rows)
			ADDQ(r.rows, r.index)
		}
	}
	for o := range s.outputs {
		for i := range s.pixels {
			do(v.sum(o, i), Mem{Base: r.index, Disp: 64 * (o*avx512.pixels + i)})
		}
	}
}
