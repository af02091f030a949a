package train

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets/mnist"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// requireSameRun compares everything that two finished runs have left behind, times aside.
func requireSameRun(t *testing.T, want, got string) {
	t.Helper()
	for _, name := range []string{ConfigFile, MetricsFile, ModelFile} {
		require.Equal(t, string(read(t, want, name)), string(read(t, got, name)), name)
	}
	require.Equal(t, timeless(t, want), timeless(t, got))
	a, err := LoadCheckpoint(filepath.Join(want, CheckpointFile))
	require.NoError(t, err)
	b, err := LoadCheckpoint(filepath.Join(got, CheckpointFile))
	require.NoError(t, err)
	for _, c := range []*Checkpoint{a, b} {
		require.Positive(t, c.Seconds)
		require.Positive(t, c.Trained.Seconds)
		c.Seconds, c.Trained.Seconds = 0, 0
	}
	require.Equal(t, a, b)
}

func read(t *testing.T, folder, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, name))
	require.NoError(t, err)
	return data
}

// timeless returns a run's result without its timings.
func timeless(t *testing.T, folder string) map[string]any {
	t.Helper()
	var result map[string]any
	require.NoError(t, json.Unmarshal(read(t, folder, ResultFile), &result))
	for _, key := range []string{"seconds", "images_per_second"} {
		require.Positive(t, result[key], key)
		delete(result, key)
	}
	return result
}

func TestSameBitsForAnyNumberOfThreads(t *testing.T) {
	want, result := finishedRun(t)
	for _, threads := range []int{1, 2, 5} {
		before := runtime.GOMAXPROCS(threads)
		folder := t.TempDir()
		got := newRig(t, folder, nil).complete(t)
		runtime.GOMAXPROCS(before)
		require.Equal(t, result.WeightsSHA256, got.WeightsSHA256, "%d threads", threads)
		requireSameRun(t, want, folder)
	}
}

// adaptive is a configuration with everything else that a resumed run must remember: moving ranges, the products of
// AdamW's betas, smoothing, and a validation split.
func adaptive(c *Config) {
	c.Weights, c.Acts = quantops.MustParse("linear:6"), quantops.MustParse("linear:6,asymmetric")
	c.Optimizer, c.Smoothing, c.Validation, c.Seed, c.CheckpointSteps = "adamw", 0.1, 30, 9, 0
	c.Float.LearningRate, c.Quantized.LearningRate = 0.003, 0.001
}

// taught learns from another run besides the labels, on augmented images.
func taught(teacher string) func(*Config) {
	return func(c *Config) {
		c.Teacher, c.Temperature, c.DistillWeight, c.AugmentPad, c.AugmentFlip = teacher, 2, 0.7, 2, true
	}
}

// frozen is a run whose last epoch freezes batch normalization.
func frozen(c *Config) { c.Model, c.FreezeBN = "normalized", 1 }

// folded is a run that quantizes weights as batch normalization scales them, with moving ranges, and freezes it at last.
func folded(c *Config) {
	frozen(c)
	c.FoldBN, c.Weights, c.Acts = true, quantops.MustParse("linear:4"), quantops.MustParse("lsq:4")
}

// A run that is stopped anywhere and resumed by a new process leaves behind what an uninterrupted one does.
func TestInterruptedRunGoesOnToTheSameBits(t *testing.T) {
	teacher, _ := finishedRun(t)
	for name, change := range map[string]func(*Config){
		"lsq": nil, "adaptive": adaptive, "taught": taught(teacher), "frozen": frozen, "folded": folded,
		"searched": searching("lbw:2", "lsq:4", "step"), "searched by epochs": searching("lbw:1,scale=channel", "none", "epoch"),
		"searched and frozen": func(c *Config) {
			searching("lbw:2", "none", "epoch")(c)
			c.FreezeBN = 1
		},
	} {
		want := t.TempDir()
		newRig(t, want, change).complete(t)
		folder, seconds := t.TempDir(), 0.0
		for i, at := range []struct {
			phase Phase
			step  int
		}{{FloatPhase, 3}, {FloatPhase, 9}, {FloatPhase, 13}, {QuantizedPhase, 1}, {QuantizedPhase, 10}} {
			r := newRig(t, folder, change)
			r.Resume = i > 0
			ctx, cancel := context.WithCancel(context.Background())
			r.atStep(at.phase, at.step, cancel)
			_, err := r.Run(ctx)
			require.ErrorIs(t, err, ErrInterrupted, "%s: %v step %d", name, at.phase, at.step)
			require.NoFileExists(t, filepath.Join(folder, ResultFile))
			c, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
			require.NoError(t, err)
			require.Equal(t, at.phase, c.Phase)
			require.Equal(t, at.step, c.Position.Step)
			require.Greater(t, c.Seconds, seconds, "times add up")
			seconds = c.Seconds
		}
		r := newRig(t, folder, change)
		r.Resume = true
		require.Greater(t, r.complete(t).Seconds, seconds)
		requireSameRun(t, want, folder)

		// Resuming what is over makes no step and gives the same once more.
		require.NoError(t, os.Remove(filepath.Join(folder, ResultFile)))
		r = newRig(t, folder, change)
		r.Resume = true
		r.Report = func(e Event) { require.Nil(t, e.Step) }
		r.complete(t)
		requireSameRun(t, want, folder)
	}
}

