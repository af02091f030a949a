package kernel

import "math"

// The functions of this file give the same bits on every platform: they use
// only +, -, *, / with the rounding of each product made explicit (which
// forbids the compiler to fuse it with an addition), and exact bit operations.
// package math has assembly and fused variants on some platforms, so its
// results near a training number would differ from machine to machine.
//
// The methods and coefficients are those of FreeBSD's msun (e_exp.c, e_log.c,
// k_cos.c, k_sin.c; Sun Microsystems, 1993): reduce the argument to a short
// interval, evaluate a minimax polynomial there, undo the reduction.

const (
	ln2High = 6.93147180369123816490e-01 // ln 2 to 33 bits: k·ln2High is exact for |k| < 2^20
	ln2Low  = 1.90821492927058770002e-10 // ln 2 − ln2High

	expOverflow  = 7.09782712893383973096e+02  // the largest x with a finite e^x
	expUnderflow = -7.45133219101941108420e+02 // below it e^x rounds to 0

	halfPiHigh   = 1.57079632673412561417e+00 // π/2 to 33 bits: k·halfPiHigh is exact for |k| ≤ 2^20
	halfPiMiddle = 6.07710050630396597660e-11 // the next 33 bits
	halfPiLow    = 2.02226624879595063154e-21 // the rest

	// MaxAngle bounds |x| in Cos and Sin: to it the reduction modulo π/2 is exact enough.
	MaxAngle = 1 << 20
)

var (
	expCoefficients = [...]float64{
		1.66666666666666657415e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05,
		-1.65339022054652515390e-06, 4.13813679705723846039e-08,
	}
	logEvenCoefficients = [...]float64{
		3.999999999940941908e-01, 2.222219843214978396e-01, 1.531383769920937332e-01,
	}
	logOddCoefficients = [...]float64{
		6.666666666666735130e-01, 2.857142874366239149e-01, 1.818357216161805012e-01, 1.479819860510658591e-01,
	}
	cosCoefficients = [...]float64{
		4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
		-2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11,
	}
	sinCoefficients = [...]float64{
		8.33333333332248946124e-03, -1.98412698298579493134e-04, 2.75573137070700676789e-06,
		-2.50507602534068634195e-08, 1.58969099521155010221e-10,
	}
)

// sinCubic is the coefficient of x³ in the sine.
const sinCubic = -1.66666666666666324348e-01

// Exp returns e^x with a relative error below 1e-15 (1 ulp) wherever the result is a normal number.
// It is +Inf above 709.782712893384, 0 below -745.1332191019411, and NaN for NaN.
//
// Method: x = k·ln 2 + r with |r| ≤ ln 2/2; e^r = 1 + r + r·c/(2−c) with
// c = r − r²·P(r²); the result is e^r·2^k.
func Exp(x float64) float64 {
	switch {
	case math.IsNaN(x):
		return x
	case x > expOverflow:
		return math.Inf(1)
	case x < expUnderflow:
		return 0
	}
	k := math.RoundToEven(x * math.Log2E)
	high := x - float64(k*ln2High)
	low := float64(k * ln2Low)
	r := high - low
	square := float64(r * r)
	c := r - float64(square*polynomial(square, expCoefficients[:]))
	y := 1 - ((low - float64(r*c)/(2-c)) - high)
	if math.Abs(k) < 1022 {
		return y * math.Float64frombits(uint64(1023+int64(k))<<52) // exact, and far cheaper than Ldexp
	}
	return math.Ldexp(y, int(k))
}

// Log returns the natural logarithm of x with a relative error below 1e-15 (1 ulp), subnormal x included.
// It is -Inf for 0, NaN below 0, and x itself for +Inf and NaN.
//
// Method: x = 2^k·(1+f) with √½ ≤ 1+f < √2; with s = f/(2+f),
// ln(1+f) = f − (f²/2 − s·(f²/2 + R(s²))); the result adds k·ln 2.
func Log(x float64) float64 {
	switch {
	case math.IsNaN(x) || math.IsInf(x, 1):
		return x
	case x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	}
	fraction, exponent := math.Frexp(x)
	if fraction < math.Sqrt2/2 {
		fraction *= 2
		exponent--
	}
	f, k := fraction-1, float64(exponent)
	s := f / (2 + f)
	square := float64(s * s)
	fourth := float64(square * square)
	odd := float64(square * polynomial(fourth, logOddCoefficients[:]))
	even := float64(fourth * polynomial(fourth, logEvenCoefficients[:]))
	half := float64(float64(0.5*f) * f)
	correction := float64(s*(half+(odd+even))) + float64(k*ln2Low)
	return float64(k*ln2High) - ((half - correction) - f)
}

// Cos returns the cosine of x radians with an absolute error below 5e-16 for |x| ≤ MaxAngle.
// Beyond MaxAngle, and for Inf and NaN, it is NaN: no caller has such an angle but by mistake.
//
// Method: x = k·π/2 + r with |r| ≤ π/4 in about 100 bits; the quadrant k mod 4
// chooses between the polynomials of ±cos r and ±sin r.
func Cos(x float64) float64 { return circular(x, 1) }

// Sin returns the sine of x radians under the terms of Cos.
func Sin(x float64) float64 { return circular(x, 0) }

// circular is sin(x + turns·π/2).
func circular(x float64, turns int64) float64 {
	if !(math.Abs(x) <= MaxAngle) {
		return math.NaN()
	}
	r, tail, quadrant := reduceAngle(x)
	switch (quadrant + turns) & 3 {
	case 0:
		return sinNearZero(r, tail)
	case 1:
		return cosNearZero(r, tail)
	case 2:
		return -sinNearZero(r, tail)
	default:
		return -cosNearZero(r, tail)
	}
}

// reduceAngle splits x = quadrant·π/2 + r + tail with |r| ≤ π/4 and tail below half an ulp of r.
func reduceAngle(x float64) (r, tail float64, quadrant int64) {
	k := math.RoundToEven(x * (2 / math.Pi))
	rest := x - float64(k*halfPiHigh)
	middle := float64(k * halfPiMiddle)
	near := rest - middle
	lost := ((rest - near) - middle) - float64(k*halfPiLow)
	r = near + lost
	return r, (near - r) + lost, int64(k)
}

// cosNearZero is cos(x + tail) for |x| ≤ π/4: 1 − x²/2 + x⁴·C(x²) − x·tail.
func cosNearZero(x, tail float64) float64 {
	square := float64(x * x)
	rest := float64(square * polynomial(square, cosCoefficients[:]))
	half := float64(0.5 * square)
	w := 1 - half
	return w + (((1 - w) - half) + (float64(square*rest) - float64(x*tail)))
}

// sinNearZero is sin(x + tail) for |x| ≤ π/4: x + x³·(S1 + x²·S(x²)) + tail·(1 − x²/2).
func sinNearZero(x, tail float64) float64 {
	square := float64(x * x)
	cube := float64(square * x)
	rest := polynomial(square, sinCoefficients[:])
	bent := float64(0.5*tail) - float64(cube*rest)
	return x - ((float64(square*bent) - tail) - float64(cube*sinCubic))
}

// polynomial is Σ coefficients[i]·x^i by Horner's rule, every product rounded.
func polynomial(x float64, coefficients []float64) float64 {
	last := len(coefficients) - 1
	sum := coefficients[last]
	for i := last - 1; i >= 0; i-- {
		sum = float64(sum*x) + coefficients[i]
	}
	return sum
}
