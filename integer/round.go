package integer

import "math"

// Round rounds to the nearest integer, ties to even: the one rounding by which a real becomes a
// code, in training and in export. NaN and infinities stay what they are.
func Round(x float32) float32 {
	return float32(math.RoundToEven(float64(x)))
}

// shiftRight is v / 2^s rounded to the nearest integer, ties to even.
//
//	(v + 2^(s-1) - 1 + ((v >> s) & 1)) >> s   for s >= 1, v for s = 0
//
// The sum must not overflow; |v| < 2^62 and s <= 62 suffice.
func shiftRight(v int64, s uint8) int64 {
	if s == 0 {
		return v
	}
	return (v + int64(1)<<(s-1) - 1 + (v>>s)&1) >> s
}
