package kernel

import "math"

// BatchNorm normalizes each channel of a tensor [Blocks][Channels][Size][Lanes] over the images of a batch.
//
// Sums over a channel are float32 lane sums over the elements of each block in order, every product and difference
// rounded before it is added. They are widened, halved in float64, and added block by block; padded lanes of the last
// block are left out.
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

// planeSums are two sums over a channel's elements in a block, and their lanes.
type planeSums struct {
	first, second float64
	a, b          [Lanes]float32
}

// sums computes two sums for every channel in every block: lanes adds up the elements of one, which are every plane of
// the tensor in order, so that threads read through memory as it lies.
func (n *BatchNorm) sums(lanes func(a, b *[Lanes]float32, block, channel int)) []planeSums {
	planes := make([]planeSums, n.blocks()*n.Channels)
	n.each(func(block, channel int) {
		p := &planes[block*n.Channels+channel]
		lanes(&p.a, &p.b, block, channel)
		p.first, p.second = n.halve(&p.a, block), n.halve(&p.b, block)
	})
	return planes
}

// halve adds up the lane sums of a block, without its padded lanes.
func (n *BatchNorm) halve(lanes *[Lanes]float32, block int) float64 {
	var wide [Lanes]float64
	for l := range n.lanes(block) {
		wide[l] = float64(lanes[l])
	}
	return halve(&wide)
}

// Statistics computes mean and (biased) variance of every channel. Elements are taken relative to the first one of the
// channel in their block, so that a mean much larger than the deviation costs no digits.
func (n *BatchNorm) Statistics(mean, variance []float64, x []float32) {
	planes := n.sums(func(sum, squares *[Lanes]float32, b, c int) {
		sumSquares(sum, squares, n.at(x, b, c), n.at(x, b, c)[0])
	})
	for c := range n.Channels {
		var sum, squares float64 // relative to the first block's origin
		first := float64(n.at(x, 0, c)[0])
		for b := range n.blocks() {
			p := &planes[b*n.Channels+c]
			count, shift := float64(n.lanes(b)*n.Size), float64(n.at(x, b, c)[0])-first
			sum += p.first + float64(count*shift)
			squares += p.second + float64(shift*(float64(2*p.first)+float64(count*shift)))
		}
		offset := sum / n.count()
		mean[c] = first + offset
		variance[c] = max(0, squares/n.count()-float64(offset*offset))
	}
}

// sumSquares adds x-origin and its square, lane by lane.
func sumSquares(sum, squares *[Lanes]float32, x []float32, origin float32) {
	for i := sumSquaresSIMD(sum, squares, x, origin); i < len(x); i += Lanes {
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
		affine(n.at(y, b, c), n.at(x, b, c), scale[c], offset[c])
	})
}

func affine(y, x []float32, scale, offset float32) {
	for i := affineSIMD(y, x, scale, offset); i < len(x); i++ {
		y[i] = float32(fma(float64(x[i]), float64(scale), float64(offset)))
	}
}

// Gradients computes for every channel Σ dy and Σ dy·(x-mean).
func (n *BatchNorm) Gradients(sum, product []float64, dy, x []float32, mean []float32) {
	planes := n.sums(func(s, p *[Lanes]float32, b, c int) {
		sumProducts(s, p, n.at(dy, b, c), n.at(x, b, c), mean[c])
	})
	clear(sum[:n.Channels])
	clear(product[:n.Channels])
	for i := range planes {
		sum[i%n.Channels] += planes[i].first
		product[i%n.Channels] += planes[i].second
	}
}

// sumProducts adds dy and dy·(x-mean), lane by lane.
func sumProducts(sum, product *[Lanes]float32, dy, x []float32, mean float32) {
	for i := sumProductsSIMD(sum, product, dy, x, mean); i < len(x); i += Lanes {
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
		inputGradient(n.at(dx, b, c), n.at(dy, b, c), n.at(x, b, c), scale[c], slope[c], offset[c])
	})
}

func inputGradient(dx, dy, x []float32, scale, slope, offset float32) {
	for i := inputGradientSIMD(dx, dy, x, scale, slope, offset); i < len(x); i++ {
		shared := fma(float64(x[i]), float64(slope), float64(offset))
		dx[i] = float32(fma(float64(dy[i]), float64(scale), shared))
	}
}

// each runs do for every channel of every block in parallel, small ones several at a time.
func (n *BatchNorm) each(do func(block, channel int)) {
	planes, group := n.blocks()*n.Channels, max(1, chunk/max(1, n.Size*Lanes))
	Parallel(ceil(planes, group), func(task int) {
		for i := task * group; i < min(planes, (task+1)*group); i++ {
			do(i/n.Channels, i%n.Channels)
		}
	})
}

// InverseDeviation returns 1/√(variance+epsilon).
func InverseDeviation(variance, epsilon float64) float64 { return 1 / math.Sqrt(variance+epsilon) }
