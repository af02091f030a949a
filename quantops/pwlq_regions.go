package quantops

import (
	"fmt"
	"math"

	"github.com/goqat/goqat/integer"
)

const (
	maxBreakpoints = 3
	maxRegions     = maxBreakpoints + 1
)

// pieceSteps returns the base and the step size of the levels of magnitudes from low to high. Steps from zero on are those
// of bits codes in [-high, high]; others those of a code less, both ends included.
func pieceSteps(bits int, fromZero bool, low, high float64) (base, step float64) {
	if fromZero {
		return 0, 2 * high / float64(int(1)<<bits-1)
	}
	return low, (high - low) / float64(int(1)<<(bits-1)-1)
}

// regions is the piecewise linear quantizer of one channel. Region 0 is the centre; region r begins at the magnitude
// start[r], given as the bits of a float32, those that are not there beyond infinity.
type regions struct {
	pieces      [maxRegions]piece
	start       [maxRegions]uint32
	breakpoints int
	last        uint64 // largest index, 2^(bits-1)-1
	shift       float64
}

// piece is the arithmetic of a region: a magnitude a has the index k = round((a-base)/step) and is worth k·step + offset.
type piece struct {
	base, inverse float64 // of a step, 0 for none
	step, offset  float64 // times the gain of a correction
}

// newRegions makes the regions of ascending breakpoints up to a reach.
func newRegions(bits int, overlap bool, breakpoints []float32, reach float32) regions {
	s := regions{breakpoints: len(breakpoints), last: 1<<(bits-1) - 1}
	low := float32(0)
	for r := range s.start {
		if s.start[r] = math.MaxInt32; r > len(breakpoints) {
			continue
		}
		s.start[r] = math.Float32bits(low)
		high := reach
		if r < len(breakpoints) {
			high = breakpoints[r]
		}
		p := &s.pieces[r]
		p.base, p.step = pieceSteps(bits, overlap || r == 0, float64(low), float64(high))
		p.offset = p.base
		if p.step != 0 {
			p.inverse = 1 / p.step
		}
		low = high
	}
	return s
}

// correct makes the values gain·value + shift.
func (s *regions) correct(gain, shift float64) {
	for r := range s.pieces {
		p := &s.pieces[r]
		p.step, p.offset = float64(p.step*gain), float64(p.offset*gain)
	}
	s.shift = shift
}

// magnitude returns the bits of |x|, which are in the order of magnitudes.
func magnitude(x float32) uint32 { return math.Float32bits(x) &^ (1 << 31) }

// region finds a magnitude's region without a branch, since where a weight lies is hard to foresee: a difference below zero
// shows in its highest bit.
func (s *regions) region(magnitude uint32) uint32 {
	r := (s.start[1] - 1 - magnitude) >> 31
	if s.breakpoints > 1 {
		r += (s.start[2]-1-magnitude)>>31 + (s.start[3]-1-magnitude)>>31
	}
	return r & (maxRegions - 1)
}

// index returns the index of a magnitude. Adding 3·2^51 rounds, half to even, to an integer in the lowest bits. NaN has the
// index of infinity.
func (p *piece) index(magnitude uint32, last uint64) uint64 {
	const rounding = 3 << 51
	at := float64((float64(math.Float32frombits(magnitude)) - p.base) * p.inverse)
	return min(math.Float64bits(at+rounding)-math.Float64bits(rounding), last)
}

// value is what an index is worth before sign and shift.
func (p *piece) value(k uint64) float64 { return float64(p.step*float64(int64(k))) + p.offset }

// pieceTable holds the value of every sign, region and index.
type pieceTable [2 * maxRegions << (maxPieceBits - 1)]float32

const maxPieceBits = 8

// fill computes the values, summed as [integer.Weights.Decode] does, and returns the bits of an index.
func (t *pieceTable) fill(s *regions) (bits int) {
	bits = bitsFor(int(s.last) + 1)
	for r := range s.breakpoints + 1 {
		for k := range s.last + 1 {
			v, at := s.pieces[r].value(k), uint64(r)<<bits|k
			t[at] = float32(v + s.shift)
			t[maxRegions<<bits|at] = float32(-v + s.shift)
		}
	}
	return bits
}

// levels computes values. NaN stays NaN.
func (s *regions) levels(y, x []float32) {
	var table pieceTable
	bits := table.fill(s) & (maxPieceBits - 1)
	y = y[:len(x)]
	for i, v := range x {
		m := magnitude(v)
		r := s.region(m)
		k := s.pieces[r].index(m, s.last)
		sign := math.Float32bits(v) >> 31
		y[i] = table[(uint64(sign*maxRegions|r)<<bits|k)%uint64(len(table))]
		if v != v {
			y[i] = v
		}
	}
}

// squaredError is Σ (x - value)² of values that nothing corrects.
func (s *regions) squaredError(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		m := magnitude(v)
		p := &s.pieces[s.region(m)]
		d := float64(math.Float32frombits(m)) - p.value(p.index(m, s.last))
		sum += float64(d * d)
	}
	return sum
}

