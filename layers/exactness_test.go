package layers

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

func pick[T any](s *random.Stream, from ...T) T { return from[s.Below(uint64(len(from)))] }

// anyMethod picks a registered method, at any of the bits that it has for a role.
func anyMethod(s *random.Stream, bits func(*quantops.Spec) quantops.Bits) quantops.Method {
	var able []*quantops.Spec
	for _, spec := range quantops.All() {
		if bits(spec).Max > 0 {
			able = append(able, spec)
		}
	}
	spec := pick(s, able...)
	b := bits(spec)
	return quantops.MustParse(fmt.Sprintf("%s:%d", spec.Name, b.Min+int(s.Below(uint64(b.Max-b.Min+1)))))
}

// randomMethods picks variants of the linear methods, or any methods as they are.
func randomMethods(s *random.Stream) Methods {
	if s.Below(2) == 0 {
		return Methods{
			Weights:     anyMethod(s, func(spec *quantops.Spec) quantops.Bits { return spec.Weights }),
			Activations: anyMethod(s, func(spec *quantops.Spec) quantops.Bits { return spec.Activations }),
		}
	}
	method := func(choices ...string) quantops.Method {
		return quantops.MustParse(strings.Replace(pick(s, choices...), "B", fmt.Sprint(2+s.Below(7)), 1))
	}
	return Methods{
		Weights:     method("vq", "vq:k=2", "pq:d=1,pointwise=1,k=16", "lsq:B", "lsq:B,per=channel", "lsq:B,range=narrow", "lsq:B,sign=unsigned", "linear:B", "linear:B,per=tensor", "linear:B,asymmetric", "linear:B,asymmetric,per=tensor"),
		Activations: method("lsq:B", "lsq:B,sign=signed", "linear:B", "linear:B,observer=minmax", "linear:B,asymmetric", "linear:B,range=narrow"),
	}
}

// randomConv fits a convolution to its input.
func randomConv(s *random.Stream, in Shape) *Conv2D {
	c := &Conv2D{Outputs: 1 + int(s.Below(6)), Kernel: 1 + int(s.Below(3)), Stride: 1 + int(s.Below(2)), NoBias: s.Below(4) == 0}
	c.Kernel = min(c.Kernel, in.Height, in.Width)
	if c.Same = s.Below(3) == 0; !c.Same {
		c.Pad = int(s.Below(uint64(c.Kernel)))
	}
	if in.Channels%2 == 0 && s.Below(2) == 0 {
		c.Groups, c.Outputs = 2, 2*c.Outputs
	}
	return c
}

// randomPool returns a pooling layer that fits, or none.
func randomPool(s *random.Stream, in Shape) Sequential {
	size := 2 + int(s.Below(2))
	if in.Height < size || in.Width < size {
		return nil
	}
	stride, pad := int(s.Below(3)), int(s.Below(2))
	return pick(s, nil, Sequential{MaxPool2D{size, stride, pad}}, Sequential{AvgPool2D{size, stride, pad}},
		Sequential{MaxPool2D{size, 1, 1}, AvgPool2D{Window: 2}}, Sequential{AvgPool2D{2, 1, 0}, MaxPool2D{2, 1, 1}})
}

// randomNetwork returns one or two convolutions, each perhaps with a rectifier and pooling in either order, and one
// or two linear layers.
func randomNetwork(s *random.Stream) (Sequential, Shape) {
	in := Shape{Channels: 1 + int(s.Below(4)), Height: 4 + int(s.Below(4)), Width: 4 + int(s.Below(4)), Signed: s.Below(2) == 0}
	var root Sequential
	at := in
	for range 1 + s.Below(2) {
		conv := randomConv(s, at)
		at.Channels = conv.Outputs
		at.Height, at.Width = conv.axis(at.Height, conv.Stride).Out, conv.axis(at.Width, conv.Stride).Out
		pool, relu := randomPool(s, at), pick(s, nil, Sequential{ReLU{}})
		for _, l := range pool {
			at, _ = l.Build(nil, at)
		}
		root = append(root, conv)
		if s.Below(2) == 0 {
			pool, relu = relu, pool
		}
		root = append(append(root, pool...), relu...)
	}
	root = append(root, Flatten{})
	if s.Below(2) == 0 {
		root = append(root, &Linear{Outputs: 3 + int(s.Below(9))}, ReLU{})
	}
	return append(root, &Linear{Outputs: 1 + int(s.Below(5)), NoBias: s.Below(4) == 0}), in
}

