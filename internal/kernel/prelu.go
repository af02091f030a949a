package kernel

import "math"

// PReLU is the parametric rectifier of a tensor [blocks][Channels][Size][Lanes] that holds the images of a batch:
//
//	y = x where x > 0, else slope[c]·x
//
// The gradient of a slope is a sum over its channel in the order of [BatchNorm]'s: float32 lane sums over the elements of
// each block, every product rounded before it is added, which are widened, halved in float64, and added block by
// block; padded lanes of the last block are left out.
type PReLU struct {
	Images, Channels, Size int // images of the batch; elements of a channel of one image
}

func (p *PReLU) planes() *BatchNorm {
	return &BatchNorm{Images: p.Images, Channels: p.Channels, Size: p.Size}
}

// Forward computes y.
func (p *PReLU) Forward(y, x, slope []float32) {
	n := p.planes()
	n.each(func(b, c int) { rectify(n.at(y, b, c), n.at(x, b, c), n.at(x, b, c), slope[c]) })
}

// InputGradient computes dx = dy where x > 0, else slope[c]·dy.
func (p *PReLU) InputGradient(dx, dy, x, slope []float32) {
	n := p.planes()
	n.each(func(b, c int) { rectify(n.at(dx, b, c), n.at(dy, b, c), n.at(x, b, c), slope[c]) })
}

// Rectify makes y where it is not positive slope·y.
func Rectify(y []float32, slope float32) { rectify(y, y, y, slope) }

// rectify computes y = v where x > 0, else slope·v. Signs of activations follow no pattern that a branch could be
// predicted from, so that the factor is chosen by masks.
func rectify(y, v, x []float32, slope float32) {
	v, x = v[:len(y)], x[:len(y)]
	one := math.Float32bits(1)
	differs := one ^ math.Float32bits(slope)
	for i := range y {
		y[i] = v[i] * math.Float32frombits(one^differs&notPositive(x[i]))
	}
}

// notPositive returns ones in all bits where v is at most 0, of either sign, and zeros elsewhere; a NaN counts by its
// sign.
func notPositive(v float32) uint32 {
	b := int32(math.Float32bits(v))
	return uint32(((b - 1) | b) >> 31)
}

// SlopeGradient computes for every channel the sum of dy·x where x is at most 0.
func (p *PReLU) SlopeGradient(sum []float64, dy, x []float32) {
	n := p.planes()
	planes := make([]float64, n.blocks()*n.Channels)
	n.each(func(b, c int) {
		var lanes [Lanes]float32
		sumNotPositive(&lanes, n.at(dy, b, c), n.at(x, b, c))
		planes[b*n.Channels+c] = halveFirst(&lanes, n.lanes(b))
	})
	clear(sum[:n.Channels])
	for i, s := range planes {
		sum[i%n.Channels] += s
	}
}

// sumNotPositive adds dy·x where x is at most 0, lane by lane; elsewhere it adds +0, which changes no sum.
func sumNotPositive(lanes *[Lanes]float32, dy, x []float32) {
	for i := 0; i < len(x); i += Lanes {
		g := (*[Lanes]float32)(dy[i:])
		for l, v := range (*[Lanes]float32)(x[i:]) {
			product := math.Float32bits(g[l] * v)
			lanes[l] += math.Float32frombits(product & notPositive(v))
		}
	}
}
