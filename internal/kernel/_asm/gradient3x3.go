package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// gradient3x3Registers holds what the loops of a 3x3 weight gradient keep in general registers.
var gradient3x3Registers = struct {
	places
	x, dy         steps
	xColumn, rows Register
}{
	places: places{structure: RAX, columnTaps: R11, rowTaps: R12, taps: R13, here: R14, edges: RBX, columns: RCX, inner: R15},
	x:      steps{base: RSI, one: R8}, dy: steps{base: RDX, one: R9}, xColumn: R10, rows: RDI,
}

// ahead is how many bytes before its use a vector is asked for: the rows of x and dy come from the second cache or from
// farther, and the machine by itself stops at the end of a page.
const ahead = 2048

// gradients3x3 writes the kernel of gradient3x3.run for tiles of up to outputs channels.
func gradients3x3(v width, outputs int) {
	r := gradient3x3Registers
	arguments, doc := "", "gradient3x3AVX512 is gradient3x3.run."
	if v.bytes < 64 {
		arguments = ", half int"
		doc = "gradient3x3AVX2 is gradient3x3.run of one output on the lower (half = 0) or upper (1) eight lanes."
	}
	TEXT("gradient3x3"+v.name, NOSPLIT, "func(sums, dy, x *float32, t *gradient3x3"+arguments+")")
	Doc(doc)
	Pragma("noescape")
	Load(Param("t"), r.structure)
	Load(Param("x"), r.x.base)
	Load(Param("dy"), r.dy.base)
	v.half(r.inner, r.x.base, r.dy.base)
	stride(r.field("xStart"), r.inner)
	ADDQ(r.inner, r.x.base)
	carry := AllocLocal(8)
	stride(r.field("xCarry"), r.inner)
	MOVQ(r.inner, carry)
	stride(r.field("xRow"), r.x.one)
	stride(r.field("dyOutput"), r.dy.one)
	stride(r.field("xColumn"), r.xColumn)
	MOVQ(r.field("rows"), r.rows)
	MOVQ(r.base("rowTaps"), r.rowTaps)
	MOVQ(r.field("outputs"), r.inner)
	for o := 1; o < outputs; o++ {
		CMPQ(r.inner, Imm(uint64(o)))
		JE(LabelRef(fmt.Sprintf("tile%d", o)))
	}
	for o := outputs; o > 0; o-- {
		v.gradient3x3(o, carry)
	}
}

// half moves the bases to the half of the lanes that the arguments ask for, on a width that needs two.
func (v *width) half(free Register, bases ...Register) {
	if v.bytes == 64 {
		return
	}
	Load(Param("half"), free)
	SHLQ(Imm(5), free)
	for _, base := range bases {
		ADDQ(free, base)
	}
}

// gradient3x3 writes the loops of tiles of that many outputs. All sums stay in registers.
func (v *width) gradient3x3(outputs int, carry Mem) {
	r := gradient3x3Registers
	r.suffix = fmt.Sprint(outputs)
	Label(r.label("tile"))
	CMPQ(r.field("resume"), Imm(0))
	JNE(LabelRef(r.label("resume")))
	for _, sum := range v.registers[:9*outputs] {
		v.clear(sum)
	}
	JMP(LabelRef(r.label("row")))
	Label(r.label("resume"))
	v.eachSum3x3(outputs, func(sum VecPhysical, m Mem) { VMOVUPS(m, sum) })
	r.loops(func() {
		v.place3x3(outputs, r.ifInside)
	}, func() {
		Label(r.label("inner"))
		if v.bytes == 64 {
			for o := range outputs {
				PREFETCHT0(r.dy.at(o).Offset(ahead))
			}
			PREFETCHT0(r.x.at(2).Offset(ahead))
		}
		v.place3x3(outputs, always)
		DECQ(r.inner)
		JNE(LabelRef(r.label("inner")))
	}, func() {
		ADDQ(carry, r.x.base)
		DECQ(r.rows)
	})
	v.eachSum3x3(outputs, func(sum VecPhysical, m Mem) { VMOVUPS(sum, m) })
	VZEROUPPER()
	RET()
}

// eachSum3x3 calls do with every accumulator and its place in memory.
func (v *width) eachSum3x3(outputs int, do func(VecPhysical, Mem)) {
	r := gradient3x3Registers
	Load(Param("sums"), r.here)
	v.half(r.inner, r.here)
	for i, sum := range v.registers[:9*outputs] {
		do(sum, Mem{Base: r.here, Disp: 64 * i})
	}
}

// place3x3 writes the multiply-adds of one place, those of each tap by when.
func (v *width) place3x3(outputs int, when func(tap int, do func())) {
	r := gradient3x3Registers
	dy, x := v.registers[9*outputs:][:outputs], v.registers[10*outputs:]
	for o := range outputs {
		VMOVUPS(r.dy.at(o), dy[o])
	}
	for tap := range 9 {
		when(tap, func() {
			at := r.x.at(tap / 3).Offset(64 * (tap % 3))
			if outputs == 1 {
				VFMADD231PS(at, dy[0], v.registers[tap])
				return
			}
			VMOVUPS(at, x[tap%2])
			for o := range outputs {
				VFMADD231PS(x[tap%2], dy[o], v.registers[9*o+tap])
			}
		})
	}
	ADDQ(r.xColumn, r.x.base)
	ADDQ(Imm(64), r.dy.base)
}
