package kernel

import (
	"fmt"
	"slices"
)

// weightBytes is how much of dy and x the outer products of one band may touch, so that it stays in the first cache
// while all columns of the kernel pass over it.
const weightBytes = 32 << 10

// weightColumns is how many kernel columns keep their sums at a time.
const weightColumns = 8

// band is a run of output rows that meet the same kernel rows inside the input: tap and the taps-1 after it.
type band struct{ row, rows, tap, taps int }

// bands lists the bands of the kernel rows from tap on, taps of them, in the order of rows.
func (a Axis) bands(tap, taps, limit int) []band {
	var list []band
	for i := range a.Out {
		start := i*a.Stride - a.Before
		first, last := max(tap, -start), min(tap+taps, a.In-start)
		if last <= first {
			continue
		}
		if n := len(list); n > 0 {
			if b := &list[n-1]; b.tap == first && b.taps == last-first && b.row+b.rows == i && b.rows < limit {
				b.rows++
				continue
			}
		}
		list = append(list, band{row: i, rows: 1, tap: first, taps: last - first})
	}
	return list
}

// weightPlan is how WeightGradient splits into tasks: tiles of output channels, of input channels and of kernel rows.
type weightPlan struct {
	outputs, inputs, taps []piece     // channels of a group and kernel rows, by tile
	bands                 [][]band    // by tile of kernel rows
	columns               []span      // by kernel column: the outputs whose tap it is
	small                 gradient3x3 // for kernels of 3x3 taps
}

// piece is a run of channels or kernel rows.
type piece struct{ from, size int }

// split cuts n into pieces of nearly equal size, of at most the given one.
func split(n, most int) []piece {
	pieces := make([]piece, ceil(n, most))
	for i := range pieces {
		pieces[i].from, pieces[i].size = part(n, len(pieces), i)
	}
	return pieces
}

func (c *Conv) weightPlan() weightPlan {
	p := weightPlan{outputs: split(c.outputs, tileOutputs), taps: split(c.rows.Kernel, tileStreams)}
	channels := tileStreams / ceil(c.rows.Kernel, len(p.taps))
	p.inputs = split(c.inputs, channels)
	perRow := tileOutputs*c.columns.Out + channels*c.rows.Stride*c.columns.In
	limit := max(1, weightBytes/(perRow*Lanes*4))
	for _, taps := range p.taps {
		p.bands = append(p.bands, c.rows.bands(taps.from, taps.size, limit))
	}
	for l := range c.columns.Kernel {
		p.columns = append(p.columns, c.columns.inside(l))
	}
	if c.kernel() == 9 && c.rows.Kernel == 3 {
		p.small = c.plan3x3()
	}
	return p
}

// outputs3x3 is how many output channels a tile of weightGradient3x3 takes, 0 where the convolution is not for it.
func (c *Conv) outputs3x3() int {
	if c.weights.small.rows == 0 {
		return 0
	}
	return outputs3x3(c.outputs)
}

// weightScratch is what a task of WeightGradient works in, kept for reuse.
type weightScratch struct {
	tiles  []weightTile
	sums   [weightColumns]outerSums // of the tile at work, by kernel column
	totals []outerTotals            // by tile and kernel column
}

var weightScratches stock[weightScratch]

// WeightGradient computes dw = ∂L/∂w [outputs][inputs of a group][rows][columns] from x and dy = ∂L/∂y (before scale
// and bias).
func (c *Conv) WeightGradient(dw, x, dy []float32) {
	c.check("WeightGradient", x, dy, dw)
	if most := c.outputs3x3(); most > 0 {
		c.weightGradient3x3(dw, x, dy, most)
		return
	}
	p := &c.weights
	tiles := c.groups * len(p.outputs) * len(p.inputs) * len(p.taps)
	tasks := c.weightTasks(tiles)
	c.parallel(tasks, func(task int) {
		s := weightScratches.get()
		defer weightScratches.put(s)
		from, n := part(tiles, tasks, task)
		if c.blocks == 1 { // nothing to share
			for i := range n {
				s.run(c, dw, x, dy, from+i, 1)
			}
		} else {
			s.run(c, dw, x, dy, from, n)
		}
	})
}

// run computes n tiles block by block, so that a block is read from far memory once.
func (s *weightScratch) run(c *Conv, dw, x, dy []float32, from, n int) {
	s.tiles = slices.Grow(s.tiles[:0], n)[:n]
	for i := range s.tiles {
		s.tiles[i].aim(c, from+i)
	}
	for l := 0; l < c.columns.Kernel; l += weightColumns {
		columns := min(weightColumns, c.columns.Kernel-l)
		s.totals = slices.Grow(s.totals[:0], len(s.tiles)*columns)[:len(s.tiles)*columns]
		clear(s.totals)
		for n := range c.blocks {
			for i := range s.tiles {
				clear(s.sums[:columns])
				s.tiles[i].block(s.sums[:columns], x, dy, n, l)
				for j := range columns {
					s.sums[j].halve(&s.totals[i*columns+j])
				}
			}
		}
		for i := range s.tiles {
			s.tiles[i].scatter(dw, s.totals[i*columns:][:columns], l)
		}
	}
}

