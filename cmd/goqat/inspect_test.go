package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/safetensors"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
)

// untrained returns a LeNet-5 as it is before training, the same on every machine.
func untrained(t *testing.T, method string, input layers.Shape) *layers.Network {
	t.Helper()
	network, err := models.New("lenet5", models.Options{
		Input: input, Classes: 10, Methods: layers.Methods{Weights: quantops.MustParse(method)}, EdgeBits: 8, Seed: 1,
	})
	require.NoError(t, err)
	return network
}

// untrainedFiles writes its float weights and the codes of its 4-bit weights, and returns their paths.
func untrainedFiles(t *testing.T) (weights, codes string) {
	t.Helper()
	folder, input := t.TempDir(), layers.Shape{Channels: 1, Height: 28, Width: 28}
	weights, codes = filepath.Join(folder, "lenet5.safetensors"), filepath.Join(folder, "lenet5.goq")
	require.NoError(t, models.WriteTensors(weights, untrained(t, "none", input)))
	model, err := untrained(t, "linear:4,per=tensor", input).Lower(nil, nil)
	require.NoError(t, err)
	model.Metadata = map[string]string{"weights": "linear:4,per=tensor"}
	require.NoError(t, integer.Save(codes, model))
	return weights, codes
}

// The text is what it was, byte for byte: go test ./cmd/goqat -run TestInspectText -update rewrites it.
func TestInspectText(t *testing.T) {
	weights, codes := untrainedFiles(t)
	for name, args := range map[string][]string{
		"weights": {weights, "--model", "lenet5", "--weights", "linear:4"},
		"float":   {weights, "--model", "lenet5", "--weights", "none"},
		"layer":   {weights, "--model", "lenet5", "--weights", "lsq:3", "--layer", "conv2"},
		"channel": {weights, "--model", "lenet5", "--weights", "linear:3", "--layer", "fc3", "--channel", "7"},
		"codes":   {codes},
		"code":    {codes, "--layer", "fc1"},
	} {
		stdout, stderr := succeed(t, append([]string{"inspect"}, args...)...)
		require.Empty(t, stderr)
		golden := filepath.Join("testdata", "inspect", name+".txt")
		if *update {
			require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
			require.NoError(t, os.WriteFile(golden, []byte(stdout), 0o644))
		}
		require.Equal(t, string(read(t, golden)), stdout, name)
		if _, histogram, found := strings.Cut(stdout, "\n\n"); found && strings.Contains(stdout, "layer  ") {
			for _, line := range strings.Split(histogram, "\n") {
				require.LessOrEqual(t, utf8.RuneCountInString(line), 80, line)
			}
		}
	}
}

// inspected runs inspect and returns what it tells programs.
func inspected[T inspection | closeup](t *testing.T, args ...string) (told T) {
	t.Helper()
	stdout, stderr := succeed(t, append([]string{"inspect", "--json"}, args...)...)
	require.Empty(t, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &told))
	return told
}

// A run, its checkpoint and its model are the same weights; the model's are those that the program has.
func TestInspectRun(t *testing.T) {
	_, run := finishedRun(t)
	folder := inspected[inspection](t, run)
	file := inspected[inspection](t, filepath.Join(run, train.CheckpointFile))
	model := inspected[inspection](t, filepath.Join(run, train.ModelFile))
	require.Equal(t, folder.Layers, file.Layers)
	require.Equal(t, int64(len(read(t, run, train.ModelFile))), folder.ModelBytes)
	require.Zero(t, file.ModelBytes)
	require.Equal(t, []string{"lsq:4", "lsq:4", "lsq:4"}, []string{folder.Methods, file.Methods, model.Methods})
	require.Equal(t, []int64{61470, folder.Bytes, 4 * 61470}, []int64{model.Weights, model.Bytes, folder.FloatBytes})
	require.InDelta(t, float64(4*(2400+48000+10080)+8*(150+840))/61470, float64(folder.MeanBits), 1e-12)
	for i, l := range folder.Layers {
		m := model.Layers[i]
		require.Equal(t, []any{l.Name, l.Shape, l.Planes, l.LevelsUsed, l.Bytes}, []any{m.Name, m.Shape, m.Planes, m.LevelsUsed, m.Bytes})
		require.Equal(t, "step", l.Parameters[0].Name)
		require.Equal(t, l.Planes[0].Scale, l.Parameters[0].Summary)
		require.Empty(t, m.Method)
		require.Zero(t, m.SquaredError)
	}
	bytes := int64(0)
	for _, l := range folder.Layers {
		bytes += l.Bytes
	}
	require.Equal(t, folder.Bytes, bytes)
}

