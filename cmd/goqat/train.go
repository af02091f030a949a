package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// trainCommand holds the flags of `goqat train`. Settings of the run are in config, where the defaults are.
type trainCommand struct {
	config              train.Config
	weights, acts       string
	file, out           string
	resume, force, json bool
}

func newTrain() *cobra.Command {
	t := &trainCommand{config: train.DefaultConfig()}
	c := &cobra.Command{
		Use:   "train",
		Short: "Train a float network, quantize it, train on, export its integers and score them",
		Long: `Train a network in floating point, then with quantized weights and activations, starting from the float
weights; write the integer model and score it with integer arithmetic only.

Everything goes into a run folder: config.yaml, metrics.jsonl, checkpoint.safetensors, model.goq and result.json.
The same settings and seed give the same weights, bit for bit. Ctrl-C saves and says how to go on.

To fewer bits step by step: --init takes a run, keeps its weights and statistics, and calibrates scales for the new
methods; --teacher takes a run, float or quantized, whose outputs the network learns from besides the labels.`,
		Example: `  goqat train
  goqat train --weights lsq:2 --acts lsq:2 --seed 7
  goqat train --weights linear:8,asymmetric --acts linear:8,asymmetric
  goqat train --init RUN --float-epochs 0 --weights lsq:2 --acts lsq:2 --teacher RUN
  goqat train --out runs/mine --resume`,
		Args: arguments(0, 0, "no arguments"),
		RunE: t.run,
	}
	t.addFlags(c.Flags())
	complete(c, "model", modelNames)
	complete(c, "data", dataNames)
	complete(c, "weights", weightMethods)
	complete(c, "acts", activationMethods)
	complete(c, "state-bn", func() []string { return []string{"off", "step", "epoch"} })
	complete(c, "optimizer", func() []string { return []string{"sgd", "adamw"} })
	return c
}

// complete offers names for a flag in shells.
func complete(c *cobra.Command, flag string, names func() []string) {
	err := c.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return names(), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag does not exist
	}
}

func modelNames() (names []string) {
	for _, s := range models.All() {
		names = append(names, s.Name)
	}
	return names
}

func dataNames() (names []string) {
	for _, s := range datasets.All() {
		names = append(names, s.Name)
	}
	return names
}

// methodNames returns the method strings of a role, at all of their bits.
func methodNames(bits func(*quantops.Spec) quantops.Bits) []string {
	names := []string{"none"}
	for _, s := range quantops.All() {
		for b := max(1, bits(s).Min); b <= bits(s).Max; b++ {
			names = append(names, fmt.Sprintf("%s:%d", s.Name, b))
		}
	}
	return names
}

// weightMethods returns those of weights, and the methods that have codebooks without bits.
func weightMethods() []string {
	names := methodNames(func(s *quantops.Spec) quantops.Bits { return s.Weights })
	for _, s := range quantops.All() {
		if s.NewCodebook != nil && s.Weights.Max == 0 {
			names = append(names, s.Name)
		}
	}
	return names
}

func activationMethods() []string {
	return methodNames(func(s *quantops.Spec) quantops.Bits { return s.Activations })
}

