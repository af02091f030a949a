package quantops

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/kernel"
)

func TestLinearVectors(t *testing.T) {
	golden.Run(t, "linear", "fake_quant", func(t *testing.T, c golden.Case) {
		v := newVectors(c, c.Int("axis"))
		low, high := c.Int("qmin"), c.Int("qmax")
		format := codes{bitsBetween(low, high), int32(low), int32(high)}
		scale, zeros := c.Float32("scale"), c.Integers("zero_point")
		x, y, dx := v.floats("x"), v.floats("y"), v.floats("dx")
		levels, gotDx := make([]float32, len(x)), make([]float32, len(x))
		eachChannel(v.channels, x, func(ch, from, to int) {
			u := format.uniform(scale[ch], int32(zeros[ch]))
			u.Levels(levels[from:to], x[from:to])
			u.Gradient(gotDx[from:to], v.floats("dy")[from:to], x[from:to])
			requireGrid(t, format, scale[ch], int32(zeros[ch]), x[from:to], levels[from:to])
		})
		v.requireLevels(t, levels, zeros)
		require.Equal(t, dx, gotDx)
		n := len(x) / v.channels
		for i := range y {
			got := levels[i] * scale[i/n]
			require.False(t, math.Signbit(float64(got)) && got == 0, "value of element %d is -0", i)
			require.Contains(t, []float32{y[i], math.Nextafter32(y[i], -math.MaxFloat32), math.Nextafter32(y[i], math.MaxFloat32)}, got, "value of element %d", i)
		}
	})
}

// requireGrid checks that the grid of the integer model gives the same codes and values as the levels of training.
func requireGrid(t *testing.T, c codes, scale float32, zero int32, x, levels []float32) {
	t.Helper()
	g, err := c.grid(scale, zero)
	require.NoError(t, err)
	for i := range x {
		code := g.Code(x[i])
		require.Equal(t, levels[i], float32(code-zero), "code of %v", x[i])
		require.Equal(t, math.Float32bits(levels[i]*scale), math.Float32bits(g.Value(code)), "value of %v", x[i])
	}
}

// observer returns the quantizer that stands for an observer of the vectors, and how far its codes lie above theirs:
// asymmetric codes here are always unsigned, symmetric ones always signed.
func observer(t *testing.T, c golden.Case, role Role, channels int) (q *linear, shift int32) {
	t.Helper()
	low, high := c.Int("qmin"), c.Int("qmax")
	options := []string{fmt.Sprintf("linear:%d", bitsBetween(low, high))}
	if strings.HasSuffix(c.Text("qscheme"), "affine") {
		options = append(options, "asymmetric")
		shift = -int32(low)
	} else {
		shift = -int32(low+high+1) / 2
		if low == -high {
			options, shift = append(options, "range=narrow"), 0
		} else {
			options = append(options, "range=full")
		}
	}
	switch {
	case role == Weights:
	case strings.HasPrefix(c.Text("observer"), "MovingAverage"):
		options = append(options, fmt.Sprintf("constant=%v", c.Number("averaging_constant")))
	default:
		options = append(options, "observer=minmax")
	}
	made, err := MustParse(strings.Join(options, ",")).Quantizer(Target{Role: role, Channels: channels, Signed: true})
	require.NoError(t, err)
	return made.(*linear), shift
}

// batches returns batch00, batch01, … with the channels in front.
func batches(c golden.Case, axis int) [][]float32 {
	all := make([][]float32, c.Int("num_batches"))
	for i := range all {
		name := fmt.Sprintf("batch%02d", i)
		all[i] = axisFirst(c.Float32(name), c.Shape(name), axis)
	}
	return all
}

func TestLinearObserverVectors(t *testing.T) {
	golden.Run(t, "linear", "observer", func(t *testing.T, c golden.Case) {
		axis := -1
		if c.HasParam("ch_axis") {
			axis = c.Int("ch_axis")
		}
		channels := len(c.Float32("scale"))
		q, shift := observer(t, c, Activations, 1)
		// Activations are quantized per tensor: per channel there is a quantizer for each.
		for ch := range channels {
			theta := make([]float32, 2)
			for i, batch := range batches(c, axis) {
				n := len(batch) / channels
				q.Fit(theta, batch[ch*n:(ch+1)*n], kernel.Dense(n), i)
			}
			requireRange(t, c, q, shift, theta, ch)
		}
	})
}

func requireRange(t *testing.T, c golden.Case, q *linear, shift int32, theta []float32, channel int) {
	t.Helper()
	scale, zero := q.scale(theta[0], theta[1])
	want := float64(c.Float32("scale")[channel])
	require.InDelta(t, want, scale, 1e-6*want, "scale")
	require.EqualValues(t, c.Integers("zero_point")[channel], zero-shift, "zero point")
}

// The range of weights is that of the tensor as it is, so the batches of the vectors become one tensor.
func TestLinearWeightRangeVectors(t *testing.T) {
	golden.Run(t, "linear", "observer", func(t *testing.T, c golden.Case) {
		if c.Text("observer") != "PerChannelMinMaxObserver" {
			t.Skip("not an observer of weights")
		}
		channels := len(c.Float32("scale"))
		q, shift := observer(t, c, Weights, channels)
		all := batches(c, c.Int("ch_axis"))
		var x []float32
		for ch := range channels {
			for _, batch := range all {
				n := len(batch) / channels
				x = append(x, batch[ch*n:(ch+1)*n]...)
			}
		}
		theta := make([]float32, 2*channels)
		q.Fit(theta, x, kernel.Dense(len(x)), 0)
		for ch := range channels {
			requireRange(t, c, q, shift, theta[2*ch:2*ch+2], ch)
		}
	})
}

