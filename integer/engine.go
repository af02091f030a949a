package integer

import (
	"sync"
	"sync/atomic"

	"github.com/goqat/goqat/internal/kernel"
)

// engine is a program made ready for the machine's vector instructions. It runs one image at a time, in the order h, w,
// c: the channels of a pixel lie side by side. Codes are kept in unsigned bytes, wide values in int32. It gives what the
// plain engine (runner) gives, for all sums of products are exact there and wrap around here.
type engine struct {
	program    *Program
	pixels     [][256]uint8 // [channel][pixel]
	values     []buffer     // without memory
	operations []operation  // per node
	slots      []slot       // memory that values share
	slotOf     []int        // per value
	padded     int          // bytes of the largest padded input
	inputs     int          // the most that a convolution has
	sums       int          // accumulators of a plane that the largest step takes at once
	workers    sync.Pool    // of *worker
}

// buffer is the memory of a value, with slack behind it, and how to read it. Either bytes or words are in use.
type buffer struct {
	shape  Shape
	zero   int32 // zero point
	narrow bool  // kept in bytes
	offset int32 // what a byte of 0 stands for
	bytes  []uint8
	words  []int32
}

// slack is how many elements kernels may read and write behind the last one.
const slack = kernel.Lanes

// buffer returns how a value is kept, without memory.
func (v valueRange) buffer() buffer {
	span := v.span.with(int64(v.zero))
	b := buffer{shape: v.shape, zero: v.zero, narrow: span.codes()}
	if b.narrow && span.low < 0 {
		b.offset = -128
	}
	return b
}

// zeroByte is the zero point as it is kept.
func (b *buffer) zeroByte() uint8 { return uint8(b.zero - b.offset) }

// slot is memory for values whose lives do not meet.
type slot struct {
	narrow bool
	size   int
	free   bool
}

// ready makes the program's engine once. Its weights are packed for the machine at hand.
func (p *Program) ready(pl *plan) *engine {
	p.readyOnce.Do(func() {
		e := &engine{program: p}
		for _, v := range pl.values {
			e.values = append(e.values, v.buffer())
		}
		e.tabulate()
		for i := range p.Nodes {
			e.add(&p.Nodes[i], i)
		}
		e.share()
		p.engine = e
	})
	return p.engine
}

// tabulate makes the bytes that pixels are kept as.
func (e *engine) tabulate() {
	e.pixels = make([][256]uint8, len(e.program.Pixels))
	for c := range e.pixels {
		for pixel, code := range e.program.Pixels[c] {
			e.pixels[c][pixel] = uint8(int32(code) - e.values[0].offset)
		}
	}
}

// share gives every value a slot, which it leaves after the last node that takes it in.
func (e *engine) share() {
	last := make([]int, len(e.values))
	for i, o := range e.operations {
		for _, input := range o.Inputs {
			last[input] = i
		}
	}
	e.slotOf = append(e.slotOf, e.occupy(0))
	for i, o := range e.operations {
		e.slotOf = append(e.slotOf, e.occupy(i+1))
		for _, input := range o.Inputs {
			if last[input] == i {
				e.slots[e.slotOf[input]].free = true
			}
		}
	}
}

// occupy returns a slot for the value: a free one made large enough, or a new one.
func (e *engine) occupy(value int) int {
	v := &e.values[value]
	size := v.shape.Len() + slack
	for i := range e.slots {
		if s := &e.slots[i]; s.free && s.narrow == v.narrow {
			s.size, s.free = max(s.size, size), false
			return i
		}
	}
	e.slots = append(e.slots, slot{narrow: v.narrow, size: size})
	return len(e.slots) - 1
}

// worker is memory to run one image at a time.
type worker struct {
	engine *engine
	values []buffer
	padded [][]uint8 // [input]: those of a convolution with padding
	sums   [][]int32 // [plane]: accumulators of some pixels
	planes [][]int32 // [plane]: what a requantization takes in
}

func (e *engine) newWorker() *worker {
	w := &worker{engine: e, planes: make([][]int32, maxInputs)}
	for range e.inputs {
		w.padded = append(w.padded, make([]uint8, e.padded+slack))
	}
	bytes, words := make([][]uint8, len(e.slots)), make([][]int32, len(e.slots))
	for i, s := range e.slots {
		if s.narrow {
			bytes[i] = make([]uint8, s.size)
		} else {
			words[i] = make([]int32, s.size)
		}
	}
	for i, b := range e.values {
		b.bytes, b.words = bytes[e.slotOf[i]], words[e.slotOf[i]]
		w.values = append(w.values, b)
	}
	planes := 0
	for i := range e.operations {
		planes = max(planes, e.operations[i].planes)
	}
	for range planes {
		w.sums = append(w.sums, make([]int32, e.sums+slack))
	}
	return w
}

// run computes the logits of one image.
func (e *engine) run(logits []int32, image []uint8) {
	w, ok := e.workers.Get().(*worker)
	if !ok {
		w = e.newWorker()
	}
	w.run(logits, image)
	e.workers.Put(w)
}

