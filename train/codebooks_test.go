package train

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// newPQ quantizes a trained model by codebooks.
func newPQ(t *testing.T, model, weights string, change func(*PostTraining)) *PostTraining {
	t.Helper()
	return newPost(t, model, filepath.Join(t.TempDir(), "run"), func(p *PostTraining) {
		p.Config.Weights = quantops.MustParse(weights)
		p.Config.Acts = quantops.MustParse("linear:8")
		if change != nil {
			change(p)
		}
	})
}

func networkOf(t *testing.T, p *PostTraining) (*Checkpoint, *layers.Network) {
	t.Helper()
	c, err := LoadCheckpoint(filepath.Join(p.Folder, CheckpointFile))
	require.NoError(t, err)
	network, err := c.Network(p.Build)
	require.NoError(t, err)
	return c, network
}

// Codebooks are found layer by layer; their training brings the network closer to the float one, and integers do what it does.
func TestPostTrainingOfCodebooks(t *testing.T) {
	for _, weights := range []string{"pq", "pq:assign=weighted", "kmeans:3"} {
		losses := map[int]float64{}
		for _, steps := range []int{0, 30} {
			p := newPQ(t, "small", weights, func(p *PostTraining) { p.CentroidSteps, p.CentroidRate = steps, 0.05 })
			r := quantized(t, p)
			require.Equal(t, 1.0, *r.Agreement)
			require.Zero(t, *r.LogitDifference)
			require.Equal(t, *r.Accuracy.FakeQuant, *r.Accuracy.Integer)
			require.Len(t, r.Codebooks, 2)
			require.Equal(t, "conv2", r.Codebooks[0].Layer)
			require.Greater(t, float64(r.Codebooks[1].Error), 0.0)
			require.Less(t, float64(r.Codebooks[1].Error), 0.7)
			require.Equal(t, steps == 0, math.IsNaN(float64(r.Codebooks[1].After)))
			_, network := networkOf(t, p)
			require.Equal(t, r.WeightsSHA256, WeightsHash(network))
			score, err := evaluate(t.Context(), network, p.Data.Test)
			require.NoError(t, err)
			require.Equal(t, *r.Accuracy.FakeQuant, score.Accuracy, "reloaded")
			losses[steps] = score.Loss
		}
		require.Less(t, losses[30], losses[0], weights)
	}
}

// Steps train centroids alone: codes, real weights and biases stay.
func TestCodebookSearchTrainsCentroids(t *testing.T) {
	data := digits(t, 300, 10).Train
	float := newSmall(t, methods("none", "none"), data)
	found := func(steps int) map[string]Tensor {
		network, err := smallNetwork(methods("pq:d=3", "none"), 8, 1)
		require.NoError(t, err)
		require.NoError(t, adopt(network, floatSnapshot(float)))
		s := &CodebookSearch{Float: float, Data: data, Steps: steps, LearningRate: 0.1, Batch: 32, Seed: 1}
		require.NoError(t, s.Run(t.Context(), network))
		return tensorsByName(snapshot(network))
	}
	before, after := found(0), found(10)
	for name := range before {
		trained := name == "fc1.weight.centroids" || name == "conv2.weight.centroids"
		require.Equal(t, !trained, slices.Equal(before[name].Data, after[name].Data), name)
	}
}

// Training that makes a layer worse is undone, and it is said so.
func TestCodebookSearchUndoesBadTraining(t *testing.T) {
	data := digits(t, 300, 10).Train
	float, err := smallNetwork(layers.Methods{}, 0, 1)
	require.NoError(t, err)
	c, err := LoadCheckpoint(filepath.Join(trainedFloat(t, "small"), CheckpointFile))
	require.NoError(t, err)
	require.NoError(t, adopt(float, c.Params))
	run := func(steps int, rate float64) (done []CodebookStep, params map[string]Tensor) {
		network, err := smallNetwork(methods("pq:d=3", "none"), 8, 1)
		require.NoError(t, err)
		require.NoError(t, adopt(network, floatSnapshot(float)))
		s := &CodebookSearch{
			Float: float, Data: data, Steps: steps, LearningRate: rate, Batch: 32, Seed: 1,
			Report: func(s CodebookStep) { done = append(done, s) },
		}
		require.NoError(t, s.Run(t.Context(), network))
		return done, tensorsByName(snapshot(network))
	}
	_, found := run(0, 1)
	for _, c := range []struct {
		rate   float64
		undone bool
	}{{0.5, false}, {8, true}} {
		done, after := run(20, c.rate)
		require.Len(t, done, 2)
		for _, s := range done {
			name := s.Layer + ".weight.centroids"
			require.Equal(t, c.undone, s.Undone, s)
			require.Equal(t, c.undone, s.After >= s.Before)
			require.Equal(t, c.undone, slices.Equal(found[name].Data, after[name].Data), name)
			require.Equal(t, c.undone, strings.HasSuffix(s.String(), ": centroids are left as found"))
			require.Contains(t, s.String(), fmt.Sprintf("; mean loss on the batches of the last tenth of the steps %.4f as found, %.4f trained", float64(s.Before), float64(s.After)))
		}
		again, same := run(20, c.rate)
		require.Equal(t, done, again)
		require.Equal(t, after, same)
	}
}