// disturb moves parameters as training would: biases of all sizes, steps that are not those of the calibration.
func disturb(net *Network, s *random.Stream) {
	for _, p := range net.Params() {
		data := p.Data()
		for i := range data {
			switch {
			case strings.HasSuffix(p.Name, ".bias"):
				data[i] = float32(s.Normal() * math.Pow(10, float64(s.Below(4))-2))
			case strings.HasSuffix(p.Name, ".step"):
				data[i] *= 0.5 + s.Float32()
			}
		}
	}
}

// Evaluation is the integer engine: every code and every logit, for any network.
func TestEvaluationIsExact(t *testing.T) {
	for seed := range uint64(120) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := random.New(seed, "network")
			root, in := randomNetwork(s)
			Quantize(root, randomMethods(s), pick(s, 0, 8))
			r := newRig(t, root, in, pick(s, 1, 3, 16, 18), s)
			disturb(r.net, s)
			r.calibrate()
			disturb(r.net, s)
			r.requireExact()
		})
	}
}

// A network without convolutions flattens the image itself.
func TestEvaluationOfPerceptron(t *testing.T) {
	t.Parallel()
	s := random.New(1, "perceptron")
	root := Sequential{Flatten{}, &Linear{Outputs: 7}, ReLU{}, &Linear{Outputs: 3}}
	Quantize(root, randomMethods(s), 8)
	r := newRig(t, root, Shape{Channels: 2, Height: 3, Width: 4, Signed: true}, 5, s)
	r.calibrate()
	r.requireExact()
}

// Networks may end in anything: in means, whose unit is no power of two, in means of means, whose sums need other units
// again, and in rectifiers.
func TestEvaluationOfEnds(t *testing.T) {
	conv := func() Layer { return &Conv2D{Outputs: 5, Kernel: 3, Pad: 1} }
	for name, root := range map[string]Sequential{
		"conv":          {conv(), Flatten{}},
		"relu":          {conv(), Flatten{}, ReLU{}},
		"max":           {conv(), MaxPool2D{Window: 2}, Flatten{}},
		"mean of 4":     {conv(), AvgPool2D{Window: 2}, Flatten{}},
		"mean of 9":     {conv(), ReLU{}, AvgPool2D{Window: 3}, Flatten{}},
		"rectified":     {conv(), AvgPool2D{Window: 3}, ReLU{}, Flatten{}},
		"largest mean":  {conv(), AvgPool2D{Window: 3, Stride: 1}, MaxPool2D{Window: 2}, Flatten{}},
		"means of 4":    {conv(), AvgPool2D{Window: 2, Stride: 1}, AvgPool2D{Window: 2, Stride: 1}, Flatten{}},
		"means of 9":    {conv(), AvgPool2D{Window: 3, Stride: 1}, AvgPool2D{Window: 3, Stride: 1}, Flatten{}},
		"means, linear": {conv(), AvgPool2D{Window: 3, Stride: 1}, ReLU{}, AvgPool2D{Window: 4, Stride: 1}, Flatten{}, &Linear{Outputs: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			Quantize(root, methods("lsq:4", "linear:4"), 8)
			s := random.New(1, "ends")
			r := newRig(t, root, Shape{Channels: 2, Height: 6, Width: 6}, 3, s)
			r.calibrate()
			disturb(r.net, s)
			r.requireExact()
		})
	}
}

// Ranges of activations follow the data in training, once a step is done with the old ones, and stand still in evaluation.
func TestRunningRanges(t *testing.T) {
	root := Sequential{Flatten{}, &Linear{Name: "fc", Outputs: 2, Methods: methods("none", "linear:4,constant=0.5")}}
	r := newRig(t, root, Shape{Channels: 1, Height: 4, Width: 4, Signed: true}, 3, random.New(1, "running"))
	data := r.watched[0].core.input.theta.Data()
	copy(data, []float32{-100, 100})
	r.run(Evaluation)
	require.Equal(t, []float32{-100, 100}, data)
	r.step()
	require.InDelta(t, -50, data[0], 1)
	require.InDelta(t, 50, data[1], 1)
	r.calibrate()
	require.InDelta(t, 0, data[0], 1)
	require.InDelta(t, 0, data[1], 1)
}

