package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/train"
)

// benchJSON runs a benchmark and returns the JSON that it prints, and what else.
func benchJSON(t *testing.T, args string) (map[string]any, string) {
	t.Helper()
	before := runtime.GOMAXPROCS(0)
	stdout, stderr := succeed(t, append(strings.Fields(args), "--json")...)
	require.Equal(t, before, runtime.GOMAXPROCS(0), "threads are those of before")
	var report map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	return report, stderr
}

func TestBenchFlags(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	newBench().Flags().VisitAll(func(f *pflag.Flag) { got[f.Name] = f.DefValue })
	require.Equal(t, map[string]string{
		"model": "resnet20b", "batch": "128", "threads": "2", "weights": "lsq:4", "acts": "lsq:4", "steps": "6", "json": "false",
		"winograd": "false", "state-bn": "step", "peer": "", "python": "/usr/bin/python3", "rounds": "5",
	}, got)
	for flag, want := range map[string]string{"--model": "lenet5", "--weights": "lsq:2", "--acts": "linear:8"} {
		stdout, _ := succeed(t, "__complete", "bench", flag, "")
		require.Contains(t, strings.Split(stdout, "\n"), want)
	}
}

func TestBenchJSON(t *testing.T) {
	report, stderr := benchJSON(t, "bench --model lenet5 --batch 16 --threads 1 --steps 1 --rounds 2 --weights lsq:2 --acts linear:8")
	require.Empty(t, stderr)
	require.Greater(t, report["quantized_over_float"], 0.0)
	delete(report, "quantized_over_float")
	peak := report["peak_gflop_per_second"].(float64)
	require.Greater(t, peak, 0.0)
	results := report["results"].([]any)
	delete(report, "peak_gflop_per_second")
	delete(report, "results")
	require.Equal(t, map[string]any{
		"model": "lenet5", "image": "1x28x28", "batch": 16.0, "threads": 1.0, "steps": 1.0, "rounds": 2.0, "weights": "lsq:2", "acts": "linear:8", "winograd": false,
		"instructions": kernel.Path(), "multiply_adds_per_image": 416520.0,
	}, report)

	// 117,600 multiply-adds of the first layer have no gradient of the inputs.
	operations := map[string]float64{
		"float training": 16 * 2 * (3*416520 - 117600), "quantized training": 16 * 2 * (3*416520 - 117600),
		"float evaluation": 16 * 2 * 416520, "quantized evaluation": 16 * 2 * 416520,
	}
	require.Len(t, results, len(operations))
	for _, result := range results {
		r := result.(map[string]any)
		name, seconds := r["step"].(string), r["seconds_per_step"].(float64)
		require.Contains(t, operations, name)
		require.Greater(t, seconds, 0.0)
		require.InEpsilon(t, 16/seconds, r["images_per_second"], 1e-9, name)
		require.InEpsilon(t, operations[name]/seconds/1e9, r["gflop_per_second"], 1e-9, name)
		require.InEpsilon(t, r["gflop_per_second"].(float64)/peak, r["peak_share"], 1e-9, name)
		require.GreaterOrEqual(t, r["bytes_per_step"], r["allocations_per_step"], name)
		require.Equal(t, runtime.GOOS == "linux", r["resident_bytes"] != nil, name)
		delete(operations, name)
	}
}

func TestBenchTable(t *testing.T) {
	stdout, stderr := succeed(t, strings.Fields("bench --model lenet5 --batch 16 --threads 2 --steps 1 --rounds 1 --weights none --acts none")...)
	require.Empty(t, stderr)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Equal(t, "lenet5 on 1x28x28, batch 16, 2 threads, weights none, activations none, rounds 1 of 1 steps", lines[0])
	require.Regexp(t, `^peak [0-9.]+ GFLOP/s \(`+kernel.Path()+`\), 416520 multiply-adds an image forward$`, lines[1])
	require.Equal(t, "images/s ms/step GFLOP/s of peak bytes/step allocations/step resident MB", strings.Join(strings.Fields(lines[3]), " "))
	require.Len(t, lines, 6, "there is no quantized network")
	require.Regexp(t, `^ *float training +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ % +\d+ +\d+ +(\d+|-)$`, lines[4])
	require.Regexp(t, `^ *float evaluation `, lines[5])
}

