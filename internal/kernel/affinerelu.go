package kernel

// AffineReLU computes y = max(0, fma(x, scale, offset) + term) for elements of one channel, the normalization, residual sum and
// rectifier of a layer in one pass; nil leaves the term out. Results are those of [Affine], [Add] and [ReLU].
func AffineReLU(y, x, term []float32, scale, offset float32) {
	y = y[:len(x)]
	if term != nil {
		term = term[:len(x)]
	}
	for i := affineReLUSIMD(y, x, term, scale, offset); i < len(x); i++ {
		v := float32(fma(float64(x[i]), float64(scale), float64(offset)))
		if term != nil {
			v += term[i]
		}
		if v < 0 {
			v = 0
		}
		y[i] = v
	}
}

// AffineReLUGradient is the backward pass of [AffineReLU] for elements of a plane of x: dx = dy + term where z > 0, else 0, and
// the sums of dx that [BatchNorm.AddGradients] adds; nil leaves the term out. Dx may be dy or the term.
func (n *BatchNorm) AffineReLUGradient(s []PlaneSums, block, channel int, dx, dy, term, z, x []float32, mean float32, first, last bool) {
	p := n.begin(s, block, channel, first)
	if term != nil {
		term = term[:len(x)]
	}
	affineReLUGradient(&p.a, &p.b, dx[:len(x)], dy[:len(x)], term, z[:len(x)], x, mean)
	if last {
		n.halve(p, block)
	}
}

func affineReLUGradient(sum, product *[Lanes]float32, dx, dy, term, z, x []float32, mean float32) {
	from := affineReLUGradientSIMD(sum, product, dx, dy, term, z, x, mean)
	for i := from; i < len(x); i++ {
		v := float32(0)
		if z[i] > 0 {
			v = dy[i]
			if term != nil {
				v += term[i]
			}
		}
		dx[i] = v
	}
	sumProducts(sum, product, dx[from:], x[from:], mean)
}

// AffineReLUBackward is [BatchNorm.AffineReLUGradient] where z is not at hand: dy turns into it, so dx must stand elsewhere.
func (n *BatchNorm) AffineReLUBackward(s []PlaneSums, block, channel int, dx, dy, x []float32, scale, offset, mean float32, first, last bool) {
	p := n.begin(s, block, channel, first)
	dx, dy = dx[:len(x)], dy[:len(x)]
	from := affineReLUBackwardSIMD(&p.a, &p.b, dx, dy, x, scale, offset, mean)
	for i := from; i < len(x); i++ {
		v, g := float32(fma(float64(x[i]), float64(scale), float64(offset))), float32(0)
		if v > 0 {
			g = dy[i]
		}
		if v < 0 {
			v = 0
		}
		dx[i], dy[i] = g, v
	}
	sumProducts(&p.a, &p.b, dx[from:], x[from:], mean)
	if last {
		n.halve(p, block)
	}
}
