package quantops

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"sync/atomic"

	"github.com/chewxy/hm"
	"github.com/goqat/goqat/internal/kernel"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Function is a computation on whole float32 tensors, the part of an operation that knows no graph. It writes its
// result into y, which the graph's operation owns and hands over again every step, and reads its inputs' elements.
type Function interface {
	fmt.Stringer
	Forward(y []float32, x [][]float32) error
}

// Differentiable is a Function with a gradient. Backward overwrites every element of dx[i], whatever was there, for every
// input i that wants a gradient; for the others dx[i] is nil. No two of them are the same memory, or that of dy, but as
// [Sharing] and [Replacing] allow.
type Differentiable interface {
	Function
	Backward(dx [][]float32, dy, y []float32, x [][]float32) error
}

// Summing is a Differentiable whose result may be handed to several users by [Side]: it takes in the gradients of
// all of them, the main one's first, and adds them up as it goes.
type Summing interface {
	Differentiable
	BackwardSum(dx, dy [][]float32, y []float32, x [][]float32) error
}

// Sharing is a Differentiable some of whose inputs have the same gradient: SharedGradient returns the input, an earlier
// one, whose gradient is also that of the given one, or else the given one. Backward then finds one memory for both, where the
// earlier one wants a gradient, and fills it once.
type Sharing interface {
	Differentiable
	SharedGradient(input int) int
}

// Input is an operand of a Function. Constant ones get no gradient: images, labels, derived parameters.
type Input struct {
	Node     *gorgonia.Node
	Constant bool
}

// operations counts the nodes made by Apply. Each operation hashes its number, so that Gorgonia never merges two
// nodes: ours own buffers and state.
var operations atomic.Uint64

// Apply adds f to the graph of its inputs. The shape of the result is empty for a scalar.
func Apply(f Function, shape tensor.Shape, inputs ...Input) (*gorgonia.Node, error) {
	o := &operation{function: f, number: operations.Add(1), constant: make([]bool, len(inputs)), x: make([][]float32, len(inputs))}
	if o.shape = shape.Clone(); !o.passes() {
		o.setOutput(shape)
	}
	children := make(gorgonia.Nodes, len(inputs))
	for i, in := range inputs {
		children[i], o.constant[i] = in.Node, in.Constant
		o.types = append(o.types, typeOf(in.Node.Shape()))
	}
	o.source = children[0]
	node, err := gorgonia.ApplyOp(o, children...)
	if err != nil {
		return nil, fmt.Errorf("quantops: %s: %w", f, err)
	}
	return node, nil
}

func typeOf(shape tensor.Shape) hm.Type {
	if shape.IsScalar() {
		return tensor.Float32
	}
	return gorgonia.TensorType{Dims: shape.Dims(), Of: tensor.Float32}
}

// output is what every operation here shares: an output tensor, which but for gradients is its own, and the plain answers to
// Gorgonia.
type output struct {
	shape tensor.Shape
	types []hm.Type // of the inputs
	y     []float32
	value gorgonia.Value
}

func (o *output) setOutput(shape tensor.Shape) {
	o.shape = shape.Clone()
	if shape.IsScalar() {
		o.value, o.y = new(gorgonia.F32), make([]float32, 1)
		return
	}
	o.setMemory(shape, kernel.Allocate(shape.TotalSize()))
}

// setMemory makes y the output tensor.
func (o *output) setMemory(shape tensor.Shape, y []float32) {
	o.shape, o.y = shape.Clone(), y
	o.value = tensor.New(tensor.WithShape(shape...), tensor.WithBacking(y))
}

// run calls do with the output buffer and recovers its panics: Gorgonia runs operations on a goroutine of the
// machine's, where a panic would end the process.
func (o *output) run(name fmt.Stringer, do func(y []float32) error) (v gorgonia.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("quantops: %s: %v", name, r)
		}
	}()
	err = do(o.y)
	if scalar, ok := o.value.(*gorgonia.F32); ok {
		*scalar = gorgonia.F32(o.y[0])
	}
	return o.value, err
}

func (o *output) buffer() []float32 { return o.y }

// ErrInnerGradient says that a node is the gradient of an inner node of the graph: these take each other's places, so that
// after a step there is nothing to read. Gradients of leaves stay.
var ErrInnerGradient = errors.New("the gradient of an inner node, in whose place another stands after a step")

