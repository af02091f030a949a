package train

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
)

// BiasCorrection takes out of every convolution and linear layer the part of its quantization error that all images
// share. With y the layer's output in the quantized network, y' in the float one, and means over images and places,
// for each output channel
//
//	bias ← bias - (mean y - mean y')
//
// and where the layer has no bias but batch normalization directly behind it, running mean ← running mean + (mean y - mean y').
// Layers are corrected in their order, each measured behind the corrected ones before it, so that nothing is corrected
// twice.
//
// Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019: its empirical form, which
// measures on images.
type BiasCorrection struct {
	Float  *layers.Network   // the network before quantization
	Data   *datasets.Dataset // its first images are measured on
	Images int
	// Reestimated leaves out layers with batch normalization directly behind them: statistics of the quantized network
	// hold its mean error already.
	Reestimated bool
}

// Run corrects a quantized network. It returns the names of layers that have nothing a correction could go into. When ctx
// ends it returns [ErrInterrupted], and the network is corrected in part.
func (b *BiasCorrection) Run(ctx context.Context, network *layers.Network) (left []string, err error) {
	if b.Images < 1 {
		return nil, fmt.Errorf("train: bias correction on %d images: want at least 1", b.Images)
	}
	if err := fit(network, b.Data); err != nil {
		return nil, err
	}
	want, err := b.reference(ctx)
	if err != nil {
		return nil, err
	}
	quantized, err := newMeter(network)
	if err != nil {
		return nil, err
	}
	defer quantized.graph.close()
	if len(want) != len(quantized.sites) {
		return nil, fmt.Errorf("train: bias correction: the float network has %d layers with weights, the quantized one %d", len(want), len(quantized.sites))
	}
	for i, s := range quantized.sites {
		switch {
		case s.norm != nil && b.Reestimated:
			continue
		case s.bias == nil && s.norm == nil:
			left = append(left, s.name)
			continue
		}
		now, err := b.means(ctx, quantized, quantized.sites[i:i+1])
		if err != nil {
			return nil, err
		}
		s.shift(now[0], want[i])
	}
	return left, nil
}

// reference measures the float network.
func (b *BiasCorrection) reference(ctx context.Context) ([][]float64, error) {
	float, err := newMeter(b.Float)
	if err != nil {
		return nil, err
	}
	defer float.graph.close()
	return b.means(ctx, float, float.sites)
}

// means measures the mean output of every channel of some sites' layers.
func (b *BiasCorrection) means(ctx context.Context, m *meter, sites []*site) ([][]float64, error) {
	sums := make([][]float64, len(sites))
	for i, s := range sites {
		sums[i] = make([]float64, s.shape.Channels)
	}
	images := min(b.Images, b.Data.Len())
	size := b.Data.Channels * b.Data.Height * b.Data.Width * kernel.Lanes // of a block
	labels := make([]int32, kernel.Blocks(calibrationBatch)*kernel.Lanes)
	for indices := range datasets.Batches(images, calibrationBatch) {
		if ctx.Err() != nil {
			return nil, ErrInterrupted
		}
		blocks := kernel.Blocks(len(indices))
		clear(m.graph.images)
		b.Data.Fill(m.graph.images[:blocks*size], labels[:blocks*kernel.Lanes], indices)
		if err := m.graph.run(); err != nil {
			return nil, err
		}
		for i, s := range sites {
			s.add(sums[i], len(indices))
		}
	}
	for i, s := range sites {
		for c := range sums[i] {
			sums[i][c] /= float64(images) * float64(s.shape.Height*s.shape.Width)
		}
		if slices.ContainsFunc(sums[i], func(v float64) bool { return v-v != 0 }) {
			return nil, fmt.Errorf("train: bias correction: the mean output of %s is not finite", s.name)
		}
	}
	return sums, nil
}

// meter runs a network, its batch normalizations with their running statistics, and sees the outputs of its layers with
// weights.
type meter struct {
	graph *forward
	sites []*site
}

