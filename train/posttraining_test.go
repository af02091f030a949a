package train

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// floatRun is a float run that several tests quantize, and none changes.
var floatRun = struct {
	sync.Mutex
	folders map[string]string // by model
}{folders: map[string]string{}}

// trainedFloat returns the folder of a float run of a model.
func trainedFloat(t *testing.T, model string) string {
	t.Helper()
	floatRun.Lock()
	defer floatRun.Unlock()
	if floatRun.folders[model] == "" {
		folder := filepath.Join(shared, "float-"+model)
		newRig(t, folder, func(c *Config) {
			c.Model, c.Float.Epochs = model, 12
			c.Weights, c.Acts = methods("none", "none").Weights, methods("none", "none").Activations
		}).complete(t)
		floatRun.folders[model] = folder
	}
	return floatRun.folders[model]
}

// newPost quantizes a trained model into a folder; change may alter the settings.
func newPost(t *testing.T, model, folder string, change func(*PostTraining)) *PostTraining {
	t.Helper()
	r := newRig(t, folder, func(c *Config) {
		c.Model, c.Init, c.Batch, c.AugmentPad = model, trainedFloat(t, model), 50, 1
		c.Weights, c.Acts = methods("linear:3", "linear:4").Weights, methods("linear:3", "linear:4").Activations
	})
	p := &PostTraining{Experiment: *r.Experiment, ReestimateBN: 200}
	if change != nil {
		change(p)
	}
	return p
}

func quantized(t *testing.T, p *PostTraining) *PostTrainingResult {
	t.Helper()
	r, err := p.Run(t.Context())
	require.NoError(t, err)
	return r
}

// A run folder comes of it that tells what was done, and whose checkpoint and model are the network that was scored.
func TestPostTraining(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	p := newPost(t, "normalized", folder, func(p *PostTraining) { p.Recalibrate, p.CorrectBias, p.Config.Seed = true, true, 5 })
	var texts []string
	p.Report = func(e Event) {
		require.Equal(t, QuantizedPhase, e.Phase)
		texts = append(texts, e.Text)
	}
	r := quantized(t, p)
	require.ElementsMatch(t, []string{CheckpointFile, ModelFile, ResultFile}, slices.Collect(maps.Keys(files(t, folder))))
	var stored PostTrainingResult
	require.NoError(t, json.Unmarshal(read(t, folder, ResultFile), &stored))
	require.Equal(t, r, &stored)
	require.Equal(t, []string{
		"normalized on mnist, weights linear:3, activations linear:4, without training, into " + folder, "calibrating on 60 images",
		"taking the statistics of batch normalization anew on 200 images", "calibrating again", "correcting biases on 60 images",
		"scoring the float and the quantized network", "scoring the integer model",
	}, texts)

	c, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
	require.NoError(t, err)
	network, err := c.Network(p.Build)
	require.NoError(t, err)
	require.Equal(t, r.WeightsSHA256, WeightsHash(network))
	evaluator, err := NewEvaluator(network, 32)
	require.NoError(t, err)
	score, err := evaluator.Evaluate(p.Data.Test)
	require.NoError(t, err)
	require.NoError(t, evaluator.Close())
	model, err := integer.Load(filepath.Join(folder, ModelFile))
	require.NoError(t, err)
	integers, err := EvaluateModel(model, p.Data.Test)
	require.NoError(t, err)
	var before Result
	require.NoError(t, json.Unmarshal(read(t, trainedFloat(t, "normalized"), ResultFile), &before))
	require.Equal(t, *before.Accuracy.Float, c.Accuracy)

	edges := len(theta(t, network, "conv1.weight")) + len(theta(t, network, "fc.weight"))
	one, zero, bits, size := 1.0, 0.0, float64(8*edges+3*144)/float64(edges+144), len(read(t, folder, ModelFile))
	want := &PostTrainingResult{
		Result: Result{
			Model: "normalized", Data: "mnist", Weights: "linear:3", Acts: "linear:4", Seed: 5, Agreement: &one, LogitDifference: &zero, WeightsSHA256: r.WeightsSHA256,
			Accuracy: Accuracies{Float: before.Accuracy.Float, FakeQuant: &score.Accuracy, Integer: &integers.Accuracy},
			Bytes:    Sizes{Float: floatBytes(network), Integer: &size}, Seconds: r.Seconds,
		},
		StoredBits: &bits, Init: trainedFloat(t, "normalized"), InitHash: r.InitHash, EdgeBits: 8,
		StoredBitsNote: fmt.Sprintf("3 bits for the 144 weights of 1 layer, 8 bits for the %d weights of 2 layers; tables, scales and biases not counted", edges),
		Calibration:    60, ReestimateBN: 200, Batch: 50, AugmentPad: 1, Recalibrate: true, CorrectBias: true,
	}
	require.Equal(t, want, r)
	require.Len(t, r.InitHash, 64)
	require.Positive(t, r.Seconds)

	tuned := newRig(t, t.TempDir(), func(c *Config) {
		c.Model, c.Init, c.Float.Epochs, c.Weights = "normalized", folder, 0, methods("lsq:3", "none").Weights
	}).complete(t)
	require.Equal(t, 1.0, *tuned.Agreement, "training goes on from it")
}

