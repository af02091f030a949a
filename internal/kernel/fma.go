package kernel

import "math"

// Fused multiply-add without the instruction: the float64 product of two float32 is exact, and rounding the float64
// sum to float32 differs from one rounding of the exact sum only where the float64 sum lies exactly between two
// float32 (its low 29 bits are the midpoint pattern) or the result is subnormal. Those are the suspects, about one
// in 2^29 of random sums, and only they take the exact way.
const (
	tieMask    = 1<<29 - 1
	tiePattern = 1 << 28
	subnormal  = 0x3810000000000000 // float64 bits of 2^-126, the smallest normal float32
)

// suspect says whether rounding the float64 sum s to float32 may differ from one rounding of the exact sum.
func suspect(s float64) bool {
	b := math.Float64bits(s)
	return b&tieMask == tiePattern || b<<1-1 < subnormal<<1-1
}

// fma returns x*y + z with one rounding to float32. All arguments are float32 values.
func fma(x, y, z float64) float64 {
	s := x*y + z
	if suspect(s) {
		return fmaExact(x, y, z)
	}
	return float64(float32(s))
}

// fmaExact rounds the sum to odd in float64 first: with two bits more than float32 to spare, rounding that to float32
// is correct everywhere, subnormal results included (Boldo and Melquiond, "Emulation of FMA and correctly rounded
// sums", 2008).
func fmaExact(x, y, z float64) float64 {
	p := x * y // exact
	s := p + z
	if math.IsInf(s, 0) || math.IsNaN(s) {
		return float64(float32(s))
	}
	back := s - p
	err := (p - (s - back)) + (z - back) // exact error of the sum (Knuth's two-sum)
	if b := math.Float64bits(s); err != 0 && b&1 == 0 {
		s = math.Nextafter(s, math.Inf(sign(err)))
	}
	return float64(float32(s))
}

func sign(v float64) int {
	if v < 0 {
		return -1
	}
	return 1
}
