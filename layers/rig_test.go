package layers

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

// watched is a layer with weights that notes what goes into it: real numbers in training, levels in evaluation.
type watched struct {
	Layer
	core *weighted
	node *gorgonia.Node // of the latest pass
}

func (w *watched) layers() []Layer           { return []Layer{w.Layer} }
func (w *watched) folds() bool               { return w.core.folds() }
func (w *watched) searching() *weighted      { return w.core.searching() }
func (w *watched) fold(norm *BatchNorm) bool { return w.core.fold(norm) }

func (w *watched) Forward(p *Pass, x Value) (Value, error) {
	y, err := w.Layer.Forward(p, x)
	w.node = x.node
	if y.isPending() {
		w.node = y.exact.pending.input
	}
	return y, err
}

// rig is a network with images to run it on: in training, in evaluation and as an integer model.
type rig struct {
	t       *testing.T
	net     *Network
	watched []*watched
	pixel   [][256]float32
	pixels  []uint8 // [images][channels][height][width]
	images  int
	batch   []float32 // the same as blocks
}

// newRig builds a network around root, whose layers with weights it watches, and calibrates it on its images.
func newRig(t *testing.T, root Sequential, in Shape, images int, s *random.Stream) *rig {
	t.Helper()
	r := &rig{t: t, images: images, pixels: make([]uint8, images*in.Len()), pixel: make([][256]float32, in.Channels)}
	for c := range r.pixel {
		for p := range r.pixel[c] {
			r.pixel[c][p] = (float32(p)/255 - 0.3) * (1 + float32(c)/2)
			if !in.Signed {
				r.pixel[c][p] = float32(p) / 255
			}
		}
	}
	for i := range r.pixels {
		r.pixels[i] = uint8(s.Below(256))
	}
	r.net = buildWatched(t, r, root, in)
	r.pack()
	return r
}

func buildWatched(t *testing.T, r *rig, root Sequential, in Shape) *Network {
	t.Helper()
	net, err := NewNetwork(r.watch(root), in, 7)
	require.NoError(t, err)
	return net
}

// watch wraps the layers with weights below l.
func (r *rig) watch(l Layer) Layer {
	var core *weighted
	switch l := l.(type) {
	case Sequential:
		inner := make(Sequential, len(l))
		for i := range l {
			inner[i] = r.watch(l[i])
		}
		return inner
	case *Residual:
		l.Body = r.watch(l.Body)
		if l.Shortcut != nil {
			l.Shortcut = r.watch(l.Shortcut)
		}
		return l
	case *Conv2D:
		core = &l.weighted
	case *Linear:
		core = &l.weighted
	default:
		return l
	}
	r.watched = append(r.watched, &watched{Layer: l, core: core})
	return r.watched[len(r.watched)-1]
}

// pack makes the batch from the pixels.
func (r *rig) pack() {
	size, plane := r.net.Input.Len(), r.net.Input.Height*r.net.Input.Width
	real := make([]float32, len(r.pixels))
	for i, p := range r.pixels {
		real[i] = r.pixel[i%size/plane][p]
	}
	r.batch = make([]float32, kernel.Blocks(r.images)*kernel.Lanes*size)
	kernel.Pack(r.batch, real, r.images, size)
}

// pass builds a graph of the network.
func (r *rig) pass(mode Mode) (*Pass, Output, gorgonia.VM) {
	r.t.Helper()
	p := NewPass(mode, r.images)
	out, err := r.net.Forward(p, r.batch)
	require.NoError(r.t, err)
	require.NoError(r.t, p.Refresh())
	machine := gorgonia.NewTapeMachine(p.Graph)
	r.t.Cleanup(func() { require.NoError(r.t, machine.Close()) })
	return p, out, machine
}

// run builds a graph, runs it once and returns the outputs, [images][classes].
func (r *rig) run(mode Mode) ([]float32, Output) {
	r.t.Helper()
	_, out, machine := r.pass(mode)
	require.NoError(r.t, machine.RunAll())
	return r.unpack(out.Node, r.net.Output.Len()), out
}

// step runs training forward and backward, without an update.
func (r *rig) step() {
	r.t.Helper()
	p := NewPass(Training, r.images)
	out, err := r.net.Forward(p, r.batch)
	require.NoError(r.t, err)
	loss, err := gorgonia.Sum(out.Node)
	require.NoError(r.t, err)
	_, learned := p.Learned()
	_, err = gorgonia.Grad(loss, learned...)
	require.NoError(r.t, err)
	machine := gorgonia.NewTapeMachine(p.Graph)
	require.NoError(r.t, machine.RunAll())
	require.NoError(r.t, machine.Close())
}

// unpack returns the elements of a node, [images][size].
func (r *rig) unpack(n *gorgonia.Node, size int) []float32 {
	r.t.Helper()
	elements := r.batch
	if n.Op() != nil {
		var err error
		elements, err = quantops.Result(n)
		require.NoError(r.t, err)
	}
	images := make([]float32, r.images*size)
	kernel.Unpack(images, elements, r.images, size)
	return images
}

func (r *rig) calibrate() {
	r.t.Helper()
	r.net.Fit()
	r.run(Calibration)
}

func (r *rig) lower() *integer.Model {
	r.t.Helper()
	m, err := r.net.Lower(r.pixel, make([]string, r.net.Output.Len()))
	require.NoError(r.t, err)
	return m
}

// levels returns what goes into every watched layer in the integer model, [layer][images][size].
func (r *rig) levels(m *integer.Model) [][]int32 {
	r.t.Helper()
	levels := make([][]int32, len(r.watched))
	size := r.net.Input.Len()
	for i := range r.images {
		trace, err := m.Program.Trace(r.pixels[i*size : (i+1)*size])
		require.NoError(r.t, err)
		for layer, w := range r.watched {
			at := slices.IndexFunc(m.Program.Nodes, func(n integer.Node) bool { return n.Name == w.core.name })
			require.GreaterOrEqual(r.t, at, 0, w.core.name)
			levels[layer] = append(levels[layer], r.joined(w, trace, m.Program.Nodes[at].Inputs)...)
		}
	}
	return levels
}

// joined puts the levels together that go into a layer in one plane or two.
func (r *rig) joined(w *watched, trace []integer.Tensor, inputs []int) []int32 {
	r.t.Helper()
	g, err := w.core.input.grid()
	require.NoError(r.t, err)
	factors := g.Factors()
	require.Len(r.t, inputs, len(factors))
	levels := make([]int32, w.core.in.Len())
	for plane, input := range inputs {
		for i, v := range trace[input].Values {
			levels[i] += factors[plane] * (v - trace[input].Zero)
		}
	}
	return levels
}

// requireExact compares evaluation with the integer engine: every level that goes into a layer and every logit.
func (r *rig) requireExact() {
	r.t.Helper()
	logits, out := r.run(Evaluation)
	m := r.lower()
	for i, levels := range r.levels(m) {
		w := r.watched[i]
		for k, level := range r.unpack(w.node, w.core.in.Len()) {
			require.EqualValues(r.t, levels[k], level, "%s: input %d", w.core.name, k)
		}
	}
	want, err := m.Program.Run(r.pixels)
	require.NoError(r.t, err)
	for i := range want {
		require.EqualValues(r.t, want[i], logits[i], "logit %d", i)
	}
	require.Equal(r.t, m.LogitScale, out.Unit())
}
