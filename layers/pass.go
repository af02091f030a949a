package layers

import (
	"fmt"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Mode says what a pass is for.
type Mode uint8

// The modes of a pass.
const (
	Training    Mode = iota // fake quantization with surrogate gradients; running ranges follow the data
	Calibration             // activations stay in floating point; quantizers fit their parameters to them
	Evaluation              // parameters stand still; between quantizers the engine's integer arithmetic
)

// Pass builds one graph over a network's parameters for batches of up to Images images.
type Pass struct {
	Graph  *gorgonia.ExprGraph
	Mode   Mode
	Branch Branch
	Images int // images of a batch; lanes beyond them are padding

	nodes   map[*Param]*gorgonia.Node
	forked  map[*Param]*gorgonia.Node // main nodes of those with a side
	order   []*Param
	steps   []step
	refresh []func() error
	batches int // calibration batches seen

	winograd bool // Network.Winograd, in training
	down     bool // product.down of the next layer
	resized  bool // weights have other sizes than running statistics know

	tapped []string // layers whose taps are not reached yet
	taps   []*Tap
}

// step remembers a layer's output, to name the layer where a number stops being finite.
type step struct {
	layer  string
	output []float32
}

// NewPass starts a pass in a graph of its own.
func NewPass(mode Mode, images int) *Pass {
	return &Pass{Graph: gorgonia.NewGraph(), Mode: mode, Images: images, nodes: map[*Param]*gorgonia.Node{}, forked: map[*Param]*gorgonia.Node{}}
}

// Blocks is the number of blocks that hold the batch.
func (p *Pass) Blocks() int { return kernel.Blocks(p.Images) }

// Node returns the parameter's node in this graph. The node shares the parameter's memory.
func (p *Pass) Node(param *Param) *gorgonia.Node {
	if n, ok := p.forked[param]; ok {
		return n
	}
	if n, ok := p.nodes[param]; ok {
		return n
	}
	n := gorgonia.NewTensor(p.Graph, tensor.Float32, param.Value.Dims(), gorgonia.WithShape(param.Value.Shape()...),
		gorgonia.WithName(param.Name), gorgonia.WithValue(param.Value))
	p.nodes[param] = n
	p.order = append(p.order, param)
	return n
}

// side returns a node of a learned parameter that has one more user, behind it learned parameters of its own. From then on
// Node returns another one, whose gradient and the side's add up in one operation.
func (p *Pass) side(param *Param) (*gorgonia.Node, error) {
	main, side, err := quantops.Fork(quantops.Input{Node: p.Node(param)})
	if err == nil {
		p.forked[param] = main
	}
	return side, err
}

// Learned returns the learned parameters of the graph in the order of their first use.
func (p *Pass) Learned() (params []*Param, nodes gorgonia.Nodes) {
	for _, param := range p.order {
		if param.Kind == quantops.Learned {
			params, nodes = append(params, param), append(nodes, p.nodes[param])
		}
	}
	return params, nodes
}

// Input adds the images of a batch, [blocks][channels][height][width][16], whose elements are data.
func (p *Pass) Input(shape Shape, data []float32) Value {
	t := tensor.New(tensor.WithShape(shape.tensor(p.Blocks())...), tensor.WithBacking(data))
	n := gorgonia.NewTensor(p.Graph, tensor.Float32, t.Dims(), gorgonia.WithShape(t.Shape()...), gorgonia.WithName("images"), gorgonia.WithValue(t))
	return Value{Shape: shape, node: n, constant: true}
}

// Refresh makes an evaluation pass see the parameters as they are now. It comes before a run of evaluations, and
// fails where a layer's integers can't be made.
func (p *Pass) Refresh() error {
	for _, do := range p.refresh {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// Calibrated tells a calibration pass that a batch has run.
func (p *Pass) Calibrated() { p.batches++ }

// remember notes a layer's output.
func (p *Pass) remember(layer string, n *gorgonia.Node) error {
	output, err := quantops.Result(n)
	p.steps = append(p.steps, step{layer, output})
	return err
}

// FirstNotFinite returns the name of the first layer, in the order of the forward pass, whose output in the last
// run holds a NaN or an infinity; empty where all are finite.
func (p *Pass) FirstNotFinite() string {
	for _, s := range p.steps {
		if !kernel.Finite(s.output) {
			return s.layer
		}
	}
	return ""
}

// apply adds a function over values to the graph.
func (p *Pass) apply(f quantops.Function, shape Shape, inputs ...quantops.Input) (*gorgonia.Node, error) {
	if shape.Len() > maxElements/kernel.Lanes/p.Blocks() {
		return nil, fmt.Errorf("layers: %s: %d images of %v make a tensor of more than 2^31 elements; use a smaller batch", f, p.Images, shape)
	}
	return quantops.Apply(f, shape.tensor(p.Blocks()), inputs...)
}

// extent says which elements of an activation belong to images of the batch.
func (p *Pass) extent(s Shape) quantops.Extent { return kernel.Images(p.Images, s.Len()) }
