package integer

import (
	"slices"

	"github.com/goqat/goqat/internal/kernel"
)

// operation is a node made ready for the machine.
type operation struct {
	*Node
	planes      int                 // of accumulators
	requantizer *kernel.Requantizer // nil for kinds that have none, and where negative sums have their own numbers or planes are too many
	width       int                 // channels that it requantizes at a time, or kernel.Lanes elements where one entry serves all
	slide       slide               // Conv, Linear
	blocks      []block             // Conv, Linear
	sumPixel    int                 // accumulators from one pixel to the next
	pixels      int                 // that are done at a time
	borders     [][]uint8           // [input]: a row of padding
	stairs      *stairs             // Staircase
}

// block is a part of a convolution in which every input belongs to every output: one group, or several small ones with
// weights of zero between them.
type block struct {
	output, outputs int                     // first channel and number
	input, inputs   int                     // first channel and number
	planes          [][]*kernel.ByteWeights // [input of the node][plane]
}

// blocks lists the parts of a convolution with so many channels to a group.
func blocks(groups, outputs, inputs int) []block {
	var all []block
	together := max(1, kernel.Lanes/outputs)
	for g := 0; g < groups; g += together {
		n := min(together, groups-g)
		all = append(all, block{output: g * outputs, outputs: n * outputs, input: g * inputs, inputs: n * inputs})
	}
	return all
}

// packedBytes bounds the memory that the blocks of one plane take. Sparse ones take sixteen times as many weights as there are.
func packedBytes(groups int, shape []int) int64 {
	outputs, inputs := int64(shape[0]/groups), int64(shape[1])
	taps := int64(1)
	for _, d := range shape[2:] {
		taps *= int64(d)
	}
	size := func(groups int64) int64 {
		vectors := (groups*outputs + kernel.Lanes - 1) / kernel.Lanes
		return blockBytes + vectors*kernel.Lanes*((groups*inputs+3)/4*4*taps*2+4)
	}
	together := max(1, kernel.Lanes/outputs)
	return int64(groups)/together*size(together) + size(int64(groups)%together)
}

// blockBytes bounds what a block takes besides its weights.
const blockBytes = 512

// elementsAtOnce is about how many elements are requantized at a time where they first have to be widened.
const elementsAtOnce = 2048

// add makes a node ready.
func (e *engine) add(n *Node, index int) {
	o := operation{Node: n, planes: 1}
	in, out := &e.values[n.Inputs[0]], &e.values[index+1]
	switch n.Kind {
	case Conv, Linear:
		inputs := make([]*buffer, len(n.Inputs))
		for k, input := range n.Inputs {
			inputs[k] = &e.values[input]
		}
		o.prepare(&e.program.Weights[n.Weights], inputs)
		height, width := o.slide.padded(in.shape)
		e.padded, e.inputs = max(e.padded, height*width*in.shape.Channels), max(e.inputs, len(inputs))
		e.sums = max(e.sums, o.pixels*o.sumPixel)
	case AvgPool:
		e.sums = max(e.sums, out.shape.Channels)
	case Requantize, Add:
		o.planes = len(n.Inputs)
		e.sums = max(e.sums, elementsAtOnce, out.shape.Channels)
	case Staircase:
		o.stairs = newStairs(n.Steps, in, out)
	}
	if n.Kind.requantizes() {
		o.pack(out)
	}
	e.operations = append(e.operations, o)
}

// pack packs the requantizer for an output that is kept in a given way.
func (o *operation) pack(out *buffer) {
	r := *o.Requantizer
	o.width = out.shape.Channels
	if r.Negative != nil || len(r.Multiplier) > kernel.MaxPlanes {
		return
	}
	if len(r.Bias) == 1 && (o.Kind == Requantize || o.Kind == Add) {
		o.width = kernel.Lanes
		r.Bias, r.Shift = slices.Repeat(r.Bias, o.width), slices.Repeat(r.Shift, o.width)
		r.Multiplier = spread(r.Multiplier, o.width)
	}
	offset := int64(out.offset)
	o.requantizer = kernel.NewRequantizer(r.Multiplier, r.Bias, r.Shift, int64(r.Zero)-offset, int64(r.Min)-offset, int64(r.Max)-offset)
}

// prepare packs the weights for inputs that are kept in a given way.
func (o *operation) prepare(w *IntegerWeights, in []*buffer) {
	geometry, shape := o.Geometry, w.Shape
	if o.Kind == Linear {
		geometry, shape = ConvGeometry{}.withDefaults(), []int{w.Shape[0], w.Shape[1], 1, 1}
	}
	o.slide, o.planes = geometry.slide(shape), o.accumulators(w)
	for _, b := range in {
		o.borders = append(o.borders, slices.Repeat([]uint8{b.zeroByte()}, (b.shape.Width+o.slide.left+o.slide.right)*b.shape.Channels))
	}
	o.blocks = blocks(geometry.Groups, shape[0]/geometry.Groups, shape[1])
	o.pixels = kernel.DotPixels
	decoded := w.decode()
	for i := range o.blocks {
		b := &o.blocks[i]
		for k := range in {
			if k > 0 && in[k].offset == in[0].offset {
				b.planes = append(b.planes, b.planes[0])
				continue
			}
			var planes []*kernel.ByteWeights
			for _, levels := range decoded {
				planes = append(planes, b.pack(shape, levels, len(o.blocks) == 1, in[k].offset))
			}
			b.planes = append(b.planes, planes)
		}
		o.pixels = min(o.pixels, b.planes[0][0].Pixels())
		o.sumPixel = b.output + (b.outputs+kernel.Lanes-1)/kernel.Lanes*kernel.Lanes
	}
}

