package kernel

import (
	"fmt"
	"runtime"
	"slices"
)

const (
	winogradFrequencies = 16 // of a transformed tile
	winogradChannels    = 8  // whose transforms go from tile to tile, so that what neighbours share is in the first cache
)

// Winograd is a [Conv] of 3x3 taps, stride 1 and one group by the algorithm F(2x2, 3x3) of Lavin and Gray ("Fast
// Algorithms for Convolutional Neural Networks", 2016), which takes 16 multiplications where the sum of taps takes 36.
// Each tile of 2x2 outputs is
//
//	Y = Aᵀ [ Σ_c (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A
//
// for its 4x4 inputs d_c, of which those outside the image are +0, and the taps g_c of channel c. Shapes are those of
// Conv: activations [blocks][channels][height][width][16], weights [outputs][inputs][3][3].
//
// Every path gives the same bits for any number of threads. Additions are rounded one by one: vertical before
// horizontal for G, horizontal before vertical for B, vertical before horizontal for A, each as
//
//	Bᵀ d = (d0-d2, d1+d2, d2-d1, d1-d3)
//	G g  = (g0, ((g0+g2)+g1)/2, ((g0+g2)-g1)/2, g2)
//	Aᵀ m = ((m0+m1)+m2, (m1-m2)-m3)
//
// and the sum over c starts at +0 and is fused, in the order of channels. They are not the bits of Conv, and an infinity
// or NaN spreads over its tile. On random data the largest error against a sum in float64 is 2e-7, 4e-7, 6e-7 and 9e-7
// of the largest output for 16, 64, 256 and 512 input channels, where Conv, whose sums are nine times as long, has
// 4e-7, 5e-7, 1.4e-6 and 2.5e-6; tests hold it to about twice that.
//
// Make one with [NewWinograd]; it holds no data and may be used by several goroutines.
type Winograd struct {
	forward, inverse winogradPass
	sizes            [3]int // of x, y and w in floats
}

// NewWinograd plans a convolution of blocks of images with in channels to out channels over rows and columns. It says
// false where the algorithm does not apply: kernels other than 3, strides other than 1 and more than two positions of
// padding before the image.
func NewWinograd(blocks, in, out int, rows, columns Axis) (*Winograd, bool) {
	for _, a := range []Axis{rows, columns} {
		if a.Kernel != 3 || a.Stride != 1 || a.Before < 0 || a.Before > 2 || a.In < 1 || a.Out < 1 {
			return nil, false
		}
	}
	if blocks < 1 || in < 1 || out < 1 {
		return nil, false
	}
	x, y := blockView(in, rows.In, columns.In), blockView(out, rows.Out, columns.Out)
	return &Winograd{
		forward: winogradPass{blocks: blocks, in: in, out: out, rows: rows, columns: columns, x: x, y: y,
			wInput: 9, wOutput: in * 9},
		inverse: winogradPass{blocks: blocks, in: out, out: in, rows: rows.transposed(), columns: columns.transposed(),
			x: y, y: x, wInput: in * 9, wOutput: 9, rotated: true},
		sizes: [3]int{blocks * x.block, blocks * y.block, out * in * 9},
	}, true
}

// WinogradPays says whether [Winograd] is worth taking for in and out channels. Measured on one AVX-512 core on square
// layers of four blocks and more, forward and input gradient take as long as those of [Conv] at 16 channels and are 1.2
// to 1.6 times as fast at 32 to 512; below, the transforms cost what the products save.
func WinogradPays(in, out int) bool { return min(in, out) >= 32 }

// transposed is the axis along which the input gradient of a convolution of 3 taps and stride 1 is one itself, with its
// taps in reverse.
func (a Axis) transposed() Axis {
	return Axis{In: a.Out, Out: a.In, Kernel: a.Kernel, Stride: a.Stride, Before: a.Kernel - 1 - a.Before}
}

// check panics where a slice is shorter than the plan: assembly does not look.
func (w *Winograd) check(name string, operands ...[]float32) {
	for i, v := range operands {
		if len(v) < w.sizes[i] {
			panic(fmt.Sprintf("kernel: Winograd.%s: the slice of the shape of %c has %d floats, want %d", name, "xyw"[i], len(v), w.sizes[i]))
		}
	}
}

// Forward computes y from x and weights. Scale and bias have a value per output channel; nil leaves the step out.
func (w *Winograd) Forward(y, x, weights, scale, bias []float32) {
	w.check("Forward", x, y, weights)
	w.forward.run(y, x, weights, scale, bias)
}

// InputGradient computes dx = ∂L/∂x from dy = ∂L/∂y (before scale and bias) and weights.
func (w *Winograd) InputGradient(dx, dy, weights []float32) {
	w.check("InputGradient", dx, dy, weights)
	w.inverse.run(dx, dy, weights, nil, nil)
}

