package train

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

// ErrInterrupted is returned by a training that was asked to stop. It has finished its batch and can go on from
// its state.
var ErrInterrupted = errors.New("train: interrupted")

// DivergedError says where a number stopped being finite. The parameters are those of the step before.
type DivergedError struct {
	Epoch, Step int    // counted from 1
	Layer       string // or parameter
	What        string // "loss", "gradient", "update" or "loss of the evaluation"
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("train: epoch %d, step %d: the %s is not finite, first in %s; try a lower learning rate", e.Epoch, e.Step, e.What, e.Layer)
}

// Trainer trains a network on a data set.
type Trainer struct {
	Network      *layers.Network
	Data         *datasets.Dataset // training images
	Epochs       int               // passes over the training images
	Batch        int               // images of a step; 0 means 64
	Optimizer    Optimizer         // nil means SGD with momentum 0.9
	LearningRate float64           // base rate of the schedule; 0 means 0.01
	Schedule     Schedule          // nil means Cosine
	Smoothing    float64           // label smoothing, 0 to 1
	Distillation *Distillation     // nil for none
	Augmentation datasets.Augmentation
	Seed         uint64 // of the order of the images
	// FreezeBatchNorm is the number of epochs, the last ones, in which batch normalization uses its running statistics
	// and leaves them alone.
	FreezeBatchNorm int
	// Anneal is the temperature of weights that are searched for.
	Anneal Anneal
	// AfterStep, if there, is called after every step; an error stops the training.
	AfterStep func(Step) error

	graph   *trainingGraph
	teacher *teacher
	state   Position
}

// Position is how far a training has come.
type Position struct {
	Step      int     // steps done
	LossSum   float64 // of the steps of the current epoch
	LossSteps int     // how many these are
}

// Step reports a step of training.
type Step struct {
	Position
	Epoch        int // epoch that the step belongs to, from 1
	Epochs       int
	Steps        int // steps of the whole training
	Images       int // images in a step
	Loss         float64
	LearningRate float64
	EpochDone    bool // the step was the last of its epoch
}

// MeanLoss returns the mean loss of the steps of this epoch so far.
func (p Position) MeanLoss() float64 { return p.LossSum / float64(max(1, p.LossSteps)) }

func (t *Trainer) batch() int { return orDefault(t.Batch, 64) }

// Position returns how far the training has come.
func (t *Trainer) Position() Position { return t.state }

// Resume sets how far the training has come; parameters and optimizer have been restored before.
func (t *Trainer) Resume(p Position) { t.state = p }

// Run trains from the current position to the end of the last epoch. When ctx ends it finishes its batch and
// returns [ErrInterrupted].
func (t *Trainer) Run(ctx context.Context) error {
	if err := t.check(); err != nil {
		return err
	}
	if err := t.build(); err != nil { // before anything of the batch's size is made: it knows what is too large
		return err
	}
	sampler, err := datasets.NewSampler(t.Data.Len(), t.batch(), t.Seed)
	if err != nil {
		return err
	}
	loader, err := datasets.NewLoader(t.Data, t.batch(), t.Seed, t.Augmentation)
	if err != nil {
		return err
	}
	defer loader.Close()
	for steps := sampler.StepsUntil(t.Epochs); t.state.Step < steps; {
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		if err := t.step(sampler, loader, steps); err != nil {
			return err
		}
	}
	return nil
}

// check fills in the defaults and refuses what can't be trained.
func (t *Trainer) check() error {
	if t.Optimizer == nil {
		t.Optimizer = &SGD{Momentum: 0.9}
	}
	if t.Schedule == nil {
		t.Schedule = Cosine{}
	}
	switch {
	case t.Batch < 0:
		return fmt.Errorf("train: batch of %d images: want at least 1", t.Batch)
	case t.Epochs < 0:
		return fmt.Errorf("train: %d epochs: want 0 or more", t.Epochs)
	case !(t.Smoothing >= 0 && t.Smoothing <= 1):
		return fmt.Errorf("train: label smoothing %v: want 0 to 1", t.Smoothing)
	case !(t.LearningRate >= 0):
		return fmt.Errorf("train: learning rate %v: want 0 or more", t.LearningRate)
	case t.FreezeBatchNorm < 0:
		return fmt.Errorf("train: batch normalization frozen in %d epochs: want 0 or more", t.FreezeBatchNorm)
	}
	if t.Distillation != nil {
		if err := t.Distillation.check(t.Network); err != nil {
			return err
		}
	}
	if err := fit(t.Network, t.Data); err != nil {
		return err
	}
	if t.Epochs > 0 && int64(t.Epochs)*int64(t.Data.Len()) < int64(t.batch()) {
		return fmt.Errorf("train: %d epochs of %d images make no batch of %d: want a smaller batch or more epochs", t.Epochs, t.Data.Len(), t.batch())
	}
	return nil
}