// Where training is undone everything is as if there had been none; statistics of batch normalization too.
func TestUndoneTrainingLeavesNothing(t *testing.T) {
	run := func(steps int, rate float64) (*PostTrainingResult, map[string]Tensor) {
		p := newPQ(t, "normalized", "kmeans:6", func(p *PostTraining) { p.CentroidSteps, p.CentroidRate, p.ReestimateBN = steps, rate, 0 })
		r := quantized(t, p)
		c, _ := networkOf(t, p)
		return r, tensorsByName(c.Params)
	}
	r, undone := run(20, 50)
	require.Len(t, r.Codebooks, 1)
	require.True(t, r.Codebooks[0].Undone)
	_, found := run(0, 0)
	require.Equal(t, found, undone)
}

// The number of threads does not matter; the seed does.
func TestCodebookSearchIsTheSameForAnyNumberOfThreads(t *testing.T) {
	run := func(threads int, seed uint64) string {
		p := newPQ(t, "normalized", "pq:d=3,assign=weighted", func(p *PostTraining) { p.CentroidSteps, p.CentroidRate, p.Config.Seed = 4, 0.3, seed })
		before := runtime.GOMAXPROCS(threads)
		defer runtime.GOMAXPROCS(before)
		return quantized(t, p).WeightsSHA256
	}
	require.Equal(t, run(1, 1), run(3, 1))
	require.NotEqual(t, run(2, 1), run(2, 2))
}

// A run that starts from another's codebooks keeps their codes; other methods get the weights that they stand for.
func TestRunsGoOnFromCodes(t *testing.T) {
	p := newPQ(t, "small", "pq", func(p *PostTraining) { p.CentroidSteps, p.CentroidRate = 5, 0.05 })
	quantized(t, p)
	before, _ := networkOf(t, p)
	codes := func(c *Checkpoint) (all []Tensor) {
		for _, t := range c.Params {
			if filepath.Ext(t.Name) == ".codes" {
				all = append(all, t)
			}
		}
		return all
	}
	var texts []string
	goOn := func(weights string, float int) (*Checkpoint, *Result) {
		folder := t.TempDir()
		texts = nil
		r := newRig(t, folder, func(c *Config) {
			c.Init, c.Float.Epochs, c.Quantized.Epochs = p.Folder, float, 1
			c.Weights, c.Acts = quantops.MustParse(weights), quantops.MustParse("linear:8")
		})
		r.Report = func(e Event) { texts = append(texts, e.Text) }
		result := r.complete(t)
		c, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
		require.NoError(t, err)
		return c, result
	}
	same, result := goOn("pq", 0)
	require.Equal(t, 1.0, *result.Agreement)
	require.Len(t, codes(before), 2)
	require.Equal(t, codes(before), codes(same))
	anew := "codes are found anew: " + p.Folder + " has pq"
	require.NotContains(t, texts, anew)
	centroids := tensorsByName(same.Params)["fc1.weight.centroids"]
	require.NotEqual(t, tensorsByName(before.Params)["fc1.weight.centroids"], centroids, "they are trained")
	require.Equal(t, tensorsByName(before.Params)["fc1.weight"], tensorsByName(same.Params)["fc1.weight"], "and real weights are not")
	trained, _ := goOn("pq", 1)
	require.NotEqual(t, codes(before), codes(trained), "weights have been trained")
	other, _ := goOn("pq:k=16", 0)
	require.NotEqual(t, codes(before), codes(other))
	require.Contains(t, texts, anew)

	plain, err := smallNetwork(layers.Methods{}, 0, 1)
	require.NoError(t, err)
	require.NoError(t, adopt(plain, expanded(before.Params)))
	values := map[float32]bool{}
	for _, w := range theta(t, plain, "fc1.weight") {
		values[w] = true
	}
	require.LessOrEqual(t, len(values), 64*4)
	for _, v := range tensorsByName(before.Params)["fc1.weight.centroids"].Data {
		delete(values, v)
	}
	require.Empty(t, values)
}

// The same bits come of it however many threads there are and whether the run is interrupted or not.
func TestCodebooksAreTrainedToTheSameBits(t *testing.T) {
	init := newPQ(t, "normalized", "pq", nil)
	quantized(t, init)
	run := func(stop int) string {
		folder := t.TempDir()
		change := func(c *Config) {
			c.Model, c.Init, c.Float.Epochs, c.Quantized.Epochs = "normalized", init.Folder, 0, 2
			c.Weights, c.Acts = quantops.MustParse("pq"), quantops.MustParse("linear:8")
		}
		r := newRig(t, folder, change)
		if stop > 0 {
			ctx, cancel := context.WithCancel(t.Context())
			r.Report = func(e Event) {
				if e.Step != nil && e.Step.Position.Step == stop {
					cancel()
				}
			}
			_, err := r.Run(ctx)
			require.ErrorIs(t, err, ErrInterrupted)
			hash := r.Config.InitHash
			r = newRig(t, folder, change)
			r.Resume, r.Config.InitHash = true, hash
		}
		return r.complete(t).WeightsSHA256
	}
	require.Equal(t, run(0), run(2))
}

