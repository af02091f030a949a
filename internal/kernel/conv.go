package kernel

import (
	"fmt"
	"runtime"
)

// Conv is a two-dimensional convolution (cross-correlation, as in every framework) over blocks:
//
//	y[n,o,i,j] = scale[o] · Σ_{c,k,l} x[n,c,i·stride-before+k,j·stride-before+l] · w[o,c,k,l] + bias[o]
//
// Make one with [NewConv] or [NewLinear]; it holds no data and may be used by several goroutines.
type Conv struct {
	blocks, groups   int
	inputs, outputs  int // channels of one group
	rows, columns    Axis
	x, y             view
	sizes            [3]int // of x, y and w in floats
	forward, inverse [2]walk
	planes           [2][]depthwisePhase // of Forward and InputGradient where the convolution is depthwise
	weights          weightPlan
	inTask           bool // is part of a task: runs on the calling thread, and on those that have nothing else to do
}

// view holds the distances, in floats, from one block, channel, row and column of a tensor to the next.
type view struct{ block, channel, row, column int }

// NewConv plans a convolution of blocks of images with in channels to out channels, split into groups, over rows and
// columns.
func NewConv(blocks, in, out, groups int, rows, columns Axis) *Conv {
	c := &Conv{blocks: blocks, groups: groups, inputs: in / groups, outputs: out / groups, rows: rows, columns: columns,
		x: blockView(in, rows.In, columns.In), y: blockView(out, rows.Out, columns.Out)}
	c.plan()
	return c
}

// NewLinear plans a linear layer from in to out features: a convolution over one image, a row of which each column
// is a block, so that register tiles and lane sums stretch over blocks.
func NewLinear(blocks, in, out int) *Conv {
	one := Axis{In: 1, Out: 1, Kernel: 1, Stride: 1}
	columns := Axis{In: blocks, Out: blocks, Kernel: 1, Stride: 1}
	c := &Conv{blocks: 1, groups: 1, inputs: in, outputs: out, rows: one, columns: columns,
		x: view{block: blocks * in * Lanes, channel: Lanes, column: in * Lanes},
		y: view{block: blocks * out * Lanes, channel: Lanes, column: out * Lanes}}
	c.plan()
	return c
}

// Block returns the plan of a single block for tasks that take in a block each. It runs on the calling thread, and on those
// that wait for the last such tasks.
func (c *Conv) Block() *Conv {
	one := *c
	one.blocks, one.inTask = 1, true
	one.plan()
	return &one
}

func blockView(channels, height, width int) view {
	return view{channels * height * width * Lanes, height * width * Lanes, width * Lanes, Lanes}
}

func (c *Conv) plan() {
	c.sizes = [3]int{c.blocks * c.x.block, c.blocks * c.y.block, c.groups * c.outputs * c.inputs * c.kernel()}
	c.weights = c.weightPlan()
	c.forward = [2]walk{c.rows.forward(), c.columns.forward()}
	c.inverse = [2]walk{c.rows.backward(), c.columns.backward()}
	c.planes[0] = c.depthwisePlan(c.rows.forwardPhases(), c.columns.forwardPhases(), c.x, c.y)
	c.planes[1] = c.depthwisePlan(c.rows.backwardPhases(), c.columns.backwardPhases(), c.y, c.x)
}

func (c *Conv) kernel() int { return c.rows.Kernel * c.columns.Kernel }

// check panics where a slice is shorter than the plan: assembly does not look.
func (c *Conv) check(name string, x, y, w []float32) {
	for i, v := range [][]float32{x, y, w} {
		if len(v) < c.sizes[i] {
			panic(fmt.Sprintf("kernel: Conv.%s: the slice of the shape of %c has %d floats, want %d", name, "xyw"[i], len(v), c.sizes[i]))
		}
	}
}

// Forward computes y from x and w. Scale and bias have a value per output channel; nil leaves the step out.
func (c *Conv) Forward(y, x, w, scale, bias []float32) {
	c.check("Forward", x, y, w)
	if c.planes[0] != nil && live != portable {
		c.depthwise(c.planes[0], y, x, w, scale, bias, c.x, c.y)
		return
	}
	kernel := c.kernel()
	t := tile{channels: c.inputs, xChannel: c.x.channel, wChannel: kernel, wOutput: c.inputs * kernel, yOutput: c.y.channel}
	t.aim(&c.forward, c.x, c.columns.Kernel)
	shares := c.shares(c.outputs)
	c.parallel(c.blocks*c.groups*shares, func(task int) {
		n, g := task/(c.groups*shares), task/shares%c.groups
		o, outputs := part(c.outputs, shares, task%shares)
		out := g*c.outputs + o
		p := product{tile: t, walks: &c.forward, source: c.x, target: c.y, kernelColumns: c.columns.Kernel, x: x, y: y, w: w}
		p.outputs, p.scale, p.bias = outputs, channels(scale, out, outputs), channels(bias, out, outputs)
		p.xBase = n*c.x.block + g*c.inputs*c.x.channel
		p.yBase = n*c.y.block + out*c.y.channel
		p.wBase = out * t.wOutput
		p.run()
	})
}

// channels is the part of a value per channel that a tile uses.
func channels(v []float32, from, n int) []float32 {
	if v == nil {
		return nil
	}
	return v[from:][:n]
}