// freezes says whether batch normalization is frozen in the next step.
func (t *Trainer) freezes() bool {
	before := int64(t.Epochs-t.FreezeBatchNorm) * int64(t.Data.Len()) / int64(t.batch()) // steps, as a Sampler counts them
	return t.FreezeBatchNorm > 0 && int64(t.state.Step) >= before
}

// build makes what computes the next step, unless it is there: the teacher, and the graph, which is another one once
// batch normalization is frozen.
func (t *Trainer) build() (err error) {
	if t.Distillation != nil && t.teacher == nil {
		if t.teacher, err = newTeacher(t.Distillation, t.batch()); err != nil {
			return fmt.Errorf("train: teacher: %w", err)
		}
	}
	frozen := t.freezes()
	if t.graph != nil && t.graph.frozen == frozen {
		return nil
	}
	if t.graph != nil {
		if err := t.graph.machine.Close(); err != nil {
			return fmt.Errorf("train: %w", err)
		}
		t.graph = nil
		runtime.GC() // two graphs' buffers at once could be more than there is room for
	}
	if frozen {
		undo, err := freeze(t.Network)
		if err != nil {
			return err
		}
		defer undo()
	}
	graph, err := newTrainingGraph(t.Network, t.batch(), t.Smoothing)
	if err != nil {
		return err
	}
	graph.frozen, graph.loss.teacher = frozen, t.teacher
	t.graph = graph
	return nil
}

// step makes one step of training.
func (t *Trainer) step(sampler *datasets.Sampler, loader *datasets.Loader, steps int) error {
	at := t.state.Step
	epoch := t.epoch(sampler, at)
	if err := t.build(); err != nil {
		return err
	}
	rate := t.Schedule.Rate(t.rate(), Progress{Step: at, Steps: steps, StepsPerEpoch: max(1, t.Data.Len()/t.batch())})
	t.Optimizer.SetLearningRate(rate)
	t.Network.Anneal(layers.Annealing{Temperature: t.Anneal.Temperature(float64(at) / float64(steps)), Step: at})
	batch := loader.Next(at)
	copy(t.graph.images, batch.Images)
	copy(t.graph.loss.labels, batch.Labels)
	if t.teacher != nil {
		if err := t.teacher.look(batch.Images); err != nil {
			return located(err, epoch, at+1)
		}
	}
	loss, err := t.graph.step(t.Optimizer)
	if err != nil {
		return located(err, epoch, at+1)
	}
	t.state.Step++
	t.state.LossSum += loss
	t.state.LossSteps++
	done := Step{
		Position: t.state, Epoch: epoch, Epochs: t.Epochs, Steps: steps, Images: t.batch(),
		Loss: loss, LearningRate: rate, EpochDone: t.state.Step == sampler.StepsUntil(epoch),
	}
	if done.EpochDone {
		t.state.LossSum, t.state.LossSteps = 0, 0
	}
	if t.AfterStep == nil {
		return nil
	}
	return t.AfterStep(done)
}

func (t *Trainer) rate() float64 { return orDefault(t.LearningRate, 0.01) }

// epoch returns the epoch, from 1, that a step belongs to.
func (t *Trainer) epoch(sampler *datasets.Sampler, step int) int {
	epoch := 1
	for sampler.StepsUntil(epoch) <= step {
		epoch++
	}
	return epoch
}

