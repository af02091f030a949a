package models

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

var mnist = layers.Shape{Channels: 1, Height: 28, Width: 28}

func TestSpecs(t *testing.T) {
	require.NotEmpty(t, All())
	for _, s := range All() {
		require.Equal(t, strings.ToLower(s.Name), s.Name)
		require.NotContains(t, s.Doc, "\n")
		require.NotEmpty(t, s.Doc)
		require.Regexp(t, `^\S.*, .*\d{4}$`, s.Paper, "authors, title, year")
		found, err := Lookup(s.Name)
		require.NoError(t, err)
		require.Same(t, s, found)
	}
}

func TestRegisterRefuses(t *testing.T) {
	full := *All()[0]
	for _, strip := range []func(s *Spec){
		func(s *Spec) { s.Doc = "" },
		func(s *Spec) { s.Paper = "" },
		func(s *Spec) { s.Layers = nil },
	} {
		s := full
		strip(&s)
		require.PanicsWithValue(t, "models: model "+s.Name+" lacks its documentation, paper or layers", func() { Register(&s) })
	}
	require.Panics(t, func() { Register(&full) }, "the name is taken")
}

func TestNewErrors(t *testing.T) {
	var names []string
	for _, s := range All() {
		names = append(names, s.Name)
	}
	known := " (known: " + strings.Join(names, ", ") + ")"
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"lenet", Options{Input: mnist, Classes: 10}, `models: unknown model "lenet": did you mean "lenet5"?` + known},
		{"transformer", Options{Input: mnist, Classes: 10}, `models: unknown model "transformer"` + known},
		{"lenet5", Options{Input: mnist}, "models: 0 classes: want a positive number"},
		{"lenet5", Options{Input: mnist, Classes: -1}, "models: -1 classes: want a positive number"},
		{"lenet5", Options{Input: mnist, Classes: 10, EdgeBits: -8}, "models: -8 bits of the first and the last layer: want a positive number, or 0 for those of the others"},
		{"lenet5", Options{Classes: 10}, "layers: input shape 0x0x0: want positive sizes"},
		{"lenet5", Options{Input: layers.Shape{Channels: 1, Height: 8, Width: 8}, Classes: 10}, "layers: conv2: kernel 5 is larger than the padded input of 6x4x4"},
		{"lenet5", Options{Input: mnist, Classes: 10, Methods: layers.Methods{Weights: quantops.MustParse("lsq:4")}, EdgeBits: 16}, `layers: conv1: quantops: method "linear:16": weights of linear have 2 to 8 bits`},
	} {
		net, err := New(c.name, c.o)
		require.EqualError(t, err, c.want)
		require.Nil(t, net)
	}
}
