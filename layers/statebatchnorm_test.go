package layers

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/gorgonia"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

// everyStep looks at hard weights in every step.
var everyStep = StateBatchNorm{On: true, Every: 1}

// searchMethods searches for the weights of a layer.
func searchMethods(weights, activations string, state StateBatchNorm) Methods {
	m := methods(weights, activations)
	m.State = state
	return m
}

// logitsFirst moves the candidates of a golden case from the last axis to the first.
func logitsFirst(x []float32, m int) []float32 {
	moved, n := make([]float32, len(x)), len(x)/m
	for i, v := range x {
		moved[i%m*n+i/m] = v
	}
	return moved
}

// stateCase builds convolution and normalization of a golden case for a pass.
func stateCase(t *testing.T, c golden.Case, mode Mode, branch Branch) *probe {
	t.Helper()
	shape := c.Shape("A")
	root := Sequential{
		&Conv2D{
			Name: "conv", Outputs: shape[0], Kernel: shape[2], Stride: c.Int("stride"), Pad: c.Int("pad"), NoBias: true,
			Methods: searchMethods(fmt.Sprintf("lbw:%d", c.Int("bits")), "none", everyStep),
		},
		&BatchNorm{Name: "bn", Epsilon: c.Number("eps"), Momentum: c.Number("momentum")},
	}
	images, in := imageShape(c, "x")
	pass := NewPass(mode, images)
	pass.Branch = branch
	p := newProbeOn(t, pass, root, in)
	copy(p.params["conv.weight.logits"].Data(), logitsFirst(c.Float32("A"), c.Int("m")))
	p.params["conv.weight.temperature"].Data()[0] = float32(c.Number("tau"))
	for vector, name := range map[string]string{
		"gamma": "weight", "beta": "bias", "running_mean_c_in": "soft_mean", "running_var_c_in": "soft_var", "running_mean_q_in": "running_mean", "running_var_q_in": "running_var",
	} {
		copy(p.params["bn."+name].Data(), c.Float32(vector))
	}
	return p
}

func TestStateBatchNormVectors(t *testing.T) {
	golden.Run(t, "slb", "state_bn", func(t *testing.T, c golden.Case) {
		p := stateCase(t, c, Training, UsualBranch)
		p.set(c.Float32("x"), c.Float32("dout_c"))
		p.run(t)
		requireNear(t, c.Float64("out_c"), p.output(), 1e-5, "out_c")
		requireClose(t, c.Float64("dx_c"), p.gradient("x"), 2e-5, "dx_c")
		requireClose(t, c.Float64("dgamma_c"), p.gradient("bn.weight"), 2e-5, "dgamma_c")
		requireClose(t, c.Float64("dbeta_c"), p.gradient("bn.bias"), 2e-5, "dbeta_c")
		dA := golden64(logitsFirst(c.Float32("dA_c"), c.Int("m")))
		requireClose(t, dA, p.gradient("conv.weight.logits"), 2e-5, "dA_c")
		for vector, name := range map[string]string{
			"running_mean_c": "soft_mean", "running_var_c": "soft_var", "running_mean_q": "running_mean", "running_var_q": "running_var",
		} {
			requireRelative(t, c.Float64(vector), p.params["bn."+name].Data(), 1e-5, vector)
		}
		requireStateEvaluation(t, c, p)
	})
}

// requireStateEvaluation compares evaluation with the running statistics that a step has left.
func requireStateEvaluation(t *testing.T, c golden.Case, trained *probe) {
	t.Helper()
	images, in := imageShape(c, "x")
	for vector, branch := range map[string]Branch{"eval_c": SoftBranch, "eval_q": UsualBranch} {
		pass := NewPass(Evaluation, images)
		pass.Branch = branch
		x := newParam("x", in.tensor(pass.Blocks())...)
		kernel.Pack(x.Data(), c.Float32("x"), images, in.Len())
		v, err := trained.layer.Forward(pass, Value{Shape: in, node: pass.Node(x)})
		require.NoError(t, err)
		v, err = pass.settled(v)
		require.NoError(t, err)
		machine := gorgonia.NewTapeMachine(pass.Graph)
		require.NoError(t, machine.RunAll())
		elements, err := quantops.Result(v.Node())
		require.NoError(t, err)
		got := make([]float32, images*v.Len())
		kernel.Unpack(got, elements, images, v.Len())
		require.NoError(t, machine.Close())
		requireNear(t, c.Float64(vector), got, 1e-5, vector)
	}
}