// With --weights, the weights are quantized anew: the run's own edge bits hold unless others are given.
func TestInspectByAnotherMethod(t *testing.T) {
	_, run := finishedRun(t)
	for _, c := range []struct {
		args string
		want []string
	}{
		{"--weights linear:3", []string{"linear:8", "linear:3", "linear:8"}},
		{"--weights linear:3 --edge-bits 0", []string{"linear:3", "linear:3", "linear:3"}},
		{"--weights linear:3 --edge-bits 5", []string{"linear:5", "linear:3", "linear:5"}},
		{"--weights linear:3 --model lenet5 --edge-bits 5", []string{"linear:5", "linear:3", "linear:5"}},
		{"--weights linear:3 --model lenet5 --data mnist", []string{"linear:8", "linear:3", "linear:8"}},
		{"--weights none", []string{"none", "none", "none"}},
	} {
		told := inspected[inspection](t, append([]string{run}, strings.Fields(c.args)...)...)
		require.Equal(t, c.want, []string{told.Layers[0].Method, told.Layers[2].Method, told.Layers[4].Method}, c.args)
		require.Equal(t, strings.Fields(c.args)[1], told.Methods)
		require.Zero(t, told.ModelBytes, "the folder's model is of other codes")
	}
}

// Images of unusual size: a run's data set tells it, and for other files --data does.
func TestInspectOtherSizes(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "small.safetensors")
	small := map[string][]byte{
		"train-images-idx3-ubyte": idxImages(trainingImages, 20, 20, make([]uint8, trainingImages*400)),
		"t10k-images-idx3-ubyte":  idxImages(testImages, 20, 20, make([]uint8, testImages*400)),
	}
	data := dataFolder(t, small)
	require.NoError(t, models.WriteTensors(path, untrained(t, "none", layers.Shape{Channels: 1, Height: 20, Width: 20})))
	told := inspected[inspection](t, path, "--model", "lenet5", "--weights", "linear:4", "--data", "mnist", "--data-dir", data)
	require.Equal(t, []int{120, 144}, told.Layers[2].Shape)
	status, _, stderr := goqat("inspect", path, "--model", "lenet5", "--weights", "linear:4")
	require.Equal(t, exitFailure, status)
	require.Contains(t, stderr, "fc1.weight is [120 400], the checkpoint's fc1.weight is [120 144]")
	require.Contains(t, stderr, "images of another size than 28x28 or 32x32 need --data")

	path = filepath.Join(folder, "colour.safetensors")
	require.NoError(t, models.WriteTensors(path, untrained(t, "none", layers.Shape{Channels: 3, Height: 32, Width: 32})))
	told = inspected[inspection](t, path, "--model", "lenet5", "--weights", "linear:4")
	require.Equal(t, []int{6, 3, 5, 5}, told.Layers[0].Shape)
	require.Equal(t, []int{120, 576}, told.Layers[2].Shape)
}

func TestInspectLayer(t *testing.T) {
	_, run := finishedRun(t)
	all := inspected[inspection](t, run)
	told := inspected[closeup](t, run, "--layer", "conv2")
	require.Equal(t, all.Layers[1], told.LayerInspection)
	require.Nil(t, told.Channel)
	total := 0
	for _, n := range told.Histogram.Counts {
		total += n
	}
	require.Equal(t, 2400, total)
	require.GreaterOrEqual(t, len(told.Histogram.Levels), told.LevelsUsed)
	one := inspected[closeup](t, run, "--layer", "conv2", "--channel", "3")
	require.Equal(t, 3, *one.Channel)
	require.Less(t, one.Histogram.Counts[35], told.Histogram.Counts[35])
}

// Pictures are whole, the same every time, and not written over.
func TestInspectPlot(t *testing.T) {
	_, run := finishedRun(t)
	folder := t.TempDir()
	for _, name := range []string{"a.svg", "a.PNG"} {
		path := filepath.Join(folder, name)
		args := []string{"inspect", run, "--layer", "fc2", "--plot", path}
		stdout, _ := succeed(t, args...)
		require.Contains(t, stdout, "weights of fc2")
		first := read(t, path)
		status, _, stderr := goqat(args...)
		require.Equal(t, exitUsage, status)
		require.Equal(t, "goqat: inspect: "+path+" exists already: overwrite it with --force, or name another file\n", stderr)
		succeed(t, append(args, "--force")...)
		require.Equal(t, first, read(t, path))
		if name == "a.svg" {
			require.Contains(t, string(first), "weights of fc2 (lsq:4)")
			requireXML(t, first)
			continue
		}
		picture, err := png.Decode(bytes.NewReader(first))
		require.NoError(t, err)
		require.Greater(t, picture.Bounds().Dx(), picture.Bounds().Dy())
	}
}

func requireXML(t *testing.T, data []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else {
			require.NoError(t, err)
		}
	}
}

