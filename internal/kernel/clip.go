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
// [Uniform.StepGradient] do. NaN counts as inside. Levels are read with Inner alone and may be nil without. Dx must not
// overlap the others.
func (c *Clip) Gradient(dx, levels, dy, x []float32) float64 {
	if !c.Inner {
		levels = x // of no interest, but as long as needed
	}
	if len(x) <= chunk {
		return 0 + c.gradientChunk(dx, levels, dy, x)
	}
	return c.gradientChunks(dx, levels, dy, x)
}

func (c *Clip) gradientChunks(dx, levels, dy, x []float32) float64 {
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
	dx, levels, dy = dx[:len(x)], levels[:len(x)], dy[:len(x)]
	for i := c.gradientSIMD(&lanes, dx, levels, dy, x); i < len(x); i++ {
		g, slope := dy[i], float32(0)
		switch v := x[i]; {
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