// addFlags defines the flags; their defaults are those of the configuration.
func (t *trainCommand) addFlags(f *pflag.FlagSet) {
	c := &t.config
	f.StringVar(&c.Model, "model", c.Model, "network; see goqat list models")
	f.StringVar(&c.Data, "data", c.Data, "data set; see goqat list datasets")
	f.StringVar(&c.DataDir, "data-dir", c.DataDir, "folder of the data set's files (default: the data set's own place)")
	f.StringVar(&c.Normalize, "normalize", c.Normalize, "normalization of pixels instead of the data set's own: "+strings.Join(datasets.Normalizations(), ", "))
	f.IntVar(&c.AugmentPad, "augment-pad", c.AugmentPad, "pad training images by so many zeros and crop them at random")
	f.BoolVar(&c.AugmentFlip, "augment-flip", c.AugmentFlip, "mirror training images at random")
	f.StringVar(&t.weights, "weights", c.Weights.String(), "method of the weights, NAME:BITS[,OPTION…], a codebook NAME[:OPTION…], or none; see goqat list methods")
	f.StringVar(&t.acts, "acts", c.Acts.String(), "method of the activations")
	f.IntVar(&c.EdgeBits, "edge-bits", c.EdgeBits, "bits of the first and the last layer; 0 for those of the others")
	f.BoolVar(&c.FoldBN, "fold-bn", c.FoldBN, "quantize weights as the batch normalization after them scales them (running statistics), in the quantized network")
	f.BoolVar(&c.Winograd, "winograd", c.Winograd, "train 3x3 convolutions of stride 1 between 32 channels or more by Winograd's F(2x2,3x3): faster, other bits (the same on every machine)")
	f.Uint64Var(&c.Seed, "seed", c.Seed, "seed of initial weights and image order")
	f.IntVar(&c.Float.Epochs, "float-epochs", c.Float.Epochs, "epochs of the float network")
	f.IntVar(&c.Quantized.Epochs, "epochs", c.Quantized.Epochs, "epochs of the quantized network")
	f.Float64Var(&c.Float.LearningRate, "float-lr", c.Float.LearningRate, "learning rate of the float network")
	f.Float64Var(&c.Quantized.LearningRate, "lr", c.Quantized.LearningRate, "learning rate of the quantized network")
	f.StringVar(&c.Float.Schedule, "float-schedule", c.Float.Schedule, "learning-rate schedule of the float network: "+scheduleHelp())
	f.StringVar(&c.Quantized.Schedule, "schedule", c.Quantized.Schedule, "learning-rate schedule of the quantized network")
	f.IntVar(&c.Batch, "batch", c.Batch, "images of a step")
	f.StringVar(&c.Optimizer, "optimizer", c.Optimizer, "sgd or adamw")
	f.Float64Var(&c.Momentum, "momentum", c.Momentum, "momentum of sgd")
	f.BoolVar(&c.Nesterov, "nesterov", c.Nesterov, "Nesterov momentum")
	f.Float64Var(&c.WeightDecay, "weight-decay", c.WeightDecay, "weight decay")
	f.BoolVar(&c.Decoupled, "decoupled", c.Decoupled, "decouple weight decay from the gradient (sgd)")
	f.Float64Var(&c.Smoothing, "label-smoothing", c.Smoothing, "label smoothing, 0 to 1")
	f.IntVar(&c.Calibration, "calibration", c.Calibration, "images that activation ranges start from")
	f.IntVar(&c.TrainImages, "train-images", c.TrainImages, "train on the first so many images; 0 for all")
	f.IntVar(&c.Validation, "validation", c.Validation, "split off so many training images to follow the training with")
	f.IntVar(&c.CheckpointSteps, "checkpoint-steps", c.CheckpointSteps, "save every so many steps; 0 for after each epoch only")
	f.IntVar(&c.FreezeBN, "freeze-bn", c.FreezeBN, "in so many last quantized epochs batch normalization uses its running statistics and leaves them alone")
	f.StringVar(&c.Anneal, "anneal", c.Anneal, "`SHAPE[,KEY=VALUE…]` in which the inverse temperature 1/τ of weights that are searched for (lbw) grows: exp, linear or sin, with its first and last value (from, to) and the shares of the training where it begins and ends to grow (start, end); after end the choice is one-hot")
	f.TextVar(&c.StateBN, "state-bn", c.StateBN, "`MODE` of batch normalization behind weights that are searched for (lbw): statistics of soft weights alone (off), or of hard ones too, in every step (step), every so many steps (a number), or taken anew after every epoch (epoch)")
	f.StringVar(&c.Init, "init", c.Init, "run folder, checkpoint, PyTorch or safetensors file whose weights the float network starts from; scales are calibrated anew (with --float-epochs 0: fine-tune it)")
	f.StringVar(&c.Teacher, "teacher", c.Teacher, "run folder, checkpoint, PyTorch or safetensors file of a network whose outputs both phases learn from besides the labels")
	f.StringVar(&c.TeacherModel, "teacher-model", c.TeacherModel, "network of a PyTorch or safetensors --teacher (default: that of --model)")
	f.Float64Var(&c.Temperature, "temperature", c.Temperature, "temperature T of --teacher: its softened outputs are softmax(logits/T)")
	f.Float64Var(&c.DistillWeight, "distill-weight", c.DistillWeight, "weight A of --teacher: the loss is (1-A) cross-entropy + A T² KL(teacher, network)")
	f.StringVar(&t.file, "config", "", "read the settings from a config.yaml; flags override it")
	f.StringVarP(&t.out, "out", "o", "", "run folder (default: a new one below runs/)")
	f.BoolVar(&t.resume, "resume", false, "go on with the run in --out")
	f.BoolVar(&t.force, "force", false, "start over in --out, overwriting the run there")
	f.BoolVar(&t.json, "json", false, "print JSON: a line per epoch, then the result")
}

func scheduleHelp() string {
	var examples []string
	for _, s := range train.Schedules() {
		examples = append(examples, s.Example)
	}
	return strings.Join(examples, " | ")
}