func newMeter(network *layers.Network) (*meter, error) {
	undo, err := freeze(network)
	if err != nil {
		return nil, err
	}
	defer undo()
	m := &meter{}
	watched := &layers.Network{Root: m.watch(network.Root, nil), Input: network.Input, Output: network.Output}
	if err := m.complete(network); err != nil {
		return nil, err
	}
	m.graph, err = newForward(watched, calibrationBatch, layers.HardBranch)
	return m, err
}

// complete refuses a network that has weights where watch did not look.
func (m *meter) complete(network *layers.Network) error {
	seen := map[*layers.Param]bool{}
	for _, s := range m.sites {
		seen[s.weight] = true
	}
	for _, p := range network.Params() {
		if strings.HasSuffix(p.Name, ".weight") && p.Value.Dims() > 1 && !p.Theta && !seen[p] {
			return fmt.Errorf("train: bias correction: %q belongs to a layer of an unknown kind, or is inside one", p.Name)
		}
	}
	return nil
}

// watch returns a layer with a site behind every convolution and linear layer in it; next is what comes after it. The layers
// are the same ones: they share their parameters.
func (m *meter) watch(l, next layers.Layer) layers.Layer {
	switch l := l.(type) {
	case layers.Sequential:
		watched := make(layers.Sequential, len(l))
		for i, inside := range l {
			after := next
			if i+1 < len(l) {
				after = l[i+1]
			}
			watched[i] = m.watch(inside, after)
		}
		return watched
	case *layers.Residual:
		watched := &layers.Residual{Body: m.watch(l.Body, nil)}
		if l.Shortcut != nil {
			watched.Shortcut = m.watch(l.Shortcut, nil)
		}
		return watched
	case *layers.Conv2D, *layers.Linear:
		s := newSite(l, next)
		m.sites = append(m.sites, s)
		return layers.Sequential{l, s}
	}
	return l
}

// site is a place right behind a layer with weights, as a layer that does nothing but look.
type site struct {
	name         string
	weight, bias *layers.Param     // bias is nil for none
	norm         *layers.BatchNorm // directly behind; nil for none
	shape        layers.Shape
	output       []float32 // of the latest run, [blocks][channels][height][width][16]
}

var _ layers.Layer = (*site)(nil)

func newSite(l, next layers.Layer) *site {
	s := &site{}
	for i, p := range l.Params() {
		switch {
		case i == 0:
			s.weight, s.name = p, strings.TrimSuffix(p.Name, ".weight")
		case !p.Theta && p.Name == s.name+".bias":
			s.bias = p
		}
	}
	s.norm, _ = next.(*layers.BatchNorm)
	return s
}

// Build is that of a layer which changes nothing.
func (s *site) Build(_ *layers.Build, in layers.Shape) (layers.Shape, error) { return in, nil }

// Forward notes where the numbers are.
func (s *site) Forward(_ *layers.Pass, x layers.Value) (layers.Value, error) {
	var err error
	s.shape = x.Shape
	s.output, err = result(x.Node())
	return x, err
}

// Lower passes integers on.
func (s *site) Lower(_ *integer.Builder, x integer.Value) (integer.Value, error) { return x, nil }

// Params returns none.
func (s *site) Params() []*layers.Param { return nil }

// add adds the output for the first images of the batch up by channel, in the order of images, rows and columns.
func (s *site) add(sums []float64, images int) {
	plane := s.shape.Height * s.shape.Width
	for i := range images {
		block, lane := i/kernel.Lanes, i%kernel.Lanes
		for c := range sums {
			at := (block*len(sums)+c)*plane*kernel.Lanes + lane
			for k := range plane {
				sums[c] += float64(s.output[at+k*kernel.Lanes])
			}
		}
	}
}

// shift takes the error of the mean output away.
func (s *site) shift(now, want []float64) {
	target, sign := s.bias, -1.0
	if target == nil {
		target, sign = runningMean(s.norm), 1
	}
	data := target.Data()
	for c := range data {
		data[c] = float32(float64(data[c]) + sign*(now[c]-want[c]))
	}
}

func runningMean(l *layers.BatchNorm) *layers.Param {
	for _, p := range l.Params() {
		if strings.HasSuffix(p.Name, ".running_mean") {
			return p
		}
	}
	return nil
}
