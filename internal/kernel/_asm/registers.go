package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// width is an instruction set: how many bytes its vectors have and how large a register tile its registers hold.
type width struct {
	name      string
	bytes     int // of a vector
	outputs   int
	pixels    int // also inputs of the weight gradient
	registers []VecPhysical
}

var (
	avx512 = width{"AVX512", 64, 4, 6, []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}}
	avx2 = width{"AVX2", 32, 4, 3, []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}}
)

// sum is the accumulator of an output and a pixel.
func (v *width) sum(output, pixel int) VecPhysical { return v.registers[output*v.pixels+pixel] }

// free is a register that is no accumulator.
func (v *width) free(i int) VecPhysical { return v.registers[v.outputs*v.pixels+i] }

// clear makes a register zero.
func (v *width) clear(r VecPhysical) {
	if v.bytes == 64 {
		VPXORD(r, r, r)
		return
	}
	VXORPS(r, r, r)
}

// field is a struct field behind the pointer in base.
func field(structure string, base Register, name string) Mem {
	return address(Param(structure).Dereference(base).Field(name))
}

func address(c gotypes.Component) Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// stride loads a distance in floats and makes it one in bytes.
func stride(m Mem, r Register) {
	MOVQ(m, r)
	SHLQ(Imm(2), r)
}

// steps are the places base + i·distance for i up to 5, with the distance and 3 and 5 times it in registers.
type steps struct{ base, one, three, five Register }

// prepare computes the multiples of the distance that n steps need.
func (s steps) prepare(n int) {
	if n > 3 {
		LEAQ(Mem{Base: s.one, Index: s.one, Scale: 2}, s.three)
	}
	if n > 5 {
		LEAQ(Mem{Base: s.one, Index: s.one, Scale: 4}, s.five)
	}
}

func (s steps) at(i int) Mem {
	switch i {
	case 0:
		return Mem{Base: s.base}
	case 3:
		return Mem{Base: s.base, Index: s.three, Scale: 1}
	case 5:
		return Mem{Base: s.base, Index: s.five, Scale: 1}
	}
	return Mem{Base: s.base, Index: s.one, Scale: uint8(i)}
}

// shape is a variant of a kernel: its numbers of outputs and pixels.
type shape struct{ outputs, pixels int }

func (s shape) label(part string) string { return fmt.Sprintf("%s%dx%d", part, s.outputs, s.pixels) }

// variants writes body for every shape and, before them, the search that jumps to the one whose numbers the registers
// hold. Every body ends with a return.
func (v *width) variants(outputs, pixels Register, body func(shape)) {
	CMPQ(outputs, Imm(uint64(v.outputs)))
	JB(LabelRef("search"))
	CMPQ(pixels, Imm(uint64(v.pixels)))
	JE(LabelRef(shape{v.outputs, v.pixels}.label("tile")))
	Label("search")
	for o := v.outputs; o > 1; o-- {
		CMPQ(outputs, Imm(uint64(o)))
		JE(LabelRef(fmt.Sprintf("outputs%d", o)))
	}
	for o := 1; o <= v.outputs; o++ {
		Label(fmt.Sprintf("outputs%d", o))
		for p := v.pixels; p > 1; p-- {
			CMPQ(pixels, Imm(uint64(p)))
			JE(LabelRef(shape{o, p}.label("tile")))
		}
		for p := 1; p <= v.pixels; p++ {
			s := shape{o, p}
			Label(s.label("tile"))
			body(s)
		}
	}
}