// A training pass of the hard branch computes with hard weights, their statistics, and no gradient of the logits.
func TestHardBranchVectors(t *testing.T) {
	golden.Run(t, "slb", "state_bn", func(t *testing.T, c golden.Case) {
		p := stateCase(t, c, Training, HardBranch)
		p.set(c.Float32("x"), c.Float32("dout_q"))
		p.run(t)
		requireNear(t, c.Float64("out_q"), p.output(), 1e-5, "out_q")
		requireClose(t, c.Float64("dx_q"), p.gradient("x"), 2e-5, "dx_q")
		requireClose(t, c.Float64("dgamma_q"), p.gradient("bn.weight"), 2e-5, "dgamma_q")
		requireClose(t, c.Float64("dbeta_q"), p.gradient("bn.bias"), 2e-5, "dbeta_q")
		requireRelative(t, c.Float64("running_mean_q"), p.params["bn.running_mean"].Data(), 1e-5, "mean")
		require.Equal(t, c.Float32("running_mean_c_in"), p.params["bn.soft_mean"].Data())
		for _, g := range p.gradient("conv.weight.logits") {
			require.Zero(t, g)
		}
	})
}

// golden64 widens.
func golden64(x []float32) []float64 {
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	return wide
}

func TestStateBatchNormText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]StateBatchNorm{"off": {}, "epoch": {On: true}, "step": {On: true, Every: 1}, "7": {On: true, Every: 7}} {
		var s StateBatchNorm
		require.NoError(t, s.UnmarshalText([]byte(text)))
		require.Equal(t, want, s)
		require.Equal(t, text, s.String())
	}
	for _, text := range []string{"", "0", "-1", "on", "1048577", "1.5"} {
		s := everyStep
		require.EqualError(t, s.UnmarshalText([]byte(text)), fmt.Sprintf("layers: state batch normalization %q: want off, epoch, step or a number of steps up to 1048576", text))
		require.Equal(t, everyStep, s)
	}
}

// twoConvs is a network with a normalization behind each of two convolutions, the second behind a parametric rectifier.
func twoConvs(m Methods) Sequential {
	return Sequential{
		&Conv2D{Name: "a", Outputs: 5, Kernel: 3, Pad: 1, NoBias: true, Methods: m}, &BatchNorm{Name: "na"}, ReLU{},
		&Conv2D{Name: "b", Outputs: 4, Kernel: 3, Stride: 2, Methods: m}, &PReLU{Name: "p"}, &BatchNorm{Name: "nb"},
		Flatten{}, &Linear{Name: "c", Outputs: 3, Methods: m},
	}
}