// An evaluation graph sees parameters as they are at the Refresh.
func TestEvaluationFollowsParameters(t *testing.T) {
	s := random.New(1, "follow")
	root := Sequential{&Conv2D{Outputs: 3, Kernel: 3}, ReLU{}, Flatten{}, &Linear{Outputs: 4}}
	Quantize(root, methods("lsq:4", "linear:4"), 0)
	r := newRig(t, root, Shape{Channels: 1, Height: 5, Width: 5}, 2, s)
	r.calibrate()
	p, out, machine := r.pass(Evaluation)
	for range 3 {
		require.NoError(t, p.Refresh())
		require.NoError(t, machine.RunAll())
		machine.Reset()
		want, err := r.lower().Program.Run(r.pixels)
		require.NoError(t, err)
		for i, logit := range r.unpack(out.Node, 4) {
			require.EqualValues(t, want[i], logit)
		}
		disturb(r.net, s)
		for i := range r.watched[0].core.weight.Params()[0].Data() {
			r.watched[0].core.weight.Params()[0].Data()[i] += float32(s.Normal())
		}
	}
}

// Sums of 2^24 and more do not fit a float32: such layers run in parts.
func TestEvaluationOfLargeSums(t *testing.T) {
	for _, c := range []struct {
		weights        string
		channels, size int
		weight         float32
	}{
		{"linear:8", 1, 32, 127},
		{"linear:8,asymmetric", 1, 32, 1},
		{"lsq:8", 4, 16, -128},
		{"linear:4", 1, 100, -7},
		{"lsq:2", 2, 200, -1},
	} {
		t.Run(c.weights, func(t *testing.T) {
			s := random.New(1, "large")
			root := Sequential{&Conv2D{Outputs: 8, Kernel: c.size, Methods: methods(c.weights, "linear:8")}, Flatten{}}
			r := newRig(t, root, Shape{Channels: c.channels, Height: c.size, Width: c.size}, 3, s)
			for i := range r.pixels {
				r.pixels[i] |= uint8(pick(s, 252, 254, 255))
			}
			r.pack()
			core := r.watched[0].core
			weights := core.weight.Params()[0].Data()
			for i := range weights {
				weights[i] = c.weight * pick[float32](s, 1, 1, 1, 1, 1, 1, 0.99, 0.5)
			}
			r.calibrate()
			for _, p := range r.net.Params() {
				if p.Name == core.name+".weight.step" {
					p.Data()[0] = 1 // weights are their levels
				}
				if p.Name == core.name+".input.range" {
					copy(p.Data(), []float32{0, 1}) // pixels are their codes
				}
			}
			encoded, err := core.weight.Encode()
			require.NoError(t, err)
			bound := int64(0)
			for _, b := range encoded.Bound(255) {
				bound = max(bound, b[0])
			}
			require.Greater(t, bound, int64(1)<<24)
			r.requireExact()
		})
	}
}

// The parts of a plane add up to it, and the sums of each fit a float32.
func TestSplit(t *testing.T) {
	for _, c := range []struct {
		outputs, each int
		largest       int
		magnitude     int64
		parts         int
	}{
		{3, 100, 127, 255, 1},
		{2, 1000, 127, 255, 2},
		{2, 1000, 128, 255, 2},
		{1, 10000, 7, 255, 2},
		{1, 70000, 1, 255, 2},
		{2, 60000, 127, 255, 10},
		{3, 300000, 1, 128, 3},
	} {
		s := random.New(uint64(c.each), "split")
		p := part{weights: make([]float32, c.outputs*c.each), factor: 1}
		for i := range p.weights {
			p.weights[i] = float32(pick(s, c.largest, c.largest, -c.largest, c.largest-1))
		}
		parts := p.split(c.outputs, c.magnitude)
		sum := make([]float32, len(p.weights))
		for _, part := range parts {
			_, reach := part.reach(c.outputs)
			require.Less(t, reach*c.magnitude, int64(1)<<24)
			for i, w := range part.weights {
				sum[i] += w * float32(part.factor)
			}
		}
		require.Equal(t, p.weights, sum)
		require.LessOrEqual(t, len(parts), c.parts, "%+v", c)
	}
}

