package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A staircase's search tree has the nodes of rank d, 2^d of them, at tree[2^d]; the last rank is the levels. An element's place
// in a rank has a bit for each node above, set where the element exceeds its bound.
const (
	registerRanks = 5 // the ranks of up to 16 nodes, of which registers hold all
	tableRanks    = 8 // those that AVX-512 looks up in whole vectors; behind them gathering is faster
)

// General registers of a staircase.
var stairs = struct{ y, x, n, tree, leaves, at, base, rank Register }{RDI, RSI, RCX, R8, RDX, RAX, R9, R10}

// staircase is one kind of staircase loop: what it makes of elements and levels.
type staircase struct {
	name, signature, meaning string
	input                    string // the type of the elements
	output                   int    // bytes of a result
}

func staircases() {
	for _, s := range []staircase{
		{"stepLevels", "(y, x *float32, n int, tree *float32, leaves int)", "Steps.Level of n elements", "float32", 4},
		{"stepBytes", "(y *uint8, x *int32, n int, tree *float32, leaves int)", "Steps.Bytes of n elements", "int32", 1},
	} {
		s.avx512()
		s.avx2()
	}
}

// begin starts the function.
func (s *staircase) begin(v string) {
	TEXT(s.name+v, NOSPLIT, "func"+s.signature)
	Doc(s.name + v + " is " + s.meaning + ", a multiple of 16.")
	Pragma("noescape")
	for _, p := range []struct {
		name string
		to   Register
	}{{"y", stairs.y}, {"x", stairs.x}, {"n", stairs.n}, {"tree", stairs.tree}, {"leaves", stairs.leaves}} {
		MOVQ(address(Param(p.name)), p.to)
	}
	XORQ(stairs.at, stairs.at)
}

// node is a place in the tree.
func node(i int) Mem { return Mem{Base: stairs.tree, Disp: 4 * i} }

// in and out are the places of an element of the loop's sixteen and of its result.
func (s *staircase) in(i int) Mem {
	return Mem{Base: stairs.x, Index: stairs.at, Scale: 4, Disp: 4 * i}
}

func (s *staircase) out(i int) Mem {
	return Mem{Base: stairs.y, Index: stairs.at, Scale: uint8(s.output), Disp: s.output * i}
}

// loop writes the loop over vectors of sixteen elements and the return.
func (s *staircase) loop(label string, body func()) {
	Label(label)
	PREFETCHT0(s.in(loopAhead / 4))
	PREFETCHT0(s.out(loopAhead / 4))
	body()
	ADDQ(Imm(Lanes), stairs.at)
	CMPQ(stairs.at, stairs.n)
	JB(LabelRef(label))
	VZEROUPPER()
	RET()
}

// load loads elements as numbers of float32.
func (s *staircase) load(i int, x VecPhysical) {
	if s.input == "int32" {
		VCVTDQ2PS(s.in(i), x)
		return
	}
	VMOVUPS(s.in(i), x)
}

// gathered writes the search from the given rank on, which goes on to the levels: gather takes places to values, step values to
// the places in the next rank.
func gathered(label string, rank int, gather, step func()) {
	MOVQ(U32(1<<rank), stairs.rank)
	Label(label)
	LEAQ(Mem{Base: stairs.tree, Index: stairs.rank, Scale: 4}, stairs.base)
	gather()
	CMPQ(stairs.rank, stairs.leaves)
	JE(LabelRef(label + "end"))
	step()
	ADDQ(stairs.rank, stairs.rank)
	JMP(LabelRef(label))
	Label(label + "end")
}

// Registers of a staircase of AVX-512.
var (
	x512, place512, value512 = Z0, Z1, Z2
	spare512                 = []VecPhysical{Z3, Z4}
	gatherBit512             = Z5
	rank512                  = [registerRanks][]VecPhysical{{Z6}, {Z7, Z8}, {Z9}, {Z10}, {Z11}}
	bit512                   = [tableRanks]VecPhysical{Z12, Z13, Z14, Z15, Z16, Z17, Z18, Z19}
)