// The steps do what they are for: with few bits, statistics or biases of the quantized network give back what the
// float network's lose.
func TestPostTrainingSteps(t *testing.T) {
	loss := func(change func(*PostTraining)) (loss float64, hash string) {
		p := newPost(t, "normalized", t.TempDir(), func(p *PostTraining) {
			p.Config.Weights, p.Config.EdgeBits, p.ReestimateBN = methods("linear:2", "none").Weights, 0, 0
			change(p)
		})
		r := quantized(t, p)
		c, err := LoadCheckpoint(filepath.Join(p.Folder, CheckpointFile))
		require.NoError(t, err)
		network, err := c.Network(p.Build)
		require.NoError(t, err)
		evaluator, err := NewEvaluator(network, 32)
		require.NoError(t, err)
		defer evaluator.Close()
		score, err := evaluator.Evaluate(p.Data.Test)
		require.NoError(t, err)
		return score.Loss, r.WeightsSHA256
	}
	hashes := map[string]bool{}
	losses := map[string]float64{}
	for name, change := range map[string]func(*PostTraining){
		"plain":      func(*PostTraining) {},
		"statistics": func(p *PostTraining) { p.ReestimateBN = 200 },
		"calibrated": func(p *PostTraining) { p.ReestimateBN, p.Recalibrate = 200, true },
		"bias":       func(p *PostTraining) { p.CorrectBias = true },
		"both":       func(p *PostTraining) { p.ReestimateBN, p.CorrectBias = 200, true },
	} {
		var hash string
		losses[name], hash = loss(change)
		hashes[hash] = true
	}
	require.Len(t, hashes, 5, "every setting has an effect")
	for _, name := range []string{"statistics", "calibrated", "bias", "both"} {
		require.Less(t, losses[name], 0.9*losses["plain"], "%s: %v", name, losses)
	}
}

// The number of threads does not matter; the seed does.
func TestPostTrainingIsTheSameForAnyNumberOfThreads(t *testing.T) {
	run := func(threads int, seed uint64) (checkpoint []Tensor, model string) {
		p := newPost(t, "normalized", t.TempDir(), func(p *PostTraining) { p.CorrectBias, p.ReestimateBN, p.Config.Seed = true, 100, seed })
		before := runtime.GOMAXPROCS(threads)
		defer runtime.GOMAXPROCS(before)
		quantized(t, p)
		c, err := LoadCheckpoint(filepath.Join(p.Folder, CheckpointFile))
		require.NoError(t, err)
		return c.Params, string(read(t, p.Folder, ModelFile))
	}
	params, model := run(1, 1)
	for _, threads := range []int{2, 3} {
		again, same := run(threads, 1)
		require.Equal(t, params, again)
		require.Equal(t, model, same)
	}
	other, _ := run(2, 2)
	require.NotEqual(t, params, other)
}

