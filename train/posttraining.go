package train

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// PostTraining quantizes a float network without training it, into a run folder: [ModelFile], [CheckpointFile] and
// [ResultFile], which tells its settings too. It
//
//  1. takes the weights of Config.Init, moves scales of channels into them where ECAQ says so, and quantizes them; where their
//     method can do so, by a [Search] on Config.Calibration images, behind which it takes the statistics of batch
//     normalization anew for the first time, or by a [CodebookSearch],
//  2. calibrates the quantizers of activations on Config.Calibration training images,
//  3. takes the statistics of batch normalization anew ([Reestimation]) in batches of Config.Batch,
//  4. calibrates again where Recalibrate says so,
//  5. corrects biases ([BiasCorrection]) where CorrectBias says so, on the images of the calibration, and
//  6. scores float, fake-quantized and integer network on the test set.
//
// Nothing is written before the end. Settings of Config that are of training do not matter.
type PostTraining struct {
	Experiment
	ReestimateBN int  // training images for the statistics of batch normalization, see [Reestimation]; 0 leaves these alone
	Recalibrate  bool // calibrate again with the new statistics
	CorrectBias  bool
	Samples      int  // of a layer for the search of its weights, see [Search]; 0 for all, and where nothing is searched for
	Sequential   bool // search behind the layers quantized before
	ECAQ         bool // first give channels of activations scales of their own, see [ECAQ]
	// CentroidSteps and CentroidRate are the training of the centroids of each layer, where weights have codebooks.
	CentroidSteps int
	CentroidRate  float64
}

// PostTrainingResult is the result of a [PostTraining]: that of a run, and its settings.
type PostTrainingResult struct {
	Result
	StoredBits     *float64 `json:"stored_bits"` // of a weight's code, the mean over all; null for float weights
	StoredBitsNote string   `json:"stored_bits_note,omitempty"`
	Init           string   `json:"init"`
	InitHash       string   `json:"init_hash"`
	Normalize      string   `json:"normalize,omitempty"`
	EdgeBits       int      `json:"edge_bits"`
	TrainImages    int      `json:"train_images"`
	Validation     int      `json:"validation"`
	Calibration    int      `json:"calibration"`
	ReestimateBN   int      `json:"reestimate_bn"` // images that the statistics are of; 0 where they are those of the float network
	Batch          int      `json:"batch"`
	AugmentPad     int      `json:"augment_pad"`
	AugmentFlip    bool     `json:"augment_flip"`
	Recalibrate    bool     `json:"recalibrate"`
	CorrectBias    bool     `json:"correct_bias"`
	CentroidSteps  int      `json:"centroid_steps,omitempty"`
	CentroidRate   float64  `json:"centroid_rate,omitempty"`
	Samples        int      `json:"samples,omitempty"` // of a search
	Sequential     bool     `json:"sequential,omitempty"`
	ECAQ           bool     `json:"ecaq"`

	Codebooks []CodebookStep  `json:"codebooks,omitempty"`
	Searched  []SearchedLayer `json:"searched,omitempty"`
}

// Check refuses what can't be done before anything is written.
func (p *PostTraining) Check() error {
	c := &p.Config
	c.Float.Epochs, c.Quantized.Epochs, c.FreezeBN = 0, 0, 0
	switch {
	case !c.quantized():
		return usagef("train: neither weights nor activations have a method: there is nothing to quantize")
	case c.Init == "":
		return usagef("train: quantization without training needs the weights of a network: want init")
	case p.ReestimateBN < 0 || p.ReestimateBN > math.MaxInt32:
		return usagef("train: re-estimation of batch normalization on %d images: want 0 to %d", p.ReestimateBN, math.MaxInt32)
	case p.Recalibrate && p.ReestimateBN == 0:
		return usagef("train: calibrating again comes after a re-estimation of batch normalization: want both or neither")
	case p.CentroidSteps < 0 || p.CentroidSteps > 0 && !(p.CentroidRate > 0 && p.CentroidRate <= maxLearningRate):
		return usagef("train: %d steps for centroids at rate %v: want 0 or more, at a rate above 0 and up to %v", p.CentroidSteps, p.CentroidRate, maxLearningRate)
	case p.CentroidSteps > 0 && !c.Weights.HasCodebook():
		return usagef("train: weights of %s have no centroids to train", c.Weights)
	case p.Sequential && !c.Weights.Solves():
		return usagef("train: %s searches for no weights, sequentially or not", c.Weights)
	case p.Samples > 0 && !c.Weights.Solves():
		return usagef("train: %s searches for no weights, on samples or otherwise", c.Weights)
	case p.ECAQ && c.Acts.None():
		return usagef("train: scales of channels are for quantized activations: want a method for these")
	case p.Samples < 0:
		return usagef("train: a search with %d samples: want 0 or more", p.Samples)
	case c.FoldBN || c.Teacher != "" || p.Resume:
		return usagef("train: fold_bn, teacher and resuming are of training; quantization without training has none of them")
	}
	if err := p.Experiment.Check(); err != nil {
		return err
	}
	found, err := p.find()
	if err != nil {
		return fmt.Errorf("train: run folder: %w", err)
	}
	if found != "" && !p.Force {
		return usagef("train: %s holds a %s already: name another folder, or overwrite it with --force", p.Folder, found)
	}
	return nil
}

