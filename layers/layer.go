package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

// Layer is a step of a network.
type Layer interface {
	// Build makes the layer's parameters for inputs of a shape and returns the shape of its outputs.
	Build(b *Build, in Shape) (Shape, error)
	// Forward adds the layer to a pass.
	Forward(p *Pass, x Value) (Value, error)
	// Lower adds the layer's integers to an integer model.
	Lower(b *integer.Builder, x integer.Value) (integer.Value, error)
	// Params returns the layer's parameters; Build comes first.
	Params() []*Param
}

// Build is what layers need while they make their parameters.
type Build struct {
	Seed  uint64
	names map[string]int
}

// Name returns the layer's own name, or its kind with a number if it has none, and refuses a name used before.
func (b *Build) Name(own, kind string) (string, error) {
	if own == "" {
		b.names[kind]++
		own = fmt.Sprintf("%s%d", kind, b.names[kind])
	}
	if _, taken := b.names["="+own]; taken {
		return "", fmt.Errorf("layers: two layers are named %q", own)
	}
	b.names["="+own] = 1
	return own, nil
}

// stream is the random stream that initializes a parameter.
func (b *Build) stream(parameter string) *random.Stream {
	return random.New(b.Seed, "init/"+parameter)
}

// Methods names the quantizers of a layer with weights: of the weights themselves and of the activations that the layer
// takes in. The zero value is none for both.
//
// With FoldBatchNorm, the weights of a layer that batch normalization directly follows are quantized as the normalization
// scales them, Q(W·k)/k with k = γ/√(running variance + ε) for each output channel, and γ gets a gradient through k too.
// A channel whose |k| is below 2^-64, where γ = 0 for example, has k = 1. Other layers stay as they are; [NewNetwork]
// refuses a network of such alone.
//
// State is for weights that are searched for, see [StateBatchNorm].
type Methods struct {
	Weights, Activations quantops.Method
	FoldBatchNorm        bool
	State                StateBatchNorm
}

// quantizable is a layer that has Methods.
type quantizable interface {
	methods() Methods
	setMethods(Methods)
}

// container is a layer that has layers.
type container interface{ layers() []Layer }

// Quantize sets the methods of all layers with weights below root, which comes before Build. The first and the last
// of them are the edges, whose precision decides most in small networks: they get the methods at edgeBits bits;
// 0 leaves them as the others are.
func Quantize(root Layer, m Methods, edgeBits int) {
	var found []quantizable
	walk(root, func(l Layer) {
		if q, ok := l.(quantizable); ok {
			found = append(found, q)
		}
	})
	edge := m
	if edgeBits > 0 {
		edge.Weights, edge.Activations = m.Weights.WithBits(edgeBits), m.Activations.WithBits(edgeBits)
	}
	for i, q := range found {
		if i == 0 || i == len(found)-1 {
			q.setMethods(edge)
			continue
		}
		q.setMethods(m)
	}
}
