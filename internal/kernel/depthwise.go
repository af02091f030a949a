package kernel

import "slices"

// depthwise is one plane of Forward or InputGradient where a channel has a kernel of 3x3 taps of its own, or, where an
// input gradient strides, the targets of one phase in rows and in columns. Bit 3*k+l of a set of taps stands for the
// k-th kernel row and the l-th kernel column of the phase. Distances are in floats and may be negative. Assembly reads
// it field by field.
type depthwise struct {
	rows, columns       int // targets
	left, inner         int // columns before the first all of whose taps lie inside; columns of that kind
	whole, shape        int // set of taps of a row where all lie inside; 3 times their rows, plus their columns
	rowTaps, columnTaps []uint64
	xStart, yStart      int // of the first target and its first tap, which may lie outside
	xRow, xTap          int // in x from one kernel row, one kernel column to the next
	xColumn, yColumn    int // from one target to the next
	xCarry, yCarry      int // from behind the last target of a row to the first of the next
	weights             [9]float32
	scale, bias         []float32 // of the channel; nil leaves the step out
}

// phase holds the targets of an axis whose taps are the same but for those outside: every targetStep-th from target on.
// The taps are every tapStep-th from tap on, taps of them.
type phase struct {
	target, targetStep, targets         int
	tap, tapStep, taps                  int
	source, sourceTap, sourcePixel, end int // of the first target's first tap, distances, sources there are
}

func (a Axis) forwardPhases() []phase {
	return []phase{{targetStep: 1, targets: a.Out, tapStep: 1, taps: a.Kernel,
		source: -a.Before, sourceTap: 1, sourcePixel: a.Stride, end: a.In}}
}

func (a Axis) backwardPhases() []phase {
	var list []phase
	for i := range min(a.Stride, a.In) {
		tap := (i + a.Before) % a.Stride
		list = append(list, phase{target: i, targetStep: a.Stride, targets: ceil(a.In-i, a.Stride),
			tap: tap, tapStep: a.Stride, taps: max(0, ceil(a.Kernel-tap, a.Stride)),
			source: (i + a.Before - tap) / a.Stride, sourceTap: -1, sourcePixel: 1, end: a.Out})
	}
	return list
}

// sets lists, by target, the taps inside: the first tap stands for the set first, the others for it shifted by shift each.
func (p *phase) sets(first uint64, shift int) []uint64 {
	list := make([]uint64, p.targets)
	for i := range list {
		for k := range p.taps {
			if at := p.source + i*p.sourcePixel + k*p.sourceTap; at >= 0 && at < p.end {
				list[i] |= first << (k * shift)
			}
		}
	}
	return list
}

// all3x3 is the set of all taps, row3x3 that of a kernel row and column3x3 that of a kernel column.
const (
	all3x3    = 1<<9 - 1
	row3x3    = 1<<0 | 1<<1 | 1<<2
	column3x3 = 1<<0 | 1<<3 | 1<<6
)

// inside finds the run of columns that have all taps; left is the number of columns where there is none.
func inside(columnTaps []uint64, all uint64) (left, inner int) {
	left = slices.Index(columnTaps, all)
	if left < 0 || all == 0 {
		return len(columnTaps), 0
	}
	for left+inner < len(columnTaps) && columnTaps[left+inner] == all {
		inner++
	}
	return left, inner
}

// depthwisePhase is a plane's part with its taps, as places among a channel's weights; -1 is none.
type depthwisePhase struct {
	depthwise
	taps [9]int
}

// depthwisePlan lists the parts of a plane from source to target, nil where the convolution is none of depthwise 3x3.
func (c *Conv) depthwisePlan(rows, columns []phase, source, target view) []depthwisePhase {
	if c.inputs != 1 || c.outputs != 1 || c.rows.Kernel != 3 || c.columns.Kernel != 3 {
		return nil
	}
	var plan []depthwisePhase
	for _, r := range rows {
		for _, s := range columns {
			if r.targets > 0 && s.targets > 0 {
				plan = append(plan, newDepthwisePhase(r, s, source, target))
			}
		}
	}
	return plan
}

func newDepthwisePhase(r, s phase, source, target view) depthwisePhase {
	d := depthwisePhase{depthwise: depthwise{rows: r.targets, columns: s.targets,
		rowTaps: r.sets(row3x3, 3), columnTaps: s.sets(column3x3, 1),
		xStart: r.source*source.row + s.source*source.column, yStart: r.target*target.row + s.target*target.column,
		xRow: r.sourceTap * source.row, xTap: s.sourceTap * source.column,
		xColumn: s.sourcePixel * source.column, yColumn: s.targetStep * target.column}}
	d.left, d.inner = inside(d.columnTaps, column3x3*(1<<s.taps-1))
	if d.whole, d.shape = all3x3>>(9-3*r.taps), 3*r.taps+s.taps; d.inner == 0 || r.taps == 0 {
		d.whole = -1 // no row has a target for the loop without tests
	}
	d.xCarry = r.sourcePixel*source.row - d.columns*d.xColumn
	d.yCarry = r.targetStep*target.row - d.columns*d.yColumn
	for i := range d.taps {
		d.taps[i] = -1
		if k, l := i/3, i%3; k < r.taps && l < s.taps {
			d.taps[i] = (r.tap+k*r.tapStep)*3 + s.tap + l*s.tapStep
		}
	}
	return d
}

// depthwise computes y from x by the plan, plane by plane.
func (c *Conv) depthwise(plan []depthwisePhase, y, x, w, scale, bias []float32, source, target view) {
	c.parallel(c.blocks*c.groups, func(task int) {
		n, channel := task/c.groups, task%c.groups
		from, to := x[n*source.block+channel*source.channel:], y[n*target.block+channel*target.channel:]
		for i := range plan {
			d := plan[i].depthwise
			for slot, tap := range plan[i].taps {
				if tap >= 0 {
					d.weights[slot] = w[channel*9+tap]
				}
			}
			d.scale, d.bias = channels(scale, channel, 1), channels(bias, channel, 1)
			d.run(&to[0], &from[0])
		}
	})
}
