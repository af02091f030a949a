package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
)

// result reads a run's result.
func result(t *testing.T, run string) train.Result {
	t.Helper()
	var r train.Result
	require.NoError(t, json.Unmarshal(read(t, run, train.ResultFile), &r))
	return r
}

// What a run prints is what its folder holds.
func TestTrain(t *testing.T) {
	_, run := finishedRun(t)
	r := result(t, run)
	require.Equal(t, 1.0, *r.Agreement)
	require.Greater(t, *r.Accuracy.Float, 0.2)
	require.Contains(t, finished.stdout, "float    "+share(r.Accuracy.Float))
	require.Contains(t, finished.stdout, "fake-quantized    "+share(r.Accuracy.FakeQuant))
	require.Contains(t, finished.stdout, "integer    "+share(r.Accuracy.Integer))
	require.Contains(t, finished.stdout, "agree on 1.0000 of the test images")
	require.Contains(t, finished.stdout, "weights "+r.WeightsSHA256[:16]+"\n")
	require.Contains(t, finished.stdout, "goqat predict "+filepath.Join(run, "model.goq")+" image.png\n")
	for _, name := range []string{"config.yaml", "metrics.jsonl", "checkpoint.safetensors", "model.goq", "result.json"} {
		require.FileExists(t, filepath.Join(run, name))
		require.Contains(t, finished.stdout, "  "+name+"\n")
	}
	require.Equal(t, 6, strings.Count(finished.stderr, "\n"), finished.stderr)
	for _, want := range []string{"lenet5 on mnist, weights lsq:4, activations lsq:4, seed 1, into " + run, "float     epoch  2  loss ", "calibrating on 64 images\n", "quantized epoch  1  loss ", "scoring the integer model\n"} {
		require.Contains(t, finished.stderr, want)
	}
}

// With --json there is a line for every epoch and then the result; messages are left out.
func TestTrainForPrograms(t *testing.T) {
	data, _ := finishedRun(t)
	run := filepath.Join(t.TempDir(), "run")
	stdout, stderr := succeed(t, "train", "--data-dir", data, "--train-images", "64", "--batch", "16", "--float-epochs", "2", "--epochs", "1",
		"--weights", "linear:8", "--acts", "linear:8,asymmetric", "--json", "--out", run)
	require.Empty(t, stderr)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Len(t, lines, 4)
	require.Equal(t, string(read(t, run, train.MetricsFile)), strings.Join(lines[:3], "\n")+"\n")
	var r train.Result
	require.NoError(t, json.Unmarshal([]byte(lines[3]), &r))
	require.Equal(t, result(t, run), r)
}

// Without --out, runs are numbered below runs/. A run without quantization has no integers to show.
func TestTrainNamesItsFolder(t *testing.T) {
	data, _ := finishedRun(t)
	t.Chdir(t.TempDir())
	for _, want := range []string{"runs/lenet5-mnist-none-none-1", "runs/lenet5-mnist-none-none-2"} {
		stdout, _ := succeed(t, "train", "--data-dir", data, "--train-images", "16", "--batch", "16", "--float-epochs", "1", "--weights", "none", "--acts", "none")
		require.FileExists(t, filepath.Join(filepath.FromSlash(want), train.ResultFile))
		require.Contains(t, stdout, "\n"+filepath.FromSlash(want)+"\n")
		require.NotContains(t, stdout, "integer")
		require.NotContains(t, stdout, "model.goq")
	}
	status, _, stderr := goqat("export", filepath.FromSlash("runs/lenet5-mnist-none-none-1"))
	require.Equal(t, exitFailure, status)
	require.Equal(t, "goqat: layers: conv1 has no weight quantizer, so it has no integers\n", stderr)
}

// A learning rate that is far too high ends in one line that says where, and leaves a checkpoint that works.
func TestTrainDiverges(t *testing.T) {
	data, _ := finishedRun(t)
	run := filepath.Join(t.TempDir(), "run")
	status, stdout, stderr := goqat(append(settings(data), "--float-lr", "1e6", "--float-schedule", "constant", "--checkpoint-steps", "1", "--out", run)...)
	require.Equal(t, exitFailure, status)
	require.Empty(t, stdout)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	require.Regexp(t, `^goqat: train: epoch 1, step \d+: the \w+ is not finite, first in .*(conv|fc)\d.*; try a lower learning rate$`, lines[len(lines)-1])
	require.NoFileExists(t, filepath.Join(run, train.ResultFile))
	stdout, _ = succeed(t, "eval", run)
	require.Contains(t, stdout, "network ")
}

