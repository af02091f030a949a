package layers

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
)

// setSlopes gives every rectifier slopes of both signs, some above 1.
func setSlopes(net *Network, s *random.Stream) {
	walk(net.Root, func(l Layer) {
		if l, ok := l.(*PReLU); ok {
			for i := range l.slope.Data() {
				l.slope.Data()[i] = float32(s.Normal())
			}
		}
	})
}

func TestPReLUStart(t *testing.T) {
	t.Parallel()
	for shared, slopes := range map[bool][]float32{false: {0.25, 0.25, 0.25}, true: {0.25}} {
		l := &PReLU{Shared: shared}
		net, err := NewNetwork(l, Shape{Channels: 3, Height: 2, Width: 2}, 1)
		require.NoError(t, err)
		require.True(t, net.Output.Signed)
		require.Len(t, net.Params(), 1)
		p := net.Params()[0]
		require.Equal(t, "prelu1.weight", p.Name)
		require.Equal(t, slopes, p.Data())
		require.Zero(t, p.Decay)
		require.Equal(t, 1.0, p.Rate)
	}
	_, err := NewNetwork(Sequential{&PReLU{Name: "a"}, &PReLU{Name: "a"}}, Shape{Channels: 1, Height: 1, Width: 1}, 1)
	require.EqualError(t, err, `layers: two layers are named "a"`)
}

// Outputs and all gradients are those of the definition in float64, padded lanes left out.
func TestPReLUEqualsDefinition(t *testing.T) {
	t.Parallel()
	in := Shape{Channels: 3, Height: 4, Width: 5, Signed: true}
	const images = 21
	for _, shared := range []bool{false, true} {
		p := newProbe(t, &PReLU{Name: "a", Shared: shared}, in, images)
		slope := p.params["a.weight"].Data()
		copy(slope, []float32{0.3, -0.5, 1.5})
		x, dy := noise(images*in.Len(), 1), noise(images*in.Len(), 2)
		x[0], x[1] = 0, -x[1]
		y, dx, dslope := float64s(x), float64s(dy), make([]float64, len(slope))
		for i, v := range x {
			if c := i / (in.Height * in.Width) % in.Channels % len(slope); v <= 0 {
				y[i] *= float64(slope[c])
				dx[i] *= float64(slope[c])
				dslope[c] += float64(v) * float64(dy[i])
			}
		}
		p.set(x, dy)
		for range 2 {
			p.run(t)
			requireClose(t, y, p.output(), 1e-7, "y")
			requireClose(t, dx, p.gradient("x"), 1e-7, "dx")
			requireClose(t, dslope, p.gradient("a.weight"), 1e-6, "dslope")
		}
	}
}

// Slopes learn behind images too, which themselves get no gradient, and what stands behind the rectifier does.
func TestPReLUGradientsByDifferences(t *testing.T) {
	image := Shape{Channels: 4, Height: 6, Width: 5, Signed: true}
	for name, l := range map[string]Layer{
		"channels": &PReLU{},
		"shared":   &PReLU{Shared: true},
		"behind":   Sequential{&PReLU{}, &Conv2D{Outputs: 2, Kernel: 2, Stride: 2}},
		"residual": &Residual{Body: &PReLU{}, Shortcut: &PReLU{Shared: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProbe(t, l, image, 18)
			p.set(spread(18*image.Len()), noise(18*p.out.Len(), 3))
			requireDifferences(t, p, 1./16)
		})
	}
}

func TestPReLULearnsBehindTheImage(t *testing.T) {
	t.Parallel()
	in := Shape{Channels: 2, Height: 3, Width: 3, Signed: true}
	pass := NewPass(Training, 4)
	l := &PReLU{}
	_, err := NewNetwork(l, in, 1)
	require.NoError(t, err)
	v, err := l.Forward(pass, pass.Input(in, make([]float32, kernel.Lanes*in.Len())))
	require.NoError(t, err)
	require.False(t, v.constant)
}

// Padded lanes neither count nor come out of evaluation.
func TestPReLULeavesPaddedLanesOut(t *testing.T) {
	t.Parallel()
	in := Shape{Channels: 2, Height: 3, Width: 2, Signed: true}
	x, dy := noise(20*in.Len(), 1), noise(20*in.Len(), 2)
	results := map[float32][]float32{}
	for _, padding := range []float32{0, -1000} {
		p := newProbe(t, &PReLU{Name: "a"}, in, 20)
		for i := range p.input.Data() {
			p.input.Data()[i] = padding
		}
		packImages(p, x, dy)
		p.run(t)
		results[padding] = append(p.output(), p.gradient("a.weight")...)
	}
	require.Equal(t, results[0], results[-1000])
}

