package layers

import (
	"fmt"
	"math"
	"slices"

	"github.com/goqat/goqat/internal/kernel"
)

// Equalization divides channels of activations by scales of their own and multiplies the weights that take them in by
// the same, which changes nothing of what the network computes: layers whose activations have one quantizer for all
// channels then quantize each channel as finely as it deserves.
//
//	relu(γ·x̂ + β)/t = relu((γ/t)·x̂ + β/t)        Σ_c W[:,c]·x_c = Σ_c (W[:,c]·t_c)·(x_c/t_c)      for t > 0
//
// The division goes into the batch normalization, or the layer with weights, that the channel comes from. Between
// there and the weights lie rectifiers, pooling and shortcuts, which are homogeneous; what a residual sum joins has
// one scale. The network's input and output, and what goes into a batch normalization, keep theirs.
//
// Without a batch normalization to take it, the division makes weights larger. There a channel is divided by no more
// than what leaves its weights below the largest of their layer: a channel that is nearly dead would otherwise set the
// range, and the step, of all the layer's weights. And no scale is below 2^-8: behind eight bits such a channel is
// hardly seen, and may be larger on other images.
//
// Wang et al., "Towards Accurate Post-training Network Quantization via Bit-Split and Stitching", 2020 (ECAQ, for
// residual networks narrowed to one scale for each channel of the stream); Nagel et al., "Data-Free Quantization
// Through Weight Equalization and Bias Correction", 2019.
type Equalization struct {
	parents   []int // of channels that share a scale, as a forest; tree 0 keeps the scale 1
	consumers []consumer
	producers []producer
	unknown   Layer // of a kind that is not known to be homogeneous; nil for none
}

// consumer is a layer with weights and the scales of its input's channels; features of a flattened channel have one.
type consumer struct {
	layer  *weighted
	inputs []int
}

// producer is what is divided by the scales of its output's channels: parameters with an element, or a row, per channel.
type producer struct {
	weight  *Param // the one of params that is quantized; nil for a batch normalization
	params  []*Param
	outputs []int
}

// NewEqualization finds out which channels of a network can have scales.
func NewEqualization(n *Network) (*Equalization, error) {
	e := &Equalization{parents: []int{0}}
	e.fix(e.follow(n.Root, e.fixed(n.Input.Channels)))
	if e.unknown != nil {
		return nil, fmt.Errorf("layers: equalization: a %T may tell scales apart", e.unknown)
	}
	return e, nil
}

// root is the representative of a scale.
func (e *Equalization) root(i int) int {
	for e.parents[i] != i {
		e.parents[i] = e.parents[e.parents[i]]
		i = e.parents[i]
	}
	return i
}

// join makes two scales one.
func (e *Equalization) join(i, j int) {
	i, j = e.root(i), e.root(j)
	e.parents[max(i, j)] = min(i, j)
}

func (e *Equalization) fix(scales []int) {
	for _, i := range scales {
		e.join(i, 0)
	}
}

// fixed are scales of 1.
func (*Equalization) fixed(n int) []int { return make([]int, n) }

// fresh are scales of their own.
func (e *Equalization) fresh(n int) []int {
	scales := make([]int, n)
	for i := range scales {
		scales[i] = len(e.parents)
		e.parents = append(e.parents, scales[i])
	}
	return scales
}

// follow returns the scales of a layer's output channels from those of its input.
func (e *Equalization) follow(l Layer, x []int) []int {
	switch l := l.(type) {
	case Sequential:
		for _, inside := range l {
			x = e.follow(inside, x)
		}
		return x
	case *Residual:
		return e.sum(l, x)
	case ReLU, *PReLU, MaxPool2D, AvgPool2D, *GlobalAvgPool, Flatten:
		return x
	case *PadShortcut:
		return append(append(e.fresh(l.before), x...), e.fresh(l.after)...) // of zeros
	case *BatchNorm:
		e.fix(x)
		return e.produce(nil, len(x), l.gamma, l.beta)
	case interface{ core() *weighted }:
		return e.weights(l.core(), x)
	}
	e.unknown = l
	return x
}

// sum follows both paths of a block.
func (e *Equalization) sum(l *Residual, x []int) []int {
	body, shortcut := e.follow(l.Body, x), x
	if l.Shortcut != nil {
		shortcut = e.follow(l.Shortcut, x)
	}
	for c := range min(len(body), len(shortcut)) {
		e.join(body[c], shortcut[c])
	}
	return body
}

// produce returns fresh scales that parameters are divided by, a quantized weight among them or nil.
func (e *Equalization) produce(weight *Param, channels int, params ...*Param) []int {
	p := producer{weight, params, e.fresh(channels)}
	e.producers = append(e.producers, p)
	return p.outputs
}

