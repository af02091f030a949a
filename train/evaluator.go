package train

import (
	"fmt"
	"math"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"gorgonia.org/gorgonia"
)

// Evaluation is a network's score on a data set.
type Evaluation struct {
	Accuracy float64 // share of images whose largest logit is that of their label
	Loss     float64 // mean cross-entropy
	Classes  []int   // predicted class of every image: the largest logit, the first among equals

	logits []float32 // real, [image][class]
}

// Agreement returns the share of images that both evaluations put into the same class.
func (e Evaluation) Agreement(other Evaluation) float64 {
	same := 0
	for i, class := range e.Classes {
		if class == other.Classes[i] {
			same++
		}
	}
	return float64(same) / float64(len(e.Classes))
}

// LogitDifference returns the largest difference between a logit of one evaluation and of the other.
func (e Evaluation) LogitDifference(other Evaluation) float64 {
	largest := 0.0
	for i, v := range e.logits {
		largest = max(largest, math.Abs(float64(v)-float64(other.logits[i])))
	}
	return largest
}

// EvaluationBatch is how many images evaluations look at together. It has no effect on scores.
const EvaluationBatch = 128

// Evaluator scores a network in evaluation mode. It keeps its graph between evaluations and sees the parameters
// as they are at each.
type Evaluator struct {
	network *layers.Network
	pass    *layers.Pass
	machine gorgonia.VM
	images  []float32
	labels  []int32
	logits  []float32
	unit    func() float64
}

// NewEvaluator builds the evaluation graph of a network for batches of a number of images.
func NewEvaluator(network *layers.Network, batch int) (*Evaluator, error) {
	return NewBranchEvaluator(network, batch, layers.UsualBranch)
}

// NewBranchEvaluator is NewEvaluator for a branch of a network whose weights are searched for.
func NewBranchEvaluator(network *layers.Network, batch int, branch layers.Branch) (*Evaluator, error) {
	if batch < 1 {
		return nil, fmt.Errorf("train: evaluation batch of %d images: want at least 1", batch)
	}
	blocks, err := blocksOf(network, batch)
	if err != nil {
		return nil, err
	}
	e := &Evaluator{network: network, pass: layers.NewPass(layers.Evaluation, batch)}
	e.pass.Branch = branch
	e.images, e.labels = make([]float32, blocks*network.Input.Len()*kernel.Lanes), make([]int32, blocks*kernel.Lanes)
	out, err := network.Forward(e.pass, e.images)
	if err != nil {
		return nil, err
	}
	e.unit = out.Unit
	if e.logits, err = result(out.Node); err != nil {
		return nil, err
	}
	e.machine = gorgonia.NewTapeMachine(e.pass.Graph)
	return e, nil
}

// blocksOf returns the number of blocks of a batch, which must not hold more numbers than a tensor may.
func blocksOf(network *layers.Network, batch int) (int, error) {
	blocks := kernel.Blocks(batch)
	if network.Input.Len() > math.MaxInt32/kernel.Lanes/blocks {
		return 0, fmt.Errorf("train: a batch of %d images of %v makes a tensor of more than 2^31 elements; use a smaller batch", batch, network.Input)
	}
	return blocks, nil
}

// fit refuses a data set without images, and one whose images or classes are not the network's.
func fit(network *layers.Network, d *datasets.Dataset) error {
	in := network.Input
	switch {
	case d.Len() < 1:
		return fmt.Errorf("train: %s has no images", d.Name)
	case in.Channels != d.Channels || in.Height != d.Height || in.Width != d.Width:
		return fmt.Errorf("train: the network takes images of %v, %s has %dx%dx%d", in, d.Name, d.Channels, d.Height, d.Width)
	case len(d.Classes) > network.Output.Len():
		return fmt.Errorf("train: the network tells %d classes apart, %s has %d", network.Output.Len(), d.Name, len(d.Classes))
	}
	return nil
}

// Evaluate scores the network on all images of a data set.
func (e *Evaluator) Evaluate(d *datasets.Dataset) (Evaluation, error) {
	if err := fit(e.network, d); err != nil {
		return Evaluation{}, err
	}
	if err := e.pass.Refresh(); err != nil {
		return Evaluation{}, err
	}
	score := Evaluation{Classes: make([]int, 0, d.Len())}
	right, loss := 0, 0.0
	for indices := range datasets.Batches(d.Len(), e.pass.Images) {
		if err := e.run(d, indices); err != nil {
			return Evaluation{}, err
		}
		loss += e.loss(len(indices))
		score.logits = append(score.logits, e.batchLogits(len(indices))...)
		for i, index := range indices {
			class := e.class(i)
			score.Classes = append(score.Classes, class)
			if class == int(d.Labels[index]) {
				right++
			}
		}
	}
	score.Accuracy, score.Loss = float64(right)/float64(d.Len()), loss/float64(d.Len())
	return score, nil
}

// run computes the logits of a batch; a short one fills the first lanes.
func (e *Evaluator) run(d *datasets.Dataset, indices []int) error {
	blocks := kernel.Blocks(len(indices))
	clear(e.images)
	for i := range e.labels {
		e.labels[i] = -1
	}
	d.Fill(e.images[:blocks*e.network.Input.Len()*kernel.Lanes], e.labels[:blocks*kernel.Lanes], indices)
	return e.compute()
}

// compute computes the logits of the images in place.
func (e *Evaluator) compute() error {
	defer e.machine.Reset()
	if err := e.machine.RunAll(); err != nil {
		return fmt.Errorf("train: evaluation: %w", err)
	}
	return nil
}

// loss returns the summed loss of the batch's n images.
func (e *Evaluator) loss(n int) float64 {
	logits := make([]float32, len(e.logits))
	e.real(logits)
	return float64(n) * kernel.CrossEntropy{Classes: e.network.Output.Len()}.Loss(make([]float32, len(logits)), logits, e.labels)
}

// real writes the batch's logits as real numbers.
func (e *Evaluator) real(logits []float32) {
	unit := e.unit()
	for i, v := range e.logits {
		logits[i] = float32(float64(v) * unit)
	}
}

// class returns the class of image i of the batch.
func (e *Evaluator) class(i int) int {
	classes := e.network.Output.Len()
	at, best := i/kernel.Lanes*classes*kernel.Lanes+i%kernel.Lanes, 0
	for k := range classes {
		if e.logits[at+k*kernel.Lanes] > e.logits[at+best*kernel.Lanes] {
			best = k
		}
	}
	return best
}

// Logits returns the logits of the images of these indices, at most a batch of them, as [image][class] real numbers.
func (e *Evaluator) Logits(d *datasets.Dataset, indices []int) ([]float32, error) {
	if err := fit(e.network, d); err != nil {
		return nil, err
	}
	if len(indices) > e.pass.Images {
		return nil, fmt.Errorf("train: logits of %d images: the evaluator takes at most %d", len(indices), e.pass.Images)
	}
	if err := e.pass.Refresh(); err != nil {
		return nil, err
	}
	if err := e.run(d, indices); err != nil {
		return nil, err
	}
	return e.batchLogits(len(indices)), nil
}

// batchLogits returns the real logits of the batch's n images, [image][class].
func (e *Evaluator) batchLogits(n int) []float32 {
	classes, unit := e.network.Output.Len(), e.unit()
	logits := make([]float32, n*classes)
	kernel.Unpack(logits, e.logits, n, classes)
	for i := range logits {
		logits[i] = float32(float64(logits[i]) * unit)
	}
	return logits
}

// Close ends the evaluator's machine.
func (e *Evaluator) Close() error { return e.machine.Close() }
