package integer

// runner is the plain engine, which defines what a program computes: order c, h, w, one loop for each formula of the
// package comment. Trace runs it, and the fast engine is tested against it.
type runner struct {
	program *Program
	plan    *plan
	weights [][][]int8 // [weights][plane][element]
	values  [][]int32
	padded  [][]int32 // [input]: those of a convolution with padding
	sums    [][]int32 // [accumulator]: those of one output channel
	acc     []int32   // [accumulator]: those of one output
}

func newRunner(p *Program, pl *plan) *runner {
	p.decodeOnce.Do(func() {
		for i := range p.Weights {
			p.decoded = append(p.decoded, p.Weights[i].decode())
		}
	})
	r := &runner{program: p, plan: pl, weights: p.decoded, acc: make([]int32, maxAccumulators)}
	padded, plane, planes := 0, 0, 0
	for i, v := range pl.values {
		r.values = append(r.values, make([]int32, v.shape.Len()))
		if i == 0 || p.Nodes[i-1].Kind != Conv {
			continue
		}
		n := &p.Nodes[i-1]
		planes = max(planes, n.accumulators(&p.Weights[n.Weights]))
		in := pl.values[n.Inputs[0]].shape
		height, width := n.Geometry.slide(p.Weights[n.Weights].Shape).padded(in)
		padded = max(padded, in.Channels*height*width)
		plane = max(plane, v.shape.Height*v.shape.Width)
	}
	for range maxInputs {
		r.padded = append(r.padded, make([]int32, padded))
	}
	for range planes {
		r.sums = append(r.sums, make([]int32, plane))
	}
	return r
}

// run computes all values of one image and returns the last, which the next call overwrites.
func (r *runner) run(image []uint8) []int32 {
	p := r.program
	size := p.Input.Height * p.Input.Width
	for i, pixel := range image {
		r.values[0][i] = int32(p.Pixels[i/size][pixel])
	}
	for i := range p.Nodes {
		r.node(&p.Nodes[i], r.plan.values[i+1].shape, r.values[i+1])
	}
	return r.values[len(p.Nodes)]
}

func (r *runner) node(n *Node, shape Shape, out []int32) {
	in, input := r.values[n.Inputs[0]], r.plan.values[n.Inputs[0]]
	switch n.Kind {
	case Conv:
		r.conv(n, shape, out)
	case Linear:
		r.linear(n, out)
	case MaxPool:
		pool(n.Window, input.shape, shape, in, out, maxWindow)
	case AvgPool:
		zero := input.zero
		pool(n.Window, input.shape, shape, in, out, func(x []int32, w window) int32 { return sumWindow(x, w, zero) })
	case Flatten:
		copy(out, in)
	case Sample:
		sample(n.Sampling, input, shape, in, out)
	case Requantize, Add:
		r.elementwise(n, shape, out)
	case Staircase:
		for i, x := range in {
			out[i] = n.Steps.at(x)
		}
	}
}

// linear is out[o] = requantize(sum over i of in[i] * weight[o][i]).
func (r *runner) linear(n *Node, out []int32) {
	for o := range out {
		acc := r.acc[:0]
		for _, input := range n.Inputs {
			in := r.values[input]
			for _, weights := range r.weights[n.Weights] {
				acc = append(acc, dot(weights[o*len(in):(o+1)*len(in)], in))
			}
		}
		out[o] = n.Requantizer.Apply(o, acc)
	}
}

// dot returns sum w[i] * x[i]; x is at least as long as w.
func dot(w []int8, x []int32) int32 {
	x = x[:len(w)]
	even, odd := int32(0), int32(0)
	i := 0
	for ; i+1 < len(w); i += 2 {
		even += int32(w[i]) * x[i]
		odd += int32(w[i+1]) * x[i+1]
	}
	if i < len(w) {
		even += int32(w[i]) * x[i]
	}
	return even + odd
}

// conv computes one output channel after the other, each as a sum of weighted, shifted input planes.
func (r *runner) conv(n *Node, shape Shape, out []int32) {
	dimensions, planes := r.program.Weights[n.Weights].Shape, r.weights[n.Weights]
	s := n.Geometry.slide(dimensions)
	var x [maxInputs][]int32
	var padded Shape
	for k, input := range n.Inputs {
		x[k], padded = pad(r.padded[k], s, r.plan.values[input], r.values[input])
	}
	size := shape.Height * shape.Width
	perGroup := shape.Channels / n.Geometry.Groups
	for o := range shape.Channels {
		first := o / perGroup * dimensions[1]
		for k := range n.Inputs {
			group := x[k][first*padded.Height*padded.Width:]
			for p, weights := range planes {
				sum := r.sums[k*len(planes)+p][:size]
				clear(sum)
				each := len(weights) / shape.Channels
				accumulate(sum, group, weights[o*each:(o+1)*each], s, padded, shape)
			}
		}
		r.requantize(n.Requantizer, o, len(n.Inputs)*len(planes), out[o*size:(o+1)*size])
	}
}

