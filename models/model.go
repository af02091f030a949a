package models

import (
	"fmt"

	"github.com/goqat/goqat/internal/registry"
	"github.com/goqat/goqat/layers"
)

// Spec describes a network to the registry.
type Spec struct {
	Name   string // as users name it, lower case
	Doc    string // one line
	Paper  string // authors, title, year
	Layers func(classes int) layers.Sequential
}

var models = registry.New[*Spec]("model")

// Register adds a network; its documentation, paper and layers must be there, and the name new.
func Register(s *Spec) {
	if s.Doc == "" || s.Paper == "" || s.Layers == nil {
		panic("models: model " + s.Name + " lacks its documentation, paper or layers")
	}
	models.Register(s.Name, s)
}

// Lookup finds a network by name.
func Lookup(name string) (*Spec, error) {
	s, err := models.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	return s, nil
}

// All returns every network in the order of their names.
func All() []*Spec { return models.All() }

// Options says what to build.
type Options struct {
	Input    layers.Shape   // of the images
	Classes  int            // outputs
	Methods  layers.Methods // quantizers; the zero value is a float network
	EdgeBits int            // bits of the first and the last layer; 0 gives them those of the others
	Seed     uint64         // of the initial parameters
}

// New builds a network by name.
func New(name string, o Options) (*layers.Network, error) {
	spec, err := Lookup(name)
	if err != nil {
		return nil, err
	}
	if o.Classes < 1 {
		return nil, fmt.Errorf("models: %d classes: want a positive number", o.Classes)
	}
	if o.EdgeBits < 0 {
		return nil, fmt.Errorf("models: %d bits of the first and the last layer: want a positive number, or 0 for those of the others", o.EdgeBits)
	}
	root := spec.Layers(o.Classes)
	layers.Quantize(root, o.Methods, o.EdgeBits)
	return layers.NewNetwork(root, o.Input, o.Seed)
}
