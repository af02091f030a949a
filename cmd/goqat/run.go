package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goqat/goqat/datasets"
	_ "github.com/goqat/goqat/datasets/mnist" // registers "mnist"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/train"
)

// loadData reads a data set by name.
func loadData(name, dir string) (datasets.Split, error) {
	spec, err := datasets.Lookup(name)
	if err != nil {
		return datasets.Split{}, err
	}
	return spec.Load(dir)
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
	if t.data, err = loadData(t.config.Data, t.config.DataDir); err != nil {
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
	return !errors.Is(err, fs.ErrNotExist)
}
