package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// benchCommand holds the flags of `goqat bench`.
type benchCommand struct {
	model, weights, acts  string
	batch, threads, steps int
	peer, python          string
	rounds                int
	json, winograd        bool

	methods layers.Methods // what weights and acts name
}

// Most that flags may ask for.
const (
	maxBenchBatch   = 1 << 20
	maxBenchSteps   = 1 << 20
	maxBenchThreads = 1 << 10
	maxBenchRounds  = 1 << 10
)

// benchReport is what `goqat bench` tells.
type benchReport struct {
	Model        string        `json:"model"`
	Image        string        `json:"image"` // channels x height x width
	Batch        int           `json:"batch"`
	Threads      int           `json:"threads"`
	Steps        int           `json:"steps"` // of a round
	Rounds       int           `json:"rounds"`
	Weights      string        `json:"weights"`
	Acts         string        `json:"acts"`
	Winograd     bool          `json:"winograd"`
	Instructions string        `json:"instructions"`                   // avx512, avx2 or portable
	Peak         float64       `json:"peak_gflop_per_second"`          // of multiply-adds on all threads
	MultiplyAdds int64         `json:"multiply_adds_per_image"`        // of one forward pass
	Overhead     float64       `json:"quantized_over_float,omitempty"` // time of a training step, median of the rounds
	Results      []benchResult `json:"results"`
}

// benchResult is what was measured of one kind of step.
type benchResult struct {
	Step            string  `json:"step"`
	ImagesPerSecond float64 `json:"images_per_second"` // of the median step
	SecondsPerStep  float64 `json:"seconds_per_step"`  // median of all rounds
	Rate            float64 `json:"gflop_per_second"`  // of convolutions and linear layers, over the whole step
	PeakShare       float64 `json:"peak_share"`
	Bytes           float64 `json:"bytes_per_step"` // allocated on the heap
	Allocations     float64 `json:"allocations_per_step"`
	Resident        uint64  `json:"resident_bytes,omitempty"` // highest of the first round; left out where the system does not tell
}

// benchStep is a kind of step.
type benchStep struct {
	name      string
	quantized bool
	mode      layers.Mode
	measure   func(ctx context.Context, network *layers.Network, batch, steps int) (train.StepCost, error)
}

var (
	floatTraining     = benchStep{"float training", false, layers.Training, train.BenchTraining}
	quantizedTraining = benchStep{"quantized training", true, layers.Training, train.BenchTraining}
	benchSteps        = []benchStep{
		floatTraining, quantizedTraining,
		{"float evaluation", false, layers.Evaluation, train.BenchEvaluation},
		{"quantized evaluation", true, layers.Evaluation, train.BenchEvaluation},
	}
)

func newBench() *cobra.Command {
	b := &benchCommand{}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Time training steps and evaluation, against the machine's peak or a peer",
		Long: `Time steps of a network on random images of its usual size: training (loss, backward pass, SGD with momentum), float
and quantized (first and last layer at 8 bits), and evaluation. They take turns for --rounds, so that whatever else the
machine does at times meets all of them. Images a second are those of the median step; how many times as long a quantized
training step takes as a float one is the median of the rounds. Resident memory is that of the first round.

GFLOP/s count two operations for each multiply-add that convolutions and linear layers need (forward, gradient of the
weights and, but for the first layer, of the inputs; products with padding count, though they are skipped). The peak is
what independent multiply-adds reach on as many threads, measured in the same run.

With --peer, training steps take turns with a Python script that is called with --net, --threads and --steps and prints a
line of JSON for each of its modes fp32, fp32_channels_last and qat: net, batch, threads, mode, images_per_second. Nets
and batches are lenet5 (64), resnet20 (128; resnet20b here) and vggsmall (64).`,
		Example: `  goqat bench
  goqat bench --model lenet5 --batch 64 --weights lsq:2 --acts lsq:2 --json
  goqat bench --peer torch_train.py --rounds 9`,
		Args: arguments(0, 0, "no arguments"),
		RunE: b.run,
	}
	b.addFlags(c.Flags())
	complete(c, "model", modelNames)
	complete(c, "state-bn", func() []string { return []string{"off", "step", "epoch"} })
	complete(c, "weights", weightMethods)
	complete(c, "acts", activationMethods)
	return c
}

