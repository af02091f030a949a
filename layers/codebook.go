package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

var _ Weight = (*codebook)(nil)

// codebook is weights as vectors of a list: fixed codes, and centroids that are learned. Centroids are seen through a quantizer of
// 8 bits, in training too, so that a vector is a row of bytes.
//
// Until codes have been found, and in passes built before that, the layer has the real weights that they are found for.
type codebook struct {
	*quantops.Codebook
	value     *Param // real weights
	codes     *Param // of every vector, -1 before there are any
	centroids *Param // [Centroids][Length]
	seed      uint64

	quantizer quantops.Quantizer // of the centroids
	theta     []float32          // its parameters, which follow from the centroids each time
	levels    []float32          // of the centroids
	units     []float32
	failure   error // of the latest Fit
}

// newCodebook makes weights of a shape [outputs][…], initialized as any.
func newCodebook(b *Build, layer string, c *quantops.Codebook, shape []int) (*codebook, error) {
	value := newValue(b, layer, shape)
	w := &codebook{
		Codebook: c, value: value, seed: b.Seed, codes: newParam(value.Name+".codes", len(value.Data())/c.Length),
		centroids: newParam(value.Name+".centroids", c.Centroids, c.Length), units: make([]float32, 1),
	}
	value.Adopts = &Adoption{Name: value.Name, Shape: shape, Set: func(x []float32) { copy(value.Data(), x) }, Get: w.values}
	w.codes.Kind, w.codes.Theta = quantops.Fixed, true
	w.centroids.Decay, w.centroids.Theta = 1, true
	w.forget()
	var err error
	if w.quantizer, err = c.Quantizer(); err != nil {
		return nil, err
	}
	w.theta, w.levels = make([]float32, len(w.quantizer.Theta().Columns)), make([]float32, c.Centroids*c.Length)
	return w, nil
}

func (w *codebook) Params() []*Param { return []*Param{w.value, w.codes, w.centroids} }

// forget drops the codes.
func (w *codebook) forget() {
	for j := range w.codes.Data() {
		w.codes.Data()[j] = -1
	}
}

// found says whether there are codes.
func (w *codebook) found() bool { return w.codes.Data()[0] >= 0 }

// Fit finds codes and centroids for the real weights, unless there are codes. Those weighted by the layer's inputs need these.
func (w *codebook) Fit() {
	if !w.found() && !w.Weighted {
		w.search(nil) // what goes wrong, Node and Encode tell
	}
}

// search finds codes and centroids for the real weights and the Gram matrix of what vectors are multiplied with, nil for
// the identity, and returns the error that is left.
func (w *codebook) search(gram []float64) (float64, error) {
	stream := random.New(w.seed, "codebook/"+w.value.Name)
	left, err := w.Codebook.Fit(w.codes.Data(), w.centroids.Data(), w.value.Data(), gram, stream)
	w.failure = err
	return left, err
}

// refresh computes the levels of the centroids as they are.
func (w *codebook) refresh() error {
	if w.failure != nil {
		return w.failure
	}
	if err := w.Check(w.codes.Data()); err != nil {
		return err
	}
	x := w.centroids.Data()
	w.quantizer.Fit(w.theta, x, kernel.Dense(len(x)), 0)
	w.quantizer.Levels(w.levels, x, w.theta)
	w.quantizer.Units(w.units, w.theta)
	return nil
}

func (w *codebook) Node(p *Pass) (*gorgonia.Node, error) {
	if !w.found() {
		return p.Node(w.value), w.failure
	}
	f := &expansion{codebook: w, sums: make([]float64, w.Centroids*(w.Length+1))}
	return quantops.Apply(f, w.value.Value.Shape(), quantops.Input{Node: p.Node(w.centroids)}, quantops.Input{Node: p.Node(w.codes), Constant: true})
}

// Units are those of the latest levels.
func (w *codebook) Units() []float32 {
	if !w.found() {
		return nil
	}
	return w.units
}

func (w *codebook) Encode() (*integer.Weights, error) {
	if !w.found() {
		return nil, w.failure
	}
	if err := w.refresh(); err != nil {
		return nil, err
	}
	return w.Codebook.Encode(w.codes.Data(), w.levels, w.units[0], w.value.Value.Shape())
}

// values returns what the weights are worth: real ones until there are codes.
func (w *codebook) values() []float32 {
	if !w.found() || w.refresh() != nil {
		return w.value.Data()
	}
	values := make([]float32, len(w.value.Data()))
	w.Expand(values, w.codes.Data(), w.levels)
	for i := range values {
		values[i] *= w.units[0]
	}
	return values
}

func (w *codebook) describe(to *LayerWeights) { to.Values = w.value.Data() }

// expansion is a codebook's weights as a Function of centroids and codes.
type expansion struct {
	*codebook
	sums []float64
}

var _ quantops.Differentiable = (*expansion)(nil)

func (f *expansion) String() string { return "vectors of " + f.value.Name }

func (f *expansion) Forward(y []float32, x [][]float32) error {
	if err := f.refresh(); err != nil {
		return fmt.Errorf("%s: %w", f.value.Name, err)
	}
	f.Expand(y, x[1], f.levels)
	return nil
}

// Backward passes straight through the centroids' quantizer, whose range is that of the centroids: nothing is clipped.
func (f *expansion) Backward(dx [][]float32, dy, _ []float32, x [][]float32) error {
	f.Gradient(dx[0], f.sums, dy, x[1])
	return nil
}

// Codes are the codes and centroids of a layer's weights.
type Codes struct {
	Layer    string
	codebook *codebook
}

// Codebooks returns those of the network's layers whose weights have codes, in order.
func (n *Network) Codebooks() []Codes {
	var all []Codes
	n.weighted(func(w *weighted) {
		if c, ok := w.weight.(*codebook); ok {
			all = append(all, Codes{w.name, c})
		}
	})
	return all
}

// Params returns real weights, codes and centroids.
func (c Codes) Params() []*Param { return c.codebook.Params() }

// Values returns the real weights.
func (c Codes) Values() []float32 { return c.codebook.value.Data() }

// Centroids returns the parameter that is trained.
func (c Codes) Centroids() *Param { return c.codebook.centroids }

// Found says whether there are codes: else the layer has its real weights.
func (c Codes) Found() bool { return c.codebook.found() }

// Weighted says whether codes are for the Gram matrix of what vectors of weights are multiplied with, which Find then needs.
func (c Codes) Weighted() bool { return c.codebook.Weighted }

// Length returns how many weights a code stands for.
func (c Codes) Length() int { return c.codebook.Length }

// Find finds codes and centroids anew and returns what they leave of the error; see [quantops.Codebook.Fit].
func (c Codes) Find(gram []float64) (float64, error) {
	e, err := c.codebook.search(gram)
	if err != nil {
		return 0, fmt.Errorf("layers: %s: %w", c.Layer, err)
	}
	return e, nil
}