// An epoch is over once its checkpoint is there, so that has to come after the metrics: a run that stops between the two
// makes the epoch's last steps again.
func TestMetricsComeBeforeTheCheckpoint(t *testing.T) {
	want, _ := finishedRun(t)
	folder := t.TempDir()
	r := newRig(t, folder, nil)
	obstacle := filepath.Join(folder, MetricsFile)
	r.atStep(QuantizedPhase, 16, func() {
		require.NoError(t, os.Remove(obstacle))
		require.NoError(t, os.MkdirAll(filepath.Join(obstacle, "taken"), 0o755))
	})
	_, err := r.Run(context.Background())
	require.ErrorContains(t, err, "train: atomicfile: write "+obstacle)
	c, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
	require.NoError(t, err)
	require.Equal(t, 14, c.Position.Step)
	require.NoError(t, os.RemoveAll(obstacle))
	r = newRig(t, folder, nil)
	r.Resume = true
	r.complete(t)
	requireSameRun(t, want, folder)
}

// An interruption between the phases saves the quantized network as it was calibrated.
func TestInterruptedBeforeTheFirstQuantizedStep(t *testing.T) {
	want, _ := finishedRun(t)
	folder := t.TempDir()
	r := newRig(t, folder, nil)
	ctx, cancel := context.WithCancel(context.Background())
	r.Report = func(e Event) {
		if strings.HasPrefix(e.Text, "calibrating") {
			cancel()
		}
	}
	_, err := r.Run(ctx)
	require.ErrorIs(t, err, ErrInterrupted)
	c, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
	require.NoError(t, err)
	require.Equal(t, QuantizedPhase, c.Phase)
	require.Zero(t, c.Position.Step)
	r = newRig(t, folder, nil)
	r.Resume = true
	r.complete(t)
	requireSameRun(t, want, folder)
}

// trainInto is the environment variable that makes the test program train and hang.
const trainInto = "GOQAT_TEST_TRAIN_INTO"

// hangAt is a step of the quantized phase in mid-epoch with steps made since the last checkpoint.
const hangAt = 11

// trainAndHang makes the run of newRig up to a step, tells so, and waits to be killed.
func trainAndHang(folder string) {
	all, err := mnist.Load("")
	if err != nil {
		panic(err)
	}
	r := newRig(childTB{}, folder, nil)
	r.Data.Train, r.Data.Test = all.Train.Head(r.Data.Train.Len()), all.Test.Head(r.Data.Test.Len())
	r.atStep(QuantizedPhase, hangAt, func() {
		fmt.Println("hanging")
		time.Sleep(time.Hour)
	})
	_, err = r.Run(context.Background())
	panic(fmt.Sprint("the run came to an end: ", err))
}

// childTB is what newRig needs of a test in a process that is none.
type childTB struct{ testing.TB }

func (childTB) Helper()                   {}
func (childTB) Errorf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (childTB) FailNow()                  { panic("failed") }

func TestKilledRunGoesOnToTheSameBits(t *testing.T) {
	want, _ := finishedRun(t)
	folder := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), trainInto+"="+folder)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	killed := child.Process.Kill()
	require.Error(t, child.Wait())
	require.NoError(t, err)
	require.NoError(t, killed)
	require.Equal(t, "hanging\n", line)

	c, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
	require.NoError(t, err)
	require.Equal(t, QuantizedPhase, c.Phase)
	require.Equal(t, hangAt-1, c.Position.Step)
	r := newRig(t, folder, nil)
	r.Resume = true
	r.complete(t)
	requireSameRun(t, want, folder)
}

