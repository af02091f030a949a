package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
)

// Network is a built net: layers with their parameters, for images of one shape.
type Network struct {
	Root   Layer
	Input  Shape
	Output Shape
	// Winograd trains 3x3 convolutions of stride 1 and enough channels by [kernel.Winograd]: faster, with bits of its own.
	// Evaluation, and the integers, are not affected.
	Winograd bool
}

// NewNetwork builds root for images of a shape. Parameters start from streams of the seed, one for each by name.
func NewNetwork(root Layer, input Shape, seed uint64) (*Network, error) {
	if err := input.validate(); err != nil {
		return nil, fmt.Errorf("layers: input %w", err)
	}
	out, err := root.Build(&Build{Seed: seed, names: map[string]int{}}, input)
	if err != nil {
		return nil, err
	}
	if err := foldNorms(root); err != nil {
		return nil, err
	}
	pairNorms(root)
	return &Network{Root: root, Input: input, Output: out}, nil
}

// TakesWinograd says whether Winograd has an effect on the network.
func (n *Network) TakesWinograd() bool {
	found := false
	walk(n.Root, func(l Layer) {
		if w, ok := l.(interface{ core() *weighted }); ok && w.core().winograd != nil {
			_, applies := w.core().winograd(1)
			found = found || applies
		}
	})
	return found
}

// Params returns all parameters in the order of the layers.
func (n *Network) Params() []*Param { return n.Root.Params() }

// Forward adds the network to a pass, from images, [blocks][channels][height][width][16], to logits.
func (n *Network) Forward(p *Pass, images []float32) (Output, error) {
	if p.Images < 1 {
		return Output{}, fmt.Errorf("layers: a pass of %d images: want at least 1", p.Images)
	}
	if want := n.Input.tensor(p.Blocks()).TotalSize(); len(images) != want {
		return Output{}, fmt.Errorf("layers: %d numbers for %d images of %v: want %d", len(images), p.Images, n.Input, want)
	}
	p.winograd, p.resized = n.Winograd && p.Mode == Training, n.resizes()
	v, err := n.Root.Forward(p, p.Input(n.Input, images))
	if err != nil {
		return Output{}, err
	}
	return p.Output(v)
}

// Fit sets the quantizer parameters that follow from weights, after these have been loaded: codes are found anew.
func (n *Network) Fit() {
	n.weighted(func(w *weighted) {
		if c, ok := w.weight.(*codebook); ok {
			c.forget()
		}
	})
	n.Complete()
}

// Complete is Fit but for codes that have been found, which stay.
func (n *Network) Complete() { n.weighted(func(w *weighted) { w.weight.Fit() }) }

// weighted calls visit with the layers that have weights, in order.
func (n *Network) weighted(visit func(*weighted)) {
	walk(n.Root, func(l Layer) {
		if w, ok := l.(interface{ core() *weighted }); ok {
			visit(w.core())
		}
	})
}

// resizes says whether quantized weights of any layer are of another size than the real ones.
func (n *Network) resizes() (found bool) {
	walk(n.Root, func(l Layer) {
		if w, ok := l.(interface{ core() *weighted }); ok {
			found = found || w.core().resizes()
		}
	})
	return found
}

// Quantized says whether any layer has a quantizer.
func (n *Network) Quantized() bool {
	found := false
	walk(n.Root, func(l Layer) {
		if q, ok := l.(quantizable); ok {
			found = found || !q.methods().Weights.None() || !q.methods().Activations.None()
		}
	})
	return found
}

// Lower makes the integer model. Pixel tells what real number stands for each pixel value of every channel; classes
// names the outputs. A network none of whose layers quantizes its activations has no program: its model is the
// codes and tables of its weights.
func (n *Network) Lower(pixel [][256]float32, classes []string) (*integer.Model, error) {
	if model, err := n.codes(classes); model != nil || err != nil {
		return model, err
	}
	b := integer.NewBuilder(integer.Input{Channels: n.Input.Channels, Height: n.Input.Height, Width: n.Input.Width, Pixel: pixel})
	v, err := n.Root.Lower(b, b.Input())
	if err != nil {
		return nil, err
	}
	return b.Output(v, classes)
}

// codes makes the model without a program; nil where a layer quantizes its activations.
func (n *Network) codes(classes []string) (*integer.Model, error) {
	var found []*weighted
	walk(n.Root, func(l Layer) {
		if w, ok := l.(interface{ core() *weighted }); ok {
			found = append(found, w.core())
		}
	})
	model := &integer.Model{Classes: classes, Input: integer.Shape{Channels: n.Input.Channels, Height: n.Input.Height, Width: n.Input.Width}}
	for _, w := range found {
		if !w.input.none() {
			return nil, nil
		}
		weights, err := w.encode()
		if err != nil {
			return nil, err
		}
		model.Layers = append(model.Layers, integer.Layer{Name: w.name, Weights: *weights, Bias: w.biases()})
	}
	return model, model.Validate()
}

// walk visits root and the layers inside it in order.
func walk(root Layer, visit func(Layer)) {
	visit(root)
	if c, ok := root.(container); ok {
		for _, l := range c.layers() {
			walk(l, visit)
		}
	}
}
