package layers

import (
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/tensor"
)

// Param is a parameter tensor of a network. It outlives the graphs that use it; a checkpoint holds all of them.
type Param struct {
	Name    string // unique in the network, for example "conv1.weight" or "conv1.input.step"
	Value   *tensor.Dense
	Kind    quantops.Kind // learned ones get gradients
	Minimum []float32     // of a learned parameter's columns, kept after each step; nil for none
	Rate    float64       // multiplies the learning rate
	Decay   float64       // multiplies the weight decay
	Theta   bool          // belongs to a quantizer: fitted anew when weights come from another network
	Adopts  *Adoption     // what it starts from when weights come from a network that has another parameter in its place; nil for nothing
}

// Adoption says how a parameter starts from one of another network.
type Adoption struct {
	Name  string // of the other network's parameter
	Shape []int
	Set   func(x []float32) // makes the parameter start from the other's elements
	Get   func() []float32  // what the other's elements would be now; nil where the network has that parameter too
}

// FloatParam is a parameter that a network has without quantizers, seen from the network as it is.
type FloatParam struct {
	Name  string
	Shape []int
	Set   func(x []float32) // makes the network start from these elements
	Get   func() []float32  // what the elements are now: of weights that are searched for, the hard ones
}

// FloatParams returns what the network's parameters would be without quantizers, in the order of the layers.
func (n *Network) FloatParams() []FloatParam {
	var all []FloatParam
	at := map[string]int{}
	for _, p := range n.Params() {
		f := FloatParam{Name: p.Name, Shape: p.Value.Shape(), Set: func(x []float32) { copy(p.Data(), x) }, Get: p.Data}
		switch a := p.Adopts; {
		case a == nil && p.Theta:
			continue
		case a != nil && a.Get == nil: // another parameter has that name
			first := all[at[a.Name]].Set
			all[at[a.Name]].Set = func(x []float32) {
				first(x)
				a.Set(x)
			}
			continue
		case a != nil:
			f = FloatParam(*a)
		}
		at[f.Name] = len(all)
		all = append(all, f)
	}
	return all
}

// Data returns the elements, which the parameter shares.
func (p *Param) Data() []float32 { return p.Value.Float32s() }

// Project brings a learned parameter back into its range after an optimizer step.
func (p *Param) Project() {
	if p.Minimum == nil {
		return
	}
	data := p.Data()
	for i := range data {
		data[i] = max(data[i], p.Minimum[i%len(p.Minimum)])
	}
}

func newParam(name string, shape ...int) *Param {
	return &Param{Name: name, Value: tensor.New(tensor.WithShape(shape...), tensor.Of(tensor.Float32)), Rate: 1}
}

// newTheta makes the parameter tensor of a quantizer.
func newTheta(owner string, t quantops.Theta) *Param {
	p := newParam(owner+"."+t.Name, t.Rows, len(t.Columns))
	p.Kind, p.Minimum, p.Rate, p.Decay = t.Kind, t.Minimum, t.Rate, t.Decay
	p.Theta = true
	return p
}

// fillUniform draws from the uniform distribution on [-bound, bound).
func (p *Param) fillUniform(bound float64, s *random.Stream) {
	data := p.Data()
	for i := range data {
		data[i] = float32(bound * (2*s.Float64() - 1))
	}
}
