package train

import (
	"context"
	"fmt"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// LayerMoments are the moments of what a layer with weights takes in, for each of its groups of channels.
type LayerMoments struct {
	Layer  string
	Groups []quantops.Moments
}

// Collection streams the moments of layers from images: samples are never stored. A sample is what one place of a
// layer's output takes in, behind the quantizer that the layer may have. Where there are more places than samples are
// wanted, every sixteen images show equally many of theirs, drawn without replacement.
//
// Batches have no effect on the result, threads neither.
type Collection struct {
	Network *layers.Network // whose layers take in X, in evaluation mode
	// Float is a network of the same layers whose outputs Y, without bias, are to be met; nil for Network itself, whose
	// weights must be float then, and moments have no Cross.
	Float   *layers.Network
	Data    *datasets.Dataset // its first images are looked at
	Images  int
	Samples int // of a layer, at least so many where it has them; 0 for all
	Seed    uint64
}

// Run collects the moments of the named layers, or of all. When ctx ends it returns [ErrInterrupted].
func (c *Collection) Run(ctx context.Context, names ...string) ([]LayerMoments, error) {
	images := min(c.Images, c.Data.Len())
	if images < 1 || c.Samples < 0 {
		return nil, fmt.Errorf("train: moments of %d samples on %d images: want 0 or more, and at least 1", c.Samples, images)
	}
	if err := fit(c.Network, c.Data); err != nil {
		return nil, err
	}
	now, err := newTapped(c.Network, min(calibrationBatch, images), names)
	if err != nil {
		return nil, err
	}
	defer now.machine.Close()
	var float *tapped
	if c.Float != nil {
		if float, err = newTapped(c.Float, now.pass.Images, names); err != nil {
			return nil, err
		}
		defer float.machine.Close()
	}
	meters, err := c.meters(now, float)
	if err != nil {
		return nil, err
	}
	return c.stream(ctx, images, now, float, meters)
}

// stream runs the images through the networks, batch by batch.
func (c *Collection) stream(ctx context.Context, images int, now, float *tapped, meters []*momentMeter) ([]LayerMoments, error) {
	for indices := range datasets.Batches(images, now.pass.Images) {
		if ctx.Err() != nil {
			return nil, ErrInterrupted
		}
		for _, t := range []*tapped{now, float} {
			if t == nil {
				continue
			}
			if err := t.run(c.Data, indices); err != nil {
				return nil, err
			}
		}
		for _, m := range meters {
			m.add(len(indices))
		}
	}
	all := make([]LayerMoments, len(meters))
	for i, m := range meters {
		var err error
		if all[i], err = m.finish(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// tapped is a network up to its taps.
type tapped struct {
	pass    *layers.Pass
	machine gorgonia.VM
	images  []float32
	labels  []int32
	taps    []*layers.Tap
}

func newTapped(network *layers.Network, batch int, names []string) (*tapped, error) {
	blocks, err := blocksOf(network, batch)
	if err != nil {
		return nil, err
	}
	t := &tapped{pass: layers.NewPass(layers.Evaluation, batch)}
	t.images, t.labels = make([]float32, blocks*network.Input.Len()*kernel.Lanes), make([]int32, blocks*kernel.Lanes)
	if t.taps, err = network.Taps(t.pass, t.images, names...); err != nil {
		return nil, err
	}
	t.machine = gorgonia.NewTapeMachine(t.pass.Graph)
	return t, t.pass.Refresh()
}

// run computes a batch.
func (t *tapped) run(d *datasets.Dataset, indices []int) error {
	n := kernel.Blocks(len(indices))
	clear(t.images)
	d.Fill(t.images[:n*len(t.images)/kernel.Blocks(t.pass.Images)], t.labels[:n*kernel.Lanes], indices)
	defer t.machine.Reset()
	if err := t.machine.RunAll(); err != nil {
		return fmt.Errorf("train: moments: %w", err)
	}
	return nil
}

// meters makes a meter for every tap.
func (c *Collection) meters(now, float *tapped) ([]*momentMeter, error) {
	meters := make([]*momentMeter, len(now.taps))
	for i, tap := range now.taps {
		m := &momentMeter{tap: tap, stream: random.New(c.Seed, "places/"+tap.Layer()), groups: make([]groupMeter, tap.Groups())}
		rows, columns := tap.Places()
		m.places = rows * columns
		if images := min(c.Images, c.Data.Len()); c.Samples > 0 {
			m.places = min(m.places, (c.Samples+images-1)/images)
		}
		if float != nil {
			if m.float = float.taps[i]; m.float.Layer() != tap.Layer() || m.float.Groups() != tap.Groups() {
				return nil, fmt.Errorf("train: moments: the float network has %s where the other has %s", m.float.Layer(), tap.Layer())
			}
		}
		for g := range m.groups {
			if err := m.groups[g].prepare(tap, m.float, g); err != nil {
				return nil, err
			}
		}
		meters[i] = m
	}
	return meters, nil
}

// momentMeter takes the moments of one layer.
type momentMeter struct {
	tap, float *layers.Tap    // the latter nil for none
	places     int            // of a block to look at
	stream     *random.Stream // of the places
	groups     []groupMeter
}

// add takes in the first images of a batch.
func (m *momentMeter) add(images int) {
	rows, columns := m.tap.Places()
	for block := range kernel.Blocks(images) {
		lanes := min(kernel.Lanes, images-block*kernel.Lanes)
		for _, place := range m.draw(rows * columns) {
			for g := range m.groups {
				m.groups[g].add(m, block, g, place/columns, place%columns, lanes)
			}
		}
	}
}

// draw returns places of a block.
func (m *momentMeter) draw(all int) []int {
	if m.places < all {
		return m.stream.Permutation(all)[:m.places]
	}
	places := make([]int, all)
	for i := range places {
		places[i] = i
	}
	return places
}

func (m *momentMeter) finish() (LayerMoments, error) {
	all := LayerMoments{Layer: m.tap.Layer(), Groups: make([]quantops.Moments, len(m.groups))}
	for g := range m.groups {
		all.Groups[g] = m.groups[g].finish()
		if !all.Groups[g].Finite() {
			return all, fmt.Errorf("train: moments: what %s takes in is not finite", all.Layer)
		}
	}
	return all, nil
}

// groupMeter takes the moments of one group of channels.
type groupMeter struct {
	inputs    *kernel.Panel
	gram      *kernel.Moments
	responses *responses // nil where they are those of the inputs
}

// responses are the outputs of a float network that are to be met.
type responses struct {
	inputs, outputs *kernel.Panel
	responder       *kernel.Responder
	cross           *kernel.Moments
	energy          []float64
}

func (g *groupMeter) prepare(tap, float *layers.Tap, group int) error {
	width, outputs := tap.Width(), tap.Outputs()
	g.inputs, g.gram = kernel.NewPanel(width), kernel.NewMoments(width, width)
	if float == nil {
		return nil
	}
	w := float.Weights()
	if len(w) != tap.Groups()*outputs*width || float.Width() != width {
		return fmt.Errorf("train: moments: %s has weights of another shape in the float network, or no real ones", tap.Layer())
	}
	g.responses = &responses{
		inputs: kernel.NewPanel(width), outputs: kernel.NewPanel(outputs), cross: kernel.NewMoments(outputs, width), energy: make([]float64, outputs),
		responder: kernel.NewResponder(w[group*outputs*width:][:outputs*width], outputs, width),
	}
	return nil
}

// add takes in a place of a block.
func (g *groupMeter) add(m *momentMeter, block, group, row, column, lanes int) {
	if g.inputs.Full() {
		g.flush()
	}
	m.tap.Patch(g.inputs, block, group, row, column, lanes)
	if g.responses != nil {
		m.float.Patch(g.responses.inputs, block, group, row, column, lanes)
	}
}

// flush adds up the samples in the panels.
func (g *groupMeter) flush() {
	g.gram.Add(g.inputs, g.inputs)
	if r := g.responses; r != nil {
		r.responder.Respond(r.outputs, r.inputs)
		r.cross.Add(r.outputs, g.inputs)
		for o := range r.energy {
			for s := range r.outputs.Samples() {
				y := float64(r.outputs.At(s, o))
				r.energy[o] += float64(y * y)
			}
		}
		r.inputs.Reset()
	}
	g.inputs.Reset()
}

func (g *groupMeter) finish() quantops.Moments {
	g.flush()
	g.gram.Mirror()
	m := quantops.Moments{Samples: g.gram.Samples, Inputs: g.gram.Rows, Gram: g.gram.Sums}
	if r := g.responses; r != nil {
		m.Cross, m.Energy = r.cross.Sums, r.energy
	}
	return m
}