// Run does it all and returns the result. When ctx ends it returns [ErrInterrupted], and the folder is as it was.
func (p *PostTraining) Run(ctx context.Context) (*PostTrainingResult, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.Folder, 0o755); err != nil {
		return nil, fmt.Errorf("train: run folder: %w", err)
	}
	c := &p.Config
	p.saved.Phase, p.started = QuantizedPhase, time.Now()
	p.tell("%s on %s, weights %s, activations %s, without training, into %s", c.Model, c.Data, c.Weights, c.Acts, p.Folder)
	float, err := p.Build(layers.Methods{})
	if err != nil {
		return nil, err
	}
	if err := p.initialize(float); err != nil {
		return nil, err
	}
	r := p.newResult()
	network, err := p.quantize(ctx, float, r)
	if err != nil {
		return nil, err
	}
	model, err := p.score(ctx, float, network, r)
	if err != nil {
		return nil, err
	}
	return r, p.write(network, model, r)
}

func (p *PostTraining) tell(format string, args ...any) {
	p.report(Event{Text: fmt.Sprintf(format, args...)})
}

func (p *PostTraining) newResult() *PostTrainingResult {
	c := &p.Config
	return &PostTrainingResult{
		Result: Result{Model: c.Model, Data: c.Data, Weights: c.Weights.String(), Acts: c.Acts.String(), Seed: c.Seed},
		Init:   c.Init, InitHash: c.InitHash, Normalize: c.Normalize, EdgeBits: c.EdgeBits, TrainImages: c.TrainImages, Validation: c.Validation,
		Batch: c.Batch, AugmentPad: c.AugmentPad, AugmentFlip: c.AugmentFlip, Recalibrate: p.Recalibrate, CorrectBias: p.CorrectBias,
		CentroidSteps: p.CentroidSteps, CentroidRate: p.CentroidRate,
		ECAQ: p.ECAQ,
	}
}

// quantize makes the quantized network of a float one.
func (p *PostTraining) quantize(ctx context.Context, float *layers.Network, r *PostTrainingResult) (*layers.Network, error) {
	network, err := p.Build(p.Config.methods())
	if err != nil {
		return nil, err
	}
	data, _, err := p.trainingData()
	if err != nil {
		return nil, err
	}
	r.Calibration = min(p.Config.Calibration, data.Len())
	if err := p.equalize(ctx, float, data, r); err != nil {
		return nil, err
	}
	from := float
	switch {
	case p.Config.Weights.Solves():
		from, err = p.search(ctx, float, data, r)
	case p.Config.Weights.HasCodebook():
		from, err = p.findCodebooks(ctx, float, data, r)
	}
	if err != nil {
		return nil, err
	}
	if err := adopt(network, floatSnapshot(from)); err != nil {
		return nil, err
	}
	takeCodes(network, snapshot(from))
	network.Anneal(layers.Annealing{}) // what is deployed
	p.tell("calibrating on %d images", r.Calibration)
	if err := Calibrate(network, data, r.Calibration); err != nil {
		return nil, err
	}
	if r.ReestimateBN, err = p.reestimate(ctx, network, data); err != nil {
		return nil, err
	}
	if p.Recalibrate && r.ReestimateBN > 0 {
		p.tell("calibrating again")
		if err := Calibrate(network, data, r.Calibration); err != nil {
			return nil, err
		}
	}
	return network, p.correct(ctx, network, float, data, r)
}

