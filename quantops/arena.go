package quantops

import (
	"slices"

	"github.com/goqat/goqat/internal/kernel"
	"gorgonia.org/gorgonia"
)

// arena is the memory of the gradients of a graph that only its own operations read. A gradient may take the place of one
// that all readers have done with, so that few of them are alive at a time and stay in the caches; that is known where the
// readers are among what the new one is computed from. Gradients of parameters and other leaves are never replaced.
type arena struct{ memories []*memory }

// memory holds a gradient, or the same one of several inputs.
type memory struct {
	y       []float32
	waiting int // inputs whose gradient it is and which have not read it yet
	readers []*backward
}

// Replacing is a Differentiable that may leave the gradient of its first input where one of its result was, because it
// reads no element of that after it has written the same element. Replaces returns which: 0 for that of the result, 1 for
// the next user's or, of a [Keeping] function, what it keeps.
type Replacing interface {
	Differentiable
	Replaces() int
}

// arenaOf returns the arena that the gradients of a result lie in, a new one for gradients from elsewhere.
func arenaOf(incoming gorgonia.Nodes) *arena {
	for _, n := range incoming {
		if g := gradientAt(n); g != nil {
			return g.from.arena
		}
	}
	return new(arena)
}

// gradientAt returns the gradient that a node holds, nil where the node is none.
func gradientAt(n *gorgonia.Node) *gradient {
	switch o := n.Op().(type) {
	case *backward:
		return o.gradient
	case *gradient:
		return o
	}
	return nil
}

// read notes that b reads the gradients, and what b is computed from.
func (b *backward) read(incoming gorgonia.Nodes) {
	b.before = map[*backward]bool{}
	for _, n := range incoming {
		g := gradientAt(n)
		if g == nil {
			continue
		}
		b.before[g.from] = true
		for earlier := range g.from.before {
			b.before[earlier] = true
		}
		if g.memory != nil {
			g.memory.waiting--
			g.memory.readers = append(g.memory.readers, b)
		}
	}
}

// take returns n elements for a gradient of b's: those taken last, and so likely still in the caches, of the ones that are free
// or that b may replace, else new ones.
func (a *arena) take(n int, b *backward, replaced *memory) *memory {
	for i, m := range slices.Backward(a.memories) {
		if len(m.y) == n && m.free(b, m == replaced) {
			a.memories = slices.Delete(a.memories, i, i+1)
			return a.add(m.y)
		}
	}
	return a.add(kernel.Allocate(n))
}

func (a *arena) add(y []float32) *memory {
	m := &memory{y: y, waiting: 1}
	a.memories = append(a.memories, m)
	return m
}

// free says whether b may write to the memory, which b itself may still have to read where it replaces it.
func (m *memory) free(b *backward, replaces bool) bool {
	return m.waiting == 0 && !slices.ContainsFunc(m.readers, func(r *backward) bool { return !b.before[r] && !(replaces && r == b) })
}
