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
// with the unbiased variance; calibration and evaluation use the running ones, and integers have them folded in. Where
// quantized weights are of another size than the real ones, calibration is as training, for the running ones do not fit.
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
	softMean, softVariance      *Param // running statistics of soft weights, see StateBatchNorm; nil for none
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
func (l *BatchNorm) Params() []*Param {
	params := []*Param{l.gamma, l.beta, l.mean, l.variance}
	if l.softMean != nil {
		params = append(params, l.softMean, l.softVariance)
	}
	return params
}

// Statistics returns the running mean and variance that training uses and moves in a branch.
func (l *BatchNorm) Statistics(b Branch) (mean, variance *Param) {
	return l.statistics(&Pass{Mode: Training, Branch: b})
}

// statistics returns the running mean and variance that a pass uses.
func (l *BatchNorm) statistics(p *Pass) (mean, variance *Param) {
	if l.softMean != nil && p.softStatistics() {
		return l.softMean, l.softVariance
	}
	return l.mean, l.variance
}

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
	mean, variance := l.statistics(p)
	if x.exact != nil && x.levels == nil {
		x, err := l.foldInto(p, x, func() (factor, offset []float64) { return l.fold(mean, variance) })
		x.Shape = shape
		return x, err
	}
	x, err := p.real(x)
	if err != nil {
		return Value{}, err
	}
	if x, err = p.settled(x); err != nil { // an earlier step waits
		return Value{}, err
	}
	f := &normalize{
		BatchNorm: l, runningMean: mean, runningVariance: variance, running: l.Frozen || p.Mode == Evaluation || p.Mode == Calibration && !p.resized,
		kernel: kernel.BatchNorm{Images: p.Images, Channels: shape.Channels, Size: shape.Height * shape.Width},
	}
	if p.Mode == Training && x.product != nil {
		x.product.follow(f)
	}
	x.Shape, x.product, x.waiting.norm = shape, nil, f
	return x, nil
}

// foldInto gives the normalization to exact x: to whoever requantizes it where it is pending, else, and behind a parametric
// rectifier, to a requantization of its own, to wide numbers as in Lower.
func (l *BatchNorm) foldInto(p *Pass, x Value, fold func() (factor, offset []float64)) (Value, error) {
	never := func(accumulators) bool { return false }
	if x.isPending() && !x.exact.sloped {
		return x.scaled(fold), nil
	}
	var err error
	if x.isPending() {
		if x, err = p.widen(x, integer.WideBits, never); err != nil {
			return x, err
		}
	}
	return p.widen(x.scaled(fold), integer.WideBits, never)
}

// Lower folds the normalization into the integers before it.
func (l *BatchNorm) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	var err error
	if x.Sloped() {
		if x, err = b.Widen(x); err != nil {
			return x, fmt.Errorf("layers: %s: %w", l.name, err)
		}
	}
	_, _, wide := x.Wide()
	gamma, beta := l.fold(l.mean, l.variance)
	if x, err = b.Scale(x, gamma, beta); err == nil && wide {
		x, err = b.Widen(x)
	}
	if err != nil {
		return x, fmt.Errorf("layers: %s: %w", l.name, err)
	}
	return x, nil
}

// fold returns the normalization with running statistics as a factor and an offset for every channel.
func (l *BatchNorm) fold(mean, variance *Param) (factor, offset []float64) {
	for c, g := range l.gamma.Data() {
		f := float64(g) * kernel.InverseDeviation(float64(variance.Data()[c]), l.epsilon())
		factor = append(factor, f)
		offset = append(offset, float64(l.beta.Data()[c])-float64(float64(mean.Data()[c])*f))
	}
	return factor, offset
}