// findCodebooks makes a network whose weights have codebooks, and whose activations are float.
func (p *PostTraining) findCodebooks(ctx context.Context, float *layers.Network, data *datasets.Dataset, r *PostTrainingResult) (*layers.Network, error) {
	c := &p.Config
	network, err := p.Build(layers.Methods{Weights: c.Weights})
	if err != nil {
		return nil, err
	}
	if err := adopt(network, floatSnapshot(float)); err != nil {
		return nil, err
	}
	search := &CodebookSearch{
		Float: float, Data: data, Images: c.Calibration, Steps: p.CentroidSteps, LearningRate: p.CentroidRate, Batch: c.Batch,
		Augmentation: c.augmentation(), Seed: c.Seed,
		Report: func(s CodebookStep) {
			r.Codebooks = append(r.Codebooks, s)
			p.tell("%s", s)
		},
	}
	return network, search.Run(ctx, network)
}

// equalize gives channels of the float network scales of their own, if that is wanted.
func (p *PostTraining) equalize(ctx context.Context, float *layers.Network, data *datasets.Dataset, r *PostTrainingResult) error {
	if !p.ECAQ {
		return nil
	}
	e := &ECAQ{Activations: p.Config.Acts, Data: data, Images: r.Calibration}
	channels, err := e.Run(ctx, float)
	if err == nil {
		p.tell("scales for %s of activations that are not 1", plural(channels, "channel"))
	}
	return err
}

// search makes a network whose weights are quantized and searched for, and whose activations are float.
func (p *PostTraining) search(ctx context.Context, float *layers.Network, data *datasets.Dataset, r *PostTrainingResult) (*layers.Network, error) {
	methods := p.Config.methods()
	methods.Activations = quantops.Method{}
	network, err := p.Build(methods)
	if err != nil {
		return nil, err
	}
	if err := adopt(network, floatSnapshot(float)); err != nil {
		return nil, err
	}
	network.Fit()
	p.tell("searching for weights on %d images", r.Calibration)
	s := &Search{Float: float, Data: data, Images: r.Calibration, Samples: p.Samples, Sequential: p.Sequential, Seed: p.Config.Seed,
		Report: func(l SearchedLayer) { p.tell("%s", l) }}
	if r.Searched, err = s.Run(ctx, network); err != nil {
		return nil, err
	}
	r.Samples, r.Sequential = p.Samples, p.Sequential
	_, err = p.reestimate(ctx, network, data)
	return network, err
}

// reestimate takes the statistics of batch normalization anew and returns the number of images that they are of.
func (p *PostTraining) reestimate(ctx context.Context, network *layers.Network, data *datasets.Dataset) (int, error) {
	switch {
	case p.ReestimateBN == 0:
		return 0, nil
	case len(batchNorms(network.Root)) == 0:
		p.tell("%s has no batch normalization whose statistics could be taken anew", p.Config.Model)
		return 0, nil
	}
	r := &Reestimation{Data: data, Images: p.ReestimateBN, Batch: p.Config.Batch, Augmentation: p.Config.augmentation(), Seed: p.Config.Seed, Branch: layers.HardBranch}
	p.tell("taking the statistics of batch normalization anew on %d images", r.batches()*r.batch())
	return r.Run(ctx, network)
}

// correct corrects biases, if that is wanted.
func (p *PostTraining) correct(ctx context.Context, network, float *layers.Network, data *datasets.Dataset, r *PostTrainingResult) error {
	if !p.CorrectBias {
		return nil
	}
	p.tell("correcting biases on %d images", r.Calibration)
	b := &BiasCorrection{Float: float, Data: data, Images: r.Calibration, Reestimated: r.ReestimateBN > 0}
	left, err := b.Run(ctx, network)
	if len(left) > 0 {
		p.tell("no bias to correct in %s", strings.Join(left, ", "))
	}
	return err
}

