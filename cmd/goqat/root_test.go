package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/train"
)

// mistake is a command line that fails: {name} in it and in what it says stands for a path.
type mistake struct {
	args   string
	status int
	want   string // part of the one line on stderr
}

// requireMistakes runs command lines that have to fail with one line, before anything is printed or written.
func requireMistakes(t *testing.T, paths map[string]string, mistakes []mistake) {
	t.Helper()
	root := t.TempDir()
	t.Chdir(root)
	var replacements []string
	for name, path := range paths {
		replacements = append(replacements, "{"+name+"}", path)
	}
	replace := strings.NewReplacer(replacements...)
	before := map[string]map[string]string{}
	for _, path := range append(mapValues(paths), root) {
		if isFolder(path) {
			before[path] = contents(t, path)
		}
	}
	for _, m := range mistakes {
		args := strings.Fields(replace.Replace(m.args))
		status, stdout, stderr := goqat(args...)
		require.Equal(t, m.status, status, "%s: %s", m.args, stderr)
		require.Empty(t, stdout, m.args)
		require.True(t, strings.HasPrefix(stderr, "goqat: "), "%s: %s", m.args, stderr)
		require.Equal(t, len(stderr)-1, strings.Index(stderr, "\n"), "%s: one line, not %s", m.args, stderr)
		require.Contains(t, stderr, replace.Replace(m.want), m.args)
	}
	for path, was := range before {
		require.Equal(t, was, contents(t, path), path)
	}
}

