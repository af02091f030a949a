package train

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// searching is a run that searches for weights.
func searching(weights, acts, state string) func(*Config) {
	return func(c *Config) {
		c.Model, c.Weights, c.Acts, c.EdgeBits = "normalized", quantops.MustParse(weights), quantops.MustParse(acts), 8
		if err := c.StateBN.UnmarshalText([]byte(state)); err != nil {
			panic(err)
		}
	}
}

// stackedNetwork is convolutions with batch normalization on top of each other.
func stackedNetwork(m layers.Methods, edgeBits int, seed uint64) (*layers.Network, error) {
	root := layers.Sequential{&layers.Conv2D{Outputs: 6, Kernel: 5, Stride: 3, NoBias: true}, &layers.BatchNorm{}, layers.ReLU{}}
	for range 4 {
		root = append(root, &layers.Conv2D{Outputs: 6, Kernel: 3, Pad: 1, NoBias: true}, &layers.BatchNorm{}, layers.ReLU{})
	}
	root = append(root, layers.MaxPool2D{Window: 2}, layers.Flatten{}, &layers.Linear{Outputs: 10})
	layers.Quantize(root, m, edgeBits)
	return layers.NewNetwork(root, layers.Shape{Channels: 1, Height: 28, Width: 28}, seed)
}

// Soft and hard weights part on the way, and statistics of hard weights close the gap that those of soft ones leave.
func TestStateBatchNormClosesTheGap(t *testing.T) {
	for _, state := range []string{"step", "epoch", "3"} {
		r := newRig(t, t.TempDir(), func(c *Config) {
			searching("lbw:1", "none", state)(c)
			c.Model, c.Anneal, c.Quantized.Epochs, c.Float.Epochs = "stacked", "exp,from=1,to=2,end=1", 2, 5
		})
		r.Data = digits(t, 1200, 500)
		r.complete(t)
		m := r.saved.Metrics[len(r.saved.Metrics)-1]
		require.NotNil(t, m.Search)
		require.InDelta(t, 0.5, m.Search.Temperature, 0.05)
		require.Positive(t, m.Search.Entropy)
		require.Positive(t, m.Search.Gap)
		t.Logf("%s: soft %.3f, hard %.3f, hard without state batch normalization %.3f", state, m.Search.Soft, m.Accuracy, *m.Search.Unmatched)
		require.Greater(t, m.Accuracy, *m.Search.Unmatched+0.1, state)
		require.Greater(t, m.Accuracy, m.Search.Soft-0.2, state)
	}
}

// A search begins with statistics of its own hard weights, however often steps look at them.
func TestHardStatisticsAtTheStart(t *testing.T) {
	float := newRig(t, t.TempDir(), func(c *Config) {
		searching("none", "none", "off")(c)
		c.Model, c.Float.Epochs = "stacked", 5
	})
	float.Data = digits(t, 1200, 500)
	float.complete(t)
	start := func(state string) float64 {
		r := newRig(t, t.TempDir(), func(c *Config) {
			searching("lbw:2", "none", state)(c)
			c.Model, c.Init, c.Float.Epochs, c.Quantized.Epochs = "stacked", filepath.Join(float.Folder, CheckpointFile), 0, 0
		})
		r.Data = float.Data
		return *r.complete(t).Accuracy.FakeQuant
	}
	every := start("step")
	t.Logf("%.3f, without state batch normalization %.3f", every, start("off"))
	require.Greater(t, every, start("off")+0.1)
	require.Equal(t, every, start("epoch"))
	require.Equal(t, every, start("10"))
}

// Frozen batch normalization stands still in both of its states, however statistics of hard weights are taken.
func TestFrozenSearch(t *testing.T) {
	for _, state := range []string{"step", "epoch", "3"} {
		r := newRig(t, t.TempDir(), func(c *Config) {
			searching("lbw:2", "none", state)(c)
			c.FreezeBN = 1
		})
		var before []Tensor
		kept := func() (of []Tensor) {
			for _, p := range snapshot(r.network) {
				if strings.HasSuffix(p.Name, "_mean") || strings.HasSuffix(p.Name, "_var") {
					of = append(of, Tensor{Name: p.Name, Data: slices.Clone(p.Data)})
				}
			}
			return of
		}
		r.atStep(QuantizedPhase, 9, func() { before = kept() }) // the first of the second epoch
		r.complete(t)
		require.Len(t, before, 6)
		require.Equal(t, before, kept(), state)
	}
}

