package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// probe writes a loop of nothing but independent multiply-adds, which measures the machine's peak.
func probe(v width) {
	TEXT("probe"+v.name, NOSPLIT, "func(rounds int)")
	Doc("probe" + v.name + " does rounds times 12 multiply-adds of vectors, for measuring the machine's peak.")
	Load(Param("rounds"), RCX)
	for _, r := range v.registers[:13] {
		v.clear(r)
	}
	Label("round")
	for _, r := range v.registers[:12] {
		VFMADD231PS(v.registers[12], v.registers[12], r)
	}
	DECQ(RCX)
	JNE(LabelRef("round"))
	VZEROUPPER()
	RET()
}
