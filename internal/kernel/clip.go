package kernel

// Clip is the gradient of a quantizer whose range is learned. It passes where Low ≤ x ≤ High. Above and Below are what
// the range's gradient takes of dy beyond these; inside it takes nothing or, with Inner, level·Unit - x/Range.
type Clip struct {
	Low, High    float32
	Below, Above float32
	Inner        bool
	Range, Unit  float32
}

// Gradient computes dx and returns the gradient of the range: Σ dy·slope. Terms are float32 and add up as those of
// [Uniform.StepGradient] do.
func (c *Clip) Gradient(dx, levels, dy, x []float32) float64 {
	if len(x) <= chunk {
		return 0 + c.gradientChunk(dx, levels, dy, x)
	}
	shared, sums := *c, make([]float64, ceil(len(x), chunk))
	chunks(len(x), func(from, to int) {
		sums[from/chunk] = shared.gradientChunk(dx[from:to], levels[from:to], dy[from:to], x[from:to])
	})
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total
}

func (c *Clip) gradientChunk(dx, levels, dy, x []float32) float64 {
	var lanes [Lanes]float64
	for i, v := range x {
		g, slope := dy[i], float32(0)
		switch {
		case v > c.High:
			g, slope = 0, c.Above
		case v < c.Low:
			g, slope = 0, c.Below
		case c.Inner:
			slope = float32(levels[i]*c.Unit) - v/c.Range
		}
		dx[i] = g
		lanes[i%Lanes] += float64(dy[i] * slope)
	}
	return halve(&lanes)
}
