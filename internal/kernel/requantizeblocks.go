package kernel

import (
	"fmt"
	"math"
)

// BlockRequantizer is a [Requantizer] of activations in blocks, where the elements of a channel lie together. Their sums are
// integers in float32 and may come in several terms. For a channel's terms x_k it is
//
//	clamp(round((sum over k of x_k * factor_k * multiplier_k + bias) / 2^shift), min, max)
//
// with ties to even, for terms of at most 2^24 in magnitude and below 2^31 with their factors, sums below 2^62 and shifts up
// to 62. Results are rounded to float32, which is exact up to 2^24.
type BlockRequantizer struct {
	terms, channels int
	numbers         []int64 // [channels][5 + 2·terms]: see the fields below
	limits          blockLimits
}

// blockLimits bound results. Assembly reads it field by field.
type blockLimits struct{ min, max int64 }

// The numbers of a channel. Sums are moved up by 2^63, as in [Requantizer].
const (
	blockBias   = iota // bias + 2^63
	blockShift         // shift
	blockHalf          // 2^(shift-1) - 1, or 0
	blockOne           // 1, or 0 for a shift of 0
	blockUnbias        // -2^(63-shift)
	blockTerm          // of term 0 multiplier and factor, the latter as the bits of a float32, and so on
)

// BlockTerm is a term of the sums: multipliers, [channel], and a power of two by which sums are multiplied before.
type BlockTerm struct {
	Multiplier []int32
	Factor     float32
}

// NewBlockRequantizer packs terms, at least one, and biases and shifts, [channel], or one that serves all.
func NewBlockRequantizer(terms []BlockTerm, bias []int64, shift []uint8, low, high int32) *BlockRequantizer {
	r := &BlockRequantizer{terms: len(terms), channels: len(bias), limits: blockLimits{int64(low), int64(high)}}
	for c := range bias {
		half, one := int64(0), int64(0)
		if s := shift[c]; s > 0 {
			half, one = 1<<(s-1)-1, 1
		}
		r.numbers = append(r.numbers, bias[c]^math.MinInt64, int64(shift[c]), half, one, -int64(uint64(1)<<(63-shift[c])))
		for _, t := range terms {
			r.numbers = append(r.numbers, int64(t.Multiplier[c]), int64(math.Float32bits(t.Factor)))
		}
	}
	return r
}

// of returns a channel's numbers, or the only ones.
func (r *BlockRequantizer) of(channel int) []int64 {
	if r.channels == 1 {
		channel = 0
	}
	size := blockTerm + 2*r.terms
	return r.numbers[channel*size : (channel+1)*size : len(r.numbers)]
}

// Span computes elements from from on, up to to, of y from those of the terms x, all of them of one channel; y may be
// one of the terms. It runs on the calling thread and takes whole vectors of [Lanes] elements.
func (r *BlockRequantizer) Span(channel int, y []float32, x [][]float32, from, to int) {
	r.check(y, x, from, to)
	numbers := r.of(channel)
	if from == to || r.limits.spanSIMD(numbers, y, x, from, to) {
		return
	}
	for i := from; i < to; i++ {
		y[i] = r.limits.apply(numbers, x, i)
	}
}

// check panics where a slice is too short: assembly does not look.
func (r *BlockRequantizer) check(y []float32, x [][]float32, from, to int) {
	if len(x) != r.terms || (to-from)%Lanes != 0 {
		panic(fmt.Sprintf("kernel: BlockRequantizer: %d terms of %d elements, want %d terms and whole vectors", len(x), to-from, r.terms))
	}
	_ = y[from:to:len(y)]
	for _, term := range x {
		_ = term[from:to:len(term)]
	}
}

// apply requantizes one element.
func (l *blockLimits) apply(numbers []int64, x [][]float32, at int) float32 {
	sum := uint64(numbers[blockBias])
	for k, term := range x {
		factor := math.Float32frombits(uint32(numbers[blockTerm+2*k+1]))
		sum += uint64(int64(int32(term[at]*factor)) * numbers[blockTerm+2*k])
	}
	shift := uint64(numbers[blockShift])
	tie := sum >> shift & uint64(numbers[blockOne])
	rounded := (sum + uint64(numbers[blockHalf]) + tie) >> shift
	return float32(min(max(int64(rounded)+numbers[blockUnbias], l.min), l.max))
}