// A layer without quantizers leaves the integers: what comes before is requantized to real numbers, what comes behind
// is float. Evaluation then agrees with training's arithmetic, and there is no integer model.
func TestMixedNetworks(t *testing.T) {
	quantized, none := methods("lsq:4", "lsq:4"), Methods{}
	conv := func(m Methods) Layer { return &Conv2D{Outputs: 4, Kernel: 3, Pad: 1, Methods: m} }
	fc := func(m Methods) Layer { return &Linear{Outputs: 3, Methods: m} }
	for name, c := range map[string]struct {
		root Sequential
		want string // what Lower says
	}{
		"float tail":         {Sequential{conv(quantized), ReLU{}, Flatten{}, fc(none)}, "layers: fc1 has no weight quantizer, so it has no integers"},
		"float tail, max":    {Sequential{conv(quantized), MaxPool2D{Window: 2}, ReLU{}, Flatten{}, fc(none)}, "layers: fc1 has no weight quantizer, so it has no integers"},
		"float tail, mean":   {Sequential{conv(quantized), ReLU{}, AvgPool2D{Window: 2}, Flatten{}, fc(none)}, "layers: fc1 has no weight quantizer, so it has no integers"},
		"float head":         {Sequential{conv(none), ReLU{}, Flatten{}, fc(quantized)}, "layers: conv1 has no weight quantizer, so it has no integers"},
		"weights only":       {Sequential{conv(quantized), ReLU{}, Flatten{}, fc(Methods{Weights: quantized.Weights})}, "layers: fc1 has no activation quantizer, so it can't run on integers"},
		"activations only":   {Sequential{conv(quantized), ReLU{}, Flatten{}, fc(Methods{Activations: quantized.Activations})}, "layers: fc1 has no weight quantizer, so it has no integers"},
		"weights only, head": {Sequential{conv(Methods{Weights: quantized.Weights}), ReLU{}, Flatten{}, fc(quantized)}, "layers: conv1 has no activation quantizer, so it can't run on integers"},
		"all float":          {Sequential{conv(none), ReLU{}, AvgPool2D{Window: 2}, Flatten{}, fc(none)}, "layers: conv1 has no weight quantizer, so it has no integers"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.root, Shape{Channels: 2, Height: 6, Width: 6, Signed: true}, 18, random.New(1, "mixed"))
			r.calibrate()
			trained, _ := r.run(Training)
			evaluated, out := r.run(Evaluation)
			unit := out.Unit()
			for i := range evaluated {
				evaluated[i] = float32(float64(evaluated[i]) * unit)
			}
			requireClose(t, float64s(trained), evaluated, 1e-5, "logit")
			_, err := r.net.Lower(r.pixel, make([]string, 3))
			require.EqualError(t, err, c.want)
		})
	}
}

// distance is a code that differs: how far the real value was from the boundary between the two codes, and how far it may
// be, in steps.
type distance struct{ is, may float64 }

// distances compares training's arithmetic with the integer model on every image's way through the layers, up to the
// first layer where they part.
func (r *rig) distances(may func(layer int) float64) (distances []distance, compared int) {
	r.t.Helper()
	r.run(Training)
	levels := r.levels(r.lower())
	parted := make([]bool, r.images)
	for i, w := range r.watched {
		g, err := w.core.input.grid()
		require.NoError(r.t, err)
		size := w.core.in.Len()
		before := append([]bool{}, parted...)
		for k, x := range r.unpack(w.node, size) {
			if before[k/size] {
				continue
			}
			compared++
			level, want := levels[i][k], g.Level(g.Code(x))
			if level == want {
				continue
			}
			require.Contains(r.t, []int32{want - 1, want + 1}, level, "%s: input %d, %v", w.core.name, k, x)
			boundary := float64(level+want) / 2
			distances = append(distances, distance{math.Abs(float64(x)/float64(g.Scale) - boundary), may(i)})
			parted[k/size] = true
		}
	}
	return distances, compared
}