// A .goq file may hold any names and scales, and no layers at all.
func TestInspectOddModels(t *testing.T) {
	folder := t.TempDir()
	odd := &integer.Model{
		Input: integer.Shape{Channels: 1, Height: 1, Width: 1}, Metadata: map[string]string{"weights": "a\x1b[31m"},
		Layers: []integer.Layer{{Name: "\x1b]0;<&\n\x07", Weights: integer.Weights{
			Shape: []int{2, 2}, Bits: 16, Codes: []uint16{1, 2, 65535, 0},
			Planes: []integer.Plane{{Table: make([]int8, 1<<16), Scale: []float64{1e308, -1e308}}, {Table: make([]int8, 1<<16), Scale: []float64{1e308, 5e-324}}},
		}}, {Weights: integer.Weights{Shape: []int{1, 1}, Bits: 1, Codes: []uint16{0}, Planes: []integer.Plane{{Table: []int8{0, 0}, Scale: []float64{0}}}}}},
	}
	for p := range odd.Layers[0].Weights.Planes {
		for code := range 1 << 16 {
			odd.Layers[0].Weights.Planes[p].Table[code] = int8(code * (1 - 2*p))
		}
	}
	path, empty := filepath.Join(folder, "odd.goq"), filepath.Join(folder, "empty.goq")
	require.NoError(t, integer.Save(path, odd))
	require.NoError(t, integer.Save(empty, &integer.Model{Input: odd.Input}))
	for _, args := range [][]string{{path}, {empty}, {path, "--layer", odd.Layers[0].Name}, {path, "--layer", odd.Layers[0].Name, "--channel", "1"}, {path, "--layer", ""}} {
		stdout, _ := succeed(t, append([]string{"inspect"}, args...)...)
		require.NotContains(t, stdout, "\x1b")
		stdout, _ = succeed(t, append([]string{"inspect", "--json"}, args...)...)
		require.True(t, json.Valid([]byte(stdout)), args)
	}
	picture := filepath.Join(folder, "odd.svg")
	succeed(t, "inspect", path, "--layer", odd.Layers[0].Name, "--plot", picture)
	requireXML(t, read(t, picture))
	status, _, stderr := goqat("inspect", path, "--layer", "x")
	require.Equal(t, exitUsage, status)
	require.Equal(t, 1, strings.Count(stderr, "\n"))
	require.NotContains(t, stderr, "\x1b")
}