// slopedNetworks have rectifiers at every place that integers allow.
func slopedNetworks() map[string]Sequential {
	conv := func() Layer { return &Conv2D{Outputs: 4, Kernel: 3, Pad: 1} }
	block := func() Layer {
		return &Residual{Body: Sequential{conv(), &BatchNorm{}, &PReLU{}, conv(), &BatchNorm{}}}
	}
	tail := func() Sequential { return Sequential{Flatten{}, &Linear{Outputs: 3}} }
	return map[string]Sequential{
		"conv":             {conv(), &PReLU{}, conv(), &PReLU{Shared: true}, tail()},
		"normalized":       {conv(), &BatchNorm{}, &PReLU{}, tail()},
		"normalized after": {conv(), &PReLU{}, &BatchNorm{}, conv(), &PReLU{}, &BatchNorm{}, MaxPool2D{Window: 2}, &PReLU{}, tail()},
		"normalized block": {conv(), &PReLU{}, &BatchNorm{}, &Residual{Body: Sequential{conv(), &PReLU{}, &BatchNorm{}}}, &BatchNorm{}, conv(), tail()},
		"twice":            {conv(), &PReLU{}, &PReLU{Shared: true}, &PReLU{}, tail()},
		"with relu":        {conv(), ReLU{}, &PReLU{}, conv(), &PReLU{}, ReLU{}, tail()},
		"max":              {conv(), &PReLU{}, MaxPool2D{Window: 2}, tail()},
		"mean":             {conv(), &PReLU{}, AvgPool2D{Window: 2}, &PReLU{}, conv(), &PReLU{}, &GlobalAvgPool{}, tail()},
		"wide":             {conv(), AvgPool2D{Window: 2}, &PReLU{}, &PReLU{}, ReLU{}, MaxPool2D{Window: 2}, tail()},
		"residual":         {conv(), &PReLU{}, block(), &PReLU{}, block(), &PReLU{Shared: true}, &GlobalAvgPool{}, tail()},
		"linear":           {Flatten{}, &Linear{Outputs: 6}, &PReLU{}, &Linear{Outputs: 5}, &PReLU{Shared: true}, &Linear{Outputs: 2}},
		"end":              {conv(), &PReLU{}, Flatten{}},
		"wide end":         {conv(), &GlobalAvgPool{}, &PReLU{}},
	}
}

// Evaluation with rectifiers is the integer engine's: every code and every logit.
func TestPReLUEvaluationIsExact(t *testing.T) {
	for name := range slopedNetworks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(8) {
				root, s := slopedNetworks()[name], random.New(seed, "sloped")
				Quantize(root, randomMethods(s), pick(s, 0, 8))
				r := newRig(t, root, Shape{Channels: 2, Height: 6, Width: 6, Signed: true}, pick(s, 2, 17), s)
				disturb(r.net, s)
				disturbNorms(r.net, s)
				setSlopes(r.net, s)
				r.calibrate()
				setSlopes(r.net, s)
				r.requireExact()
			}
		})
	}
}

// Training is as near to the integers with slopes as without: see TestTrainingIsNearTheIntegers.
func TestPReLUTrainingIsNearTheIntegers(t *testing.T) {
	differing, all := 0, 0
	for seed := range uint64(4) {
		root := Sequential{
			&Conv2D{Outputs: 8, Kernel: 3, Pad: 1}, &PReLU{}, MaxPool2D{Window: 2},
			&Conv2D{Outputs: 8, Kernel: 3, Same: true, Stride: 2}, &PReLU{Shared: true}, &PReLU{},
			Flatten{}, &Linear{Outputs: 10}, &PReLU{}, &Linear{Outputs: 10},
		}
		Quantize(root, methods("lsq:4", "linear:8,asymmetric,observer=minmax"), 8)
		s := random.New(seed, "near")
		r := newRig(t, root, Shape{Channels: 2, Height: 12, Width: 12, Signed: true}, 4*kernel.Lanes, s)
		setSlopes(r.net, s)
		r.calibrate()
		distances, compared := r.distances(func(int) float64 { return 0x1p-14 })
		differing, all = differing+len(distances), all+compared
		for _, d := range distances {
			require.LessOrEqual(t, d.is, d.may)
		}
	}
	require.Less(t, float64(differing), 1e-4*float64(all))
}

