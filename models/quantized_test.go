package models

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// distance is the sum of squared differences between logits and targets, both as blocks.
type distance struct{ targets []float32 }

func (distance) String() string { return "distance" }

func (f distance) Forward(y []float32, x [][]float32) error {
	y[0] = 0
	for i, v := range x[0] {
		y[0] += float32((v - f.targets[i]) * (v - f.targets[i]))
	}
	return nil
}

func (f distance) Backward(dx [][]float32, dy, _ []float32, x [][]float32) error {
	for i, v := range x[0] {
		dx[0][i] = 2 * dy[0] * (v - f.targets[i])
	}
	return nil
}

// small is a quantized network with a few random images that fill one block.
type small struct {
	t       *testing.T
	net     *layers.Network
	pixels  []uint8
	pixel   [][256]float32
	batch   []float32
	targets []float32
}

func newSmall(t *testing.T, name string, in layers.Shape, weights, activations string) *small {
	t.Helper()
	m := layers.Methods{Weights: quantops.MustParse(weights), Activations: quantops.MustParse(activations), State: layers.StateBatchNorm{On: true, Every: 1}}
	net, err := New(name, Options{Input: in, Classes: 10, Methods: m, EdgeBits: 8, Seed: 1})
	require.NoError(t, err)
	s := &small{t: t, net: net, pixels: make([]uint8, kernel.Lanes*in.Len()), pixel: make([][256]float32, in.Channels)}
	for c := range s.pixel {
		for p := range s.pixel[c] {
			s.pixel[c][p] = float32(p) / 255
		}
	}
	stream, real := random.New(1, "images"), make([]float32, len(s.pixels))
	for i := range s.pixels {
		s.pixels[i] = uint8(stream.Below(256))
		real[i] = s.pixel[0][s.pixels[i]]
	}
	s.batch = make([]float32, len(real))
	kernel.Pack(s.batch, real, kernel.Lanes, in.Len())
	s.targets = make([]float32, net.Output.Len()*kernel.Lanes)
	for image := range kernel.Lanes {
		s.targets[image%10*kernel.Lanes+image] = 1
	}
	return s
}

// pass builds a graph of the network.
func (s *small) pass(mode layers.Mode) (*layers.Pass, layers.Output) {
	s.t.Helper()
	pass := layers.NewPass(mode, kernel.Lanes)
	out, err := s.net.Forward(pass, s.batch)
	require.NoError(s.t, err)
	require.NoError(s.t, pass.Refresh())
	return pass, out
}

// run runs a graph once and returns the logits, [images][classes].
func (s *small) run(mode layers.Mode) []float32 {
	s.t.Helper()
	pass, out := s.pass(mode)
	machine := gorgonia.NewTapeMachine(pass.Graph)
	defer machine.Close()
	require.NoError(s.t, machine.RunAll())
	packed, err := quantops.Result(out.Node)
	require.NoError(s.t, err)
	logits := make([]float32, kernel.Lanes*s.net.Output.Len())
	kernel.Unpack(logits, packed, kernel.Lanes, s.net.Output.Len())
	return logits
}

// train descends the gradient and returns the loss of every step.
func (s *small) train(steps int, rate float32) []float32 {
	s.t.Helper()
	pass, out := s.pass(layers.Training)
	loss, err := quantops.Apply(distance{s.targets}, tensor.ScalarShape(), quantops.Input{Node: out.Node})
	require.NoError(s.t, err)
	params, nodes := pass.Learned()
	gradients, err := gorgonia.Grad(loss, nodes...)
	require.NoError(s.t, err)
	machine := gorgonia.NewTapeMachine(pass.Graph)
	defer machine.Close()
	var losses []float32
	for range steps {
		require.NoError(s.t, machine.RunAll())
		machine.Reset()
		value, err := quantops.Result(loss)
		require.NoError(s.t, err)
		losses = append(losses, value[0])
		for i, p := range params {
			gradient, err := quantops.Result(gradients[i])
			require.NoError(s.t, err)
			for k, g := range gradient {
				p.Data()[k] -= rate * float32(p.Rate) * g
			}
			p.Project()
		}
	}
	return losses
}

// Networks for small devices train with 4 bits, and what they have learned is what the integer engine computes.
func TestSmallNetworksTrainAndLower(t *testing.T) {
	for name, c := range map[string]struct {
		model string
		in    layers.Shape
	}{
		"resnet8":                {"resnet8", layers.Shape{Channels: 3, Height: 12, Width: 12}},
		"resnet8, odd sizes":     {"resnet8", layers.Shape{Channels: 1, Height: 13, Width: 11}},
		"mobilenet":              {"mobilenet", layers.Shape{Channels: 3, Height: 12, Width: 12}},
		"mobilenet, one channel": {"mobilenet", layers.Shape{Channels: 1, Height: 14, Width: 14}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSmall(t, c.model, c.in, "lsq:4", "lsq:4")
			s.run(layers.Calibration)
			losses := s.train(3, 3e-4)
			require.Less(t, losses[len(losses)-1], losses[0]/2, "%v", losses)

			model, err := s.net.Lower(s.pixel, make([]string, s.net.Output.Len()))
			require.NoError(t, err)
			want, err := model.Program.Run(s.pixels)
			require.NoError(t, err)
			for i, logit := range s.run(layers.Evaluation) {
				require.EqualValues(t, want[i], logit, "logit %d", i)
			}
		})
	}
}

// ResNet-20 of signs: weights of 1 bit that are searched for, activations of 1 bit, real zeros around them.
func TestResNet20OfSignsLowers(t *testing.T) {
	t.Parallel()
	s := newSmall(t, "resnet20p", layers.Shape{Channels: 3, Height: 10, Width: 9}, "lbw:1", "dorefa:1")
	s.run(layers.Calibration)
	s.net.Anneal(layers.Annealing{Temperature: 0.5})
	require.NotEmpty(t, s.train(2, 1e-3))
	model, err := s.net.Lower(s.pixel, make([]string, s.net.Output.Len()))
	require.NoError(t, err)
	want, err := model.Program.Run(s.pixels)
	require.NoError(t, err)
	for i, logit := range s.run(layers.Evaluation) {
		require.EqualValues(t, want[i], logit, "logit %d", i)
	}
}
