package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/train"
)

// quantizedRun is a run quantized without training that several tests look at, and none changes.
var quantizedRun struct {
	sync.Once
	folder, stdout, stderr string
}

// finishedQuantization returns the folder of the finished run's network, quantized without training.
func finishedQuantization(t *testing.T) string {
	t.Helper()
	_, run := finishedRun(t)
	quantizedRun.Do(func() {
		folder := filepath.Join(shared, "quantized")
		quantizedRun.stdout, quantizedRun.stderr = succeed(t, "quantize", run, "--weights", "linear:4", "--calibration", "64", "--correct-bias", "--out", folder)
		quantizedRun.folder = folder
	})
	require.NotEmpty(t, quantizedRun.folder, "the quantization failed in another test")
	return quantizedRun.folder
}

// quantization reads a folder's result.
func quantization(t *testing.T, folder string) train.PostTrainingResult {
	t.Helper()
	var r train.PostTrainingResult
	require.NoError(t, json.Unmarshal(read(t, folder, train.ResultFile), &r))
	return r
}

// What is printed is what the folder holds; the network and its images are those of the run.
func TestQuantize(t *testing.T) {
	data, _ := finishedRun(t)
	folder := finishedQuantization(t)
	r := quantization(t, folder)
	require.Equal(t, 1.0, *r.Agreement)
	require.Zero(t, *r.LogitDifference)
	require.Equal(t, "lenet5", r.Model)
	require.True(t, r.CorrectBias)
	require.Equal(t, 64, r.Calibration)
	stdout, stderr := quantizedRun.stdout, quantizedRun.stderr
	for _, want := range []string{
		"float    " + share(r.Accuracy.Float), "fake-quantized    " + share(r.Accuracy.FakeQuant), "integer    " + share(r.Accuracy.Integer),
		"agree on 1.0000 of the test images; their logits differ by at most 0\n",
		" bits a weight: 4 bits for the ", "; weights " + r.WeightsSHA256[:16] + "\n", "\n" + folder + "\n  checkpoint.safetensors\n  model.goq\n  result.json\n",
		"  goqat train --model lenet5 --data mnist --data-dir " + data + " --init " + folder + " --float-epochs 0 --weights linear:4 --acts linear:8\n",
	} {
		require.Contains(t, stdout, want)
	}
	require.Equal(t, strings.Join([]string{
		"lenet5 on mnist, weights linear:4, activations linear:8, without training, into " + folder, "calibrating on 64 images",
		"lenet5 has no batch normalization whose statistics could be taken anew", "correcting biases on 64 images",
		"scoring the float and the quantized network", "scoring the integer model\n",
	}, "\n"), stderr)
}

// Every command that takes a run takes this one.
func TestQuantizedRunIsARun(t *testing.T) {
	data, _ := finishedRun(t)
	folder := finishedQuantization(t)
	r := quantization(t, folder)
	stdout, _ := succeed(t, "eval", folder, "--json")
	var scored scores
	require.NoError(t, json.Unmarshal([]byte(stdout), &scored))
	require.Equal(t, scores{Data: "mnist", Images: testImages, Network: r.Accuracy.FakeQuant, Integer: r.Accuracy.Integer, Agreement: r.Agreement}, scored)
	again := filepath.Join(t.TempDir(), "again.goq")
	succeed(t, "export", folder, "--out", again)
	require.Equal(t, string(read(t, folder, train.ModelFile)), string(read(t, again)))
	require.Len(t, classify(t, folder, filepath.Join(data, "t10k-images-idx3-ubyte"), "--limit", "3"), 3)

	out := filepath.Join(t.TempDir(), "tuned")
	succeed(t, "train", "--data-dir", data, "--init", folder, "--float-epochs", "0", "--epochs", "1", "--train-images", "32", "--batch", "16", "--out", out)
	require.Equal(t, 1.0, *result(t, out).Agreement)
	status, _, stderr := goqat("train", "--resume", "--out", folder)
	require.Equal(t, exitUsage, status)
	require.Contains(t, stderr, "it has no config.yaml")
}

