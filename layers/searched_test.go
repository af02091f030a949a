package layers

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

// runtimeThreads sets the number of threads until the function that it returns is called.
func runtimeThreads(n int) (undo func()) {
	before := runtime.GOMAXPROCS(n)
	return func() { runtime.GOMAXPROCS(before) }
}

// Gradients of logits, scales and what lies before go through layers of searched weights.
func TestSearchedGradientsByDifferences(t *testing.T) {
	for _, weights := range []string{"lbw:1", "lbw:2,scale=channel", "lbw:2,values=-1:0:1,init=max"} {
		for _, images := range []int{3, 18} {
			m := methods(weights, "none")
			root := Sequential{&Conv2D{Outputs: 3, Kernel: 2, Methods: m}, Flatten{}, &Linear{Outputs: 2, Methods: m}}
			in := Shape{Channels: 2, Height: 4, Width: 3, Signed: true}
			p := newProbe(t, root, in, images)
			p.set(spread(images*in.Len()), spread(images*p.out.Len()))
			all := p.params
			require.Len(t, all, 9, "logits, scales, temperatures and biases of two layers, and the input")
			for _, logits := range []bool{false, true} {
				h := float32(1.0 / 8)
				if logits {
					h = 1.0 / 64 // the loss is not linear in them
				}
				p.params = map[string]*Param{}
				for name, param := range all {
					if param.Kind == quantops.Learned && logits == strings.HasSuffix(name, ".logits") {
						p.params[name] = param
					}
				}
				requireDifferences(t, p, h)
			}
		}
	}
}

// A net whose weights are searched for evaluates to what its integers give, with any activations.
func TestSearchedEvaluationIsExact(t *testing.T) {
	for i, weights := range []string{"lbw:1", "lbw:2", "lbw:3", "lbw:4", "lbw:2,values=-2:0:1", "lbw:1,scale=channel"} {
		for _, acts := range []string{"lsq:2", "linear:8,asymmetric", "dorefa:1"} {
			s := random.New(uint64(i), "searched")
			m := searchMethods(weights, acts, everyStep)
			root := Sequential{
				&Conv2D{Outputs: 6, Kernel: 3, Pad: 1, Methods: m}, &BatchNorm{}, ReLU{}, MaxPool2D{Window: 2},
				&Conv2D{Outputs: 5, Kernel: 2, Methods: m}, &BatchNorm{}, ReLU{}, Flatten{}, &Linear{Outputs: 4, Methods: m},
			}
			r := newRig(t, root, Shape{Channels: 2, Height: 8, Width: 6, Signed: true}, 18, s)
			r.calibrate()
			r.net.Anneal(Annealing{Temperature: 0.3})
			r.step()
			r.requireExact()
			w, err := r.watched[0].core.weight.Encode()
			require.NoError(t, err)
			require.EqualValues(t, m.Weights.Bits(), w.Bits, "packed at their true bits")
		}
	}
}

// He's initialization of logits, from a stream of its own.
func TestSearchedStartsAtRandom(t *testing.T) {
	t.Parallel()
	net, err := NewNetwork(Sequential{&Conv2D{Outputs: 50, Kernel: 3, Methods: methods("lbw:2,init=he", "none")}}, Shape{Channels: 20, Height: 5, Width: 5}, 1)
	require.NoError(t, err)
	logits := net.Params()[0]
	require.Equal(t, "conv1.weight.logits", logits.Name)
	require.Equal(t, []int{4, 50, 20, 3, 3}, []int(logits.Value.Shape()))
	before := slices.Clone(logits.Data())
	net.FloatParams()[0].Set(make([]float32, 9000))
	require.Equal(t, before, logits.Data(), "float weights do not matter")
	sum := 0.0
	for _, v := range logits.Data() {
		sum += float64(v) * float64(v)
	}
	require.InDelta(t, math.Sqrt(2.0/(50*9)), math.Sqrt(sum/float64(len(logits.Data()))), 1e-3)
}

// Calibration and training see soft weights, evaluation hard ones.
func TestSearchStates(t *testing.T) {
	t.Parallel()
	net, err := NewNetwork(Sequential{Flatten{}, &Linear{Name: "fc", Outputs: 9, Methods: methods("lbw:2", "none")}, ReLU{}, &Linear{Outputs: 2}}, Shape{Channels: 1, Height: 4, Width: 5}, 1)
	require.NoError(t, err)
	var entropies, gaps []float64
	for _, temperature := range []float64{1, 0.1, 0.01, 0} {
		net.Anneal(Annealing{Temperature: temperature})
		states := net.SearchStates()
		require.Len(t, states, 1)
		require.Equal(t, "fc", states[0].Layer)
		require.Equal(t, 180, states[0].Weights)
		require.InDelta(t, temperature, states[0].Temperature, 1e-7)
		entropies, gaps = append(entropies, states[0].Entropy), append(gaps, states[0].Gap)
	}
	require.IsDecreasing(t, entropies)
	require.IsDecreasing(t, gaps)
	require.Zero(t, entropies[3])
	require.Zero(t, gaps[3])
}

func TestSearchedErrors(t *testing.T) {
	t.Parallel()
	m := methods("lbw:2", "none")
	m.FoldBatchNorm = true
	_, err := NewNetwork(Sequential{&Conv2D{Outputs: 1, Kernel: 1, Methods: m}, &BatchNorm{}}, Shape{Channels: 1, Height: 1, Width: 1}, 1)
	require.EqualError(t, err, "layers: conv1: batch normalization can't be folded into weights of lbw:2, which are searched for")
	_, err = NewNetwork(Sequential{&Conv2D{Outputs: 1, Kernel: 1, Methods: methods("lbw:2,values=0:1:2:3:4", "none")}}, Shape{Channels: 1, Height: 1, Width: 1}, 1)
	require.EqualError(t, err, `layers: conv1: quantops: method "lbw:2,values=0:1:2:3:4": 5 values are too many for 2 bits: want at most 4`)
	_, err = NewNetwork(Sequential{&Conv2D{Outputs: 1, Kernel: 1, Methods: methods("none", "lbw:2")}}, Shape{Channels: 1, Height: 1, Width: 1}, 1)
	require.EqualError(t, err, `layers: conv1: quantops: method "lbw:2": lbw is not for activations`)
}

func TestLBWLayers(t *testing.T) {
	t.Parallel()
	conv, err := LBWConv2D(2, Conv2D{Outputs: 4, Kernel: 3, Methods: methods("none", "lsq:4")})
	require.NoError(t, err)
	require.Equal(t, searchMethods("lbw:2", "lsq:4", everyStep), conv.Methods)
	linear, err := LBWLinear(1, Linear{Outputs: 3})
	require.NoError(t, err)
	net, err := NewNetwork(Sequential{conv, &BatchNorm{}, Flatten{}, linear}, Shape{Channels: 1, Height: 4, Width: 4}, 1)
	require.NoError(t, err)
	require.True(t, net.Searches())
	_, err = LBWConv2D(5, Conv2D{})
	require.EqualError(t, err, `quantops: method "lbw:5": lbw has 1 to 4 bits for weights and no bits for activations`)
	_, err = LBWLinear(0, Linear{})
	require.EqualError(t, err, `quantops: method "lbw:0": lbw has 1 to 4 bits for weights and no bits for activations`)
}
