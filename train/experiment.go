package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/tensor"
)

// Experiment is a whole run in a folder: float epochs, quantized epochs that start from the float weights, the
// integer model and its score. After every epoch, and when it is interrupted, the folder holds all that is needed to
// go on.
type Experiment struct {
	Config Config
	Folder string
	Resume bool // go on with the run in the folder
	Force  bool // start over in a folder that holds a run
	Data   datasets.Split
	// Build makes the run's network with these quantizers.
	Build func(layers.Methods) (*layers.Network, error)
	// BuildTeacher makes the network of any configuration with these quantizers, for the run's images. Config.Teacher
	// needs it, and Config.Init where it names a run that has searched for weights.
	BuildTeacher func(Config, layers.Methods) (*layers.Network, error)
	// Import, if there, sets a network's parameters from a file of another kind than a checkpoint that Config.Init or
	// Config.Teacher names.
	Import func(path string, network *layers.Network) error
	// Report, if there, hears of everything that happens.
	Report func(Event)

	saved        Checkpoint // what the next checkpoint says besides parameters
	started      time.Time
	evaluator    *Evaluator
	search       searchEvaluators
	distillation *Distillation // nil for none
}

// Event is something that happened in a run. Of Step, Metric and Text the one that belongs to the event is there.
type Event struct {
	Phase  Phase
	Step   *Step   // a step of training has been made
	Metric *Metric // an epoch has been scored
	Text   string  // something to tell the user
}

func (e *Experiment) report(v Event) {
	if e.Report != nil {
		v.Phase = e.saved.Phase
		e.Report(v)
	}
}

// Run does what is left of the run and returns its result. When ctx ends it finishes the batch, saves, and returns
// [ErrInterrupted].
func (e *Experiment) Run(ctx context.Context) (*Result, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	checkpoint, err := e.open()
	if err != nil {
		return nil, err
	}
	c := e.Config
	e.report(Event{Text: fmt.Sprintf("%s on %s, weights %s, activations %s, seed %d, into %s", c.Model, c.Data, c.Weights, c.Acts, c.Seed, e.Folder)})
	e.started = time.Now()
	network, err := e.floatPhase(ctx, checkpoint)
	if err != nil {
		return nil, err
	}
	if e.Config.quantized() {
		if network, err = e.quantizedPhase(ctx, network, checkpoint); err != nil {
			return nil, err
		}
	} else {
		e.report(Event{Text: "neither weights nor activations have a method: there is no quantized phase"})
	}
	return e.finish(network)
}

// Check refuses what can't be run before anything is written.
func (e *Experiment) Check() error {
	if err := e.Config.Validate(); err != nil {
		return err
	}
	if e.Resume && e.Force {
		return usagef("train: --resume and --force exclude each other")
	}
	if err := e.checkData(); err != nil {
		return &UsageError{err}
	}
	network, err := e.Build(layers.Methods{})
	if err != nil {
		return &UsageError{err}
	}
	if _, err := e.Build(e.Config.methods()); err != nil {
		return &UsageError{err}
	}
	if _, err := blocksOf(network, e.Config.Batch); err != nil {
		return &UsageError{err}
	}
	if e.Config.FreezeBN > 0 && len(batchNorms(network.Root)) == 0 {
		return usagef("train: freeze_bn %d: %s has no batch normalization", e.Config.FreezeBN, e.Config.Model)
	}
	if e.Config.Winograd && !network.TakesWinograd() {
		return usagef("train: winograd: %s has no 3x3 convolution of stride 1 between 32 channels or more", e.Config.Model)
	}
	if err := e.loadTeacher(network); err != nil {
		return err
	}
	if e.Resume && e.hasCheckpoint() {
		return nil // it holds what the initial file brought
	}
	return e.initialize(network)
}

// hasCheckpoint says whether the folder's run has saved anything.
func (e *Experiment) hasCheckpoint() bool {
	there, err := exists(e.path(CheckpointFile))
	return there && err == nil
}

// checkData refuses a training set that can't be split or does not fill a batch.
func (e *Experiment) checkData() error {
	training, _, err := e.trainingData()
	if err != nil {
		return err
	}
	if err := e.Config.augmentation().Validate(training); err != nil {
		return err
	}
	if e.Config.Batch > training.Len() {
		return fmt.Errorf("train: batch of %d images: the training set has only %d", e.Config.Batch, training.Len())
	}
	return nil
}

// floatPhase returns the trained float network; when the checkpoint is beyond it, one that only serves for its shape.
func (e *Experiment) floatPhase(ctx context.Context, c *Checkpoint) (*layers.Network, error) {
	network, err := e.Build(layers.Methods{})
	if err != nil {
		return nil, err
	}
	if c != nil && c.Phase == QuantizedPhase {
		return network, nil
	}
	if c == nil {
		if err := e.initialize(network); err != nil {
			return nil, err
		}
	}
	score, err := e.train(ctx, FloatPhase, network, c)
	e.saved.Accuracy = score.Accuracy
	return network, err
}