// moments returns the mean of the values and Σ (value - mean)². About lies near the mean, so that nothing cancels.
func (s *regions) moments(x []float32, about float64) (mean, squares float64) {
	sum, n := 0.0, float64(len(x))
	for _, v := range x {
		m := magnitude(v)
		p := &s.pieces[s.region(m)]
		d := math.Copysign(p.value(p.index(m, s.last)), float64(v)) - about
		sum += d
		squares += float64(d * d)
	}
	return about + sum/n, squares - float64(sum*sum)/n
}

// spread returns the largest magnitude of x, its mean and Σ (x - mean)²: four running sums, one after the other and added up
// in order.
func spread(x []float32) (reach float32, mean, squares float64) {
	sum, largest := sums4(x)
	mean = sum / float64(len(x))
	return math.Float32frombits(largest), mean, squares4(x, mean)
}

// sums4 returns the sum and the bits of the largest magnitude, those of NaN being larger than all.
func sums4(x []float32) (sum float64, largest uint32) {
	var a, b, c, d float64
	for ; len(x) >= 4; x = x[4:] {
		a += float64(x[0])
		b += float64(x[1])
		c += float64(x[2])
		d += float64(x[3])
		largest = max(largest, magnitude(x[0]), magnitude(x[1]), magnitude(x[2]), magnitude(x[3]))
	}
	for _, v := range x {
		a += float64(v)
		largest = max(largest, magnitude(v))
	}
	return a + b + c + d, largest
}

// squares4 is Σ (x - mean)².
func squares4(x []float32, mean float64) float64 {
	var a, b, c, d float64
	square := func(v float32) float64 {
		d := float64(v) - mean
		return float64(d * d)
	}
	for ; len(x) >= 4; x = x[4:] {
		a += square(x[0])
		b += square(x[1])
		c += square(x[2])
		d += square(x[3])
	}
	for _, v := range x {
		a += square(v)
	}
	return a + b + c + d
}

// pieceCodes is the layout of codes: the region above, bits below. Where steps count from zero these are the signed index in
// two's complement; beside it the sign and the index.
type pieceCodes struct {
	bits, breakpoints int
	overlap, correct  bool
}

func (c pieceCodes) fromZero(region int) bool { return c.overlap || region == 0 }

// width is the number of bits of a code.
func (c pieceCodes) width() int { return c.bits + bitsFor(c.breakpoints+1) }

// bitsFor is how many bits tell n things apart.
func bitsFor(n int) int {
	bits := 0
	for 1<<bits < n {
		bits++
	}
	return bits
}

// code is that of an index in a region.
func (c pieceCodes) code(region, k int, negative bool) uint16 {
	if negative && c.fromZero(region) {
		k = -k & (1<<c.bits - 1)
	} else if negative {
		k |= 1 << (c.bits - 1)
	}
	return uint16(region<<c.bits | k)
}

// index is the inverse of code: the region, its signed index and the sign, 1 or -1.
func (c pieceCodes) index(code int) (region int, k, sign int8) {
	region, code = code>>c.bits, code&(1<<c.bits-1)
	negative := code>>(c.bits-1) != 0
	if c.fromZero(region) {
		return region, int8(code<<(8-c.bits)) >> (8 - c.bits), 1
	}
	k, sign = int8(code&(1<<(c.bits-1)-1)), 1
	if negative {
		k, sign = -k, -1
	}
	return region, k, sign
}

// planes makes the tables: the index in each region and, where that counts from a breakpoint, the sign; a constant for a
// correction. Channel gives the regions of an output channel, which are what the scales come from.
func (c pieceCodes) planes(outputs int, channel func(o int) regions) []integer.Plane {
	var planes []integer.Plane
	add := func(entry func(region int, k, sign int8) int8, scale func(s regions) float64) {
		plane := integer.Plane{Table: make([]int8, 1<<c.width()), Scale: make([]float64, outputs)}
		for code := range plane.Table {
			plane.Table[code] = entry(c.index(code))
		}
		for o := range plane.Scale {
			plane.Scale[o] = scale(channel(o))
		}
		planes = append(planes, plane)
	}
	for r := range c.breakpoints + 1 {
		in := func(region int, entry int8) int8 {
			if region == r {
				return entry
			}
			return 0
		}
		add(func(region int, k, _ int8) int8 { return in(region, k) }, func(s regions) float64 { return s.pieces[r].step })
		if !c.fromZero(r) {
			add(func(region int, _, sign int8) int8 { return in(region, sign) }, func(s regions) float64 { return s.pieces[r].offset })
		}
	}
	if c.correct {
		add(func(int, int8, int8) int8 { return 1 }, func(s regions) float64 { return s.shift })
	}
	return planes
}

// encode turns the weights of a shape [outputs][…] into integers.
func (c pieceCodes) encode(x []float32, shape []int, channel func(o int) regions) (*integer.Weights, error) {
	w := &integer.Weights{Shape: shape, Bits: uint8(c.width()), Codes: make([]uint16, len(x)), Planes: c.planes(shape[0], channel)}
	n := len(x) / shape[0]
	for o := range shape[0] {
		s := channel(o)
		for i := o * n; i < (o+1)*n; i++ {
			if x[i] != x[i] {
				return nil, fmt.Errorf("quantops: weight %d is not a number", i)
			}
			m := magnitude(x[i])
			r := s.region(m)
			w.Codes[i] = c.code(int(r), int(s.pieces[r].index(m, s.last)), x[i] < 0)
		}
	}
	return w, w.Validate()
}
