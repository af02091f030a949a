package kernel

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
	forward, inverse [2]walk
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
		x: view{channel: Lanes, column: in * Lanes}, y: view{channel: Lanes, column: out * Lanes}}
	c.plan()
	return c
}

func blockView(channels, height, width int) view {
	return view{channels * height * width * Lanes, height * width * Lanes, width * Lanes, Lanes}
}

func (c *Conv) plan() {
	c.forward = [2]walk{c.rows.forward(), c.columns.forward()}
	c.inverse = [2]walk{c.rows.backward(), c.columns.backward()}
}

func (c *Conv) kernel() int { return c.rows.Kernel * c.columns.Kernel }

// Forward computes y from x and w. Scale and bias have a value per output channel; nil leaves the step out.
func (c *Conv) Forward(y, x, w, scale, bias []float32) {
	kernel := c.kernel()
	t := tile{channels: c.inputs, xChannel: c.x.channel, wChannel: kernel, wOutput: c.inputs * kernel, yOutput: c.y.channel}
	t.aim(&c.forward, c.x, c.y, c.columns.Kernel)
	tiles := ceil(c.outputs, tileOutputs)
	Parallel(c.blocks*c.groups*tiles, func(task int) {
		n, g, o := task/(c.groups*tiles), task/tiles%c.groups, task%tiles*tileOutputs
		out := g*c.outputs + o
		part := product{tile: t, walks: &c.forward, x: x, y: y, w: w}
		part.tile.outputs = min(tileOutputs, c.outputs-o)
		part.xBase = n*c.x.block + g*c.inputs*c.x.channel
		part.yBase = n*c.y.block + out*c.y.channel
		part.wBase = out * t.wOutput
		part.run(c.x, c.y, c.columns.Kernel)
		c.affine(y[part.yBase:], part.tile.outputs, part.from(scale, out), part.from(bias, out))
	})
}

// affine applies scale and bias to a tile of output channels.
func (c *Conv) affine(y []float32, outputs int, scale, bias []float32) {
	if scale == nil && bias == nil {
		return
	}
	for o := range outputs {
		for i := range c.rows.Out {
			for j := range c.columns.Out {
				v := (*[Lanes]float32)(y[o*c.y.channel+i*c.y.row+j*c.y.column:])
				if scale != nil {
					for l := range v {
						v[l] *= scale[o]
					}
				}
				if bias != nil {
					for l := range v {
						v[l] += bias[o]
					}
				}
			}
		}
	}
}

// InputGradient computes dx = ∂L/∂x from dy = ∂L/∂y (before scale and bias) and w.
func (c *Conv) InputGradient(dx, dy, w []float32) {
	kernel := c.kernel()
	t := tile{channels: c.outputs, xChannel: c.y.channel, wChannel: c.inputs * kernel, wOutput: kernel, yOutput: c.x.channel}
	t.aim(&c.inverse, c.y, c.x, c.columns.Kernel)
	tiles := ceil(c.inputs, tileOutputs)
	Parallel(c.blocks*c.groups*tiles, func(task int) {
		n, g, in := task/(c.groups*tiles), task/tiles%c.groups, task%tiles*tileOutputs
		part := product{tile: t, walks: &c.inverse, x: dy, y: dx, w: w}
		part.tile.outputs = min(tileOutputs, c.inputs-in)
		part.xBase = n*c.y.block + g*c.outputs*c.y.channel
		part.yBase = n*c.x.block + (g*c.inputs+in)*c.x.channel
		part.wBase = (g*c.outputs*c.inputs + in) * kernel
		part.run(c.y, c.x, c.columns.Kernel)
	})
}

// product is one task of Forward or InputGradient: a tile of output channels over one block.
type product struct {
	tile                tile
	walks               *[2]walk
	x, y, w             []float32
	xBase, yBase, wBase int
}

func (p *product) from(v []float32, i int) []float32 {
	if v == nil {
		return nil
	}
	return v[i:]
}