// Result returns the elements that the node's operation computes: the same memory every step. It is for nodes made by
// [Apply] and for gradients of leaves of the graph. Those of inner nodes are [ErrInnerGradient], and a node of Gorgonia's own,
// such as the sum of the gradients of a value used twice, is an error too.
func Result(n *gorgonia.Node) ([]float32, error) {
	if g := gradientAt(n); g != nil && g.memory != nil {
		return nil, fmt.Errorf("quantops: %v is %w", g, ErrInnerGradient)
	}
	if o, ok := n.Op().(*operation); ok && o.passes() {
		if o.source.Op() == nil && o.source.Value() != nil {
			return floats(o.source.Value())
		}
		return Result(o.source)
	}
	if o, ok := n.Op().(interface{ buffer() []float32 }); ok {
		return o.buffer(), nil
	}
	return nil, fmt.Errorf("quantops: node %v is not an operation of this package", n)
}

func (o *output) Arity() int { return len(o.types) }

func (o *output) Type() hm.Type {
	return hm.NewFnType(append(append([]hm.Type{}, o.types...), typeOf(o.shape))...)
}

func (o *output) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) { return o.shape.Clone(), nil }
func (o *output) ReturnsPtr() bool                                      { return true }
func (o *output) CallsExtern() bool                                     { return false }
func (o *output) OverwritesInput() int                                  { return -1 }

// floats returns the elements of a value.
func floats(v gorgonia.Value) ([]float32, error) {
	if d, ok := v.(*tensor.Dense); ok && d.Dtype() == tensor.Float32 {
		return d.Float32s(), nil // Data would allocate
	}
	switch data := v.Data().(type) {
	case []float32:
		return data, nil
	case float32:
		return []float32{data}, nil
	}
	return nil, fmt.Errorf("quantops: an operand holds %T, want float32", v.Data())
}

// operation is a Function in a graph.
type operation struct {
	output
	function Function
	number   uint64
	constant []bool
	x        [][]float32
	source   *gorgonia.Node   // first input
	sides    []*gorgonia.Node // other nodes of the result
	incoming gorgonia.Nodes   // their gradients
}

// passes says whether the result is the first input itself.
func (o *operation) passes() bool {
	_, ok := o.function.(passing)
	return ok
}

func (o *operation) String() string        { return o.function.String() }
func (o *operation) WriteHash(h hash.Hash) { fmt.Fprintf(h, "goqat %d %s", o.number, o.function) }
func (o *operation) Hashcode() uint32      { return hashcode(o) }

func hashcode(o gorgonia.Op) uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

func (o *operation) Do(values ...gorgonia.Value) (gorgonia.Value, error) {
	for i, v := range values {
		x, err := floats(v)
		if err != nil {
			return nil, err
		}
		o.x[i] = x
	}
	if o.passes() {
		o.y = o.x[0]
		return values[0], nil
	}
	return o.run(o, func(y []float32) error { return o.function.Forward(y, o.x) })
}

// DiffWRT says which inputs get a gradient.
func (o *operation) DiffWRT(inputs int) []bool {
	wants := make([]bool, inputs)
	_, differentiable := o.function.(Differentiable)
	for i := range wants {
		wants[i] = differentiable && !o.constant[i]
	}
	return wants
}

// SymDiff adds the gradients of the inputs to the graph. That of a fork's side goes to the fork as well.
func (o *operation) SymDiff(inputs gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	gradients, err := o.gradients(inputs, grad)
	if err != nil {
		return nil, err
	}
	for i, in := range inputs {
		if side, ok := in.Op().(*operation); ok && gradients[i] != nil {
			side.collect(gradients[i])
		}
	}
	return gradients, nil
}

// collect hands the gradient of a side to the operation that it is of.
func (o *operation) collect(gradient *gorgonia.Node) {
	if s, ok := o.function.(interface{ owner() *operation }); ok {
		of := s.owner()
		of.incoming = append(of.incoming, gradient)
	}
}

