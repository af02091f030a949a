package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// Weight is where a layer's weights come from. A layer does not know which kind it holds.
type Weight interface {
	// Params returns the parameters behind the weights.
	Params() []*Param
	// Node returns the weights as levels of their unit.
	Node(p *Pass) (*gorgonia.Node, error)
	// Units returns what level 1 is worth now, for each output channel or for all; nil where levels are the weights.
	Units() []float32
	// Fit sets parameters that follow from the weights.
	Fit()
	// Encode returns the weights' integers; nil where they have none.
	Encode() (*integer.Weights, error)
}

var _ Weight = (*projected)(nil)

// projected is a float tensor seen through a quantizer, or as it is.
type projected struct {
	value     *Param
	quantizer quantops.WeightQuantizer // nil for none
	theta     *Param
	units     []float32
}

// newWeight makes weights of a shape [outputs][…] of the kind that the method is of.
func newWeight(b *Build, layer string, m quantops.Method, shape []int) (Weight, error) {
	switch {
	case m.HasCodebook():
		c, err := m.Codebook(shape)
		if err != nil {
			return nil, err
		}
		return newCodebook(b, layer, c, shape)
	case m.Searches():
		size := 1
		for _, n := range shape {
			size *= n
		}
		r, err := m.Relaxation(quantops.Target{Role: quantops.Weights, Channels: shape[0], Size: size, Signed: true})
		if err != nil {
			return nil, err
		}
		if len(r.Search().Levels) > maxElements/size {
			return nil, fmt.Errorf("%s for weights %v has more than 2^31 numbers to choose by", m, shape)
		}
		return newSearched(b, layer, r, shape), nil
	}
	return newProjected(b, layer, m, shape)
}

// newValue makes real weights of a shape [outputs][…], He-initialized: uniform with variance 2/fan-in.
func newValue(b *Build, layer string, shape []int) *Param {
	p := newParam(layer+".weight", shape...)
	p.Decay = 1
	p.fillUniform(heBound(len(p.Data())/shape[0]), b.stream(p.Name))
	return p
}

// newProjected makes weights of a shape [outputs][…].
func newProjected(b *Build, layer string, m quantops.Method, shape []int) (*projected, error) {
	w := &projected{value: newValue(b, layer, shape)}
	size := len(w.value.Data())
	q, err := m.Quantizer(quantops.Target{Role: quantops.Weights, Channels: shape[0], Size: size, Signed: true})
	if err != nil || q == nil {
		return w, err
	}
	var ok bool
	if w.quantizer, ok = q.(quantops.WeightQuantizer); !ok {
		return nil, fmt.Errorf("layers: method %s is not for weights", m)
	}
	w.theta = newTheta(w.value.Name, q.Theta())
	w.units = make([]float32, q.Theta().Rows)
	w.Fit()
	return w, nil
}

func (w *projected) Params() []*Param {
	if w.theta == nil {
		return []*Param{w.value}
	}
	return []*Param{w.value, w.theta}
}

func (w *projected) Node(p *Pass) (*gorgonia.Node, error) {
	if w.quantizer == nil {
		return p.Node(w.value), nil
	}
	return quantops.Node{
		Quantizer: w.quantizer, X: quantops.Input{Node: p.Node(w.value)}, Theta: quantops.Input{Node: p.Node(w.theta)},
		Extent: kernel.Dense(w.value.Value.Shape().TotalSize()),
	}.Apply()
}

func (w *projected) Units() []float32 {
	if w.quantizer == nil {
		return nil
	}
	w.quantizer.Units(w.units, w.theta.Data())
	return w.units
}

func (w *projected) Fit() {
	if w.quantizer != nil {
		w.quantizer.Fit(w.theta.Data(), w.value.Data(), kernel.Dense(len(w.value.Data())), 0)
	}
}

func (w *projected) Encode() (*integer.Weights, error) {
	if w.quantizer == nil {
		return nil, nil
	}
	quantops.Measure(w.quantizer, w.theta.Data(), w.value.Data())
	return w.quantizer.Encode(w.value.Data(), w.theta.Data(), w.value.Value.Shape())
}
