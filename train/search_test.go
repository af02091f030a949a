package train

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// newSearchPost quantizes the trained normalized network by searching.
func newSearchPost(t *testing.T, change func(*PostTraining)) *PostTraining {
	t.Helper()
	return newPost(t, "normalized", t.TempDir(), func(p *PostTraining) {
		p.Config.Weights, p.Config.Acts, p.Config.EdgeBits = quantops.MustParse("bitsplit:2"), quantops.MustParse("linear:8"), 0
		p.Samples = 500
		p.Build = func(m layers.Methods) (*layers.Network, error) { return buildNetwork(p.Config, m) }
		if change != nil {
			change(p)
		}
	})
}

// checkpointed returns the network of a folder.
func checkpointed(t *testing.T, p *PostTraining) *layers.Network {
	t.Helper()
	c, err := LoadCheckpoint(filepath.Join(p.Folder, CheckpointFile))
	require.NoError(t, err)
	network, err := c.Network(p.Build)
	require.NoError(t, err)
	return network
}

func lossOf(t *testing.T, p *PostTraining) float64 {
	t.Helper()
	score, err := evaluate(t.Context(), checkpointed(t, p), p.Data.Test)
	require.NoError(t, err)
	return score.Loss
}

// Searched weights lose less than rounded ones, are the same on any number of threads, run on integers and train on.
func TestSearch(t *testing.T) {
	losses, hashes := map[string]float64{}, map[string]string{}
	for name, change := range map[string]func(*PostTraining){
		"rounded":    func(p *PostTraining) { p.Config.Weights, p.Samples = quantops.MustParse("linear:2"), 0 },
		"searched":   func(*PostTraining) {},
		"sequential": func(p *PostTraining) { p.Sequential = true },
	} {
		p := newSearchPost(t, change)
		r := quantized(t, p)
		require.Equal(t, 1.0, *r.Agreement, name)
		losses[name], hashes[name] = lossOf(t, p), r.WeightsSHA256
		if name == "rounded" {
			require.Nil(t, r.Searched)
			continue
		}
		require.Len(t, r.Searched, 3)
		require.Equal(t, SearchedLayer{Layer: "fc", Inputs: r.Searched[2].Inputs, Left: "it is the last layer"}, r.Searched[2])
		for _, l := range r.Searched[:2] {
			require.GreaterOrEqual(t, l.Samples, 500)
			require.Less(t, l.Error, l.Start)
			require.True(t, l.Settled)
		}
		require.Equal(t, name == "sequential", r.Sequential)

		tuned := newRig(t, t.TempDir(), func(c *Config) {
			c.Model, c.Init, c.Float.Epochs, c.Quantized.Epochs, c.EdgeBits = "normalized", p.Folder, 0, 0, 0
			c.Weights, c.Acts = p.Config.Weights, p.Config.Acts
		})
		require.Equal(t, *r.Accuracy.FakeQuant, *tuned.complete(t).Accuracy.FakeQuant, "training starts from the very codes")
	}
	require.Less(t, losses["searched"], losses["rounded"])
	require.Less(t, losses["sequential"], losses["rounded"])
	require.NotEqual(t, hashes["searched"], hashes["sequential"])

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	require.Equal(t, hashes["searched"], quantized(t, newSearchPost(t, nil)).WeightsSHA256)
}

// Layers with few samples are left alone, and named.
func TestSearchOnFewImages(t *testing.T) {
	p := newSearchPost(t, func(p *PostTraining) { p.Config.Calibration, p.Samples = 1, 30 })
	var texts []string
	p.Report = func(e Event) { texts = append(texts, e.Text) }
	r := quantized(t, p)
	require.Equal(t, "16 samples can't tell 36 inputs apart", r.Searched[1].Left)
	require.Contains(t, texts, "conv2: weights rounded, 16 samples can't tell 36 inputs apart")
	require.Contains(t, texts, "fc: weights rounded, it is the last layer")
}

// Every channel of a depthwise layer is searched for on data of its own.
func TestSearchOfDepthwiseLayers(t *testing.T) {
	post := func(weights string) *PostTraining {
		p := newPost(t, "depthwise", t.TempDir(), func(p *PostTraining) {
			p.Config.Weights, p.Config.Acts, p.Config.EdgeBits = quantops.MustParse(weights), quantops.MustParse("linear:8"), 0
			p.Build = func(m layers.Methods) (*layers.Network, error) { return buildNetwork(p.Config, m) }
		})
		return p
	}
	rounded, searched := post("linear:2"), post("bitsplit:2")
	quantized(t, rounded)
	r := quantized(t, searched)
	require.Equal(t, "depthwise", r.Searched[1].Layer)
	require.Equal(t, 9, r.Searched[1].Inputs)
	require.Less(t, r.Searched[1].Error, r.Searched[1].Start)
	require.Less(t, lossOf(t, searched), lossOf(t, rounded))
	require.Equal(t, 1.0, *r.Agreement)
}

func TestSearchIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := newSearchPost(t, func(p *PostTraining) {
		p.Sequential = true
		p.Report = func(e Event) {
			if e.Text == "searching for weights on 60 images" {
				cancel()
			}
		}
	})
	_, err := p.Run(ctx)
	require.ErrorIs(t, err, ErrInterrupted)
	require.Empty(t, files(t, p.Folder))
}

func TestSearchRefuses(t *testing.T) {
	for want, change := range map[string]func(*PostTraining){
		"train: linear:4 searches for no weights, sequentially or not": func(p *PostTraining) {
			p.Config.Weights, p.Sequential = quantops.MustParse("linear:4"), true
		},
		"train: lsq:4 searches for no weights, on samples or otherwise": func(p *PostTraining) {
			p.Config.Weights = quantops.MustParse("lsq:4")
		},
		"train: a search with -1 samples: want 0 or more": func(p *PostTraining) { p.Samples = -1 },
		"train: scales of channels are for quantized activations: want a method for these": func(p *PostTraining) {
			p.Config.Acts, p.ECAQ = quantops.Method{}, true
		},
	} {
		_, err := newSearchPost(t, change).Run(t.Context())
		require.EqualError(t, err, want)
	}
}