// exercise is how a setting is given as a flag: not as it is by default.
var exercise = map[string][]string{
	"model": {"--model", "x"}, "data": {"--data", "x"}, "data_dir": {"--data-dir", "x"}, "normalize": {"--normalize", "x"},
	"augment_pad": {"--augment-pad", "5"}, "augment_flip": {"--augment-flip"}, "train_images": {"--train-images", "5"},
	"validation": {"--validation", "5"}, "weights": {"--weights", "linear:3"}, "acts": {"--acts", "linear:3"}, "edge_bits": {"--edge-bits", "7"},
	"seed": {"--seed", "18446744073709551615"}, "init": {"--init", "x"}, "batch": {"--batch", "5"}, "optimizer": {"--optimizer", "adamw"},
	"momentum": {"--momentum", "0.5"}, "nesterov": {"--nesterov"}, "weight_decay": {"--weight-decay", "0.5"}, "decoupled": {"--decoupled"},
	"anneal": {"--weights", "lbw:1", "--anneal", "sin,to=7"}, "state_bn": {"--weights", "lbw:1", "--state-bn", "epoch"},
	"freeze_bn": {"--freeze-bn", "1"}, "fold_bn": {"--fold-bn"}, "winograd": {"--winograd"}, "teacher": {"--teacher", "x"}, "teacher_model": {"--teacher", "y", "--teacher-model", "x"},
	"temperature": {"--teacher", "y", "--temperature", "5"}, "distill_weight": {"--teacher", "y", "--distill-weight", "0.7"},
	"label_smoothing": {"--label-smoothing", "0.5"}, "calibration": {"--calibration", "5"}, "checkpoint_steps": {"--checkpoint-steps", "5"},
	"float.epochs": {"--float-epochs", "77"}, "float.learning_rate": {"--float-lr", "0.77"}, "float.schedule": {"--float-schedule", "exponential,gamma=0.77"},
	"quantized.epochs": {"--epochs", "77"}, "quantized.learning_rate": {"--lr", "0.77"}, "quantized.schedule": {"--schedule", "exponential,gamma=0.77"},
}

// settingNames lists the configuration's settings by their names in config.yaml.
func settingNames(prefix string, of reflect.Type) (names []string) {
	for i := range of.NumField() {
		field := of.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if field.Type == reflect.TypeFor[train.PhaseConfig]() {
			names = append(names, settingNames(name+".", field.Type)...)
			continue
		}
		names = append(names, prefix+name)
	}
	return names
}

// Every setting has a flag that changes it and nothing else, and whose default is the configuration's.
func TestFlagsCoverTheConfiguration(t *testing.T) {
	t.Parallel()
	names := settingNames("", reflect.TypeFor[train.Config]())
	names = slices.DeleteFunc(names, func(name string) bool { return name == "init_hash" || name == "teacher_hash" }) // follow from --init and --teacher
	require.ElementsMatch(t, names, slices.Collect(maps.Keys(exercise)))
	encoded := func(args []string) []string {
		command := &trainCommand{config: train.DefaultConfig()}
		flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
		command.addFlags(flags)
		require.NoError(t, flags.Parse(args))
		require.NoError(t, command.configure(flags))
		text, err := command.config.Encode()
		require.NoError(t, err)
		return strings.Split(string(text), "\n")
	}
	want, err := train.DefaultConfig().Encode()
	require.NoError(t, err)
	defaults := strings.Split(string(want), "\n")
	require.Equal(t, defaults, encoded(nil))
	for name, args := range exercise {
		changed := 0
		_, key, nested := strings.Cut(name, ".")
		if !nested {
			key = name
		}
		for _, line := range encoded(args) {
			// y is a teacher that a setting is of, lbw:1 a method
			if !slices.Contains(defaults, line) && !strings.HasSuffix(line, "/y") && line != "weights: lbw:1" {
				changed++
				require.True(t, strings.HasPrefix(strings.TrimSpace(line), key+": "), "%s: %s", name, line)
			}
		}
		require.Equal(t, 1, changed, name)
	}
}

