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
	sweeps    int
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

	start, error float64 // squared errors: at first, and the least one
	best         []int16 // codes of the least one, and their scale
	bestScale    float64
}

func newBitSearch(q *bitsplit, w, theta []float32, m *Moments) *bitSearch {
	k := m.Inputs
	s := &bitSearch{quantizer: q, w: w, theta: theta, inputs: k, gram: kernel.NewQuadratic(m.Gram, k), diagonal: make([]float64, k)}
	for i := range k {
		s.diagonal[i] = float64(float32(m.Gram[i*k+i]))
	}
	for o := range theta {
		b := &bitOutput{codes: make([]int16, k), product: make([]float64, k)}
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

// run searches, at most so many sweeps. Outputs know nothing of each other.
func (s *bitSearch) run(sweeps int) {
	chunk := s.chunk()
	kernel.Parallel((len(s.outputs)+chunk-1)/chunk, func(i int) {
		from, to := i*chunk, min(len(s.outputs), (i+1)*chunk)
		t := &bitTask{bitSearch: s, active: slices.Clone(s.outputs[from:to])}
		t.changes = make([]float32, len(t.active)*s.gram.Side())
		t.begin(from)
		for range sweeps {
			if t.sweep(); len(t.active) == 0 {
				return
			}
		}
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
	active   []*bitOutput // that still move
	products [][]float64  // of those outputs whose codes change in a group of inputs
	changes  []float32    // by how much, [products][Side]
}

// begin starts the outputs, of which from is the first, at the codes of their fitted scales.
func (t *bitTask) begin(from int) {
	k := t.inputs
	for i, b := range t.active {
		w := t.w[(from+i)*k:][:k]
		b.begin(t.quantizer, w)
		if b.cross != nil {
			continue
		}
		b.cross = make([]float64, k) // of the responses of w itself, A·w
		t.multiply(b.cross, func(n int) float32 { return w[n] })
		for n, v := range w {
			b.energy += float64(float64(v) * b.cross[n])
		}
	}
	for _, b := range t.active {
		t.multiply(b.product, func(n int) float32 { return float32(b.codes[n]) })
		b.refit()
		b.start = b.error
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

// sweep goes over all bits of the active outputs once. Those in which nothing moves, or whose error falls no more, are
// active no longer.
func (t *bitTask) sweep() {
	for _, b := range t.active {
		b.moved = false
		b.sweeps++
	}
	for plane := range t.quantizer.bits - 1 {
		for g := range t.gram.Groups() {
			t.group(plane, g)
		}
	}
	t.active = slices.DeleteFunc(t.active, func(b *bitOutput) bool { return !b.moved || !b.refit() })
}

// group goes over one bit plane of one group of inputs.
func (t *bitTask) group(plane, g int) {
	side := t.gram.Side()
	t.products = t.products[:0]
	for _, b := range t.active {
		changes := t.changes[len(t.products)*side:][:side]
		clear(changes)
		if t.bits(b, plane, g, changes) {
			b.moved = true
			t.products = append(t.products, b.product)
		}
	}
	if len(t.products) > 0 {
		t.gram.Change(t.products, t.changes, g, true)
	}
}

// bits sets the bits of one output. A change shows in the products of the same group at once, and is noted for the
// others.
func (t *bitTask) bits(b *bitOutput, plane, g int, changes []float32) (moved bool) {
	first, n := t.gram.Group(g)
	worth := 1 << (t.quantizer.bits - 2 - plane)
	step := b.scale * float64(worth)
	bits, product, cross := b.planes[plane][first:][:n], b.product[first:][:n], b.cross[first:][:n]
	for i, diagonal := range t.diagonal[first:][:n] {
		square := float64(step * diagonal)
		bit := ternary(float64(b.scale*product[i])-cross[i]-float64(square*float64(bits[i])), square)
		if bit == bits[i] || diagonal == 0 {
			continue
		}
		change := int16(int(bit-bits[i]) * worth)
		bits[i], changes[i], moved = bit, float32(change), true
		b.codes[first+i] += change
		for j, v := range t.gram.Row(g, first+i)[:n] {
			product[j] += float64(float64(v) * float64(change))
		}
	}
	return moved
}

// ternary is the best of -1, 0 and 1 for a bit, from half the derivative of the error at 0 and half the second one.
func ternary(derivative, square float64) int8 {
	switch {
	case 2*derivative >= square && derivative > 0:
		return -1
	case -2*derivative >= square && derivative < 0:
		return 1
	}
	return 0
}

// begin starts at the codes of the fitted scale.
func (b *bitOutput) begin(q *bitsplit, w []float32) {
	b.scale = float64(q.fit(w))
	b.planes = make([][]int8, q.bits-1)
	for p := range b.planes {
		b.planes[p] = make([]int8, len(w))
	}
	for n, v := range w {
		code := int(q.code(float64(v), b.scale))
		b.codes[n] = int16(code)
		for p := range b.planes {
			b.planes[p][n] = int8(code / (1 << (q.bits - 2 - p)) % 2)
		}
	}
	b.error = math.Inf(1)
}

// refit sets the scale to the best for the codes, and says whether the error has fallen; if so it keeps them.
func (b *bitOutput) refit() bool {
	cross, square := 0.0, 0.0
	for n, code := range b.codes {
		cross += float64(float64(code) * b.cross[n])
		square += float64(float64(code) * b.product[n])
	}
	if square > 0 && cross > 0 {
		b.scale = cross / square
	}
	err := max(0, b.energy-float64(2*b.scale*cross)+float64(b.scale*b.scale*square))
	if !(err < b.error) {
		return false
	}
	b.error, b.bestScale = err, b.scale
	b.best = append(b.best[:0], b.codes...)
	return true
}
