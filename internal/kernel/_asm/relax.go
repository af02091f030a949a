package main

import (
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// notBelow is a predicate of VCMPPS that is true where an operand is NaN.
const notBelow = 0x15

// relaxed holds what the loops over the values of Relaxation keep in registers: of eight elements the largest logit, the
// sum of the exponentials and of their products with the values.
var relaxed = struct {
	top, sum, weighted, sharpness VecPhysical
	structure, stride, place      GPPhysical
	count, value                  GPPhysical
}{Y12, Y13, Y14, Y15, RBX, R8, R9, R10, R11}

// exponentials are the constants of exponential, eight times each, in the order of their use.
type exponentials struct{ data Mem }

func newExponentials() exponentials {
	e := exponentials{GLOBL("exponentials", attr.RODATA|attr.NOPTR)}
	rest := float32(math.Ln2 - 0.693359375)
	for i, bits := range []uint32{
		math.Float32bits(-87), math.Float32bits(math.Log2E), math.Float32bits(3 << 22), math.Float32bits(0.693359375), math.Float32bits(rest),
		math.Float32bits(1.9875691500e-4), math.Float32bits(1.3981999507e-3), math.Float32bits(8.3334519073e-3),
		math.Float32bits(4.1665795894e-2), math.Float32bits(1.6666665459e-1), math.Float32bits(5.0000001201e-1),
		math.Float32bits(1), 127,
	} {
		for lane := range 8 {
			DATA(4*(8*i+lane), U32(bits))
		}
	}
	return e
}

func (e exponentials) at(i int) Mem { return e.data.Offset(32 * i) }

// compute makes x its exponential; it destroys Y0 to Y3.
func (e exponentials) compute(x VecPhysical) {
	k, r, p, inside := Y0, Y1, Y2, Y3
	VCMPPS(Imm(notBelow), e.at(0), x, inside)
	VMULPS(e.at(1), x, k)
	VADDPS(e.at(2), k, k)
	VSUBPS(e.at(2), k, k)
	VMOVAPS(x, r)
	VFNMADD231PS(e.at(3), k, r)
	VFNMADD231PS(e.at(4), k, r)
	VMOVUPS(e.at(5), p)
	for i := 6; i <= 10; i++ {
		VFMADD213PS(e.at(i), r, p)
	}
	VMULPS(r, r, x)
	VFMADD213PS(r, x, p)
	VADDPS(e.at(11), p, p)
	VCVTPS2DQ(k, k)
	VPADDD(e.at(12), k, k)
	VPSLLD(Imm(23), k, k)
	VMULPS(k, p, p)
	VANDPS(inside, p, x)
}

// relaxation writes the loops of Relaxation, which AVX2 does for both paths.
func relaxation() {
	e := newExponentials()
	soft(e)
	softGradient(e)
	hard()
}

// elements starts a function over n elements, a multiple of 16, eight at a time: body finds the index in RAX and the first
// logits' address in place. R is R12.
func elements(name, doc, signature string, pointers map[string]GPPhysical, body func()) {
	r := relaxed
	TEXT(name, NOSPLIT, "func"+signature)
	Doc(doc)
	Pragma("noescape")
	for _, s := range []string{"y", "da", "dy", "a"} {
		if p, ok := pointers[s]; ok {
			Load(Param(s), p)
		}
	}
	Load(Param("n"), RCX)
	Load(Param("r"), r.structure)
	VBROADCASTSS(field("r", r.structure, "sharpness"), r.sharpness)
	stride(field("r", r.structure, "stride"), r.stride)
	XORQ(RAX, RAX)
	Label("loop")
	body()
	ADDQ(Imm(8), RAX)
	CMPQ(RAX, RCX)
	JB(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// eachValue loops over the values: place goes through what lies at base, the value's number through value.
func eachValue(label string, base GPPhysical, from int, body func(logit, value Mem)) {
	r := relaxed
	LEAQ(Mem{Base: base, Index: RAX, Scale: 4}, r.place)
	for range from {
		ADDQ(r.stride, r.place)
	}
	MOVQ(U32(uint32(from)), r.value)
	MOVQ(field("r", r.structure, "count"), r.count)
	Label(label)
	values := address(Param("r").Dereference(r.structure).Field("values").Index(0))
	values.Index, values.Scale = r.value, 4
	body(Mem{Base: r.place}, values)
	ADDQ(r.stride, r.place)
	INCQ(r.value)
	CMPQ(r.value, r.count)
	JB(LabelRef(label))
}

// top finds the largest logit.
func top(a GPPhysical) {
	r := relaxed
	VMOVUPS(Mem{Base: a, Index: RAX, Scale: 4}, r.top)
	eachValue("top", a, 1, func(logit, _ Mem) {
		VMOVUPS(logit, Y0)
		VCMPPS(Imm(greaterThan), r.top, Y0, Y1)
		VBLENDVPS(Y1, Y0, r.top, r.top)
	})
}

// sums adds up the exponentials and their products with the values; done gets each exponential.
func sums(e exponentials, a GPPhysical, done func(exponential VecPhysical)) {
	r := relaxed
	VXORPS(r.sum, r.sum, r.sum)
	VXORPS(r.weighted, r.weighted, r.weighted)
	eachValue("sums", a, 0, func(logit, value Mem) {
		VMOVUPS(logit, Y4)
		VSUBPS(r.top, Y4, Y4)
		VMULPS(r.sharpness, Y4, Y4)
		e.compute(Y4)
		done(Y4)
		VADDPS(Y4, r.sum, r.sum)
		VBROADCASTSS(value, Y5)
		VFMADD231PS(Y5, Y4, r.weighted)
	})
}

func soft(e exponentials) {
	y, a := RDI, RSI
	elements("softAVX2", "softAVX2 is Relaxation.soft of n elements, a multiple of 16.", "(y, a *float32, n int, r *Relaxation)",
		map[string]GPPhysical{"y": y, "a": a}, func() {
			r := relaxed
			top(a)
			sums(e, a, func(VecPhysical) {})
			VDIVPS(r.sum, r.weighted, Y0)
			VMOVUPS(Y0, Mem{Base: y, Index: RAX, Scale: 4})
		})
}

func softGradient(e exponentials) {
	da, dy, a, gradient := RDI, RDX, RSI, R12
	elements("softGradientAVX2", "softGradientAVX2 is Relaxation.gradient of n elements, a multiple of 16.",
		"(da, dy, a *float32, n int, r *Relaxation)", map[string]GPPhysical{"da": da, "dy": dy, "a": a}, func() {
			r := relaxed
			top(a)
			LEAQ(Mem{Base: da, Index: RAX, Scale: 4}, gradient)
			sums(e, a, func(exponential VecPhysical) {
				VMOVUPS(exponential, Mem{Base: gradient})
				ADDQ(r.stride, gradient)
			})
			VDIVPS(r.sum, r.weighted, r.weighted)
			VBROADCASTSS(exponentialOne(e), Y6)
			VDIVPS(r.sum, Y6, r.sum)
			VMULPS(Mem{Base: dy, Index: RAX, Scale: 4}, r.sharpness, Y7)
			eachValue("gradients", da, 0, func(gradient, value Mem) {
				VMULPS(gradient, r.sum, Y0)
				VBROADCASTSS(value, Y1)
				VSUBPS(r.weighted, Y1, Y1)
				VMULPS(Y1, Y0, Y0)
				VMULPS(Y0, Y7, Y0)
				VMOVUPS(Y0, gradient)
			})
		})
}

// exponentialOne is where a 1 is.
func exponentialOne(e exponentials) Mem { return e.at(11) }

func hard() {
	y, a := RDI, RSI
	elements("hardAVX2", "hardAVX2 is Relaxation.hard of n elements, a multiple of 16.", "(y, a *float32, n int, r *Relaxation)",
		map[string]GPPhysical{"y": y, "a": a}, func() {
			r := relaxed
			VMOVUPS(Mem{Base: a, Index: RAX, Scale: 4}, r.top)
			VSUBPS(r.top, r.top, r.sum) // 0, or NaN
			VBROADCASTSS(address(Param("r").Dereference(r.structure).Field("values").Index(0)), r.weighted)
			eachValue("top", a, 1, func(logit, value Mem) {
				VMOVUPS(logit, Y0)
				VSUBPS(Y0, Y0, Y1)
				VADDPS(Y1, r.sum, r.sum)
				VCMPPS(Imm(greaterThan), r.top, Y0, Y1)
				VBLENDVPS(Y1, Y0, r.top, r.top)
				VBROADCASTSS(value, Y2)
				VBLENDVPS(Y1, Y2, r.weighted, r.weighted)
			})
			VADDPS(r.sum, r.weighted, Y0)
			VMOVUPS(Y0, Mem{Base: y, Index: RAX, Scale: 4})
		})
}
