package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// rectified is what the passes one after the other make of a plane, on the portable path.
type rectified struct {
	z, dx []float32
	sums  []PlaneSums
}

func (c normCase) rectified(term []float32) rectified {
	r := rectified{make([]float32, len(c.x)), make([]float32, len(c.x)), c.NewSums()}
	onPath(portable, func() {
		for i := range r.sums {
			b, k := i/c.Channels, i%c.Channels
			z, dx, dy, x := c.at(r.z, b, k), c.at(r.dx, b, k), c.at(c.dy, b, k), c.at(c.x, b, k)
			Affine(z, x, c.scale[k], c.offset[k])
			if term != nil {
				Add(z, z, c.at(term, b, k))
				Add(dx, dy, c.at(term, b, k))
				dy = dx
			}
			ReLU(z, z)
			ReLUGradient(dx, dy, z)
			c.AddGradients(r.sums, b, k, dx, x, c.slope[k], true, true)
		}
	})
	return r
}

// Every path does in one pass what the passes do one after the other, wherever the result may stand.
func TestAffineReLUEqualsItsPasses(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 1))
	for range 40 {
		c := randomNormCase(stream)
		for _, term := range [][]float32{nil, awkward(stream, len(c.x))} {
			want := c.rectified(term)
			for alias := range 3 { // the result stands apart, where dy was, where the term was
				if alias == 2 && term == nil {
					continue
				}
				onEveryPath(t, func(t *testing.T) {
					c.requireRectified(t, want, term, alias, fmt.Sprintf("%+v, with a term %v, result at %d", c.BatchNorm, term != nil, alias))
				})
			}
		}
	}
}

func (c normCase) requireRectified(t *testing.T, want rectified, term []float32, alias int, note string) {
	z, zIntact := guarded(t, len(c.x))
	dx, dxIntact := guarded(t, len(c.x))
	dy, sums := c.dy, c.NewSums()
	switch alias {
	case 1:
		copy(dx, dy)
		dy = dx
	case 2:
		copy(dx, term)
	}
	for i := range sums {
		b, k := i/c.Channels, i%c.Channels
		var added, replaced []float32
		if term != nil {
			added, replaced = c.at(term, b, k), c.at(term, b, k)
		}
		if alias == 2 {
			replaced = c.at(dx, b, k)
		}
		x, zs := c.at(c.x, b, k), c.at(z, b, k)
		AffineReLU(zs, x, added, c.scale[k], c.offset[k])
		half := len(x) / 2 / Lanes * Lanes
		for _, p := range [][2]int{{0, half}, {half, len(x)}} {
			from, to := p[0], p[1]
			var part []float32
			if term != nil {
				part = replaced[from:to]
			}
			c.AffineReLUGradient(sums, b, k, c.at(dx, b, k)[from:to], c.at(dy, b, k)[from:to], part, zs[from:to], x[from:to], c.slope[k], from == 0, to == len(x))
		}
	}
	zIntact()
	dxIntact()
	requireSame(t, want.z, z, note+": z")
	requireSame(t, want.dx, dx, note+": dx")
	requireSameSums(t, want.sums, sums, note)
}

func requireSameSums(t *testing.T, want, got []PlaneSums, note string) {
	t.Helper()
	for i := range want {
		requireSameWide(t, []float64{want[i].first, want[i].second}, []float64{got[i].first, got[i].second}, note)
	}
}

// Without z at hand, it takes the place of dy.
func TestAffineReLUBackward(t *testing.T) {
	stream := rand.New(rand.NewPCG(2, 2))
	for range 40 {
		c := randomNormCase(stream)
		want := c.rectified(nil)
		onEveryPath(t, func(t *testing.T) {
			dx, intact := guarded(t, len(c.x))
			dy, dyIntact := guarded(t, len(c.x))
			copy(dy, c.dy)
			sums := c.NewSums()
			for i := range sums {
				b, k := i/c.Channels, i%c.Channels
				half := c.Size / 2 * Lanes
				for _, p := range [][2]int{{0, half}, {half, c.Size * Lanes}} {
					part := func(v []float32) []float32 { return c.at(v, b, k)[p[0]:p[1]] }
					c.AffineReLUBackward(sums, b, k, part(dx), part(dy), part(c.x), c.scale[k], c.offset[k], c.slope[k], p[0] == 0, p[1] == c.Size*Lanes)
				}
			}
			intact()
			dyIntact()
			note := fmt.Sprintf("%+v", c.BatchNorm)
			requireSame(t, want.z, dy, note+": z")
			requireSame(t, want.dx, dx, note+": dx")
			requireSameSums(t, want.sums, sums, note)
		})
	}
}

// Numbers that fill no vector are done as well.
func TestAffineReLUOfAnyLength(t *testing.T) {
	stream := rand.New(rand.NewPCG(3, 3))
	for n := range 40 {
		x, term := awkward(stream, n), awkward(stream, n)
		want := slices.Clone(x)
		onPath(portable, func() {
			Affine(want, want, 1.5, -0.25)
			Add(want, want, term)
			ReLU(want, want)
		})
		onEveryPath(t, func(t *testing.T) {
			y, intact := guarded(t, n)
			AffineReLU(y, x, term, 1.5, -0.25)
			intact()
			requireSame(t, want, y, fmt.Sprintf("%d elements", n))
		})
	}
	require.Panics(t, func() { AffineReLU(make([]float32, 32), make([]float32, 32), make([]float32, 31), 1, 0) })
}
