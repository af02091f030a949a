package kernel

import (
	"fmt"
	"math"
)

// MaxValues is how many values a [Relaxation] may have.
const MaxValues = 16

// Relaxation is a soft choice among values, for every element on its own: from logits a, [values][n], and a sharpness T
// (one over the temperature),
//
//	P_k = exp(T·(a_k - max a)) / Σ_j exp(T·(a_j - max a))      y = Σ_k P_k·value_k      ∂y/∂a_k = T·P_k·(value_k - y)
//
// P is never stored. Sums go over values in order: those of the exponentials are rounded in each addition, those of their
// products with the values fused. Exponentials are [exponential]. It must not change while it is in use.
type Relaxation struct {
	values    [MaxValues]float32
	count     int
	sharpness float32
	stride    int // elements from the logits of a value to those of the next
}

// NewRelaxation makes the choice among 2 to MaxValues values.
func NewRelaxation(values []float32, sharpness float32) Relaxation {
	if len(values) < 2 || len(values) > MaxValues {
		panic(fmt.Sprintf("kernel: a relaxation of %d values: want 2 to %d", len(values), MaxValues))
	}
	r := Relaxation{count: len(values), sharpness: sharpness}
	copy(r.values[:], values)
	return r
}

// over returns r for logits of n elements.
func (r Relaxation) over(n int, a []float32) *Relaxation {
	if len(a) != n*r.count { // assembly does not look
		panic(fmt.Sprintf("kernel: relaxation: %d logits of %d elements with %d values: want one of each", len(a), n, r.count))
	}
	r.stride = n
	return &r
}

// Soft computes y.
func (r Relaxation) Soft(y, a []float32) {
	s := r.over(len(y), a)
	chunks(len(y), func(from, to int) {
		part := y[from:to]
		for i := s.softSIMD(part, a[from:]); i < len(part); i++ {
			part[i] = s.soft(a[from+i:])
		}
	})
}

// soft is Soft of the element whose logits start at a.
func (r *Relaxation) soft(a []float32) float32 {
	top := r.top(a)
	sum, weighted := float32(0), float32(0)
	for k := range r.count {
		e := exponential(r.sharpness * (a[k*r.stride] - top))
		sum += e
		weighted = float32(fma(float64(e), float64(r.values[k]), float64(weighted)))
	}
	return weighted / sum
}

// top is the largest logit of the element whose logits start at a.
func (r *Relaxation) top(a []float32) float32 {
	top := a[0]
	for k := 1; k < r.count; k++ {
		if v := a[k*r.stride]; v > top {
			top = v
		}
	}
	return top
}

// Gradient computes da, [values][n], from dy:
//
//	da_k = (dy·T)·(P_k·(value_k - y)),  P_k = e_k·(1/Σ e)
func (r Relaxation) Gradient(da, dy, a []float32) {
	s := r.over(len(dy), a)
	r.over(len(dy), da)
	chunks(len(dy), func(from, to int) {
		part := dy[from:to]
		for i := s.gradientSIMD(da[from:], part, a[from:]); i < len(part); i++ {
			s.gradient(da[from+i:], part[i], a[from+i:])
		}
	})
}

// gradient is Gradient of the element whose gradients and logits start at da and a.
func (r *Relaxation) gradient(da []float32, dy float32, a []float32) {
	top := r.top(a)
	sum, weighted := float32(0), float32(0)
	for k := range r.count {
		e := exponential(r.sharpness * (a[k*r.stride] - top))
		da[k*r.stride] = e
		sum += e
		weighted = float32(fma(float64(e), float64(r.values[k]), float64(weighted)))
	}
	y, inverse, g := weighted/sum, 1/sum, dy*r.sharpness
	for k := range r.count {
		p := da[k*r.stride] * inverse
		da[k*r.stride] = g * float32(p*(r.values[k]-y))
	}
}

// Hard computes the value of the largest logit, the first of equal ones. What is not finite among the logits shows as NaN.
func (r Relaxation) Hard(y, a []float32) {
	s := r.over(len(y), a)
	chunks(len(y), func(from, to int) {
		part := y[from:to]
		for i := s.hardSIMD(part, a[from:]); i < len(part); i++ {
			part[i] = s.hard(a[from+i:])
		}
	})
}

// hard is Hard of the element whose logits start at a.
func (r *Relaxation) hard(a []float32) float32 {
	top, value, bad := a[0], r.values[0], a[0]-a[0]
	for k := 1; k < r.count; k++ {
		v := a[k*r.stride]
		bad += v - v
		if v > top {
			top, value = v, r.values[k]
		}
	}
	return value + bad
}

// Constants of exponential, as float32.
const (
	exponentialLowest float32 = -87     // below it e^x is 0
	exponentialBias   float32 = 3 << 22 // what it is added to and taken from becomes an integer, ties to even
	log2E             float32 = math.Log2E
	ln2Most           float32 = 0.693359375            // ln 2 to 10 bits
	ln2Rest           float32 = math.Ln2 - 0.693359375 // what is left
)

// exponentialCoefficients are those of (e^r - 1 - r)/r² on [-ln2/2, ln2/2] from the highest power, after Cephes' expf.
var exponentialCoefficients = [...]float32{
	1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
}

// exponential returns e^x for x ≤ 0 with a relative error below 2e-7, and 0 below -87; NaN stays NaN. It is x = k·ln 2 + r,
// e^r by a polynomial with fused steps, times 2^k.
func exponential(x float32) float32 {
	if x < exponentialLowest {
		return 0
	}
	if x != x {
		return x
	}
	k := (float32(x*log2E) + exponentialBias) - exponentialBias
	r := fma(-float64(k), float64(ln2Most), float64(x))
	r = fma(-float64(k), float64(ln2Rest), r)
	p := float64(exponentialCoefficients[0])
	for _, c := range exponentialCoefficients[1:] {
		p = fma(p, r, float64(c))
	}
	square := float64(float32(r * r))
	y := float32(fma(p, square, r)) + 1
	return y * math.Float32frombits(uint32(int32(k)+127)<<23)
}
