package kernel

import "fmt"

// Window is a pooling window over the rows and columns of a number of planes, a plane being one channel of one block.
type Window struct {
	Planes        int
	Rows, Columns Axis
	CountPadding  bool // average pooling divides by the whole window, padding included
	Sum           bool // average pooling leaves out the division
}

// poolSpan is a run of outputs in a row whose windows take the same taps. Distances are in floats. Assembly reads it
// field by field.
type poolSpan struct {
	count, rows, columns int // outputs, taps that lie inside the image
	xRow, xStep          int // distances between rows of taps and between windows
	tap, tapSkip         int // number of the first tap, and of taps outside between one row of taps and the next
}

// visit calls do with every span of every plane, in the order of outputs: y and x are the places of its first output
// vector and of that one's first tap. Before, a plane of dx, where there is one, is cleared.
func (w *Window) visit(dx []float32, do func(y, x int, s *poolSpan)) {
	rows, columns := w.Rows.forward().spans, w.Columns.forward().spans
	spans := w.spans(rows, columns)
	size := w.Rows.In * w.Columns.In
	Parallel(w.Planes, func(plane int) {
		if dx != nil {
			clear(dx[plane*size*Lanes:][:size*Lanes])
		}
		in, out := plane*size, plane*w.Rows.Out*w.Columns.Out
		for k, r := range rows {
			for i := range r.pixels {
				x, y := in+(r.source+i*w.Rows.Stride)*w.Columns.In, out+(r.target+i)*w.Columns.Out
				for l, c := range columns {
					do((y+c.target)*Lanes, (x+c.source)*Lanes, &spans[k*len(columns)+l])
				}
			}
		}
	})
}

// spans lists the spans of a plane, one for every span of columns in one of rows.
func (w *Window) spans(rows, columns []span) []poolSpan {
	var spans []poolSpan
	for _, r := range rows {
		for _, c := range columns {
			if r.taps == 0 || c.taps == 0 {
				panic(fmt.Sprintf("kernel: Window: a window of %+v lies outside the image", *w))
			}
			spans = append(spans, poolSpan{count: c.pixels, rows: r.taps, columns: c.taps,
				xRow: w.Columns.In * Lanes, xStep: w.Columns.Stride * Lanes,
				tap: r.tap*w.Columns.Kernel + c.tap, tapSkip: w.Columns.Kernel - c.taps})
		}
	}
	return spans
}

// taps calls do with the taps of window j, x being the place of the first window's first tap.
func (s *poolSpan) taps(x, j int, do func(x, tap int)) {
	for k := range s.rows {
		for l := range s.columns {
			do(x+j*s.xStep+k*s.xRow+l*Lanes, s.tap+k*(s.columns+s.tapSkip)+l)
		}
	}
}

// Max computes the maximum of every window, and for the gradient which tap it was: the first in row-major order
// among equals. A NaN wins as the first tap and loses elsewhere. Windows have at most 65,536 taps, and each overlaps
// the image.
func (w *Window) Max(y []float32, tap []uint16, x []float32) {
	w.check("Max", len(x), min(len(y), len(tap)))
	w.visit(nil, func(yAt, xAt int, s *poolSpan) {
		if !s.maxSIMD(&y[yAt], &tap[yAt], &x[xAt]) {
			s.max(y[yAt:], tap[yAt:], x, xAt)
		}
	})
}

func (s *poolSpan) max(y []float32, tap []uint16, x []float32, xAt int) {
	for j := range s.count {
		best, which := (*[Lanes]float32)(y[j*Lanes:]), (*[Lanes]uint16)(tap[j*Lanes:])
		*best = [Lanes]float32(x[xAt+j*s.xStep:])
		for l := range which {
			which[l] = uint16(s.tap)
		}
		s.taps(xAt, j, func(at, tap int) { maximum(best, which, (*[Lanes]float32)(x[at:]), uint16(tap)) })
	}
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
	w.check("MaxGradient", len(dx), min(len(dy), len(tap)))
	w.visit(dx, func(yAt, xAt int, s *poolSpan) {
		if !s.maxGradientSIMD(&dx[xAt], &dy[yAt], &tap[yAt]) {
			s.maxGradient(dx, xAt, dy[yAt:], tap[yAt:])
		}
	})
}

func (s *poolSpan) maxGradient(dx []float32, xAt int, dy []float32, tap []uint16) {
	for j := range s.count {
		s.taps(xAt, j, func(at, number int) {
			out, g, which := (*[Lanes]float32)(dx[at:]), (*[Lanes]float32)(dy[j*Lanes:]), (*[Lanes]uint16)(tap[j*Lanes:])
			for l := range out {
				if int(which[l]) == number {
					out[l] += g[l]
				}
			}
		})
	}
}

// Average computes the mean of every window: taps added in row-major order, then one division.
func (w *Window) Average(y, x []float32) {
	w.check("Average", len(x), len(y))
	w.visit(nil, func(yAt, xAt int, s *poolSpan) {
		if divisor := w.divisor(s); !s.averageSIMD(&y[yAt], &x[xAt], divisor) {
			s.average(y[yAt:], x, xAt, divisor)
		}
	})
}

func (s *poolSpan) average(y, x []float32, xAt int, divisor float32) {
	for j := range s.count {
		sum := (*[Lanes]float32)(y[j*Lanes:])
		*sum = [Lanes]float32{}
		s.taps(xAt, j, func(at, _ int) {
			for l, v := range (*[Lanes]float32)(x[at:]) {
				sum[l] += v
			}
		})
		for l := range sum {
			sum[l] /= divisor
		}
	}
}

// AverageGradient spreads each window's gradient evenly over its taps.
func (w *Window) AverageGradient(dx, dy []float32) {
	w.check("AverageGradient", len(dx), len(dy))
	w.visit(dx, func(yAt, xAt int, s *poolSpan) {
		if divisor := w.divisor(s); !s.averageGradientSIMD(&dx[xAt], &dy[yAt], divisor) {
			s.averageGradient(dx, xAt, dy[yAt:], divisor)
		}
	})
}

func (s *poolSpan) averageGradient(dx []float32, xAt int, dy []float32, divisor float32) {
	for j := range s.count {
		share := [Lanes]float32(dy[j*Lanes:])
		for l := range share {
			share[l] /= divisor
		}
		s.taps(xAt, j, func(at, _ int) {
			out := (*[Lanes]float32)(dx[at:])
			for l := range out {
				out[l] += share[l]
			}
		})
	}
}

func (w *Window) divisor(s *poolSpan) float32 {
	switch {
	case w.Sum:
		return 1
	case w.CountPadding:
		return float32(w.Rows.Kernel * w.Columns.Kernel)
	}
	return float32(s.rows * s.columns)
}

// check panics where a slice is shorter than the planes: assembly does not look.
func (w *Window) check(name string, x, y int) {
	in, out := w.Planes*w.Rows.In*w.Columns.In*Lanes, w.Planes*w.Rows.Out*w.Columns.Out*Lanes
	if x < in || y < out {
		panic(fmt.Sprintf("kernel: Window.%s: slices of the shapes of x and y have %d and %d elements, want %d and %d", name, x, y, in, out))
	}
}