// Settings come from a file, and flags override them.
func TestConfigurationFile(t *testing.T) {
	data, run := finishedRun(t)
	path := filepath.Join(run, train.ConfigFile)
	parse := func(args ...string) train.Config {
		command := &trainCommand{config: train.DefaultConfig()}
		flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
		command.addFlags(flags)
		require.NoError(t, flags.Parse(args))
		require.NoError(t, command.configure(flags))
		return command.config
	}
	want := parse(settings(data)[1:]...)
	require.Equal(t, want, parse("--config", path))
	require.Equal(t, want, parse("--resume", "--out", run))
	want.Seed, want.Weights = 9, parse("--weights", "linear:8").Weights
	require.Equal(t, want, parse("--config", path, "--seed", "9", "--weights", "linear:8"))

	tuned := write(t, t.TempDir(), "tuned.yaml", []byte("init: old\ninit_hash: \"00\"\n"))
	require.Equal(t, "00", parse("--config", tuned).InitHash)
	require.Empty(t, parse("--config", tuned, "--init", "new").InitHash, "it was of the old file")
	taught := write(t, t.TempDir(), "taught.yaml", []byte("teacher: old\nteacher_hash: \"00\"\n"))
	require.Equal(t, "00", parse("--config", taught, "--temperature", "2").TeacherHash)
	require.Empty(t, parse("--config", taught, "--teacher", "new").TeacherHash)
}

// A finished run's checkpoint is where another one starts.
func TestFineTuning(t *testing.T) {
	data, run := finishedRun(t)
	out := filepath.Join(t.TempDir(), "tuned")
	succeed(t, "train", "--data-dir", data, "--init", filepath.Join(run, train.CheckpointFile), "--float-epochs", "0", "--epochs", "1",
		"--train-images", "64", "--batch", "16", "--weights", "lsq:2", "--acts", "lsq:2", "--out", out)
	require.Contains(t, string(read(t, out, train.ConfigFile)), "init_hash: ")
	require.Greater(t, *result(t, out).Accuracy.Float, 0.2)
}

// A run of fewer bits starts from another one's folder and learns from it; resumed, it goes on so.
func TestProgressiveTrainingWithATeacher(t *testing.T) {
	data, run := finishedRun(t)
	out := filepath.Join(t.TempDir(), "fewer")
	_, stderr := succeed(t, "train", "--data-dir", data, "--init", run, "--float-epochs", "0", "--epochs", "1", "--teacher", run, "--temperature", "2",
		"--train-images", "64", "--batch", "16", "--weights", "lsq:2", "--acts", "lsq:2", "--out", out)
	require.Contains(t, stderr, "calibrating on 64 images\n")
	c, err := train.ReadConfig(out)
	require.NoError(t, err)
	require.Equal(t, run, c.Init)
	require.Equal(t, run, c.Teacher)
	require.Len(t, c.TeacherHash, 64)
	require.Equal(t, c.InitHash, c.TeacherHash)
	want := result(t, out)
	require.NoError(t, os.Remove(filepath.Join(out, train.ResultFile)))
	succeed(t, "train", "--out", out, "--resume")
	require.Equal(t, want.WeightsSHA256, result(t, out).WeightsSHA256)

	again := filepath.Join(t.TempDir(), "again")
	succeed(t, "train", "--config", filepath.Join(out, train.ConfigFile), "--out", again)
	require.Equal(t, want.WeightsSHA256, result(t, again).WeightsSHA256)
}

