package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/train"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// peerNet is a network that both sides have.
type peerNet struct {
	net   string // the script's name
	model string // ours
	batch int    // images of a step
}

var peerNets = []peerNet{{"lenet5", "lenet5", 64}, {"resnet20", "resnet20b", 128}, {"vggsmall", "vggsmall", 64}}

// peerModes are the kinds of steps that the script measures.
var peerModes = []string{"fp32", "fp32_channels_last", "qat"}

// comparison is what `goqat bench --peer` tells.
type comparison struct {
	Threads      int           `json:"threads"`
	Steps        int           `json:"steps"`
	Rounds       int           `json:"rounds"`
	Weights      string        `json:"weights"`
	Acts         string        `json:"acts"`
	Winograd     bool          `json:"winograd"`
	Instructions string        `json:"instructions"`
	Nets         []netRates    `json:"nets"`
	Skipped      []skippedPeer `json:"skipped,omitempty"`
}

// netRates holds the images a second of one network: medians of the rounds, and ours as multiples of the peer's.
type netRates struct {
	Net    string       `json:"net"`
	Model  string       `json:"model"`
	Batch  int          `json:"batch"`
	Median roundRates   `json:"median"`
	Ratios rateRatios   `json:"ratios"`
	Rounds []roundRates `json:"rounds"`
}

// roundRates holds images a second of training steps.
type roundRates struct {
	Float     float64            `json:"float"`
	Quantized float64            `json:"quantized"`
	Peer      map[string]float64 `json:"peer"` // by mode
}

type rateRatios struct {
	Float         float64 `json:"float_to_fp32"`
	ChannelsLast  float64 `json:"float_to_fp32_channels_last"`
	Quantized     float64 `json:"quantized_to_qat"`
	QuantizedLast float64 `json:"quantized_to_fp32_channels_last"`
}

type skippedPeer struct {
	Net    string `json:"net"`
	Reason string `json:"reason"`
}

// checkPeer refuses flags that do not go together, and a script that is not there.
func (b *benchCommand) checkPeer(f *pflag.FlagSet) error {
	if b.peer == "" {
		if f.Changed("python") {
			return usagef("bench: --python goes with --peer")
		}
		return nil
	}
	if f.Changed("batch") {
		return usagef("bench: --peer has batches of its own: leave --batch out")
	}
	if !b.quantized() {
		return usagef("bench: --peer compares quantized training too: want --weights or --acts other than none")
	}
	if len(b.peers(f)) == 0 {
		return usagef("bench: --peer has no net like %s: want %s", b.model, strings.Join(peerModels(), ", "))
	}
	info, err := os.Stat(b.peer)
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder, not a Python script", b.peer)
	}
	if err == nil {
		_, err = exec.LookPath(b.python)
	}
	if err != nil {
		return fmt.Errorf("bench: --peer: %w", err)
	}
	return nil
}

// peers returns the networks to compare: all, or that of --model.
func (b *benchCommand) peers(f *pflag.FlagSet) []peerNet {
	if !f.Changed("model") {
		return peerNets
	}
	for _, n := range peerNets {
		if n.model == b.model {
			return []peerNet{n}
		}
	}
	return nil
}

func peerModels() (names []string) {
	for _, n := range peerNets {
		names = append(names, n.model)
	}
	return names
}

// compare takes turns with the script and prints what came of it.
func (b *benchCommand) compare(c *cobra.Command) error {
	r := &comparison{
		Threads: b.threads, Steps: b.steps, Rounds: b.rounds, Weights: b.methods.Weights.String(), Acts: b.methods.Activations.String(),
		Winograd: b.winograd, Instructions: kernel.Path(),
	}
	for _, n := range b.peers(c.Flags()) {
		if _, err := models.Lookup(n.model); err != nil {
			r.Skipped = append(r.Skipped, skippedPeer{n.net, fmt.Sprintf("there is no model %q here", n.model)})
			continue
		}
		rates := netRates{Net: n.net, Model: n.model, Batch: n.batch}
		for i := range b.rounds {
			round, err := b.round(c.Context(), n)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s round %d/%d: %s\n", n.net, i+1, b.rounds, round)
			rates.Rounds = append(rates.Rounds, round)
		}
		rates.summarize()
		r.Nets = append(r.Nets, rates)
	}
	if b.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(r)
	}
	return r.print(c.OutOrStdout())
}

// round measures ours, then the peer.
func (b *benchCommand) round(ctx context.Context, n peerNet) (roundRates, error) {
	var r roundRates
	for _, side := range []struct {
		step benchStep
		rate *float64
	}{{floatTraining, &r.Float}, {quantizedTraining, &r.Quantized}} {
		network, err := b.network(n.model, side.step)
		if err != nil {
			return r, err
		}
		cost, err := side.step.measure(ctx, network, n.batch, b.steps)
		if err != nil {
			return r, err
		}
		*side.rate = float64(n.batch) / median(cost.Seconds)
	}
	output, err := b.callPeer(ctx, n)
	if err != nil {
		return r, err
	}
	r.Peer, err = parsePeer(output, n, b.threads)
	return r, err
}

// maxPeerOutput is far more than a peer has to say.
const maxPeerOutput = 1 << 20

