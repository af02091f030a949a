package layers

import (
	"math"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

var _ Weight = (*searched)(nil)

// searched is weights that a relaxation searches for among discrete values. In training they are soft, at the temperature
// that [Network.Anneal] has set, else hard: those of the largest logits.
//
// Parameters: NAME.logits, [values][outputs][…]; NAME.scale, [outputs], where the layer has one; and NAME.temperature, [1],
// 0 where the choice is one-hot.
type searched struct {
	relaxation  quantops.Relaxation
	search      quantops.Search
	shape       []int
	logits      *Param
	temperature *Param
	scale       *Param // nil without

	units []float32
}

// newSearched makes weights of a shape [outputs][…]. Logits start from what the weights of a float network would start
// from, or from the normal distribution of variance 2/fan-out (He et al., 2015).
func newSearched(b *Build, layer string, r quantops.Relaxation, shape []int) *searched {
	name := layer + ".weight"
	s := r.Search()
	w := &searched{relaxation: r, search: s, shape: shape, units: []float32{s.Unit}}
	w.logits = newParam(name+".logits", append([]int{len(s.Levels)}, shape...)...)
	w.logits.Rate, w.logits.Decay, w.logits.Theta = s.Rate, s.Decay, true
	w.temperature = newParam(name+".temperature", 1)
	w.temperature.Kind, w.temperature.Theta = quantops.Running, true
	w.temperature.Data()[0] = 1
	if s.Scale != quantops.NotScaled {
		w.scale = newParam(name+".scale", shape[0])
		w.scale.Minimum, w.scale.Theta = []float32{smallestScale}, true
		w.units = make([]float32, shape[0])
	}
	each := w.count() / shape[0]
	if s.FromWeights {
		start := newParam(name, shape...)
		start.fillUniform(heBound(each), b.stream(name))
		w.start(start.Data())
		w.logits.Adopts = &Adoption{Name: name, Shape: shape, Set: w.start, Get: w.values}
		return w
	}
	w.logits.Adopts = &Adoption{Name: name, Shape: shape, Set: func([]float32) {}, Get: w.values}
	fanOut := shape[0]
	for _, n := range shape[min(2, len(shape)):] {
		fanOut *= n
	}
	stream, deviation := b.stream(w.logits.Name), math.Sqrt(2/float64(fanOut))
	for i := range w.logits.Data() {
		w.logits.Data()[i] = float32(deviation * stream.Normal())
	}
	w.startScale(math.Sqrt(2 / float64(each)))
	return w
}

// smallestScale is the least scale of an output channel.
const smallestScale = 1.0 / (1 << 23)

func (w *searched) count() int { return len(w.logits.Data()) / len(w.search.Levels) }

// start lets the search start from real weights.
func (w *searched) start(weights []float32) {
	scales := make([]float32, w.shape[0])
	w.relaxation.Start(w.logits.Data(), scales, weights)
	if w.scale != nil {
		copy(w.scale.Data(), scales)
	}
}

// softValues returns the soft weights; hard ones where the choice is one-hot.
func (w *searched) softValues() []float32 {
	if w.oneHot() {
		return w.values()
	}
	levels := make([]float32, w.count())
	w.relaxation.Soft(levels, w.logits.Data(), w.temperature.Data()[0])
	return w.scaled(levels)
}

// describe tells of soft weights as the real ones, of whose error hard weights are then the gap.
func (w *searched) describe(to *LayerWeights) {
	to.Values = w.softValues()
	to.Theta = quantops.Theta{Name: "search", Kind: quantops.Running, Rows: 1, Columns: []string{"temperature", "entropy"}}
	temperature := w.temperature.Data()[0]
	to.Parameters = []float32{temperature, float32(quantops.Entropy(w.logits.Data(), len(w.search.Levels), temperature))}
}

// values returns the hard weights.
func (w *searched) values() []float32 {
	levels := make([]float32, w.count())
	w.relaxation.Hard(levels, w.logits.Data())
	return w.scaled(levels)
}

// scaled turns levels into what they are worth.
func (w *searched) scaled(levels []float32) []float32 {
	units := w.Units()
	for i := range levels {
		levels[i] *= units[i*w.shape[0]/len(levels)%len(units)]
	}
	return levels
}

// startScale sets scales with which the values have a root mean square.
func (w *searched) startScale(size float64) {
	if w.scale == nil {
		return
	}
	squares := 0.0
	for _, level := range w.search.Levels {
		value := float64(level * w.search.Unit)
		squares += float64(value * value)
	}
	for o := range w.scale.Data() {
		w.scale.Data()[o] = float32(size / math.Sqrt(squares/float64(len(w.search.Levels))))
	}
}

// normalized tells that batch normalization follows, which takes scales away.
func (w *searched) normalized() {
	if w.search.Scale == quantops.ScaledWithoutNorm {
		w.scale, w.units = nil, []float32{w.search.Unit}
	}
}

func (w *searched) Params() []*Param {
	if w.scale == nil {
		return []*Param{w.logits, w.temperature}
	}
	return []*Param{w.logits, w.scale, w.temperature}
}

func (w *searched) Node(p *Pass) (*gorgonia.Node, error) {
	f := &choice{searched: w, hard: !p.softWeights()}
	inputs := []quantops.Input{{Node: p.Node(w.logits)}}
	if w.scale != nil {
		inputs = append(inputs, quantops.Input{Node: p.Node(w.scale)})
	}
	return quantops.Apply(f, w.shape, inputs...)
}

func (w *searched) Units() []float32 {
	if w.scale != nil {
		for o, scale := range w.scale.Data() {
			w.units[o] = scale * w.search.Unit
		}
	}
	return w.units
}

// Fit does nothing: no parameter follows from the others.
func (w *searched) Fit() {}

func (w *searched) scales() []float32 {
	if w.scale == nil {
		return []float32{1}
	}
	return w.scale.Data()
}

func (w *searched) Encode() (*integer.Weights, error) {
	return w.relaxation.Encode(w.logits.Data(), w.scales(), w.shape)
}

// oneHot says whether soft levels are hard ones.
func (w *searched) oneHot() bool { return w.temperature.Data()[0] == 0 }

// choice is the levels of searched weights as a Function of logits and scales.
type choice struct {
	*searched
	hard bool
}

var _ quantops.Differentiable = (*choice)(nil)

func (f *choice) String() string { return "search " + f.logits.Name }

func (f *choice) Forward(y []float32, x [][]float32) error {
	if f.hard || f.oneHot() {
		f.relaxation.Hard(y, x[0])
	} else {
		f.relaxation.Soft(y, x[0], f.temperature.Data()[0])
	}
	return nil
}

// Backward gives logits no gradient where the choice is one-hot.
func (f *choice) Backward(dx [][]float32, dy, y []float32, x [][]float32) error {
	units, each := f.Units(), len(y)/f.shape[0]
	if f.scale != nil {
		for o := range f.shape[0] {
			sum := 0.0
			for i := o * each; i < (o+1)*each; i++ {
				sum += float64(float64(dy[i]) * float64(y[i]))
			}
			dx[1][o] = float32(sum * float64(f.search.Unit))
		}
	}
	if f.hard || f.oneHot() {
		clear(dx[0])
		return nil
	}
	levels := buffers.get(len(dy))
	defer buffers.put(levels)
	levels = levels[:len(dy)]
	for i, g := range dy {
		levels[i] = g * units[i/each%len(units)]
	}
	f.relaxation.Backward(dx[0], levels, x[0], f.temperature.Data()[0])
	return nil
}