// runShare computes the logits of images as long as next names one.
func (e *engine) runShare(logits []int32, images []uint8, next *atomic.Int64) {
	size, classes := e.program.Input.Len(), e.program.Classes
	for i := int(next.Add(1)) - 1; i < len(images)/size; i = int(next.Add(1)) - 1 {
		e.run(logits[i*classes:(i+1)*classes], images[i*size:(i+1)*size])
	}
}

func (w *worker) run(logits []int32, image []uint8) {
	first := &w.values[0]
	channels, size := first.shape.Channels, first.shape.Height*first.shape.Width
	for c := range channels {
		table := &w.engine.pixels[c]
		for i, pixel := range image[c*size : (c+1)*size] {
			first.bytes[i*channels+c] = table[pixel]
		}
	}
	for i := range w.engine.operations {
		o := &w.engine.operations[i]
		w.operate(o, &w.values[o.Inputs[0]], &w.values[i+1])
	}
	w.values[len(w.values)-1].transpose(func(i int, v int32) { logits[i] = v })
}

// operate computes the value of one node.
func (w *worker) operate(o *operation, in, out *buffer) {
	switch o.Kind {
	case Conv, Linear:
		w.convolve(o, out)
	case MaxPool:
		o.each(in, out, func(at int, from window) { out.maximum(in, at, from) })
	case AvgPool:
		o.each(in, out, func(at int, from window) { out.average(in, at, from, w.sums[0]) })
	case Flatten:
		in.transpose(out.set)
	case Sample:
		out.sample(in, o.Sampling)
	case Requantize, Add:
		w.elementwise(o, out)
	case Staircase:
		o.stairs.run(in, out)
	}
}

// set stores an element.
func (b *buffer) set(i int, v int32) {
	if b.narrow {
		b.bytes[i] = uint8(v - b.offset)
	} else {
		b.words[i] = v
	}
}

// get is the inverse of set.
func (b *buffer) get(i int) int32 {
	if b.narrow {
		return int32(b.bytes[i]) + b.offset
	}
	return b.words[i]
}

// transpose puts the elements in the order c, h, w.
func (b *buffer) transpose(put func(i int, v int32)) {
	size := b.shape.Height * b.shape.Width
	for c := range b.shape.Channels {
		for i := range size {
			put(c*size+i, b.get(i*b.shape.Channels+c))
		}
	}
}

// copyPixels copies elements of a value that is kept in the same way.
func (b *buffer) copyPixels(at int, in *buffer, from, n int) {
	if b.narrow {
		copy(b.bytes[at:at+n], in.bytes[from:from+n])
	} else {
		copy(b.words[at:at+n], in.words[from:from+n])
	}
}

// each calls do with the place of every output pixel and its window, cut off at the borders.
func (o *operation) each(in, out *buffer, do func(at int, from window)) {
	g := o.Window
	for y := range out.shape.Height {
		for x := range out.shape.Width {
			top, left := y*g.StrideHeight-g.PadTop, x*g.StrideWidth-g.PadLeft
			do((y*out.shape.Width+x)*out.shape.Channels, window{
				top: max(top, 0), bottom: min(top+g.Height, in.shape.Height),
				left: max(left, 0), right: min(left+g.Width, in.shape.Width), pitch: in.shape.Width,
			})
		}
	}
}

// maximum takes the largest of a window's pixels, which are kept in the same way and order.
func (b *buffer) maximum(in *buffer, at int, from window) {
	n := b.shape.Channels
	b.copyPixels(at, in, (from.top*from.pitch+from.left)*n, n)
	for y := from.top; y < from.bottom; y++ {
		for x := from.left; x < from.right; x++ {
			pixel := (y*from.pitch + x) * n
			if b.narrow {
				kernel.LargestBytes(b.bytes[at:at+n], in.bytes[pixel:pixel+n])
				continue
			}
			out := b.words[at : at+n]
			for c, v := range in.words[pixel : pixel+n] {
				out[c] = max(out[c], v)
			}
		}
	}
}

// average sums a window's levels.
func (b *buffer) average(in *buffer, at int, from window, sums []int32) {
	sums = sums[:b.shape.Channels]
	clear(sums)
	for y := from.top; y < from.bottom; y++ {
		for x := from.left; x < from.right; x++ {
			pixel := (y*from.pitch + x) * len(sums)
			for c := range sums {
				sums[c] += in.get(pixel+c) - in.zero
			}
		}
	}
	for c, sum := range sums {
		b.set(at+c, sum)
	}
}

// sample copies what is kept between the channels of zeros.
func (b *buffer) sample(in *buffer, s Sampling) {
	for y := range b.shape.Height {
		for x := range b.shape.Width {
			from, to := (y*in.shape.Width+x)*s.Stride*in.shape.Channels, (y*b.shape.Width+x)*b.shape.Channels
			b.fill(to, s.Before)
			b.copyPixels(to+s.Before, in, from, in.shape.Channels)
			b.fill(to+s.Before+in.shape.Channels, s.After)
		}
	}
}

// fill sets n elements to the zero point.
func (b *buffer) fill(at, n int) {
	for i := range n {
		b.set(at+i, b.zero)
	}
}
