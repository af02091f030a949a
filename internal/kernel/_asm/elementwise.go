package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Predicates of VCMPPS. All but the first are false where an operand is NaN, as Go's comparisons are.
const (
	unordered    = 0x03
	lessThan     = 0x11
	lessEqual    = 0x12
	greaterEqual = 0x1D
	greaterThan  = 0x1E
)

// elementwise writes the loops over single elements. They wait for memory, so AVX2 serves both paths. A vector of
// sixteen elements is two registers.
func elementwise() {
	relu()
	reluGradient()
	levels()
	gradient()
	step()
	laneSums()
	scan()
	add()
	finite()
	absolutes()
}

// loop starts a function over n elements, a multiple of 16, of the slices named, and calls body with the places of
// eight at a time.
func loop(name, doc, signature string, slices []string, prepare func(), body func(at []Mem, half int), finish func()) {
	TEXT(name, NOSPLIT, "func"+signature)
	Doc(doc)
	Pragma("noescape")
	pointers := []GPPhysical{RDI, RSI, RDX, R8, R9}[:len(slices)]
	for i, s := range slices {
		Load(Param(s), pointers[i])
	}
	Load(Param("n"), RCX)
	prepare()
	XORQ(RAX, RAX)
	Label("loop")
	for _, p := range pointers {
		PREFETCHT0(Mem{Base: p, Index: RAX, Scale: 4, Disp: loopAhead})
	}
	for half := range 2 {
		var at []Mem
		for _, p := range pointers {
			at = append(at, Mem{Base: p, Index: RAX, Scale: 4, Disp: 32 * half})
		}
		body(at, half)
	}
	ADDQ(Imm(Lanes), RAX)
	CMPQ(RAX, RCX)
	JB(LabelRef("loop"))
	finish()
	VZEROUPPER()
	RET()
}

// loopAhead is how many bytes before their turn the loops ask for what they go through. The machine's own prefetching stops at
// each page, of which a piece of a tensor has few; a training step is two to three percent faster for it.
const loopAhead = 1536

// Lanes is the package's constant of that name.
const Lanes = 16

func nothing() {}

func relu() {
	loop("reluAVX2", "reluAVX2 is ReLU of n elements, a multiple of 16.", "(y, x *float32, n int)", []string{"y", "x"},
		func() { VXORPS(Y0, Y0, Y0) },
		func(at []Mem, _ int) {
			VMAXPS(at[1], Y0, Y1) // the second operand, x, where it is NaN or both are zeros
			VMOVUPS(Y1, at[0])
		}, nothing)
}

func reluGradient() {
	loop("reluGradientAVX2", "reluGradientAVX2 is ReLUGradient of n elements, a multiple of 16.", "(dx, dy, x *float32, n int)",
		[]string{"dx", "dy", "x"},
		func() { VXORPS(Y0, Y0, Y0) },
		func(at []Mem, _ int) {
			VMOVUPS(at[2], Y1)
			VCMPPS(Imm(greaterThan), Y0, Y1, Y1)
			VANDPS(at[1], Y1, Y1)
			VMOVUPS(Y1, at[0])
		}, nothing)
}

// quantizer holds the fields of rounding.
var quantizer = struct{ scale, low, high, below, above, bias VecPhysical }{Y10, Y11, Y12, Y13, Y14, Y15}

func loadQuantizer() {
	q := quantizer
	Load(Param("q"), RBX)
	for _, f := range []struct {
		name string
		to   VecPhysical
	}{{"scale", q.scale}, {"low", q.low}, {"high", q.high}, {"below", q.below}, {"above", q.above}, {"bias", q.bias}} {
		VBROADCASTSS(field("q", RBX, f.name), f.to)
	}
}

// round is rounding.round of x into v and r. Where the limits compare false they leave the value, NaN too.
func round(x Mem, v, r VecPhysical) {
	q := quantizer
	VMOVUPS(x, v)
	VDIVPS(q.scale, v, v)
	VMAXPS(v, q.below, r)
	VMINPS(r, q.above, r)
	VADDPS(q.bias, r, r)
	VSUBPS(q.bias, r, r)
}

func levels() {
	q := quantizer
	loop("levelsAVX2", "levelsAVX2 is rounding.level of n elements, a multiple of 16.", "(y, x *float32, n int, q *rounding)",
		[]string{"y", "x"},
		func() {
			loadQuantizer()
			VXORPS(Y0, Y0, Y0)
		},
		func(at []Mem, _ int) {
			round(at[1], Y1, Y2)
			VMAXPS(Y2, q.low, Y2)
			VMINPS(Y2, q.high, Y2)
			VADDPS(Y0, Y2, Y2)
			VMOVUPS(Y2, at[0])
		}, nothing)
}