// gradients makes one backward operation, which computes all gradients at once and is itself the first of them, and
// for each further gradient an operation that hands over its buffer.
func (o *operation) gradients(inputs gorgonia.Nodes, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	incoming := append(gorgonia.Nodes{grad}, o.incoming...)
	if users := o.sideUsers(); len(o.incoming) != users {
		return nil, fmt.Errorf("quantops: %s: %d of %d users of its side have a gradient; a path from the side needs learned parameters", o, len(o.incoming), users)
	}
	if _, keeps := o.function.(Keeping); keeps && len(incoming) > 2 {
		return nil, fmt.Errorf("quantops: %s: %d users of what it keeps: want one", o, len(incoming)-1)
	}
	gradients := make(gorgonia.Nodes, len(inputs))
	b := &backward{dx: make([][]float32, len(inputs)), dy: make([][]float32, len(incoming)), arena: arenaOf(incoming)}
	b.read(incoming)
	for i, wanted := range o.DiffWRT(len(inputs)) {
		if !wanted {
			continue
		}
		g := o.gradientOf(i, inputs[i], b, incoming)
		var err error
		if b.gradient == nil {
			b.gradient = g
			for _, in := range incoming {
				b.types = append(b.types, typeOf(in.Shape()))
			}
			gradients[i], err = gorgonia.ApplyOp(b, incoming...)
			b.node = gradients[i]
		} else {
			g.types = []hm.Type{typeOf(b.shape)}
			gradients[i], err = gorgonia.ApplyOp(g, b.node)
		}
		if err != nil {
			return nil, fmt.Errorf("quantops: gradient of %s: %w", o, err)
		}
		b.dx[i] = g.y
		b.gradients = append(b.gradients, g)
	}
	return gradients, nil
}

// gradientOf makes the gradient of input i: with the memory of one that b computes already where both are the same, of its own
// where the input is a leaf of the graph, or else of the arena.
func (o *operation) gradientOf(i int, input *gorgonia.Node, b *backward, incoming gorgonia.Nodes) *gradient {
	g := &gradient{of: o, input: i, from: b}
	if same := b.sameAs(i, o.function); same != nil {
		if g.memory = same.memory; g.memory != nil {
			g.memory.waiting++
		}
		g.setMemory(input.Shape(), same.y)
		return g
	}
	if _, inner := input.Op().(*operation); !inner {
		g.setOutput(input.Shape())
		return g
	}
	var replaced *memory
	if f, ok := o.function.(Replacing); ok && i == 0 && f.Replaces() < len(incoming) {
		if g := gradientAt(incoming[f.Replaces()]); g != nil {
			replaced = g.memory
		}
	}
	g.memory = b.arena.take(input.Shape().TotalSize(), b, replaced)
	g.setMemory(input.Shape(), g.memory.y)
	return g
}

// sameAs returns the gradient that is also that of the input, nil for none.
func (b *backward) sameAs(input int, f Function) *gradient {
	if s, ok := f.(Sharing); ok {
		same := s.SharedGradient(input)
		for _, g := range b.gradients {
			if g.input == same {
				return g
			}
		}
	}
	return nil
}

// gradient is the gradient of one input, filled in by the backward operation that it depends on.
type gradient struct {
	output
	of     *operation
	input  int
	from   *backward
	memory *memory // of the arena; nil for memory of its own
}

func (g *gradient) String() string { return fmt.Sprintf("gradient %d of %s", g.input, g.of) }
func (g *gradient) WriteHash(h hash.Hash) {
	fmt.Fprintf(h, "goqat gradient %d %d", g.of.number, g.input)
}
func (g *gradient) Hashcode() uint32 { return hashcode(g) }

func (g *gradient) Do(...gorgonia.Value) (gorgonia.Value, error) { return g.value, nil }

// backward computes all gradients of an operation. The operation's inputs and output stand in its own buffers and
// are still those of this step, since the gradient that comes in depends on them.
type backward struct {
	*gradient
	dx, dy    [][]float32
	node      *gorgonia.Node
	gradients []*gradient
	arena     *arena
	before    map[*backward]bool // what it is computed from
}

func (b *backward) Do(values ...gorgonia.Value) (gorgonia.Value, error) {
	for i, v := range values {
		dy, err := floats(v)
		if err != nil {
			return nil, err
		}
		b.dy[i] = dy
	}
	return b.run(b, func([]float32) error {
		switch f := b.of.function.(type) {
		case Keeping:
			if len(b.dy) > 1 {
				return f.BackwardKept(b.dx, b.dy[0], b.dy[1], b.of.y, b.of.x)
			}
		case Summing:
			if len(b.dy) > 1 {
				return f.BackwardSum(b.dx, b.dy, b.of.y, b.of.x)
			}
		}
		return b.of.function.(Differentiable).Backward(b.dx, b.dy[0], b.of.y, b.of.x)
	})
}
