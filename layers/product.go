package layers

import (
	"runtime"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

// product is a weighted layer's arithmetic in training: levels of x times levels of w, times what they are worth, plus
// bias. Its operands are those of its prologue, then w and the bias.
//
// Convolutions go block by block, so that what lies between the layer's operands and its sums stays in the second cache:
// the prologue's results, the gradient of the layer's output behind a normalization, and that of its input before the
// prologue's gradient. Where blocks are too few for the threads, these are tensors, and every step has tasks of its own.
type product struct {
	prologue
	*weighted
	plan, one *kernel.Conv          // of all blocks, and of one
	multiply  linearMap             // of all blocks: the plan, or Winograd's algorithm
	fast      *kernel.WinogradBlock // that of one block; nil for the plan
	levels    *activation           // nil where x holds real numbers
	after     *normalize            // what takes in the output and shares its work; nil for none
	hard      *hardBranch           // what looks at the output with hard weights; nil for none
	scale     []float32             // worth of one accumulator unit in each output channel
	weights   []float32             // real weights
	down      bool                  // Forward begins with the last block, and Backward with the first
}

var _ quantops.Keeping = (*product)(nil)
var _ quantops.Sharing = (*product)(nil)

// linearMap is a convolution or linear layer with its input gradient.
type linearMap interface {
	Forward(y, x, w, scale, bias []float32)
	InputGradient(dx, dy, w []float32)
}

func newProduct(w *weighted, p *Pass, levels *activation) *product {
	plan := w.plan(p.Blocks())
	f := &product{weighted: w, plan: plan, one: plan.Block(), multiply: plan, levels: levels, down: p.down}
	p.down = !p.down
	if p.Mode == Training && p.softWeights() && w.hard != nil && !w.hard.norm.Frozen {
		f.hard = w.hard
	}
	if p.winograd && w.winograd != nil {
		if fast, ok := w.winograd(p.Blocks()); ok {
			f.multiply, f.fast = fast, fast.Block()
		}
	}
	return f
}

func (f *product) String() string { return f.name }

// follow lets a normalization take in the output.
func (f *product) follow(n *normalize) {
	n.shared, f.after = true, n
	n.allocate()
}

// weightPlace is the operand that holds the weights.
func (f *product) weightPlace(x [][]float32) int {
	if f.bias != nil {
		return len(x) - 2
	}
	return len(x) - 1
}

func (f *product) biasOf(x [][]float32) []float32 {
	if f.bias == nil {
		return nil
	}
	return x[len(x)-1]
}

// byBlocks says whether the layer had better go block by block: there is one, or several, for each thread.
func (w *weighted) byBlocks(blocks int) bool {
	threads := runtime.GOMAXPROCS(0)
	return w.apart && (blocks%threads == 0 || blocks >= 4*threads)
}

// outLen is the number of elements of a block of the output.
func (f *product) outLen() int { return f.out.Len() * kernel.Lanes }

func (f *product) outPlane() int { return f.out.Height * f.out.Width * kernel.Lanes }

func (f *product) Forward(y []float32, x [][]float32) error {
	f.begin(x)
	branches := f.branches(y, x)
	if f.byBlocks(f.pass.Blocks()) {
		f.forwardBlocks(branches, x)
	} else {
		f.forwardWhole(branches, x)
	}
	if len(branches) > 1 {
		f.hard.finish()
	}
	return nil
}

// branch is weights to multiply with, and what happens to a block of what comes of it.
type branch struct {
	w    []float32
	y    []float32 // of all blocks; nil where nothing is kept
	same bool      // comes out as the branch before
	take func(block int, y []float32)
}

// branches returns what there is to compute: the output, and where it is due that with hard weights.
func (f *product) branches(y []float32, x [][]float32) []branch {
	w := x[f.weightPlace(x)]
	all := []branch{{w: w, y: y, take: f.statistics}}
	if f.hard != nil && f.hard.due() {
		hard := f.hard.begin(f.pass.Images, f.out)
		all = append(all, branch{w: hard, same: f.hard.weight.oneHot(), take: f.hard.take})
	}
	return all
}

// forwardWhole computes one branch after the other, each of all blocks.
func (f *product) forwardWhole(branches []branch, x [][]float32) {
	in, scales, bias := f.whole(x), f.scales(), f.biasOf(x)
	defer in.release()
	for _, b := range branches {
		y := b.y
		if y == nil {
			y = buffers.get(len(branches[0].y))
			defer buffers.put(y)
		}
		f.multiply.Forward(y, in.x, b.w, scales, bias)
		kernel.Parallel(f.pass.Blocks(), func(block int) { b.take(block, y[block*f.outLen():][:f.outLen()]) })
	}
}

// inTurn has a task for each block. Layers take turns in the direction, so that each begins with what the one before has left
// in the caches.
func (f *product) inTurn(down bool, do func(block int)) {
	last := f.pass.Blocks() - 1
	kernel.Parallel(last+1, func(block int) {
		if down {
			block = last - block
		}
		do(block)
	})
}

// forwardBlocks computes all branches of a block, in the cache, before the next.
func (f *product) forwardBlocks(branches []branch, x [][]float32) {
	scales, bias := f.scales(), f.biasOf(x)
	var one linearMap = f.one
	if f.fast != nil {
		one = f.fast
		for i := range branches {
			u := buffers.get(f.fast.WeightsLen())
			defer buffers.put(u)
			f.fast.ForwardWeights(u, branches[i].w)
			branches[i].w = u
		}
	}
	size := f.blockLen()
	if len(branches) > 1 {
		size += f.outLen()
	}
	buffers.reserve(size, f.pass.Blocks())
	f.inTurn(f.down, func(block int) {
		scratch := buffers.get(size)
		defer buffers.put(scratch)
		in, last := f.block(scratch[:f.blockLen()], x, block), []float32(nil)
		for _, b := range branches {
			y := scratch[f.blockLen():size]
			if b.y != nil {
				y = b.y[block*f.outLen():][:f.outLen()]
			}
			if b.same {
				copy(y, last)
			} else {
				one.Forward(y, in, b.w, scales, bias)
			}
			b.take(block, y)
			last = y
		}
	})
}

// statistics takes a block of the output in for the normalization after it.
func (f *product) statistics(block int, y []float32) {
	if f.after == nil || f.after.running {
		return
	}
	for c := range f.out.Channels {
		f.after.addStatistics(block, c, y[c*f.outPlane():][:f.outPlane()])
	}
}

// taken is what a layer takes in, as a tensor.
type taken struct{ x, scratch []float32 }

func (t *taken) release() {
	if t.scratch != nil {
		buffers.put(t.scratch)
	}
}

// whole computes the prologue of all blocks.
func (f *product) whole(x [][]float32) taken {
	switch {
	case f.nothing():
		return taken{x: x[0]}
	case f.keeps():
		f.tasks(func(block, group int) { f.compute(nil, x, block, group) })
		return taken{x: f.kept}
	}
	scratch := buffers.get(f.pass.Blocks() * f.blockLen())
	f.tasks(func(block, group int) { f.compute(scratch[block*f.blockLen():][:f.blockLen()], x, block, group) })
	return taken{scratch, scratch}
}

// scales returns the product of the units of x and w for each output channel; nil where both are real numbers.
func (f *product) scales() []float32 {
	units, unit := f.weight.Units(), float32(1)
	if f.levels != nil {
		unit = f.levels.unit()
	}
	if units == nil && f.levels == nil {
		return nil
	}
	if f.scale == nil {
		f.scale = make([]float32, f.out.Channels)
	}
	for o := range f.scale {
		f.scale[o] = unit
		if units != nil {
			f.scale[o] *= units[o%len(units)]
		}
	}
	return f.scale
}

// Keep takes the memory for what the layer takes in before it is quantized.
func (f *product) Keep(memory []float32) { f.kept = memory }

// Replaces allows the gradient of the layer's input to stand where that of what it keeps was.
func (f *product) Replaces() int { return 1 }

func (f *product) BackwardKept(dx [][]float32, dy, dkept, y []float32, x [][]float32) error {
	f.dkept = dkept
	return f.Backward(dx, dy, y, x)
}

func (f *product) Backward(dx [][]float32, dy, y []float32, x [][]float32) error {
	f.prepare()
	g := &gradients{product: f, dx: dx, dy: dy, y: y, x: x, w: f.realWeights(x[f.weightPlace(x)])}
	g.wanted = dx[0] != nil
	for i := 1; i < f.weightPlace(x); i++ {
		g.wanted = g.wanted || dx[i] != nil
	}
	if f.byBlocks(f.pass.Blocks()) {
		g.eachBlock()
	} else {
		g.whole()
	}
	if g.wanted {
		f.finish(dx, x)
	}
	if f.levels != nil {
		unit, dw := f.levels.unit(), dx[f.weightPlace(x)]
		for i := range dw {
			dw[i] *= unit
		}
	}
	f.observe(x)
	return nil
}

// realWeights returns the weights that the levels stand for.
func (f *product) realWeights(levels []float32) []float32 {
	units := f.weight.Units()
	if units == nil {
		return levels
	}
	if f.weights == nil {
		f.weights = make([]float32, len(levels))
	}
	each := len(levels) / f.out.Channels
	for o := range f.out.Channels {
		unit, row := units[o%len(units)], f.weights[o*each:(o+1)*each]
		for i, level := range levels[o*each : (o+1)*each] {
			row[i] = level * unit
		}
	}
	return f.weights
}

// gradients is one run of product.Backward.
type gradients struct {
	*product
	dx, x    [][]float32
	dy, y, w []float32
	wanted   bool // any gradient before the weights'
}

// output returns the gradient of a block of the layer's output, completed in scratch where a normalization has left
// that to the layer.
func (g *gradients) output(scratch []float32, block int) []float32 {
	at := block * g.outLen()
	dy := g.dy[at:][:g.outLen()]
	if g.after == nil {
		return dy
	}
	plane := g.outPlane()
	for c := range g.out.Channels {
		g.after.inputGradient(scratch[c*plane:][:plane], dy[c*plane:], g.y[at+c*plane:][:plane], c)
	}
	kernel.ClearPadding(scratch[:g.outLen()], g.pass.Images-block*kernel.Lanes)
	return scratch
}

// eachBlock computes the gradients with a task for each block; those of the weights add up in the order of blocks.
func (g *gradients) eachBlock() {
	blocks, weights := g.pass.Blocks(), len(g.w)
	parts := buffers.get(blocks * (weights + g.out.Channels))
	defer buffers.put(parts)
	var one linearMap = g.one
	if g.fast != nil && g.wanted {
		u := buffers.get(g.fast.WeightsLen())
		defer buffers.put(u)
		g.fast.GradientWeights(u, g.w)
		one, g.w = g.fast, u
	}
	size := g.blockLen() + g.outLen()
	buffers.reserve(size, blocks)
	g.inTurn(!g.down, func(block int) {
		b := buffers.get(size)
		defer buffers.put(b)
		dy := g.output(b[g.blockLen():], block)
		g.one.WeightGradient(parts[block*weights:][:weights], g.input(one, b[:g.blockLen()], dy, block), dy)
		if g.bias != nil {
			g.one.BiasGradient(parts[blocks*weights+block*g.out.Channels:][:g.out.Channels], dy)
		}
	})
	last := g.weightPlace(g.x)
	addParts(g.dx[last], parts[:blocks*weights])
	if g.bias != nil {
		addParts(g.dx[last+1], parts[blocks*weights:][:blocks*g.out.Channels])
	}
}

// input computes the gradients before the layer's of a block and returns what the layer has taken in, in scratch where it
// lies nowhere else.
func (g *gradients) input(one linearMap, scratch, dy []float32, block int) []float32 {
	if !g.wanted {
		return g.block(scratch, g.x, block)
	}
	if g.nothing() { // wanted can be no other gradient than that of x
		one.InputGradient(g.dx[0][block*g.blockLen():], dy, g.w)
		return g.block(scratch, g.x, block)
	}
	one.InputGradient(scratch, dy, g.w)
	for group := range g.groups() {
		g.backward(g.dx, scratch, g.x, block, group, nil)
	}
	if g.keeps() {
		return g.kept[block*g.blockLen():][:g.blockLen()]
	}
	return scratch
}

// addParts adds up parts of the length of sum in order.
func addParts(sum, parts []float32) {
	copy(sum, parts)
	for from := len(sum); from < len(parts); from += len(sum) {
		kernel.Add(sum, sum, parts[from:][:len(sum)])
	}
}

// whole computes the gradients one after the other, each of all blocks.
func (g *gradients) whole() {
	blocks := g.pass.Blocks()
	dy := g.dy
	if g.after != nil {
		dy = buffers.get(blocks * g.outLen())
		defer buffers.put(dy)
		kernel.Parallel(blocks, func(block int) { g.output(dy[block*g.outLen():][:g.outLen()], block) })
	}
	in := taken{x: g.x[0]}
	switch {
	case g.wanted && g.nothing():
		g.multiply.InputGradient(g.dx[0], dy, g.w)
	case g.wanted:
		n := g.blockLen()
		scratch := buffers.get(blocks * n)
		in = taken{scratch, scratch}
		g.multiply.InputGradient(scratch, dy, g.w)
		g.tasks(func(block, group int) { g.backward(g.dx, scratch[block*n:][:n], g.x, block, group, nil) })
		if g.keeps() {
			in.x = g.kept
		}
	default:
		in = g.product.whole(g.x)
	}
	defer in.release()
	last := g.weightPlace(g.x)
	g.plan.WeightGradient(g.dx[last], in.x, dy)
	if g.bias != nil {
		g.plan.BiasGradient(g.dx[last+1], dy)
	}
}