// winogradPass is the convolution of one direction.
type winogradPass struct {
	blocks, in, out int
	rows, columns   Axis
	x, y            view
	wInput, wOutput int // distances in the weights from one channel to the next
	rotated         bool
}

// winogradScratch is what a pass works in, kept for reuse.
type winogradScratch struct {
	weights []float32 // transformed: [frequency][outputs of a register tile behind one another][inputs][outputs of it]
	inputs  []float32 // transformed: [frequency][channels][tiles of a panel][Lanes]
	sums    []float32 // of the same shape
	product tile
	input   winogradInput
	output  winogradOutput
}

var winogradScratches stock[winogradScratch]

// run computes all tiles of all blocks.
func (p *winogradPass) run(y, x, w, scale, bias []float32) {
	s := winogradScratches.get()
	defer winogradScratches.put(s)
	s.weights = slices.Grow(s.weights[:0], p.transformed())[:p.transformed()]
	p.transformWeights(s.weights, w)
	panels := ceil(p.tiles(), tilePixels)
	shares := p.shares(panels)
	Parallel(p.blocks*shares, func(task int) {
		from, count := part(panels, shares, task%shares)
		p.panels(y, x, s.weights, scale, bias, task/shares, from, count)
	})
}

// panels computes tiles of a block in panels as wide as a register tile. What a panel's steps hand on stays in the second
// cache.
func (p *winogradPass) panels(y, x, u, scale, bias []float32, block, from, count int) {
	t := winogradScratches.get()
	defer winogradScratches.put(t)
	panels := ceil(p.tiles(), tilePixels)
	for panel := from; panel < from+count; panel++ {
		first, tiles := part(p.tiles(), panels, panel)
		j := winogradPanel{winogradPass: p, scratch: t, block: block, first: first, tiles: tiles}
		j.transform(x)
		j.multiply(u)
		j.finish(y, scale, bias)
	}
}

// transformed is the size of the transformed weights.
func (p *winogradPass) transformed() int { return winogradFrequencies * p.frequency() }

// WinogradBlock does what [Winograd] does for a single block, on the calling thread, with weights that have been
// transformed before: for tasks that take in a block each.
type WinogradBlock struct{ plan *Winograd }

// Block returns the plan's part for one block.
func (w *Winograd) Block() *WinogradBlock { return &WinogradBlock{w} }

// WeightsLen is the number of floats of transformed weights.
func (b *WinogradBlock) WeightsLen() int {
	return max(b.plan.forward.transformed(), b.plan.inverse.transformed())
}

// ForwardWeights transforms weights for Forward into u, on all threads.
func (b *WinogradBlock) ForwardWeights(u, weights []float32) {
	b.transform(&b.plan.forward, u, weights)
}

// GradientWeights transforms weights for InputGradient into u, on all threads.
func (b *WinogradBlock) GradientWeights(u, weights []float32) {
	b.transform(&b.plan.inverse, u, weights)
}

func (b *WinogradBlock) transform(p *winogradPass, u, weights []float32) {
	if len(u) < p.transformed() || len(weights) < b.plan.sizes[2] {
		panic(fmt.Sprintf("kernel: WinogradBlock: %d floats for the transform of %d weights, want %d and %d", len(u), len(weights), p.transformed(), b.plan.sizes[2]))
	}
	p.transformWeights(u, weights)
}

// Forward is [Winograd.Forward] for the block x.
func (b *WinogradBlock) Forward(y, x, u, scale, bias []float32) {
	b.run("Forward", &b.plan.forward, y, x, u, scale, bias)
}

// InputGradient is [Winograd.InputGradient] for the block dy.
func (b *WinogradBlock) InputGradient(dx, dy, u []float32) {
	b.run("InputGradient", &b.plan.inverse, dx, dy, u, nil, nil)
}

func (b *WinogradBlock) run(name string, p *winogradPass, y, x, u, scale, bias []float32) {
	if len(x) < p.x.block || len(y) < p.y.block || len(u) < p.transformed() {
		panic(fmt.Sprintf("kernel: WinogradBlock.%s: %d and %d floats and %d of weights, want %d, %d and %d",
			name, len(x), len(y), len(u), p.x.block, p.y.block, p.transformed()))
	}
	p.panels(y, x, u, scale, bias, 0, 0, ceil(p.tiles(), tilePixels))
}

func (p *winogradPass) tiles() int { return ceil(p.rows.Out, 2) * ceil(p.columns.Out, 2) }

// shares is into how many tasks the panels of a block are split, so that every thread has something to do.
func (p *winogradPass) shares(panels int) int {
	want := runtime.GOMAXPROCS(0)
	if p.blocks%want == 0 {
		return 1
	}
	return min(ceil(4*want, p.blocks), panels)
}