// With --fold-bn weights are quantized as batch normalization scales them; whatever opens the run folder does so too.
func TestFoldedRun(t *testing.T) {
	data, _ := finishedRun(t)
	out := filepath.Join(t.TempDir(), "folded")
	settings := []string{"train", "--model", "resnet8", "--data-dir", data, "--float-epochs", "1", "--epochs", "1", "--train-images", "64", "--batch", "16", "--fold-bn"}
	_, stderr := succeed(t, append(settings, "--out", out)...)
	require.Contains(t, stderr, "scoring the integer model\n")
	require.Contains(t, string(read(t, out, train.ConfigFile)), "\nfold_bn: true\n")
	want := result(t, out)
	require.Equal(t, 1.0, *want.Agreement)

	stdout, _ := succeed(t, "eval", out, "--json")
	var scored scores
	require.NoError(t, json.Unmarshal([]byte(stdout), &scored))
	require.Equal(t, want.Accuracy.FakeQuant, scored.Network)
	require.Equal(t, 1.0, *scored.Agreement)
	again := filepath.Join(t.TempDir(), "again.goq")
	succeed(t, "export", out, "--out", again)
	require.Equal(t, string(read(t, out, train.ModelFile)), string(read(t, again)))
	require.NoError(t, os.Remove(filepath.Join(out, train.ResultFile)))
	succeed(t, "train", "--out", out, "--resume")
	require.Equal(t, want.WeightsSHA256, result(t, out).WeightsSHA256)

	tuned := filepath.Join(t.TempDir(), "tuned")
	succeed(t, append(settings, "--float-epochs", "0", "--init", out, "--teacher", out, "--weights", "linear:3", "--out", tuned)...)
	require.Equal(t, 1.0, *result(t, tuned).Agreement)

	plain := filepath.Join(t.TempDir(), "plain")
	succeed(t, append(settings, "--fold-bn=false", "--out", plain)...)
	require.Equal(t, want.Accuracy.Float, result(t, plain).Accuracy.Float, "it is of the quantized phase")
	require.NotEqual(t, want.WeightsSHA256, result(t, plain).WeightsSHA256)
}

func TestFoldingRefuses(t *testing.T) {
	data, _ := finishedRun(t)
	for want, args := range map[string][]string{
		"layers: no batch normalization to fold: none comes directly after a layer whose weights have a method": {},
		"train: fold_bn is of the quantizer of the weights: it needs a method of weights":                       {"--model", "resnet8", "--weights", "none"},
	} {
		out := filepath.Join(t.TempDir(), "run")
		status, stdout, stderr := goqat(append([]string{"train", "--data-dir", data, "--fold-bn", "--out", out}, args...)...)
		require.Equal(t, exitUsage, status)
		require.Empty(t, stdout)
		require.Equal(t, "goqat: "+want+"\n", stderr)
		require.NoDirExists(t, out)
	}
}

// Ctrl-C ends the program with a checkpoint and the command that goes on; that comes to the same weights as a run
// that was left alone, here on another path of the kernels and another number of threads.
func TestInterruptedTraining(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGINT to send")
	}
	data, want := finishedRun(t)
	run := filepath.Join(t.TempDir(), "my run")
	var stdout, stderr bytes.Buffer
	child := exec.Command(os.Args[0], append(settings(data), "--out", run)...)
	child.Env = append(os.Environ(), beMain+"=1", "GOQAT_SIMD=portable", "GOMAXPROCS=1") // slow enough to be interrupted
	child.Stdout, child.Stderr = &stdout, &stderr
	require.NoError(t, child.Start())
	for deadline := time.Now().Add(time.Minute); !exists(filepath.Join(run, train.CheckpointFile)); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			child.Process.Kill()
			child.Wait()
			require.Fail(t, "no checkpoint in a minute", stderr.String())
		}
	}
	require.NoError(t, child.Process.Signal(os.Interrupt))
	var exit *exec.ExitError
	require.ErrorAs(t, child.Wait(), &exit)
	require.Equal(t, exitInterrupted, exit.ExitCode(), stderr.String())
	require.Empty(t, stdout.String())
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	require.Equal(t, "interrupted and saved; go on with: goqat train --out '"+run+"' --resume", lines[len(lines)-1])
	require.NoFileExists(t, filepath.Join(run, train.ResultFile))
	c, err := train.LoadCheckpoint(filepath.Join(run, train.CheckpointFile))
	require.NoError(t, err)
	require.Less(t, c.Position.Step, 40)

	_, resumed := succeed(t, "train", "--out", run, "--resume")
	require.Contains(t, resumed, "going on after step ")
	require.Equal(t, result(t, want).WeightsSHA256, result(t, run).WeightsSHA256)
	require.Equal(t, string(read(t, want, train.MetricsFile)), string(read(t, run, train.MetricsFile)))
	require.Equal(t, string(read(t, want, train.ModelFile)), string(read(t, run, train.ModelFile)))
}

