package kernel

// Uniform is a symmetric view of a linear quantizer: level = clamp(round(x/Scale), Low, High), where a level is a code
// less its zero point and is worth level·Scale. Rounding is half to even; the division is a division.
type Uniform struct{ Scale, Low, High float32 }

// roundingBias added to and subtracted from a float32 below 2^22 in magnitude leaves it rounded half to even.
const roundingBias = 3 << 22

// round returns x/Scale and its rounding, the latter limited to one step outside the range.
func (u *Uniform) round(x float32) (v, r float32) {
	v = x / u.Scale
	c := v
	if c < u.Low-1 {
		c = u.Low - 1
	}
	if c > u.High+1 {
		c = u.High + 1
	}
	return v, float32(c+roundingBias) - roundingBias
}

// Level returns the level of x; NaN stays NaN.
func (u *Uniform) Level(x float32) float32 {
	_, r := u.round(x)
	if r < u.Low {
		return u.Low
	}
	if r > u.High {
		return u.High
	}
	return r + 0 // +0 for -0
}

// Levels computes the level of every element.
func (u *Uniform) Levels(y, x []float32) {
	chunks(len(x), func(from, to int) {
		for i := from; i < to; i++ {
			y[i] = u.Level(x[i])
		}
	})
}

// Gradient is the clipped straight-through estimator: dx = dy where the rounded level lies in the range, else 0.
func (u *Uniform) Gradient(dx, dy, x []float32) {
	chunks(len(x), func(from, to int) {
		for i := from; i < to; i++ {
			g := float32(0)
			if _, r := u.round(x[i]); r >= u.Low && r <= u.High {
				g = dy[i]
			}
			dx[i] = g
		}
	})
}

// StepGradient is Gradient with the derivative by the step size, which it returns:
//
//	Σ dy · (round(v) - v inside the range, Low below, High above), v = x/Scale
//
// Terms are float32; they add up in float64 lane sums over each chunk, halved, chunks in order. Inside is decided on
// the rounded level, or with exact on v itself (the closed interval Low ≤ v ≤ High).
func (u *Uniform) StepGradient(dx, dy, x []float32, exact bool) float64 {
	sums := make([]float64, ceil(len(x), chunk))
	chunks(len(x), func(from, to int) {
		sums[from/chunk] = u.stepChunk(dx[from:to], dy[from:to], x[from:to], exact)
	})
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total
}

func (u *Uniform) stepChunk(dx, dy, x []float32, exact bool) float64 {
	var lanes [Lanes]float64
	for i, xi := range x {
		v, r := u.round(xi)
		test := r
		if exact {
			test = v
		}
		g, slope := dy[i], r-v
		switch {
		case test < u.Low:
			g, slope = 0, u.Low
		case test > u.High:
			g, slope = 0, u.High
		}
		dx[i] = g
		lanes[i%Lanes] += float64(dy[i] * slope)
	}
	return halve(&lanes)
}
