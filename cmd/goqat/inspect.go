package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
	"github.com/spf13/cobra"
)

// inspection is what `goqat inspect` tells of all weights.
type inspection struct {
	File    string `json:"file"`             // whose weights they are
	Methods string `json:"method,omitempty"` // method that the file names for all weights, or the one asked for
	layers.Inspection
	ModelBytes int64 `json:"model_bytes,omitempty"` // of the integer model in the file system

	method bool // whether the layers know their methods
}

// closeup is what it tells of one layer.
type closeup struct {
	layers.LayerInspection
	Channel   *int             `json:"channel,omitempty"` // of the histogram; all without it
	Histogram layers.Histogram `json:"histogram"`

	real bool // whether the histogram is of real weights
}

// inspectCommand holds the flags of `goqat inspect`.
type inspectCommand struct {
	model, weights, data, dataDir string
	edgeBits, channel             int
	layer, plot                   string
	force, json                   bool

	given func(flag string) bool // on the command line
}

func newInspect() *cobra.Command {
	var i inspectCommand
	c := &cobra.Command{
		Use:   "inspect RUN|CHECKPOINT|MODEL.goq",
		Short: "Show what weights look like on their levels: ranges, scales, errors, bytes, histograms",
		Long: `Show, layer by layer, the range of the weights, the parameters of their quantizer (of several channels the least, the
middle and the greatest), how many levels are used of those that the codes have, the error against the real weights, and
the bytes of codes and scales. "/ LINEAR" is the squared error over that of symmetric uniform quantization with a
scale for each output channel at the same bits, GAIN what the codes' values would have to be multiplied with to come
closest: far from 1 where a method leaves the size of weights to batch normalization (--layer tells the error with it).
Of weights that are searched for (lbw) the soft ones count as the real weights, so that the error is the gap to the hard
ones, and the entropy is that of the choice, in bits.

A run or a checkpoint is shown as it is, or with --weights as that method would quantize its weights, without data or
training. A PyTorch or safetensors file needs --model and --weights. A .goq file holds no real weights: codes and scales.`,
		Example: `  goqat inspect RUN
  goqat inspect RUN --layer conv2 --plot conv2.svg
  goqat inspect resnet20.th --model resnet20 --weights linear:4`,
		Args: arguments(1, 1, "one run folder, checkpoint or .goq file"),
		RunE: func(c *cobra.Command, args []string) error {
			i.given = c.Flags().Changed
			return i.run(c.OutOrStdout(), args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&i.model, "model", "", "network that the weights of a PyTorch or safetensors file belong to")
	f.StringVar(&i.weights, "weights", "", "quantize the weights by this method instead, NAME:BITS[,OPTION…] or a codebook NAME[:OPTION…]")
	f.IntVar(&i.edgeBits, "edge-bits", train.DefaultConfig().EdgeBits, "bits of the first and the last layer with --weights; 0 for those of the others (default of a run: its own)")
	f.StringVar(&i.data, "data", "", "data set whose images the network of --model takes, where its weights do not tell their size")
	f.StringVar(&i.dataDir, "data-dir", "", "folder of the data set's files")
	f.StringVar(&i.layer, "layer", "", "show one layer, with a histogram of its weights and the levels among them")
	f.IntVar(&i.channel, "channel", -1, "only this output channel in the histogram, from 0; -1 for all")
	f.StringVar(&i.plot, "plot", "", "draw the histogram of --layer into this file, .svg or .png")
	f.BoolVar(&i.force, "force", false, "overwrite an existing file")
	f.BoolVar(&i.json, "json", false, "print JSON")
	complete(c, "model", modelNames)
	complete(c, "weights", weightMethods)
	return c
}

// run inspects what is at path.
func (i *inspectCommand) run(w io.Writer, path string) error {
	if err := i.check(); err != nil {
		return err
	}
	all, about, err := i.open(path)
	if err != nil {
		return err
	}
	if i.layer != "" {
		return i.showLayer(w, all, about)
	}
	about.Inspection = layers.Inspect(all)
	if i.json {
		return json.NewEncoder(w).Encode(about)
	}
	return about.print(w)
}

// check refuses flags that do not go together.
func (i *inspectCommand) check() error {
	switch {
	case i.layer == "" && (i.plot != "" || i.given("channel")):
		return usagef("inspect: --plot and --channel go with --layer")
	case i.channel < -1:
		return usagef("inspect: channel %d: want 0 or more, or -1 for all", i.channel)
	case i.model != "" && i.weights == "":
		return usagef("inspect: --model needs --weights with the method to quantize its weights by")
	case i.weights == "" && i.given("edge-bits"):
		return usagef("inspect: --edge-bits goes with --weights")
	case i.edgeBits < 0:
		return usagef("inspect: %d edge bits: want a positive number, or 0 for those of the others", i.edgeBits)
	case i.model == "" && i.data != "":
		return usagef("inspect: --data goes with --model; runs and .goq files know their own")
	case i.model != "" && i.data == "" && i.dataDir != "":
		return usagef("inspect: --data-dir goes with --data")
	}
	if i.plot == "" {
		return nil
	}
	if _, err := canvasFor(i.plot); err != nil {
		return err
	}
	if exists(i.plot) && !i.force {
		return usagef("inspect: %s exists already: overwrite it with --force, or name another file", i.plot)
	}
	return nil
}

// open reads the weights at path, quantized as the flags say.
func (i *inspectCommand) open(path string) ([]layers.LayerWeights, inspection, error) {
	about := inspection{File: path, Methods: i.weights, method: true}
	if strings.HasSuffix(path, ".goq") && !isFolder(path) {
		if i.model != "" || i.weights != "" || i.dataDir != "" {
			return nil, about, usagef("inspect: %s holds no real weights that another method could quantize: --model, --weights and --data-dir are for checkpoints", path)
		}
		model, err := integer.Load(path)
		if err != nil {
			return nil, about, err
		}
		about.method, about.Methods, about.ModelBytes = false, model.Metadata["weights"], fileSize(path)
		return layers.ModelWeights(model), about, nil
	}
	network, err := i.openNetwork(path, &about)
	if err != nil {
		return nil, about, err
	}
	all, err := network.Weights()
	return all, about, err
}

// fileSize returns the size of a file, 0 where there is none.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// openNetwork rebuilds the network of a run folder or a checkpoint, or makes the one that --model names.
func (i *inspectCommand) openNetwork(path string, about *inspection) (*layers.Network, error) {
	file := path
	if isFolder(path) {
		file = filepath.Join(path, train.CheckpointFile)
		if !exists(file) {
			return nil, usagef("%s is not a run folder: it has no %s", path, train.CheckpointFile)
		}
	}
	if i.model != "" {
		config := train.DefaultConfig()
		config.Model, config.Data, config.DataDir, config.EdgeBits = i.model, i.data, i.dataDir, i.edgeBits
		if _, err := models.Lookup(i.model); err != nil {
			return nil, err
		}
		return i.rebuild(file, config, nil)
	}
	checkpoint, config, err := i.readCheckpoint(file)
	if other := new(train.CheckpointError); errors.As(err, &other) && file == path {
		return nil, fmt.Errorf("%w; weights of PyTorch or safetensors files need --model", err)
	}
	if err != nil {
		return nil, err
	}
	if i.weights == "" {
		about.Methods = config.Weights.String()
		if checkpoint.Phase == train.FloatPhase {
			about.Methods = quantops.Method{}.String()
		}
		if file != path {
			about.ModelBytes = fileSize(filepath.Join(path, train.ModelFile))
		}
	}
	return i.rebuild(file, config, checkpoint)
}

// readCheckpoint reads a checkpoint of a training and its configuration, with the flags put in.
func (i *inspectCommand) readCheckpoint(file string) (*train.Checkpoint, train.Config, error) {
	checkpoint, err := train.LoadCheckpoint(file)
	if err != nil {
		return nil, train.Config{}, err
	}
	config, err := train.ParseConfig([]byte(checkpoint.Config))
	if i.dataDir != "" {
		config.DataDir = i.dataDir
	}
	if i.given("edge-bits") {
		config.EdgeBits = i.edgeBits
	}
	return checkpoint, config, err
}

// rebuild makes the network of the tensors in a file: as the checkpoint says, or by the method asked for.
func (i *inspectCommand) rebuild(file string, config train.Config, checkpoint *train.Checkpoint) (*layers.Network, error) {
	tensors, err := models.ReadTensors(file)
	if err != nil {
		return nil, err
	}
	if i.weights == "" {
		return i.fitting(config, tensors, checkpoint.Network)
	}
	method, err := quantops.Parse(i.weights)
	if err != nil {
		return nil, fmt.Errorf("inspect: --weights: %w", err)
	}
	return i.fitting(config, tensors, func(build func(layers.Methods) (*layers.Network, error)) (*layers.Network, error) {
		network, err := build(layers.Methods{Weights: method})
		if err != nil {
			return nil, err
		}
		if _, err := models.Assign(network, tensors); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return network, nil
	})
}

// fitting returns the network that restore makes of tensors. How large its images are, and how many classes there are,
// the data set tells that is named with --data. Without one they are found by trial, so that nobody needs data to look at
// weights; where that fails, the data set of the run tells.
func (i *inspectCommand) fitting(config train.Config, tensors []models.Tensor, restore restorer) (*layers.Network, error) {
	if i.data == "" {
		network, err := tryOut(config, tensors, restore)
		if wrong := new(quantops.MethodError); err == nil || errors.As(err, &wrong) {
			return network, err
		}
		if config.Data == "" {
			return nil, fmt.Errorf("%w; images of another size than 28x28 or 32x32 need --data", err)
		}
	}
	data, err := loadData(config.Data, config.DataDir, config.Normalize)
	if err != nil {
		return nil, err
	}
	return restore(builder(config, data.Test))
}

// restorer makes a network of tensors with a function that builds one with given quantizers.
type restorer func(build func(layers.Methods) (*layers.Network, error)) (*layers.Network, error)

// tryOut returns the first network that restore makes for one of the trials, or the error of the first.
func tryOut(config train.Config, tensors []models.Tensor, restore restorer) (*layers.Network, error) {
	failed := errors.New("inspect: the file has no convolution of 1 or 3 channels with a linear layer")
	for k, o := range trials(tensors) {
		network, err := restore(func(m layers.Methods) (*layers.Network, error) {
			o := o
			o.Methods, o.EdgeBits, o.Seed = m, config.EdgeBits, config.Seed
			return models.New(config.Model, o)
		})
		if wrong := new(quantops.MethodError); err == nil || errors.As(err, &wrong) {
			return network, err
		}
		if k == 0 {
			failed = err
		}
	}
	return nil, failed
}

// Limits of what trials tries: no data set has more classes, no network more linear layers.
const (
	maxTrialClasses = 1<<16 - 1
	maxTrialLayers  = 8
)

// trials lists what images tensors may be for: common sizes, channels that a convolution takes in, outputs of a linear
// layer, the last first.
func trials(tensors []models.Tensor) []models.Options {
	channels, classes := map[int]bool{}, []int(nil)
	for _, t := range slices.Backward(tensors) {
		switch {
		case !strings.HasSuffix(t.Name, "weight"):
		case len(t.Shape) == 4:
			channels[t.Shape[1]] = true
		case len(t.Shape) == 2 && t.Shape[0] <= maxTrialClasses && len(classes) < maxTrialLayers && !slices.Contains(classes, t.Shape[0]):
			classes = append(classes, t.Shape[0])
		}
	}
	var list []models.Options
	for _, n := range classes {
		for _, c := range []int{1, 3} {
			for k := range 4 {
				side := []int{28, 32}[k%2]
				if channels[c] {
					list = append(list, models.Options{Input: layers.Shape{Channels: c, Height: side, Width: side, Signed: k > 1}, Classes: n})
				}
			}
		}
	}
	return list
}

// showLayer prints one layer, and draws it.
func (i *inspectCommand) showLayer(w io.Writer, all []layers.LayerWeights, about inspection) error {
	at := slices.IndexFunc(all, func(l layers.LayerWeights) bool { return l.Layer == i.layer })
	if at < 0 {
		names := make([]string, len(all))
		for k, l := range all {
			names[k] = printable(l.Layer)
		}
		return usagef("inspect: no layer %q: want one of %s", i.layer, strings.Join(names, ", "))
	}
	if outputs := all[at].Shape[0]; i.channel >= outputs {
		return usagef("inspect: %s has no output channel %d: want 0 to %d", i.layer, i.channel, outputs-1)
	}
	shown := closeup{LayerInspection: all[at].Inspect(), real: all[at].Values != nil}
	if i.channel >= 0 {
		shown.Channel = &i.channel
	}
	var err error
	if shown.Histogram, err = all[at].Histogram(i.channel, histogramColumns); err != nil {
		return err
	}
	if i.plot != "" {
		fine, err := all[at].Histogram(i.channel, plotBins)
		if err == nil {
			err = shown.plot(i.plot, fine)
		}
		if err != nil {
			return err
		}
	}
	if i.json {
		return json.NewEncoder(w).Encode(shown)
	}
	return shown.print(w, about.method)
}