// Weights are searched for layer by layer, and what is said of each is in the result.
func TestQuantizeBySearching(t *testing.T) {
	_, run := finishedRun(t)
	folder := filepath.Join(t.TempDir(), "searched")
	_, stderr := succeed(t, "quantize", run, "--weights", "bitsplit:3,sweeps=50", "--acts", "linear:6,observer=lloyd", "--calibration", "64",
		"--samples", "2000", "--sequential", "--ecaq", "--out", folder)
	r := quantization(t, folder)
	require.Equal(t, 1.0, *r.Agreement)
	require.Equal(t, "bitsplit:3,sweeps=50", r.Weights)
	require.Equal(t, 2000, r.Samples)
	require.True(t, r.Sequential)
	require.True(t, r.ECAQ)
	require.Contains(t, stderr, "of activations that are not 1")
	require.Contains(t, stderr, "searching for weights on 64 images\n")
	require.NotEmpty(t, r.Searched)
	for _, l := range r.Searched {
		require.Contains(t, stderr, "\n"+l.String()+"\n")
		require.LessOrEqual(t, l.Error, l.Start)
	}
	stdout, _ := succeed(t, "inspect", folder)
	require.Contains(t, stdout, "bitsplit:3")
	status, _, stderr := goqat("quantize", run, "--weights", "linear:4", "--sequential", "--out", filepath.Join(t.TempDir(), "x"))
	require.Equal(t, exitUsage, status)
	require.Contains(t, stderr, "linear:4 searches for no weights")
	for _, weights := range []string{"lsq:4", "kmeans:3"} {
		for _, samples := range []string{"10", "0"} {
			status, _, stderr = goqat("quantize", run, "--weights", weights, "--samples", samples, "--out", filepath.Join(t.TempDir(), "x"))
			require.Equal(t, exitUsage, status)
			require.Contains(t, stderr, "--samples are of a search for weights, which "+weights+" has none of")
		}
	}
}

// A network with batch normalization from a file of another program: its model and its data are named.
func TestQuantizeAFile(t *testing.T) {
	data, _ := finishedRun(t)
	t.Chdir(t.TempDir())
	network, err := models.New("resnet8", models.Options{Input: layers.Shape{Channels: 1, Height: 28, Width: 28}, Classes: 10, Seed: 3})
	require.NoError(t, err)
	require.NoError(t, models.WriteTensors("weights.safetensors", network))
	args := []string{"quantize", "weights.safetensors", "--model", "resnet8", "--data", "mnist", "--data-dir", data, "--calibration", "20", "--batch", "30",
		"--reestimate-bn", "40", "--acts", "linear:6", "--weights", "linear:5", "--augment-pad", "2", "--json"}
	var first train.PostTrainingResult
	for _, want := range []string{"runs/resnet8-mnist-linear5-linear6-1", "runs/resnet8-mnist-linear5-linear6-2"} {
		stdout, stderr := succeed(t, args...)
		require.Empty(t, stderr)
		var r train.PostTrainingResult
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
		require.Equal(t, quantization(t, filepath.FromSlash(want)), r)
		require.Equal(t, 60, r.ReestimateBN)
		require.Equal(t, 2, r.AugmentPad)
		if first.Model == "" {
			first = r
		}
		require.Equal(t, first.WeightsSHA256, r.WeightsSHA256)
	}
	status, _, stderr := goqat(append(args, "--model", "lenet5")...)
	require.Equal(t, exitFailure, status)
	require.Contains(t, stderr, "weights.safetensors")
	require.Len(t, contents(t, "runs"), 6, "no folder is left of what failed")
}

