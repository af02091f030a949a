package layers

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

// withCodes is a layer that finds its codes as soon as it is built.
type withCodes struct{ *Conv2D }

func (l withCodes) Build(b *Build, in Shape) (Shape, error) {
	out, err := l.Conv2D.Build(b, in)
	if err == nil {
		l.weighted.weight.Fit()
	}
	return out, err
}

// A codebook's outputs are those of the weights that its integers stand for, and the gradient of a centroid is the mean of
// the gradients that these weights have.
func TestCodebookOutputsAndGradients(t *testing.T) {
	in := Shape{Channels: 4, Height: 6, Width: 5, Signed: true}
	for _, method := range []string{"pq", "pq:d=18", "pq:d=3", "vq", "kmeans:3"} {
		conv := &Conv2D{Name: "conv", Outputs: 12, Kernel: 3, Pad: 1, Methods: methods(method, "none")}
		p := newProbe(t, withCodes{conv}, in, 18)
		book := conv.weighted.weight.(*codebook)
		plain := newProbe(t, &Conv2D{Name: "conv", Outputs: 12, Kernel: 3, Pad: 1}, in, 18)
		encoded, err := book.Encode()
		require.NoError(t, err)
		copy(plain.params["conv.weight"].Data(), encoded.Decode())
		x, dy := noise(18*in.Len(), 1), noise(18*p.out.Len(), 2)
		for _, probe := range []*probe{p, plain} {
			probe.set(x, dy)
			probe.run(t)
		}
		requireClose(t, float64s(plain.output()), p.output(), 1e-5, method)
		requireClose(t, float64s(plain.gradient("x")), p.gradient("x"), 1e-5, method)
		require.NotContains(t, p.gradients, "conv.weight", "real weights are not trained")

		want, scratch := make([]float32, book.Centroids*book.Length), make([]float64, book.Centroids*(book.Length+1))
		book.Gradient(want, scratch, plain.gradient("conv.weight"), book.codes.Data())
		requireClose(t, float64s(want), p.gradient("conv.weight.centroids"), 1e-4, method)
	}
}

// Moving a centroid a little moves the loss as its gradient says, times its number of vectors: the levels of centroids that
// are large enough hardly round.
func TestCodebookGradientIsAMean(t *testing.T) {
	in := Shape{Channels: 2, Height: 4, Width: 4, Signed: true}
	conv := &Conv2D{Name: "conv", Outputs: 9, Kernel: 3, Methods: methods("pq", "none")}
	p := newProbe(t, withCodes{conv}, in, 3)
	book := conv.weighted.weight.(*codebook)
	p.set(noise(3*in.Len(), 1), noise(3*p.out.Len(), 2))
	p.run(t)
	centroids, gradient := book.centroids.Data(), slices.Clone(p.gradient("conv.weight.centroids"))
	unit := book.Units()[0]
	largest := 0
	for i, v := range centroids {
		if math.Abs(float64(v)) > math.Abs(float64(centroids[largest])) {
			largest = i
		}
	}
	for i := range centroids {
		if i == largest {
			continue // it decides the scale
		}
		count := 0.0
		for _, code := range book.codes.Data() {
			if int(code) == i/book.Length {
				count++
			}
		}
		before := centroids[i]
		loss := func(v float32) float64 {
			centroids[i] = v
			p.run(t)
			return p.loss()
		}
		difference := (loss(before+unit) - loss(before-unit)) / (2 * float64(unit)) // two levels apart, but for the ends
		centroids[i] = before
		if math.Abs(float64(before)) < 125*float64(unit) {
			require.InDelta(t, count*float64(gradient[i]), difference, 2e-3*(1+math.Abs(difference)), "centroid %d", i)
		}
	}
}

// Until codes are found, a layer has its real weights and trains them.
func TestCodebookBeforeItsCodes(t *testing.T) {
	in := Shape{Channels: 2, Height: 5, Width: 5, Signed: true}
	conv := &Conv2D{Name: "conv", Outputs: 6, Kernel: 3, Methods: methods("pq", "none")}
	p, plain := newProbe(t, conv, in, 2), newProbe(t, &Conv2D{Name: "conv", Outputs: 6, Kernel: 3}, in, 2)
	x, dy := noise(2*in.Len(), 1), noise(2*p.out.Len(), 2)
	for _, probe := range []*probe{p, plain} {
		probe.set(x, dy)
		probe.run(t)
	}
	require.Equal(t, plain.output(), p.output())
	require.Equal(t, plain.gradient("conv.weight"), p.gradient("conv.weight"))
	encoded, err := conv.weighted.weight.Encode()
	require.NoError(t, err)
	require.Nil(t, encoded)
	require.Nil(t, conv.weighted.weight.Units())
}

// codebookNet is a network of codebooks with an evaluation that is all integers.
func codebookNet(weights string) Sequential {
	root := Sequential{
		&Conv2D{Outputs: 8, Kernel: 3, Pad: 1}, &BatchNorm{}, ReLU{}, &Conv2D{Outputs: 8, Kernel: 3, Groups: 2}, ReLU{},
		&Conv2D{Outputs: 8, Kernel: 1}, ReLU{}, Flatten{}, &Linear{Outputs: 12}, ReLU{}, &Linear{Outputs: 3},
	}
	Quantize(root, methods(weights, "linear:8"), 0)
	return root
}