func mapValues(m map[string]string) (values []string) {
	for _, v := range m {
		values = append(values, v)
	}
	return values
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	data, run := finishedRun(t)
	file := write(t, t.TempDir(), "file", []byte("text"))
	requireMistakes(t, map[string]string{"data": data, "run": run, "file": file}, []mistake{
		{"trian", exitUsage, `unknown command "trian": did you mean "train"?`},
		{"xyz", exitUsage, `unknown command "xyz"; see goqat --help`},
		{"--xyz", exitUsage, "unknown flag: --xyz; see goqat --help"},
		{"train --learning-rate 3", exitUsage, "unknown flag: --learning-rate; see goqat train --help"},
		{"train --batch many", exitUsage, `invalid argument "many" for "--batch" flag`},
		{"train --batch", exitUsage, "flag needs an argument: --batch"},
		{"train now", exitUsage, "goqat: train takes no arguments, got 1; see goqat train --help"},
		{"version now", exitUsage, "takes no arguments"},
		{"eval", exitUsage, "takes one run folder, checkpoint or .goq file, got 0"},
		{"eval {run} {run}", exitUsage, "got 2"},
		{"export", exitUsage, "takes one run folder or checkpoint, got 0"},
		{"predict {run}", exitUsage, "takes a model and at least one image, got 1"},
		{"list methods models", exitUsage, "takes at most one of methods, models and datasets, got 2"},
		{"list method", exitUsage, `list: no kind "method": want one of methods, models, datasets`},

		{"train --model lenet", exitUsage, `unknown model "lenet": did you mean "lenet5"? (known: `},
		{"train --model lenet", exitUsage, "lenet5"},
		{"train --data mnis", exitUsage, `unknown dataset "mnis": did you mean "mnist"? (known: `},
		{"train --weights lsk:4", exitUsage, `--weights: quantops: unknown method "lsk": did you mean "lsq"? (known: `},
		{"train --acts lsk:4", exitUsage, `--acts: quantops: unknown method "lsk"`},
		{"train --weights lsq:9", exitUsage, `method "lsq:9": lsq has 2 to 8 bits`},
		{"train --weights lsq:1", exitUsage, `method "lsq:1": lsq has 2 to 8 bits`},
		{"train --weights lsq", exitUsage, `method "lsq": the number of bits is missing; write for example "lsq:8"`},
		{"train --weights lsq:", exitUsage, `"" is not a number of bits`},
		{"train --weights lsq:four", exitUsage, `"four" is not a number of bits`},
		{"train --weights lsq:4,", exitUsage, `no option ""; lsq has per, range, sign, init, inside`},
		{"train --weights lsq:4,pre=channel", exitUsage, `no option "pre"; lsq has per, range, sign, init, inside`},
		{"train --weights lsq:4,per=row", exitUsage, `option per="row": per is one of tensor, channel`},
		{"train --weights lsq:4,per=tensor,per=tensor", exitUsage, `option "per" is given twice`},
		{"train --data-dir {data} --acts lsq:4,per=channel", exitUsage, "per=channel is for weights; activations have one step per tensor"},
		{"train --optimizer adam", exitUsage, `unknown optimizer "adam" (known: adamw, sgd)`},
		{"train --schedule cosin", exitUsage, `unknown schedule "cosin": did you mean "cosine"?`},
		{"train --float-schedule step", exitUsage, `schedule "step": the key "every" is missing`},
		{"train --batch 0", exitUsage, "batch of 0 images: want 1 to "},
		{"train --batch -1", exitUsage, "batch of -1 images: want 1 to "},
		{"train --batch 2000000000", exitUsage, "batch of 2000000000 images: want 1 to "},
		{"train --data-dir {data} --batch 321", exitUsage, "batch of 321 images: the training set has only 320"},
		{"train --data-dir {data} --train-images 10", exitUsage, "batch of 64 images: the training set has only 10"},
		{"train --data-dir {data} --validation 320", exitUsage, "a validation split of 320 images; 1 to 319 are possible"},
		{"train --edge-bits 1", exitUsage, "1 edge bits: want 2 to 8"},
		{"train --lr 0", exitUsage, "learning rate 0: want more than 0"},
		{"train --lr NaN", exitUsage, "learning rate NaN: want more than 0"},
		{"train --epochs -1", exitUsage, "-1 epochs: want 0 to "},
		{"train --momentum 1", exitUsage, "momentum 1: want at least 0 and less than 1"},
		{"train --label-smoothing 2", exitUsage, "label smoothing 2: want 0 to 1"},
		{"train --calibration 0", exitUsage, "calibration on 0 images"},

		{"train --resume", exitUsage, "--resume needs --out with the folder of the run"},
		{"train --resume --out missing", exitUsage, "missing is not a run folder: it has no config.yaml"},
		{"train --resume --out {data}", exitUsage, "{data} is not a run folder: it has no config.yaml"},
		{"train --resume --out {run} --config {file}", exitUsage, "--resume takes its settings from the run, not from --config"},
		{"train --resume --force --out {run}", exitUsage, "--resume and --force exclude each other"},
		{"train --resume --out {run} --seed 7", exitUsage, `was started with another configuration: "seed: 1" then, "seed: 7" now`},
		{"train --resume --out {run} --lr 0.5", exitUsage, `"learning_rate: 0.01" then, "learning_rate: 0.5" now`},
		{"train --data-dir {data} --out {run}", exitUsage, "{run} holds a run already: resume it with --resume, or start over in it with --force"},
		{"train --data-dir {data} --out {file}/below", exitFailure, "run folder: "},
		{"train --config missing.yaml", exitFailure, "missing.yaml: no such file or directory"},
		{"train --config {file}", exitUsage, "train: configuration: line 1: want settings, not `text` ({file})"},
		{"train --data-dir {data} --winograd", exitUsage, "lenet5 has no 3x3 convolution of stride 1 between 32 channels or more"},
		{"bench --model lenet5 --winograd", exitUsage, "lenet5 has no 3x3 convolution of stride 1 between 32 channels or more"},
		{"train --data-dir {data} --init missing", exitFailure, "missing, which the run starts from: want a run folder, a checkpoint, a PyTorch or a safetensors file"},
		{"train --data-dir {data} --init {file}", exitFailure, "{file}"},
		{"train --data-dir {data} --init {data}", exitUsage, "{data} is not a run folder: it has no checkpoint.safetensors"},
		{"train --data-dir {data} --teacher {data}", exitUsage, "{data} is not a run folder: it has no checkpoint.safetensors"},
		{"train --data-dir {data} --teacher missing", exitFailure, "missing, which the run learns from: want a run folder"},
		{"train --data-dir {data} --teacher {file}", exitFailure, "{file}"},
		{"train --data-dir {data} --teacher {file} --teacher-model lenet", exitUsage, `unknown model "lenet": did you mean "lenet5"?`},
		{"train --data-dir {data} --teacher {run} --teacher-model resnet20", exitUsage, "is a lenet5, not a resnet20"},
		{"train --data-dir {data} --teacher {run} --normalize none", exitUsage, "knows images of mnist, the run has mnist normalized as none"},
		{"train --data-dir {data} --teacher {run} --distill-weight 0", exitUsage, "distill_weight 0: want more than 0 and at most 1"},
		{"train --teacher-model lenet5", exitUsage, "teacher_model or teacher_hash without teacher"},
		{"train --temperature 2", exitUsage, "--temperature goes with --teacher"},
		{"train --anneal sin", exitUsage, "--anneal is of weights that are searched for: it goes with --weights lbw:BITS"},
		{"train --state-bn off", exitUsage, "--state-bn is of weights that are searched for: it goes with --weights lbw:BITS"},
		{"train --state-bn never", exitUsage, "want off, epoch, step or a number of steps"},
		{"train --data-dir {data} --weights lbw:2 --acts none --state-bn epoch", exitUsage, "--state-bn: lenet5 has no batch normalization behind weights that are searched for"},
		{"bench --model lenet5 --weights lbw:2 --acts none --state-bn off", exitUsage, "bench: --state-bn: lenet5 has no batch normalization behind weights that are searched for"},
		{"bench --state-bn off", exitUsage, "bench: --state-bn is of weights that are searched for"},
		{"train --distill-weight 1", exitUsage, "--distill-weight goes with --teacher"},
		{"train --optimizer adamw --momentum 0.9", exitUsage, "--momentum is of the optimizer sgd; adamw has its own moments"},
		{"train --freeze-bn 3", exitUsage, "freeze_bn 3: want 0 to 2, the epochs of the quantized phase"},
		{"train --data-dir {data} --freeze-bn 1", exitUsage, "freeze_bn 1: lenet5 has no batch normalization"},

		{"eval missing", exitFailure, "missing: no such file or directory"},
		{"eval missing.goq", exitFailure, "missing.goq: no such file or directory"},
		{"eval {run} --data mnist", exitUsage, "{run} names its data set"},
		{"eval {data}", exitUsage, "{data} is not a run folder: it has no checkpoint.safetensors"},
		{"export {run}/model.goq", exitUsage, "{run}/model.goq is an integer model already: want a run folder or a checkpoint"},
		{"export {run}", exitUsage, "{run}/model.goq exists already: overwrite it with --force, or name another file with --out"},
		{"export {run}/checkpoint.safetensors", exitUsage, "{run}/model.goq exists already"},
		{"export {run} --out {file}", exitUsage, "want a name that ends in .goq, for an integer model, or in .safetensors, for weights"},
		{"export {run} --out {dir}/model", exitUsage, "--out {dir}/model: want a name that ends in .goq"},
		{"export {run} --out {run}/checkpoint.safetensors", exitUsage, "checkpoint.safetensors exists already"},
		{"export {run} --out missing/model.goq", exitFailure, "missing/"},
		{"export {run} --out {file}/model.goq", exitFailure, "not a directory"},
		{"export {file} --out x.goq", exitFailure, "checkpoint: it is not a whole safetensors file"},
		{"predict {run} missing.png", exitFailure, "missing.png: no such file or directory"},
		{"predict {run} {file}", exitFailure, "{file}: not a PNG or JPEG picture"},
		{"predict {run} {data}", exitFailure, "{data}"},
		{"predict {run} {run}/model.goq", exitFailure, "not a PNG or JPEG picture"},
		{"predict {data} x.png", exitFailure, "model.goq: no such file or directory"},
		{"predict {run} {data}/t10k-images-idx3-ubyte --limit -1", exitUsage, "limit of -1 images: want 0 or more"},
		{"predict {run} {data}/t10k-labels-idx1-ubyte", exitFailure, "magic number 0x00000801; expected 0x00000803"},
	})
}

