package kernel

// Axis is one spatial direction of a convolution or pooling: an input of In positions padded by Before (and by
// whatever the last window needs behind), windows of Kernel positions every Stride, Out of them.
type Axis struct{ In, Out, Kernel, Stride, Before int }

// span is a run of targets that take the same taps. A target is an output position in the forward direction, an
// input position in the backward direction; a source is the other one.
type span struct {
	target, pixels int // first target, number of targets (each axisWalk.targetStep apart)
	tap, taps      int // first tap, number of taps (each axisWalk.tapStep apart)
	source         int // source of the first target's first tap
}

// walk lists the spans of an axis with the strides between their targets, taps and sources.
type walk struct {
	spans       []span
	targetStep  int // from one target of a span to the next
	tapStep     int // from one tap to the next
	sourceTap   int // source positions from one tap to the next
	sourcePixel int // source positions from one target to the next
}

// forward walks outputs: output i takes taps k with source i*Stride - Before + k inside the input.
func (a Axis) forward() walk {
	w := walk{targetStep: 1, tapStep: 1, sourceTap: 1, sourcePixel: a.Stride}
	for i := range a.Out {
		start := i*a.Stride - a.Before
		first, last := max(0, -start), min(a.Kernel, a.In-start)
		w.add(span{target: i, pixels: 1, tap: first, taps: max(0, last-first), source: start + first})
	}
	return w
}

// backward walks inputs, one residue class of the stride after the other: input i takes taps k with
// i + Before - k = Stride * source, source inside the output.
func (a Axis) backward() walk {
	w := walk{targetStep: a.Stride, tapStep: a.Stride, sourceTap: -1, sourcePixel: 1}
	for phase := range min(a.Stride, a.In) {
		for i := phase; i < a.In; i += a.Stride {
			first := (i + a.Before) % a.Stride
			if over := i + a.Before - first - (a.Out-1)*a.Stride; over > 0 {
				first += over
			}
			last := min(a.Kernel-1, i+a.Before)
			taps := 0
			if last >= first {
				taps = (last-first)/a.Stride + 1
			}
			w.add(span{target: i, pixels: 1, tap: first, taps: taps, source: (i + a.Before - first) / a.Stride})
		}
	}
	return w
}

// add appends s, or lengthens the last span by it where both take the same taps.
func (w *walk) add(s span) {
	if n := len(w.spans); n > 0 {
		l := &w.spans[n-1]
		if l.tap == s.tap && l.taps == s.taps && s.target == l.target+l.pixels*w.targetStep && s.source == l.source+l.pixels*w.sourcePixel {
			l.pixels++
			return
		}
	}
	w.spans = append(w.spans, s)
}

// inside is the span of outputs whose tap k lies inside the input.
func (a Axis) inside(k int) span {
	from, to := max(0, ceil(a.Before-k, a.Stride)), 0
	if last := a.In - 1 + a.Before - k; last >= 0 {
		to = min(a.Out, last/a.Stride+1)
	}
	return span{target: from, pixels: max(0, to-from), tap: k, taps: 1, source: from*a.Stride - a.Before + k}
}