func (t *trainCommand) run(c *cobra.Command, _ []string) error {
	if err := t.configure(c.Flags()); err != nil {
		return err
	}
	data, err := loadData(t.config.Data, t.config.DataDir, t.config.Normalize)
	if err != nil {
		return err
	}
	experiment := &train.Experiment{
		Config: t.config, Folder: t.out, Resume: t.resume, Force: t.force, Data: data, Build: builder(t.config, data.Train), Import: importTensors,
		BuildTeacher: anyBuilder(data.Train),
	}
	if err := t.checkState(c.Flags(), experiment); err != nil {
		return err
	}
	if t.out == "" {
		if experiment.Folder, err = t.nextFolder(experiment); err != nil {
			return err
		}
	}
	display := newDisplay(c.OutOrStdout(), c.ErrOrStderr(), t.json)
	experiment.Report = display.event
	ctx, stop := interruptible()
	defer stop()
	result, err := experiment.Run(ctx)
	display.end()
	if errors.Is(err, train.ErrInterrupted) {
		fmt.Fprintf(c.ErrOrStderr(), "interrupted and saved; go on with: goqat train --out %s --resume\n", quote(experiment.Folder))
		return &shownError{err}
	}
	if err != nil {
		return err
	}
	if t.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(result)
	}
	return printResult(c.OutOrStdout(), experiment.Folder, t.config, result)
}

// nextFolder makes a new folder below runs, once it is known that the run can start.
func (t *trainCommand) nextFolder(e *train.Experiment) (string, error) {
	if err := e.Check(); err != nil {
		return "", err
	}
	plain := strings.NewReplacer(":", "", ",", "-", "=", "-")
	name := strings.Join([]string{t.config.Model, t.config.Data, plain.Replace(t.config.Weights.String()), plain.Replace(t.config.Acts.String())}, "-")
	return train.NextFolder("runs", name)
}

// configure completes the settings: flags that were given override the file's or the resumed run's.
func (t *trainCommand) configure(f *pflag.FlagSet) error {
	if t.resume && t.out == "" {
		return usagef("train: --resume needs --out with the folder of the run")
	}
	base, err := t.base()
	if err != nil {
		return err
	}
	if base != nil {
		if err := t.override(*base, f); err != nil {
			return err
		}
	}
	if err := t.absolute(); err != nil {
		return err
	}
	if t.config.Weights, err = quantops.Parse(t.weights); err != nil {
		return fmt.Errorf("--weights: %w", err)
	}
	if t.config.Acts, err = quantops.Parse(t.acts); err != nil {
		return fmt.Errorf("--acts: %w", err)
	}
	if err := t.config.Validate(); err != nil {
		return err
	}
	return t.checkUsed(f)
}

// checkUsed refuses flags that would have no effect on this run.
func (t *trainCommand) checkUsed(f *pflag.FlagSet) error {
	if t.config.Optimizer == "adamw" && f.Changed("momentum") {
		return usagef("train: --momentum is of the optimizer sgd; adamw has its own moments")
	}
	for _, name := range []string{"anneal", "state-bn"} {
		if !t.config.Weights.Searches() && f.Changed(name) {
			return usagef("train: --%s is of weights that are searched for: it goes with --weights lbw:BITS", name)
		}
	}
	for _, name := range []string{"temperature", "distill-weight"} {
		if t.config.Teacher == "" && f.Changed(name) {
			return usagef("train: --%s goes with --teacher", name)
		}
	}
	return nil
}

// checkState refuses --state-bn where the network has nothing that it could have an effect on.
func (t *trainCommand) checkState(f *pflag.FlagSet, e *train.Experiment) error {
	if !f.Changed("state-bn") {
		return nil
	}
	network, err := e.Build(layers.Methods{Weights: t.config.Weights, Activations: t.config.Acts})
	if err != nil {
		return &usageError{err}
	}
	if !network.TakesStateBatchNorm() {
		return usagef("train: --state-bn: %s has no batch normalization behind weights that are searched for", t.config.Model)
	}
	return nil
}

// absolute makes the paths among the settings independent of the folder that the run is resumed or repeated from.
func (t *trainCommand) absolute() error {
	for _, path := range []*string{&t.config.DataDir, &t.config.Init, &t.config.Teacher} {
		if *path == "" {
			continue
		}
		full, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = full
	}
	return nil
}

// base returns the settings that flags override; nil where these are the defaults.
func (t *trainCommand) base() (*train.Config, error) {
	switch {
	case t.resume && t.file != "":
		return nil, usagef("train: --resume takes its settings from the run, not from --config")
	case t.resume:
		c, err := train.ReadConfig(t.out)
		return &c, err
	case t.file != "":
		c, err := train.LoadConfig(t.file)
		return &c, err
	}
	return nil, nil
}