// Data that are not what they should be: nothing panics, and the file is named.
func TestDamagedData(t *testing.T) {
	files, err := dataFiles()
	require.NoError(t, err)
	images, labels := files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"]
	zipped := compressed(t, images)
	broken := append([]byte{}, zipped...)
	broken[len(broken)/2] ^= 0xff
	wrongLabel := append([]byte{}, labels...)
	wrongLabel[20] = 10
	paths, mistakes := map[string]string{}, []mistake{}
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"missing":   {map[string][]byte{"t10k-labels-idx1-ubyte": nil}, "no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz in the folder"},
		"truncated": {map[string][]byte{"t10k-images-idx3-ubyte": images[:5000]}, "t10k-images-idx3-ubyte: truncated: 4984 of 78400 elements"},
		"header":    {map[string][]byte{"t10k-images-idx3-ubyte": images[:9]}, "t10k-images-idx3-ubyte: truncated"},
		"empty":     {map[string][]byte{"t10k-images-idx3-ubyte": {}}, "t10k-images-idx3-ubyte: truncated"},
		"longer":    {map[string][]byte{"t10k-images-idx3-ubyte": append(images[:len(images):len(images)], 1)}, "bytes after the 78400 declared elements"},
		"magic":     {map[string][]byte{"t10k-images-idx3-ubyte": labels}, "magic number 0x00000801; expected 0x00000803"},
		"enormous":  {map[string][]byte{"t10k-images-idx3-ubyte": idxImages(math.MaxInt32, 28, 28, nil)}, "together at most 2147483647"},
		"lying":     {map[string][]byte{"t10k-images-idx3-ubyte": idxImages(2_000_000, 28, 28, make([]uint8, 784))}, "truncated: 784 of 1568000000 elements"},
		"zero":      {map[string][]byte{"t10k-images-idx3-ubyte": idxImages(0, 28, 28, nil)}, "dimension 0"},
		"fewer":     {map[string][]byte{"t10k-labels-idx1-ubyte": idxLabels(make([]uint16, 99))}, "100 images, but t10k-labels-idx1-ubyte holds 99 labels"},
		"label":     {map[string][]byte{"t10k-labels-idx1-ubyte": wrongLabel}, "label 10 of image 12; there are 10 classes"},
		"sizes":     {map[string][]byte{"t10k-images-idx3-ubyte": idxImages(100, 20, 20, make([]uint8, 40000))}, "images of 20×20, but those of train-images-idx3-ubyte are 28×28"},
		"gz":        {map[string][]byte{"t10k-images-idx3-ubyte": nil, "t10k-images-idx3-ubyte.gz": broken}, "t10k-images-idx3-ubyte.gz: "},
		"short gz":  {map[string][]byte{"t10k-images-idx3-ubyte": nil, "t10k-images-idx3-ubyte.gz": zipped[:len(zipped)-100]}, "t10k-images-idx3-ubyte.gz: truncated"},
	} {
		name = strings.ReplaceAll(name, " ", "-")
		paths[name] = dataFolder(t, c.files)
		mistakes = append(mistakes, mistake{"train --data-dir {" + name + "}", exitFailure, c.want})
	}
	mistakes = append(mistakes, mistake{"train --data-dir nowhere", exitFailure, "nowhere"})
	requireMistakes(t, paths, mistakes)
}

