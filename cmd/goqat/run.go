package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/goqat/goqat/datasets"
	_ "github.com/goqat/goqat/datasets/mnist" // registers "mnist"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/train"
)

// loadData reads a data set by name; normalize, if not empty, names a normalization to use instead of its own.
func loadData(name, dir, normalize string) (datasets.Split, error) {
	spec, err := datasets.Lookup(name)
	if err != nil {
		return datasets.Split{}, err
	}
	split, err := spec.Load(dir)
	if err != nil || normalize == "" {
		return split, err
	}
	if split.Train, err = split.Train.Normalized(normalize); err != nil {
		return datasets.Split{}, err
	}
	split.Test, err = split.Test.Normalized(normalize)
	return split, err
}

// importTensors sets a network's parameters from a PyTorch or safetensors file.
func importTensors(path string, network *layers.Network) error {
	tensors, err := models.ReadTensors(path)
	if err != nil {
		return err
	}
	if _, err := models.Assign(network, tensors); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// builder returns the function that makes a configuration's network for the data set's images.
func builder(c train.Config, d *datasets.Dataset) func(layers.Methods) (*layers.Network, error) {
	return func(m layers.Methods) (*layers.Network, error) {
		return models.New(c.Model, models.Options{
			Input:   layers.Shape{Channels: d.Channels, Height: d.Height, Width: d.Width, Signed: signed(d)},
			Classes: len(d.Classes), Methods: m, EdgeBits: c.EdgeBits, Seed: c.Seed,
		})
	}
}

// anyBuilder returns the function that makes the network of any configuration for the data set's images.
func anyBuilder(d *datasets.Dataset) func(train.Config, layers.Methods) (*layers.Network, error) {
	return func(c train.Config, m layers.Methods) (*layers.Network, error) { return builder(c, d)(m) }
}

// signed says whether normalized images hold negative numbers.
func signed(d *datasets.Dataset) bool {
	for c := range d.Channels {
		if d.PixelTable(c)[0] < 0 {
			return true
		}
	}
	return false
}

// trained is a network from a run folder or a checkpoint file, with the data that it was trained on.
type trained struct {
	config  train.Config
	data    datasets.Split
	network *layers.Network
}

// openTrained rebuilds the network of a run folder or a checkpoint file. A data folder of "" is the run's.
func openTrained(path, dataDir string) (*trained, error) {
	if isFolder(path) {
		if !exists(filepath.Join(path, train.CheckpointFile)) {
			return nil, usagef("%s is not a run folder: it has no %s", path, train.CheckpointFile)
		}
		path = filepath.Join(path, train.CheckpointFile)
	}
	checkpoint, err := train.LoadCheckpoint(path)
	if err != nil {
		return nil, err
	}
	t := &trained{}
	if t.config, err = train.ParseConfig([]byte(checkpoint.Config)); err != nil {
		return nil, err
	}
	if dataDir != "" {
		t.config.DataDir = dataDir
	}
	if t.data, err = loadData(t.config.Data, t.config.DataDir, t.config.Normalize); err != nil {
		return nil, err
	}
	t.network, err = checkpoint.Network(builder(t.config, t.data.Test))
	return t, err
}

// openModel reads an integer model: a .goq file, or that of a run folder.
func openModel(path string) (*integer.Model, error) {
	if isFolder(path) {
		path = filepath.Join(path, train.ModelFile)
	}
	return integer.Load(path)
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// exists says whether there is a file at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