// run walks the targets' rows and columns and computes each span in pieces of tilePixels.
func (p *product) run(source, target view, kernelColumns int) {
	rows, columns := &p.walks[0], &p.walks[1]
	t := &p.tile
	for _, r := range rows.spans {
		t.rows = r.taps
		for i := range r.pixels {
			xRow := p.xBase + (r.source+i*rows.sourcePixel)*source.row
			yRow := p.yBase + (r.target+i*rows.targetStep)*target.row
			for _, s := range columns.spans {
				t.columns = s.taps
				x, y := xRow+s.source*source.column, yRow+s.target*target.column
				w := p.wBase + r.tap*kernelColumns + s.tap
				for j := 0; j < s.pixels; j += tilePixels {
					t.pixels = min(tilePixels, s.pixels-j)
					t.run(p.y, y+j*t.yPixel, p.x, x+j*t.xPixel, p.w, w)
				}
			}
		}
	}
}

// WeightGradient computes dw = ∂L/∂w from x and dy = ∂L/∂y (before scale and bias).
func (c *Conv) WeightGradient(dw, x, dy []float32) {
	tiles := ceil(c.outputs, tileOutputs)
	Parallel(c.groups*tiles, func(task int) {
		g, o := task/tiles, task%tiles*tileOutputs
		outputs := min(tileOutputs, c.outputs-o)
		part := dw[(g*c.outputs+o)*c.inputs*c.kernel():][:outputs*c.inputs*c.kernel()]
		clear(part)
		for n := range c.blocks {
			for in := 0; in < c.inputs; in += tileInputs {
				c.weightTile(part, x[n*c.x.block:], dy[n*c.y.block:], g*c.outputs+o, outputs, g*c.inputs+in, min(tileInputs, c.inputs-in))
			}
		}
	})
}

// weightTile adds one block's part of the gradient between outputs channels from o on and inputs channels from in on.
func (c *Conv) weightTile(dw, x, dy []float32, o, outputs, in, inputs int) {
	kernel := c.kernel()
	t := outer{outputs: outputs, inputs: inputs, dyOutput: c.y.channel, xInput: c.x.channel,
		dyRow: c.y.row, dyColumn: c.y.column, xRow: c.rows.Stride * c.x.row, xColumn: c.columns.Stride * c.x.column}
	for k := range c.rows.Kernel {
		fromRow, toRow := c.rows.inside(k)
		for l := range c.columns.Kernel {
			from, to := c.columns.inside(l)
			t.rows, t.columns = toRow-fromRow, to-from
			dyAt := o*c.y.channel + fromRow*c.y.row + from*c.y.column
			xAt := in*c.x.channel + (fromRow*c.rows.Stride-c.rows.Before+k)*c.x.row + (from*c.columns.Stride-c.columns.Before+l)*c.x.column
			if t.rows <= 0 || t.columns <= 0 {
				continue
			}
			var sums [tileOutputs * tileInputs]float32
			t.run(&sums, dy, dyAt, x, xAt)
			for i := range outputs {
				for j := range inputs {
					dw[(i*c.inputs+in%c.inputs+j)*kernel+k*c.columns.Kernel+l] += sums[i*tileInputs+j]
				}
			}
		}
	}
}

func ceil(a, b int) int { return (a + b - 1) / b }

// BiasGradient computes db[o], the sum of dy over blocks, rows, columns and lanes: float32 lane sums for each block,
// halved, blocks added in order.
func (c *Conv) BiasGradient(db, dy []float32) {
	Parallel(c.groups*c.outputs, func(o int) {
		db[o] = 0
		for n := range c.blocks {
			var lanes [Lanes]float32
			for i := range c.rows.Out {
				for j := range c.columns.Out {
					for l, v := range (*[Lanes]float32)(dy[n*c.y.block+o*c.y.channel+i*c.y.row+j*c.y.column:]) {
						lanes[l] += v
					}
				}
			}
			db[o] += halve(&lanes)
		}
	})
}
