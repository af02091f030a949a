package layers

import (
	"fmt"
	"math"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
)

var _ Layer = (*BatchNorm)(nil)

// BatchNorm normalizes each channel over the batch:
//
//	y = γ·(x - mean)/√(variance + ε) + β
//
// In training mean and variance (biased) are the batch's, and running statistics follow them, r += Momentum·(batch - r)
// with the unbiased variance; calibration and evaluation use the running ones, and integers have them folded in.
// Parameters: NAME.weight γ, NAME.bias β, NAME.running_mean, NAME.running_var, [channels] each.
//
// Ioffe and Szegedy, "Batch Normalization", 2015.
type BatchNorm struct {
	Name     string  // default bn1, bn2, …
	Epsilon  float64 // 0 means 1e-5
	Momentum float64 // weight of a new batch in the running statistics; 0 means 0.1
	Frozen   bool    // use the running statistics in training too, and leave them alone

	name                        string
	gamma, beta, mean, variance *Param
}

// Build makes the parameters.
func (l *BatchNorm) Build(b *Build, in Shape) (Shape, error) {
	var err error
	if l.name, err = b.Name(l.Name, "bn"); err != nil {
		return Shape{}, err
	}
	if !(l.Epsilon >= 0) || !(l.Momentum >= 0 && l.Momentum <= 1) {
		return Shape{}, fmt.Errorf("layers: %s: epsilon %v, momentum %v: want 0 or more, and momentum at most 1", l.name, l.Epsilon, l.Momentum)
	}
	l.gamma, l.beta = newParam(l.name+".weight", in.Channels), newParam(l.name+".bias", in.Channels)
	l.mean, l.variance = newParam(l.name+".running_mean", in.Channels), newParam(l.name+".running_var", in.Channels)
	l.mean.Kind, l.variance.Kind = quantops.Running, quantops.Running
	for c := range in.Channels {
		l.gamma.Data()[c], l.variance.Data()[c] = 1, 1
	}
	in.Signed = true
	return in, nil
}

// Params returns γ, β and the running statistics.
func (l *BatchNorm) Params() []*Param { return []*Param{l.gamma, l.beta, l.mean, l.variance} }

func (l *BatchNorm) epsilon() float64 {
	if l.Epsilon == 0 {
		return 1e-5
	}
	return l.Epsilon
}

func (l *BatchNorm) momentum() float64 {
	if l.Momentum == 0 {
		return 0.1
	}
	return l.Momentum
}

// Forward adds the normalization to a pass.
func (l *BatchNorm) Forward(p *Pass, x Value) (Value, error) {
	shape := x.Shape
	shape.Signed = true
	if x.isPending() {
		x = x.scaled(l.folded)
		x.Shape = shape
		return x, nil
	}
	x, err := p.real(x)
	if err != nil {
		return Value{}, err
	}
	f := &normalize{
		BatchNorm: l, running: p.Mode != Training || l.Frozen,
		kernel: kernel.BatchNorm{Images: p.Images, Channels: shape.Channels, Size: shape.Height * shape.Width},
	}
	n, err := p.apply(f, shape, x.input(), quantops.Input{Node: p.Node(l.gamma)}, quantops.Input{Node: p.Node(l.beta)})
	if err != nil {
		return Value{}, err
	}
	return x.with(n, shape), p.remember(l.name, n)
}

// Lower folds the normalization into the integers before it.
func (l *BatchNorm) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	gamma, beta := l.folded()
	x, err := b.Scale(x, gamma, beta)
	if err != nil {
		return x, fmt.Errorf("layers: %s: %w", l.name, err)
	}
	return x, nil
}

// folded returns the normalization with running statistics as a factor and an offset for every channel.
func (l *BatchNorm) folded() (factor, offset []float64) {
	for c, g := range l.gamma.Data() {
		f := float64(g) * kernel.InverseDeviation(float64(l.variance.Data()[c]), l.epsilon())
		factor = append(factor, f)
		offset = append(offset, float64(l.beta.Data()[c])-float64(float64(l.mean.Data()[c])*f))
	}
	return factor, offset
}

