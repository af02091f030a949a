package random

import "math"

// logarithm returns the natural logarithm of a positive, finite, normal x with an error below one unit in the last
// place. math.Log would do but for its bits, which differ between platforms.
//
// With x = 2^k·(1+f), sqrt(1/2) <= 1+f < sqrt(2), and s = f/(2+f):
//
//	ln(1+f) = f − f²/2 + s·(f²/2 + R(s²)),   R(z) ≈ 2z/3 + 2z²/5 + 2z³/7 + …
//
// where R is a minimax polynomial with |error| < 2^-58.45, and k·ln 2 is added in two parts. Every multiplication
// that feeds an addition is an explicit FMA or an explicit conversion, so the compiler has nothing left to fuse.
//
// Source: Sun Microsystems, FreeBSD /usr/src/lib/msun/src/e_log.c.
func logarithm(x float64) float64 {
	const (
		ln2High = 6.93147180369123816490e-01 // 32 leading bits: k·ln2High is exact
		ln2Low  = 1.90821492927058770002e-10
		c1      = 6.666666666666735130e-01
		c2      = 3.999999999940941908e-01
		c3      = 2.857142874366239149e-01
		c4      = 2.222219843214978396e-01
		c5      = 1.818357216161805012e-01
		c6      = 1.531383769920937332e-01
		c7      = 1.479819860511658591e-01
	)
	fraction, exponent := math.Frexp(x)
	if fraction < math.Sqrt2/2 {
		fraction *= 2
		exponent--
	}
	f, k := fraction-1, float64(exponent)
	s := f / (2 + f)
	z := s * s
	w := z * z
	odd := float64(z * math.FMA(w, math.FMA(w, math.FMA(w, c7, c5), c3), c1))
	even := float64(w * math.FMA(w, math.FMA(w, c6, c4), c2))
	half := float64(0.5 * f * f)
	tail := math.FMA(s, half+(odd+even), k*ln2Low)
	return math.FMA(k, ln2High, -((half - tail) - f))
}
