package train

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// lenet5 is the network of the paper, built here because this package does not know the models.
func lenet5(m layers.Methods) (*layers.Network, error) {
	root := layers.Sequential{
		&layers.Conv2D{Outputs: 6, Kernel: 5, Pad: 2}, layers.ReLU{}, layers.MaxPool2D{Window: 2},
		&layers.Conv2D{Outputs: 16, Kernel: 5}, layers.ReLU{}, layers.MaxPool2D{Window: 2},
		layers.Flatten{},
		&layers.Linear{Outputs: 120}, layers.ReLU{},
		&layers.Linear{Outputs: 84}, layers.ReLU{},
		&layers.Linear{Outputs: 10},
	}
	layers.Quantize(root, m, 8)
	return layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, 1)
}

// resultKeys are all keys of result.json, and the types of what they hold where it is not null.
var resultKeys = map[string]string{
	"model": "text", "data": "text", "weights": "text", "acts": "text", "seed": "number", "epochs": "number",
	"accuracy": "object", "accuracy.float": "number", "accuracy.fake_quant": "number", "accuracy.integer": "number", "agreement": "number", "logit_difference": "number",
	"weights_sha256": "text", "bytes": "object", "bytes.float": "number", "bytes.integer": "number", "seconds": "number", "images_per_second": "number",
}

// requireKeys compares an object's keys and types with resultKeys and returns which hold null.
func requireKeys(t *testing.T, folder string) (null []string) {
	t.Helper()
	found := map[string]string{}
	var collect func(prefix string, object map[string]any)
	collect = func(prefix string, object map[string]any) {
		for key, value := range object {
			switch v := value.(type) {
			case map[string]any:
				found[prefix+key] = "object"
				collect(prefix+key+".", v)
			case string:
				found[prefix+key] = "text"
			case float64:
				found[prefix+key] = "number"
			case nil:
				found[prefix+key] = resultKeys[prefix+key]
				null = append(null, prefix+key)
			}
		}
	}
	var object map[string]any
	require.NoError(t, json.Unmarshal(read(t, folder, ResultFile), &object))
	collect("", object)
	require.Equal(t, resultKeys, found)
	slices.Sort(null)
	return null
}

// Every combination of methods runs from images to whatever it has of integers.
func TestExperimentEndToEnd(t *testing.T) {
	none := []string{"accuracy.fake_quant", "accuracy.integer", "agreement", "bytes.integer", "logit_difference"}
	codes := []string{"accuracy.integer", "agreement", "logit_difference"}
	for _, c := range []struct {
		weights, acts string
		lenet         bool
		null          []string
	}{
		{"lsq:4", "lsq:4", true, nil},
		{"lsq:2", "lsq:2", false, nil},
		{"linear:8", "linear:8", false, nil},
		{"linear:8,asymmetric", "linear:8,asymmetric", false, nil},
		{"linear:3", "lsq:5", false, nil},
		{"none", "none", false, none},
		{"lsq:4", "none", false, codes},
		{"none", "linear:8", false, []string{"accuracy.integer", "agreement", "bytes.integer", "logit_difference"}},
	} {
		t.Run(c.weights+" "+c.acts, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "new", "run")
			r := newRig(t, folder, func(config *Config) {
				config.Weights, config.Acts = quantops.MustParse(c.weights), quantops.MustParse(c.acts)
				config.Quantized.Epochs = 1
			})
			if c.lenet {
				r.Build = lenet5
				r.Data.Test = r.Data.Test.Head(64)
			}
			metrics := 0
			r.Report = func(e Event) {
				if e.Metric != nil {
					metrics++
				}
			}
			result := r.complete(t)
			require.Equal(t, c.null, requireKeys(t, folder))
			requireFiles(t, folder, r, result, metrics)
			requireModel(t, folder, r, result)
		})
	}
}

// requireFiles checks the files that every finished run has.
func requireFiles(t *testing.T, folder string, r *rig, result *Result, metrics int) {
	t.Helper()
	var stored Result
	require.NoError(t, json.Unmarshal(read(t, folder, ResultFile), &stored))
	require.Equal(t, result, &stored)
	require.Len(t, result.WeightsSHA256, 64)
	require.Positive(t, result.Seconds)
	require.Positive(t, result.ImagesPerSecond)
	require.Equal(t, bytes.Count(read(t, folder, MetricsFile), []byte("\n")), metrics)
	require.Equal(t, result.Epochs, metrics)

	c, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
	require.NoError(t, err)
	network, err := c.Network(r.Build)
	require.NoError(t, err)
	require.Equal(t, result.WeightsSHA256, WeightsHash(network))
	evaluator, err := NewEvaluator(network, 32)
	require.NoError(t, err)
	score, err := evaluator.Evaluate(r.Data.Test)
	require.NoError(t, err)
	want := result.Accuracy.FakeQuant
	if want == nil {
		want = result.Accuracy.Float
	}
	require.Equal(t, *want, score.Accuracy)
	last := c.Metrics[len(c.Metrics)-1]
	require.Equal(t, score.Accuracy, last.Accuracy)
	require.Equal(t, "test", last.Scored)
	names := slices.Sorted(maps.Keys(files(t, folder)))
	expected := []string{CheckpointFile, ConfigFile, MetricsFile, ResultFile}
	if result.Bytes.Integer != nil {
		expected = []string{CheckpointFile, ConfigFile, MetricsFile, ModelFile, ResultFile}
	}
	require.Equal(t, expected, names)
}