// weightTile is one tile of WeightGradient. The streams of its outer products are its input channels under the kernel
// rows of its taps, so that the rows of x that lie in the first cache serve all of them: stream (k-tap)*inputs + i is
// input channel in+i under kernel row k.
type weightTile struct {
	conv         *Conv
	bands        []band
	out, outputs int // channels
	in, inputs   int // channels; place is that of the first in its group
	place        int
	tap, taps    int // kernel rows
	product      outer
}

// aim makes t tile i of the plan.
func (t *weightTile) aim(c *Conv, i int) {
	p := &c.weights
	i, taps := i/len(p.taps), i%len(p.taps)
	i, in := i/len(p.inputs), p.inputs[i%len(p.inputs)]
	group, out := i/len(p.outputs), p.outputs[i%len(p.outputs)]
	t.conv, t.bands, t.tap, t.taps = c, p.bands[taps], p.taps[taps].from, p.taps[taps].size
	t.place, t.in, t.inputs = in.from, group*c.inputs+in.from, in.size
	t.out, t.outputs = group*c.outputs+out.from, out.size
	t.product = outer{outputs: t.outputs, dyOutput: c.y.channel, dyRow: c.y.row, dyColumn: c.y.column,
		xRow: c.rows.Stride * c.x.row, xColumn: c.columns.Stride * c.x.column}
	for k := range t.taps {
		for i := range t.inputs {
			t.product.xStream[k*t.inputs+i] = i*c.x.channel + k*c.x.row
		}
	}
}

// block adds the products of block n to sums, which are of the kernel columns from column on.
func (t *weightTile) block(sums []outerSums, x, dy []float32, n, column int) {
	c := t.conv
	for _, b := range t.bands {
		t.product.rows, t.product.streams = b.rows, b.taps*t.inputs
		dyAt := n*c.y.block + t.out*c.y.channel + b.row*c.y.row
		xAt := n*c.x.block + t.in*c.x.channel + (b.row*c.rows.Stride-c.rows.Before+b.tap)*c.x.row
		first := (b.tap - t.tap) * t.inputs * Lanes
		for l := range sums {
			s := c.weights.columns[column+l]
			t.product.columns = s.pixels
			t.product.run(sums[l][first:], dy, dyAt+s.target*c.y.column, x, xAt+s.source*c.x.column)
		}
	}
}

// scatter writes the totals of the kernel columns from column on to their places in dw.
func (t *weightTile) scatter(dw []float32, totals []outerTotals, column int) {
	c := t.conv
	kernel := c.kernel()
	for o := range t.outputs {
		at := ((t.out+o)*c.inputs+t.place)*kernel + t.tap*c.columns.Kernel + column
		if kernel == 1 {
			copy(dw[at:][:t.inputs], totals[0][o*tileStreams:])
			continue
		}
		for s, total := 0, o*tileStreams; s < t.taps*c.columns.Kernel; s += c.columns.Kernel {
			for i := range t.inputs {
				row := dw[at+i*kernel+s:][:len(totals)]
				for l := range row {
					row[l] = totals[l][total]
				}
				total++
			}
		}
	}
}

// BiasGradient computes db[o], the sum of dy over blocks, rows, columns and lanes: float32 lane sums for each block,
// halved, blocks added in order.
func (c *Conv) BiasGradient(db, dy []float32) {
	if len(dy) < c.sizes[1] {
		panic(fmt.Sprintf("kernel: Conv.BiasGradient: dy has %d floats, want %d", len(dy), c.sizes[1]))
	}
	c.parallel(c.groups*c.outputs, func(o int) {
		db[o] = 0
		for n := range c.blocks {
			var lanes [Lanes]float32
			laneSums(&lanes, dy[n*c.y.block+o*c.y.channel:], c.rows.Out*c.columns.Out, c.y.column)
			db[o] += halve(&lanes)
		}
	})
}

// laneSums adds to lanes n vectors of x, step floats apart. A row of outputs follows the one before in that step.
func laneSums(lanes *[Lanes]float32, x []float32, n, step int) {
	if n == 0 || laneSumsSIMD(lanes, x, n, step) {
		return
	}
	for i := range n {
		for l, v := range (*[Lanes]float32)(x[i*step:]) {
			lanes[l] += v
		}
	}
}
