package quantops

import (
	"math"
	"runtime"
	"slices"

	"github.com/goqat/goqat/internal/kernel"
)

// bitSearch is the search of bitsplit for the outputs of one group of channels.
type bitSearch struct {
	quantizer *bitsplit
	w, theta  []float32
	inputs    int
	gram      *kernel.Quadratic
	diagonal  []float64
	outputs   []*bitOutput
}

// bitOutput is the state of one output: with codes b, the bit planes' sum, everything that a step needs to know is in
// the product A·b.
type bitOutput struct {
	cross   []float64 // Xᵀy
	energy  float64   // Σ y²
	scale   float64   // α
	codes   []int16
	planes  [][]int8  // ternary, the most significant first
	product []float64 // A·codes
	moved   bool      // in the latest sweep
	sweeps  int

	start, now, error float64 // squared errors: at first, since the latest start, and the least of all
	best              []int16 // codes of the least one, and their scale
	bestScale         float64
}

func newBitSearch(q *bitsplit, w, theta []float32, m *Moments) *bitSearch {
	k := m.Inputs
	s := &bitSearch{quantizer: q, w: w, theta: theta, inputs: k, gram: kernel.NewQuadratic(m.Gram, k), diagonal: make([]float64, k)}
	for i := range k {
		s.diagonal[i] = float64(float32(m.Gram[i*k+i]))
	}
	for o := range theta {
		b := &bitOutput{codes: make([]int16, k), product: make([]float64, k), error: math.Inf(1)}
		if m.Cross != nil {
			b.cross, b.energy = m.Cross[o*k:][:k], m.Energy[o]
		}
		s.outputs = append(s.outputs, b)
	}
	return s
}