// requireModel checks that the integer model is what the result says of it.
func requireModel(t *testing.T, folder string, r *rig, result *Result) {
	t.Helper()
	if result.Bytes.Integer == nil {
		require.NoFileExists(t, filepath.Join(folder, ModelFile))
		return
	}
	model, err := integer.Load(filepath.Join(folder, ModelFile))
	require.NoError(t, err)
	require.Len(t, read(t, folder, ModelFile), *result.Bytes.Integer)
	require.Less(t, *result.Bytes.Integer, result.Bytes.Float)
	require.Equal(t, map[string]string{
		"model": result.Model, "data": result.Data, "weights": result.Weights, "acts": result.Acts, "weights_sha256": result.WeightsSHA256,
	}, model.Metadata)
	score, err := EvaluateModel(model, r.Data.Test)
	if result.Accuracy.Integer == nil {
		require.EqualError(t, err, "train: the model has float activations and no integer program")
		return
	}
	require.NoError(t, err)
	require.Equal(t, *result.Accuracy.Integer, score.Accuracy)
	require.Equal(t, *result.Accuracy.FakeQuant, score.Accuracy)
	require.Equal(t, 1.0, *result.Agreement)
}

func TestEvaluateModelRefuses(t *testing.T) {
	folder, _ := finishedRun(t)
	model, err := integer.Load(filepath.Join(folder, ModelFile))
	require.NoError(t, err)
	d, _ := counted(t, 5)
	_, err = EvaluateModel(model, d)
	require.EqualError(t, err, "train: the model takes images of 1x28x28, counted has 1x2x2")
	fewer := *digits(t, 1, 5).Test
	fewer.Classes = fewer.Classes[:9]
	_, err = EvaluateModel(model, &fewer)
	require.EqualError(t, err, "train: the model tells 10 classes apart, mnist has 9")
}

func TestValidationSplit(t *testing.T) {
	folder := t.TempDir()
	r := newRig(t, folder, func(c *Config) { c.Validation, c.TrainImages = 50, 170 })
	steps := 0
	r.Report = func(e Event) {
		if e.Step != nil {
			steps++
			require.Equal(t, 2*120/24, e.Step.Steps)
		}
		if e.Metric != nil {
			require.Equal(t, "validation", e.Metric.Scored)
			fifty := e.Metric.Accuracy * 50
			require.InDelta(t, float64(int(fifty+0.5)), fifty, 1e-9, "a share of 50 images")
		}
	}
	result := r.complete(t)
	require.Equal(t, 2*2*120/24, steps)
	images := *result.Accuracy.FakeQuant * 150
	require.InDelta(t, float64(int(images+0.5)), images, 1e-9, "a share of 150 images")
	require.Equal(t, 4, strings.Count(string(read(t, folder, MetricsFile)), `"scored_on":"validation"`))
}

// A network is fine-tuned from another run's checkpoint: float or quantized, what it takes are weights and biases.
func TestInitialCheckpoint(t *testing.T) {
	from, before := finishedRun(t)
	source := filepath.Join(from, CheckpointFile)
	tune := func(c *Config) {
		c.Init, c.Float.Epochs, c.Quantized.Epochs, c.Seed = source, 0, 1, 77
		c.Weights = quantops.MustParse("linear:8")
	}
	folder := t.TempDir()
	r := newRig(t, folder, tune)
	result := r.complete(t)
	require.Len(t, r.Config.InitHash, 64)
	require.Contains(t, string(read(t, folder, ConfigFile)), "init_hash: "+r.Config.InitHash+"\n")
	checkpoint, err := LoadCheckpoint(source)
	require.NoError(t, err)
	float, err := r.Build(layers.Methods{})
	require.NoError(t, err)
	require.NoError(t, adopt(float, checkpoint.Params))
	evaluator, err := NewEvaluator(float, 64)
	require.NoError(t, err)
	score, err := evaluator.Evaluate(r.Data.Test)
	require.NoError(t, err)
	require.Equal(t, score.Accuracy, *result.Accuracy.Float)
	require.NotEqual(t, before.WeightsSHA256, result.WeightsSHA256)

	// Interrupted before its first checkpoint, it starts from the file again.
	again := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(again, ConfigFile), read(t, folder, ConfigFile), 0o644))
	r = newRig(t, again, tune)
	r.Resume = true
	r.complete(t)
	requireSameRun(t, folder, again)
}

