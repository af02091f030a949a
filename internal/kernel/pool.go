package kernel

// Window is a pooling window over the rows and columns of a number of planes, a plane being one channel of one block.
type Window struct {
	Planes        int
	Rows, Columns Axis
	CountPadding  bool // average pooling divides by the whole window, padding included
	Sum           bool // average pooling leaves out the division
}

// visit calls do with the place of every output vector and the taps of its window that lie inside the image.
func (w *Window) visit(plane int, do func(y int, taps pool2D)) {
	rows, columns := w.Rows, w.Columns
	in, out := plane*rows.In*columns.In*Lanes, plane*rows.Out*columns.Out*Lanes
	for i := range rows.Out {
		top := i*rows.Stride - rows.Before
		for j := range columns.Out {
			left := j*columns.Stride - columns.Before
			do(out+(i*columns.Out+j)*Lanes, pool2D{
				base: in, width: columns.In, top: top, left: left,
				fromRow: max(0, -top), toRow: min(rows.Kernel, rows.In-top),
				fromColumn: max(0, -left), toColumn: min(columns.Kernel, columns.In-left)})
		}
	}
}

// pool2D is the part of a window that lies inside the image.
type pool2D struct {
	base, width, top, left               int
	fromRow, toRow, fromColumn, toColumn int
}

func (t *pool2D) at(k, l int) int { return t.base + ((t.top+k)*t.width+t.left+l)*Lanes }

func (t *pool2D) count() int { return (t.toRow - t.fromRow) * (t.toColumn - t.fromColumn) }

// Max computes the maximum of every window, and for the gradient which tap it was: the first in row-major order
// among equals. Windows have at most 65,536 taps, and each overlaps the image.
func (w *Window) Max(y []float32, tap []uint16, x []float32) {
	Parallel(w.Planes, func(plane int) {
		w.visit(plane, func(at int, t pool2D) {
			best := (*[Lanes]float32)(y[at:])
			which := (*[Lanes]uint16)(tap[at:])
			*best = [Lanes]float32(x[t.at(t.fromRow, t.fromColumn):])
			*which = [Lanes]uint16{}
			for l := range which {
				which[l] = uint16(t.fromRow*w.Columns.Kernel + t.fromColumn)
			}
			for k := t.fromRow; k < t.toRow; k++ {
				for c := t.fromColumn; c < t.toColumn; c++ {
					maximum(best, which, (*[Lanes]float32)(x[t.at(k, c):]), uint16(k*w.Columns.Kernel+c))
				}
			}
		})
	})
}

func maximum(best *[Lanes]float32, which *[Lanes]uint16, v *[Lanes]float32, tap uint16) {
	for l := range best {
		if v[l] > best[l] {
			best[l], which[l] = v[l], tap
		}
	}
}

// MaxGradient gives each window's gradient to the tap that was its maximum.
func (w *Window) MaxGradient(dx, dy []float32, tap []uint16) {
	Parallel(w.Planes, func(plane int) {
		w.clearPlane(dx, plane)
		w.visit(plane, func(at int, t pool2D) {
			for l := range Lanes {
				k, c := int(tap[at+l])/w.Columns.Kernel, int(tap[at+l])%w.Columns.Kernel
				dx[t.at(k, c)+l] += dy[at+l]
			}
		})
	})
}

// Average computes the mean of every window: taps added in row-major order, then one division.
func (w *Window) Average(y, x []float32) {
	Parallel(w.Planes, func(plane int) {
		w.visit(plane, func(at int, t pool2D) {
			sum := (*[Lanes]float32)(y[at:])
			*sum = [Lanes]float32{}
			for k := t.fromRow; k < t.toRow; k++ {
				for c := t.fromColumn; c < t.toColumn; c++ {
					for l, v := range (*[Lanes]float32)(x[t.at(k, c):]) {
						sum[l] += v
					}
				}
			}
			for l := range sum {
				sum[l] /= w.divisor(&t)
			}
		})
	})
}

// AverageGradient spreads each window's gradient evenly over its taps.
func (w *Window) AverageGradient(dx, dy []float32) {
	Parallel(w.Planes, func(plane int) {
		w.clearPlane(dx, plane)
		w.visit(plane, func(at int, t pool2D) {
			for k := t.fromRow; k < t.toRow; k++ {
				for c := t.fromColumn; c < t.toColumn; c++ {
					out := (*[Lanes]float32)(dx[t.at(k, c):])
					for l := range out {
						out[l] += dy[at+l] / w.divisor(&t)
					}
				}
			}
		})
	})
}

func (w *Window) divisor(t *pool2D) float32 {
	switch {
	case w.Sum:
		return 1
	case w.CountPadding:
		return float32(w.Rows.Kernel * w.Columns.Kernel)
	}
	return float32(t.count())
}

func (w *Window) clearPlane(dx []float32, plane int) {
	size := w.Rows.In * w.Columns.In * Lanes
	clear(dx[plane*size:][:size])
}
