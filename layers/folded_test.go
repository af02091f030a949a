package layers

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"

	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

// folding returns the methods with FoldBatchNorm.
func folding(m Methods) Methods {
	m.FoldBatchNorm = true
	return m
}

// foldedCase is a layer with batch normalization after it next to the definition, in float64, of what both compute with
// the normalization folded into the weights. The definition's rounding is frozen, so that it has derivatives: a weight
// inside the range moves with its rounding error, one outside stays at the end of the range.
type foldedCase struct {
	*probe
	taps                                 taps
	core                                 *weighted
	frozen                               bool // normalize with running statistics
	x, dy                                []float64
	w, gamma, bias, beta, mean, variance []float64
	scale                                []float64 // of the quantizer of w·k
	pass, slope                          []float64 // of every weight, frozen
}

func newFoldedCase(t *testing.T, c weightedCase, frozen bool) *foldedCase {
	t.Helper()
	const images = 18
	norm := &BatchNorm{Name: "bn", Frozen: frozen}
	f := &foldedCase{taps: c.taps, core: c.core, frozen: frozen, probe: newProbe(t, Sequential{c.layer, norm}, c.taps.in, images)}
	for i, name := range []string{"layer.bias", "bn.bias", "bn.weight", "bn.running_var", "bn.running_mean"} {
		copy(f.params[name].Data(), noise(f.out.Channels, uint64(5+i)))
	}
	f.params["bn.weight"].Data()[1] = 0
	for o, v := range f.params["bn.running_var"].Data() {
		f.params["bn.running_var"].Data()[o] = v*v + 0.1
	}
	c.core.weight.Fit()
	x, dy := noise(images*f.in.Len(), 1), noise(images*f.out.Len(), 2)
	f.set(x, dy)
	f.x, f.dy = float64s(x), float64s(dy)
	data := func(name string) []float64 { return float64s(f.params[name].Data()) }
	f.w, f.bias, f.gamma, f.beta = data("layer.weight"), data("layer.bias"), data("bn.weight"), data("bn.bias")
	f.mean, f.variance = data("bn.running_mean"), data("bn.running_var")
	f.freeze(t)
	return f
}

// factor is k; that of γ = 0 is 1 and stays so.
func (f *foldedCase) factor(o int) float64 {
	if o == 1 {
		return 1
	}
	return f.gamma[o] / math.Sqrt(f.variance[o]+1e-5)
}

func (f *foldedCase) channel(weight int) int { return weight / (len(f.w) / len(f.gamma)) }

// freeze rounds the weights as they are, with the scales that they export.
func (f *foldedCase) freeze(t *testing.T) {
	t.Helper()
	encoded, err := f.core.weight.Encode()
	require.NoError(t, err)
	channels := weightSteps(encoded, f.params["layer.weight.range"] != nil)
	f.scale, f.pass, f.slope = make([]float64, len(f.gamma)), make([]float64, len(f.w)), make([]float64, len(f.w))
	for o := range channels {
		channels[o].scale *= f.factor(o)
		f.scale[o] = channels[o].scale
	}
	for i, w := range f.w {
		o := f.channel(i)
		f.pass[i], f.slope[i] = channels[o].slopes(w * f.factor(o))
	}
}

// weights is W' = Q(W·k)/k.
func (f *foldedCase) weights() []float64 {
	w := make([]float64, len(f.w))
	for i := range w {
		o := f.channel(i)
		w[i] = (f.w[i]*f.factor(o)*f.pass[i] + f.scale[o]*f.slope[i]) / f.factor(o)
	}
	return w
}

// outputs are PyTorch's fused forward pass: the convolution with Q(W·k), divided by k, plus bias, normalized.
func (f *foldedCase) outputs() []float64 {
	y := f.taps.forward(f.x, f.weights(), f.bias, f.images)
	mean, variance := f.mean, f.variance
	if !f.frozen {
		mean, variance = f.statistics(y)
	}
	for i, v := range y {
		o := f.outputChannel(i)
		y[i] = f.gamma[o]*(v-mean[o])/math.Sqrt(variance[o]+1e-5) + f.beta[o]
	}
	return y
}

// outputChannel is the channel of an element of the outputs.
func (f *foldedCase) outputChannel(i int) int {
	return i / (f.out.Height * f.out.Width) % f.out.Channels
}

