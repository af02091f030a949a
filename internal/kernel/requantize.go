package kernel

import "math"

// MaxPlanes is the most planes of a [Requantizer].
const MaxPlanes = 8

// Requantizer turns sums in int32 into integers of another scale. For plane p's sums acc_p of a channel it is
//
//	clamp(round((sum over p of acc_p * multiplier_p + bias) / 2^shift) + zero, min, max)
//
// with ties to even, for sums below 2^62 in magnitude and shifts up to 62.
type Requantizer struct {
	planes, channels int
	numbers          []int64 // [groups of 16 channels][5 + planes][Lanes]: see the fields below; even channels come first
	min, max         int64
}

// The numbers of a channel. Sums are moved up by 2^63, which makes them non-negative as unsigned numbers and keeps
// the parity of what is shifted out of them: an arithmetic shift of 64 bits is something AVX2 has not.
const (
	numberBias       = iota // bias + 2^63
	numberShift             // shift
	numberHalf              // 2^(shift-1) - 1, or 0
	numberOne               // 1, or 0 for a shift of 0
	numberZero              // zero - 2^(63-shift)
	numberMultiplier        // of plane 0, and so on
)

// NewRequantizer packs multipliers, [plane][channel], and biases and shifts, [channel].
func NewRequantizer(multiplier [][]int32, bias []int64, shift []uint8, zero, low, high int64) *Requantizer {
	r := &Requantizer{planes: len(multiplier), channels: len(bias), min: low, max: high}
	r.numbers = make([]int64, ceil(r.channels, Lanes)*(numberMultiplier+r.planes)*Lanes)
	for c := range bias {
		s := shift[c]
		r.set(c, numberBias, bias[c]^math.MinInt64)
		r.set(c, numberShift, int64(s))
		if s > 0 {
			r.set(c, numberHalf, 1<<(s-1)-1)
			r.set(c, numberOne, 1)
		}
		r.set(c, numberZero, zero-int64(uint64(1)<<(63-s)))
		for p := range multiplier {
			r.set(c, numberMultiplier+p, int64(multiplier[p][c]))
		}
	}
	return r
}

// place returns where a channel's number is kept.
func (r *Requantizer) place(channel, number int) int {
	lane := channel%Lanes%2*(Lanes/2) + channel%Lanes/2
	return (channel/Lanes*(numberMultiplier+r.planes)+number)*Lanes + lane
}

func (r *Requantizer) set(channel, number int, v int64) { r.numbers[r.place(channel, number)] = v }

// requantization is one call of a requantizer. Assembly reads it field by field.
type requantization struct {
	planes, pixels, groups int
	sumPixel, outPixel     int // distances in elements between pixels
	min, max               int64
	sums                   [MaxPlanes]*int32
}

// Bytes computes the channels of so many pixels: out[p*outPixel + c] from sums[plane][p*sumPixel + c]. Pixels are done
// in order, and each may read and write channels up to the next multiple of 16. Results that do not fit lose their high bits.
func (r *Requantizer) Bytes(out []uint8, outPixel int, sums [][]int32, sumPixel, pixels int) {
	if pixels == 0 {
		return
	}
	q := r.job(outPixel, sums, sumPixel, pixels)
	_ = out[q.last(outPixel)]
	if !q.narrow(&out[0], r) {
		portableRequantize(q, out, r, sums)
	}
}

// Wide is Bytes for outputs of int32.
func (r *Requantizer) Wide(out []int32, outPixel int, sums [][]int32, sumPixel, pixels int) {
	if pixels == 0 {
		return
	}
	q := r.job(outPixel, sums, sumPixel, pixels)
	_ = out[q.last(outPixel)]
	if !q.wide(&out[0], r) {
		portableRequantize(q, out, r, sums)
	}
}

// job prepares a call and checks that the sums are there.
func (r *Requantizer) job(outPixel int, sums [][]int32, sumPixel, pixels int) *requantization {
	q := &requantization{planes: r.planes, pixels: pixels, groups: ceil(r.channels, Lanes), sumPixel: sumPixel, outPixel: outPixel, min: r.min, max: r.max}
	for p, plane := range sums[:r.planes] {
		_ = plane[q.last(sumPixel)]
		q.sums[p] = &plane[0]
	}
	return q
}

// last is the place of the last element, with so many from one pixel to the next.
func (q *requantization) last(pixel int) int { return (q.pixels-1)*pixel + q.groups*Lanes - 1 }

func portableRequantize[T uint8 | int32](q *requantization, out []T, r *Requantizer, sums [][]int32) {
	for p := range q.pixels {
		for c := range r.channels {
			out[p*q.outPixel+c] = T(r.apply(c, sums, p*q.sumPixel+c))
		}
	}
}

// apply requantizes one channel's sums.
func (r *Requantizer) apply(channel int, sums [][]int32, at int) int64 {
	numbers := r.numbers[r.place(channel, 0):]
	sum := uint64(numbers[0])
	for p := range r.planes {
		sum += uint64(int64(sums[p][at]) * numbers[(numberMultiplier+p)*Lanes])
	}
	shift := uint64(numbers[numberShift*Lanes])
	tie := sum >> shift & uint64(numbers[numberOne*Lanes])
	rounded := (sum + uint64(numbers[numberHalf*Lanes]) + tie) >> shift
	return min(max(int64(rounded)+numbers[numberZero*Lanes], r.min), r.max)
}
