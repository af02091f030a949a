package kernel

import "math"

// octaves is a quick way through a staircase of steps of equal ratio to both sides of zero, 2^shift to the octave. It starts
// from the bits of a number, turned so that its sign comes last: exponent, mantissa, sign is an order of magnitudes, its
// key. From octave to octave the same mantissas are bounds, so that a step is
//
//	step = exponent·2^shift + counts[bucket] + (mantissa ≥ thresholds[bucket]) - base
//
// where a bucket is the mantissas that share their five highest bits, few enough to hold one bound at most. Assembly reads
// it field by field.
type octaves struct {
	thresholds [octaveBuckets]uint32 // the bound in the bucket, 2^24 where there is none
	counts     [octaveBuckets]int32  // bounds of the octave in the buckets before
	levels     [octaveSteps]float32  // of positive numbers by step; those of negative numbers are less than zero by as much
	zero       [2]uint32             // keys from which on positive (0) and negative (1) numbers are not zero
	shift      uint64
	base, last int32 // last step
}

const (
	octaveBuckets  = 32
	octaveSteps    = 128
	octaveMantissa = 1<<24 - 1 // the part of a key below the exponent
	bucketShift    = 19
)

// key is the bits of x with the sign last.
func key(x float32) uint32 { return math.Float32bits(x)<<1 | math.Float32bits(x)>>31 }

// Logarithmic tells that the positive levels from zero+1 on are steps of equal ratio, 2^shift to the octave, and the negative
// ones below zero their mirror images but for the smallest. Levels come faster then, where all that is so; they are the same.
func (s *Steps) Logarithmic(bounds, levels []float32, zero, shift int) {
	o := &octaves{shift: uint64(shift), last: int32(zero)}
	if o.mirrored(levels, zero) && o.place(bounds, zero) {
		s.octaves = o
	}
}

// mirrored takes the levels, if they are what Logarithmic says.
func (o *octaves) mirrored(levels []float32, zero int) bool {
	if zero < 1 || zero >= octaveSteps || len(levels) != 2*zero+2 || math.Float32bits(levels[zero]) != 0 {
		return false
	}
	for i, level := range levels[zero+1:] {
		if i > 0 && levels[zero-i] != -level {
			return false
		}
		o.levels[i] = level
	}
	return true
}

// place finds the buckets of the bounds and says whether steps found through them are those between the bounds.
func (o *octaves) place(bounds []float32, zero int) bool {
	perOctave := 1 << o.shift
	above, below := bounds[zero:], bounds[:zero] // of positive numbers, of negative ones
	if len(above) <= perOctave || !(above[0] >= 0x1p-100 && below[zero-1] <= -0x1p-100) {
		return false
	}
	up := func(i int) uint32 { return key(math.Nextafter32(above[i], math.MaxFloat32)) } // the first key beyond
	o.zero = [2]uint32{up(0), key(below[zero-1])}
	keys := make([]uint32, zero) // where a further step begins
	for i := range keys {
		keys[i] = up(i + 1)
		if i > 0 {
			negative := key(below[zero-1-i])
			if negative+1 != keys[i] && negative-1 != keys[i] {
				return false
			}
			keys[i] = min(keys[i], negative)
		}
	}
	if !o.bucket(keys[1:min(1+perOctave, zero)]) {
		return false
	}
	o.base = o.step(keys[0]) - 1
	for i, k := range keys {
		if o.step(k) != int32(i)+1 || o.step(k-1) != int32(i) {
			return false
		}
	}
	return true
}

// bucket puts the bounds of an octave into their buckets.
func (o *octaves) bucket(keys []uint32) bool {
	for b := range o.thresholds {
		o.thresholds[b] = octaveMantissa + 1
	}
	for _, k := range keys {
		b := k & octaveMantissa >> bucketShift
		if o.thresholds[b] <= octaveMantissa {
			return false
		}
		o.thresholds[b] = k & octaveMantissa
		for after := b + 1; after < octaveBuckets; after++ {
			o.counts[after]++
		}
	}
	return true
}

// step is the step of a key, of those that go on to both sides without an end.
func (o *octaves) step(key uint32) int32 {
	mantissa := key & octaveMantissa
	b := mantissa >> bucketShift
	step := int32(key>>24)<<o.shift + o.counts[b] - o.base
	if mantissa >= o.thresholds[b] {
		step++
	}
	return step
}
