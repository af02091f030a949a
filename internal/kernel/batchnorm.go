package kernel

import "math"

// BatchNorm normalizes each channel of a tensor [Blocks][Channels][Size][Lanes] over the images of a batch.
//
// Sums over a channel are float32 lane sums over the elements of each block, widened, halved in float64, and added
// block by block; padded lanes of the last block are left out.
type BatchNorm struct {
	Images, Channels, Size int // images of the batch; elements of a channel of one image
}

func (n *BatchNorm) blocks() int { return Blocks(n.Images) }

// count is the number of elements of a channel.
func (n *BatchNorm) count() float64 { return float64(n.Images) * float64(n.Size) }

// at returns a channel's elements in a block.
func (n *BatchNorm) at(x []float32, block, channel int) []float32 {
	size := n.Size * Lanes
	return x[(block*n.Channels+channel)*size:][:size]
}

// lanes is how many lanes of a block hold images.
func (n *BatchNorm) lanes(block int) int { return min(Lanes, n.Images-block*Lanes) }

// total adds the lane sums of a block, without its padded lanes, to a channel's sum.
func (n *BatchNorm) total(sum *float64, lanes *[Lanes]float32, block int) {
	var wide [Lanes]float64
	for l := range n.lanes(block) {
		wide[l] = float64(lanes[l])
	}
	*sum += halve(&wide)
}

// Statistics computes mean and (biased) variance of every channel. Elements are taken relative to the channel's first
// one, so that a mean much larger than the deviation costs no digits.
func (n *BatchNorm) Statistics(mean, variance []float64, x []float32) {
	Parallel(n.Channels, func(c int) {
		origin := n.at(x, 0, c)[0]
		var sum, squares float64
		for b := range n.blocks() {
			var s, q [Lanes]float32
			sumSquares(&s, &q, n.at(x, b, c), origin)
			n.total(&sum, &s, b)
			n.total(&squares, &q, b)
		}
		shift := sum / n.count()
		mean[c] = float64(origin) + shift
		variance[c] = max(0, squares/n.count()-float64(shift*shift))
	})
}

// sumSquares adds x-origin and its square, lane by lane.
func sumSquares(sum, squares *[Lanes]float32, x []float32, origin float32) {
	for i := 0; i < len(x); i += Lanes {
		for l, v := range (*[Lanes]float32)(x[i:]) {
			d := v - origin
			sum[l] += d
			squares[l] += float32(d * d)
		}
	}
}

// Affine computes y = fma(x, scale[c], offset[c]).
func (n *BatchNorm) Affine(y, x, scale, offset []float32) {
	n.each(func(b, c int) {
		out, a, d := n.at(y, b, c), float64(scale[c]), float64(offset[c])
		for i, v := range n.at(x, b, c) {
			out[i] = float32(fma(float64(v), a, d))
		}
	})
}

// Gradients computes for every channel Σ dy and Σ dy·(x-mean).
func (n *BatchNorm) Gradients(sum, product []float64, dy, x []float32, mean []float32) {
	Parallel(n.Channels, func(c int) {
		sum[c], product[c] = 0, 0
		for b := range n.blocks() {
			var s, p [Lanes]float32
			sumProducts(&s, &p, n.at(dy, b, c), n.at(x, b, c), mean[c])
			n.total(&sum[c], &s, b)
			n.total(&product[c], &p, b)
		}
	})
}

// sumProducts adds dy and dy·(x-mean), lane by lane.
func sumProducts(sum, product *[Lanes]float32, dy, x []float32, mean float32) {
	for i := 0; i < len(x); i += Lanes {
		v := (*[Lanes]float32)(x[i:])
		for l, g := range (*[Lanes]float32)(dy[i:]) {
			sum[l] += g
			product[l] += float32(g * (v[l] - mean))
		}
	}
}

// InputGradient computes dx = fma(dy, scale[c], fma(x, slope[c], offset[c])).
func (n *BatchNorm) InputGradient(dx, dy, x, scale, slope, offset []float32) {
	n.each(func(b, c int) {
		out, g := n.at(dx, b, c), n.at(dy, b, c)
		a, s, d := float64(scale[c]), float64(slope[c]), float64(offset[c])
		for i, v := range n.at(x, b, c) {
			out[i] = float32(fma(float64(g[i]), a, fma(float64(v), s, d)))
		}
	})
}

// each runs do for every channel of every block in parallel.
func (n *BatchNorm) each(do func(block, channel int)) {
	Parallel(n.blocks()*n.Channels, func(i int) { do(i/n.Channels, i%n.Channels) })
}

// InverseDeviation returns 1/√(variance+epsilon).
func InverseDeviation(variance, epsilon float64) float64 { return 1 / math.Sqrt(variance+epsilon) }
