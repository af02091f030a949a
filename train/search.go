package train

import (
	"context"
	"fmt"
	"slices"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// Search chooses quantized weights layer by layer for the outputs that they give on some images, where their method
// can do so ([quantops.Solver]). What a layer shall give is what it gives in the float network; what it takes in comes
// from the float network as well, as the papers have it, or in a sequential search from the layers before it as they
// are by then, whose errors it then makes up for in part.
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
	todo, last, err := s.layers(network)
	if err != nil {
		return nil, err
	}
	var done []SearchedLayer
	for len(todo) > 0 {
		together := s.together(todo)
		found, err := s.collect(ctx, network, together, last)
		if err != nil {
			return done, err
		}
		for _, l := range together {
			if err := s.solve(network, &l, found[l.Layer]); err != nil {
				return done, err
			}
			if done = append(done, l); s.Report != nil {
				s.Report(l)
			}
		}
		todo = todo[len(together):]
	}
	return done, nil
}

// layers lists the layers to search for, and names the last one with weights.
func (s *Search) layers(network *layers.Network) (todo []SearchedLayer, last string, err error) {
	all, err := network.Weights()
	if err != nil {
		return nil, "", err
	}
	names := network.Solvable()
	for _, l := range all {
		if last = l.Layer; slices.Contains(names, last) {
			todo = append(todo, SearchedLayer{Layer: last, Inputs: len(l.Values) / l.Shape[0]})
		}
	}
	return todo, last, nil
}

// together returns as many of the first layers as can be collected from in one go: one for a sequential search.
func (s *Search) together(todo []SearchedLayer) []SearchedLayer {
	if s.Sequential {
		return todo[:1]
	}
	n, bytes := 1, square(todo[0].Inputs)
	for n < len(todo) && bytes+square(todo[n].Inputs) <= momentBytes {
		bytes += square(todo[n].Inputs)
		n++
	}
	return todo[:n]
}

// square is the size of a matrix of doubles.
func square(n int) int { return 8 * n * n }

// collect returns the moments of layers by name, but for those of the last one.
func (s *Search) collect(ctx context.Context, network *layers.Network, together []SearchedLayer, last string) (map[string][]quantops.Moments, error) {
	var names []string
	for _, l := range together {
		if l.Layer != last {
			names = append(names, l.Layer)
		}
	}
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