// Where the choice is one-hot, soft weights are hard ones: with the same statistics they give the same numbers. On the way
// they do not. The exported codes are these weights.
func TestOneHotAtLast(t *testing.T) {
	for _, acts := range []string{"none", "lsq:4"} {
		r := newRig(t, t.TempDir(), searching("lbw:2", acts, "epoch"))
		difference := func() float64 {
			soft, err := r.search.soft.Evaluate(r.Data.Test)
			require.NoError(t, err)
			unmatched, err := r.search.unmatched.Evaluate(r.Data.Test)
			require.NoError(t, err)
			return soft.LogitDifference(unmatched)
		}
		before := 0.0
		r.atStep(QuantizedPhase, 3, func() { before = difference() })
		result := r.complete(t)
		require.Greater(t, before, 0.1)
		require.Less(t, difference(), 1e-4)
		m := r.saved.Metrics[len(r.saved.Metrics)-1]
		require.Zero(t, m.Search.Temperature)
		require.Zero(t, m.Search.Entropy)
		require.Zero(t, m.Search.Gap)
		require.Equal(t, m.Search.Soft, *m.Search.Unmatched)
		require.Nil(t, r.saved.Metrics[0].Search, "the float phase searches for nothing")
		if acts != "none" {
			require.Equal(t, 1.0, *result.Agreement)
			require.Zero(t, *result.LogitDifference)
		}
	}
}

// Without state batch normalization there is no second kind of statistics: where it is off, and where nothing is normalized.
func TestSearchWithoutStateBatchNorm(t *testing.T) {
	for _, change := range []func(*Config){
		searching("lbw:2", "lsq:4", "off"),
		func(c *Config) {
			searching("lbw:2", "lsq:4", "epoch")(c)
			c.Model = "small"
		},
	} {
		r := newRig(t, t.TempDir(), change)
		r.complete(t)
		require.NotNil(t, r.saved.Metrics[3].Search)
		require.Nil(t, r.saved.Metrics[3].Search.Unmatched)
	}
}

// The codes of a file, decoded and put into a float network, give the accuracy of the search to the image.
func TestDecodedCodesScoreTheSame(t *testing.T) {
	r := newRig(t, t.TempDir(), searching("lbw:2", "none", "step"))
	result := r.complete(t)
	require.Nil(t, result.Accuracy.Integer)
	model, err := Export(r.network, r.Data.Test, nil)
	require.NoError(t, err)
	float, err := buildNetwork(r.Config, layers.Methods{})
	require.NoError(t, err)
	tensors := floatSnapshot(r.network)
	for i := range tensors {
		for _, l := range model.Layers {
			if tensors[i].Name == l.Name+".weight" {
				tensors[i].Data = l.Weights.Decode()
			}
		}
	}
	require.NoError(t, adopt(float, tensors))
	score, err := evaluate(t.Context(), float, r.Data.Test)
	require.NoError(t, err)
	require.Equal(t, *result.Accuracy.FakeQuant, score.Accuracy)
}

// A run may start from one that has searched: from its hard weights.
func TestStartFromASearch(t *testing.T) {
	folder := t.TempDir()
	from := newRig(t, folder, searching("lbw:2", "none", "step"))
	from.complete(t)
	r := newRig(t, t.TempDir(), func(c *Config) {
		searching("lsq:4", "lsq:4", "off")(c)
		c.Init, c.Float.Epochs, c.Quantized.Epochs = filepath.Join(folder, CheckpointFile), 0, 0
	})
	result := r.complete(t)
	require.Equal(t, from.saved.Metrics[3].Accuracy, *result.Accuracy.Float)
}

// Quantization without training takes the nearest values.
func TestSearchWithoutTraining(t *testing.T) {
	folder := t.TempDir()
	float := newRig(t, folder, func(c *Config) { searching("none", "none", "off")(c) })
	float.complete(t)
	r := newRig(t, t.TempDir(), func(c *Config) {
		searching("lbw:3", "linear:8", "step")(c)
		c.Init = filepath.Join(folder, CheckpointFile)
	})
	p := &PostTraining{Experiment: *r.Experiment, ReestimateBN: 200}
	result, err := p.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1.0, *result.Agreement)
	require.Greater(t, *result.Accuracy.FakeQuant, *result.Accuracy.Float-0.15)
}