// statistics are the batch's, of every channel.
func (f *foldedCase) statistics(y []float64) (mean, variance []float64) {
	mean, variance = make([]float64, f.out.Channels), make([]float64, f.out.Channels)
	n := float64(len(y) / f.out.Channels)
	for i, v := range y {
		mean[f.outputChannel(i)] += v / n
	}
	for i, v := range y {
		o := f.outputChannel(i)
		variance[o] += (v - mean[o]) * (v - mean[o]) / n
	}
	return mean, variance
}

func (f *foldedCase) loss() float64 {
	sum := 0.0
	for i, y := range f.outputs() {
		sum += y * f.dy[i]
	}
	return sum
}

// differences are the derivatives of the loss by numbers that moves moves by h, each.
func (f *foldedCase) differences(n int, move func(i int, h float64)) []float64 {
	const h = 1e-6
	d := make([]float64, n)
	for i := range d {
		move(i, h)
		d[i] = f.loss()
		move(i, -2*h)
		d[i] = (d[i] - f.loss()) / (2 * h)
		move(i, h)
	}
	return d
}

// Training computes the fused formula, and its gradients are the derivatives of that but for the rounding itself.
func TestFoldedTrainingEqualsDefinition(t *testing.T) {
	for _, weights := range []string{"lsq:2", "lsq:4,per=channel", "linear:4", "linear:3,per=tensor", "linear:4,asymmetric", "lsq:5,range=narrow"} {
		for i, name := range []string{"conv", "same", "linear", "conv", "linear"} {
			c, frozen := weightedCases(folding(methods(weights, "none")))[name], i >= 3
			t.Run(fmt.Sprint(name, " ", weights, " frozen=", frozen), func(t *testing.T) {
				t.Parallel()
				f := newFoldedCase(t, c, frozen)
				f.run(t)
				requireClose(t, f.outputs(), f.output(), 1e-5, "y")
				add := func(to []float64) func(int, float64) { return func(i int, h float64) { to[i] += h } }
				requireClose(t, f.differences(len(f.w), add(f.w)), f.gradient("layer.weight"), 2e-5, "dw")
				requireClose(t, f.differences(len(f.gamma), add(f.gamma)), f.gradient("bn.weight"), 2e-5, "dγ")
				f.requireStep(t, weights)
			})
		}
	}
}

// requireStep compares the gradient of learned step sizes, and where steps come from in any case.
func (f *foldedCase) requireStep(t *testing.T, weights string) {
	t.Helper()
	largest := make([]float64, len(f.gamma))
	for i, w := range f.w {
		o := f.channel(i)
		largest[o] = math.Max(largest[o], math.Abs(w*f.factor(o)))
	}
	param := f.params["layer.weight.step"]
	if param == nil {
		if weights == "linear:4" {
			for o, scale := range f.scale {
				require.InEpsilon(t, largest[o]/7, scale, 1e-6)
			}
		}
		return
	}
	steps, each := param.Data(), len(f.scale)/len(param.Data())
	for o, scale := range f.scale {
		require.InEpsilon(t, steps[o/each], scale, 1e-6)
	}
	method := quantops.MustParse(weights)
	want := f.differences(len(steps), func(i int, h float64) {
		for o := i * each; o < (i+1)*each; o++ {
			f.scale[o] += h
		}
	})
	for i := range want {
		want[i] /= math.Sqrt(float64(len(f.w)/len(steps)) * (math.Ldexp(1, method.Bits()-1) - 1))
	}
	requireClose(t, want, f.gradient("layer.weight.step"), 2e-5, "dstep")
}

// foldedConv is a convolution with folded normalization whose levels a test can look at.
type foldedConv struct {
	*Conv2D
	net     *Network
	norm    *BatchNorm
	machine gorgonia.VM
	levels  []float32 // of the latest run
}

func newFoldedConv(t *testing.T, method string) *foldedConv {
	t.Helper()
	f := &foldedConv{Conv2D: &Conv2D{Outputs: 5, Kernel: 3, Methods: folding(methods(method, "none"))}, norm: &BatchNorm{}}
	var err error
	f.net, err = NewNetwork(Sequential{f.Conv2D, f.norm}, Shape{Channels: 3, Height: 5, Width: 5}, 1)
	require.NoError(t, err)
	pass := NewPass(Training, 1)
	n, err := f.weight.Node(pass)
	require.NoError(t, err)
	f.machine = gorgonia.NewTapeMachine(pass.Graph)
	t.Cleanup(func() { require.NoError(t, f.machine.Close()) })
	f.levels, err = quantops.Result(n)
	require.NoError(t, err)
	return f
}