// Without normalization there are no statistics; without integers there is no model, or none that runs.
func TestPostTrainingInPart(t *testing.T) {
	for _, c := range []struct {
		weights, acts string
		texts         []string
		files         []string
	}{
		{"linear:4", "linear:4", []string{"small has no batch normalization whose statistics could be taken anew"}, []string{CheckpointFile, ModelFile, ResultFile}},
		{"linear:4", "none", []string{"float activations have no integer run: model.goq holds codes and tables"}, []string{CheckpointFile, ModelFile, ResultFile}},
		{"none", "linear:4", []string{"float weights have no integers: no model is exported"}, []string{CheckpointFile, ResultFile}},
	} {
		var texts []string
		p := newPost(t, "small", t.TempDir(), func(p *PostTraining) {
			m := methods(c.weights, c.acts)
			p.Config.Weights, p.Config.Acts = m.Weights, m.Activations
			p.Report = func(e Event) { texts = append(texts, e.Text) }
		})
		r := quantized(t, p)
		require.Subset(t, texts, c.texts)
		require.ElementsMatch(t, c.files, slices.Collect(maps.Keys(files(t, p.Folder))))
		require.Zero(t, r.ReestimateBN)
		runs := c.weights != "none" && c.acts != "none"
		require.Equal(t, runs, r.Agreement != nil && r.LogitDifference != nil && r.Accuracy.Integer != nil)
		require.Equal(t, c.weights != "none", r.StoredBits != nil && r.Bytes.Integer != nil && r.StoredBitsNote != "")
		require.Greater(t, *r.Accuracy.FakeQuant, 0.5)
	}
}

// What can't be is refused before anything is written.
func TestPostTrainingRefuses(t *testing.T) {
	for want, change := range map[string]func(*PostTraining){
		"neither weights nor activations have a method: there is nothing to quantize": func(p *PostTraining) {
			p.Config.Weights, p.Config.Acts = methods("none", "none").Weights, methods("none", "none").Activations
		},
		"quantization without training needs the weights of a network: want init": func(p *PostTraining) { p.Config.Init = "" },
		"re-estimation of batch normalization on -1 images: want 0 to 2147483647": func(p *PostTraining) { p.ReestimateBN = -1 },
		"calibrating again comes after a re-estimation of batch normalization: want both or neither": func(p *PostTraining) {
			p.ReestimateBN, p.Recalibrate = 0, true
		},
		"fold_bn, teacher and resuming are of training":         func(p *PostTraining) { p.Resume = true },
		"calibration on 0 images: want at least 1":              func(p *PostTraining) { p.Config.Calibration = 0 },
		"batch of 201 images: the training set has only 200":    func(p *PostTraining) { p.Config.Batch = 201 },
		"is not a run folder: it has no checkpoint.safetensors": func(p *PostTraining) { p.Config.Init = p.Folder },
		"would overwrite": func(p *PostTraining) { p.Folder, p.Force = p.Config.Init, true },
		"holds a config.yaml already: name another folder, or ov": func(p *PostTraining) { p.Folder = trainedFloat(t, "normalized") },
	} {
		p := newPost(t, "small", t.TempDir(), change)
		before := files(t, p.Folder)
		_, err := p.Run(t.Context())
		require.ErrorContains(t, err, want)
		require.ErrorAs(t, err, new(*UsageError))
		require.Equal(t, before, files(t, p.Folder))
	}
}

// Whenever it is interrupted, the folder stays as it was: a run that would have been overwritten too.
func TestInterruptedPostTraining(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(trainedFloat(t, "small"))))
	before := files(t, folder)
	for _, step := range []string{"without training", "calibrating", "anew", "again", "biases", "the float", "integer"} {
		ctx, cancel := context.WithCancel(t.Context())
		p := newPost(t, "normalized", folder, func(p *PostTraining) { p.Force, p.Recalibrate, p.CorrectBias = true, true, true })
		reached := false
		p.Report = func(e Event) {
			if strings.Contains(e.Text, step) {
				reached = true
				cancel()
			}
		}
		_, err := p.Run(ctx)
		require.ErrorIs(t, err, ErrInterrupted, step)
		require.True(t, reached, step)
		require.Equal(t, before, files(t, folder), step)
	}
	quantized(t, newPost(t, "normalized", folder, func(p *PostTraining) { p.Force = true }))
	require.ElementsMatch(t, []string{CheckpointFile, ModelFile, ResultFile}, slices.Collect(maps.Keys(files(t, folder))))
}