// callPeer runs the script on a network and returns what it prints.
func (b *benchCommand) callPeer(ctx context.Context, n peerNet) ([]byte, error) {
	command := exec.CommandContext(ctx, b.python, b.peer, "--net", n.net, "--threads", strconv.Itoa(b.threads), "--steps", strconv.Itoa(b.steps))
	command.WaitDelay = 5 * time.Second
	var stdout, stderr bounded
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	switch {
	case ctx.Err() != nil:
		return nil, train.ErrInterrupted
	case err != nil && stderr.lastLine() != "":
		return nil, fmt.Errorf("bench: %s --net %s: %w: %s", b.peer, n.net, err, stderr.lastLine())
	case err != nil:
		return nil, fmt.Errorf("bench: %s --net %s: %w", b.peer, n.net, err)
	case stdout.full:
		return nil, fmt.Errorf("bench: %s --net %s printed more than %d bytes", b.peer, n.net, maxPeerOutput)
	}
	return stdout.text.Bytes(), nil
}

// bounded keeps the first maxPeerOutput bytes that are written to it.
type bounded struct {
	text bytes.Buffer
	full bool // and there were more
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), maxPeerOutput-b.text.Len())
	b.full = b.full || keep < len(p)
	b.text.Write(p[:keep])
	return len(p), nil
}

// lastLine returns the last line that is not empty, which says what went wrong in Python.
func (b *bounded) lastLine() string {
	text := strings.TrimSpace(b.text.String())
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

// peerLine is a line of the script's output.
type peerLine struct {
	Net     string  `json:"net"`
	Batch   int     `json:"batch"`
	Threads int     `json:"threads"`
	Mode    string  `json:"mode"`
	Rate    float64 `json:"images_per_second"`
}

// parsePeer reads the images a second of every mode from the script's output for a network.
func parsePeer(output []byte, n peerNet, threads int) (map[string]float64, error) {
	want := map[string]bool{}
	for _, mode := range peerModes {
		want[mode] = true
	}
	rates := map[string]float64{}
	number := 0
	for text := range bytes.Lines(output) {
		number++
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		line := peerLine{}
		err := json.Unmarshal(text, &line)
		if err == nil {
			err = line.check(n, threads, want)
		}
		if err != nil {
			return nil, fmt.Errorf("bench: line %d of the peer's output for net %s: %w", number, n.net, err)
		}
		delete(want, line.Mode)
		rates[line.Mode] = line.Rate
	}
	for _, mode := range peerModes {
		if want[mode] {
			return nil, fmt.Errorf("bench: the peer's output for net %s lacks mode %s", n.net, mode)
		}
	}
	return rates, nil
}

// check refuses a line that is not about what was asked for; want holds the modes that are still open.
func (l peerLine) check(n peerNet, threads int, want map[string]bool) error {
	switch {
	case l.Net != n.net || l.Batch != n.batch || l.Threads != threads:
		return fmt.Errorf("net %q, batch %d, %d threads: want %q, %d, %d", l.Net, l.Batch, l.Threads, n.net, n.batch, threads)
	case !want[l.Mode]:
		return fmt.Errorf("mode %q: want each of %s once", l.Mode, strings.Join(peerModes, ", "))
	case !(l.Rate > 0):
		return errors.New("images_per_second: want a positive number")
	}
	return nil
}

func (r roundRates) String() string {
	s := fmt.Sprintf("float %.1f, quantized %.1f", r.Float, r.Quantized)
	for _, mode := range peerModes {
		s += fmt.Sprintf(", peer %s %.1f", mode, r.Peer[mode])
	}
	return s + " images/s"
}

// summarize takes the medians of the rounds and their ratios.
func (n *netRates) summarize() {
	over := func(rate func(roundRates) float64) float64 {
		var values []float64
		for _, r := range n.Rounds {
			values = append(values, rate(r))
		}
		return median(values)
	}
	m := roundRates{Peer: map[string]float64{}}
	m.Float = over(func(r roundRates) float64 { return r.Float })
	m.Quantized = over(func(r roundRates) float64 { return r.Quantized })
	for _, mode := range peerModes {
		m.Peer[mode] = over(func(r roundRates) float64 { return r.Peer[mode] })
	}
	n.Median = m
	n.Ratios = rateRatios{m.Float / m.Peer["fp32"], m.Float / m.Peer["fp32_channels_last"], m.Quantized / m.Peer["qat"], m.Quantized / m.Peer["fp32_channels_last"]}
}

// print writes the comparison for people.
func (r *comparison) print(w io.Writer) error {
	fmt.Fprintf(w, "training, images/s: medians of %d rounds of %d steps, %d threads, weights %s, activations %s, %s%s\n\n",
		r.Rounds, r.Steps, r.Threads, r.Weights, r.Acts, r.Instructions, withWinograd(r.Winograd))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "net\tbatch\tfloat\tquantized\tpeer fp32\tpeer channels-last\tpeer qat\tfloat/fp32\tfloat/channels-last\tquantized/qat\tquantized/channels-last\t")
	for _, n := range r.Nets {
		m := n.Median
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", n.Net, n.Batch, m.Float, m.Quantized,
			m.Peer["fp32"], m.Peer["fp32_channels_last"], m.Peer["qat"], n.Ratios.Float, n.Ratios.ChannelsLast, n.Ratios.Quantized, n.Ratios.QuantizedLast)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range r.Skipped {
		if _, err := fmt.Fprintf(w, "skipped %s: %s\n", s.Net, s.Reason); err != nil {
			return err
		}
	}
	return nil
}

// withWinograd is a note that Winograd's algorithm was used.
func withWinograd(used bool) string {
	if used {
		return ", Winograd"
	}
	return ""
}
