package train

import (
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
)

var _ Optimizer = (*AdamW)(nil)

// AdamW is Adam with decoupled weight decay, or plain Adam with L2, in the form of PyTorch's torch.optim.
// With p a value, g its gradient, η the learning rate and t the parameter's step, from 1:
//
//	p -= η·λ·p                 (decoupled decay, the default)
//	g += λ·p                   (L2 decay instead)
//	m  = β1·m + (1−β1)·g
//	v  = β2·v + (1−β2)·g²
//	p -= η/(1−β1^t) · m / (√v/√(1−β2^t) + ε)
//
// The powers of the betas are running products in float64. Kingma and Ba, arXiv:1412.6980;
// Loshchilov and Hutter, arXiv:1711.05101.
//
// Its state has the slots "first_moment" (m), "second_moment" (v) and "bias_powers" (β1^t and β2^t).
type AdamW struct {
	LearningRate float64 // η ≥ 0; must be set here or by SetLearningRate
	Beta1        float64 // in (0, 1); 0 means 0.9
	Beta2        float64 // in (0, 1); 0 means 0.999
	Epsilon      float64 // ε > 0, at least 1e-38; 0 means 1e-8
	WeightDecay  float64 // λ ≥ 0; 0 is none
	L2           bool    // add the decay to the gradient: plain Adam

	rateSet bool
	memory  memory
}

// Step implements gorgonia.Solver; see Optimizer.
func (o *AdamW) Step(model []gorgonia.ValueGrad) error { return stepModel(o, model) }

// SetLearningRate sets η for the following updates.
func (o *AdamW) SetLearningRate(rate float64) { o.LearningRate, o.rateSet = rate, true }

// Update makes one step; see Optimizer.
func (o *AdamW) Update(parameters []Parameter) error {
	if err := o.check(); err != nil {
		return err
	}
	return o.memory.update(adamLayout, parameters, o.newStep)
}

// State returns the moments and bias powers; see Optimizer.
func (o *AdamW) State() []State { return o.memory.state(adamLayout) }

// Restore replaces the moments and bias powers; see Optimizer.
func (o *AdamW) Restore(states []State) error { return o.memory.restore(adamLayout, states) }

var adamLayout = layout{moments: []string{"first_moment", "second_moment"}, powers: 2}

// constants returns β1, β2 and ε with their defaults filled in.
func (o *AdamW) constants() (beta1, beta2, epsilon float64) {
	return orDefault(o.Beta1, 0.9), orDefault(o.Beta2, 0.999), orDefault(o.Epsilon, 1e-8)
}

func orDefault[T int | float64](x, value T) T {
	if x == 0 {
		return value
	}
	return x
}

func (o *AdamW) check() error {
	beta1, beta2, epsilon := o.constants()
	switch {
	case !(beta1 > 0 && beta1 < 1) || !(beta2 > 0 && beta2 < 1):
		return fmt.Errorf("train: AdamW betas %v and %v; want (0, 1), or 0 for the default", beta1, beta2)
	case !(epsilon >= 1e-38 && epsilon <= math.MaxFloat32):
		return fmt.Errorf("train: AdamW epsilon %v; want at least 1e-38, or 0 for 1e-8", epsilon)
	case !nonNegative(o.WeightDecay):
		return fmt.Errorf("train: AdamW weight decay %v; it must be finite and not negative", o.WeightDecay)
	}
	return checkRate(o.LearningRate, o.rateSet)
}

// adamStep is AdamW's update of one parameter.
type adamStep struct {
	value, gradient []float32
	first, second   []float32
	penalty, shrink float32
	beta1, fresh1   float32 // β1 and 1−β1
	beta2, fresh2   float32
	size            float32 // η/(1−β1^t)
	root            float32 // √(1−β2^t)
	epsilon         float32

	history *history
	powers  [2]float64 // β1^t and β2^t, kept with the commit
}

func (o *AdamW) newStep(p Parameter, h *history) step {
	beta1, beta2, epsilon := o.constants()
	rate, decay := p.Group.scaled(o.LearningRate, o.WeightDecay)
	powers := [2]float64{float64(h.powers[0] * beta1), float64(h.powers[1] * beta2)}
	s := &adamStep{
		value: p.Value, gradient: p.Gradient, first: h.moments[0], second: h.moments[1],
		beta1: float32(beta1), fresh1: float32(1 - beta1),
		beta2: float32(beta2), fresh2: float32(1 - beta2),
		size:    float32(rate / (1 - powers[0])),
		root:    float32(math.Sqrt(1 - powers[1])),
		epsilon: float32(epsilon),
		history: h, powers: powers,
	}
	s.penalty, s.shrink = decayFactors(rate, decay, !o.L2)
	return s
}

func (s *adamStep) run(commit bool) (bad int) {
	for i, g := range s.gradient {
		value, first, second := s.element(s.value[i], g, s.first[i], s.second[i])
		if !commit {
			if !finite(value) || !finite(first) || !finite(second) {
				return i
			}
			continue
		}
		s.value[i], s.first[i], s.second[i] = value, first, second
	}
	if commit {
		copy(s.history.powers, s.powers[:])
	}
	return -1
}

// element is the update rule.
func (s *adamStep) element(p, g, m, v float32) (value, first, second float32) {
	p -= float32(s.shrink * p)
	g += float32(s.penalty * p)
	m = float32(s.beta1*m) + float32(s.fresh1*g)
	v = float32(s.beta2*v) + float32(float32(s.fresh2*g)*g)
	denominator := float32(math.Sqrt(float64(v)))/s.root + s.epsilon
	return p - float32(s.size*float32(m/denominator)), m, v
}
