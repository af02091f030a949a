package kernel

// Uniform is a symmetric view of a linear quantizer: level = clamp(round(x/Scale), Low, High), where a level is a code
// less its zero point and is worth level·Scale. Rounding is half to even; the division is a division.
type Uniform struct{ Scale, Low, High float32 }

// roundingBias added to and subtracted from a float32 below 2^22 in magnitude leaves it rounded half to even.
const roundingBias = 3 << 22

// rounding is a Uniform with what its loops need beside. Assembly reads it field by field.
type rounding struct {
	scale, low, high float32
	below, above     float32 // one step outside the range, to which values are limited before rounding
	bias             float32
}

func (u *Uniform) rounding() rounding {
	return rounding{u.Scale, u.Low, u.High, u.Low - 1, u.High + 1, roundingBias}
}

// round returns v = x/scale and its rounding, the latter limited to one step outside the range.
func (q *rounding) round(x float32) (v, r float32) {
	v = x / q.scale
	c := v
	if c < q.below {
		c = q.below
	}
	if c > q.above {
		c = q.above
	}
	return v, float32(c+q.bias) - q.bias
}

// level is Level.
func (q *rounding) level(x float32) float32 {
	_, r := q.round(x)
	return q.limit(r)
}

// limit brings a rounded number into the range.
func (q *rounding) limit(r float32) float32 {
	if r < q.low {
		r = q.low
	}
	if r > q.high {
		r = q.high
	}
	return r + 0 // +0 for -0
}

// Level returns the level of x; NaN stays NaN.
func (u *Uniform) Level(x float32) float32 {
	q := u.rounding()
	return q.level(x)
}

// Levels computes the level of every element.
func (u *Uniform) Levels(y, x []float32) {
	q := u.rounding()
	if len(x) <= chunk {
		q.levels(y, x)
		return
	}
	shared := q
	chunks(len(x), func(from, to int) { shared.levels(y[from:to], x[from:to]) })
}

func (q *rounding) levels(y, x []float32) {
	y = y[:len(x)]
	for i := q.levelsSIMD(y, x); i < len(x); i++ {
		y[i] = q.level(x[i])
	}
}

// Gradient is the clipped straight-through estimator: dx = dy where the rounded level lies in the range, else 0.
func (u *Uniform) Gradient(dx, dy, x []float32) {
	q := u.rounding()
	if len(x) <= chunk {
		q.gradient(dx, dy, x)
		return
	}
	shared := q
	chunks(len(x), func(from, to int) { shared.gradient(dx[from:to], dy[from:to], x[from:to]) })
}

func (q *rounding) gradient(dx, dy, x []float32) {
	dx, dy = dx[:len(x)], dy[:len(x)]
	for i := q.gradientSIMD(dx, dy, x); i < len(x); i++ {
		g := float32(0)
		if _, r := q.round(x[i]); r >= q.low && r <= q.high {
			g = dy[i]
		}
		dx[i] = g
	}
}

// StepGradient is Gradient with the derivative by the step size, which it returns:
//
//	Σ dy · (round(v) - v inside the range, Low below, High above), v = x/Scale
//
// Terms are float32; they add up in float64 lane sums over each chunk, halved, chunks in order. Inside is decided on
// the rounded level, or with exact on v itself (the closed interval Low ≤ v ≤ High). Levels takes what [Uniform.Levels]
// computes, where it is not nil.
func (u *Uniform) StepGradient(dx, levels, dy, x []float32, exact bool) float64 {
	q := u.rounding()
	if len(x) <= chunk {
		return 0 + q.stepChunk(dx, levels, dy, x, exact)
	}
	shared, sums := q, make([]float64, ceil(len(x), chunk))
	chunks(len(x), func(from, to int) {
		var part []float32
		if levels != nil {
			part = levels[from:to]
		}
		sums[from/chunk] = shared.stepChunk(dx[from:to], part, dy[from:to], x[from:to], exact)
	})
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total
}

func (q *rounding) stepChunk(dx, levels, dy, x []float32, exact bool) float64 {
	var lanes [Lanes]float64
	dx, dy = dx[:len(x)], dy[:len(x)]
	if levels != nil {
		levels = levels[:len(x)]
	}
	for i := q.stepSIMD(&lanes, dx, levels, dy, x, exact); i < len(x); i++ {
		v, r := q.round(x[i])
		test := r
		if exact {
			test = v
		}
		g, slope := dy[i], r-v
		switch {
		case test < q.low:
			g, slope = 0, q.low
		case test > q.high:
			g, slope = 0, q.high
		}
		dx[i] = g
		lanes[i%Lanes] += float64(dy[i] * slope)
		if levels != nil {
			levels[i] = q.limit(r)
		}
	}
	return halve(&lanes)
}