// Rounds put together: medians over all steps, means of what is allocated, the ratio of each round.
func TestBenchRounds(t *testing.T) {
	t.Parallel()
	float := &measurement{operations: 8e9, resident: 5, costs: []train.StepCost{
		{Seconds: []float64{1, 3, 2}, Bytes: 10, Allocations: 1}, {Seconds: []float64{4, 4, 4}, Bytes: 30, Allocations: 2}, {Seconds: []float64{2, 2, 2}, Bytes: 20, Allocations: 3},
	}}
	quantized := &measurement{costs: []train.StepCost{{Seconds: []float64{3, 3, 9}}, {Seconds: []float64{4}}, {Seconds: []float64{4}}}}
	require.Equal(t, benchResult{SecondsPerStep: 2, ImagesPerSecond: 8, Rate: 4, PeakShare: 0.5, Bytes: 20, Allocations: 2, Resident: 5}, float.result(16, 8))
	require.Equal(t, 1.5, quantized.over(float))
	float.benchStep, quantized.benchStep = floatTraining, quantizedTraining
	require.Equal(t, 1.5, overhead([]*measurement{quantized, float}))
	require.Zero(t, overhead([]*measurement{float}))
	var table strings.Builder
	require.NoError(t, (&benchReport{Overhead: 1.0625, Results: []benchResult{{Step: "float training"}}}).print(&table))
	require.Contains(t, table.String(), "\na quantized training step takes 1.062 times as long as a float one (median of the rounds)\n")
}

// Every kind of step is measured as often as there are rounds.
func TestBenchMeasuresEveryRound(t *testing.T) {
	var calls int
	counted := benchStep{name: "counted", mode: layers.Evaluation, measure: func(context.Context, *layers.Network, int, int) (train.StepCost, error) {
		calls++
		return train.StepCost{Seconds: []float64{float64(calls)}}, nil
	}}
	before := benchSteps
	t.Cleanup(func() { benchSteps = before })
	benchSteps = []benchStep{counted}
	report, _ := benchJSON(t, "bench --model lenet5 --batch 16 --threads 1 --rounds 5")
	require.Equal(t, 5, calls)
	require.Equal(t, 3.0, report["results"].([]any)[0].(map[string]any)["seconds_per_step"], "the median round")
}

func TestBenchMistakes(t *testing.T) {
	script := write(t, t.TempDir(), "peer.py", nil)
	requireMistakes(t, map[string]string{"script": script, "dir": filepath.Dir(script)}, []mistake{
		{"bench now", exitUsage, "goqat: bench takes no arguments, got 1"},
		{"bench --model lenet", exitUsage, `unknown model "lenet": did you mean "lenet5"? (known: `},
		{"bench --weights lsk:4", exitUsage, `--weights: quantops: unknown method "lsk": did you mean "lsq"?`},
		{"bench --acts lsq:9", exitUsage, `--acts: quantops: method "lsq:9": lsq has 2 to 8 bits`},
		{"bench --acts lsq:4,per=channel", exitUsage, "per=channel is for weights"},
		{"bench --batch 0", exitUsage, "bench: --batch 0: want 1 to 1048576"},
		{"bench --batch 1048577", exitUsage, "bench: --batch 1048577: want 1 to 1048576"},
		{"bench --steps 0", exitUsage, "bench: --steps 0: want 1 to 1048576"},
		{"bench --threads 0", exitUsage, "bench: --threads 0: want 1 to 1024"},
		{"bench --threads -2", exitUsage, "bench: --threads -2: want 1 to 1024"},
		{"bench --rounds 0", exitUsage, "bench: --rounds 0: want 1 to 1024"},
		{"bench --python python3", exitUsage, "bench: --python goes with --peer"},
		{"bench --peer {script} --batch 64", exitUsage, "bench: --peer has batches of its own: leave --batch out"},
		{"bench --peer {script} --weights none --acts none", exitUsage, "want --weights or --acts other than none"},
		{"bench --peer {script} --model resnet56", exitUsage, "bench: --peer has no net like resnet56: want lenet5, resnet20b, vggsmall"},
		{"bench --peer missing.py", exitFailure, "bench: --peer: stat missing.py: no such file or directory"},
		{"bench --peer {dir}", exitFailure, "{dir} is a folder, not a Python script"},
		{"bench --peer {script} --python {dir}/none", exitFailure, "{dir}/none"},
	})
}

// fakePeer writes a shell script in place of the Python one. It appends its arguments to the file "calls" beside it.
func fakePeer(t *testing.T, body string) (script, calls string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a POSIX shell")
	}
	folder := t.TempDir()
	calls = filepath.Join(folder, "calls")
	return write(t, folder, "peer.sh", []byte(fmt.Sprintf("echo \"$@\" >> '%s'\n%s\n", calls, body))), calls
}

// withPeerNets compares other nets while a test runs.
func withPeerNets(t *testing.T, nets ...peerNet) {
	before := peerNets
	t.Cleanup(func() { peerNets = before })
	peerNets = nets
}

