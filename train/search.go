package train

import (
	"context"
	"fmt"
	"slices"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// Search chooses quantized weights layer by layer for the outputs that they give on some images, where their method can do
// so ([quantops.Solver]). What a layer shall give is what it gives in the float network; what it takes in comes from the
// float network as well, as the papers have it, or in a sequential search from the layers before it as they are by then, whose
// errors it then makes up for in part.
//
// Two kinds of layers keep the weights that rounding gives: the last one, whose outputs mean nothing but their order, and
// those with fewer samples than inputs, which the samples can't tell apart.
type Search struct {
	Float      *layers.Network   // the network before quantization
	Data       *datasets.Dataset // its first images are looked at
	Images     int
	Samples    int // of a layer; 0 for all
	Sequential bool
	Seed       uint64
	Report     func(SearchedLayer) // called for each layer in order; nil for nobody
}

// SearchedLayer tells what a search has done to a layer: the squared errors of its outputs, as shares of their energy.
type SearchedLayer struct {
	Layer   string  `json:"layer"`
	Inputs  int     `json:"inputs"` // of an output
	Samples int     `json:"samples"`
	Start   float64 `json:"start"` // error of rounded weights
	Error   float64 `json:"error"` // error of those found
	Sweeps  int     `json:"sweeps"`
	Settled bool    `json:"settled"`        // nothing moved any more
	Left    string  `json:"left,omitempty"` // why the weights are rounded; empty where they were searched for
}

func (l SearchedLayer) String() string {
	switch {
	case l.Left != "":
		return fmt.Sprintf("%s: weights rounded, %s", l.Layer, l.Left)
	case l.Settled:
		return fmt.Sprintf("%s: error of outputs %.3g%%, rounded %.3g%%; settled after %s", l.Layer, 100*l.Error, 100*l.Start, plural(l.Sweeps, "sweep"))
	}
	return fmt.Sprintf("%s: error of outputs %.3g%%, rounded %.3g%%; stopped after %s", l.Layer, 100*l.Error, 100*l.Start, plural(l.Sweeps, "sweep"))
}

// momentBytes is how much memory the moments of layers that are collected together may take.
const momentBytes = 256 << 20

// Run searches for the weights of a network that has the float one's, its activations quantized or not. When ctx ends it
// returns [ErrInterrupted], and some layers are done.
func (s *Search) Run(ctx context.Context, network *layers.Network) ([]SearchedLayer, error) {
	names := network.Solvable()
	all, err := network.Weights()
	if err != nil {
		return nil, err
	}
	inputs := map[string]int{}
	for _, l := range all {
		inputs[l.Layer] = len(l.Values) / l.Shape[0]
	}
	last := all[len(all)-1].Layer
	var done []SearchedLayer
	for len(names) > 0 {
		n := 1
		for bytes := square(inputs[names[0]]); !s.Sequential && n < len(names); n++ {
			if bytes += square(inputs[names[n]]); bytes > momentBytes {
				break
			}
		}
		found, err := s.collect(ctx, network, slices.DeleteFunc(slices.Clone(names[:n]), func(name string) bool { return name == last }))
		if err != nil {
			return done, err
		}
		for _, name := range names[:n] {
			l := SearchedLayer{Layer: name, Inputs: inputs[name]}
			if err := s.solve(network, &l, found[name]); err != nil {
				return done, err
			}
			if done = append(done, l); s.Report != nil {
				s.Report(l)
			}
		}
		names = names[n:]
	}
	return done, nil
}

// square is the size of a matrix of doubles.
func square(n int) int { return 8 * n * n }

// collect returns the moments of layers by name.
func (s *Search) collect(ctx context.Context, network *layers.Network, names []string) (map[string][]quantops.Moments, error) {
	found := map[string][]quantops.Moments{}
	if len(names) == 0 {
		return found, nil
	}
	c := &Collection{Network: s.Float, Data: s.Data, Images: s.Images, Samples: s.Samples, Seed: s.Seed}
	if s.Sequential {
		c.Network, c.Float = network, s.Float
	}
	all, err := c.Run(ctx, names...)
	for _, l := range all {
		found[l.Layer] = l.Groups
	}
	return found, err
}

// solve searches for the weights of one layer, unless there are reasons not to.
func (s *Search) solve(network *layers.Network, l *SearchedLayer, groups []quantops.Moments) error {
	if groups == nil {
		l.Left = "it is the last layer"
		return nil
	}
	if l.Samples = groups[0].Samples; l.Samples < l.Inputs {
		l.Left = fmt.Sprintf("%d samples can't tell %d inputs apart", l.Samples, l.Inputs)
		return nil
	}
	solution, err := network.Solve(l.Layer, groups)
	if err != nil {
		return fmt.Errorf("train: search: %w", err)
	}
	l.Sweeps, l.Settled = solution.Sweeps, solution.Settled
	if solution.Energy > 0 {
		l.Start, l.Error = solution.Start/solution.Energy, solution.Error/solution.Energy
	}
	return nil
}
