package kernel

// Quadratic is a symmetric matrix A, in float32, that keeps products A·v of vectors up to date while a few elements of
// them change at a time. It is laid out in groups of columns, all rows of a group together, as register tiles read it.
type Quadratic struct {
	size, side int
	data       []float32 // [⌈size/panelGroup⌉][size][side], padded with zeros
}

// NewQuadratic takes in the matrix a [size][size].
func NewQuadratic(a []float64, size int) *Quadratic {
	side := min(panelGroup, ceil(size, Lanes)*Lanes)
	q := &Quadratic{size: size, side: side, data: make([]float32, ceil(size, panelGroup)*size*side)}
	Parallel(size, func(row int) {
		for g := range q.Groups() {
			from, n := q.Group(g)
			to := q.Row(g, row)
			for i, v := range a[row*size+from:][:n] {
				to[i] = float32(v)
			}
		}
	})
	return q
}

// Groups is the number of groups of columns.
func (q *Quadratic) Groups() int { return ceil(q.size, panelGroup) }

// Group is the first column of a group, and how many it has.
func (q *Quadratic) Group(g int) (from, n int) {
	return g * panelGroup, min(panelGroup, q.size-g*panelGroup)
}

// Side is how many elements a row of a group takes, padding included.
func (q *Quadratic) Side() int { return q.side }

// Row returns the elements of a row in a group of columns, padded with zeros.
func (q *Quadratic) Row(group, row int) []float32 { return q.data[(group*q.size+row)*q.side:][:q.side] }

// Change adds to products A·v what changes of v in one group make, those of products[i] being changes[i·Side:], in the
// columns of all groups, or of all but that one. Terms are fused in float32 in the order of the elements, and their
// sum is added in float64; elements that do not change make no difference to any bit.
func (q *Quadratic) Change(products [][]float64, changes []float32, group int, others bool) {
	first, rows := q.Group(group)
	var sums [tileOutputs * panelGroup]float32
	for g := range q.Groups() {
		if others && g == group {
			continue
		}
		from, columns := q.Group(g)
		t := tile{channels: rows, rows: 1, columns: 1, xChannel: q.side, wChannel: 1,
			pixels: ceil(columns, Lanes), xPixel: Lanes, yPixel: Lanes, wOutput: q.side, yOutput: panelGroup}
		for i := 0; i < len(products); i += tileOutputs {
			t.outputs = min(tileOutputs, len(products)-i)
			t.run(sums[:], 0, q.data, (g*q.size+first)*q.side, changes, i*q.side)
			for o := range t.outputs {
				addWide(products[i+o][from:][:columns], sums[o*panelGroup:])
			}
		}
	}
}
