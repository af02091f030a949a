package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
)

var _ Weight = (*folded)(nil)

// folded is the weights W, [outputs][…], of a layer that batch normalization directly follows, quantized as the
// normalization scales them:
//
//	k[o] = γ[o]/√(running variance[o] + ε)      W' = Q(W·k)/k
//
// Q sees running statistics, those before the step in training. Levels are Q's, and one in channel o is worth Q's unit
// over k[o]; so the normalization after the layer stays as it is, with the batch's statistics in training, and on
// integers k cancels. A channel whose |k| is below 2^-64, for γ = 0 above all, has k = 1: the division could overflow.
//
// With the surrogate gradient of Q, from dy = ∂L/∂W',
//
//	du = Q's gradient at W·k of dy/k      dW = k·du      dk = Σ du·W - Σ dy·W'/k      dγ = dk/√(running variance + ε)
//
// dγ adds to the normalization's own; the statistics get no gradient.
//
// Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018;
// arithmetic and gradients are those of PyTorch's fused modules (torch.ao.nn.intrinsic.qat).
type folded struct {
	*projected
	norm *BatchNorm

	// As of the latest refresh:
	factors []float32 // k
	inverse []float64 // dk/dγ
	scaled  []float32 // W·k
	units   []float32
}

// smallestFactor is the least |k| that weights are multiplied with and divided by.
const smallestFactor = 0x1p-64

func newFolded(w *projected, norm *BatchNorm) *folded {
	outputs := w.value.Value.Shape()[0]
	f := &folded{
		projected: w, norm: norm, factors: make([]float32, outputs), inverse: make([]float64, outputs),
		scaled: make([]float32, len(w.value.Data())), units: make([]float32, outputs),
	}
	f.Fit()
	return f
}

// refresh computes factors and scaled weights from the parameters as they are.
func (w *folded) refresh() {
	gamma, variance := w.norm.gamma.Data(), w.norm.variance.Data()
	for o := range w.factors {
		w.inverse[o] = kernel.InverseDeviation(float64(variance[o]), w.norm.epsilon())
		w.factors[o] = float32(float64(gamma[o]) * w.inverse[o])
		if k := w.factors[o]; !(max(k, -k) >= smallestFactor) {
			w.factors[o], w.inverse[o] = 1, 0
		}
	}
	w.channels(func(o, from, to int) {
		k, scaled := w.factors[o], w.scaled[from:to]
		for i, value := range w.value.Data()[from:to] {
			scaled[i] = value * k
		}
	})
}

// channels calls do with the weights of every output channel, in parallel.
func (w *folded) channels(do func(channel, from, to int)) {
	each := len(w.scaled) / len(w.factors)
	kernel.Parallel(len(w.factors), func(o int) { do(o, o*each, (o+1)*each) })
}

func (w *folded) Node(p *Pass) (*gorgonia.Node, error) {
	inputs := []quantops.Input{{Node: p.Node(w.value)}, {Node: p.Node(w.theta), Constant: w.theta.Kind != quantops.Learned}}
	if p.Mode == Training {
		gamma, err := p.side(w.norm.gamma)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, quantops.Input{Node: gamma})
	}
	return quantops.Apply(&foldedLevels{folded: w}, w.value.Value.Shape(), inputs...)
}

// Units are those of the latest levels: in training, running statistics move between the forward and the backward pass.
func (w *folded) Units() []float32 {
	own := w.projected.Units()
	for o, k := range w.factors {
		w.units[o] = own[o%len(own)] / k
	}
	return w.units
}

func (w *folded) Fit() {
	w.refresh()
	w.fit()
}

func (w *folded) fit() { w.quantizer.Fit(w.theta.Data(), w.scaled, kernel.Dense(len(w.scaled)), 0) }