func gradient() {
	q := quantizer
	loop("gradientAVX2", "gradientAVX2 is Uniform.Gradient of n elements, a multiple of 16.",
		"(dx, dy, x *float32, n int, q *rounding)", []string{"dx", "dy", "x"}, loadQuantizer,
		func(at []Mem, _ int) {
			round(at[2], Y1, Y2)
			VCMPPS(Imm(greaterEqual), q.low, Y2, Y3)
			VCMPPS(Imm(lessEqual), q.high, Y2, Y4)
			VANDPS(Y4, Y3, Y3)
			VANDPS(at[1], Y3, Y3)
			VMOVUPS(Y3, at[0])
		}, nothing)
}

// wideSums holds sixteen float64 lane sums.
var wideSums = []VecPhysical{Y6, Y7, Y8, Y9}

// eachWideSum moves between the registers of wideSums and the array behind the parameter lanes.
func eachWideSum(move func(sum VecPhysical, at Mem)) {
	Load(Param("lanes"), RBX)
	for i, s := range wideSums {
		move(s, Mem{Base: RBX, Disp: 32 * i})
	}
}

// addWide widens the eight floats in x, which it destroys with y, and adds them to half of wideSums.
func addWide(x, y VecPhysical, half int) {
	for i := range 2 {
		if i == 1 {
			VEXTRACTF128(Imm(1), x, x.AsX())
		}
		sum := wideSums[2*half+i]
		VCVTPS2PD(x.AsX(), y)
		VADDPD(y, sum, sum)
	}
}

func step() {
	q := quantizer
	loop("stepAVX2", "stepAVX2 is rounding.stepChunk of n elements, a multiple of 16, adding to lanes; exact is 0 or 1, levels may be nil.",
		"(lanes *float64, dx, dy, x *float32, n int, q *rounding, exact int, levels *float32)", []string{"dx", "dy", "x"},
		func() {
			loadQuantizer()
			eachWideSum(func(sum VecPhysical, at Mem) { VMOVUPD(at, sum) })
			Load(Param("exact"), R8)
			Load(Param("levels"), R9)
			VXORPS(Y0, Y0, Y0)
		},
		func(at []Mem, half int) {
			round(at[2], Y1, Y2)
			unwanted := "unwanted" + string(rune('0'+half))
			TESTQ(R9, R9)
			JE(LabelRef(unwanted))
			VMAXPS(Y2, q.low, Y5)
			VMINPS(Y5, q.high, Y5)
			VADDPS(Y0, Y5, Y5)
			VMOVUPS(Y5, Mem{Base: R9, Index: RAX, Scale: 4, Disp: 32 * half})
			Label(unwanted)
			VSUBPS(Y1, Y2, Y3) // slope
			tested := "tested" + string(rune('0'+half))
			TESTQ(R8, R8)
			JE(LabelRef(tested))
			VMOVAPS(Y1, Y2)
			Label(tested)
			VCMPPS(Imm(greaterThan), q.high, Y2, Y4)
			VBLENDVPS(Y4, q.high, Y3, Y3)
			VCMPPS(Imm(lessThan), q.low, Y2, Y2)
			VBLENDVPS(Y2, q.low, Y3, Y3)
			VORPS(Y4, Y2, Y2)
			VMOVUPS(at[1], Y1)
			VMULPS(Y1, Y3, Y3)
			VANDNPS(Y1, Y2, Y1)
			VMOVUPS(Y1, at[0])
			addWide(Y3, Y4, half)
		},
		func() { eachWideSum(func(sum VecPhysical, at Mem) { VMOVUPD(sum, at) }) })
}

func laneSums() {
	TEXT("laneSumsAVX2", NOSPLIT, "func(lanes, x *float32, n, step int)")
	Doc("laneSumsAVX2 adds to lanes n vectors of x, step floats apart, n being at least 1.")
	Pragma("noescape")
	Load(Param("lanes"), RDI)
	Load(Param("x"), RSI)
	Load(Param("n"), RCX)
	stride(address(Param("step")), RDX)
	lanes, x := Mem{Base: RDI}, Mem{Base: RSI}
	VMOVUPS(lanes, Y0)
	VMOVUPS(lanes.Offset(32), Y1)
	Label("loop")
	VADDPS(x, Y0, Y0)
	VADDPS(x.Offset(32), Y1, Y1)
	ADDQ(RDX, RSI)
	DECQ(RCX)
	JNE(LabelRef("loop"))
	VMOVUPS(Y0, lanes)
	VMOVUPS(Y1, lanes.Offset(32))
	VZEROUPPER()
	RET()
}