// trained returns the weights of training.
func (f *foldedConv) trained(t *testing.T) []float32 {
	t.Helper()
	require.NoError(t, f.machine.RunAll())
	f.machine.Reset()
	weights, units := make([]float32, len(f.levels)), f.weight.Units()
	require.Len(t, units, 5)
	for i, level := range f.levels {
		weights[i] = level * units[i/27]
	}
	return weights
}

func (f *foldedConv) exported(t *testing.T) []float32 {
	t.Helper()
	encoded, err := f.weight.Encode()
	require.NoError(t, err)
	return encoded.Decode()
}

// Exported weights are those of training, bit for bit, in whichever order both are made.
func TestFoldedWeights(t *testing.T) {
	for _, method := range []string{"lsq:4", "lsq:3,per=channel", "linear:4", "linear:4,asymmetric", "linear:8,asymmetric,per=tensor", "lsq:4,sign=unsigned"} {
		f := newFoldedConv(t, method)
		before := f.trained(t)
		copy(f.norm.gamma.Data(), []float32{1, 0, -2.5, 1e-30, 3e-3})
		copy(f.norm.variance.Data(), []float32{1, 2, 0, 1, 0.3})
		exported := f.exported(t)
		require.NotEqual(t, before, exported, method)
		require.Equal(t, exported, f.trained(t), method)
		require.Negative(t, f.weight.Units()[2])
		f.norm.gamma.Data()[4] *= 50
		for i := range f.weight.Params()[0].Data() {
			f.weight.Params()[0].Data()[i] *= 1.5
		}
		trained := f.trained(t)
		require.NotEqual(t, exported, trained, method)
		require.Equal(t, trained, f.exported(t), method)
	}
}

// Steps are fitted to the scaled weights.
func TestFoldedFit(t *testing.T) {
	f := newFoldedConv(t, "lsq:4")
	copy(f.norm.gamma.Data(), []float32{1, 0, -2.5, 1e-30, 3e-3})
	copy(f.norm.variance.Data(), []float32{1, 2, 0, 1, 0.3})
	f.net.Fit()
	sum := 0.0
	for i, w := range f.weight.Params()[0].Data() {
		sum += math.Abs(float64(w) * []float64{1 / math.Sqrt(1+1e-5), 1, 2.5 / math.Sqrt(1e-5), 1, 3e-3 / math.Sqrt(0.3+1e-5)}[i/27])
	}
	require.InEpsilon(t, 2*sum/(5*27)/math.Sqrt(7), f.weight.Params()[1].Data()[0], 1e-6)
}

// emptyNorms sets some factors to 0, and some so low that dividing by them would overflow.
func emptyNorms(net *Network, s *random.Stream) {
	walk(net.Root, func(l Layer) {
		if b, ok := l.(*BatchNorm); ok {
			for c := range b.gamma.Data() {
				b.gamma.Data()[c] *= pick[float32](s, 1, 1, 1, 1, 0, 1e-30, 1e-12)
			}
		}
	})
}

// normalized puts batch normalization after layers with weights, after some of them not directly.
func normalized(s *random.Stream, root Sequential) Sequential {
	var with Sequential
	for i, l := range root {
		with = append(with, l)
		if _, ok := l.(foldable); ok && (i == 0 || s.Below(3) > 0) {
			with = append(with, &BatchNorm{})
		}
	}
	return with
}

// countFolded is the number of layers that a normalization is folded into.
func countFolded(r *rig) (count int) {
	for _, w := range r.watched {
		if _, ok := w.core.weight.(*folded); ok {
			count++
		}
	}
	return count
}

// Evaluation of folded networks is the integer engine, in every code and logit.
func TestFoldedEvaluationIsExact(t *testing.T) {
	for seed := range uint64(80) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := random.New(seed, "folded")
			root, in := randomResidual(s)
			if seed%2 == 0 {
				root, in = randomNetwork(s)
				root = normalized(s, root)
			}
			m := folding(randomMethods(s))
			for m.Weights.HasCodebook() || m.Weights.Searches() { // normalizations are not folded into these
				m = folding(randomMethods(s))
			}
			Quantize(root, m, pick(s, 0, 8))
			r := newRig(t, root, in, pick(s, 1, 3, 16, 18), s)
			require.Positive(t, countFolded(r))
			disturb(r.net, s)
			disturbNorms(r.net, s)
			emptyNorms(r.net, s)
			r.calibrate()
			disturb(r.net, s)
			r.requireExact()
		})
	}
}