// weights follows a layer with weights: it takes in scales and gives others.
func (e *Equalization) weights(w *weighted, x []int) []int {
	p, ok := w.weight.(*projected)
	if !ok { // other kinds have nothing to multiply
		e.fix(x)
		return e.fixed(w.out.Channels)
	}
	e.consumers = append(e.consumers, consumer{w, x})
	params := []*Param{p.value}
	if w.bias != nil {
		params = append(params, w.bias)
	}
	return e.produce(p.value, w.out.Channels, params...)
}

// leastExponent is that of the least scale.
const leastExponent = -8

// scales chooses the scales. Of every layer with weights, wanted says in which proportion its quantizer would take the
// channels that it takes in, 0 for one that holds nothing; a channel that several layers take in gets the geometric
// mean of what each wants, as a share of its largest, or the least that the weights it comes from allow. Scales are
// rounded to powers of two, so that the network's numbers stay the very same.
func (e *Equalization) scales(wanted map[string][]float64) []float64 {
	sums, counts := make([]float64, len(e.parents)), make([]float64, len(e.parents))
	for _, c := range e.consumers {
		for at, exponent := range e.exponents(&c, wanted[c.layer.name]) {
			sums[at] += exponent
			counts[at]++
		}
	}
	limits := e.limits()
	scales := make([]float64, len(e.parents))
	for i := range scales {
		scales[i] = 1
		if r := e.root(i); r != 0 && counts[r] > 0 {
			scales[i] = math.Ldexp(1, max(int(math.RoundToEven(sums[r]/counts[r])), limits[r]))
		}
	}
	return scales
}

// limits returns the least exponent of each scale; none that makes a weight larger than the largest of its layer was.
func (e *Equalization) limits() []int {
	limits := slices.Repeat([]int{leastExponent}, len(e.parents))
	for _, p := range e.producers {
		for o, least := range p.limits() {
			at := e.root(p.outputs[o])
			limits[at] = max(limits[at], least)
		}
	}
	return limits
}

// limits returns those of each output channel; none of a batch normalization. A channel of zeros keeps its scale.
func (p *producer) limits() []int {
	if p.weight == nil {
		return nil
	}
	limits, largest := make([]int, len(p.outputs)), reach(p.weight.Data())
	each := len(p.weight.Data()) / len(limits)
	for o := range limits {
		if row := reach(p.weight.Data()[o*each:][:each]); row > 0 {
			fraction, exponent := math.Frexp(row / largest)
			if fraction == 0.5 {
				exponent--
			}
			limits[o] = exponent
		}
	}
	return limits
}

// reach is the largest magnitude.
func reach(w []float32) float64 {
	low, high := kernel.Range(w, kernel.Dense(len(w)))
	return float64(max(-low, high))
}

// exponents returns what one layer wants of each scale, the mean over the channels that have it, as powers of two.
func (e *Equalization) exponents(c *consumer, shares []float64) map[int]float64 {
	sums, counts := map[int]float64{}, map[int]float64{}
	largest := slices.Max(append(shares, 0))
	for i, share := range shares {
		if share > 0 {
			at := e.root(c.scale(i))
			sums[at] += kernel.Log(share/largest) / math.Ln2
			counts[at]++
		}
	}
	for at := range sums {
		sums[at] /= counts[at]
	}
	return sums
}

// scale is that of a channel that the layer takes in.
func (c *consumer) scale(channel int) int { return c.inputs[channel*len(c.inputs)/c.layer.in.Channels] }

// Apply gives the channels the scales that follow from what layers want of the channels that they take in, by name; see
// [Equalization]. It returns how many scales are not 1; channels that a residual sum joins share theirs.
func (e *Equalization) Apply(wanted map[string][]float64) int {
	scales := e.scales(wanted)
	for _, c := range e.consumers {
		c.multiply(scales)
	}
	for _, p := range e.producers {
		p.divide(scales)
	}
	changed := 0
	for i, scale := range scales {
		if e.root(i) == i && scale != 1 {
			changed++
		}
	}
	return changed
}

// multiply multiplies the weights of every input channel by its scale.
func (c *consumer) multiply(scales []float64) {
	value := c.layer.weight.(*projected).value
	shape, data := value.Value.Shape(), value.Data()
	outputs, inputs := shape[0], shape[1]
	taps := len(data) / (outputs * inputs)
	groups := c.layer.in.Channels / inputs
	for o := range outputs {
		first := o / (outputs / groups) * inputs
		for i := range inputs {
			t := float32(scales[c.scale(first+i)])
			for k := (o*inputs + i) * taps; k < (o*inputs+i+1)*taps; k++ {
				data[k] *= t
			}
		}
	}
}

// divide divides the parameters of every output channel by its scale.
func (p *producer) divide(scales []float64) {
	for o, at := range p.outputs {
		for _, param := range p.params {
			each := len(param.Data()) / len(p.outputs)
			for i := range param.Data()[o*each:][:each] {
				param.Data()[o*each+i] /= float32(scales[at])
			}
		}
	}
}