// frequency is the distance between frequencies of transformed weights. It is no power of two, since at one of them all
// sixteen would fall on the same place of a cache.
func (p *winogradPass) frequency() int { return p.in*p.out + Lanes }

// transformWeights computes u = G w Gᵀ, in the order in which register tiles read it.
func (p *winogradPass) transformWeights(u, w []float32) {
	pieces := ceil(p.out, tileOutputs)
	Parallel(pieces, func(piece int) {
		out, outputs := part(p.out, pieces, piece)
		at := out * p.in
		for c := range p.in {
			for o := range outputs {
				g := (*[9]float32)(w[c*p.wInput+(out+o)*p.wOutput:])
				if p.rotated {
					g = &[9]float32{g[8], g[7], g[6], g[5], g[4], g[3], g[2], g[1], g[0]}
				}
				transformKernel(u[at:], p.frequency(), g)
				at++
			}
		}
	})
}

// transformKernel writes the frequencies of one kernel to u, step apart, vertical ones innermost.
func transformKernel(u []float32, step int, g *[9]float32) {
	a0, a1, a2, a3 := winogradKernel(g[0], g[3], g[6])
	b0, b1, b2, b3 := winogradKernel(g[1], g[4], g[7])
	c0, c1, c2, c3 := winogradKernel(g[2], g[5], g[8])
	u = u[:15*step+1]
	u[0*step], u[4*step], u[8*step], u[12*step] = winogradKernel(a0, b0, c0)
	u[1*step], u[5*step], u[9*step], u[13*step] = winogradKernel(a1, b1, c1)
	u[2*step], u[6*step], u[10*step], u[14*step] = winogradKernel(a2, b2, c2)
	u[3*step], u[7*step], u[11*step], u[15*step] = winogradKernel(a3, b3, c3)
}

// winogradKernel is G g. Halves are converted, so that no compiler fuses them into the next addition.
func winogradKernel(g0, g1, g2 float32) (u0, u1, u2, u3 float32) {
	sum := g0 + g2
	return g0, float32((sum + g1) * 0.5), float32((sum - g1) * 0.5), g2
}

// winogradPanel is a run of tiles of one block.
type winogradPanel struct {
	*winogradPass
	scratch             *winogradScratch
	block, first, tiles int
}

// distance is that in the scratch from one frequency of channels to the next, as odd as that of the weights.
func (j *winogradPanel) distance(channels int) int { return (channels*j.tiles + 1) * Lanes }

// eachTile calls do with the tiles' numbers in the panel and their first outputs, some channels at a time.
func (j *winogradPanel) eachTile(channels int, do func(channel, channels, tile, row, column int)) {
	across := ceil(j.columns.Out, 2)
	for c := 0; c < channels; c += winogradChannels {
		for i := range j.tiles {
			at := j.first + i
			do(c, min(winogradChannels, channels-c), i, at/across*2, at%across*2)
		}
	}
}

// transform computes Bᵀ d B of every channel.
func (j *winogradPanel) transform(x []float32) {
	s, f := j.scratch, j.distance(j.in)
	s.inputs = slices.Grow(s.inputs[:0], winogradFrequencies*f)[:winogradFrequencies*f]
	t := &s.input
	t.xChannel, t.vChannel, t.vFrequency = j.x.channel, j.tiles*Lanes, f
	j.eachTile(j.in, func(c, channels, i, row, column int) {
		t.channels = channels
		t.aim(j.winogradPass, j.block*j.x.block+c*j.x.channel, row, column)
		t.run(s.inputs[(c*j.tiles+i)*Lanes:], x)
	})
}

// multiply adds up the products of every frequency over input channels.
func (j *winogradPanel) multiply(u []float32) {
	s, vf, mf := j.scratch, j.distance(j.in), j.distance(j.out)
	s.sums = slices.Grow(s.sums[:0], winogradFrequencies*mf)[:winogradFrequencies*mf]
	s.product = tile{channels: 1, rows: 1, columns: j.in, xColumn: j.tiles * Lanes,
		pixels: j.tiles, xPixel: Lanes, yPixel: Lanes, yOutput: j.tiles * Lanes, wOutput: 1}
	pieces := ceil(j.out, tileOutputs)
	for f := range winogradFrequencies {
		for k := range pieces {
			out, outputs := part(j.out, pieces, k)
			s.product.outputs, s.product.wColumn = outputs, outputs
			s.product.run(s.sums, f*mf+out*j.tiles*Lanes, s.inputs, f*vf, u, f*j.winogradPass.frequency()+out*j.in)
		}
	}
}

