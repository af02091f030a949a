package train

import (
	"fmt"

	"gorgonia.org/gorgonia"
)

var _ Optimizer = (*SGD)(nil)

// SGD is stochastic gradient descent with momentum, in the form of PyTorch's torch.optim.SGD.
// With p a value, g its gradient and η the learning rate:
//
//	g += λ·p                          (L2 decay, the default)
//	p -= η·λ·p                        (decoupled decay instead)
//	b  = μ·b + (1−τ)·g                (the first b is g itself)
//	d  = b, or g + μ·b with Nesterov  (without momentum: g)
//	p -= η·d
//
// The buffer b holds no learning rate, so a schedule acts at once. Sutskever et al., On the importance of
// initialization and momentum in deep learning, 2013; decoupled decay: Loshchilov and Hutter, arXiv:1711.05101.
//
// Its state has one slot, "momentum", and none without momentum.
type SGD struct {
	LearningRate float64 // η ≥ 0; must be set here or by SetLearningRate
	Momentum     float64 // μ in [0, 1); 0 is plain gradient descent
	Dampening    float64 // τ in [0, 1]; 0 is none. Needs momentum
	WeightDecay  float64 // λ ≥ 0; 0 is none
	Nesterov     bool    // look ahead along the buffer. Needs momentum, and no dampening
	Decoupled    bool    // take the decay from the value directly, past gradient and buffer

	rateSet bool
	memory  memory
}

// Step implements gorgonia.Solver; see Optimizer.
func (o *SGD) Step(model []gorgonia.ValueGrad) error { return stepModel(o, model) }

// SetLearningRate sets η for the following updates.
func (o *SGD) SetLearningRate(rate float64) { o.LearningRate, o.rateSet = rate, true }

// Update makes one step; see Optimizer.
func (o *SGD) Update(parameters []Parameter) error {
	if err := o.check(); err != nil {
		return err
	}
	return o.memory.update(o.layout(), parameters, o.newStep)
}

// State returns the momentum buffers; see Optimizer.
func (o *SGD) State() []State { return o.memory.state(o.layout()) }

// Restore replaces the momentum buffers; see Optimizer.
func (o *SGD) Restore(states []State) error { return o.memory.restore(o.layout(), states) }

func (o *SGD) layout() layout {
	if o.Momentum == 0 {
		return layout{}
	}
	return layout{moments: []string{"momentum"}}
}

func (o *SGD) check() error {
	switch {
	case !(o.Momentum >= 0 && o.Momentum < 1):
		return fmt.Errorf("train: SGD momentum %v; want [0, 1)", o.Momentum)
	case !(o.Dampening >= 0 && o.Dampening <= 1):
		return fmt.Errorf("train: SGD dampening %v; want [0, 1]", o.Dampening)
	case !nonNegative(o.WeightDecay):
		return fmt.Errorf("train: SGD weight decay %v; it must be finite and not negative", o.WeightDecay)
	case o.Dampening != 0 && o.Momentum == 0:
		return fmt.Errorf("train: SGD dampening %v has no effect without momentum", o.Dampening)
	case o.Nesterov && (o.Momentum == 0 || o.Dampening != 0):
		return fmt.Errorf("train: SGD with Nesterov needs momentum above 0 and no dampening; it has %v and %v",
			o.Momentum, o.Dampening)
	}
	return checkRate(o.LearningRate, o.rateSet)
}

// sgdStep is SGD's update of one parameter.
type sgdStep struct {
	value, gradient []float32
	buffer          []float32 // nil without momentum
	rate            float32
	penalty, shrink float32
	momentum, fresh float32 // μ and 1−τ; in the first step 0 and 1
	ahead           float32 // Nesterov's μ
	nesterov        bool
}

func (o *SGD) newStep(p Parameter, h *history) step {
	rate, decay := p.Group.scaled(o.LearningRate, o.WeightDecay)
	s := &sgdStep{value: p.Value, gradient: p.Gradient, rate: float32(rate), fresh: 1, nesterov: o.Nesterov}
	s.penalty, s.shrink = decayFactors(rate, decay, o.Decoupled)
	if o.Momentum == 0 {
		return s
	}
	s.buffer, s.ahead = h.moments[0], float32(o.Momentum)
	if h.steps > 0 {
		s.momentum, s.fresh = float32(o.Momentum), float32(1-o.Dampening)
	}
	return s
}

func (s *sgdStep) run(commit bool) (bad int) {
	for i, g := range s.gradient {
		var buffer float32
		if s.buffer != nil {
			buffer = s.buffer[i]
		}
		value, buffer := s.element(s.value[i], g, buffer)
		if !commit {
			if !finite(value) || !finite(buffer) {
				return i
			}
			continue
		}
		s.value[i] = value
		if s.buffer != nil {
			s.buffer[i] = buffer
		}
	}
	return -1
}

// element is the update rule. Without momentum the direction is the new buffer too: 0·0 + 1·g.
func (s *sgdStep) element(p, g, b float32) (value, buffer float32) {
	g += float32(s.penalty * p)
	p -= float32(s.shrink * p)
	b = float32(s.momentum*b) + float32(s.fresh*g)
	direction := b
	if s.nesterov {
		direction = g + float32(s.ahead*b)
	}
	return p - float32(s.rate*direction), b
}
