package kernel

// PanelSamples is how many samples a [Panel] holds. Products of two unsigned bytes, summed over a panel, stay below 2^24,
// so that sums over integers of a byte are exact.
const PanelSamples = 256

// panelGroup is how many numbers of a sample lie side by side in a panel: as many as a register tile takes.
const panelGroup = tilePixels * Lanes

// Panel is a matrix of samples, a row each: what a layer takes in to compute one of its outputs, above all. It is filled
// sample by sample and handed to [Moments].
type Panel struct {
	width, samples int
	side           int       // numbers of a sample in a group: panelGroup, or as many vectors as the only one needs
	data           []float32 // [⌈width/panelGroup⌉][PanelSamples][side], padded with zeros
}

// NewPanel makes an empty panel for samples of width numbers.
func NewPanel(width int) *Panel {
	side := min(panelGroup, ceil(width, Lanes)*Lanes)
	return &Panel{width: width, side: side, data: make([]float32, ceil(width, panelGroup)*PanelSamples*side)}
}

// Samples is the number of samples in the panel.
func (p *Panel) Samples() int { return p.samples }

// Full says whether the panel has no room for another sixteen samples.
func (p *Panel) Full() bool { return p.samples+Lanes > PanelSamples }

// Reset empties the panel.
func (p *Panel) Reset() { p.samples = 0 }

// At returns number i of a sample.
func (p *Panel) At(sample, i int) float32 { return p.data[p.place(sample, i)] }

func (p *Panel) place(sample, i int) int {
	return (i/panelGroup*PanelSamples+sample)*p.side + i%panelGroup
}

// group returns the numbers of group i.
func (p *Panel) group(i int) []float32 { return p.data[i*PanelSamples*p.side:][:PanelSamples*p.side] }

// columns are the columns of group i of the panel.
func (p *Panel) columns(i int) int { return min(panelGroup, p.width-i*panelGroup) }

// set stores number i of n new samples, times scale; v holds sixteen lanes, or is nil for zeros.
func (p *Panel) set(i int, v []float32, n int, scale float32) {
	at := p.place(p.samples, i)
	for lane := range n {
		value := float32(0)
		if v != nil {
			value = v[lane] * scale
		}
		p.data[at+lane*p.side] = value
	}
}

// Patch adds to the panel, which must not be full, what the outputs of one place of a group take in, [inputs of a
// group][rows][columns] as the weights lie, times scale: a sample from each of the first lanes. x is one block and c its
// plan, see [Conv.Block]. Taps outside the input are zeros.
func (c *Conv) Patch(p *Panel, x []float32, group, row, column, lanes int, scale float32) {
	if p.Full() || p.width != c.PatchWidth() {
		panic("kernel: Conv.Patch: the panel is full, or of another width")
	}
	top, left, i := row*c.rows.Stride-c.rows.Before, column*c.columns.Stride-c.columns.Before, 0
	for channel := group * c.inputs; channel < (group+1)*c.inputs; channel++ {
		for k := top; k < top+c.rows.Kernel; k++ {
			for l := left; l < left+c.columns.Kernel; l++ {
				var v []float32
				if k >= 0 && k < c.rows.In && l >= 0 && l < c.columns.In {
					v = x[channel*c.x.channel+k*c.x.row+l*c.x.column:][:Lanes]
				}
				p.set(i, v, lanes, scale)
				i++
			}
		}
	}
	p.samples += lanes
}

// PatchWidth is the width of the panels that [Conv.Patch] fills.
func (c *Conv) PatchWidth() int { return c.inputs * c.kernel() }

// Groups is the number of groups of channels, each with patches of its own.
func (c *Conv) Groups() int { return c.groups }

// Responder computes what weights [outputs][width] make of samples.
type Responder struct {
	outputs, width int
	transposed     []float32 // [width, padded to whole groups][outputs, padded to whole vectors]
}