// override sets config to base and then applies the flags that the user gave once more.
func (t *trainCommand) override(base train.Config, f *pflag.FlagSet) error {
	given := map[string]string{}
	f.Visit(func(flag *pflag.Flag) { given[flag.Name] = flag.Value.String() })
	t.config = base
	t.weights, t.acts = base.Weights.String(), base.Acts.String()
	for name, value := range given {
		if err := f.Set(name, value); err != nil {
			return &usageError{err}
		}
	}
	if _, ok := given["init"]; ok {
		t.config.InitHash = "" // was of the other file
	}
	if _, ok := given["teacher"]; ok {
		t.config.TeacherHash = ""
	}
	return nil
}

// printResult writes the table that a run ends in, where its files are, and what to try next.
func printResult(w io.Writer, folder string, c train.Config, r *train.Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\n\taccuracy\tbytes\t\n")
	fmt.Fprintf(t, "float\t%s\t%d\t\n", share(r.Accuracy.Float), r.Bytes.Float)
	if r.Accuracy.FakeQuant != nil {
		fmt.Fprintf(t, "fake-quantized\t%s\t\t\n", share(r.Accuracy.FakeQuant))
	}
	if r.Bytes.Integer != nil {
		fmt.Fprintf(t, "integer\t%s\t%d\t\n", share(r.Accuracy.Integer), *r.Bytes.Integer)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Agreement != nil {
		fmt.Fprintf(w, "\nfake-quantized and integer network agree on %s of the test images\n", share(r.Agreement))
	}
	fmt.Fprintf(w, "%.0f s, %.0f images/s in training; weights %s\n", r.Seconds, r.ImagesPerSecond, r.WeightsSHA256[:16])
	fmt.Fprintf(w, "\n%s\n", folder)
	for _, name := range []string{train.ConfigFile, train.MetricsFile, train.CheckpointFile, train.ModelFile, train.ResultFile} {
		if exists(filepath.Join(folder, name)) {
			fmt.Fprintf(w, "  %s\n", name)
		}
	}
	weights, acts := fewerBits(c, r)
	_, err := io.WriteString(w, nextCommands(folder, c, r, weights, acts))
	return err
}

// fewerBits proposes the methods to go on with; none where there is nothing to go on from, or to. Weights whose codes
// have been searched for keep their method, and with it their codes.
func fewerBits(c train.Config, r *train.Result) (weights, acts string) {
	const fewer = "lsq:2"
	weights = fewer
	if c.Weights.HasCodebook() || c.Weights.Solves() || c.Weights.Searches() {
		weights = c.Weights.String()
	}
	if r.Accuracy.FakeQuant == nil || c.Weights.String() == weights && c.Acts.String() == fewer {
		return "", ""
	}
	return weights, fewer
}

// nextCommands tells what to do with a run folder: of all that it holds the files for. Without weights there is no training.
func nextCommands(folder string, c train.Config, r *train.Result, weights, acts string) string {
	var lines []string
	trained := exists(filepath.Join(folder, train.CheckpointFile))
	if trained {
		lines = append(lines, "eval "+quote(folder))
	}
	if r.Accuracy.Integer != nil {
		lines = append(lines, fmt.Sprintf("predict %s image.png", quote(filepath.Join(folder, train.ModelFile))))
	}
	if trained && weights != "" {
		lines = append(lines, fmt.Sprintf("train --model %s --data %s%s --init %s --float-epochs 0 --weights %s --acts %s%s",
			c.Model, c.Data, imageFlags(c), quote(folder), weights, acts, edgeFlag(c)))
	}
	if len(lines) == 0 {
		return ""
	}
	return "\nnext:\n  goqat " + strings.Join(lines, "\n  goqat ") + "\n"
}

// imageFlags are those of images that are not what they are by default.
func imageFlags(c train.Config) (flags string) {
	if c.DataDir != "" {
		flags += " --data-dir " + quote(c.DataDir)
	}
	if c.Normalize != "" {
		flags += " --normalize " + c.Normalize
	}
	return flags
}

// edgeFlag is that of the bits of the first and the last layer, where they are not what they are by default.
func edgeFlag(c train.Config) string {
	if c.EdgeBits == train.DefaultConfig().EdgeBits {
		return ""
	}
	return fmt.Sprintf(" --edge-bits %d", c.EdgeBits)
}

func share(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f", *v)
}

// quote makes a path safe to paste into a shell.
func quote(path string) string {
	if strings.ContainsAny(path, " '\"$&|;<>()*?[]#~`\\!{}\t\n") {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
