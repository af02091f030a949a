package layers

import (
	"fmt"
	"slices"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/quantops"
)

// LayerWeights are the weights of one layer, to be looked at: real numbers, the parameters of their quantizer, integers.
type LayerWeights struct {
	Layer      string
	Shape      []int            // [outputs][…]
	Method     quantops.Method  // none for weights that are not quantized, or where a file does not tell
	Values     []float32        // real weights, row-major; soft ones where weights are searched for; nil where there are integers alone
	Theta      quantops.Theta   // what Parameters are; the zero value for none
	Parameters []float32        // of the quantizer, [Theta.Rows][len(Theta.Columns)]
	Integers   *integer.Weights // nil for weights that are not quantized
}

// describer is a Weight with real numbers behind its integers.
type describer interface {
	// describe adds the real numbers, and the parameters of their quantizer.
	describe(w *LayerWeights)
}

func (w *projected) describe(to *LayerWeights) {
	to.Values = w.value.Data()
	if w.quantizer != nil {
		to.Theta, to.Parameters = w.quantizer.Theta(), w.theta.Data()
	}
}

// Weights returns the weights of all layers that have some, in the order of the layers. Parameters that quantizers take
// from the weights are brought up to date first. It fails where a layer's integers can't be made.
func (n *Network) Weights() ([]LayerWeights, error) {
	var all []LayerWeights
	var failed error
	walk(n.Root, func(l Layer) {
		owner, ok := l.(interface{ core() *weighted })
		if !ok || failed != nil {
			return
		}
		w, err := owner.core().look(l)
		all, failed = append(all, w), err
	})
	return all, failed
}

// look describes the weights of the layer l.
func (w *weighted) look(l Layer) (LayerWeights, error) {
	integers, err := w.weight.Encode()
	if err != nil {
		return LayerWeights{}, fmt.Errorf("layers: %s: %w", w.name, err)
	}
	found := LayerWeights{Layer: w.name, Integers: integers, Shape: slices.Clone(w.weight.Params()[0].Value.Shape())}
	if q, ok := l.(quantizable); ok {
		found.Method = q.methods().Weights
	}
	if integers != nil {
		found.Shape = integers.Shape
	}
	if r, ok := w.weight.(describer); ok {
		r.describe(&found)
	}
	return found, nil
}

// ModelWeights returns the weights of an integer model, in its order: integers alone.
func ModelWeights(m *integer.Model) []LayerWeights {
	all := make([]LayerWeights, len(m.Layers))
	for i := range m.Layers {
		l := &m.Layers[i]
		all[i] = LayerWeights{Layer: l.Name, Shape: l.Weights.Shape, Integers: &l.Weights}
	}
	return all
}