// located adds epoch and step to an error about numbers that are not finite.
func located(err error, epoch, step int) error {
	var diverged *DivergedError
	if errors.As(err, &diverged) {
		diverged.Epoch, diverged.Step = epoch, step
		return diverged
	}
	var update *NonFiniteError
	if errors.As(err, &update) {
		return &DivergedError{Epoch: epoch, Step: step, Layer: update.Parameter, What: update.What}
	}
	return fmt.Errorf("train: epoch %d, step %d: %w", epoch, step, err)
}

// Close ends the trainer's machines.
func (t *Trainer) Close() error {
	var first, second error
	if t.graph != nil {
		first = t.graph.machine.Close()
	}
	if t.teacher != nil {
		second = t.teacher.evaluator.Close()
	}
	return errors.Join(first, second)
}

// trainingGraph is a network's graph with loss and gradients.
type trainingGraph struct {
	pass       *layers.Pass
	machine    gorgonia.VM
	images     []float32
	loss       *crossEntropy
	value      []float32 // of the loss
	learned    []*layers.Param
	parameters []Parameter
	frozen     bool // batch normalization
}

func newTrainingGraph(network *layers.Network, batch int, smoothing float64) (*trainingGraph, error) {
	return newGraphOf(network, batch, smoothing, nil)
}

// newGraphOf makes the graph that trains one learned parameter of a network; nil for all of them.
func newGraphOf(network *layers.Network, batch int, smoothing float64, only *layers.Param) (*trainingGraph, error) {
	blocks, err := blocksOf(network, batch)
	if err != nil {
		return nil, err
	}
	g := &trainingGraph{pass: layers.NewPass(layers.Training, batch)}
	g.images = make([]float32, blocks*network.Input.Len()*kernel.Lanes)
	g.loss = &crossEntropy{
		loss:   kernel.CrossEntropy{Classes: network.Output.Len(), Smoothing: smoothing},
		labels: make([]int32, blocks*kernel.Lanes),
	}
	out, err := network.Forward(g.pass, g.images)
	if err != nil {
		return nil, err
	}
	loss, err := g.loss.apply(out.Node)
	if err != nil {
		return nil, err
	}
	if g.value, err = result(loss); err != nil {
		return nil, err
	}
	return g, g.differentiate(loss, only)
}

// differentiate adds the gradients of one learned parameter, or all, and compiles the graph. Those behind the one come with
// it: the paths of a residual sum must all have a gradient.
func (g *trainingGraph) differentiate(loss *gorgonia.Node, only *layers.Param) error {
	learned, nodes := g.pass.Learned()
	if only != nil {
		from := slices.Index(learned, only)
		learned, nodes = learned[from:], nodes[from:]
	}
	gradients, err := gorgonia.Grad(loss, nodes...)
	if err != nil {
		return fmt.Errorf("train: gradients: %w", err)
	}
	for i, p := range learned {
		gradient, err := result(gradients[i])
		if err != nil {
			return err
		}
		g.parameters = append(g.parameters, Parameter{Name: p.Name, Value: p.Data(), Gradient: gradient, Group: Group{Rate: p.Rate, Decay: p.Decay}})
	}
	if g.learned = learned; only != nil {
		g.learned, g.parameters = learned[:1], g.parameters[:1]
	}
	g.machine = gorgonia.NewTapeMachine(g.pass.Graph)
	return nil
}

// step computes loss and gradients of the batch in place and updates the parameters.
func (g *trainingGraph) step(optimizer Optimizer) (float64, error) {
	defer g.machine.Reset()
	if err := g.machine.RunAll(); err != nil {
		return 0, err
	}
	loss := g.value[0]
	if !kernel.Finite(g.value) {
		return 0, &DivergedError{Layer: culprit(g.pass), What: "loss"}
	}
	if err := optimizer.Update(g.parameters); err != nil {
		return 0, err
	}
	for _, p := range g.learned {
		p.Project()
	}
	return float64(loss), nil
}

// culprit names the layer where numbers of a pass's last run first stopped being finite.
func culprit(pass *layers.Pass) string {
	if layer := pass.FirstNotFinite(); layer != "" {
		return "layer " + layer
	}
	return "the loss itself"
}

// result returns the elements of a node that this module's operations compute.
func result(n *gorgonia.Node) ([]float32, error) { return quantops.Result(n) }