// parseQuantize returns what a command line sets.
func parseQuantize(t *testing.T, path string, args ...string) *quantizeCommand {
	t.Helper()
	q := &quantizeCommand{trainCommand: trainCommand{config: quantizeConfig()}}
	flags := pflag.NewFlagSet("quantize", pflag.ContinueOnError)
	q.addFlags(flags)
	require.NoError(t, flags.Parse(args))
	require.NoError(t, q.configure(path, flags))
	return q
}

// The flags shared with training change the settings that they change there; those of its own are what they say.
func TestQuantizeFlags(t *testing.T) {
	_, run := finishedRun(t)
	file := write(t, t.TempDir(), "weights.pt", []byte("of another kind"))
	base := []string{"--model", "lenet5", "--data", "mnist"}
	encoded := func(args []string) []string {
		text, err := parseQuantize(t, file, append(base, args...)...).config.Encode()
		require.NoError(t, err)
		return strings.Split(string(text), "\n")
	}
	defaults := encoded(nil)
	for _, shared := range sharedFlags {
		name := strings.ReplaceAll(shared.name, "-", "_")
		args, ok := exercise[name]
		if !ok {
			require.Contains(t, []string{"out", "force", "json"}, shared.name)
			continue
		}
		var changed []string
		for _, line := range encoded(args) {
			if !slices.Contains(defaults, line) {
				changed = append(changed, line)
			}
		}
		require.Len(t, changed, 1, name)
		require.True(t, strings.HasPrefix(changed[0], name+": "), changed[0])
	}
	q := parseQuantize(t, file, base...)
	require.Equal(t, []any{4096, false, false, 128, "linear:8"}, []any{q.reestimateBN, q.recalibrate, q.correctBias, q.config.Batch, q.config.Weights.String()})
	q = parseQuantize(t, file, append(base, "--reestimate-bn", "7", "--recalibrate", "--correct-bias", "--acts", "lsq:3", "--force", "--out", "x", "--json")...)
	require.Equal(t, []any{7, true, true, "lsq:3", true, "x", true}, []any{q.reestimateBN, q.recalibrate, q.correctBias, q.config.Acts.String(), q.force, q.out, q.json})
	require.Equal(t, file, q.config.Init)

	q = parseQuantize(t, run, "--seed", "9", "--normalize", "unit")
	c, err := train.ReadConfig(run)
	require.NoError(t, err)
	require.Equal(t, []any{"lenet5", "mnist", c.DataDir, "unit", uint64(9), 128, 512}, []any{q.config.Model, q.config.Data, q.config.DataDir, q.config.Normalize, q.config.Seed, q.config.Batch, q.config.Calibration})
}

// Images are augmented as those that the network was trained on: as the run says, or as is usual for the data set.
func TestQuantizeAugments(t *testing.T) {
	file := write(t, t.TempDir(), "weights.pt", []byte("of another kind"))
	for args, want := range map[string][2]any{
		"--data mnist":                        {0, false},
		"--data cifar10":                      {4, true},
		"--data cifar100":                     {4, true},
		"--data cifar10 --augment-pad 0":      {0, true},
		"--data cifar10 --augment-flip=false": {4, false},
		"--data mnist --augment-pad 1":        {1, false},
	} {
		q := parseQuantize(t, file, strings.Fields("--model resnet20 "+args)...)
		require.Equal(t, want, [2]any{q.config.AugmentPad, q.config.AugmentFlip}, args)
	}
	run := train.DefaultConfig()
	run.AugmentPad, run.AugmentFlip, run.TrainImages, run.Validation, run.Seed, run.Data = 3, true, 7, 5, 11, "cifar10"
	c := known(run, quantizeConfig())
	require.Equal(t, []any{3, true, 7, 5, uint64(11), "cifar10", "linear:8"}, []any{c.AugmentPad, c.AugmentFlip, c.TrainImages, c.Validation, c.Seed, c.Data, c.Weights.String()})
}

