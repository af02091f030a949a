package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/train"
)

// The three things that can be scored agree with each other and with the run's result.
func TestEval(t *testing.T) {
	data, run := finishedRun(t)
	r := result(t, run)
	for path, want := range map[string]scores{
		run:                                      {Network: r.Accuracy.FakeQuant, Integer: r.Accuracy.Integer, Agreement: r.Agreement},
		filepath.Join(run, train.CheckpointFile): {Network: r.Accuracy.FakeQuant},
		filepath.Join(run, train.ModelFile):      {Integer: r.Accuracy.Integer},
	} {
		want.Data, want.Images = "mnist", testImages
		stdout, stderr := succeed(t, "eval", path, "--data-dir", data, "--json")
		require.Empty(t, stderr)
		var got scores
		require.NoError(t, json.Unmarshal([]byte(stdout), &got))
		require.Equal(t, want, got, path)
		stdout, _ = succeed(t, "eval", path, "--data-dir", data)
		text := "mnist, 100 test images\n"
		if want.Network != nil {
			text += "network    " + share(want.Network) + "\n"
		}
		if want.Integer != nil {
			text += "integer    " + share(want.Integer) + "\n"
		}
		if want.Agreement != nil {
			text += "agreement  " + share(want.Agreement) + "\n"
		}
		require.Equal(t, text, stdout)
	}
}

// A model that names no data set is scored on one that is named.
func TestEvalNeedsADataSet(t *testing.T) {
	data, run := finishedRun(t)
	model, err := integer.Load(filepath.Join(run, train.ModelFile))
	require.NoError(t, err)
	model.Metadata = nil
	path := filepath.Join(t.TempDir(), "plain.goq")
	require.NoError(t, integer.Save(path, model))
	status, _, stderr := goqat("eval", path, "--data-dir", data)
	require.Equal(t, exitUsage, status)
	require.Equal(t, "goqat: eval: "+path+" does not name its data set: give --data\n", stderr)
	stdout, _ := succeed(t, "eval", path, "--data-dir", data, "--data", "mnist")
	require.Contains(t, stdout, "integer    "+share(result(t, run).Accuracy.Integer))
}

// Exporting once more gives the run's own model, byte for byte.
func TestExport(t *testing.T) {
	_, run := finishedRun(t)
	want := read(t, run, train.ModelFile)
	folder := t.TempDir()
	path := filepath.Join(folder, "x.goq")
	stdout, stderr := succeed(t, "export", run, "--out", path)
	require.Empty(t, stderr)
	require.Equal(t, path+", "+strconv.Itoa(len(want))+" bytes\n", stdout)
	require.Equal(t, want, read(t, path))

	checkpoint := write(t, folder, "c.safetensors", read(t, run, train.CheckpointFile))
	succeed(t, "export", checkpoint)
	require.Equal(t, want, read(t, folder, train.ModelFile), "beside the checkpoint")
	write(t, folder, train.ModelFile, []byte("old"))
	succeed(t, "export", checkpoint, "--force")
	require.Equal(t, want, read(t, folder, train.ModelFile))
}

// Weights go into a safetensors file, of what the network is without quantizers.
func TestExportWeights(t *testing.T) {
	data, run := finishedRun(t)
	path := filepath.Join(t.TempDir(), "weights.safetensors")
	stdout, _ := succeed(t, "export", run, "--out", path)
	require.Equal(t, fmt.Sprintf("%s, %d bytes\n", path, len(read(t, path))), stdout)
	stdout, _ = succeed(t, "eval", path, "--model", "lenet5", "--data", "mnist", "--data-dir", data, "--json")
	var scored scores
	require.NoError(t, json.Unmarshal([]byte(stdout), &scored))
	require.Greater(t, *scored.Network, 0.2)
}

// Codes without an integer run are scored as a network alone, and predict refuses them.
func TestModelWithoutProgram(t *testing.T) {
	data, _ := finishedRun(t)
	run := filepath.Join(t.TempDir(), "codes")
	stdout, stderr := succeed(t, "train", "--data-dir", data, "--train-images", "16", "--batch", "16", "--float-epochs", "1", "--epochs", "1", "--acts", "none", "--out", run)
	require.Contains(t, stderr, "float activations have no integer run: model.goq holds codes and tables\n")
	require.Regexp(t, `(?m)^ +integer +- +\d+`, stdout)
	require.NotContains(t, stdout, "goqat predict")
	stdout, _ = succeed(t, "eval", run, "--json")
	require.NotContains(t, stdout, "integer")
	model := filepath.Join(run, train.ModelFile)
	status, _, stderr := goqat("predict", model, filepath.Join(data, "t10k-images-idx3-ubyte"))
	require.Equal(t, exitFailure, status)
	require.Equal(t, "goqat: predict: "+model+" has float activations and no integer program\n", stderr)
	status, _, stderr = goqat("eval", model, "--data-dir", data)
	require.Equal(t, exitFailure, status)
	require.Equal(t, "goqat: train: the model has float activations and no integer program\n", stderr)
}