// scaled returns x after a factor and an offset for every channel, for a pending x.
func (x Value) scaled(fold func() (factor, offset []float64)) Value {
	e := *x.exact
	before := e.describe
	e.describe = func() (accumulators, error) {
		a, err := before()
		if err != nil {
			return a, err
		}
		factor, offset := fold()
		return a.scaled(factor, offset), nil
	}
	x.exact = &e
	return x
}

// scaled returns a with every channel multiplied by factor and offset added.
func (a accumulators) scaled(factor, offset []float64) accumulators {
	folded := integer.Affine{Bias: make([]float64, len(factor)), ReLU: a.affine.ReLU}
	for _, scale := range a.affine.Scale {
		row := make([]float64, len(factor))
		for c := range row {
			row[c] = scale[c%len(scale)] * factor[c]
		}
		folded.Scale = append(folded.Scale, row)
	}
	bound := make([][]int64, len(a.bound))
	for p, b := range a.bound {
		for c := range factor {
			bound[p] = append(bound[p], b[c%len(b)])
		}
	}
	for c := range factor {
		folded.Bias[c] = float64(a.affine.Bias[c%len(a.affine.Bias)]*factor[c]) + offset[c]
	}
	return accumulators{folded, bound}
}

// normalize is the normalization as a Function of x, γ and β.
type normalize struct {
	*BatchNorm
	running bool // use the running statistics
	kernel  kernel.BatchNorm

	means, variances, sums, products []float64
	center, scale, slope, offset     []float32
}

var _ quantops.Differentiable = (*normalize)(nil)

func (f *normalize) String() string { return f.name }

func (f *normalize) allocate() {
	if f.means != nil {
		return
	}
	n := f.kernel.Channels
	f.means, f.variances, f.sums, f.products = make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	f.center, f.scale, f.slope, f.offset = make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
}

func (f *normalize) Forward(y []float32, x [][]float32) error {
	f.allocate()
	if f.running {
		for c := range f.means {
			f.means[c], f.variances[c] = float64(f.mean.Data()[c]), float64(f.variance.Data()[c])
		}
	} else {
		f.kernel.Statistics(f.means, f.variances, x[0])
		f.follow()
	}
	for c := range f.scale {
		s := float64(x[1][c]) * kernel.InverseDeviation(f.variances[c], f.epsilon())
		f.scale[c], f.offset[c] = float32(s), float32(float64(x[2][c])-float64(f.means[c]*s))
	}
	f.kernel.Affine(y, x[0], f.scale, f.offset)
	return nil
}

// follow moves the running statistics towards the batch's.
func (f *normalize) follow() {
	n := float64(f.kernel.Images) * float64(f.kernel.Size)
	unbiased := n / math.Max(1, n-1)
	for c := range f.means {
		mean, variance := &f.mean.Data()[c], &f.variance.Data()[c]
		*mean += float32(f.momentum() * (f.means[c] - float64(*mean)))
		*variance += float32(f.momentum() * (float64(f.variances[c]*unbiased) - float64(*variance)))
	}
}

// Backward computes, with x̂ = (x-mean)/σ and n elements a channel,
//
//	dβ = Σ dy,  dγ = Σ dy·x̂,  dx = γ/σ·(dy - dβ/n - x̂·dγ/n)
//
// and dx = γ/σ·dy where the statistics are not the batch's.
func (f *normalize) Backward(dx [][]float32, dy, _ []float32, x [][]float32) error {
	for c, m := range f.means {
		f.center[c] = float32(m)
	}
	f.kernel.Gradients(f.sums, f.products, dy, x[0], f.center)
	n := float64(f.kernel.Images) * float64(f.kernel.Size)
	for c := range f.means {
		inverse := kernel.InverseDeviation(f.variances[c], f.epsilon())
		gradient := f.products[c] * inverse
		dx[1][c], dx[2][c] = float32(gradient), float32(f.sums[c])
		f.slope[c], f.offset[c] = 0, 0
		if !f.running {
			slope := -float64(float64(x[1][c])*inverse) * float64(inverse*gradient) / n
			mean := float64(float64(x[1][c])*inverse) * f.sums[c] / n
			f.slope[c] = float32(slope)
			f.offset[c] = float32(-mean - float64(slope*float64(f.center[c])))
		}
	}
	if dx[0] != nil {
		f.kernel.InputGradient(dx[0], dy, x[0], f.scale, f.slope, f.offset)
	}
	return nil
}