// pad surrounds each channel of the input by its zero point, in memory of the caller's; without padding it returns the
// input itself.
func pad(memory []int32, s slide, input valueRange, in []int32) ([]int32, Shape) {
	from := input.shape
	height, width := s.padded(from)
	if height == from.Height && width == from.Width {
		return in, from
	}
	to := Shape{from.Channels, height, width}
	padded := memory[:to.Len()]
	for i := range padded {
		padded[i] = input.zero
	}
	for row := range from.Channels * from.Height {
		c, y := row/from.Height, row%from.Height
		copy(padded[(c*height+y+s.top)*width+s.left:], in[row*from.Width:(row+1)*from.Width])
	}
	return padded, to
}

// accumulate adds to sum, [OH][OW], the input channels that weights, [I][KH][KW], cover.
func accumulate(sum, x []int32, weights []int8, s slide, in, out Shape) {
	for tap, w := range weights {
		if w == 0 {
			continue
		}
		column := tap % s.kernelWidth
		row := tap / s.kernelWidth % s.kernelHeight
		channel := tap / (s.kernelWidth * s.kernelHeight)
		start := (channel*in.Height+row)*in.Width + column
		for y := range out.Height {
			addScaled(sum[y*out.Width:(y+1)*out.Width], x[start+y*s.strideHeight*in.Width:], int32(w), s.strideWidth)
		}
	}
}

// addScaled is sum[i] += w * x[i*stride].
func addScaled(sum, x []int32, w int32, stride int) {
	if stride == 1 {
		x = x[:len(sum)]
		for i := range sum {
			sum[i] += w * x[i]
		}
		return
	}
	for i := range sum {
		sum[i] += w * x[i*stride]
	}
}

// requantize turns the accumulators of one channel into outputs.
func (r *runner) requantize(q *Requantizer, channel, planes int, out []int32) {
	if planes == 1 {
		for i, a := range r.sums[0][:len(out)] {
			out[i] = q.Apply1(channel, a)
		}
		return
	}
	acc := r.acc[:planes]
	for i := range out {
		for p := range acc {
			acc[p] = r.sums[p][i]
		}
		out[i] = q.Apply(channel, acc)
	}
}

// sample copies what is kept between the channels of zeros.
func sample(s Sampling, input valueRange, to Shape, in, out []int32) {
	from, size := input.shape, to.Height*to.Width
	for i := range out {
		c, y, x := i/size-s.Before, i/to.Width%to.Height, i%to.Width
		out[i] = input.zero
		if c >= 0 && c < from.Channels {
			out[i] = in[(c*from.Height+y*s.Stride)*from.Width+x*s.Stride]
		}
	}
}

// elementwise requantizes the inputs' elements, each input a plane.
func (r *runner) elementwise(n *Node, shape Shape, out []int32) {
	size := shape.Height * shape.Width
	acc := r.acc[:len(n.Inputs)]
	for i := range out {
		for p, input := range n.Inputs {
			acc[p] = r.values[input][i]
		}
		out[i] = n.Requantizer.Apply(i/size, acc)
	}
}

// window is a rectangle of one plane, without its padding.
type window struct{ top, bottom, left, right, pitch int }

// pool reduces each window of each plane.
func pool(w Window, from, to Shape, in, out []int32, reduce func([]int32, window) int32) {
	for i := range out {
		c, y, x := i/(to.Height*to.Width), i/to.Width%to.Height, i%to.Width
		top, left := y*w.StrideHeight-w.PadTop, x*w.StrideWidth-w.PadLeft
		plane := in[c*from.Height*from.Width : (c+1)*from.Height*from.Width]
		out[i] = reduce(plane, window{
			top: max(top, 0), bottom: min(top+w.Height, from.Height),
			left: max(left, 0), right: min(left+w.Width, from.Width), pitch: from.Width,
		})
	}
}

// maxWindow returns the largest value of the window.
func maxWindow(x []int32, w window) int32 {
	largest := x[w.top*w.pitch+w.left]
	for y := w.top; y < w.bottom; y++ {
		for _, v := range x[y*w.pitch+w.left : y*w.pitch+w.right] {
			largest = max(largest, v)
		}
	}
	return largest
}

// sumWindow returns the sum of the window's levels.
func sumWindow(x []int32, w window, zero int32) int32 {
	sum := int32(0)
	for y := w.top; y < w.bottom; y++ {
		for _, v := range x[y*w.pitch+w.left : y*w.pitch+w.right] {
			sum += v - zero
		}
	}
	return sum
}
