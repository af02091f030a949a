package layers

import (
	"fmt"
	"math"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

// weighted is what convolution and linear layers have in common: quantized inputs times quantized weights plus a bias.
type weighted struct {
	name   string
	weight Weight
	bias   *Param // nil for none
	input  activation
	in     Shape
	out    Shape
	plan   func(blocks int) *kernel.Conv
	apart  bool // blocks can be computed apart

	winograd func(blocks int) (*kernel.Winograd, bool) // nil where it does not pay

	foldsNorm bool           // Methods.FoldBatchNorm
	state     StateBatchNorm // Methods.State
	norm      *BatchNorm     // behind weights that are searched for; nil for none
	hard      *hardBranch    // of the state batch normalization behind the layer; nil for none
}

// heBound is the bound of the uniform distribution with variance 2/fanIn (He et al., 2015).
func heBound(fanIn int) float64 { return math.Sqrt(6 / float64(fanIn)) }

// build makes weights of a shape [outputs][…], a bias and the quantizers.
func (w *weighted) build(b *Build, m Methods, shape []int, bias bool) error {
	if err := w.out.validate(); err != nil {
		return fmt.Errorf("layers: %s: output %w", w.name, err)
	}
	if !fits(shape) {
		return fmt.Errorf("layers: %s: weights %v have more than 2^31 elements", w.name, shape)
	}
	weight, err := newWeight(b, w.name, m.Weights, shape)
	if err != nil {
		return fmt.Errorf("layers: %s: %w", w.name, err)
	}
	w.weight, w.foldsNorm, w.state = weight, m.FoldBatchNorm, m.State
	if _, ok := weight.(*codebook); ok && w.foldsNorm {
		return fmt.Errorf("layers: %s: batch normalization can't be folded into weights of %s, whose codes are for all output channels", w.name, m.Weights)
	}
	if w.foldsNorm && w.searching() != nil {
		return fmt.Errorf("layers: %s: batch normalization can't be folded into weights of %s, which are searched for", w.name, m.Weights)
	}
	if w.foldsNorm && w.resizes() {
		return fmt.Errorf("layers: %s: batch normalization can't be folded into weights of %s, which leaves their size to it", w.name, m.Weights)
	}
	if bias {
		w.bias = newParam(w.name+".bias", shape[0])
	}
	q, err := m.Activations.Quantizer(quantops.Target{Role: quantops.Activations, Channels: 1, Size: w.in.Len(), Signed: w.in.Signed})
	if err != nil {
		return fmt.Errorf("layers: %s: %w", w.name, err)
	}
	if q == nil {
		return nil
	}
	var ok bool
	if w.input.quantizer, ok = q.(quantops.ActivationQuantizer); !ok {
		return fmt.Errorf("layers: %s: method %s is not for activations", w.name, m.Activations)
	}
	w.input.theta = newTheta(w.name+".input", q.Theta())
	return nil
}

// Params returns the weights' parameters, the bias and the parameters of the input's quantizer.
func (w *weighted) Params() []*Param {
	params := w.weight.Params()
	if w.bias != nil {
		params = append(params, w.bias)
	}
	if w.input.theta != nil {
		params = append(params, w.input.theta)
	}
	return params
}

func (w *weighted) core() *weighted { return w }

// resizes says whether the quantized weights are of another size than the real ones.
func (w *weighted) resizes() bool {
	if s, ok := w.weight.(*searched); ok {
		return s.scale == nil
	}
	p, ok := w.weight.(*projected)
	if !ok {
		return false
	}
	q, ok := p.quantizer.(quantops.Resizing)
	return ok && q.Resizes()
}

// forward adds the layer to a pass.
func (w *weighted) forward(p *Pass, x Value) (Value, error) {
	x, quantizer, err := w.input.quantize(p, x)
	if err == nil {
		x, err = p.tap(w, x)
	}
	if err != nil {
		return Value{}, err
	}
	if p.Mode == Evaluation && x.levels != nil {
		if exact, err := w.exact(p, x); exact != nil || err != nil {
			return Value{Shape: w.out, exact: exact}, err
		}
	}
	node, err := w.weight.Node(p)
	if err != nil {
		return Value{}, err
	}
	f := newProduct(w, p, x.levels)
	inputs := append(f.take(p, x, quantizer), quantops.Input{Node: node})
	if quantizer != nil {
		f.levels = quantizer
	}
	if w.bias != nil {
		inputs = append(inputs, quantops.Input{Node: p.Node(w.bias)})
	}
	n, err := p.apply(f, w.out, inputs...)
	if err != nil {
		return Value{}, err
	}
	if x.keep != nil {
		if x.keep.node, err = quantops.Kept(n, x.Shape.tensor(p.Blocks())); err != nil {
			return Value{}, err
		}
		if err := p.remember(x.waiting.name(), x.keep.node); err != nil {
			return Value{}, err
		}
	}
	return Value{Shape: w.out, node: n, product: f}, p.remember(w.name, n)
}

// encode returns the integers of the weights.
func (w *weighted) encode() (*integer.Weights, error) {
	weights, err := w.weight.Encode()
	if err != nil {
		return nil, fmt.Errorf("layers: %s: %w", w.name, err)
	}
	if book, ok := w.weight.(*codebook); ok && !book.found() {
		return nil, fmt.Errorf("layers: %s has no codes yet, so it has no integers: calibrate the network first", w.name)
	}
	if weights == nil {
		return nil, fmt.Errorf("layers: %s has no weight quantizer, so it has no integers", w.name)
	}
	return weights, nil
}

// integers returns what lowering needs of the layer: its input as codes, its weights and its bias.
func (w *weighted) integers(b *integer.Builder, x integer.Value) (integer.Value, *integer.Weights, []float32, error) {
	weights, err := w.encode()
	if err != nil {
		return x, nil, nil, err
	}
	if w.input.none() {
		return x, nil, nil, fmt.Errorf("layers: %s has no activation quantizer, so it can't run on integers", w.name)
	}
	grid, err := w.input.grid()
	if err != nil {
		return x, nil, nil, fmt.Errorf("layers: %s: %w", w.name, err)
	}
	x, err = b.Quantize(x, grid)
	return x, weights, w.biases(), err
}

// biases returns the elements of the bias, nil for none.
func (w *weighted) biases() []float32 {
	if w.bias == nil {
		return nil
	}
	return w.bias.Data()
}