func (b *benchCommand) addFlags(f *pflag.FlagSet) {
	f.StringVar(&b.model, "model", "resnet20b", "network; see goqat list models (with --peer: this one only, default all that the peer has)")
	f.IntVar(&b.batch, "batch", 128, "images of a step (not with --peer)")
	f.IntVar(&b.threads, "threads", 2, "threads")
	f.StringVar(&b.weights, "weights", "lsq:4", "method of the weights, NAME:BITS[,OPTION…], a codebook NAME[:OPTION…], or none; see goqat list methods")
	f.StringVar(&b.acts, "acts", "lsq:4", "method of the activations")
	f.IntVar(&b.steps, "steps", 6, "timed steps of a round, after three or more to warm up")
	f.StringVar(&b.peer, "peer", "", "Python script to compare training steps with")
	f.StringVar(&b.python, "python", "/usr/bin/python3", "interpreter of --peer")
	f.IntVar(&b.rounds, "rounds", 5, "how often all that is timed takes its turn")
	f.TextVar(&b.methods.State, "state-bn", train.DefaultConfig().StateBN, "`MODE` of state batch normalization behind weights that are searched for (lbw): training steps look at hard weights too, in every step (step), every so many steps (a number), or never (off, epoch)")
	f.BoolVar(&b.winograd, "winograd", false, "train 3x3 convolutions of stride 1 between 32 channels or more by Winograd's F(2x2,3x3)")
	f.BoolVar(&b.json, "json", false, "print JSON")
}

func (b *benchCommand) run(c *cobra.Command, _ []string) error {
	if err := b.check(c.Flags()); err != nil {
		return err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(b.threads))
	if b.peer != "" {
		return b.compare(c)
	}
	r, err := b.report(c.Context())
	if err != nil {
		return err
	}
	if b.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(r)
	}
	return r.print(c.OutOrStdout())
}

// check refuses what can't be measured and reads the methods.
func (b *benchCommand) check(f *pflag.FlagSet) error {
	for _, flag := range []struct {
		name        string
		value, most int
	}{{"batch", b.batch, maxBenchBatch}, {"threads", b.threads, maxBenchThreads}, {"steps", b.steps, maxBenchSteps}, {"rounds", b.rounds, maxBenchRounds}} {
		if flag.value < 1 || flag.value > flag.most {
			return usagef("bench: --%s %d: want 1 to %d", flag.name, flag.value, flag.most)
		}
	}
	if _, err := models.Lookup(b.model); err != nil {
		return err
	}
	var err error
	if b.methods.Weights, err = quantops.Parse(b.weights); err != nil {
		return fmt.Errorf("--weights: %w", err)
	}
	if b.methods.Activations, err = quantops.Parse(b.acts); err != nil {
		return fmt.Errorf("--acts: %w", err)
	}
	if f.Changed("state-bn") && !b.methods.Weights.Searches() {
		return usagef("bench: --state-bn is of weights that are searched for: it goes with --weights lbw:BITS")
	}
	network, err := b.network(b.model, quantizedTraining)
	if err != nil { // a method may not do for the layers
		return err
	}
	if f.Changed("state-bn") && !network.TakesStateBatchNorm() {
		return usagef("bench: --state-bn: %s has no batch normalization behind weights that are searched for", b.model)
	}
	if b.winograd && !network.Winograd && b.peer == "" {
		return usagef("bench: --winograd: %s has no 3x3 convolution of stride 1 between 32 channels or more", b.model)
	}
	return b.checkPeer(f)
}

// quantized says whether there is a quantized network to measure.
func (b *benchCommand) quantized() bool {
	return !b.methods.Weights.None() || !b.methods.Activations.None()
}

// benchClasses is what networks are built to tell apart, as MNIST and CIFAR-10 have.
const benchClasses = 10

// benchImage returns the usual shape of a model's images: of MNIST for LeNet-5 and its variants, of CIFAR-10 for the others.
func benchImage(model string) layers.Shape {
	if strings.HasPrefix(model, "lenet5") {
		return layers.Shape{Channels: 1, Height: 28, Width: 28}
	}
	return layers.Shape{Channels: 3, Height: 32, Width: 32, Signed: true}
}

// network builds a model for a kind of step.
func (b *benchCommand) network(model string, s benchStep) (*layers.Network, error) {
	o := models.Options{Input: benchImage(model), Classes: benchClasses, Seed: 1}
	if s.quantized {
		o.Methods, o.EdgeBits = b.methods, train.DefaultConfig().EdgeBits
	}
	network, err := models.New(model, o)
	if err != nil {
		return nil, err
	}
	network.Winograd = b.winograd && network.TakesWinograd()
	return network, nil
}