// Without activations on integers, evaluation is training's arithmetic with running statistics.
func TestFoldedEvaluationOfRealActivations(t *testing.T) {
	s := random.New(1, "real")
	norm := &BatchNorm{Frozen: true}
	root := Sequential{&Conv2D{Outputs: 4, Kernel: 3}, norm, ReLU{}, Flatten{}, &Linear{Outputs: 3}}
	Quantize(root, folding(methods("lsq:4", "none")), 0)
	r := newRig(t, root, Shape{Channels: 2, Height: 6, Width: 6, Signed: true}, 18, s)
	disturbNorms(r.net, s)
	norm.gamma.Data()[2] = 0
	r.calibrate()
	trained, _ := r.run(Training)
	evaluated, _ := r.run(Evaluation)
	require.Equal(t, trained, evaluated)
	for c := range norm.gamma.Data() {
		norm.gamma.Data()[c]++
	}
	moved, _ := r.run(Evaluation)
	require.NotEqual(t, evaluated, moved)
}

// Normalization is folded into the layer directly before it, wherever lists of layers end, and nowhere else.
func TestWhichLayersFold(t *testing.T) {
	fold := folding(methods("lsq:4", "lsq:4"))
	conv := func(name string) *Conv2D { return &Conv2D{Name: name, Outputs: 2, Kernel: 1, Methods: fold} }
	bn := func() *BatchNorm { return &BatchNorm{} }
	plain := &Conv2D{Name: "plain", Outputs: 2, Kernel: 1, Methods: methods("lsq:4", "lsq:4")}
	real := &Conv2D{Name: "real", Outputs: 2, Kernel: 1, Methods: folding(methods("none", "lsq:4"))}
	root := Sequential{
		conv("yes 1"), bn(), Sequential{conv("yes 2")}, Sequential{}, Sequential{Sequential{bn(), ReLU{}}},
		plain, bn(), real, bn(), conv("no 1"), ReLU{}, bn(), conv("no 2"),
		&Residual{Body: Sequential{bn(), conv("yes 3"), bn()}, Shortcut: Sequential{bn(), conv("yes 4"), bn(), conv("no 3")}}, bn(),
		Flatten{}, &Linear{Name: "yes 5", Outputs: 3, Methods: fold}, bn(), &Linear{Name: "no 4", Outputs: 3, Methods: fold},
	}
	net, err := NewNetwork(root, Shape{Channels: 2, Height: 2, Width: 2}, 1)
	require.NoError(t, err)
	found := 0
	walk(net.Root, func(l Layer) {
		if w, ok := l.(interface{ core() *weighted }); ok {
			_, isFolded := w.core().weight.(*folded)
			require.Equal(t, strings.HasPrefix(w.core().name, "yes"), isFolded, w.core().name)
			found++
		}
	})
	require.Equal(t, 11, found)

	for _, root := range []Sequential{{conv("a")}, {conv("a"), ReLU{}, bn()}, {real, bn()}, {bn(), conv("a"), &Residual{Body: bn()}}} {
		_, err := NewNetwork(root, Shape{Channels: 2, Height: 2, Width: 2}, 1)
		require.EqualError(t, err, "layers: no batch normalization to fold: none comes directly after a layer whose weights have a method")
	}
}

// γ is used twice, by weights and normalization, and its gradients add up in an operation of this module.
func TestFoldedGraphHasNoStockOperation(t *testing.T) {
	m := folding(methods("lsq:4", "lsq:4"))
	p := newProbe(t, Sequential{&Conv2D{Outputs: 4, Kernel: 3, Methods: m}, &BatchNorm{}, ReLU{}}, Shape{Channels: 2, Height: 5, Width: 5}, 3)
	for _, n := range p.graph.AllNodes() {
		if n.Op() != nil && !n.IsScalar() {
			requireOwn(t, n, "folded")
		}
	}
}

// Scales beyond float32 are refused where integers are made.
func TestFoldedScaleOverflow(t *testing.T) {
	conv, norm := &Conv2D{Outputs: 2, Kernel: 1, Methods: folding(methods("lsq:4", "lsq:4"))}, &BatchNorm{}
	_, err := NewNetwork(Sequential{conv, norm}, Shape{Channels: 1, Height: 1, Width: 1}, 1)
	require.NoError(t, err)
	norm.gamma.Data()[1] = 0x1p-63
	conv.weight.Params()[1].Data()[0] = 0x1p80
	_, err = conv.encode()
	require.EqualError(t, err, "layers: conv1: integer: weight plane 0, channel 1 has scale +Inf: want a finite number")
}