// scaled returns exact x after a factor and an offset for every channel.
func (x Value) scaled(fold func() (factor, offset []float64)) Value {
	e := *x.exact
	before := e.describe
	e.describe = func() (accumulators, error) {
		a, err := before()
		if err != nil {
			return a, err
		}
		if a.affine.ReLU || a.affine.Slope != nil {
			return a, fmt.Errorf("layers: batch normalization right after a rectifier has no integers; put it before")
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

// normalize is the normalization in a pass, as a part of the [prologue] of whatever takes its result in.
//
// Where the normalized numbers come from a weighted layer in training, that layer shares the work: it adds up what the
// statistics need when it has computed a block, and completes the gradient, which reaches it as that of the normalized
// numbers, when it takes in a block.
type normalize struct {
	*BatchNorm
	runningMean, runningVariance *Param

	running bool // use the running statistics
	shared  bool // a weighted layer shares the work
	kernel  kernel.BatchNorm

	moments, products            []kernel.PlaneSums
	means, variances, first, sum []float64
	center                       []float32 // means
	scale, slope, offset, bias   []float32 // y = scale·x + offset; gradient scale·dy + slope·x + bias
}

func (f *normalize) allocate() {
	if f.means != nil {
		return
	}
	n := f.kernel.Channels
	for _, v := range []*[]float64{&f.means, &f.variances, &f.first, &f.sum} {
		*v = make([]float64, n)
	}
	for _, v := range []*[]float32{&f.center, &f.scale, &f.slope, &f.offset, &f.bias} {
		*v = make([]float32, n)
	}
	f.moments, f.products = f.kernel.NewSums(), f.kernel.NewSums()
}

// addStatistics takes in a channel of a block of x.
func (f *normalize) addStatistics(block, channel int, x []float32) {
	f.kernel.AddStatistics(f.moments, block, channel, x)
}

// begin makes the factors of a run from the statistics.
func (f *normalize) begin(x, gamma, beta []float32) {
	f.allocate()
	switch {
	case f.running:
		for c := range f.means {
			f.means[c], f.variances[c] = float64(f.runningMean.Data()[c]), float64(f.runningVariance.Data()[c])
		}
	case f.shared:
		f.kernel.Moments(f.means, f.variances, f.moments)
		f.follow()
	default:
		f.kernel.Statistics(f.means, f.variances, x)
		f.follow()
	}
	for c := range f.scale {
		s := float64(gamma[c]) * kernel.InverseDeviation(f.variances[c], f.epsilon())
		f.center[c], f.scale[c] = float32(f.means[c]), float32(s)
		f.offset[c] = float32(float64(beta[c]) - float64(f.means[c]*s))
	}
}

// follow moves the running statistics towards the batch's.
func (f *normalize) follow() {
	moveStatistics(f.runningMean, f.runningVariance, f.means, f.variances, f.momentum(), f.kernel.Images*f.kernel.Size)
}

// moveStatistics moves running statistics towards those of a batch of n elements a channel, whose variances are biased.
func moveStatistics(mean, variance *Param, means, variances []float64, momentum float64, n int) {
	unbiased := float64(n) / math.Max(1, float64(n)-1)
	for c := range means {
		m, v := &mean.Data()[c], &variance.Data()[c]
		*m += float32(momentum * (means[c] - float64(*m)))
		*v += float32(momentum * (float64(variances[c]*unbiased) - float64(*v)))
	}
}

// addGradients takes in a piece of a channel of a block: the gradient dy of the normalized numbers, and x.
func (f *normalize) addGradients(block, channel int, dy, x []float32, first, last bool) {
	f.kernel.AddGradients(f.products, block, channel, dy, x, f.center[channel], first, last)
}

// rectifiedGradient is addGradients where a rectifier follows: it computes dz from the gradients behind the rectifier, of which
// term may be nil, and z, the rectified numbers.
func (f *normalize) rectifiedGradient(block, channel int, dz, dy, term, z, x []float32, first, last bool) {
	f.kernel.AffineReLUGradient(f.products, block, channel, dz, dy, term, z, x, f.center[channel], first, last)
}

// rectifiedBackward is rectifiedGradient without other gradients, where z is not at hand: dy turns into it.
func (f *normalize) rectifiedBackward(block, channel int, dz, dy, x []float32, first, last bool) {
	f.kernel.AffineReLUBackward(f.products, block, channel, dz, dy, x, f.scale[channel], f.offset[channel], f.center[channel], first, last)
}

// finish computes, with x̂ = (x-mean)/σ and n elements a channel,
//
//	dβ = Σ dy,  dγ = Σ dy·x̂,  dx = γ/σ·(dy - dβ/n - x̂·dγ/n)
//
// and dx = γ/σ·dy where the statistics are not the batch's. The gradient in dx turns from dy to that, unless a weighted
// layer sees to it.
func (f *normalize) finish(dx, x, dgamma, dbeta, gamma []float32) {
	f.kernel.Totals(f.first, f.sum, f.products)
	n := float64(f.kernel.Images) * float64(f.kernel.Size)
	for c := range f.means {
		inverse := kernel.InverseDeviation(f.variances[c], f.epsilon())
		gradient := f.sum[c] * inverse
		dgamma[c], dbeta[c] = float32(gradient), float32(f.first[c])
		f.slope[c], f.bias[c] = 0, 0
		if !f.running {
			slope := -float64(float64(gamma[c])*inverse) * float64(inverse*gradient) / n
			mean := float64(float64(gamma[c])*inverse) * f.first[c] / n
			f.slope[c] = float32(slope)
			f.bias[c] = float32(-mean - float64(slope*float64(f.center[c])))
		}
	}
	if dx == nil || f.shared {
		return
	}
	kernel.Parallel(len(f.products), func(i int) {
		size := f.kernel.Size * kernel.Lanes
		plane := dx[i*size:][:size]
		f.inputGradient(plane, plane, x[i*size:][:size], i%f.kernel.Channels)
		kernel.ClearPadding(plane, f.kernel.Images-i/f.kernel.Channels*kernel.Lanes)
	})
}

// inputGradient completes the gradient of a channel of a block.
func (f *normalize) inputGradient(dx, dy, x []float32, channel int) {
	kernel.NormGradient(dx, dy, x, f.scale[channel], f.slope[channel], f.bias[channel])
}