// mask512 is where the outcome of a rank's comparison goes; those that lookups in tables need have masks of their own.
func mask512(rank int) OpmaskPhysical {
	switch rank {
	case 5:
		return K5
	case 6:
		return K6
	}
	return K1
}

// avx512 writes a loop for each number of leaves up to that of tables and one for the rest.
func (s *staircase) avx512() {
	s.begin("AVX512")
	prepare512()
	label := func(last int) string { return fmt.Sprintf("leaves%d", 1<<last) }
	for last := registerRanks - 1; last < tableRanks; last++ {
		CMPQ(stairs.leaves, U32(1<<last))
		JE(LabelRef(label(last)))
	}
	s.loop("more", func() {
		s.descend512(tableRanks)
		gather512()
		s.store512()
	})
	for last := registerRanks - 1; last < tableRanks; last++ {
		s.loop(label(last), func() {
			s.descend512(last)
			lookup512(last)
			s.store512()
		})
	}
}

// prepare512 loads what stays the same for all elements.
func prepare512() {
	VBROADCASTSS(node(1), rank512[0][0])
	VBROADCASTSS(node(2), rank512[1][0])
	VBROADCASTSS(node(3), rank512[1][1])
	for d := 2; d < registerRanks; d++ {
		VMOVUPS(node(1<<d), rank512[d][0])
	}
	MOVL(U32(1), RBX.As32())
	VPBROADCASTD(RBX.As32(), bit512[0])
	for d := 1; d < len(bit512); d++ {
		VPADDD(bit512[d-1], bit512[d-1], bit512[d])
	}
}

// descend512 loads elements and finds their places in a rank.
func (s *staircase) descend512(rank int) {
	s.load(0, x512)
	VCMPPS(Imm(greaterThan), rank512[0][0], x512, mask512(0))
	VMOVDQA32_Z(bit512[0], mask512(0), place512)
	for d := 1; d < rank; d++ {
		lookup512(d)
		step512(mask512(d), bit512[d])
	}
}

// step512 adds to places the bit of those elements that exceed their value.
func step512(mask OpmaskPhysical, bit VecPhysical) {
	VCMPPS(Imm(greaterThan), value512, x512, mask)
	VPORD(bit, place512, mask, place512)
}

// gather512 finds levels from the places in the first rank behind the tables.
func gather512() {
	last := bit512[tableRanks-1]
	VPADDD(last, last, gatherBit512)
	gathered("gather", tableRanks, func() {
		KXNORW(K1, K1, K1)
		VGATHERDPS(Mem{Base: stairs.base, Index: place512, Scale: 4}, K1, value512)
	}, func() {
		step512(K1, gatherBit512)
		VPADDD(gatherBit512, gatherBit512, gatherBit512)
	})
}

// lookup512 looks up what is in a rank at the elements' places.
func lookup512(rank int) {
	switch {
	case rank == 1:
		VBLENDMPS(rank512[1][1], rank512[1][0], mask512(0), value512)
	case rank < registerRanks:
		VPERMPS(rank512[rank][0], place512, value512)
	default:
		table512(rank, 1<<rank, append([]VecPhysical{value512}, spare512...))
	}
}

// table512 looks up in as many nodes as the rank has, from the given one on: in two vectors by the low five bits of places, while
// masks hold the other bits.
func table512(rank, from int, to []VecPhysical) {
	size := 1 << rank
	if size == 2*Lanes {
		VMOVUPS(node(from), to[0])
		VPERMT2PS(node(from+Lanes), place512, to[0])
		return
	}
	table512(rank-1, from, to)
	table512(rank-1, from+size/2, to[1:])
	VBLENDMPS(to[1], to[0], mask512(rank-1), to[0])
}