// Weighted assignment is found in calibration where nobody has searched before.
func TestCalibrationFindsWeightedCodebooks(t *testing.T) {
	data := digits(t, 200, 10).Train
	network := newSmall(t, methods("none", "none"), data)
	coded, err := smallNetwork(methods("pq:assign=weighted,d=1,pointwise=2", "linear:8"), 0, 1)
	require.NoError(t, err)
	require.NoError(t, adopt(coded, floatSnapshot(network)))
	require.NoError(t, Calibrate(coded, data, 100))
	for _, book := range coded.Codebooks() {
		require.True(t, book.Found(), book.Layer)
	}
	first := WeightsHash(coded)
	require.NoError(t, Calibrate(coded, data, 100))
	require.Equal(t, first, WeightsHash(coded), "codes stay")

	blank := &datasets.Dataset{Name: "blank", Channels: 1, Height: 28, Width: 28, Pixels: make([]uint8, 50*28*28), Labels: make([]uint16, 50), Mean: []float32{0}, Std: []float32{1}, Classes: data.Classes}
	dead, err := smallNetwork(methods("pq:assign=weighted,d=1", "none"), 0, 1)
	require.NoError(t, err)
	require.ErrorContains(t, Calibrate(dead, blank, 50), "conv1: quantops: the inputs of the layer are all zero")
}

// The Gram matrix of vectors is that of the blocks of the layer's inputs.
func TestGramOfVectors(t *testing.T) {
	data := digits(t, 40, 10).Train
	network := newSmall(t, methods("none", "none"), data)
	books, err := smallNetwork(methods("pq:assign=weighted,d=1,pointwise=8", "none"), 0, 1)
	require.NoError(t, err)
	require.NoError(t, adopt(books, floatSnapshot(network)))
	book := books.Codebooks()[2]
	require.Equal(t, "fc1", book.Layer)
	gram, err := gramOf(t.Context(), books, book, data, 40)
	require.NoError(t, err)
	moments, err := (&Collection{Network: network, Data: data, Images: 40}).Run(t.Context(), "fc1")
	require.NoError(t, err)
	whole, trace := moments[0].Groups[0], 0.0
	for i := range whole.Inputs {
		trace += whole.Gram[i*whole.Inputs+i]
	}
	sum := 0.0
	for i := range 8 {
		sum += gram[i*8+i]
	}
	require.InEpsilon(t, trace, sum, 1e-9)
	want := 0.0
	for from := 0; from < whole.Inputs; from += 8 {
		want += whole.Gram[(from+2)*whole.Inputs+from+5]
	}
	require.InDelta(t, want, gram[2*8+5], 1e-9*trace)
	v := make([]float32, 16)
	for i := range v {
		v[i] = float32(random.New(1, "energy").Normal())
	}
	require.InEpsilon(t, energy(v[:8], 8, gram)+energy(v[8:], 8, gram), energy(v, 8, gram), 1e-12)
	require.InEpsilon(t, 5.0, energy([]float32{1, 2}, 2, nil), 1e-12)
}

func TestCodebookSearchRefuses(t *testing.T) {
	data := digits(t, 40, 10).Train
	network := newSmall(t, methods("none", "none"), data)
	for want, s := range map[string]*CodebookSearch{
		"codebooks without float network or data":                                    {Data: data},
		"-1 steps of 0 images at rate 0 for codebooks: want 0 or more of at least 1": {Float: network, Data: data, Steps: -1},
		"3 steps of 8 images at rate 0 for codebooks":                                {Float: network, Data: data, Steps: 3, Batch: 8},
		"steps of 41 images for codebooks: there are only 40":                        {Float: network, Data: data, Steps: 3, Batch: 41, LearningRate: 1},
	} {
		require.ErrorContains(t, s.Run(t.Context(), network), want)
	}
	for want, change := range map[string]func(*PostTraining){
		"weights of linear:3 have no centroids to train": func(p *PostTraining) { p.CentroidSteps, p.CentroidRate = 3, 0.1 },
		"-3 steps for centroids at rate 0":               func(p *PostTraining) { p.CentroidSteps = -3 },
	} {
		_, err := newPost(t, "small", t.TempDir(), change).Run(t.Context())
		require.ErrorContains(t, err, want)
		require.ErrorAs(t, err, new(*UsageError))
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := newPQ(t, "small", "pq", func(p *PostTraining) {
		p.CentroidSteps, p.CentroidRate = 50, 0.1
		p.Report = func(e Event) { cancel() }
	})
	_, err := p.Run(ctx)
	require.ErrorIs(t, err, ErrInterrupted)
	require.Empty(t, slices.Collect(func(yield func(string) bool) {
		for name := range files(t, p.Folder) {
			yield(name)
		}
	}))
}