// Against training, where sums are float32 and each step is rounded, a code of the integer model differs by at most
// one, and only where the real value lies at a rounding boundary: within 2^-14 of a step, since codes reach 2^8 steps and
// scale, bias and division, the latter twice, are each rounded to float32's 2^-24 of that. Where an average comes between,
// the integer model takes it of wide numbers, whose rounding adds half of their unit.
func TestTrainingIsNearTheIntegers(t *testing.T) {
	for name, pool := range map[string]Layer{"max": MaxPool2D{Window: 3}, "mean": AvgPool2D{Window: 3}} {
		t.Run(name, func(t *testing.T) {
			largest, differing, all := 0.0, 0, 0
			for _, m := range []Methods{methods("linear:8", "linear:8,observer=minmax"), methods("lsq:4", "lsq:8"), methods("linear:8,asymmetric", "linear:8,asymmetric,observer=minmax"), methods("lsq:3", "lsq:3")} {
				for seed := range uint64(4) {
					r := nearRig(t, m, pool, seed)
					distances, compared := r.distances(func(layer int) float64 { return 0x1p-14 + r.wideRounding(layer, pool) })
					differing, all = differing+len(distances), all+compared
					for _, d := range distances {
						require.LessOrEqual(t, d.is, d.may)
						largest = max(largest, d.is)
					}
				}
			}
			t.Logf("%d of %d codes differ, at most %.3g steps from a boundary", differing, all, largest)
			require.Less(t, float64(differing), 1e-4*float64(all))
		})
	}
}

func nearRig(t *testing.T, m Methods, pool Layer, seed uint64) *rig {
	t.Helper()
	root := Sequential{
		&Conv2D{Outputs: 8, Kernel: 3, Pad: 1}, ReLU{}, MaxPool2D{Window: 2},
		&Conv2D{Outputs: 8, Kernel: 3, Pad: 1}, ReLU{}, pool,
		Flatten{}, &Linear{Outputs: 10}, ReLU{}, &Linear{Outputs: 10},
	}
	Quantize(root, m, 8)
	s := random.New(seed, "near")
	r := newRig(t, root, Shape{Channels: 2, Height: 12, Width: 12, Signed: true}, 4*kernel.Lanes, s)
	for _, w := range r.watched {
		for i := range w.core.bias.Data() {
			w.core.bias.Data()[i] = float32(s.Normal() / 10)
		}
	}
	r.calibrate()
	return r
}

// wideRounding is half a unit of the wide numbers that go into the pooling before the third layer, in its steps.
func (r *rig) wideRounding(layer int, pool Layer) float64 {
	r.t.Helper()
	mean, ok := pool.(AvgPool2D)
	if layer != 2 || !ok {
		return 0
	}
	before := r.watched[1].core
	a, err := before.accumulators(&before.input)
	require.NoError(r.t, err)
	g, err := r.watched[2].core.input.grid()
	require.NoError(r.t, err)
	return integer.WideScale(a.affine, a.bound, mean.window().integers().SumBits()) / 2 / float64(g.Scale)
}

// Signs run on integers too: padding is a real zero, which is none of them, in every kind of layer.
func TestEvaluationOfSignsIsExact(t *testing.T) {
	for seed := range uint64(20) {
		s := random.New(seed, "signs")
		m := Methods{Weights: quantops.MustParse(pick(s, "dorefa:1", "lbw:1", "linear:4")), Activations: quantops.MustParse("dorefa:1")}
		root := Sequential{
			&Conv2D{Outputs: 6, Kernel: 3, Pad: 2, Methods: m}, &BatchNorm{}, pick[Layer](s, MaxPool2D{2, 1, 1}, AvgPool2D{Window: 2}, &PReLU{}),
			&Residual{Body: Sequential{&Conv2D{Outputs: 6, Kernel: 3, Pad: 1, Methods: m}, &BatchNorm{}}},
			&Conv2D{Outputs: 4, Kernel: 3, Pad: 1, Stride: 2, Groups: 2, Methods: m}, &BatchNorm{}, Flatten{}, &Linear{Outputs: 3, Methods: m},
		}
		r := newRig(t, root, Shape{Channels: 2, Height: 6, Width: 7, Signed: true}, 18, s)
		r.calibrate()
		disturb(r.net, s)
		r.requireExact()
	}
}