func (w *folded) Encode() (*integer.Weights, error) {
	w.refresh()
	quantops.Measure(w.quantizer, w.theta.Data(), w.scaled)
	weights, err := w.quantizer.Encode(w.scaled, w.theta.Data(), w.value.Value.Shape())
	if err != nil {
		return nil, err
	}
	own, units := w.projected.Units(), w.Units()
	for _, plane := range weights.Planes {
		for o := range plane.Scale {
			share := plane.Scale[o] / float64(own[o%len(own)]) // a unit's plane keeps the very float32 of training
			plane.Scale[o] = share * float64(units[o])
		}
	}
	return weights, weights.Validate()
}

// foldedLevels is folded weights as a Function of W, the quantizer's parameters and, in training, γ.
type foldedLevels struct {
	*folded
	discard []float32 // gradient of the quantizer's parameters where nobody wants it
}

var _ quantops.Differentiable = (*foldedLevels)(nil)

func (f *foldedLevels) String() string { return "fold " + f.norm.name + " into " + f.value.Name }

func (f *foldedLevels) Forward(y []float32, x [][]float32) error {
	f.refresh()
	quantops.Measure(f.quantizer, f.theta.Data(), f.scaled)
	f.quantizer.Levels(y, f.scaled, x[1])
	return nil
}

func (f *foldedLevels) Backward(dx [][]float32, dy, y []float32, x [][]float32) error {
	divided := buffers.get(len(dy))
	defer buffers.put(divided)
	f.channels(func(o, from, to int) {
		for i := from; i < to; i++ {
			divided[i] = dy[i] / f.factors[o]
		}
	})
	dtheta := dx[1]
	if dtheta == nil {
		if f.discard == nil {
			f.discard = make([]float32, len(x[1]))
		}
		dtheta = f.discard
	}
	f.quantizer.Backward(dx[0], dtheta, divided, f.scaled, x[1])
	units := f.Units()
	f.channels(func(o, from, to int) {
		dx[2][o] = f.channelGradient(o, dx[0][from:to], dy[from:to], y[from:to], x[0][from:to], units[o])
	})
	return nil
}

// channelGradient turns du of an output channel into dW and returns dγ.
func (f *foldedLevels) channelGradient(channel int, du, dy, levels, w []float32, unit float32) float32 {
	k, through, behind := f.factors[channel], 0.0, 0.0
	for i, u := range du {
		through += float64(float64(u) * float64(w[i]))
		behind += float64(float64(dy[i]) * float64(levels[i]))
		du[i] = u * k
	}
	behind = float64(behind * (float64(unit) / float64(k)))
	return float32((through - behind) * f.inverse[channel])
}

// foldable is a layer with weights.
type foldable interface {
	// folds says whether the layer is to have the batch normalization after it folded into its weights.
	folds() bool
	// fold does so; it says whether there is a quantizer to fold it into.
	fold(norm *BatchNorm) bool
}

func (w *weighted) folds() bool { return w.foldsNorm }

func (w *weighted) fold(norm *BatchNorm) bool {
	weight, ok := w.weight.(*projected)
	if !ok || weight.quantizer == nil {
		return false
	}
	w.weight = newFolded(weight, norm)
	return true
}

// foldNorms folds batch normalizations into the weights of the layers directly before them that want it, after Build.
func foldNorms(root Layer) error {
	wanted, done := false, false
	follow(root, nil, func(before, l Layer) {
		if f, ok := l.(foldable); ok {
			wanted = wanted || f.folds()
		}
		f, ok := before.(foldable)
		if norm, follows := l.(*BatchNorm); ok && follows && f.folds() {
			done = f.fold(norm) || done
		}
	})
	if wanted && !done {
		return fmt.Errorf("layers: no batch normalization to fold: none comes directly after a layer whose weights have a method")
	}
	return nil
}

// follow calls visit with the layers below l in order, and with what goes straight into each: the layer before it, or nil.
// It returns the last layer.
func follow(l, before Layer, visit func(before, l Layer)) Layer {
	switch l := l.(type) {
	case Sequential:
		for _, inside := range l {
			before = follow(inside, before, visit)
		}
		return before
	case *Residual:
		for _, inside := range l.layers() {
			follow(inside, nil, visit)
		}
		return nil
	}
	visit(before, l)
	return l
}
