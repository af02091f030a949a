package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// quantizeCommand holds the flags of `goqat quantize`: some of `goqat train`, and its own.
type quantizeCommand struct {
	trainCommand
	reestimateBN             int
	recalibrate, correctBias bool
	centroidSteps            int
	centroidRate             float64
	samples                  int
	sequential, ecaq         bool
}

// searchSamples is how many samples of a layer its weights are searched on by default.
const searchSamples = 12_000

// reestimationImages is how many images the statistics of batch normalization are taken on by default.
const reestimationImages = 4096

func newQuantize() *cobra.Command {
	q := &quantizeCommand{trainCommand: trainCommand{config: quantizeConfig()}}
	c := &cobra.Command{
		Use:   "quantize RUN|CHECKPOINT|FILE",
		Short: "Quantize a float network without training it, export its integers and score them",
		Long: `Quantize a float network without training it: the weights as they are, the activations over the ranges of some
training images (--calibration). Then the statistics of batch normalization are taken anew with the quantizers in place,
on augmented training images (--reestimate-bn), and biases corrected if that is wanted (--correct-bias).

The network is that of a run folder, a checkpoint, or, with --model and --data, of a PyTorch or safetensors file.
The run folder that comes of it holds checkpoint.safetensors, model.goq and result.json: eval, export and predict take it,
and goqat train --init trains on from it. The same settings and seed give the same weights, bit for bit.`,
		Example: `  goqat quantize runs/lenet5-mnist-none-none-1 --weights linear:4 --acts linear:8
  goqat quantize resnet20.th --model resnet20 --data cifar10 --normalize imagenet --weights linear:4 --acts linear:8
  goqat quantize resnet20.th --model resnet20 --data cifar10 --normalize imagenet --reestimate-bn 0 --correct-bias`,
		Args: arguments(1, 1, "one run folder, checkpoint, PyTorch or safetensors file"),
		RunE: q.run,
	}
	q.addFlags(c.Flags())
	complete(c, "model", modelNames)
	complete(c, "data", dataNames)
	complete(c, "weights", weightMethods)
	complete(c, "acts", activationMethods)
	return c
}

// quantizeConfig returns the settings of `goqat quantize` without arguments; model and data have no default.
func quantizeConfig() train.Config {
	c := train.DefaultConfig()
	c.Model, c.Data, c.Batch = "", "", 128
	c.Weights, c.Acts = quantops.MustParse("linear:8"), quantops.MustParse("linear:8")
	c.Float.Epochs, c.Quantized.Epochs = 0, 0
	return c
}

// sharedFlags are the flags of `goqat train` that quantization has too, and what they are for where that is another thing.
var sharedFlags = []struct{ name, usage string }{
	{"model", "network that the weights of a PyTorch or safetensors file belong to; see goqat list models"},
	{"data", "data set of a PyTorch or safetensors file; see goqat list datasets"},
	{"data-dir", ""}, {"normalize", ""}, {"weights", ""}, {"acts", ""}, {"edge-bits", ""}, {"calibration", ""},
	{"batch", "images of a batch of --reestimate-bn"},
	{"augment-pad", "pad images of --reestimate-bn by so many zeros and crop them at random (default: the run's; of files 4 for cifar10 and cifar100)"},
	{"augment-flip", "mirror images of --reestimate-bn at random (default: the run's; of files for cifar10 and cifar100)"},
	{"train-images", "see the first so many training images alone; 0 for all"},
	{"validation", "leave out so many training images, those that goqat train splits off by the same seed"},
	{"seed", "seed of the order of images and their augmentation"},
	{"out", ""},
	{"force", "overwrite a run in --out"},
	{"json", "print the result as JSON"},
}