func TestCodebookEvaluationIsExact(t *testing.T) {
	for _, weights := range []string{"pq", "pq:d=3,pointwise=2,k=4", "vq", "kmeans:5", "pq:assign=weighted"} {
		s := random.New(1, weights)
		r := newRig(t, codebookNet(weights), Shape{Channels: 4, Height: 5, Width: 5, Signed: true}, 18, s)
		disturb(r.net, s)
		r.calibrate()
		for _, book := range r.net.Codebooks() {
			require.Equal(t, !book.Weighted(), book.Found(), weights)
			if book.Weighted() {
				gram := make([]float64, book.Length()*book.Length())
				for i := range book.Length() {
					gram[i*book.Length()+i] = 1
				}
				_, err := book.Find(gram)
				require.NoError(t, err)
			}
			for i := range book.Centroids().Data() {
				book.Centroids().Data()[i] *= 1 + 0.1*float32(s.Normal())
			}
		}
		r.run(Calibration)
		r.requireExact()
	}
}

// Codes that are there stay where the network is completed, and are found anew where it is fitted.
func TestCodebookFitAndComplete(t *testing.T) {
	net, err := NewNetwork(codebookNet("pq"), Shape{Channels: 4, Height: 5, Width: 5, Signed: true}, 1)
	require.NoError(t, err)
	books := net.Codebooks()
	require.Len(t, books, 5)
	require.False(t, books[1].Found())
	_, err = net.Lower(make([][256]float32, 4), make([]string, 3))
	require.EqualError(t, err, "layers: conv1 has no codes yet, so it has no integers: calibrate the network first")
	net.Complete()
	require.True(t, books[1].Found())
	first := slices.Clone(books[1].Params()[1].Data())
	copy(books[1].Values(), noise(len(books[1].Values()), 5))
	net.Complete()
	require.Equal(t, first, books[1].Params()[1].Data())
	net.Fit()
	require.NotEqual(t, first, books[1].Params()[1].Data())
	require.Equal(t, quantops.Fixed, books[1].Params()[1].Kind)
	require.Equal(t, quantops.Learned, books[1].Centroids().Kind)
}

// What can't be is told where it is met.
func TestCodebookFailures(t *testing.T) {
	in := Shape{Channels: 4, Height: 5, Width: 5, Signed: true}
	build := func() (*Network, Codes) {
		net, err := NewNetwork(codebookNet("pq"), in, 1)
		require.NoError(t, err)
		return net, net.Codebooks()[1]
	}
	net, book := build()
	book.Values()[3] = float32(math.NaN())
	net.Fit()
	_, err := net.Weights()
	require.EqualError(t, err, "layers: conv2: quantops: weight 3 is NaN: want a finite number")
	_, err = net.Forward(NewPass(Training, 1), make([]float32, 16*in.Len()))
	require.ErrorContains(t, err, "quantops: weight 3 is NaN")
	_, err = book.Find(nil)
	require.EqualError(t, err, "layers: conv2: quantops: weight 3 is NaN: want a finite number")
	book.Values()[3] = 0
	net.Fit()
	_, err = net.Weights()
	require.NoError(t, err)

	book.Params()[1].Data()[2] = 300 // a checkpoint may hold anything
	_, err = net.Weights()
	require.ErrorContains(t, err, "layers: conv2: quantops: code 300 of vector 2: want a whole number below")
	r := newRig(t, codebookNet("pq"), in, 2, random.New(1, "failures"))
	r.calibrate()
	p, _, machine := r.pass(Training)
	r.net.Codebooks()[1].Params()[1].Data()[0] = 1.5
	require.ErrorContains(t, machine.RunAll(), "conv2.weight: quantops: code 1.5 of vector 0")
	require.NotNil(t, p)

	root := codebookNet("pq:d=7")
	_, err = NewNetwork(root, in, 1)
	require.EqualError(t, err, `layers: conv1: quantops: method "pq:d=7": vectors of 7 weights do not divide the 36 weights of an output channel; those of 6 or 9 would`)
	root = codebookNet("pq")
	Quantize(root, folding(methods("pq", "linear:8")), 0)
	_, err = NewNetwork(root, in, 1)
	require.EqualError(t, err, "layers: conv1: batch normalization can't be folded into weights of pq, whose codes are for all output channels")
}

// Inspection counts codes by vector.
func TestInspectCodebook(t *testing.T) {
	net, err := NewNetwork(codebookNet("pq"), Shape{Channels: 4, Height: 5, Width: 5, Signed: true}, 1)
	require.NoError(t, err)
	net.Fit()
	all, err := net.Weights()
	require.NoError(t, err)
	sum := Inspect(all)
	l := sum.Layers[0] // 32 vectors of 9 weights, 4 centroids
	require.Equal(t, []any{"pq", 0, 2, 9, 4, 4}, []any{l.Method, l.MethodBits, l.CodeBits, l.Vector, l.LevelsUsed, l.LevelsPossible})
	require.EqualValues(t, 32*2/8+4, l.Bytes)
	require.EqualValues(t, 36, l.TableBytes)
	require.True(t, math.IsNaN(float64(l.Ratio)))
	require.Greater(t, float64(l.SQNR), 0.0)
	bits, weights := 0, 0
	for _, w := range all {
		bits, weights = bits+int(w.Integers.Bits)*len(w.Integers.Codes), weights+w.Integers.Count()
	}
	require.InDelta(t, float64(bits)/float64(weights), float64(sum.MeanBits), 1e-12)
	h, err := all[0].Histogram(-1, 10)
	require.NoError(t, err)
	require.NotEmpty(t, h.Levels)
}