// finish computes Aᵀ m A of every output channel, its scale and bias.
func (j *winogradPanel) finish(y, scale, bias []float32) {
	s, f := j.scratch, j.distance(j.out)
	t := &s.output
	*t = winogradOutput{mOutput: j.tiles * Lanes, mFrequency: f, yOutput: j.y.channel, yRow: j.y.row}
	j.eachTile(j.out, func(o, outputs, i, row, column int) {
		t.outputs, t.scale, t.bias = outputs, channels(scale, o, outputs), channels(bias, o, outputs)
		t.rows, t.columns = min(2, j.rows.Out-row), min(2, j.columns.Out-column)
		t.run(y[j.block*j.y.block+o*j.y.channel+row*j.y.row+column*j.y.column:], s.sums[(o*j.tiles+i)*Lanes:])
	})
	t.scale, t.bias = nil, nil
}

// winogradInput is the transform of the inputs of one tile. Distances are in floats. Assembly reads it field by field.
type winogradInput struct {
	channels, xChannel   int
	row                  [4]int    // places in x of the rows' first column inside the image; -1 for a row outside
	column               [4]int    // distances from there to the columns; 0 for a column outside
	mask                 [4]uint32 // of the columns: all ones; 0 outside
	edge                 int       // 1 where a column lies outside
	vChannel, vFrequency int
}

// winogradZeros is a row outside the image.
var winogradZeros [4 * Lanes]float32

// aim sets the places of the 4x4 inputs of the tile whose first output is at row and column; the channel begins at base.
func (t *winogradInput) aim(p *winogradPass, base, row, column int) {
	row, column = row-p.rows.Before, column-p.columns.Before
	first := min(max(column, 0), p.columns.In-1)
	t.edge = 0
	for i := range 4 {
		t.row[i] = -1
		if r := row + i; r >= 0 && r < p.rows.In {
			t.row[i] = base + r*p.x.row + first*p.x.column
		}
		t.column[i], t.mask[i] = 0, 0
		if c := column + i; c >= 0 && c < p.columns.In {
			t.column[i], t.mask[i] = (c-first)*p.x.column, ^uint32(0)
		} else {
			t.edge = 1
		}
	}
}

// run transforms all channels into v.
func (t *winogradInput) run(v, x []float32) {
	if t.simd(&v[0], &x[0], &winogradZeros[0]) {
		return
	}
	for c := range t.channels {
		for l := range Lanes {
			t.portable(v[c*t.vChannel+l:], x, c*t.xChannel+l)
		}
	}
}

// portable transforms one lane of one channel, at places offset in x by at.
func (t *winogradInput) portable(v, x []float32, at int) {
	var d [4][4]float32 // by column
	for i, row := range t.row {
		var r [4]float32
		for j, column := range t.column {
			if row >= 0 && t.mask[j] != 0 {
				r[j] = x[row+column+at]
			}
		}
		d[0][i], d[1][i], d[2][i], d[3][i] = winogradDifferences(r)
	}
	for j := range d {
		u := v[4*j*t.vFrequency:]
		u[0], u[t.vFrequency], u[2*t.vFrequency], u[3*t.vFrequency] = winogradDifferences(d[j])
	}
}

// winogradDifferences is Bᵀ d.
func winogradDifferences(d [4]float32) (v0, v1, v2, v3 float32) {
	return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]
}

// winogradOutput is the transform to the outputs of one tile. Distances are in floats. Assembly reads it field by field.
type winogradOutput struct {
	outputs, mOutput, mFrequency int
	yOutput, yRow                int
	rows, columns                int       // 1 or 2, that part of the tile that lies in the image
	scale, bias                  []float32 // of the outputs; nil leaves the step out
}

// run transforms all outputs from m into y.
func (t *winogradOutput) run(y, m []float32) {
	if t.simd(&y[0], &m[0]) {
		return
	}
	for o := range t.outputs {
		for l := range Lanes {
			t.portable(y[o*t.yOutput+l:], m[o*t.mOutput+l:], o)
		}
	}
}

// portable computes one lane of output o.
func (t *winogradOutput) portable(y, m []float32, o int) {
	var u [2][4]float32
	for j := range 4 {
		v := m[4*j*t.mFrequency:]
		u[0][j], u[1][j] = winogradSums([4]float32{v[0], v[t.mFrequency], v[2*t.mFrequency], v[3*t.mFrequency]})
	}
	for i := range t.rows {
		var v [2]float32
		v[0], v[1] = winogradSums(u[i])
		for j := range t.columns {
			y[i*t.yRow+j*Lanes] = t.affine(v[j], o)
		}
	}
}

// winogradSums is Aᵀ m.
func winogradSums(m [4]float32) (y0, y1 float32) {
	return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
}

func (t *winogradOutput) affine(v float32, o int) float32 {
	if t.scale != nil {
		v = float32(v * t.scale[o])
	}
	if t.bias != nil {
		v += t.bias[o]
	}
	return v
}