// addFlags defines the flags.
func (q *quantizeCommand) addFlags(f *pflag.FlagSet) {
	all := pflag.NewFlagSet("train", pflag.ContinueOnError)
	q.trainCommand.addFlags(all)
	for _, shared := range sharedFlags {
		flag := all.Lookup(shared.name)
		if shared.usage != "" {
			flag.Usage = shared.usage
		}
		f.AddFlag(flag)
	}
	f.IntVar(&q.reestimateBN, "reestimate-bn", reestimationImages, "take the statistics of batch normalization anew on so many training images, rounded up to whole batches; 0 leaves them as they are")
	f.BoolVar(&q.recalibrate, "recalibrate", false, "calibrate once more after --reestimate-bn")
	f.IntVar(&q.centroidSteps, "centroid-steps", 100, "steps of --batch images in which the centroids of each layer learn from the float network, where --weights have a codebook; 0 for none")
	f.Float64Var(&q.centroidRate, "centroid-rate", 0.05, "largest learning rate of --centroid-steps; ten times more may be better for networks without batch normalization")
	f.IntVar(&q.samples, "samples", searchSamples, "search for weights (bitsplit) on so many samples of a layer, output places of the --calibration images, rounded up to at least one of each image; 0 for all")
	f.BoolVar(&q.sequential, "sequential", false, "search for a layer's weights behind the quantized layers before it, instead of behind float ones")
	f.BoolVar(&q.ecaq, "ecaq", false, "first give each channel of activations a scale of its own, moved into normalizations and weights: fewer bits of activations lose less")
	f.BoolVar(&q.correctBias, "correct-bias", false, "shift biases so that the mean outputs of layers on the calibration images are those of the float network")
}

func (q *quantizeCommand) run(c *cobra.Command, args []string) error {
	if err := q.configure(args[0], c.Flags()); err != nil {
		return err
	}
	data, err := loadData(q.config.Data, q.config.DataDir, q.config.Normalize)
	if err != nil {
		return err
	}
	p := &train.PostTraining{
		Experiment: train.Experiment{
			Config: q.config, Folder: q.out, Force: q.force, Data: data, Build: builder(q.config, data.Train), Import: importTensors,
			BuildTeacher: anyBuilder(data.Train),
		},
		ReestimateBN: q.reestimateBN, Recalibrate: q.recalibrate, CorrectBias: q.correctBias,
		CentroidSteps: q.centroidSteps, CentroidRate: q.centroidRate,
		Samples: q.samples, Sequential: q.sequential, ECAQ: q.ecaq,
	}
	if q.out == "" {
		if err := p.Check(); err != nil {
			return err
		}
		if p.Folder, err = q.nextFolder(&p.Experiment); err != nil {
			return err
		}
	}
	return q.quantize(c, p)
}

// quantize runs p and shows what comes of it. A new folder that nothing was written into goes away again.
func (q *quantizeCommand) quantize(c *cobra.Command, p *train.PostTraining) error {
	p.Report = newDisplay(c.OutOrStdout(), c.ErrOrStderr(), q.json).event
	ctx, stop := interruptible()
	defer stop()
	result, err := p.Run(ctx)
	if err != nil && q.out == "" {
		os.Remove(p.Folder) // fails where it holds something
	}
	switch {
	case errors.Is(err, train.ErrInterrupted):
		fmt.Fprintln(c.ErrOrStderr(), "interrupted; nothing was written")
		return &shownError{err}
	case err != nil:
		return err
	case q.json:
		return json.NewEncoder(c.OutOrStdout()).Encode(result)
	}
	return printQuantized(c.OutOrStdout(), p.Folder, q.config, result)
}

// configure completes the settings: of a run or a checkpoint, what it says of the network and its images; then flags.
func (q *quantizeCommand) configure(path string, f *pflag.FlagSet) error {
	base, err := q.source(path)
	if err != nil {
		return err
	}
	q.config.Init = path
	if base != nil {
		if err := q.override(known(*base, q.config), f); err != nil {
			return err
		}
	} else {
		q.augmentAsUsual(f)
	}
	if err := q.absolute(); err != nil {
		return err
	}
	if q.config.Weights, err = quantops.Parse(q.weights); err != nil {
		return fmt.Errorf("--weights: %w", err)
	}
	if q.config.Acts, err = quantops.Parse(q.acts); err != nil {
		return fmt.Errorf("--acts: %w", err)
	}
	if err := q.configureSearch(f); err != nil {
		return err
	}
	return q.configureCentroids(f)
}