// quantizedPhase trains the quantized network from the float one's weights, or from the checkpoint.
func (e *Experiment) quantizedPhase(ctx context.Context, float *layers.Network, c *Checkpoint) (*layers.Network, error) {
	network, err := e.Build(e.Config.methods())
	if err != nil {
		return nil, err
	}
	if c == nil || c.Phase == FloatPhase {
		c = nil
		if err := adopt(network, floatSnapshot(float)); err != nil {
			return nil, err
		}
		if err := e.takeCodes(network); err != nil {
			return nil, err
		}
		data, _, err := e.trainingData()
		if err != nil {
			return nil, err
		}
		e.report(Event{Text: fmt.Sprintf("calibrating on %d images", min(e.Config.Calibration, data.Len()))})
		if err := Calibrate(network, data, e.Config.Calibration); err != nil {
			return nil, err
		}
	}
	_, err = e.train(ctx, QuantizedPhase, network, c)
	return network, err
}

// train makes the steps of a phase that are left and returns the score of its end.
func (e *Experiment) train(ctx context.Context, phase Phase, network *layers.Network, c *Checkpoint) (Evaluation, error) {
	network.Winograd = e.Config.Winograd
	e.saved.Phase, e.saved.Position = phase, Position{}
	t, err := e.trainer(phase, network)
	if err != nil {
		return Evaluation{}, err
	}
	defer t.Close()
	if e.search, err = newSearchEvaluators(network, e.Config.StateBN); err != nil {
		return Evaluation{}, err
	}
	if c != nil {
		err = e.goOn(t, c)
	} else {
		err = e.takeHard(t)
	}
	if err != nil {
		return Evaluation{}, err
	}
	if e.evaluator, err = NewEvaluator(network, EvaluationBatch); err != nil { // of the codes that there are now
		return Evaluation{}, err
	}
	last := time.Now()
	t.AfterStep = func(s Step) error {
		e.saved.Trained.Images += s.Images
		e.saved.Trained.Seconds += time.Since(last).Seconds()
		err := e.afterStep(t, s)
		last = time.Now()
		return err
	}
	err = t.Run(ctx)
	if errors.Is(err, ErrInterrupted) {
		if failed := e.save(t); failed != nil {
			err = fmt.Errorf("train: interrupted, and what was trained since the last checkpoint is lost: %w", failed)
		}
	}
	if err != nil {
		return Evaluation{}, err
	}
	return e.evaluator.Evaluate(e.Data.Test)
}

// trainer makes the trainer of a phase.
func (e *Experiment) trainer(phase Phase, network *layers.Network) (*Trainer, error) {
	settings, freeze := e.Config.Float, 0
	if phase == QuantizedPhase {
		settings, freeze = e.Config.Quantized, e.Config.FreezeBN
	}
	optimizer, err := e.Config.optimizer()
	if err != nil {
		return nil, err
	}
	schedule, err := ParseSchedule(settings.Schedule)
	if err != nil {
		return nil, err
	}
	anneal, err := ParseAnneal(e.Config.Anneal)
	if err != nil {
		return nil, err
	}
	data, _, err := e.trainingData()
	if err != nil {
		return nil, err
	}
	return &Trainer{
		Network: network, Data: data, Epochs: settings.Epochs, Batch: e.Config.Batch, Optimizer: optimizer, Schedule: schedule,
		LearningRate: settings.LearningRate, Smoothing: e.Config.Smoothing, Seed: e.Config.Seed + uint64(phase), Augmentation: e.Config.augmentation(),
		Distillation: e.distillation, FreezeBatchNorm: freeze, Anneal: anneal,
	}, nil
}

// trainingData returns the images to train on, and those to follow the training with: a part split off, or the test set.
func (e *Experiment) trainingData() (training, scored *datasets.Dataset, err error) {
	training, scored = e.Data.Train, e.Data.Test
	if e.Config.TrainImages > 0 {
		training = training.Head(e.Config.TrainImages)
	}
	if e.Config.Validation > 0 {
		training, scored, err = training.SplitValidation(e.Config.Validation, e.Config.Seed)
	}
	return training, scored, err
}

// goOn sets network, optimizer and position to those of a checkpoint.
func (e *Experiment) goOn(t *Trainer, c *Checkpoint) error {
	if err := restore(t.Network, c.Params); err != nil {
		return err
	}
	if err := t.Optimizer.Restore(c.Optimizer); err != nil {
		return fmt.Errorf("train: resume: %w", err)
	}
	t.Resume(c.Position)
	e.saved = *c
	e.report(Event{Text: fmt.Sprintf("going on after step %d of the %v phase", c.Position.Step, c.Phase)})
	return nil
}

// afterStep reports a step; at the end of an epoch it scores the network, and it saves when it is time.
func (e *Experiment) afterStep(t *Trainer, s Step) error {
	e.report(Event{Step: &s})
	if s.EpochDone {
		return e.afterEpoch(t, s)
	}
	if n := e.Config.CheckpointSteps; n > 0 && s.Position.Step%n == 0 {
		return e.save(t)
	}
	return nil
}