// chunk is how many outputs a task takes: many, so that what it reads of the matrix serves all of them, but every thread
// shall have some.
func (s *bitSearch) chunk() int {
	const most = 64
	each := (len(s.outputs) + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	return min(most, max(4, each))
}

// run searches, at most so many sweeps from each start. Outputs know nothing of each other.
func (s *bitSearch) run(sweeps int) {
	chunk := s.chunk()
	kernel.Parallel((len(s.outputs)+chunk-1)/chunk, func(i int) {
		t := &bitTask{bitSearch: s, from: i * chunk}
		t.all = s.outputs[t.from:min(len(s.outputs), t.from+chunk)]
		t.changes = make([]float32, len(t.all)*s.gram.Side())
		t.run(sweeps)
	})
}

// finish writes weights and scales and tells what was reached.
func (s *bitSearch) finish() Solution {
	sum := Solution{Settled: true}
	for o, b := range s.outputs {
		s.theta[o] = max(float32(b.bestScale), smallestScale)
		for i, code := range b.best {
			s.w[o*s.inputs+i] = s.theta[o] * float32(code)
		}
		sum.Start, sum.Error, sum.Energy = sum.Start+b.start, sum.Error+b.error, sum.Energy+b.energy
		sum.Sweeps, sum.Settled = max(sum.Sweeps, b.sweeps), sum.Settled && !b.moved
	}
	return sum
}

// bitTask is the part of a search that one thread does.
type bitTask struct {
	*bitSearch
	from     int          // the first output
	all      []*bitOutput // outputs from that one on
	active   []*bitOutput // those that still move
	products [][]float64  // of those outputs whose codes change in a group of inputs
	changes  []float32    // by how much, [products][Side]
}

func (t *bitTask) run(sweeps int) {
	for i, b := range t.all {
		if b.cross == nil {
			t.respond(b, t.weights(i))
		}
	}
	t.start(1)
	for _, b := range t.all {
		b.start = b.now
	}
	t.until(sweeps, t.sweepBits)
	if !t.quantizer.thorough {
		return
	}
	t.until(sweeps, t.sweepCodes)
	for _, factor := range thoroughStarts {
		t.start(factor)
		t.until(sweeps, t.sweepCodes)
	}
}

// weights are those of an output.
func (t *bitTask) weights(i int) []float32 { return t.w[(t.from+i)*t.inputs:][:t.inputs] }

// respond makes y the responses of the weights w themselves: Xᵀy = A·w.
func (t *bitTask) respond(b *bitOutput, w []float32) {
	b.cross = make([]float64, t.inputs)
	t.multiply(b.cross, func(n int) float32 { return w[n] })
	for n, v := range w {
		b.energy += float64(float64(v) * b.cross[n])
	}
}

// multiply adds A·v to a product.
func (t *bitTask) multiply(product []float64, v func(n int) float32) {
	for g := range t.gram.Groups() {
		first, n := t.gram.Group(g)
		for i := range n {
			t.changes[i] = v(first + i)
		}
		t.gram.Change([][]float64{product}, t.changes, g, false)
	}
}

// start sets the codes to those that weights have at a multiple of their fitted scale.
func (t *bitTask) start(factor float64) {
	for i, b := range t.all {
		b.begin(t.quantizer, t.weights(i), factor)
		clear(b.product)
		t.multiply(b.product, func(n int) float32 { return float32(b.codes[n]) })
		b.refit()
	}
}

// until sweeps over all outputs until nothing moves. An output in which nothing does, or whose error falls no more,
// rests.
func (t *bitTask) until(sweeps int, sweep func()) {
	t.active = append(t.active[:0], t.all...)
	for range sweeps {
		for _, b := range t.active {
			b.moved = false
			b.sweeps++
		}
		sweep()
		t.active = slices.DeleteFunc(t.active, func(b *bitOutput) bool { return !b.moved || !b.refit() })
		if len(t.active) == 0 {
			return
		}
	}
}

// sweepBits goes over all bits once.
func (t *bitTask) sweepBits() {
	for plane := range t.quantizer.bits - 1 {
		for g := range t.gram.Groups() {
			t.group(g, func(b *bitOutput, changes []float32) { t.setBits(b, plane, g, changes) })
		}
	}
}

// sweepCodes goes over all codes once.
func (t *bitTask) sweepCodes() {
	for g := range t.gram.Groups() {
		t.group(g, func(b *bitOutput, changes []float32) { t.setCodes(b, g, changes) })
	}
}

// group lets set change the codes of one group of inputs in all active outputs, and brings their products up to date.
func (t *bitTask) group(g int, set func(b *bitOutput, changes []float32)) {
	side := t.gram.Side()
	t.products = t.products[:0]
	for _, b := range t.active {
		changes := t.changes[len(t.products)*side:][:side]
		clear(changes)
		if set(b, changes); slices.ContainsFunc(changes, func(v float32) bool { return v != 0 }) {
			b.moved = true
			t.products = append(t.products, b.product)
		}
	}
	if len(t.products) > 0 {
		t.gram.Change(t.products, t.changes, g, true)
	}
}

// setBits sets the bits of one plane of one output.
func (t *bitTask) setBits(b *bitOutput, plane, g int, changes []float32) {
	first, n := t.gram.Group(g)
	worth := 1 << (t.quantizer.bits - 2 - plane)
	step := b.scale * float64(worth)
	bits, product, cross := b.planes[plane][first:][:n], b.product[first:][:n], b.cross[first:][:n]
	for i, diagonal := range t.diagonal[first:][:n] {
		square := float64(step * diagonal)
		bit := bestBit(float64(b.scale*product[i])-cross[i]-float64(square*float64(bits[i])), square)
		if bit != bits[i] && diagonal > 0 {
			t.change(b, g, i, int(bit-bits[i])*worth, changes)
			bits[i] = bit
		}
	}
}

// setCodes sets the codes of one output to the best whole numbers.
func (t *bitTask) setCodes(b *bitOutput, g int, changes []float32) {
	first, n := t.gram.Group(g)
	codes, product, cross := b.codes[first:][:n], b.product[first:][:n], b.cross[first:][:n]
	for i, diagonal := range t.diagonal[first:][:n] {
		if diagonal == 0 {
			continue
		}
		weight := float64(float64(codes[i])*b.scale) - (float64(b.scale*product[i])-cross[i])/diagonal
		best := t.quantizer.code(weight, b.scale)
		if change := int(best) - int(codes[i]); change != 0 {
			t.change(b, g, i, change, changes)
		}
	}
}

// change changes the code of input i of a group. It shows in the products of the group at once, and is noted for the
// others.
func (t *bitTask) change(b *bitOutput, g, i, by int, changes []float32) {
	first, n := t.gram.Group(g)
	b.codes[first+i] += int16(by)
	changes[i] = float32(by)
	product := b.product[first:][:n]
	for j, v := range t.gram.Row(g, first+i)[:n] {
		product[j] += float64(float64(v) * float64(by))
	}
}

// bestBit is the best of -1, 0 and 1 for a bit, from half the derivative of the error at 0 and half the second one.
func bestBit(derivative, square float64) int8 {
	switch {
	case 2*derivative >= square && derivative > 0:
		return -1
	case -2*derivative >= square && derivative < 0:
		return 1
	}
	return 0
}

// begin sets the codes to those that weights have at a multiple of their fitted scale.
func (b *bitOutput) begin(q *bitsplit, w []float32, factor float64) {
	b.scale = float64(q.fit(w)) * factor
	if b.planes == nil {
		b.planes = make([][]int8, q.bits-1)
		for p := range b.planes {
			b.planes[p] = make([]int8, len(w))
		}
	}
	for n, v := range w {
		code := int(q.code(float64(v), b.scale))
		b.codes[n] = int16(code)
		for p := range b.planes {
			b.planes[p][n] = int8(code / (1 << (q.bits - 2 - p)) % 2)
		}
	}
	b.now = math.Inf(1)
}

// refit sets the scale to the best for the codes, keeps the two if no better ones are known, and says whether the
// error has fallen since the start.
func (b *bitOutput) refit() (fallen bool) {
	cross, square := 0.0, 0.0
	for n, code := range b.codes {
		cross += float64(float64(code) * b.cross[n])
		square += float64(float64(code) * b.product[n])
	}
	if square > 0 && cross > 0 {
		b.scale = cross / square
	}
	err := max(0, b.energy-float64(2*b.scale*cross)+float64(b.scale*b.scale*square))
	if err < b.error {
		b.error, b.bestScale = err, b.scale
		b.best = append(b.best[:0], b.codes...)
	}
	fallen = err < b.now
	b.now = min(b.now, err)
	return fallen
}