// score scores the float, the quantized and the integer network; the latter's model is nil for float weights.
func (p *PostTraining) score(ctx context.Context, float, network *layers.Network, r *PostTrainingResult) (*integer.Model, error) {
	test := p.Data.Test
	p.tell("scoring the float and the quantized network")
	before, err := evaluate(ctx, float, test)
	if err != nil {
		return nil, err
	}
	fake, err := evaluate(ctx, network, test)
	if err != nil {
		return nil, err
	}
	r.WeightsSHA256, r.Bytes.Float = WeightsHash(network), floatBytes(network)
	r.Accuracy.Float, r.Accuracy.FakeQuant = &before.Accuracy, &fake.Accuracy
	model, err := p.export(network, r)
	if err != nil || model == nil || model.Program == nil {
		return model, err
	}
	p.tell("scoring the integer model")
	if ctx.Err() != nil {
		return nil, ErrInterrupted
	}
	return model, scoreIntegers(model, test, fake, &r.Result)
}

// export makes the integer model; nil for float weights.
func (p *PostTraining) export(network *layers.Network, r *PostTrainingResult) (*integer.Model, error) {
	if p.Config.Weights.None() {
		p.tell("float weights have no integers: no model is exported")
		return nil, nil
	}
	model, err := Export(network, p.Data.Test, p.Config.Metadata(network))
	if errors.Is(err, quantops.ErrNoIntegers) {
		p.tell("no model is exported: %v", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	bits, note := storedBits(model)
	r.StoredBits, r.StoredBitsNote = &bits, note
	if model.Program == nil {
		p.tell("float activations have no integer run: model.goq holds codes and tables")
	}
	return model, nil
}

// evaluate scores a network on a data set.
func evaluate(ctx context.Context, network *layers.Network, d *datasets.Dataset) (Evaluation, error) {
	if ctx.Err() != nil {
		return Evaluation{}, ErrInterrupted
	}
	e, err := NewEvaluator(network, EvaluationBatch)
	if err != nil {
		return Evaluation{}, err
	}
	defer e.Close()
	score, err := e.Evaluate(d)
	if err == nil && !kernel.Finite(score.logits) {
		err = fmt.Errorf("train: the logits are not finite, first in %s", culprit(e.pass))
	}
	return score, err
}

// storedBits returns the mean number of bits that the code of a weight takes in a model, and which layers have how many:
// a method may store more bits than it is named after, and one code for several weights.
func storedBits(model *integer.Model) (mean float64, note string) {
	type form struct{ bits, vector int }
	type count struct{ layers, weights int }
	counts, bits, weights := map[form]count{}, 0, 0
	for _, layer := range model.Layers {
		w := &layer.Weights
		f := form{int(w.Bits), max(1, w.Vector)}
		counts[f] = count{counts[f].layers + 1, counts[f].weights + w.Count()}
		bits, weights = bits+f.bits*len(w.Codes), weights+w.Count()
	}
	order := slices.SortedFunc(maps.Keys(counts), func(a, b form) int { return cmp.Or(a.bits-b.bits, a.vector-b.vector) })
	var parts []string
	for _, f := range order {
		what := ""
		if f.vector > 1 {
			what = fmt.Sprintf(" every %d of", f.vector)
		}
		parts = append(parts, fmt.Sprintf("%d bits for%s the %d weights of %s", f.bits, what, counts[f].weights, plural(counts[f].layers, "layer")))
	}
	return float64(bits) / float64(weights), strings.Join(parts, ", ") + "; tables, scales and biases not counted"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// write fills the folder: the result comes last, and that of another run goes first.
func (p *PostTraining) write(network *layers.Network, model *integer.Model, r *PostTrainingResult) error {
	for _, name := range runFiles {
		if err := os.Remove(p.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("train: run folder: %w", err)
		}
	}
	if model != nil {
		if err := integer.Save(p.path(ModelFile), model); err != nil {
			return fmt.Errorf("train: %w", err)
		}
		size, err := os.Stat(p.path(ModelFile))
		if err != nil {
			return fmt.Errorf("train: %w", err)
		}
		bytes := int(size.Size())
		r.Bytes.Integer = &bytes
	}
	r.Seconds = time.Since(p.started).Seconds()
	text, err := p.Config.Encode()
	if err != nil {
		return err
	}
	c := Checkpoint{Config: string(text), Phase: QuantizedPhase, Accuracy: *r.Accuracy.Float, Seconds: r.Seconds, Params: snapshot(network)}
	if err := c.Save(p.path(CheckpointFile)); err != nil {
		return err
	}
	return saveJSON(p.path(ResultFile), r)
}