func (e *Experiment) afterEpoch(t *Trainer, s Step) error {
	if err := e.retakeHard(t); err != nil {
		return err
	}
	_, scored, err := e.trainingData()
	if err != nil {
		return err
	}
	score, err := e.evaluator.Evaluate(scored)
	if err != nil {
		return err
	}
	if math.IsNaN(score.Loss) || math.IsInf(score.Loss, 0) {
		return &DivergedError{Epoch: s.Epoch, Step: s.Position.Step, Layer: culprit(e.evaluator.pass), What: "loss of the evaluation"}
	}
	m := Metric{
		Phase: e.saved.Phase.String(), Epoch: s.Epoch, Step: s.Position.Step, Loss: s.MeanLoss(), LearningRate: s.LearningRate,
		Scored: "test", Accuracy: score.Accuracy, EvaluationLoss: score.Loss,
	}
	if e.Config.Validation > 0 {
		m.Scored = "validation"
	}
	if m.Search, err = e.searchMetric(t.Network); err != nil {
		return err
	}
	e.saved.Metrics = append(e.saved.Metrics, m)
	// The checkpoint comes last: once it says that the epoch is over, nothing of the epoch is made up for.
	if err := writeMetrics(e.path(MetricsFile), e.saved.Metrics); err != nil {
		return err
	}
	if err := e.save(t); err != nil {
		return err
	}
	e.report(Event{Metric: &m})
	return nil
}

// save writes the checkpoint.
func (e *Experiment) save(t *Trainer) error {
	text, err := e.Config.Encode()
	if err != nil {
		return err
	}
	c := e.saved
	c.Config, c.Position = string(text), t.Position()
	c.Seconds += time.Since(e.started).Seconds()
	c.Params, c.Optimizer = snapshot(t.Network), t.Optimizer.State()
	return c.Save(e.path(CheckpointFile))
}

// finish makes the integer model, scores everything on the test set and writes the result.
func (e *Experiment) finish(network *layers.Network) (*Result, error) {
	c := &e.Config
	r := &Result{
		Model: c.Model, Data: c.Data, Weights: c.Weights.String(), Acts: c.Acts.String(), Seed: c.Seed, Epochs: c.Float.Epochs,
		WeightsSHA256: WeightsHash(network), Accuracy: Accuracies{Float: &e.saved.Accuracy}, Bytes: Sizes{Float: floatBytes(network)},
	}
	if c.quantized() {
		r.Epochs += c.Quantized.Epochs
		if err := e.scoreQuantized(network, r); err != nil {
			return nil, err
		}
	}
	r.Seconds = e.saved.Seconds + time.Since(e.started).Seconds()
	if e.saved.Trained.Seconds > 0 {
		r.ImagesPerSecond = float64(e.saved.Trained.Images) / e.saved.Trained.Seconds
	}
	return r, saveJSON(e.path(ResultFile), r)
}

// floatBytes is the size of all weights, biases and statistics of batch normalization as float32.
func floatBytes(network *layers.Network) int {
	bytes := 0
	for _, p := range network.FloatParams() {
		bytes += 4 * tensor.Shape(p.Shape).TotalSize()
	}
	return bytes
}

// scoreQuantized scores the network fake-quantized and, where it has integers, exports and scores these.
func (e *Experiment) scoreQuantized(network *layers.Network, r *Result) error {
	score, err := e.evaluator.Evaluate(e.Data.Test)
	if err != nil {
		return err
	}
	r.Accuracy.FakeQuant = &score.Accuracy
	if e.Config.Weights.None() {
		e.report(Event{Text: "float weights have no integers: no model is exported"})
		return nil
	}
	model, err := Export(network, e.Data.Test, e.Config.Metadata(network))
	if errors.Is(err, quantops.ErrNoIntegers) {
		e.report(Event{Text: "no model is exported: " + err.Error()})
		return nil
	}
	if err != nil {
		return err
	}
	if err := integer.Save(e.path(ModelFile), model); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	size, err := os.Stat(e.path(ModelFile))
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	bytes := int(size.Size())
	r.Bytes.Integer = &bytes
	if model.Program == nil {
		e.report(Event{Text: "float activations have no integer run: model.goq holds codes and tables"})
		return nil
	}
	e.report(Event{Text: "scoring the integer model"})
	return scoreIntegers(model, e.Data.Test, score, r)
}

// scoreIntegers runs the test set on integers alone.
func scoreIntegers(model *integer.Model, test *datasets.Dataset, fake Evaluation, r *Result) error {
	score, err := EvaluateModel(model, test)
	if err != nil {
		return err
	}
	agreement, difference := fake.Agreement(score), fake.LogitDifference(score)
	r.Accuracy.Integer, r.Agreement, r.LogitDifference = &score.Accuracy, &agreement, &difference
	return nil
}

// difference names the first line in which two texts differ.
func difference(before, now string) string {
	a, b := strings.Split(before, "\n"), strings.Split(now, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("%q then, %q now", strings.TrimSpace(a[i]), strings.TrimSpace(b[i]))
		}
	}
	return "one has more settings than the other"
}