// NewResponder prepares weights.
func NewResponder(w []float32, outputs, width int) *Responder {
	r := &Responder{outputs: outputs, width: width}
	r.transposed = make([]float32, ceil(width, panelGroup)*panelGroup*r.row())
	for o := range outputs {
		for i, v := range w[o*width:][:width] {
			r.transposed[i*r.row()+o] = v
		}
	}
	return r
}

// row is the length of a row of the transposed weights.
func (r *Responder) row() int { return ceil(r.outputs, Lanes) * Lanes }

// Respond fills panel y, of the width outputs, with the responses to the samples of x. Products are fused in float32, in
// the order of the weights.
func (r *Responder) Respond(y, x *Panel) {
	y.samples = x.samples
	pieces := ceil(x.samples, tileOutputs)
	Parallel(pieces, func(i int) {
		from, n := part(x.samples, pieces, i)
		for group := range ceil(r.outputs, panelGroup) {
			r.tile(y, x, from, n, group)
		}
	})
}

// tile computes a group of outputs of n samples.
func (r *Responder) tile(y, x *Panel, from, n, group int) {
	t := tile{channels: ceil(r.width, panelGroup), rows: 1, columns: x.side,
		xChannel: x.side * r.row(), xColumn: r.row(), wChannel: PanelSamples * x.side, wColumn: 1,
		pixels: ceil(y.columns(group), Lanes), xPixel: Lanes, yPixel: Lanes, outputs: n, wOutput: x.side, yOutput: y.side}
	t.run(y.group(group), from*y.side, r.transposed, group*panelGroup, x.data, from*x.side)
}

// Moments are sums of products over samples, Σ p·qᵀ for samples p and q taken at the same time; of one panel alone the
// Gram matrix. In each panel, products are fused in float32 in the order of samples; panels add up in float64, in the
// order in which they come. The layout of panels and the number of threads do not matter.
type Moments struct {
	Rows, Columns int
	Sums          []float64 // [Rows][Columns]
	Samples       int
}

// NewMoments makes moments of nothing between samples of two widths.
func NewMoments(rows, columns int) *Moments {
	return &Moments{Rows: rows, Columns: columns, Sums: make([]float64, rows*columns)}
}

// Add adds the samples of two panels, which have as many. Where the two are one, only blocks on and above the diagonal
// are computed: [Moments.Mirror] comes before anyone looks.
func (m *Moments) Add(p, q *Panel) {
	rows, columns := ceil(m.Rows, panelGroup), ceil(m.Columns, panelGroup)
	Parallel(rows*columns, func(task int) {
		row, column := task/columns, task%columns
		if p == q && column < row {
			return
		}
		m.block(p, q, row, column)
	})
	m.Samples += p.samples
}

// block adds the products of a group of p's columns and one of q's, in register tiles.
func (m *Moments) block(p, q *Panel, row, column int) {
	rows, columns := p.columns(row), q.columns(column)
	x, w := q.group(column), p.group(row)
	var sums [tileOutputs * panelGroup]float32
	t := tile{channels: p.samples, rows: 1, columns: 1, xChannel: q.side, wChannel: p.side,
		pixels: ceil(columns, Lanes), xPixel: Lanes, yPixel: Lanes, wOutput: 1, yOutput: panelGroup}
	for from := 0; from < rows; from += tileOutputs {
		t.outputs = min(tileOutputs, rows-from)
		t.run(sums[:], 0, x, 0, w, from)
		for o := range t.outputs {
			addWide(m.Sums[(row*panelGroup+from+o)*m.Columns+column*panelGroup:][:columns], sums[o*panelGroup:])
		}
	}
}

// addWide adds single numbers to double ones.
func addWide(sum []float64, x []float32) {
	x = x[:len(sum)]
	for i, v := range x {
		sum[i] += float64(v)
	}
}

// Mirror completes a Gram matrix below its diagonal.
func (m *Moments) Mirror() {
	for r := range m.Rows {
		for c := range r {
			m.Sums[r*m.Columns+c] = m.Sums[c*m.Columns+r]
		}
	}
}
