package layers

import (
	"math"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

// waiting is what still has to happen to the real numbers of a value's node, element by element:
//
//	z = max(0, γ·(x - mean)/σ + β + shortcut)
//
// each part where it is there. Memory is slower than arithmetic, so these steps wait for the layer that takes the value
// in, which does them as it goes, see [prologue].
type waiting struct {
	norm     *normalize
	shortcut *Value
	relu     bool
}

func (w *waiting) any() bool { return w.norm != nil || w.shortcut != nil || w.relu }

// name says what waits.
func (w *waiting) name() string {
	switch {
	case w.norm != nil:
		return w.norm.name
	case w.shortcut != nil:
		return "residual sum"
	}
	return "relu"
}

// settled returns x with nothing waiting.
func (p *Pass) settled(x Value) (Value, error) {
	if !x.waiting.any() {
		return x, nil
	}
	f := &transform{}
	n, err := p.apply(f, x.Shape, f.take(p, x, nil)...)
	if err != nil {
		return Value{}, err
	}
	y := x.with(n, x.Shape)
	y.constant = x.constant && x.waiting.norm == nil && (x.waiting.shortcut == nil || x.waiting.shortcut.constant)
	return y, p.remember(f.String(), n)
}

// prologue is the element-wise work between the numbers of a node and the layer that takes them in: what waits for it,
// then the layer's quantizer. It goes through a tensor piece by piece: in each block as many channels together as fill
// [kernel.Chunk] elements, or a channel in pieces of that size. Sums of parameter gradients add up in that order.
type prologue struct {
	waiting
	pass       *Pass
	shape      Shape
	activation *activation // nil for none
	places     struct{ gamma, beta, shortcut, theta int }

	kept   []float32    // the numbers before quantization, which others take in as well; nil where nobody does
	dkept  []float32    // in a backward pass, the gradient that comes from them
	thetas []float32    // by piece, its gradient of the quantizer's parameters
	ranges [][2]float32 // by piece, its smallest and largest number; nil where the quantizer does not follow them
}

// take makes f the prologue of x and returns its operands.
func (f *prologue) take(p *Pass, x Value, a *activation) []quantops.Input {
	f.waiting, f.pass, f.shape, f.activation = x.waiting, p, x.Shape, a
	inputs := []quantops.Input{{Node: x.node, Constant: x.constant}}
	add := func(in quantops.Input) int {
		inputs = append(inputs, in)
		return len(inputs) - 1
	}
	if f.norm != nil {
		f.places.gamma = add(quantops.Input{Node: p.Node(f.norm.gamma)})
		f.places.beta = add(quantops.Input{Node: p.Node(f.norm.beta)})
	}
	if f.shortcut != nil {
		f.places.shortcut = add(f.shortcut.input())
	}
	if a != nil {
		f.places.theta = add(quantops.Input{Node: p.Node(a.theta), Constant: a.theta.Kind != quantops.Learned})
		if _, ok := a.quantizer.(quantops.RangeFollower); ok && a.theta.Kind == quantops.Running {
			f.ranges = make([][2]float32, p.Blocks()*f.groups()*f.pieces())
		}
	}
	return inputs
}

// nothing says whether x passes as it is.
func (f *prologue) nothing() bool { return !f.any() && f.activation == nil }

// plane is the number of elements of a channel in a block.
func (f *prologue) plane() int { return f.shape.Height * f.shape.Width * kernel.Lanes }

func (f *prologue) blockLen() int { return f.shape.Channels * f.plane() }

// group is how many channels go together.
func (f *prologue) group() int { return min(f.shape.Channels, max(1, kernel.Chunk/f.plane())) }

func (f *prologue) groups() int { return (f.shape.Channels + f.group() - 1) / f.group() }

// pieces is the number of pieces of a group.
func (f *prologue) pieces() int { return (f.group()*f.plane() + kernel.Chunk - 1) / kernel.Chunk }

// piece is a run of elements of one block, of whole channels or of one.
type piece struct {
	block, number  int // the latter counts through the tensor
	channel, count int // channels
	from, to       int // elements of the block
	first, last    bool
}

// each calls do with the pieces of one group.
func (f *prologue) each(block, group int, do func(piece)) {
	channel := group * f.group()
	count := min(f.group(), f.shape.Channels-channel)
	from, to := channel*f.plane(), (channel+count)*f.plane()
	for i := range f.pieces() {
		p := piece{block: block, number: (block*f.groups()+group)*f.pieces() + i, channel: channel, count: count,
			from: from + i*kernel.Chunk, to: min(to, from+(i+1)*kernel.Chunk), first: i == 0}
		p.last = p.to == to
		if p.from < p.to {
			do(p)
		}
	}
}

// channels calls do with every channel of a piece and where its elements lie in it.
func (f *prologue) channels(p piece, do func(channel, from, to int)) {
	if p.count == 1 {
		do(p.channel, 0, p.to-p.from)
		return
	}
	for i := range p.count {
		do(p.channel+i, i*f.plane(), (i+1)*f.plane())
	}
}

// begin prepares a run: the statistics of the batch.
func (f *prologue) begin(x [][]float32) {
	if f.norm != nil {
		f.norm.kernel.Images = f.pass.Images // fewer in a short batch
		f.norm.begin(x[0], x[f.places.gamma], x[f.places.beta])
	}
}

// compute computes one group of a block into y, which holds the block; y is not needed where f keeps it.
func (f *prologue) compute(y []float32, x [][]float32, block, group int) {
	f.each(block, group, func(p piece) {
		target := f.keptPiece(p)
		if target == nil {
			target = y[p.from:p.to]
		}
		z := f.real(target, x, p)
		if f.activation == nil {
			return
		}
		if f.ranges != nil {
			f.ranges[p.number][0], f.ranges[p.number][1] = kernel.Range(z, f.extent(p))
		}
		f.activation.quantizer.Levels(y[p.from:p.to], z, x[f.places.theta])
	})
}

// extent says which elements of a piece belong to images.
func (f *prologue) extent(p piece) quantops.Extent {
	e := f.pass.extent(f.shape)
	e.Full = max(0, e.Full-p.block*f.blockLen()-p.from)
	return e
}

// observe lets the quantizer's parameters follow the numbers of this run, once nothing needs the old ones any more.
func (f *prologue) observe(x [][]float32) {
	if f.ranges == nil {
		return
	}
	blocks := f.pass.Blocks() // of this batch, which may be a short one
	low, high := float32(math.Inf(1)), float32(math.Inf(-1))
	for block := range blocks {
		for group := range f.groups() {
			f.each(block, group, func(p piece) { low, high = min(low, f.ranges[p.number][0]), max(high, f.ranges[p.number][1]) })
		}
	}
	f.activation.quantizer.(quantops.RangeFollower).Observe(x[f.places.theta], low, high)
}

// real returns the piece before quantization: the source itself where nothing waits, else in z.
func (f *prologue) real(z []float32, x [][]float32, p piece) []float32 {
	at := p.block*f.blockLen() + p.from
	now, shortcut := x[0][at:][:len(z)], []float32(nil)
	if f.shortcut != nil {
		shortcut = x[f.places.shortcut][at:][:len(z)]
	}
	if f.norm != nil && f.relu {
		f.channels(p, func(c, from, to int) {
			kernel.AffineReLU(z[from:to], now[from:to], sliceOf(shortcut, from, to), f.norm.scale[c], f.norm.offset[c])
		})
		return z
	}
	if f.norm != nil {
		f.channels(p, func(c, from, to int) { kernel.Affine(z[from:to], now[from:to], f.norm.scale[c], f.norm.offset[c]) })
		now = z
	}
	if f.shortcut != nil {
		kernel.Add(z, now, shortcut)
		now = z
	}
	if f.relu {
		kernel.ReLU(z, now)
		now = z
	}
	return now
}

// sliceOf is x[from:to], or nil of nil.
func sliceOf(x []float32, from, to int) []float32 {
	if x == nil {
		return nil
	}
	return x[from:to]
}

// keeps says whether what f computes is what it keeps.
func (f *prologue) keeps() bool { return f.kept != nil && f.activation == nil }

// keptPiece is the memory where a piece is kept, nil for none.
func (f *prologue) keptPiece(p piece) []float32 {
	if f.kept == nil {
		return nil
	}
	return f.kept[p.block*f.blockLen():][p.from:p.to]
}

// block computes a whole block, into scratch unless it is kept, and returns it; the source where there is nothing to do.
func (f *prologue) block(scratch []float32, x [][]float32, block int) []float32 {
	if f.nothing() {
		return x[0][block*f.blockLen():][:f.blockLen()]
	}
	for g := range f.groups() {
		f.compute(scratch, x, block, g)
	}
	if f.keeps() {
		return f.kept[block*f.blockLen():][:f.blockLen()]
	}
	return scratch
}

// prepare makes room for the gradients of a run.
func (f *prologue) prepare() {
	buffers.reserve(3*kernel.Chunk, f.pass.Blocks()*f.groups())
	if f.activation != nil && f.thetas == nil {
		f.thetas = make([]float32, f.pass.Blocks()*f.groups()*f.pieces()*len(f.activation.quantizer.Theta().Columns))
	}
}

// backward turns the gradient dy of one group of a block (dy holds the block) into those of its operands. Where the real
// numbers of the block are given in z, dy stays; else it turns into what the layer has taken in, unless f keeps that.
func (f *prologue) backward(dx [][]float32, dy []float32, x [][]float32, block, group int, z []float32) {
	b := buffers.get(3 * kernel.Chunk)
	defer buffers.put(b)
	f.each(block, group, func(p piece) {
		n := p.to - p.from
		at := block*f.blockLen() + p.from
		target := b[:n]
		if dx[0] != nil {
			target = dx[0][at:][:n]
		}
		room := [2][]float32{b[kernel.Chunk:][:n], b[2*kernel.Chunk:][:n]}
		f.pieceBackward(target, dy[p.from:p.to], x, p, sliceOf(z, p.from, p.to), room)
		if f.shortcut != nil {
			if to := dx[f.places.shortcut]; !f.sharesGradient() || dx[0] == nil {
				copyWanted(to, target, at)
			}
		}
	})
}

// pieceBackward is backward of a piece: target takes the gradient of the source, or of what its normalization gives.
func (f *prologue) pieceBackward(target, dy []float32, x [][]float32, p piece, z []float32, room [2][]float32) {
	kept := f.keptPiece(p)
	if z == nil && kept == nil && f.norm != nil && f.relu && f.shortcut == nil && f.activation == nil {
		source := x[0][p.block*f.blockLen():][p.from:p.to]
		f.channels(p, func(c, from, to int) {
			f.norm.rectifiedBackward(p.block, c, target[from:to], dy[from:to], source[from:to], p.first, p.last)
		})
		return
	}
	turns := z == nil && !f.keeps() // dy, into what the layer has taken in
	if kept != nil {
		z = kept
	}
	if z == nil {
		z = f.real(room[0], x, p)
	}
	before, taken := dy, z
	if f.activation != nil {
		before, taken = target, room[1]
		if kept != nil {
			before = room[0] // the gradient of what is kept may stand in target
		}
		f.activationGradient(before, taken, dy, z, x[f.places.theta], p)
	}
	f.pieceGradient(target, before, z, x, p)
	if turns {
		copy(dy, taken)
	}
}

// copyWanted copies a gradient to where it is wanted.
func copyWanted(to, from []float32, at int) {
	if to != nil {
		copy(to[at:], from)
	}
}

// activationGradient computes the gradient before the quantizer, its levels and the gradient of its parameters.
func (f *prologue) activationGradient(dx, levels, dy, z, theta []float32, p piece) {
	columns := len(f.thetas) / (f.pass.Blocks() * f.groups() * f.pieces())
	quantops.BackwardLevels(f.activation.quantizer, levels, dx, f.thetas[p.number*columns:][:columns], dy, z, theta)
}

// pieceGradient computes in target the gradient before the rectifier, behind which numbers that are kept join in, and what the
// normalization needs of it.
func (f *prologue) pieceGradient(target, dy, z []float32, x [][]float32, p piece) {
	var dkept []float32
	if f.dkept != nil {
		dkept = f.dkept[p.block*f.blockLen():][p.from:p.to]
	}
	if f.norm != nil && f.relu {
		source := x[0][p.block*f.blockLen():][p.from:p.to]
		f.channels(p, func(c, from, to int) {
			f.norm.rectifiedGradient(p.block, c, target[from:to], dy[from:to], sliceOf(dkept, from, to), z[from:to], source[from:to], p.first, p.last)
		})
		return
	}
	if dkept != nil {
		kernel.Add(target, dy, dkept)
		dy = target
	}
	switch {
	case f.relu:
		kernel.ReLUGradient(target, dy, z)
	case dkept == nil:
		copy(target, dy) // itself, where it stands there already
	}
	if f.norm != nil {
		source := x[0][p.block*f.blockLen():][p.from:p.to]
		f.channels(p, func(c, from, to int) {
			f.norm.addGradients(p.block, c, target[from:to], source[from:to], p.first, p.last)
		})
	}
}

// finish completes the gradients of parameters, after all groups.
func (f *prologue) finish(dx, x [][]float32) {
	if f.norm != nil {
		f.norm.finish(dx[0], x[0], dx[f.places.gamma], dx[f.places.beta], x[f.places.gamma])
	}
	if f.activation == nil || dx[f.places.theta] == nil {
		return
	}
	theta := dx[f.places.theta]
	for k := range theta {
		sum := 0.0
		for i := k; i < len(f.thetas); i += len(theta) {
			sum += float64(f.thetas[i])
		}
		theta[k] = float32(sum)
	}
}

// transform is a prologue as a Function of its own, for layers that don't take one in.
type transform struct{ prologue }

var _ quantops.Summing = (*transform)(nil)
var _ quantops.Sharing = (*transform)(nil)

func (f *transform) String() string { return f.name() }

// sharesGradient says whether the source's gradient is the shortcut's as well: a normalization changes it, unless a
// weighted layer sees to that.
func (f *prologue) sharesGradient() bool { return f.norm == nil || f.norm.shared }

// SharedGradient tells that of the shortcut.
func (f *prologue) SharedGradient(input int) int {
	if f.shortcut != nil && input == f.places.shortcut && f.sharesGradient() {
		return 0
	}
	return input
}

func (f *transform) Forward(y []float32, x [][]float32) error {
	f.begin(x)
	f.tasks(func(block, group int) { f.compute(y[block*f.blockLen():][:f.blockLen()], x, block, group) })
	return nil
}

// tasks runs do for every group in parallel.
func (f *prologue) tasks(do func(block, group int)) {
	kernel.Parallel(f.pass.Blocks()*f.groups(), func(i int) { do(i/f.groups(), i%f.groups()) })
}

func (f *transform) Backward(dx [][]float32, dy, y []float32, x [][]float32) error {
	return f.BackwardSum(dx, [][]float32{dy}, y, x)
}

// Replaces allows the gradient to stand where that of the result was.
func (f *transform) Replaces() int { return 0 }

func (f *transform) BackwardSum(dx, dys [][]float32, y []float32, x [][]float32) error {
	f.prepare()
	n := f.blockLen()
	if len(dys) > 1 {
		buffers.reserve(n, f.pass.Blocks()*f.groups())
	}
	f.tasks(func(block, group int) {
		dy := dys[0][block*n:][:n]
		if len(dys) > 1 {
			sum := buffers.get(n)
			defer buffers.put(sum)
			f.each(block, group, func(p piece) { f.addTerms(sum[p.from:p.to], dys, block*n+p.from) })
			dy = sum
		}
		f.backward(dx, dy, x, block, group, y[block*n:][:n])
	})
	f.finish(dx, x)
	return nil
}

// addTerms adds up the gradients of all users from an element on.
func (f *transform) addTerms(sum []float32, terms [][]float32, at int) {
	kernel.Add(sum, terms[0][at:], terms[1][at:])
	for _, term := range terms[2:] {
		kernel.Add(sum, sum, term[at:])
	}
}
