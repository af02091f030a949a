package kernel

import "math"

// CrossEntropy is the softmax cross-entropy of logits [blocks][classes][Lanes] against labels [blocks][Lanes]:
//
//	L = 1/n · Σ_images -Σ_k t_k · log softmax(logits)_k,   t = (1-Smoothing)·onehot + Smoothing/classes
//
// over the n images with a label; a negative label marks a padded lane. Everything is computed in float64, images
// added in order.
type CrossEntropy struct {
	Classes   int
	Smoothing float64
}

// Loss returns L, and writes ∂L/∂logits to gradient.
func (c CrossEntropy) Loss(gradient, logits []float32, labels []int32) float64 {
	images := 0
	for _, label := range labels {
		if label >= 0 {
			images++
		}
	}
	clear(gradient)
	total := 0.0
	p := make([]float64, c.Classes)
	for image, label := range labels {
		if label < 0 {
			continue
		}
		at := image/Lanes*c.Classes*Lanes + image%Lanes
		logNorm := softmax(p, logits[at:], 1)
		for k := range p {
			t := c.target(k, int(label))
			total -= float64(t * (float64(logits[at+k*Lanes]) - logNorm))
			gradient[at+k*Lanes] = float32((p[k] - t) / float64(images))
		}
	}
	return total / float64(max(1, images))
}

func (c CrossEntropy) target(k, label int) float64 {
	t := c.Smoothing / float64(c.Classes)
	if k == label {
		t += 1 - c.Smoothing
	}
	return t
}

// softmax fills p with the probabilities of one image at a temperature, softmax(logits/temperature), and returns
// log Σ exp(logit/temperature).
func softmax(p []float64, logits []float32, temperature float64) float64 {
	largest := math.Inf(-1)
	for k := range p {
		largest = max(largest, float64(logits[k*Lanes])/temperature)
	}
	sum := 0.0
	for k := range p {
		p[k] = Exp(float64(logits[k*Lanes])/temperature - largest)
		sum += p[k]
	}
	for k := range p {
		p[k] /= sum
	}
	return largest + Log(sum)
}
