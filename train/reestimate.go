package train

import (
	"context"
	"fmt"
	"slices"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// Reestimation computes the running statistics of batch normalization anew, for a network whose weights or activations
// have changed since they were taken: quantized without training, above all.
//
// Training batches go forward through the network as it is, with its quantizers in place, and every normalization uses the
// batch's statistics, as in training. Its running mean and variance become the average of those of the batches, each
// of which counts as one (of variances, the unbiased ones): what a moving average in training wanders around, without
// its noise. Ranges of activations, which would follow the data in training, stand still, and so does all else.
//
// Networks are trained on augmented images, and their statistics are of such images: plain ones would not do.
//
// Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018, does so for averaged weights;
// Sun et al., "Hybrid 8-bit Floating Point (HFP8) Training and Inference for Deep Neural Networks", 2019, for quantized ones.
type Reestimation struct {
	Data         *datasets.Dataset // training images
	Images       int               // at least so many: as many batches as they fill, the last one to the full
	Batch        int               // images of a batch; 0 means 128
	Augmentation datasets.Augmentation
	Seed         uint64        // of the order of the images and their augmentation
	Branch       layers.Branch // of a network whose weights are searched for; the usual one has soft weights
}

// batches is the number of batches to take.
func (r *Reestimation) batches() int { return (r.Images + r.batch() - 1) / r.batch() }

func (r *Reestimation) batch() int { return orDefault(r.Batch, calibrationBatch) }

// Run sets the statistics of a network and returns the number of images that they are of, 0 for a network without batch
// normalization. When ctx ends, and where a statistic is not finite, the network stays as it was; ctx's end is
// [ErrInterrupted].
func (r *Reestimation) Run(ctx context.Context, network *layers.Network) (images int, err error) {
	if r.Images < 1 || r.Batch < 0 {
		return 0, fmt.Errorf("train: re-estimation on %d images in batches of %d: want at least 1", r.Images, r.Batch)
	}
	if foldsNorm(network.Root) {
		return 0, fmt.Errorf("train: re-estimation: weights follow the statistics of batch normalization that is folded into them; build the network without folding")
	}
	norms, err := reachedNorms(network)
	if err != nil || len(norms) == 0 {
		return 0, err
	}
	if err := fit(network, r.Data); err != nil {
		return 0, err
	}
	loader, err := datasets.NewLoader(r.Data, r.batch(), r.Seed, r.Augmentation)
	if err != nil {
		return 0, fmt.Errorf("train: re-estimation: %w", err)
	}
	defer loader.Close()
	s := newBatchStatistics(norms, r.Branch)
	defer s.restore()
	graph, err := newForward(network, r.batch(), r.Branch)
	if err != nil {
		return 0, err
	}
	defer graph.close()
	for step := range r.batches() {
		if ctx.Err() != nil {
			return 0, ErrInterrupted
		}
		if err := s.add(graph, loader.Next(step).Images); err != nil {
			return 0, err
		}
	}
	return r.batches() * r.batch(), s.finish(r.batches())
}

// foldsNorm says whether a layer or one inside it quantizes its weights as batch normalization scales them.
func foldsNorm(l layers.Layer) bool {
	switch l := l.(type) {
	case layers.Sequential:
		return slices.ContainsFunc(l, foldsNorm)
	case *layers.Residual:
		return foldsNorm(l.Body) || foldsNorm(l.Shortcut)
	case *layers.Conv2D:
		return l.Methods.FoldBatchNorm
	case *layers.Linear:
		return l.Methods.FoldBatchNorm
	}
	return false
}

// reachedNorms returns a network's batch normalizations. It refuses one whose layers hide any.
func reachedNorms(network *layers.Network) ([]*layers.BatchNorm, error) {
	found := batchNorms(network.Root)
	reached := map[*layers.Param]bool{}
	for _, l := range found {
		for _, p := range l.Params() {
			reached[p] = true
		}
	}
	for _, p := range network.Params() {
		if p.Kind == quantops.Running && !p.Theta && !reached[p] {
			return nil, fmt.Errorf("train: %q is a statistic of a layer that is no batch normalization, or inside a layer of an unknown kind", p.Name)
		}
	}
	return found, nil
}

// batchStatistics adds up the statistics of batches. While it does, normalizations use and keep those of each batch alone.
type batchStatistics struct {
	norms   []*layers.BatchNorm
	settled []layers.BatchNorm // the normalizations' own settings
	params  []*layers.Param    // running means and variances
	before  [][]float32
	sums    [][]float64
}

func newBatchStatistics(norms []*layers.BatchNorm, branch layers.Branch) *batchStatistics {
	s := &batchStatistics{norms: norms}
	for _, l := range norms {
		s.settled = append(s.settled, layers.BatchNorm{Momentum: l.Momentum, Frozen: l.Frozen})
		l.Momentum, l.Frozen = 1, false
		mean, variance := l.Statistics(branch)
		for _, p := range []*layers.Param{mean, variance} {
			s.params, s.before = append(s.params, p), append(s.before, slices.Clone(p.Data()))
			s.sums = append(s.sums, make([]float64, len(p.Data())))
		}
	}
	return s
}

// add takes in a batch.
func (s *batchStatistics) add(graph *forward, images []float32) error {
	for _, p := range s.params {
		clear(p.Data()) // so that nothing of the last batch's rounds this one's
	}
	copy(graph.images, images)
	if err := graph.run(); err != nil {
		return err
	}
	for i, p := range s.params {
		if !kernel.Finite(p.Data()) {
			return fmt.Errorf("train: re-estimation: %s is not finite; the first layer whose output is not is %s", p.Name, culprit(graph.pass))
		}
		for c, v := range p.Data() {
			s.sums[i][c] += float64(v)
		}
	}
	return nil
}

// finish makes the averages what restore leaves behind.
func (s *batchStatistics) finish(batches int) error {
	for i, p := range s.params {
		for c, sum := range s.sums[i] {
			s.before[i][c] = float32(sum / float64(batches))
		}
		if !kernel.Finite(s.before[i]) {
			return fmt.Errorf("train: re-estimation: the average of %s is not finite", p.Name)
		}
	}
	return nil
}

// restore gives the normalizations their settings and statistics back.
func (s *batchStatistics) restore() {
	for i, l := range s.norms {
		l.Momentum, l.Frozen = s.settled[i].Momentum, s.settled[i].Frozen
	}
	for i, p := range s.params {
		copy(p.Data(), s.before[i])
	}
}

// forward is a network's training graph without loss and gradients: quantizers in place and all between them real numbers.
// Ranges of activations, which move on the way back, stand still.
type forward struct {
	pass    *layers.Pass
	machine gorgonia.VM
	images  []float32
}

func newForward(network *layers.Network, batch int, branch layers.Branch) (*forward, error) {
	blocks, err := blocksOf(network, batch)
	if err != nil {
		return nil, err
	}
	f := &forward{pass: layers.NewPass(layers.Training, batch), images: make([]float32, blocks*network.Input.Len()*kernel.Lanes)}
	f.pass.Branch = branch
	if _, err := network.Forward(f.pass, f.images); err != nil {
		return nil, err
	}
	f.machine = gorgonia.NewTapeMachine(f.pass.Graph)
	return f, nil
}

// run computes the batch in place.
func (f *forward) run() error {
	defer f.machine.Reset()
	if err := f.machine.RunAll(); err != nil {
		return fmt.Errorf("train: forward pass: %w", err)
	}
	return nil
}

func (f *forward) close() error { return f.machine.Close() }