// lenetPeer prints 1000.5 images a second when it is called for the first time, then 2000.5 and so on.
const lenetPeer = `for mode in qat fp32_channels_last fp32; do
	echo '{"net": "lenet5", "batch": 4, "threads": 1, "mode": "'$mode'", "images_per_second": '$(wc -l < "${0%/*}/calls")'000.5}'
done`

func TestBenchPeer(t *testing.T) {
	withPeerNets(t, peerNet{"lenet5", "lenet5", 4})
	script, calls := fakePeer(t, lenetPeer)
	args := "bench --python /bin/sh --model lenet5 --threads 1 --steps 1 --rounds 3 --peer " + script
	report, stderr := benchJSON(t, args)
	require.Equal(t, strings.Repeat("--net lenet5 --threads 1 --steps 1\n", 3), string(read(t, calls)))
	require.Equal(t, 3, strings.Count(stderr, "lenet5 round "), stderr)

	nets := report["nets"].([]any)
	require.Len(t, nets, 1)
	net := nets[0].(map[string]any)
	rounds, median, ratios := net["rounds"].([]any), net["median"].(map[string]any), net["ratios"].(map[string]any)
	require.Len(t, rounds, 3)
	for i, r := range rounds {
		round, rate := r.(map[string]any), float64(i+1)*1000+0.5
		require.Equal(t, map[string]any{"fp32": rate, "fp32_channels_last": rate, "qat": rate}, round["peer"])
		require.Greater(t, round["float"], 0.0)
		require.Greater(t, round["quantized"], 0.0)
	}
	require.Equal(t, 2000.5, median["peer"].(map[string]any)["qat"])
	require.InEpsilon(t, median["float"].(float64)/2000.5, ratios["float_to_fp32"], 1e-9)
	require.InEpsilon(t, median["float"].(float64)/2000.5, ratios["float_to_fp32_channels_last"], 1e-9)
	require.InEpsilon(t, median["quantized"].(float64)/2000.5, ratios["quantized_to_qat"], 1e-9)
	require.InEpsilon(t, median["quantized"].(float64)/2000.5, ratios["quantized_to_fp32_channels_last"], 1e-9)

	require.NoError(t, os.Remove(calls))
	stdout, _ := succeed(t, strings.Fields(args)...)
	require.Contains(t, stdout, "medians of 3 rounds of 1 steps, 1 threads, weights lsq:4, activations lsq:4, "+kernel.Path())
	require.Regexp(t, `(?m)^ *lenet5 +4( +[0-9.]+){2}( +2000\.5){3}( +\d+\.\d\d){4}$`, stdout)
}

// A net whose model is not there is skipped, and the reader told.
func TestBenchPeerSkips(t *testing.T) {
	withPeerNets(t, peerNet{"lenet5", "lenet5", 4}, peerNet{"hypernet", "hypernet9", 8})
	script, _ := fakePeer(t, lenetPeer)
	args := "bench --python /bin/sh --threads 1 --steps 1 --rounds 1 --peer " + script
	report, _ := benchJSON(t, args)
	require.Len(t, report["nets"], 1)
	require.Equal(t, []any{map[string]any{"net": "hypernet", "reason": `there is no model "hypernet9" here`}}, report["skipped"])
	stdout, _ := succeed(t, strings.Fields(args)...)
	require.Contains(t, stdout, "skipped hypernet: there is no model \"hypernet9\" here\n")
}