// Files of the program's own kinds that are damaged.
func TestDamagedFiles(t *testing.T) {
	data, run := finishedRun(t)
	folder := t.TempDir()
	model, checkpoint := read(t, run, train.ModelFile), read(t, run, train.CheckpointFile)
	flipped := func(data []byte, at int) []byte {
		data = append([]byte{}, data...)
		data[at] ^= 4
		return data
	}
	write(t, folder, "short.goq", model[:len(model)/2])
	write(t, folder, "flipped.goq", flipped(model, len(model)/2))
	write(t, folder, "empty.goq", nil)
	write(t, folder, "other.goq", checkpoint)
	write(t, folder, "short", checkpoint[:len(checkpoint)/2])
	write(t, folder, "flipped", flipped(checkpoint, len(checkpoint)-9))
	write(t, folder, "cut.png", []byte("\x89PNG\r\n\x1a\n\x00\x00"))
	write(t, folder, "picture.gif", []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;"))
	write(t, folder, "short-idx", idxImages(3, 28, 28, make([]uint8, 784)))
	write(t, folder, "small-idx", idxImages(1, 20, 20, make([]uint8, 400)))
	write(t, folder, "short.gz", compressed(t, idxImages(1, 28, 28, make([]uint8, 784)))[:30])
	resumed := copied(t)
	write(t, resumed, train.CheckpointFile, checkpoint[:3000])
	spoiled := copied(t)
	write(t, spoiled, train.ConfigFile, []byte("batch: {\n"))
	small := map[string][]byte{
		"train-images-idx3-ubyte": idxImages(trainingImages, 20, 20, make([]uint8, trainingImages*400)),
		"t10k-images-idx3-ubyte":  idxImages(testImages, 20, 20, make([]uint8, testImages*400)),
	}
	paths := map[string]string{"dir": folder, "run": run, "data": data, "resumed": resumed, "spoiled": spoiled, "small": dataFolder(t, small)}
	mistakes := []mistake{
		{"train --resume --out {resumed}", exitFailure, "checkpoint: it is not a whole safetensors file: "},
		{"train --resume --out {spoiled}", exitUsage, "train: configuration: yaml: line "},
		{"eval {run} --data-dir {small}", exitFailure, `checkpoint: parameter "fc1.weight" has shape [120 400]; the network's has [120 144]`},
		{"eval {run}/model.goq --data-dir {small}", exitFailure, "the model takes images of 1x28x28, mnist has 1x20x20"},
		{"predict {run} {dir}/small-idx", exitFailure, "holds images of 1x20x20; the model takes 1x28x28"},
		{"predict {run} {dir}/short-idx", exitFailure, "truncated: 784 of 2352 elements"},
		{"predict {run} {dir}/short.gz", exitFailure, "short.gz: truncated"},
		{"predict {run} {dir}/cut.png", exitFailure, "cut.png: not a PNG or JPEG picture"},
		{"predict {run} {dir}/picture.gif", exitFailure, "picture.gif: not a PNG or JPEG picture"},
	}
	for _, name := range []string{"short.goq", "flipped.goq", "empty.goq", "other.goq"} {
		want := "{dir}/" + name + " is no valid .goq file: byte "
		mistakes = append(mistakes, mistake{"eval --data-dir {data} {dir}/" + name, exitFailure, want}, mistake{"predict {dir}/" + name + " x.png", exitFailure, want})
	}
	for name, want := range map[string]string{"short": "it is not a whole safetensors file", "flipped": "its checksum is wrong: the file is damaged"} {
		mistakes = append(mistakes, mistake{"eval {dir}/" + name, exitFailure, want}, mistake{"export {dir}/" + name, exitFailure, want},
			mistake{"train --data-dir {data} --init {dir}/" + name, exitFailure, "{dir}/" + name})
	}
	requireMistakes(t, paths, mistakes)
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	_, unknown := models.Lookup("x")
	for want, causes := range map[int][]error{
		exitFailure:     {errors.New("x"), &train.DivergedError{}, &train.CheckpointError{}, os.ErrNotExist},
		exitUsage:       {usagef("x"), &train.UsageError{Err: errors.New("x")}, unknown},
		exitInterrupted: {train.ErrInterrupted, &shownError{train.ErrInterrupted}},
	} {
		for _, cause := range causes {
			require.Equal(t, want, status(fmt.Errorf("wrapped: %w", cause)), "%T", cause)
		}
	}
}

// Every command says what it is, and its help can be asked for.
func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		require.NotEmpty(t, c.Short, c.CommandPath())
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		stdout, stderr := succeed(t, args...)
		require.Empty(t, stderr)
		require.Contains(t, stdout, "Usage:\n  "+c.CommandPath())
		for _, below := range c.Commands() {
			visit(below)
		}
	}
	visit(newRoot())
	stdout, _ := succeed(t)
	require.Contains(t, stdout, "Start with:  goqat train")
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		stdout, _ := succeed(t, "completion", shell)
		require.Contains(t, stdout, "goqat", shell)
		require.Greater(t, len(stdout), 1000, shell)
	}
	for args, want := range map[string][]string{
		"train --model":     {"lenet5"},
		"train --data":      {"mnist"},
		"train --weights":   {"none", "lsq:2", "linear:8"},
		"train --acts":      {"none", "lsq:2", "linear:8"},
		"train --optimizer": {"sgd", "adamw"},
		"list":              {"methods", "models", "datasets"},
	} {
		stdout, _ := succeed(t, append(append([]string{"__complete"}, strings.Fields(args)...), "")...)
		offered := strings.Split(stdout, "\n")
		require.Subset(t, offered, want, args)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"runs/a-1": "runs/a-1", "my run": "'my run'", "it's": `'it'\''s'`, "$x": "'$x'"} {
		require.Equal(t, want, quote(filepath.FromSlash(path)))
	}
}

// Paths may hold anything; a mistake is still told in one line, and special files are neither read nor waited for.
func TestOddPaths(t *testing.T) {
	_, run := finishedRun(t)
	folder := t.TempDir()
	for want, args := range map[string][]string{
		`no\nsuch`:                          {"eval", "no\nsuch"},
		`no\nfolder is not a run folder`:    {"train", "--out", "no\nfolder", "--resume"},
		`unknown flag: --a\nb`:              {"train", "--a\nb"},
		"/dev/zero is not a configuration":  {"train", "--config", "/dev/zero"},
		"is not a file":                     {"predict", run, folder},
		"it has no " + train.CheckpointFile: {"eval", folder},
	} {
		status, _, stderr := goqat(args...)
		require.NotZero(t, status, args)
		require.Equal(t, len(stderr)-1, strings.Index(stderr, "\n"), "%q: one line, not %q", args, stderr)
		require.Contains(t, stderr, want)
	}
}