// classify runs predict and returns what it says of each image.
func classify(t *testing.T, args ...string) []prediction {
	t.Helper()
	stdout, stderr := succeed(t, append([]string{"predict", "--json"}, args...)...)
	require.Empty(t, stderr)
	var found []prediction
	for _, line := range strings.Split(strings.TrimSpace(stdout), "\n") {
		var p prediction
		require.NoError(t, json.Unmarshal([]byte(line), &p), line)
		found = append(found, p)
	}
	return found
}

func TestPredictIDX(t *testing.T) {
	data, run := finishedRun(t)
	path := filepath.Join(data, "t10k-images-idx3-ubyte")
	model, err := integer.Load(filepath.Join(run, train.ModelFile))
	require.NoError(t, err)
	all, err := wholeMNIST()
	require.NoError(t, err)
	logits, err := model.Program.Run(all.Test.Head(testImages).Pixels)
	require.NoError(t, err)
	classes := integer.Argmax(logits, 10)
	found := classify(t, run, path)
	require.Len(t, found, testImages)
	for i, p := range found {
		require.Equal(t, path+"#"+strconv.Itoa(i), p.Image)
		require.Equal(t, strconv.Itoa(classes[i]), p.Class)
		require.Greater(t, p.Score, 0.1)
		require.LessOrEqual(t, p.Score, 1.0)
	}
	require.Equal(t, found[:7], classify(t, filepath.Join(run, train.ModelFile), path, "--limit", "7"))
	require.Equal(t, found, classify(t, run, path, "--limit", "1000"))
	zipped := write(t, t.TempDir(), "images.gz", compressed(t, read(t, path)))
	require.Equal(t, found[3].Class, classify(t, run, zipped)[3].Class)

	stdout, _ := succeed(t, "predict", run, path, "--limit", "1")
	require.Equal(t, path+"#0\t"+found[0].Class+"\t"+strconv.FormatFloat(found[0].Score, 'f', 4, 64)+"\n", stdout)
}

func TestPredictPictures(t *testing.T) {
	data, run := finishedRun(t)
	all, err := wholeMNIST()
	require.NoError(t, err)
	folder := t.TempDir()
	digit, inverted := image.NewGray(image.Rect(0, 0, 28, 28)), image.NewGray(image.Rect(0, 0, 28, 28))
	large := image.NewGray(image.Rect(0, 0, 56, 56))
	for i, pixel := range all.Test.Image(0) {
		digit.Pix[i], inverted.Pix[i] = pixel, 255-pixel
		for k := range 4 {
			large.Pix[(i/28*2+k/2)*56+i%28*2+k%2] = pixel
		}
	}
	save := func(name string, encode func(f *os.File) error) string {
		f, err := os.Create(filepath.Join(folder, name))
		require.NoError(t, err)
		require.NoError(t, encode(f))
		require.NoError(t, f.Close())
		return f.Name()
	}
	plain := save("a.png", func(f *os.File) error { return png.Encode(f, digit) })
	black := save("b.png", func(f *os.File) error { return png.Encode(f, inverted) })
	twice := save("c.png", func(f *os.File) error { return png.Encode(f, large) })
	photo := save("d.jpeg", func(f *os.File) error { return jpeg.Encode(f, large, &jpeg.Options{Quality: 100}) })
	want := classify(t, run, filepath.Join(data, "t10k-images-idx3-ubyte"), "--limit", "1")[0]
	found := classify(t, run, plain, twice, photo)
	require.Len(t, found, 3)
	for i, path := range []string{plain, twice} {
		require.Equal(t, prediction{path, want.Class, want.Score}, found[i])
	}
	require.Equal(t, photo, found[2].Image)
	require.Equal(t, want.Class, found[2].Class)
	require.InDelta(t, want.Score, found[2].Score, 0.05)
	require.Equal(t, []prediction{{black, want.Class, want.Score}}, classify(t, run, black, "--invert"))
}