// pack packs one plane of weights, their levels in the order of the given shape. A block of all inputs sees the pixels under a row of the kernel as
// one, since their channels lie side by side.
func (b *block) pack(shape []int, levels []int8, whole bool, offset int32) *kernel.ByteWeights {
	inputs, rows, columns := shape[1], shape[2], shape[3]
	weights := make([]int8, b.outputs*b.inputs*rows*columns)
	perGroup := b.outputs * inputs / b.inputs
	for o := range b.outputs {
		for i := range inputs {
			input := o/perGroup*inputs + i
			for tap := range rows * columns {
				to := (o*b.inputs+input)*rows*columns + tap
				if whole {
					to = ((o*columns+tap%columns)*b.inputs+input)*rows + tap/columns
				}
				weights[to] = levels[((b.output+o)*inputs+i)*rows*columns+tap]
			}
		}
	}
	if whole {
		return kernel.PackBytes(weights, b.outputs, b.inputs*columns, rows, 1, offset)
	}
	return kernel.PackBytes(weights, b.outputs, b.inputs, rows, columns, offset)
}

// convolve computes a convolution, or a matrix product as one of a single pixel.
func (w *worker) convolve(o *operation, out *buffer) {
	var x [maxInputs][]uint8
	for k, input := range o.Inputs {
		x[k] = w.pad(o, k, &w.values[input])
	}
	channels, pitch := w.values[o.Inputs[0]].shape.Channels, len(o.borders[0])
	view := kernel.DotView{Pixel: o.slide.strideWidth * channels, Column: channels, Row: pitch}
	tiles := (out.shape.Width + o.pixels - 1) / o.pixels
	for y := range out.shape.Height {
		for t := range tiles {
			from, to := out.shape.Width*t/tiles, out.shape.Width*(t+1)/tiles
			for k := range o.Inputs {
				corner := x[k][y*o.slide.strideHeight*pitch+from*view.Pixel:]
				for i := range o.blocks {
					b := &o.blocks[i]
					for p, weights := range b.planes[k] {
						weights.Dots(w.sums[k*len(b.planes[k])+p][b.output:], o.sumPixel, corner[b.input:], view, to-from)
					}
				}
			}
			w.requantize(o, out, (y*out.shape.Width+from)*out.shape.Channels, w.sums, o.sumPixel, to-from)
		}
	}
}

// pad surrounds an input by its zero point, rows of the length of its border; without padding it returns the input itself.
func (w *worker) pad(o *operation, input int, in *buffer) []uint8 {
	s, channels, border := o.slide, in.shape.Channels, o.borders[input]
	pitch, row := len(border), in.shape.Width*channels
	if s.top|s.left|s.bottom|s.right == 0 {
		return in.bytes
	}
	padded, left := w.padded[input], s.left*channels
	for y := range s.top + in.shape.Height + s.bottom {
		line := padded[y*pitch : (y+1)*pitch]
		if y < s.top || y >= s.top+in.shape.Height {
			copy(line, border)
			continue
		}
		copy(line[:left], border)
		copy(line[left:], in.bytes[(y-s.top)*row:(y-s.top+1)*row])
		copy(line[left+row:], border)
	}
	return padded
}

// requantize turns accumulators, sums[plane][pixel*sumPixel + channel], into the outputs from the element at on.
func (w *worker) requantize(o *operation, out *buffer, at int, sums [][]int32, sumPixel, pixels int) {
	switch {
	case o.requantizer == nil:
		o.requantizePlainly(out, at, sums, sumPixel, pixels)
	case out.narrow:
		o.requantizer.Bytes(out.bytes[at:], o.width, sums, sumPixel, pixels)
	default:
		o.requantizer.Wide(out.words[at:], o.width, sums, sumPixel, pixels)
	}
}

// requantizePlainly is requantize where negative sums have numbers of their own.
func (o *operation) requantizePlainly(out *buffer, at int, sums [][]int32, sumPixel, pixels int) {
	var all [maxAccumulators]int32
	acc := all[:o.planes]
	for p := range pixels {
		for c := range o.width {
			for i := range acc {
				acc[i] = sums[i][p*sumPixel+c]
			}
			out.set(at+p*o.width+c, o.Requantizer.Apply(c, acc))
		}
	}
}

// elementwise requantizes the inputs' elements, each input a plane.
func (w *worker) elementwise(o *operation, out *buffer) {
	pixels := (out.shape.Len() + o.width - 1) / o.width
	atOnce := max(1, elementsAtOnce/o.width)
	for from := 0; from < pixels; from += atOnce {
		n := min(atOnce, pixels-from)
		for p, input := range o.Inputs {
			w.planes[p] = w.widened(p, &w.values[input], from*o.width, n*o.width)
		}
		w.requantize(o, out, from*o.width, w.planes, o.width, n)
	}
}

// widened returns n elements of a value, with slack behind them.
func (w *worker) widened(plane int, in *buffer, from, n int) []int32 {
	if !in.narrow {
		return in.words[from:]
	}
	words := w.sums[plane]
	for i, v := range in.bytes[from : from+n] {
		words[i] = int32(v) + in.offset
	}
	return words
}