func TestBenchPeerFails(t *testing.T) {
	withPeerNets(t, peerNet{"lenet5", "lenet5", 4})
	for body, want := range map[string]string{
		"echo first >&2; echo 'ModuleNotFoundError: torch' >&2; exit 3": "--net lenet5: exit status 3: ModuleNotFoundError: torch\n",
		"exit 4":                     "--net lenet5: exit status 4\n",
		"echo hello":                 "bench: line 1 of the peer's output for net lenet5: invalid character 'h'",
		"true":                       "bench: the peer's output for net lenet5 lacks mode fp32\n",
		"head -c 1048577 /dev/zero;": "printed more than 1048576 bytes",
	} {
		script, _ := fakePeer(t, body)
		status, stdout, stderr := goqat("bench", "--python", "/bin/sh", "--model", "lenet5", "--threads", "1", "--steps", "1", "--peer", script)
		require.Equal(t, exitFailure, status, body)
		require.Empty(t, stdout, body)
		require.Contains(t, stderr, want, body)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

// A peer is stopped with us.
func TestBenchPeerInterrupted(t *testing.T) {
	script, calls := fakePeer(t, "exec sleep 60")
	b := &benchCommand{peer: script, python: "/bin/sh", threads: 1, steps: 1}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for !exists(calls) {
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := b.callPeer(ctx, peerNets[0])
	require.ErrorIs(t, err, train.ErrInterrupted)
}

// peerText is the output of a peer for LeNet-5 on two threads.
const peerText = `{"net": "lenet5", "batch": 64, "threads": 2, "mode": "fp32", "images_per_second": 18000.1}

{"net": "lenet5", "batch": 64, "threads": 2, "mode": "fp32_channels_last", "images_per_second": 17000}
{"net": "lenet5", "batch": 64, "threads": 2, "mode": "qat", "images_per_second": 7500, "note": "more"}`

func TestParsePeer(t *testing.T) {
	t.Parallel()
	lenet5 := peerNets[0]
	rates, err := parsePeer([]byte(peerText), lenet5, 2)
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"fp32": 18000.1, "fp32_channels_last": 17000, "qat": 7500}, rates)

	for _, c := range []struct{ old, new, want string }{
		{`"net": "lenet5"`, `"net": "vgg"`, `line 1 of the peer's output for net lenet5: net "vgg", batch 64, 2 threads: want "lenet5", 64, 2`},
		{`"batch": 64, `, ``, `line 1 of the peer's output for net lenet5: net "lenet5", batch 0, 2 threads: want "lenet5", 64, 2`},
		{`"threads": 2`, `"threads": 4`, "batch 64, 4 threads"},
		{`"mode": "fp32_channels_last"`, `"mode": "int8"`, `line 3 of the peer's output for net lenet5: mode "int8": want each of fp32, fp32_channels_last, qat once`},
		{`"mode": "qat"`, `"mode": "fp32"`, `line 4 of the peer's output for net lenet5: mode "fp32": want each of`},
		{`17000`, `0`, "line 3 of the peer's output for net lenet5: images_per_second: want a positive number"},
		{`17000`, `-1`, "images_per_second: want a positive number"},
		{`17000`, `1e999`, "cannot unmarshal number 1e999"},
		{`17000`, `NaN`, "invalid character 'N'"},
		{"\n" + peerText[strings.LastIndexByte(peerText, '\n')+1:], "", "lacks mode qat"},
	} {
		text := strings.Replace(peerText, c.old, c.new, 1)
		require.NotEqual(t, peerText, text, c.old)
		_, err := parsePeer([]byte(text), lenet5, 2)
		require.ErrorContains(t, err, c.want)
	}
}

func FuzzParsePeer(f *testing.F) {
	f.Add([]byte(peerText))
	f.Add([]byte("[]\n{}\nnull"))
	f.Fuzz(func(t *testing.T, output []byte) {
		rates, err := parsePeer(output, peerNets[0], 2)
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.Len(t, rates, len(peerModes))
		for _, rate := range rates {
			require.Greater(t, rate, 0.0)
		}
	})
}

// The nets that are sure to be compared can be built.
func TestPeerNets(t *testing.T) {
	t.Parallel()
	require.Subset(t, peerNets, []peerNet{{"lenet5", "lenet5", 64}, {"resnet20", "resnet20b", 128}})
	b := &benchCommand{}
	for _, n := range peerNets[:2] {
		network, err := b.network(n.model, floatTraining)
		require.NoError(t, err)
		require.Equal(t, benchClasses, network.Output.Len())
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{3: {3}, 1.5: {2, 1}, 2: {9, 1, 2}, 2.5: {4, 1, 2, 3}} {
		given := append([]float64{}, values...)
		require.Equal(t, want, median(values))
		require.Equal(t, given, values, "stay in order")
	}
}

func TestResidentBytes(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]uint64{
		"Name:\tgoqat\nVmPeak:\t  900 kB\nVmHWM:\t   123 kB\nVmRSS:\t 5 kB\n": 123 * 1024,
		"VmRSS:\t 5 kB\n":                       0,
		"":                                      0,
		"VmHWM:\t 5 MB\n":                       0,
		"VmHWM:\t -5 kB\n":                      0,
		"VmHWM:\t 99999999999999999999999 kB\n": 0,
		"VmHWM:\t 5\nVmHWM:\t 7 kB\n":           7 * 1024,
		"VmHWM:\t 18446744073709551615 kB\nx\n": 0,
	} {
		require.Equal(t, want, residentBytes([]byte(status)), status)
	}
}

func TestProbe(t *testing.T) {
	require.Greater(t, probe(1, 1<<10), 0.0)
	require.Greater(t, probe(3, 1<<10), 0.0)
}