// store512 stores levels.
func (s *staircase) store512() {
	if s.output == 1 {
		VCVTTPS2DQ(value512, value512)
		VPMOVDB(value512, s.out(0))
		return
	}
	VCMPPS(Imm(unordered), x512, x512, K1)
	VMOVAPS(x512, K1, value512)
	VMOVUPS(value512, s.out(0))
}

// Registers of a staircase of AVX2.
var (
	rank256 = [registerRanks][]VecPhysical{{Y0}, {Y1}, {Y2}, {Y3}, {Y4, Y5}}
	bit256  = [registerRanks]VecPhysical{Y6, Y7, Y8, Y9, Y10}

	x256, place256, value256, outcome256, spare256 = Y11, Y12, Y13, Y14, Y15
)

func (s *staircase) avx2() {
	s.begin("AVX2")
	prepare256()
	s.loop("loop", func() {
		for half := range 2 {
			s.load(8*half, x256)
			found := fmt.Sprintf("found%d", half)
			descend256()
			CMPQ(stairs.leaves, Imm(1<<(registerRanks-1)))
			JE(LabelRef(found))
			gather256(fmt.Sprintf("gather%d", half))
			Label(found)
			s.store256(half)
		}
	})
}

// prepare256 loads what stays the same for all elements.
func prepare256() {
	VBROADCASTSS(node(1), rank256[0][0])
	for d := 1; d < registerRanks; d++ {
		for i, r := range rank256[d] {
			VMOVUPS(node(1<<d+8*i), r)
		}
	}
	VPCMPEQD(bit256[0], bit256[0], bit256[0])
	VPSRLD(Imm(31), bit256[0], bit256[0])
	for d := 1; d < len(bit256); d++ {
		VPADDD(bit256[d-1], bit256[d-1], bit256[d])
	}
}

// descend256 looks up values in the rank of sixteen nodes; the high bit of their places is the outcome before.
func descend256() {
	VCMPPS(Imm(greaterThan), rank256[0][0], x256, outcome256)
	VPAND(bit256[0], outcome256, place256)
	for d := 1; d < registerRanks-1; d++ {
		VPERMPS(rank256[d][0], place256, value256)
		step256(bit256[d], spare256)
	}
	VPERMPS(rank256[4][0], place256, value256)
	VPERMPS(rank256[4][1], place256, spare256)
	VBLENDVPS(outcome256, spare256, value256, value256)
}

// step256 adds to places the bit of those elements that exceed their value; marked takes the bits.
func step256(bit, marked VecPhysical) {
	VCMPPS(Imm(greaterThan), value256, x256, outcome256)
	VPAND(bit, outcome256, marked)
	VPOR(marked, place256, place256)
}

// gather256 finds levels from the values in the rank of sixteen nodes.
func gather256(label string) {
	last := bit256[registerRanks-1]
	step256(last, spare256)
	VPADDD(last, last, spare256)
	gathered(label, registerRanks, func() {
		VPCMPEQD(outcome256, outcome256, outcome256)
		VGATHERDPS(outcome256, Mem{Base: stairs.base, Index: place256, Scale: 4}, value256)
	}, func() {
		step256(spare256, outcome256)
		VPADDD(spare256, spare256, spare256)
	})
}

// store256 stores levels.
func (s *staircase) store256(half int) {
	if s.output == 1 {
		VCVTTPS2DQ(value256, value256)
		VPSLLD(Imm(24), value256, value256)
		VPSRLD(Imm(24), value256, value256)
		VEXTRACTI128(Imm(1), value256, outcome256.AsX())
		VPACKUSDW(outcome256.AsX(), value256.AsX(), value256.AsX())
		VPACKUSWB(value256.AsX(), value256.AsX(), value256.AsX())
		VMOVQ(value256.AsX(), s.out(8*half))
		return
	}
	VCMPPS(Imm(unordered), x256, x256, outcome256)
	VBLENDVPS(outcome256, x256, value256, value256)
	VMOVUPS(value256, s.out(8*half))
}