func TestInitialCheckpointIsCheckedFirst(t *testing.T) {
	run := copied(t)
	before := files(t, run)
	other := t.TempDir()
	corrupt, narrow := filepath.Join(other, "corrupt"), filepath.Join(other, "narrow")
	require.NoError(t, os.WriteFile(corrupt, []byte(before[CheckpointFile][:4000]), 0o644))
	c, err := LoadCheckpoint(filepath.Join(run, CheckpointFile))
	require.NoError(t, err)
	c.Params = slices.DeleteFunc(c.Params, func(p Tensor) bool { return p.Name == "fc1.bias" })
	require.NoError(t, c.Save(narrow))
	for _, c := range []struct{ init, hash, want string }{
		{filepath.Join(other, "missing"), "", "train: there is no " + filepath.Join(other, "missing") + ", which the run starts from: want a run folder, a checkpoint, a PyTorch or a safetensors file"},
		{corrupt, "", "train: checkpoint: it is not a whole safetensors file: "},
		{narrow, "", `train: checkpoint: it has no parameter "fc1.bias" (` + narrow + ")"},
		{narrow, "00", "train: " + narrow + " is not the file that the run was started from: its SHA-256 is "},
		{filepath.Join(run, CheckpointFile), "", "train: the run would overwrite " + filepath.Join(run, CheckpointFile) + ", which it starts from"},
	} {
		r := newRig(t, run, func(config *Config) { config.Init, config.InitHash = c.init, c.hash })
		r.Force = true
		_, err := r.Run(t.Context())
		require.ErrorContains(t, err, c.want)
		require.NotContains(t, err.Error(), "\n")
		require.Equal(t, before, files(t, run))
	}
}

// A run that diverges keeps its last good checkpoint, from which it can be resumed.
func TestDivergedRunKeepsItsLastGoodCheckpoint(t *testing.T) {
	want, _ := finishedRun(t)
	for _, c := range []struct {
		phase Phase
		step  int
		want  *DivergedError
		saved int
	}{
		{FloatPhase, 11, &DivergedError{Epoch: 2, Step: 12, Layer: "layer fc2", What: "loss"}, 10},
		{FloatPhase, 8, &DivergedError{Epoch: 1, Step: 8, Layer: "layer fc2", What: "loss of the evaluation"}, 6},
		{QuantizedPhase, 5, &DivergedError{Epoch: 1, Step: 6, Layer: "layer fc2", What: "loss"}, 4},
	} {
		folder := t.TempDir()
		r := newRig(t, folder, nil)
		r.atStep(c.phase, c.step, func() { poison(t, r.network, "fc2.bias", float32(math.NaN())) })
		_, err := r.Run(context.Background())
		require.Equal(t, c.want, err)
		checkpoint, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
		require.NoError(t, err)
		require.Equal(t, c.saved, checkpoint.Position.Step)
		r = newRig(t, folder, nil)
		r.Resume = true
		r.complete(t)
		requireSameRun(t, want, folder)
	}
}

// The quantized phase does not see the images in the order of the float phase once more.
func TestPhasesShuffleDifferently(t *testing.T) {
	r := newRig(t, t.TempDir(), nil)
	network, err := r.Build(layers.Methods{})
	require.NoError(t, err)
	float, err := r.trainer(FloatPhase, network)
	require.NoError(t, err)
	quantized, err := r.trainer(QuantizedPhase, network)
	require.NoError(t, err)
	require.NotEqual(t, float.Seed, quantized.Seed)
	require.Equal(t, []float64{0.05, 0.02}, []float64{float.LearningRate, quantized.LearningRate})
	require.Equal(t, []string{"cosine", "cosine,warmup=0.5"}, []string{float.Schedule.String(), quantized.Schedule.String()})
}

// Events come with their phase, and in the order of what happens.
func TestReports(t *testing.T) {
	r := newRig(t, t.TempDir(), func(c *Config) { c.Float.Epochs, c.Quantized.Epochs = 1, 1 })
	var heard []string
	r.Report = func(e Event) {
		switch {
		case e.Metric != nil:
			require.Equal(t, e.Phase.String(), e.Metric.Phase)
			heard = append(heard, "epoch of "+e.Phase.String())
		case e.Step == nil:
			heard = append(heard, e.Text)
		}
	}
	r.complete(t)
	require.Equal(t, []string{
		"small on mnist, weights lsq:4, activations lsq:4, seed 1, into " + r.Folder,
		"epoch of float", "calibrating on 60 images", "epoch of quantized", "scoring the integer model",
	}, heard)
}