// report measures every kind of step.
func (b *benchCommand) report(ctx context.Context) (*benchReport, error) {
	float, err := b.network(b.model, floatTraining)
	if err != nil {
		return nil, err
	}
	measured := b.measurements()
	r := &benchReport{
		Model: b.model, Image: float.Input.String(), Batch: b.batch, Threads: b.threads, Steps: b.steps, Rounds: b.rounds,
		Weights: b.methods.Weights.String(), Acts: b.methods.Activations.String(), Winograd: b.winograd, Instructions: kernel.Path(),
		Peak: peakRate(b.threads) / 1e9, MultiplyAdds: float.MultiplyAdds(layers.Evaluation),
	}
	for range b.rounds {
		for _, m := range measured {
			if err := b.measure(ctx, m); err != nil {
				return nil, err
			}
		}
	}
	r.Peak = max(r.Peak, peakRate(b.threads)/1e9) // once more: the machine may have been busy before
	for _, m := range measured {
		r.Results = append(r.Results, m.result(b.batch, r.Peak))
	}
	r.Overhead = overhead(measured)
	return r, nil
}

// overhead is how many times as long a quantized training step takes as a float one, 0 where there is none.
func overhead(measured []*measurement) float64 {
	var float, quantized *measurement
	for _, m := range measured {
		switch m.name {
		case floatTraining.name:
			float = m
		case quantizedTraining.name:
			quantized = m
		}
	}
	if float == nil || quantized == nil {
		return 0
	}
	return quantized.over(float)
}

// measurement is what the rounds have told of one kind of step.
type measurement struct {
	benchStep
	operations float64 // of a step
	costs      []train.StepCost
	resident   uint64
}

// measurements lists what there is to measure.
func (b *benchCommand) measurements() []*measurement {
	var list []*measurement
	for _, s := range benchSteps {
		if !s.quantized || b.quantized() {
			list = append(list, &measurement{benchStep: s})
		}
	}
	return list
}

// measure does one round of a kind of step.
func (b *benchCommand) measure(ctx context.Context, m *measurement) error {
	network, err := b.network(b.model, m.benchStep)
	if err != nil {
		return err
	}
	resetResident()
	cost, err := m.benchStep.measure(ctx, network, b.batch, b.steps)
	if err != nil {
		return err
	}
	m.operations = 2 * float64(network.MultiplyAdds(m.mode)) * float64(b.batch)
	if len(m.costs) == 0 { // later ones find memory that other kinds of steps have left
		m.resident = peakResident()
	}
	m.costs = append(m.costs, cost)
	return nil
}

// result puts the rounds together; the peak is in GFLOP/s.
func (m *measurement) result(batch int, peak float64) benchResult {
	r := benchResult{Step: m.name, Resident: m.resident}
	var all []float64
	for _, c := range m.costs {
		all = append(all, c.Seconds...)
		r.Bytes += c.Bytes / float64(len(m.costs))
		r.Allocations += c.Allocations / float64(len(m.costs))
	}
	r.SecondsPerStep = median(all)
	r.ImagesPerSecond = float64(batch) / r.SecondsPerStep
	r.Rate = m.operations / r.SecondsPerStep / 1e9
	r.PeakShare = r.Rate / peak
	return r
}

// over is how many times as long a step takes as another, in the median of the rounds.
func (m *measurement) over(other *measurement) float64 {
	var ratios []float64
	for i, c := range m.costs {
		ratios = append(ratios, median(c.Seconds)/median(other.costs[i].Seconds))
	}
	return median(ratios)
}

// median returns the middle of the values, or the mean of the two in the middle. There is at least one.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// print writes the report for people.
func (r *benchReport) print(w io.Writer) error {
	fmt.Fprintf(w, "%s on %s, batch %d, %d threads, weights %s, activations %s, rounds %d of %d steps\n",
		r.Model, r.Image, r.Batch, r.Threads, r.Weights, r.Acts, r.Rounds, r.Steps)
	fmt.Fprintf(w, "peak %.1f GFLOP/s (%s%s), %d multiply-adds an image forward\n\n", r.Peak, r.Instructions, withWinograd(r.Winograd), r.MultiplyAdds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, strings.Join([]string{"", "images/s", "ms/step", "GFLOP/s", "of peak", "bytes/step", "allocations/step", "resident MB", ""}, "\t"))
	for _, m := range r.Results {
		fmt.Fprintf(t, "%s\t%.1f\t%.2f\t%.1f\t%.1f %%\t%.0f\t%.0f\t%s\t\n",
			m.Step, m.ImagesPerSecond, 1e3*m.SecondsPerStep, m.Rate, 100*m.PeakShare, m.Bytes, m.Allocations, megabytes(m.Resident))
	}
	if err := t.Flush(); err != nil || r.Overhead == 0 {
		return err
	}
	_, err := fmt.Fprintf(w, "\na quantized training step takes %.3f times as long as a float one (median of the rounds)\n", r.Overhead)
	return err
}

func megabytes(bytes uint64) string {
	if bytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(bytes)/1e6)
}
