package layers

import (
	"errors"
	"fmt"
	"slices"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// Tap is where a layer with weights takes in its numbers: behind its quantizer, if it has one. It shows them after
// each run of the pass that it is in.
type Tap struct {
	layer  *weighted
	plan   *kernel.Conv // of one block
	input  []float32    // [blocks][channels][height][width][16]
	levels *activation  // whose levels these are; nil for real numbers
}

// errTapped ends a forward pass that has reached all its taps.
var errTapped = errors.New("layers: all taps are reached")

// Taps adds the network to an evaluation pass as far as the named layers with weights are reached, all of them for
// none, and returns their taps in the order of the layers. [Pass.Refresh] comes before the first run.
func (n *Network) Taps(p *Pass, images []float32, names ...string) ([]*Tap, error) {
	if p.Mode != Evaluation {
		return nil, fmt.Errorf("layers: taps are in passes of evaluation")
	}
	known := n.weightedNames()
	if len(names) == 0 {
		names = known
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("layers: no layer with weights is named %q", name)
		}
	}
	p.tapped = slices.Clone(names)
	_, err := n.Forward(p, images)
	if !errors.Is(err, errTapped) {
		return nil, err
	}
	return p.taps, nil
}

// weightedNames returns the names of the layers with weights.
func (n *Network) weightedNames() (names []string) {
	walk(n.Root, func(l Layer) {
		if w, ok := l.(interface{ core() *weighted }); ok {
			names = append(names, w.core().name)
		}
	})
	return names
}

// tap notes where x, which the layer is about to take in, will be, if the pass wants to know.
func (p *Pass) tap(w *weighted, x Value) (Value, error) {
	at := slices.Index(p.tapped, w.name)
	if at < 0 {
		return x, nil
	}
	x, err := p.settled(x)
	if err != nil {
		return x, err
	}
	t := &Tap{layer: w, plan: w.plan(1), levels: x.levels}
	if t.input, err = elements(x.node); err != nil {
		return x, err
	}
	p.taps, p.tapped = append(p.taps, t), slices.Delete(p.tapped, at, at+1)
	if len(p.tapped) == 0 {
		err = errTapped
	}
	return x, err
}

// elements returns where the elements of a node will be.
func elements(n *gorgonia.Node) ([]float32, error) {
	if n.Op() == nil {
		return n.Value().Data().([]float32), nil
	}
	return quantops.Result(n)
}

// Layer is the layer's name.
func (t *Tap) Layer() string { return t.layer.name }

// Groups is the number of the layer's groups of channels: 1 but for grouped convolutions.
func (t *Tap) Groups() int { return t.plan.Groups() }

// Width is how many numbers an output depends on, which is how many weights it has.
func (t *Tap) Width() int { return t.plan.PatchWidth() }

// Outputs is the number of output channels of a group.
func (t *Tap) Outputs() int { return t.layer.out.Channels / t.Groups() }

// Weights returns the layer's real weights, [outputs][width], in the parameter's memory; nil where there are none.
func (t *Tap) Weights() []float32 {
	var found LayerWeights
	if d, ok := t.layer.weight.(describer); ok {
		d.describe(&found)
	}
	return found.Values
}

// Places returns rows and columns of the output.
func (t *Tap) Places() (rows, columns int) { return t.layer.out.Height, t.layer.out.Width }

// Patch adds to a panel what outputs of a group at a place depend on: real numbers, a sample from each of the first
// lanes of a block.
func (t *Tap) Patch(panel *kernel.Panel, block, group, row, column, lanes int) {
	unit := float32(1)
	if t.levels != nil {
		unit = t.levels.unit()
	}
	size := t.layer.in.Len() * kernel.Lanes
	t.plan.Patch(panel, t.input[block*size:][:size], group, row, column, lanes, unit)
}

// Channels is the number of channels that the layer takes in.
func (t *Tap) Channels() int { return t.layer.in.Channels }

// Signed says whether there can be negative numbers.
func (t *Tap) Signed() bool { return t.layer.in.Signed }

// AppendChannel appends the numbers, or levels, of one channel in the first images, [blocks][height][width][16], and
// tells which of them are there.
func (t *Tap) AppendChannel(x []float32, channel, images int) ([]float32, quantops.Extent) {
	plane := t.layer.in.Height * t.layer.in.Width
	for block := range kernel.Blocks(images) {
		x = append(x, t.input[(block*t.layer.in.Channels+channel)*plane*kernel.Lanes:][:plane*kernel.Lanes]...)
	}
	return x, kernel.Images(images, plane)
}