// configureSearch leaves out the samples of a search where there is none.
func (q *quantizeCommand) configureSearch(f *pflag.FlagSet) error {
	if q.config.Weights.Solves() {
		return nil
	}
	if f.Changed("samples") {
		return usagef("quantize: --samples are of a search for weights, which %s has none of", q.config.Weights)
	}
	q.samples = 0
	return nil
}

// configureCentroids leaves out the steps for centroids where there are none.
func (q *quantizeCommand) configureCentroids(f *pflag.FlagSet) error {
	if !q.config.Weights.HasCodebook() && !f.Changed("centroid-steps") {
		q.centroidSteps = 0
	}
	if q.centroidSteps == 0 {
		if f.Changed("centroid-rate") {
			return usagef("quantize: --centroid-rate is of --centroid-steps, which there are none of for weights of %s", q.config.Weights)
		}
		q.centroidRate = 0
	}
	return q.config.Validate()
}

// source returns the settings of the run or the checkpoint at path; nil for a file of another kind, which --model and
// --data say more of.
func (q *quantizeCommand) source(path string) (*train.Config, error) {
	if strings.HasSuffix(path, ".goq") {
		return nil, usagef("quantize: %s is an integer model already: want the weights of a float network", path)
	}
	file := path
	if isFolder(path) {
		if file = filepath.Join(path, train.CheckpointFile); !exists(file) {
			return nil, usagef("quantize: %s is not a run folder: it has no %s", path, train.CheckpointFile)
		}
	}
	checkpoint, err := train.LoadCheckpoint(file)
	if other := new(train.CheckpointError); errors.As(err, &other) && !isFolder(path) {
		switch {
		case q.config.Model == "":
			return nil, fmt.Errorf("%w; weights of PyTorch or safetensors files need --model", err)
		case q.config.Data == "":
			return nil, usagef("quantize: --model needs --data")
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := train.ParseConfig([]byte(checkpoint.Config))
	return &c, err
}

// known returns the settings c with what a run says of its network and its images.
func known(run, c train.Config) train.Config {
	c.Model, c.Data, c.DataDir, c.Normalize = run.Model, run.Data, run.DataDir, run.Normalize
	c.AugmentPad, c.AugmentFlip = run.AugmentPad, run.AugmentFlip
	c.TrainImages, c.Validation, c.Seed = run.TrainImages, run.Validation, run.Seed
	return c
}

// augmentAsUsual augments as networks for a data set are usually trained, unless flags say how.
func (q *quantizeCommand) augmentAsUsual(f *pflag.FlagSet) {
	if q.config.Data != "cifar10" && q.config.Data != "cifar100" {
		return
	}
	if !f.Changed("augment-pad") {
		q.config.AugmentPad = 4
	}
	if !f.Changed("augment-flip") {
		q.config.AugmentFlip = true
	}
}

// printQuantized writes the table of accuracies, where the files are, and what to try next.
func printQuantized(w io.Writer, folder string, c train.Config, r *train.PostTrainingResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\n\taccuracy\tbytes\t\n")
	fmt.Fprintf(t, "float\t%s\t%d\t\n", share(r.Accuracy.Float), r.Bytes.Float)
	fmt.Fprintf(t, "fake-quantized\t%s\t\t\n", share(r.Accuracy.FakeQuant))
	if r.Bytes.Integer != nil {
		fmt.Fprintf(t, "integer\t%s\t%d\t\n", share(r.Accuracy.Integer), *r.Bytes.Integer)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if r.Agreement != nil {
		fmt.Fprintf(w, "fake-quantized and integer network agree on %s of the test images; their logits differ by at most %g\n", share(r.Agreement), *r.LogitDifference)
	}
	if r.StoredBits != nil {
		fmt.Fprintf(w, "%.4g bits a weight: %s\n", *r.StoredBits, r.StoredBitsNote)
	}
	fmt.Fprintf(w, "%.0f s; weights %s\n\n%s\n", r.Seconds, r.WeightsSHA256[:16], folder)
	for _, name := range []string{train.CheckpointFile, train.ModelFile, train.ResultFile} {
		if exists(filepath.Join(folder, name)) {
			fmt.Fprintf(w, "  %s\n", name)
		}
	}
	_, err := io.WriteString(w, nextCommands(folder, c, &r.Result, c.Weights.String(), c.Acts.String()))
	return err
}
