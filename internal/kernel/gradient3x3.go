package kernel

import (
	"slices"
)

// gradient3x3Outputs is how many output channels meet one input channel in a tile of a 3x3 kernel: their sums for nine
// taps fill the registers of AVX-512, and a vector of x that is in the first cache serves all taps.
const gradient3x3Outputs = 3

// gradient3x3 is the heart of WeightGradient for kernels of 3x3 taps: for every output channel of a tile and every tap,
// the lane sums of dy·x over rows and columns, where x is one input channel. Bit 3*k+l of a set of taps stands for
// kernel row k and kernel column l. Distances are in floats. Assembly reads it field by field.
type gradient3x3 struct {
	rows, columns       int // of the output
	resume              int // 1 adds to the sums that are there, 0 starts at +0
	left, inner         int // columns before the first all of whose taps lie inside; columns of that kind
	whole               int // set of all taps
	rowTaps, columnTaps []uint64
	outputs, dyOutput   int
	xStart              int // from the first vector of x to the first tap, which may lie outside
	xRow, xColumn       int // from one kernel row, one output column to the next
	xCarry              int // from behind the last column of a row to the first of the next
}

// gradient3x3Sums holds the lane sums of output o and tap i at (o*9+i)*Lanes, a whole number of groups of eight.
type gradient3x3Sums [32 * Lanes]float32

// gradient3x3Totals holds the sum of output o and tap i at o*9+i.
type gradient3x3Totals [32]float32

// plan3x3 is gradient3x3 of the whole of a block, but for the outputs.
func (c *Conv) plan3x3() gradient3x3 {
	rows, columns := c.rows.forwardPhases(), c.columns.forwardPhases()
	t := gradient3x3{rows: c.rows.Out, columns: c.columns.Out, whole: all3x3, dyOutput: c.y.channel, xRow: c.x.row,
		xStart: rows[0].source*c.x.row + columns[0].source*c.x.column, xColumn: c.columns.Stride * c.x.column,
		rowTaps: rows[0].sets(row3x3, 3), columnTaps: columns[0].sets(column3x3, 1)}
	t.left, t.inner = inside(t.columnTaps, all3x3)
	t.xCarry = c.rows.Stride*c.x.row - t.columns*t.xColumn
	return t
}

// near3x3 is how many floats of x the tiles of all output channels pass over before they go on to further input
// channels: few enough to stay in the second cache beside dy.
const near3x3 = 1 << 16

// sums3x3 is how many tiles keep their sums at a time, and totals3x3 how many their totals where there is but one block.
const (
	sums3x3   = 64
	totals3x3 = 16 * sums3x3
)

// tile3x3 is a tile of a 3x3 weight gradient: outputs output channels from out on, input channel in, the place-th of its
// group.
type tile3x3 struct{ out, outputs, in, place int }

// tile3x3 is tile i of those of up to most output channels.
func (c *Conv) tile3x3(i, most int) tile3x3 {
	pieces := ceil(c.outputs, most)
	group, i := i/(pieces*c.inputs), i%(pieces*c.inputs)
	size := min(c.inputs, max(1, near3x3/c.x.channel))
	first := i / (pieces * size) * size
	i, size = i-first*pieces, min(size, c.inputs-first)
	out, outputs := part(c.outputs, pieces, i/size)
	place := first + i%size
	return tile3x3{out: group*c.outputs + out, outputs: outputs, in: group*c.inputs + place, place: place}
}

// scratch3x3 is what a task of weightGradient3x3 works in, kept for reuse.
type scratch3x3 struct {
	tiles  []tile3x3
	sums   []gradient3x3Sums   // by tile of one piece
	totals []gradient3x3Totals // by tile
}

var scratches3x3 stock[scratch3x3]

// weightGradient3x3 is WeightGradient in tiles of up to most output channels and one input channel.
func (c *Conv) weightGradient3x3(dw, x, dy []float32, most int) {
	tiles := c.groups * ceil(c.outputs, most) * c.inputs
	tasks := c.weightTasks(tiles)
	c.parallel(tasks, func(task int) {
		s := scratches3x3.get()
		defer scratches3x3.put(s)
		from, n := part(tiles, tasks, task)
		together := n
		if c.blocks == 1 { // nothing to share
			together = totals3x3
		}
		for to := from + n; from < to; from += together {
			s.run(c, dw, x, dy, from, min(together, to-from), most)
		}
	})
}

// run computes the n tiles from the one given on block by block, so that a block is read from far memory once.
func (s *scratch3x3) run(c *Conv, dw, x, dy []float32, from, n, most int) {
	s.aim(c, from, n, most)
	for block := range c.blocks {
		s.block(c, x[block*c.x.block:], dy[block*c.y.block:])
	}
	for i, t := range s.tiles {
		t.scatter(c, dw, &s.totals[i])
	}
}

// aim lists the n tiles from the one given on, with totals of +0.
func (s *scratch3x3) aim(c *Conv, from, n, most int) {
	s.tiles, s.totals = slices.Grow(s.tiles[:0], n)[:n], slices.Grow(s.totals[:0], n)[:n]
	for i := range s.tiles {
		s.tiles[i] = c.tile3x3(from+i, most)
	}
	clear(s.totals)
}

// block adds the products of one block to the totals.
func (s *scratch3x3) block(c *Conv, x, dy []float32) {
	for from, to := 0, 0; from < len(s.tiles); from = to {
		for to < len(s.tiles) && s.tiles[to].out == s.tiles[from].out && to-from < sums3x3 {
			to++
		}
		s.piece(c, x, dy, from, to)
	}
}

// piece adds the products of tiles that share their output channels, band after band of output rows, so that dy stays
// in the first cache.
func (s *scratch3x3) piece(c *Conv, x, dy []float32, from, to int) {
	t := c.weights.small
	s.sums = slices.Grow(s.sums[:0], to-from)[:to-from]
	t.outputs = s.tiles[from].outputs
	dy = dy[s.tiles[from].out*c.y.channel:]
	rows := max(1, weightBytes/(t.outputs*c.y.row*4))
	bands := ceil(c.rows.Out, rows)
	for b := range bands {
		row, rows := part(c.rows.Out, bands, b)
		t.band(row, rows, c)
		for i := range s.sums {
			t.run(&s.sums[i], &dy[row*c.y.row], &x[s.tiles[from+i].in*c.x.channel])
		}
	}
	for i := range s.sums {
		s.sums[i].halve(&s.totals[from+i], t.outputs)
	}
}

// band restricts t to some output rows. What comes before them is in the sums already.
func (t *gradient3x3) band(row, rows int, c *Conv) {
	plan := &c.weights.small
	t.rows, t.rowTaps = rows, plan.rowTaps[row:]
	t.xStart = plan.xStart + row*c.rows.Stride*c.x.row
	t.resume = min(row, 1)
}

// scatter writes the totals of the tile to their places in dw.
func (i tile3x3) scatter(c *Conv, dw []float32, totals *gradient3x3Totals) {
	for o := range i.outputs {
		copy(dw[((i.out+o)*c.inputs+i.place)*9:][:9], totals[9*o:])
	}
}
