package integer

import (
	"math"
	"math/bits"
)

// stairs is a staircase made ready for the fast engine, which writes bytes, for values are codes. Numbers that are kept in
// bytes are looked up. For wide ones, cells that are narrow near 0 and grow with the distance from it, as the steps of
// many methods do, tell where to begin to count bounds.
type stairs struct {
	ofByte [256]uint8  // output for every byte
	cells  [2048]uint8 // number of bounds below the lowest integer of a cell
	inCell int         // the most bounds that lie in one
	bounds [256]int32  // then numbers that nothing exceeds
	values [256]uint8  // output for every number of bounds below
}

// cellDigits is how many leading binary digits of a number tell its cell: 2^(cellDigits-1) cells to an octave.
const cellDigits = 6

// cellOf returns the number of the cell that holds x.
func cellOf(x int32) uint32 {
	distance := uint32(x ^ x>>31) // of negative numbers, from -1
	shift := bits.Len32(distance|1<<(cellDigits-1)) - cellDigits
	return uint32(x)>>31<<10 + uint32(shift)<<(cellDigits-1) + distance>>(shift&31)
}

// newStairs prepares a staircase for an input and an output that are kept in given ways.
func newStairs(s *Steps, in, out *buffer) *stairs {
	t := &stairs{}
	if in.narrow {
		for i := range t.ofByte {
			t.ofByte[i] = uint8(s.at(int32(i)+in.offset) - out.offset)
		}
		return t
	}
	for i := range t.bounds {
		t.bounds[i] = math.MaxInt32
	}
	copy(t.bounds[:], s.Bounds)
	for i, v := range s.Values {
		t.values[i] = uint8(int32(v) - out.offset)
	}
	t.fillCells(s.Bounds)
	return t
}

// fillCells goes through the cells from the lowest integer to the highest.
func (t *stairs) fillCells(bounds []int32) {
	below := 0
	for low := int64(math.MinInt32); low <= math.MaxInt32; {
		for below < len(bounds) && int64(bounds[below]) < low {
			below++
		}
		cell, end := cellOf(int32(low)), endOfCell(int32(low))
		inside := below
		for inside < len(bounds) && int64(bounds[inside]) < end-1 {
			inside++
		}
		t.cells[cell], t.inCell = uint8(below), max(t.inCell, inside-below)
		low = end
	}
}

// endOfCell returns the integer above the cell of which low is the lowest.
func endOfCell(low int32) int64 {
	distance := uint32(low ^ low>>31)
	return int64(low) + 1<<(bits.Len32(distance|1<<(cellDigits-1))-cellDigits)
}

// run computes every element.
func (t *stairs) run(in, out *buffer) {
	n := out.shape.Len()
	y := out.bytes[:n]
	if in.narrow {
		for i, x := range in.bytes[:n] {
			y[i] = t.ofByte[x]
		}
		return
	}
	for i, x := range in.words[:n] {
		at := t.cells[cellOf(x)%uint32(len(t.cells))]
		for range t.inCell {
			at += uint8(uint64(int64(t.bounds[at])-int64(x)) >> 63)
		}
		y[i] = t.values[at]
	}
}