func TestInspectMistakes(t *testing.T) {
	_, run := finishedRun(t)
	weights, codes := untrainedFiles(t)
	folder := t.TempDir()
	checkpoint, model := read(t, run, train.CheckpointFile), read(t, codes)
	write(t, folder, "short.goq", model[:len(model)/2])
	write(t, folder, "other.goq", checkpoint)
	write(t, folder, "short", checkpoint[:len(checkpoint)/2])
	write(t, folder, "text", []byte("text"))
	flipped := append([]byte{}, checkpoint...)
	flipped[len(flipped)-9] ^= 4
	write(t, folder, "flipped", flipped)
	vector, err := safetensors.Encode(&safetensors.File{Tensors: []safetensors.Tensor{safetensors.FromFloat32("fc.weight", []int{4}, make([]float32, 4))}})
	require.NoError(t, err)
	write(t, folder, "vector", vector)
	many, err := safetensors.Encode(&safetensors.File{Tensors: []safetensors.Tensor{
		safetensors.FromFloat32("conv1.weight", []int{6, 1, 5, 5}, make([]float32, 150)), safetensors.FromFloat32("fc3.weight", []int{70000, 1}, make([]float32, 70000)),
	}})
	require.NoError(t, err)
	write(t, folder, "many", many)
	requireMistakes(t, map[string]string{"run": run, "dir": folder, "weights": weights, "codes": codes}, []mistake{
		{"inspect", exitUsage, "takes one run folder, checkpoint or .goq file, got 0"},
		{"inspect {run} {run}", exitUsage, "got 2"},
		{"inspect missing", exitFailure, "missing: no such file or directory"},
		{"inspect missing.goq", exitFailure, "missing.goq: no such file or directory"},
		{"inspect {dir}", exitUsage, "{dir} is not a run folder: it has no checkpoint.safetensors"},
		{"inspect {run} --layer conv9", exitUsage, `inspect: no layer "conv9": want one of conv1, conv2, fc1, fc2, fc3`},
		{"inspect {codes} --layer conv9", exitUsage, `inspect: no layer "conv9": want one of conv1, conv2, fc1, fc2, fc3`},
		{"inspect {run} --layer conv1 --channel 6", exitUsage, "conv1 has no output channel 6: want 0 to 5"},
		{"inspect {run} --layer conv1 --channel -2", exitUsage, "channel -2: want 0 or more, or -1 for all"},
		{"inspect {run} --channel 1", exitUsage, "--plot and --channel go with --layer"},
		{"inspect {run} --plot x.svg", exitUsage, "--plot and --channel go with --layer"},
		{"inspect {run} --layer conv1 --plot x.pdf", exitUsage, "plot x.pdf: want a file name that ends in .svg or .png"},
		{"inspect {run} --layer conv1 --plot missing/x.svg", exitFailure, "missing/"},
		{"inspect {run} --layer conv1 --plot {run}/model.goq", exitUsage, "want a file name that ends in .svg or .png"},
		{"inspect {run} --edge-bits 4", exitUsage, "--edge-bits goes with --weights"},
		{"inspect {run} --weights linear:4 --edge-bits -1", exitUsage, "-1 edge bits: want a positive number, or 0"},
		{"inspect {run} --data mnist", exitUsage, "--data goes with --model"},
		{"inspect {run} --weights lsk:4", exitUsage, `inspect: --weights: quantops: unknown method "lsk": did you mean "lsq"?`},
		{"inspect {run} --weights lsq:4 --edge-bits 1", exitUsage, "linear have 2 to 8 bits"},
		{"inspect {run} --weights lsq:9", exitUsage, `method "lsq:9": lsq has 2 to 8 bits`},
		{"inspect {run} --weights linear:4,range=narrow,asymmetric", exitUsage, "range=narrow is for signed codes"},
		{"inspect {weights}", exitFailure, "weights of PyTorch or safetensors files need --model"},
		{"inspect {weights} --model lenet5", exitUsage, "--model needs --weights with the method to quantize its weights by"},
		{"inspect {weights} --model lenet --weights lsq:4", exitUsage, `unknown model "lenet": did you mean "lenet5"?`},
		{"inspect {weights} --model resnet20 --weights lsq:4", exitFailure, "the checkpoint does not fit the network: no tensor for "},
		{"inspect {weights} --model lenet5 --weights lsq:4 --data mnis", exitUsage, `unknown dataset "mnis": did you mean "mnist"?`},
		{"inspect {weights} --model lenet5 --weights lsq:4 --data mnist --data-dir nowhere", exitFailure, "nowhere"},
		{"inspect {weights} --model lenet5 --weights lsq:4 --data-dir {run}", exitUsage, "--data-dir goes with --data"},
		{"inspect {codes} --data-dir {run}", exitUsage, "--data-dir are for checkpoints"},
		{"inspect {codes} --weights lsq:4", exitUsage, "holds no real weights that another method could quantize"},
		{"inspect {codes} --model lenet5 --weights lsq:4", exitUsage, "holds no real weights that another method could quantize"},
		{"inspect {dir}/short.goq", exitFailure, "{dir}/short.goq is no valid .goq file: byte "},
		{"inspect {dir}/other.goq", exitFailure, "{dir}/other.goq is no valid .goq file: byte "},
		{"inspect {dir}/short", exitFailure, "checkpoint: it is not a whole safetensors file"},
		{"inspect {dir}/flipped", exitFailure, "its checksum is wrong: the file is damaged"},
		{"inspect {dir}/text --model lenet5 --weights lsq:4", exitFailure, "{dir}/text"},
		{"inspect {dir}/short --model lenet5 --weights lsq:4", exitFailure, "{dir}/short"},
		{"inspect {dir}/vector --model lenet5 --weights lsq:4", exitFailure, "no convolution of 1 or 3 channels with a linear layer"},
		{"inspect {dir}/many --model lenet5 --weights lsq:4", exitFailure, "no convolution of 1 or 3 channels with a linear layer"},
	})
}

// A method's page is what its file says.
func TestListMethodPage(t *testing.T) {
	for _, s := range quantops.All() {
		stdout, stderr := succeed(t, "list", s.Name)
		require.Empty(t, stderr)
		require.Contains(t, stdout, s.Doc)
		require.Contains(t, stdout, s.Page())
		for _, o := range s.Options {
			require.Contains(t, stdout, o.Name+"="+o.Default)
			require.Contains(t, stdout, o.Doc)
		}
		stdout, _ = succeed(t, "list", s.Name, "--json")
		var l listing
		require.NoError(t, json.Unmarshal([]byte(stdout), &l))
		require.Len(t, l.Methods, 1)
		require.Equal(t, s.Page(), l.Methods[0].Page)
		require.Empty(t, l.Models)
	}
	status, _, stderr := goqat("list", "lsk")
	require.Equal(t, exitUsage, status)
	require.Contains(t, stderr, `list: no kind "lsk": want one of methods, models, datasets, or one of the methods `)
	require.Contains(t, stderr, "lsq")
	offered, _ := succeed(t, "__complete", "list", "")
	require.Subset(t, strings.Split(offered, "\n"), []string{"methods", "linear", "lsq"})
}