// scan keeps the lanes of extremes in six registers.
func scan() {
	fields := [][]VecPhysical{{Y0, Y1}, {Y2, Y3}, {Y4, Y5}} // low, high, nan
	each := func(do func(r VecPhysical, at Mem)) {
		Load(Param("e"), RBX)
		for i, field := range fields {
			for half, r := range field {
				do(r, Mem{Base: RBX, Disp: 64*i + 32*half})
			}
		}
	}
	loop("scanAVX2", "scanAVX2 is extremes.add of n elements, a multiple of 16; a lane's NaN may be another.",
		"(e *extremes, x *float32, n int)", []string{"x"},
		func() { each(func(r VecPhysical, at Mem) { VMOVUPS(at, r) }) },
		func(at []Mem, half int) {
			low, high, nan := fields[0][half], fields[1][half], fields[2][half]
			VMOVUPS(at[0], Y6)
			VMINPS(low, Y6, low) // the second operand, what was there, where the element is NaN
			VMAXPS(high, Y6, high)
			VCMPPS(Imm(unordered), Y6, Y6, Y7)
			VORPS(Y7, nan, nan)
		},
		func() { each(func(r VecPhysical, at Mem) { VMOVUPS(r, at) }) })
}

// add goes over the terms anew for every vector, so that y may be any of them.
func add() {
	TEXT("addAVX2", NOSPLIT, "func(y *float32, terms *[]float32, count, n, from int)")
	Doc("addAVX2 is Add of n elements, a multiple of 16, from the given one on, with at least one term.")
	Pragma("noescape")
	y, terms, count, n, i := RDI, RSI, RDX, RCX, RAX
	for _, p := range []struct {
		name string
		to   Register
	}{{"y", y}, {"terms", terms}, {"count", count}, {"n", n}, {"from", i}} {
		MOVQ(address(Param(p.name)), p.to)
	}
	LEAQ(Mem{Base: count, Index: count, Scale: 2}, count) // a slice is three words, its address the first
	SHLQ(Imm(3), count)
	ADDQ(i, n)
	Label("loop")
	MOVQ(Mem{Base: terms}, RBX)
	VMOVUPS(Mem{Base: RBX, Index: i, Scale: 4}, Y0)
	VMOVUPS(Mem{Base: RBX, Index: i, Scale: 4, Disp: 32}, Y1)
	MOVQ(U32(24), R8)
	CMPQ(R8, count)
	JAE(LabelRef("done"))
	Label("term")
	MOVQ(Mem{Base: terms, Index: R8, Scale: 1}, RBX)
	VADDPS(Mem{Base: RBX, Index: i, Scale: 4}, Y0, Y0)
	VADDPS(Mem{Base: RBX, Index: i, Scale: 4, Disp: 32}, Y1, Y1)
	ADDQ(Imm(24), R8)
	CMPQ(R8, count)
	JB(LabelRef("term"))
	Label("done")
	VMOVUPS(Y0, Mem{Base: y, Index: i, Scale: 4})
	VMOVUPS(Y1, Mem{Base: y, Index: i, Scale: 4, Disp: 32})
	ADDQ(Imm(Lanes), i)
	CMPQ(i, n)
	JB(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// finite gathers the bits of x-x, which is +0 for a number and NaN for the rest.
func finite() {
	loop("finiteAVX2", "finiteAVX2 is finite of n elements, a multiple of 16.", "(x *float32, n int) (all bool)", []string{"x"},
		func() { VXORPS(Y0, Y0, Y0) },
		func(at []Mem, _ int) {
			VMOVUPS(at[0], Y1)
			VSUBPS(Y1, Y1, Y1)
			VORPS(Y1, Y0, Y0)
		},
		func() {
			VPTEST(Y0, Y0)
			SETEQ(address(Return("all")))
		})
}

func absolutes() {
	loop("absolutesAVX2", "absolutesAVX2 adds to lanes the magnitudes of n elements, a multiple of 16.",
		"(lanes *float64, x *float32, n int)", []string{"x"},
		func() {
			eachWideSum(func(sum VecPhysical, at Mem) { VMOVUPD(at, sum) })
			VPCMPEQD(Y0, Y0, Y0)
			VPSRLD(Imm(1), Y0, Y0) // all bits but the sign
		},
		func(at []Mem, half int) {
			VANDPS(at[0], Y0, Y1)
			addWide(Y1, Y2, half)
		},
		func() { eachWideSum(func(sum VecPhysical, at Mem) { VMOVUPD(sum, at) }) })
}