// On a terminal there is a bar for each epoch, which goes away with the epoch.
func TestDisplayOnATerminal(t *testing.T) {
	t.Parallel()
	var out, progress bytes.Buffer
	d := newDisplay(&out, &progress, false)
	require.False(t, d.terminal, "a buffer is none")
	d.terminal = true
	for i := 1; i <= 4; i++ {
		d.event(train.Event{Step: &train.Step{Position: train.Position{Step: i}, Epoch: 1, Epochs: 2, Steps: 8, Images: 10}})
	}
	require.NotNil(t, d.bar)
	d.event(train.Event{Metric: &train.Metric{Phase: "float", Epoch: 1, Loss: 0.5, Scored: "test", Accuracy: 0.25}})
	require.Nil(t, d.bar)
	d.event(train.Event{Text: "something else"})
	require.Contains(t, progress.String(), "float epoch 1/2")
	require.Contains(t, progress.String(), "float     epoch  1  loss 0.5000  test accuracy 0.2500\nsomething else\n")
	require.Empty(t, out.String())
}

// What is proposed keeps codes that have been searched for, and the bits of the first and the last layer that they are of.
func TestNextCommands(t *testing.T) {
	folder := t.TempDir()
	next := func(weights, acts string, change func(*train.Config)) string {
		one := 1.0
		c, r := train.DefaultConfig(), &train.Result{Accuracy: train.Accuracies{FakeQuant: &one, Integer: &one}}
		c.Weights, c.Acts = quantops.MustParse(weights), quantops.MustParse(acts)
		if change != nil {
			change(&c)
		}
		weights, acts = fewerBits(c, r)
		return nextCommands(folder, c, r, weights, acts)
	}
	predict := "\nnext:\n  goqat predict " + filepath.Join(folder, train.ModelFile) + " image.png\n"
	require.Equal(t, predict, next("lsq:4", "lsq:4", nil), "no checkpoint to go on from")

	require.NoError(t, os.WriteFile(filepath.Join(folder, train.CheckpointFile), nil, 0o644))
	require.Contains(t, next("lsq:4", "lsq:4", nil), "\n  goqat eval "+folder+"\n")
	tuning := func(flags string) string {
		return "\n  goqat train --model lenet5 --data mnist --init " + folder + " --float-epochs 0 " + flags + "\n"
	}
	require.Contains(t, next("lsq:4", "lsq:4", nil), tuning("--weights lsq:2 --acts lsq:2"))
	for _, weights := range []string{"pq", "kmeans:3", "vq", "bitsplit:3", "lbw:2"} {
		require.Contains(t, next(weights, "linear:8", nil), tuning("--weights "+weights+" --acts lsq:2"))
		require.Contains(t, next(weights, "linear:8", func(c *train.Config) { c.EdgeBits = 0 }), tuning("--weights "+weights+" --acts lsq:2 --edge-bits 0"))
		require.NotContains(t, next(weights, "lsq:2", nil), "goqat train")
	}
	require.NotContains(t, next("lsq:2", "lsq:2", nil), "goqat train")
	require.Contains(t, next("lsq:4", "none", func(c *train.Config) { c.DataDir, c.Normalize = "/my data", "none" }), " --data-dir '/my data' --normalize none --init ")
}

// Where nothing was trained there is no checkpoint, and no command that would want one is proposed.
func TestTrainWithoutEpochs(t *testing.T) {
	data, run := finishedRun(t)
	out := filepath.Join(t.TempDir(), "run")
	stdout, _ := succeed(t, "train", "--data-dir", data, "--init", run, "--float-epochs", "0", "--epochs", "0", "--out", out)
	require.NoFileExists(t, filepath.Join(out, train.CheckpointFile))
	require.Contains(t, stdout, "\nnext:\n  goqat predict ")
	require.NotContains(t, stdout, "goqat eval")
	require.NotContains(t, stdout, "goqat train")
}
