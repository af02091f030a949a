package kernel

// Distillation is the loss of a student's logits against labels and a teacher's logits, [blocks][classes][Lanes] each:
//
//	L = (1-Weight)·CrossEntropy + Weight·T²/n · Σ_images Σ_k p_k·(log p_k - log q_k)
//	p = softmax(teacher/T),  q = softmax(student/T),  T = Temperature
//
// over the n images with a label. T² keeps the gradient, Weight·T/n·(q - p), of one size for every temperature.
// Everything is computed in float64, images added in order.
//
// Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
type Distillation struct {
	CrossEntropy
	Temperature float64 // more than 0
	Weight      float64 // 0 to 1
}

// Loss returns L, and writes ∂L/∂student to gradient.
func (d Distillation) Loss(gradient, student, teacher []float32, labels []int32) float64 {
	hard := d.CrossEntropy.Loss(gradient, student, labels)
	images := 0
	for _, label := range labels {
		if label >= 0 {
			images++
		}
	}
	slope := float64(d.Weight*d.Temperature) / float64(max(1, images))
	p, q := make([]float64, d.Classes), make([]float64, d.Classes)
	soft := 0.0
	for image, label := range labels {
		if label < 0 {
			continue
		}
		at := image/Lanes*d.Classes*Lanes + image%Lanes
		soft += d.divergence(p, q, student[at:], teacher[at:])
		for k := range p {
			g := &gradient[at+k*Lanes]
			*g = float32(float64((1-d.Weight)*float64(*g)) + float64(slope*(q[k]-p[k])))
		}
	}
	return float64((1-d.Weight)*hard) + float64(float64(slope*d.Temperature)*soft)
}

// divergence fills p and q for one image and returns Σ_k p_k·(log p_k - log q_k).
func (d Distillation) divergence(p, q []float64, student, teacher []float32) float64 {
	normP, normQ := softmax(p, teacher, d.Temperature), softmax(q, student, d.Temperature)
	sum := 0.0
	for k := range p {
		difference := (float64(teacher[k*Lanes]) - float64(student[k*Lanes])) / d.Temperature
		sum += float64(p[k] * (difference - (normP - normQ)))
	}
	return sum
}