func TestQuantizeMistakes(t *testing.T) {
	data, run := finishedRun(t)
	folder := t.TempDir()
	short := write(t, folder, "short", read(t, run, train.CheckpointFile)[:3000])
	requireMistakes(t, map[string]string{"data": data, "run": run, "short": short, "done": finishedQuantization(t), "dir": folder}, []mistake{
		{"quantize", exitUsage, "quantize takes one run folder, checkpoint, PyTorch or safetensors file, got 0"},
		{"quantize {run} {run}", exitUsage, "got 2"},
		{"quantize {run}/model.goq", exitUsage, "{run}/model.goq is an integer model already: want the weights of a float network"},
		{"quantize missing", exitFailure, "missing: no such file or directory"},
		{"quantize {data}", exitUsage, "{data} is not a run folder: it has no checkpoint.safetensors"},
		{"quantize {short}", exitFailure, "weights of PyTorch or safetensors files need --model"},
		{"quantize {short} --model lenet5", exitUsage, "--model needs --data"},
		{"quantize {short} --model lenet --data mnist", exitUsage, `unknown model "lenet": did you mean "lenet5"?`},
		{"quantize {short} --model lenet5 --data mnis", exitUsage, `unknown dataset "mnis": did you mean "mnist"?`},
		{"quantize {short} --model lenet5 --data mnist --data-dir {data}", exitFailure, "{short}"},
		{"quantize {run} --model resnet8", exitFailure, "has shape [6 1 5 5]; the network's has [16 1 3 3]"},
		{"quantize {run} --weights lsk:4", exitUsage, `--weights: quantops: unknown method "lsk": did you mean "lsq"?`},
		{"quantize {run} --acts lsk:4", exitUsage, `--acts: quantops: unknown method "lsk"`},
		{"quantize {run} --acts lsq:4,per=channel", exitUsage, "per=channel is for weights"},
		{"quantize {run} --weights none --acts none", exitUsage, "neither weights nor activations have a method"},
		{"quantize {run} --reestimate-bn -1", exitUsage, "re-estimation of batch normalization on -1 images"},
		{"quantize {run} --reestimate-bn 0 --recalibrate", exitUsage, "calibrating again comes after a re-estimation"},
		{"quantize {run} --calibration 0", exitUsage, "calibration on 0 images"},
		{"quantize {run} --batch 321", exitUsage, "batch of 321 images: the training set has only 320"},
		{"quantize {run} --epochs 3", exitUsage, "unknown flag: --epochs; see goqat quantize --help"},
		{"quantize {run} --out {run}", exitUsage, "the run would overwrite"},
		{"quantize {run} --out {done}", exitUsage, "{done} holds a checkpoint.safetensors already: name another folder, or overwrite it with --force"},
		{"quantize {run} --out {short}/below", exitFailure, "run folder: "},
	})
}

func TestQuantizeCompletion(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{"--model": "lenet5", "--data": "mnist", "--weights": "linear:4", "--acts": "linear:8"} {
		stdout, _ := succeed(t, "__complete", "quantize", flag, "")
		require.Contains(t, strings.Split(stdout, "\n"), want, flag)
	}
}

// Ctrl-C leaves nothing behind.
func TestInterruptedQuantization(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGINT to send")
	}
	data, run := finishedRun(t)
	folder := t.TempDir()
	var stdout, rest bytes.Buffer
	child := exec.Command(os.Args[0], "quantize", run, "--data-dir", data, "--calibration", "320", "--correct-bias")
	child.Env = append(os.Environ(), beMain+"=1", "GOQAT_SIMD=portable", "GOMAXPROCS=1") // slow enough to be interrupted
	child.Dir, child.Stdout = folder, &stdout
	stderr, err := child.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	_, err = stderr.Read(make([]byte, 1)) // the first line comes when signals are listened to
	require.NoError(t, err)
	require.NoError(t, child.Process.Signal(os.Interrupt))
	_, err = io.Copy(&rest, stderr)
	require.NoError(t, err)
	var exit *exec.ExitError
	require.ErrorAs(t, child.Wait(), &exit)
	require.Equal(t, exitInterrupted, exit.ExitCode(), rest.String())
	require.Empty(t, stdout.String())
	require.True(t, strings.HasSuffix(rest.String(), "\ninterrupted; nothing was written\n"), rest.String())
	entries, err := os.ReadDir(filepath.Join(folder, "runs"))
	require.NoError(t, err)
	require.Empty(t, entries)
}

