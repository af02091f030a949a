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
	return &Network{Root: root, Input: input, Output: out}, nil
}

// Params returns all parameters in the order of the layers.
func (n *Network) Params() []*Param { return n.Root.Params() }

// Forward adds the network to a pass, from images to logits.
func (n *Network) Forward(p *Pass, images []float32) (Output, error) {
	v, err := n.Root.Forward(p, p.Input(n.Input, images))
	if err != nil {
		return Output{}, err
	}
	return p.Output(v)
}

// Fit sets the quantizer parameters that follow from weights, after these have been loaded.
func (n *Network) Fit() {
	walk(n.Root, func(l Layer) {
		if w, ok := l.(interface{ fit() }); ok {
			w.fit()
		}
	})
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
// names the outputs.
func (n *Network) Lower(pixel [][256]float32, classes []string) (*integer.Model, error) {
	b := integer.NewBuilder(integer.Input{Channels: n.Input.Channels, Height: n.Input.Height, Width: n.Input.Width, Pixel: pixel})
	v, err := n.Root.Lower(b, b.Input())
	if err != nil {
		return nil, err
	}
	return b.Output(v, classes)
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