// An evaluation graph follows slopes from one Refresh to the next.
func TestPReLUEvaluationFollowsSlopes(t *testing.T) {
	s := random.New(1, "follow")
	root := Sequential{&Conv2D{Outputs: 3, Kernel: 3}, &PReLU{}, Flatten{}, &Linear{Outputs: 4}}
	Quantize(root, methods("lsq:4", "lsq:4"), 0)
	r := newRig(t, root, Shape{Channels: 1, Height: 5, Width: 5}, 2, s)
	r.calibrate()
	p, out, machine := r.pass(Evaluation)
	var before []float32
	for range 3 {
		setSlopes(r.net, s)
		require.NoError(t, p.Refresh())
		require.NoError(t, machine.RunAll())
		machine.Reset()
		want, err := r.lower().Program.Run(r.pixels)
		require.NoError(t, err)
		logits := r.unpack(out.Node, 4)
		for i, logit := range logits {
			require.EqualValues(t, want[i], logit)
		}
		require.NotEqual(t, before, logits)
		before = logits
	}
}

// A float layer behind the rectifier takes in real numbers, the same ones in training and evaluation.
func TestPReLUBeforeFloatLayers(t *testing.T) {
	for name, last := range map[string]Layer{"linear": &Linear{Outputs: 3}, "mean": AvgPool2D{Window: 4}} {
		t.Run(name, func(t *testing.T) {
			s := random.New(1, "mixed")
			root := Sequential{&Conv2D{Outputs: 4, Kernel: 3, Methods: methods("lsq:4", "lsq:4")}, &PReLU{}, Flatten{}, last}
			if name == "mean" {
				root = Sequential{&Conv2D{Outputs: 4, Kernel: 3, Methods: methods("lsq:4", "lsq:4")}, &PReLU{}, last, Flatten{}}
			}
			r := newRig(t, root, Shape{Channels: 2, Height: 6, Width: 6, Signed: true}, 18, s)
			setSlopes(r.net, s)
			r.calibrate()
			trained, _ := r.run(Training)
			evaluated, out := r.run(Evaluation)
			unit := out.Unit()
			for i := range evaluated {
				evaluated[i] = float32(float64(evaluated[i]) * unit)
			}
			requireClose(t, float64s(trained), evaluated, 1e-5, "output")
		})
	}
}

// Activations behind the rectifier are signed, and quantized so.
func TestPReLUOutputsAreSigned(t *testing.T) {
	t.Parallel()
	root := Sequential{&Conv2D{Outputs: 3, Kernel: 3}, ReLU{}, &PReLU{}, Flatten{}, &Linear{Outputs: 4}}
	Quantize(root, methods("lsq:4", "lsq:4"), 0)
	r := newRig(t, root, Shape{Channels: 1, Height: 5, Width: 5}, 2, random.New(1, "signed"))
	r.calibrate()
	g, err := r.watched[1].core.input.grid()
	require.NoError(t, err)
	require.Equal(t, [2]int32{-8, 7}, [2]int32{g.Min, g.Max})
}

// Where integers can't have the rectifier folded in, evaluation says so and training goes on.
func TestPReLUErrors(t *testing.T) {
	in := Shape{Channels: 2, Height: 6, Width: 6, Signed: true}
	for name, between := range map[string]Layer{"pool": MaxPool2D{Window: 2}, "flatten": Flatten{}, "sample": &PadShortcut{Stride: 2, Channels: 5}} {
		t.Run(name, func(t *testing.T) {
			root := Sequential{&Conv2D{Outputs: 4, Kernel: 3}, between, &PReLU{}, Flatten{}, &Linear{Outputs: 2}}
			Quantize(root, methods("lsq:4", "lsq:4"), 0)
			r := newRig(t, root, in, 2, random.New(1, "errors"))
			r.calibrate()
			r.run(Training)
			_, err := r.net.Forward(NewPass(Evaluation, r.images), r.batch)
			require.EqualError(t, err, "layers: prelu1: pooling, flattening or sampling between conv1 and it keeps it from being folded into integers: put it right behind conv1")
		})
	}
	root := Sequential{&PReLU{}, &Conv2D{Outputs: 4, Kernel: 3}, Flatten{}}
	Quantize(root, methods("lsq:4", "lsq:4"), 0)
	r := newRig(t, root, in, 2, random.New(1, "errors"))
	r.calibrate()
	_, err := r.net.Lower(r.pixel, make([]string, r.net.Output.Len()))
	require.ErrorContains(t, err, `layers: prelu1: integer: PReLU of "input", which is the unquantized image`)
}