func TestLinearScale(t *testing.T) {
	for _, c := range []struct {
		method    string
		role      Role
		signed    bool
		low, high float32
		scale     float32
		zero      int32
	}{
		{"linear:8", Weights, true, -2, 1, 2. / 127, 0},
		{"linear:8,range=full", Weights, true, -2, 1, 2 / 127.5, 0},
		{"linear:8", Activations, true, -1, 2, 2 / 127.5, 0},
		{"linear:8", Activations, false, 0, 2, 2. / 255, 0},
		{"linear:8", Activations, false, -1, 2, 2. / 255, 0}, // unsigned: what is negative is clipped
		{"linear:8,asymmetric", Activations, true, -1, 2, 3. / 255, 85},
		{"linear:8,asymmetric", Activations, true, 1, 3, 3. / 255, 0},
		{"linear:8,asymmetric", Activations, true, -3, -1, 3. / 255, 255},
		{"linear:4", Weights, true, 0, 0, smallestScale, 0},
		{"linear:4,asymmetric", Weights, true, 0, 0, smallestScale, 0},
		{"linear:2,asymmetric", Weights, true, -1e38, 2e38, 1e38, 1},
		{"linear:4,sign=unsigned", Weights, true, -1, 3, 0.2, 0},
		{"linear:4,sign=signed", Activations, false, 0, 3, 3 / 7.5, 0},
	} {
		q, err := MustParse(c.method).Quantizer(Target{Role: c.role, Channels: 1, Size: 1, Signed: c.signed})
		require.NoError(t, err, c.method)
		scale, zero := q.(*linear).scale(c.low, c.high)
		require.InEpsilon(t, c.scale, scale, 1e-7, "%s on [%v, %v]", c.method, c.low, c.high)
		require.Equal(t, c.zero, zero, "%s on [%v, %v]", c.method, c.low, c.high)
	}
}

// The moving average starts from the calibration's first batch, and training goes on from what calibration left.
func TestLinearRunningRange(t *testing.T) {
	fit := func(method string, batches ...[]float32) []float32 {
		q, err := MustParse(method).Quantizer(Target{Role: Activations, Channels: 1, Size: 2, Signed: true})
		require.NoError(t, err)
		theta := []float32{9, 9} // what was there before calibration does not count
		for i, x := range batches {
			q.Fit(theta, x, kernel.Dense(len(x)), i)
		}
		return theta
	}
	a, b, c := []float32{-1, 2}, []float32{-3, 1}, []float32{0, 6}
	require.Equal(t, []float32{-1, 2}, fit("linear:4,constant=0.5", a))
	require.Equal(t, []float32{-2, 1.5}, fit("linear:4,constant=0.5", a, b))
	require.Equal(t, []float32{-1, 3.75}, fit("linear:4,constant=0.5", a, b, c))
	require.Equal(t, []float32{-3, 6}, fit("linear:4,observer=minmax", a, b, c))
	require.Equal(t, []float32{0, 6}, fit("linear:4,constant=1", a, b, c))
}

func TestLinearContradictions(t *testing.T) {
	for method, want := range map[string]string{
		"linear:4,asymmetric,sign=signed":     `quantops: method "linear:4,asymmetric,sign=signed": sign=signed contradicts asymmetric, whose codes are unsigned`,
		"linear:4,asymmetric,range=narrow":    `quantops: method "linear:4,asymmetric,range=narrow": range=narrow is for signed codes`,
		"linear:4,range=narrow,sign=unsigned": `quantops: method "linear:4,range=narrow,sign=unsigned": range=narrow is for signed codes`,
	} {
		for _, role := range []Role{Weights, Activations} {
			_, err := MustParse(method).Quantizer(Target{Role: role, Channels: 1, Size: 1, Signed: true})
			require.EqualError(t, err, want)
		}
	}
}

// Two-plane integers of asymmetric weights are the same numbers as the levels, in every channel.
func TestLinearAsymmetricPlanes(t *testing.T) {
	q, err := MustParse("linear:8,asymmetric").Quantizer(Target{Role: Weights, Channels: 3, Size: 12, Signed: true})
	require.NoError(t, err)
	x := []float32{-1, 0, 0.5, 2, 0.25, 0.5, 0.75, 1, -4, -3, -2, -1}
	theta := make([]float32, 6)
	q.Fit(theta, x, kernel.Dense(12), 0)
	require.Equal(t, []float32{-1, 2, 0.25, 1, -4, -1}, theta)
	w, err := q.(WeightQuantizer).Encode(x, theta, []int{3, 4})
	require.NoError(t, err)
	require.Len(t, w.Planes, 2)
	require.Equal(t, []uint16{0, 85, 127, 255}, w.Codes[:4]) // 0.5 is 42.49… steps above zero
	require.Equal(t, []uint16{64, 255}, []uint16{w.Codes[4], w.Codes[7]})
	require.Equal(t, []uint16{0, 191}, []uint16{w.Codes[8], w.Codes[11]})
	for o, scale := range []float64{3, 1, 4} {
		require.InEpsilon(t, scale/255, w.Planes[0].Scale[o], 1e-7)
		require.Equal(t, w.Planes[0].Scale[o]*[]float64{43, 128, -127}[o], w.Planes[1].Scale[o])
	}
}