// InputGradient computes dx = ∂L/∂x from dy = ∂L/∂y (before scale and bias) and w.
func (c *Conv) InputGradient(dx, dy, w []float32) {
	c.check("InputGradient", dx, dy, w)
	if c.planes[1] != nil && live != portable {
		c.depthwise(c.planes[1], dx, dy, w, nil, nil, c.y, c.x)
		return
	}
	kernel := c.kernel()
	t := tile{channels: c.outputs, xChannel: c.y.channel, wChannel: c.inputs * kernel, wOutput: kernel, yOutput: c.x.channel}
	t.aim(&c.inverse, c.y, c.columns.Kernel)
	shares := c.shares(c.inputs)
	c.parallel(c.blocks*c.groups*shares, func(task int) {
		n, g := task/(c.groups*shares), task/shares%c.groups
		in, inputs := part(c.inputs, shares, task%shares)
		p := product{tile: t, walks: &c.inverse, source: c.y, target: c.x, kernelColumns: c.columns.Kernel, x: dy, y: dx, w: w}
		p.outputs = inputs
		p.xBase = n*c.y.block + g*c.outputs*c.y.channel
		p.yBase = n*c.x.block + (g*c.inputs+in)*c.x.channel
		p.wBase = (g*c.outputs*c.inputs + in) * kernel
		p.run()
	})
}

// shares is into how many tasks the channels of a group of one block are split: whole blocks make the best use of the
// caches, but every thread needs something to do.
func (c *Conv) shares(channels int) int {
	tasks, want := c.blocks*c.groups, runtime.GOMAXPROCS(0)
	switch {
	case c.inTask:
		return min(1+Waiting(), ceil(channels, tileOutputs))
	case tasks%want == 0:
		return 1
	}
	return min(ceil(4*want, tasks), ceil(channels, tileOutputs))
}

// weightTasks is into how many tasks tiles of WeightGradient are split: few, since the tiles of a task share what they read.
func (c *Conv) weightTasks(tiles int) int {
	if c.inTask {
		return min(tiles, 1+Waiting())
	}
	return min(tiles, 4*runtime.GOMAXPROCS(0))
}

// parallel is Parallel, or Share for a plan that is part of a task.
func (c *Conv) parallel(tasks int, do func(task int)) {
	if c.inTask {
		Share(tasks, do)
		return
	}
	Parallel(tasks, do)
}

// product is one task of Forward or InputGradient: output channels of one block.
type product struct {
	outputs             int
	scale, bias         []float32 // of the outputs; nil leaves the step out
	tile                tile
	walks               *[2]walk
	source, target      view
	kernelColumns       int
	x, y, w             []float32
	xBase, yBase, wBase int
}

// line is a way to go over a rectangle of targets that take the same taps: count lines of pixels targets. Distances are
// in floats.
type line struct{ count, x, y, pixels, xPixel, yPixel int }

// run computes the targets of every pair of spans.
func (p *product) run() {
	rows, columns := &p.walks[0], &p.walks[1]
	xDown, yDown := rows.sourcePixel*p.source.row, rows.targetStep*p.target.row
	xAcross, yAcross := columns.sourcePixel*p.source.column, columns.targetStep*p.target.column
	for _, r := range rows.spans {
		for _, s := range columns.spans {
			p.tile.rows, p.tile.columns = r.taps, s.taps
			across := line{r.pixels, xDown, yDown, s.pixels, xAcross, yAcross}
			down := line{s.pixels, xAcross, yAcross, r.pixels, xDown, yDown}
			x := p.xBase + r.source*p.source.row + s.source*p.source.column
			y := p.yBase + r.target*p.target.row + s.target*p.target.column
			w := p.wBase + r.tap*p.kernelColumns + s.tap
			if down.tiles() < across.tiles() {
				across = down
			}
			p.rectangle(across, y, x, w)
		}
	}
}

// tiles is the number of register tiles that the lines take.
func (l *line) tiles() int { return l.count * ceil(l.pixels, tilePixels) }

// rectangle computes the targets of one pair of spans, line by line in tiles of nearly equal size. All outputs of a place
// come one after the other, so that what they read of the source is in the first cache.
func (p *product) rectangle(l line, y, x, w int) {
	t := &p.tile
	t.xPixel, t.yPixel = l.xPixel, l.yPixel
	pieces, tiles, calls := ceil(l.pixels, tilePixels), ceil(p.outputs, tileOutputs), 1
	if p.outputs%tiles != 0 { // tiles of different sizes
		calls = tiles
	}
	for i := range l.count {
		for j := range pieces {
			from, pixels := part(l.pixels, pieces, j)
			t.pixels = pixels
			yAt, xAt := y+i*l.y+from*l.yPixel, x+i*l.x+from*l.xPixel
			for k := range calls {
				out, outputs := part(p.outputs, calls, k)
				t.outputs, t.more = outputs*calls/tiles, tiles/calls-1
				t.scale, t.bias = channels(p.scale, out, outputs), channels(p.bias, out, outputs)
				t.run(p.y, yAt+out*t.yOutput, p.x, xAt, p.w, w+out*t.wOutput)
			}
		}
	}
}

func ceil(a, b int) int { return (a + b - 1) / b }

// part is the first element and the number of elements of part i when n elements are split into count parts of nearly
// equal size.
func part(n, count, i int) (from, size int) {
	from = n * i / count
	return from, n*(i+1)/count - from
}