// Statistics of hard weights in training are those of a pass with hard weights, as long as what goes into the layer is the
// same: in a network's first layer, and in all where the choice is one-hot. They are taken when they are due.
func TestHardStatistics(t *testing.T) {
	for _, threads := range []int{1, 2} {
		for _, images := range []int{18, 64} {
			statistics := func(branch Branch, a Annealing, state StateBatchNorm) map[string][]float32 {
				s := random.New(3, "hard")
				r := newRig(t, twoConvs(searchMethods("lbw:2", "none", state)), Shape{Channels: 2, Height: 7, Width: 6}, images, s)
				r.net.Anneal(a)
				before := runtimeThreads(threads)
				defer before()
				r.forward(t, branch)
				found := map[string][]float32{}
				for _, p := range r.net.Params() {
					if p.Kind == quantops.Running {
						found[p.Name] = p.Data()
					}
				}
				return found
			}
			soft, hard := statistics(UsualBranch, Annealing{Temperature: 0.7}, everyStep), statistics(HardBranch, Annealing{Temperature: 0.7}, everyStep)
			require.Equal(t, hard["na.running_mean"], soft["na.running_mean"])
			require.Equal(t, hard["na.running_var"], soft["na.running_var"])
			require.NotEqual(t, soft["na.soft_mean"], soft["na.running_mean"])
			require.NotEqual(t, hard["nb.running_mean"], soft["nb.running_mean"])
			oneHot := statistics(UsualBranch, Annealing{}, everyStep)
			require.Equal(t, hard["nb.running_mean"], oneHot["nb.running_mean"])
			require.Equal(t, hard["nb.running_var"], oneHot["nb.running_var"])
			require.Equal(t, oneHot["na.soft_var"], oneHot["na.running_var"])
			later := statistics(UsualBranch, Annealing{Temperature: 0.7, Step: 1}, StateBatchNorm{On: true, Every: 2})
			require.Equal(t, make([]float32, 5), later["na.running_mean"], "not due")
			require.Equal(t, soft["na.soft_mean"], later["na.soft_mean"])
			never := statistics(UsualBranch, Annealing{Temperature: 0.7}, StateBatchNorm{On: true})
			require.Equal(t, make([]float32, 5), never["na.running_mean"])
			twice := statistics(UsualBranch, Annealing{Temperature: 0.7, Step: 2}, StateBatchNorm{On: true, Every: 2})
			for c, mean := range soft["na.running_mean"] { // from 0, by a look that stands for two steps
				require.InEpsilon(t, (1-0.9*0.9)/0.1*mean, twice["na.running_mean"][c], 1e-5)
			}
			atLast := statistics(UsualBranch, Annealing{Step: 1}, StateBatchNorm{On: true, Every: 2})
			require.Equal(t, oneHot["nb.running_mean"], atLast["nb.running_mean"], "one-hot")
			off := statistics(UsualBranch, Annealing{Temperature: 0.7}, StateBatchNorm{})
			require.NotContains(t, off, "na.soft_mean")
			require.Equal(t, soft["na.soft_mean"], off["na.running_mean"])
		}
	}
}

// Scales go where batch normalization takes them away.
func TestScalesWhereNoNormFollows(t *testing.T) {
	t.Parallel()
	for weights, want := range map[string][]string{
		"lbw:2":               {"c.weight.scale"},
		"lbw:2,scale=none":    nil,
		"lbw:2,scale=channel": {"a.weight.scale", "b.weight.scale", "c.weight.scale"},
	} {
		net, err := NewNetwork(twoConvs(searchMethods(weights, "none", everyStep)), Shape{Channels: 2, Height: 7, Width: 6}, 1)
		require.NoError(t, err)
		require.True(t, net.Searches())
		var got []string
		for _, p := range net.Params() {
			if len(p.Name) > 6 && p.Name[len(p.Name)-6:] == ".scale" {
				got = append(got, p.Name)
			}
		}
		require.Equal(t, want, got, weights)
	}
}

// Winograd's algorithm takes the hard weights as it does the soft ones.
func TestHardStatisticsByWinograd(t *testing.T) {
	statistics := func(branch Branch) []float32 {
		root := Sequential{&Conv2D{Name: "a", Outputs: 32, Kernel: 3, Pad: 1, NoBias: true, Methods: searchMethods("lbw:2", "none", everyStep)}, &BatchNorm{Name: "n"}}
		r := newRig(t, root, Shape{Channels: 32, Height: 6, Width: 6}, 64, random.New(4, "winograd"))
		r.net.Winograd = true
		require.True(t, r.net.TakesWinograd())
		r.net.Anneal(Annealing{Temperature: 0.7})
		r.forward(t, branch)
		for _, p := range r.net.Params() {
			if p.Name == "n.running_var" {
				return p.Data()
			}
		}
		return nil
	}
	want := statistics(HardBranch)
	require.Len(t, want, 32)
	require.Equal(t, want, statistics(UsualBranch))
}

// forward runs a training pass of a branch over the rig's batch.
func (r *rig) forward(t *testing.T, branch Branch) {
	t.Helper()
	p := NewPass(Training, r.images)
	p.Branch = branch
	_, err := r.net.Forward(p, r.batch)
	require.NoError(t, err)
	machine := gorgonia.NewTapeMachine(p.Graph)
	require.NoError(t, machine.RunAll())
	require.NoError(t, machine.Close())
}