// A codebook's run: what it is printed to take is what the file takes, it is what it was once it is read again, and training goes on
// from its codes.
func TestQuantizeCodebooks(t *testing.T) {
	data, run := finishedRun(t)
	folder := filepath.Join(t.TempDir(), "codes")
	stdout, stderr := succeed(t, "quantize", run, "--weights", "pq:d=5", "--calibration", "64", "--centroid-steps", "4", "--batch", "16", "--out", folder)
	r := quantization(t, folder)
	require.Equal(t, 1.0, *r.Agreement)
	require.Zero(t, *r.LogitDifference)
	require.Len(t, read(t, folder, train.ModelFile), *r.Bytes.Integer)
	require.Less(t, *r.Bytes.Integer, 24000)
	require.Equal(t, []any{4, 0.05}, []any{r.CentroidSteps, r.CentroidRate})
	require.Len(t, r.Codebooks, 3)
	require.Contains(t, stderr, "conv2: 480 vectors of 5 weights, 64 centroids, ")
	require.Contains(t, stdout, " bits a weight: 6 bits for every 5 of the 2400 weights of 1 layer, 8 bits for ")

	stdout, _ = succeed(t, "eval", folder, "--json")
	var scored scores
	require.NoError(t, json.Unmarshal([]byte(stdout), &scored))
	require.Equal(t, scores{Data: "mnist", Images: testImages, Network: r.Accuracy.FakeQuant, Integer: r.Accuracy.Integer, Agreement: r.Agreement}, scored)
	stdout, _ = succeed(t, "inspect", folder)
	require.Regexp(t, `conv2 +16x6x5x5 +pq:d=5 +6/5 .* 64/64 .* 64 centroids, scale 0\.0`, stdout)
	stdout, _ = succeed(t, "inspect", filepath.Join(folder, train.ModelFile))
	require.Regexp(t, `conv2 +16x6x5x5 +6/5 .* 64/64 +364 `, stdout)

	tune := func(weights, name string) string {
		out := filepath.Join(t.TempDir(), name)
		_, stderr := succeed(t, "train", "--data-dir", data, "--init", folder, "--float-epochs", "0", "--epochs", "1", "--train-images", "32", "--batch", "16",
			"--weights", weights, "--acts", "linear:8", "--out", out)
		require.Equal(t, 1.0, *result(t, out).Agreement)
		return stderr
	}
	require.Contains(t, tune("pq:d=5", "same"), "codes and centroids of 3 of 3 layers are those of ")
	require.NotContains(t, tune("pq:d=5,k=16", "other"), "are those of ")
	require.NotContains(t, tune("lsq:4", "steps"), "are those of ")

	for want, args := range map[string][]string{
		"vectors of 9 weights do not divide the 150 weights of an output channel; those of 6 or 10 would": {"--weights", "pq"},
		"weights of linear:8 have no centroids to train":                                                  {"--centroid-steps", "3"},
		"--centroid-rate is of --centroid-steps, which there are none of for weights of linear:8":         {"--centroid-rate", "3"},
		"3 steps for centroids at rate 0":                                                                 {"--weights", "pq:d=5", "--centroid-steps", "3", "--centroid-rate", "0"},
	} {
		status, _, stderr := goqat(append([]string{"quantize", run, "--out", filepath.Join(t.TempDir(), "x")}, args...)...)
		require.Equal(t, exitUsage, status, want)
		require.Contains(t, stderr, want)
	}
}
