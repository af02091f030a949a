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

// PlaneSums are two sums over a plane, the elements of a channel in one block. Planes may be added up in any order and
// on any thread; [BatchNorm.Moments] and [BatchNorm.Totals] take them together.
type PlaneSums struct {
	origin        float32
	first, second float64
	a, b          [Lanes]float32
}

// NewSums returns the sums of all planes, [blocks][channels].
func (n *BatchNorm) NewSums() []PlaneSums { return make([]PlaneSums, n.blocks()*n.Channels) }

// plane returns the sums of one plane.
func (n *BatchNorm) plane(s []PlaneSums, block, channel int) *PlaneSums {
	return &s[block*n.Channels+channel]
}

// begin returns the sums of one plane, zeros with the first elements of it.
func (n *BatchNorm) begin(s []PlaneSums, block, channel int, first bool) *PlaneSums {
	p := n.plane(s, block, channel)
	if first {
		*p = PlaneSums{}
	}
	return p
}

// halve makes the sums of a plane of those of its lanes, without the padded ones.
func (n *BatchNorm) halve(p *PlaneSums, block int) {
	p.first, p.second = halveFirst(&p.a, n.lanes(block)), halveFirst(&p.b, n.lanes(block))
}

// halveFirst adds up the first lanes.
func halveFirst(v *[Lanes]float32, lanes int) float64 {
	var wide [Lanes]float64
	for l := range lanes {
		wide[l] = float64(v[l])
	}
	return halve(&wide)
}

// AddStatistics computes the sums that [BatchNorm.Moments] needs of the plane x.
func (n *BatchNorm) AddStatistics(s []PlaneSums, block, channel int, x []float32) {
	p := n.plane(s, block, channel)
	*p = PlaneSums{origin: x[0]}
	sumSquares(&p.a, &p.b, x, p.origin)
	n.halve(p, block)
}

// Moments computes mean and (biased) variance of every channel. Elements have been taken relative to the first one of
// their plane, so that a mean much larger than the deviation costs no digits.
func (n *BatchNorm) Moments(mean, variance []float64, s []PlaneSums) {
	for c := range n.Channels {
		var sum, squares float64 // relative to the first block's origin
		first := float64(s[c].origin)
		for b := range n.blocks() {
			p := n.plane(s, b, c)
			count, shift := float64(n.lanes(b)*n.Size), float64(p.origin)-first
			sum += p.first + float64(count*shift)
			squares += p.second + float64(shift*(float64(2*p.first)+float64(count*shift)))
		}
		offset := sum / n.count()
		mean[c] = first + offset
		variance[c] = max(0, squares/n.count()-float64(offset*offset))
	}
}

// Statistics computes mean and (biased) variance of every channel of x.
func (n *BatchNorm) Statistics(mean, variance []float64, x []float32) {
	s := n.NewSums()
	n.each(func(b, c int) { n.AddStatistics(s, b, c, n.at(x, b, c)) })
	n.Moments(mean, variance, s)
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

// Affine computes y = fma(x, scale, offset) for elements of one channel.
func Affine(y, x []float32, scale, offset float32) {
	y = y[:len(x)]
	for i := affineSIMD(y, x, scale, offset); i < len(x); i++ {
		y[i] = float32(fma(float64(x[i]), float64(scale), float64(offset)))
	}
}

// AddGradients adds Σ dy and Σ dy·(x-mean) over elements of a plane, which come in order; first starts the sums, and
// last ends them.
func (n *BatchNorm) AddGradients(s []PlaneSums, block, channel int, dy, x []float32, mean float32, first, last bool) {
	p := n.begin(s, block, channel, first)
	sumProducts(&p.a, &p.b, dy[:len(x)], x, mean)
	if last {
		n.halve(p, block)
	}
}

// Totals adds up the planes of every channel in the order of blocks.
func (n *BatchNorm) Totals(first, second []float64, s []PlaneSums) {
	clear(first[:n.Channels])
	clear(second[:n.Channels])
	for i := range s {
		first[i%n.Channels] += s[i].first
		second[i%n.Channels] += s[i].second
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

// NormGradient computes dx = fma(dy, scale, fma(x, slope, offset)) for elements of one channel; dx may be dy.
func NormGradient(dx, dy, x []float32, scale, slope, offset float32) {
	dx, dy = dx[:len(x)], dy[:len(x)]
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
