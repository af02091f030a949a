package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// places is what the loops over the places of a plane keep in general registers, for kernels of up to 3x3 taps. Where
// taps lie outside, each of the others is asked for; places that have all run in a loop of their own. The structure t
// has the fields columns, left, inner, whole, rowTaps and columnTaps.
type places struct {
	structure           Register
	columnTaps, rowTaps Register
	taps, here          Register // of the row, of the place at an edge
	edges, columns      Register // edges is free in the inner loop
	inner               Register // counter of the inner loop
	suffix              string   // of the labels
}

func (p places) label(part string) string { return part + p.suffix }

func (p places) field(name string) Mem { return field("t", p.structure, name) }

// base is the first element of a slice of t.
func (p places) base(name string) Mem {
	return address(Param("t").Dereference(p.structure).Field(name).Base())
}

// loops writes the loops: edge does a place at an edge, inner writes the loop over p.inner places that have all taps, next
// goes to the next row and leaves the flags of the number of rows left.
func (p places) loops(edge, inner, next func()) {
	Label(p.label("row"))
	MOVQ(p.base("columnTaps"), p.columnTaps)
	MOVQ(Mem{Base: p.rowTaps}, p.taps)
	ADDQ(Imm(8), p.rowTaps)
	MOVQ(p.field("columns"), p.columns)
	MOVQ(p.columns, p.edges)
	CMPQ(p.taps, p.field("whole"))
	JNE(LabelRef(p.label("edge")))
	MOVQ(p.field("left"), p.edges)
	TESTQ(p.edges, p.edges)
	JE(LabelRef(p.label("inside")))

	Label(p.label("edge"))
	SUBQ(p.edges, p.columns)
	Label(p.label("edges"))
	MOVQ(Mem{Base: p.columnTaps}, p.here)
	ADDQ(Imm(8), p.columnTaps)
	ANDQ(p.taps, p.here)
	edge()
	DECQ(p.edges)
	JNE(LabelRef(p.label("edges")))
	TESTQ(p.columns, p.columns)
	JE(LabelRef(p.label("end")))

	Label(p.label("inside"))
	MOVQ(p.field("inner"), p.inner)
	LEAQ(Mem{Base: p.columnTaps, Index: p.inner, Scale: 8}, p.columnTaps)
	SUBQ(p.inner, p.columns)
	inner()
	MOVQ(p.columns, p.edges)
	TESTQ(p.edges, p.edges)
	JNE(LabelRef(p.label("edge")))

	Label(p.label("end"))
	next()
	JNE(LabelRef(p.label("row")))
}

// ifInside writes do for a tap of a place at an edge, skipped where the tap lies outside.
func (p places) ifInside(tap int, do func()) {
	skip := p.label(fmt.Sprintf("skip%d", tap))
	TESTL(U32(1<<tap), p.here.(GPPhysical).As32())
	JE(LabelRef(skip))
	do()
	Label(skip)
}

// always writes do.
func always(_ int, do func()) { do() }