// pinned are the losses of ten steps of the small network and the hash of its parameters after them. They hold on
// every platform and every path of the kernels; what changes them changes what users' seeds mean.
var pinned = map[string]struct {
	losses []string
	hash   string
}{
	"none": {
		losses: []string{"2.6938424", "2.500174", "2.3013163", "2.32692", "2.1732805", "2.2257948", "2.2163968", "2.2846346", "2.2081902", "2.2146928"},
		hash:   "e31d155606611bd7e5bd00c519784d54ad19f786d4d0c473dd30528112b83623",
	},
	"lsq:4": {
		losses: []string{"2.6441762", "2.4981563", "2.3132925", "2.3116436", "2.2745717", "2.2560215", "2.2525468", "2.2515898", "2.2377503", "2.2441165"},
		hash:   "03d54c70ee771bf5a8112980a0eb61b9bb4c0f3be3ab6ad063fe19663055a7c9",
	},
	"linear:8": {
		losses: []string{"2.6923792", "2.5014048", "2.300214", "2.3259728", "2.1733685", "2.225936", "2.2162602", "2.2862153", "2.206119", "2.2160578"},
		hash:   "3a5ff297b5c0021437e1baceab23e25f5561ab01f35840a05a025047998b65f2",
	},
	"taught": { // lsq:4
		losses: []string{"1.5319839", "1.2197684", "1.0624361", "1.057637", "1.0462596", "1.02791", "1.0542172", "0.99704593", "1.0235766", "1.0086974"},
		hash:   "3147e1e3545510cc4bc65cfd8538be472c333b9e6a2186a6d1be6f9201c2ac31",
	},
	"lbw:2": { // behind batch normalization, which looks at hard weights in every step
		losses: []string{"3.724631", "2.8105016", "2.713944", "2.3991082", "2.249428", "2.2350934", "2.2701082", "2.270191", "2.2618752", "2.190478"},
		hash:   "e4912c45b805e0db51141fb881a4f9e4b41f09ae61b8e9ceaeb5533d4910135f",
	},
}

func TestPinnedSteps(t *testing.T) {
	d := digits(t, 100, 1).Train
	for _, name := range []string{"none", "lsq:4", "linear:8", "taught", "lbw:2"} {
		m, distillation := name, (*Distillation)(nil)
		if name == "taught" {
			teacher, err := normalizedNetwork(methods("lsq:3", "lsq:3"), 8, 2)
			require.NoError(t, err)
			require.NoError(t, Calibrate(teacher, d, 100))
			m, distillation = "lsq:4", &Distillation{Teacher: teacher, Temperature: 3, Weight: 0.7}
		}
		network := newSmall(t, methods(m, strings.Replace(m, "lbw:2", "none", 1)), d)
		if name == "lbw:2" {
			search := methods("lbw:2", "none")
			search.State = layers.StateBatchNorm{On: true, Every: 1}
			var err error
			network, err = normalizedNetwork(search, 0, 1)
			require.NoError(t, err)
		}
		var losses []string
		trainer := Trainer{Network: network, Data: d, Epochs: 4, Batch: 40, LearningRate: 0.05, Smoothing: 0.1, Seed: 5, Distillation: distillation,
			AfterStep: func(s Step) error {
				losses = append(losses, strconv.FormatFloat(s.Loss, 'g', -1, 32))
				return nil
			}}
		require.NoError(t, trainer.Run(t.Context()))
		require.Equal(t, pinned[name].losses, losses, name)
		require.Equal(t, pinned[name].hash, WeightsHash(network), name)
	}
}

// The compiler may fuse a·b+c at a higher GOAMD64, so the pinned bits are computed once more by a program built for
// the level that this one is not built for.
func TestPinnedStepsUnderAnotherGOAMD64(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("GOAMD64 is for amd64")
	}
	if testing.Short() {
		t.Skip("SKIPPED GOAMD64 v1 against v3: it compiles the module once more")
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("SKIPPED GOAMD64 v1 against v3: there is no go tool to build with")
	}
	level, err := exec.Command(tool, "env", "GOAMD64").Output()
	require.NoError(t, err)
	other := map[bool]string{true: "v3", false: "v1"}[strings.TrimSpace(string(level)) == "v1"]
	program := filepath.Join(t.TempDir(), "train.test")
	build := exec.Command(tool, "test", "-c", "-o", program)
	build.Env = append(os.Environ(), "GOAMD64="+other)
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, path := range []string{"", "portable"} {
		out, err := runPinned(program, path)
		if strings.Contains(string(out), "microarchitecture support") {
			t.Skipf("SKIPPED GOAMD64 v1 against v3: this processor has no %s", other)
		}
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestPinnedSteps", "the program has run the test")
	}
}

// Every path of the kernels that the processor has gives the pinned bits.
func TestPinnedStepsOnEveryPath(t *testing.T) {
	for _, path := range []string{"portable", "avx2", "avx512"} {
		out, err := runPinned(os.Args[0], path)
		require.NoError(t, err, "%s: %s", path, out)
		require.Contains(t, string(out), "--- PASS: TestPinnedSteps", "the program has run the test")
	}
}

// runPinned runs TestPinnedSteps in a test program of this package on a path of the kernels.
func runPinned(program, path string) ([]byte, error) {
	child := exec.Command(program, "-test.v", "-test.run=^TestPinnedSteps$")
	child.Env = append(os.Environ(), "GOQAT_SIMD="+path)
	return child.CombinedOutput()
}
