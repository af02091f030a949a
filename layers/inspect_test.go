package layers

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/random"
	"github.com/goqat/goqat/quantops"
)

// handmade are weights of two channels whose figures can be told by hand.
func handmade() *LayerWeights {
	return &LayerWeights{
		Layer: "hand", Shape: []int{2, 3}, Method: quantops.MustParse("lsq:2"), Values: []float32{0.5, -1, 0.25, 3, -2, 0},
		Theta:      quantops.Theta{Name: "alpha", Kind: quantops.Learned, Rows: 2, Columns: []string{"alpha", "std"}, Measured: 1},
		Parameters: []float32{0.5, 7, 1.5, 9},
		Integers: &integer.Weights{
			Shape: []int{2, 3}, Bits: 2, Codes: []uint16{1, 2, 0, 1, 2, 0},
			Planes: []integer.Plane{{Table: integer.SignedTable(2), Scale: []float64{0.5, 1}}},
		},
	}
}

func TestInspectByHand(t *testing.T) {
	t.Parallel()
	l := handmade().Inspect()
	// The codes stand for 0.5 -1 0 and 1 -2 0; linear:2 has steps of 1 and 3 and gives 0 -1 0 (0.5 is a tie) and 3 -3 0.
	const power, errors, linear = 0.25 + 1 + 0.0625 + 9 + 4, 0.0625 + 4, 0.25 + 0.0625 + 1
	require.Equal(t, Figure(errors), l.SquaredError)
	require.InDelta(t, 10*math.Log10(power/errors), float64(l.SQNR), 1e-9)
	require.Equal(t, Figure(float64(errors)/float64(linear)), l.Ratio)
	require.Equal(t, [2]Figure{-2, 3}, [2]Figure{l.Low, l.High})
	require.Equal(t, [2]int{3, 4}, [2]int{l.LevelsUsed, l.LevelsPossible})
	require.Equal(t, [2]int64{2 + 8, 4}, [2]int64{l.Bytes, l.TableBytes}, "six codes of 2 bits and two float32")
	require.Equal(t, []ParameterSummary{
		{Name: "alpha", Kind: "learned", Rows: 2, Summary: Summary{0.5, 1, 1.5}},
		{Name: "alpha.std", Kind: "measured", Rows: 2, Summary: Summary{7, 8, 9}},
	}, l.Parameters)
	require.Equal(t, []PlaneSummary{{Low: -2, High: 1, Scales: 2, Scale: Summary{0.5, 0.75, 1}}}, l.Planes)
	require.Equal(t, [2]int{2, 2}, [2]int{l.MethodBits, l.CodeBits})
	// Least squares of w on ŵ: means 0.125 and -0.25, Σ(w-m)(ŵ-m) = 8.4375, Σ(ŵ-m)² = 5.875.
	require.InDelta(t, 8.4375/5.875, float64(l.Gain), 1e-12)
	require.Greater(t, l.ScaledSQNR, l.SQNR)
}

// What a figure is where it does not exist, and in JSON.
func TestInspectWithout(t *testing.T) {
	t.Parallel()
	exact, zero, float, codes := handmade(), handmade(), handmade(), handmade()
	exact.Values = exact.Integers.Decode()
	zero.Values, zero.Integers.Codes = make([]float32, 6), make([]uint16, 6)
	float.Integers, float.Method, float.Theta = nil, quantops.Method{}, quantops.Theta{}
	codes.Values, codes.Method, codes.Theta = nil, quantops.Method{}, quantops.Theta{}
	codes.Integers.Planes[0].Scale = []float64{1e300, 1}
	for name, c := range map[string]struct {
		w                    *LayerWeights
		sqnr, errors, inJSON string
		low, bytes           float64
	}{
		"exact": {exact, "+Inf", "0", "null", -2, 10},
		"zero":  {zero, "NaN", "0", "null", 0, 10},
		"float": {float, "NaN", "NaN", "null", -2, 24},
		"codes": {codes, "NaN", "NaN", "null", math.Inf(-1), 2 + 16},
	} {
		l := c.w.Inspect()
		text := func(f Figure) string { s, _ := json.Marshal(float64(f)); return string(s) }
		if c.sqnr == "+Inf" {
			require.True(t, math.IsInf(float64(l.SQNR), 1), name)
		} else {
			require.True(t, math.IsNaN(float64(l.SQNR)), name)
		}
		if c.errors == "NaN" {
			require.True(t, math.IsNaN(float64(l.SquaredError)), name)
		} else {
			require.Equal(t, c.errors, text(l.SquaredError), name)
		}
		require.Equal(t, c.low, float64(l.Low), name)
		require.Equal(t, c.bytes, float64(l.Bytes), name)
		data, err := json.Marshal(l)
		require.NoError(t, err, name)
		require.Contains(t, string(data), `"sqnr_db":`+c.inJSON, name)
	}
	require.Equal(t, 32, float.Inspect().CodeBits)
	require.Equal(t, "none", float.Inspect().Method)
	none := Inspect(nil)
	require.Zero(t, none.Weights)
	_, err := json.Marshal(none)
	require.NoError(t, err)
}

// Scaling what the codes stand for changes the error, and not that after the best gain.
func TestInspectGain(t *testing.T) {
	t.Parallel()
	plain, scaled := handmade(), handmade()
	for o := range scaled.Integers.Planes[0].Scale {
		scaled.Integers.Planes[0].Scale[o] *= 8
	}
	was, is := plain.Inspect(), scaled.Inspect()
	require.InDelta(t, float64(was.Gain)/8, float64(is.Gain), 1e-12)
	require.InDelta(t, float64(was.ScaledSQNR), float64(is.ScaledSQNR), 1e-9)
	require.Less(t, is.SQNR, was.SQNR)
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	levels := func(h Histogram) (list [][2]float64) {
		for _, l := range h.Levels {
			list = append(list, [2]float64{float64(l.Value), float64(l.Count)})
		}
		return list
	}
	w := handmade()
	all, err := w.Histogram(-1, 5)
	require.NoError(t, err)
	require.Equal(t, Histogram{Low: -2, High: 3, Counts: []int{1, 1, 3, 0, 1}, Levels: all.Levels}, all)
	require.Equal(t, [][2]float64{{-2, 1}, {-1, 1}, {0, 2}, {0.5, 1}, {1, 1}}, levels(all), "scales differ: no unused ones")
	second, err := w.Histogram(1, 5)
	require.NoError(t, err)
	require.Equal(t, []int{1, 0, 1, 0, 1}, second.Counts)
	require.Equal(t, [][2]float64{{-2, 1}, {-1, 0}, {0, 1}, {1, 1}}, levels(second))
	w.Integers.Planes[0].Scale[0] = 1
	shared, err := w.Histogram(-1, 5)
	require.NoError(t, err)
	require.Equal(t, [][2]float64{{-2, 2}, {-1, 0}, {0, 2}, {1, 2}}, levels(shared))
	w.Values = nil
	codes, err := w.Histogram(-1, 3)
	require.NoError(t, err)
	require.Equal(t, []int{2, 0, 4}, codes.Counts, "of the codes' values")
	for _, channel := range []int{-2, 2} {
		_, err = w.Histogram(channel, 3)
		require.ErrorContains(t, err, "hand has no output channel")
		require.ErrorContains(t, err, "want 0 to 1")
	}
}

// Weights that a hostile file may hold, or a network that has not learned yet.
func TestHistogramOfOddWeights(t *testing.T) {
	t.Parallel()
	infinite, constant, huge := handmade(), handmade(), handmade()
	infinite.Values, infinite.Integers.Planes[0].Scale = nil, []float64{1e300, -1e300}
	constant.Values, constant.Integers = []float32{2, 2, 2, 2, 2, 2}, nil
	huge.Values = []float32{-math.MaxFloat32, math.MaxFloat32, 0, 0, 0, 0}
	for name, c := range map[string]struct {
		w     *LayerWeights
		total int
	}{"infinite": {infinite, 2}, "constant": {constant, 6}, "huge": {huge, 6}} {
		h, err := c.w.Histogram(-1, 7)
		require.NoError(t, err, name)
		total := 0
		for _, n := range h.Counts {
			total += n
		}
		require.Equal(t, c.total, total, name)
		require.Less(t, h.Low, h.High, name)
		_, err = json.Marshal(h)
		require.NoError(t, err, name)
	}
}

// inspected is a small network with everything that holds weights.
func inspected(t *testing.T, m Methods) *Network {
	t.Helper()
	root := Sequential{
		&Conv2D{Name: "in", Outputs: 4, Kernel: 3, Pad: 1, NoBias: true, Methods: m}, &BatchNorm{Name: "norm"}, ReLU{},
		&Residual{Body: &Conv2D{Name: "body", Outputs: 4, Kernel: 3, Pad: 1, Methods: m}, Shortcut: &Conv2D{Name: "shortcut", Outputs: 4, Kernel: 1, Methods: m}},
		Flatten{}, &Linear{Name: "out", Outputs: 5, Methods: m},
	}
	net, err := NewNetwork(root, Shape{Channels: 3, Height: 6, Width: 6}, 3)
	require.NoError(t, err)
	net.Fit()
	return net
}

func TestNetworkWeights(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]Methods{"plain": methods("linear:8", "none"), "folded": folding(methods("linear:8", "none")), "float": {}} {
		net := inspected(t, m)
		s := random.New(1, "test")
		for _, p := range net.Params() {
			if p.Name == "norm.weight" || p.Name == "norm.running_var" {
				for i := range p.Data() {
					p.Data()[i] = float32(0.2 + s.Float64())
				}
			}
		}
		all, err := net.Weights()
		require.NoError(t, err)
		require.Len(t, all, 4)
		for i, want := range []struct {
			layer string
			shape []int
		}{{"in", []int{4, 3, 3, 3}}, {"body", []int{4, 4, 3, 3}}, {"shortcut", []int{4, 4, 1, 1}}, {"out", []int{5, 144}}} {
			w := &all[i]
			require.Equal(t, want.layer, w.Layer, name)
			require.Equal(t, want.shape, w.Shape, name)
			require.Equal(t, m.Weights.String(), w.Method.String(), name)
			require.Len(t, w.Values, w.count())
			l := w.Inspect()
			require.Equal(t, m.Weights.Bits(), l.CodeBits)
			if !m.Weights.None() {
				require.Greater(t, l.SQNR, Figure(38), "%s: %s", name, w.Layer)
				require.InDelta(t, 1, float64(l.Ratio), 0.02, "%s: %s", name, w.Layer)
				require.Equal(t, []string{"range.low", "range.high"}, []string{l.Parameters[0].Name, l.Parameters[1].Name})
			}
		}
	}
}

// An integer model tells of its weights what the network told of its integers.
func TestModelWeights(t *testing.T) {
	t.Parallel()
	net := inspected(t, methods("linear:4,asymmetric", "none"))
	want, err := net.Weights()
	require.NoError(t, err)
	model, err := net.Lower(nil, nil)
	require.NoError(t, err)
	got := ModelWeights(model)
	require.Len(t, got, len(want))
	for i := range got {
		require.Equal(t, want[i].Layer, got[i].Layer)
		require.Equal(t, want[i].Integers, got[i].Integers)
		a, b := want[i].Inspect(), got[i].Inspect()
		require.Equal(t, []any{a.Planes, a.Bytes, a.TableBytes, a.LevelsUsed, a.LevelsPossible}, []any{b.Planes, b.Bytes, b.TableBytes, b.LevelsUsed, b.LevelsPossible})
		require.Empty(t, b.Method)
	}
}

// Any method can be inspected, and linear compared with itself is 1.
func TestInspectEveryMethod(t *testing.T) {
	t.Parallel()
	for _, s := range quantops.All() {
		for bits := s.Weights.Min; s.Weights.Max > 0 && bits <= s.Weights.Max; bits++ {
			m := Methods{}
			require.NoError(t, m.Weights.UnmarshalText([]byte(s.Name+":"+string(rune('0'+bits)))))
			all, err := inspected(t, m).Weights()
			require.NoError(t, err, m.Weights)
			for _, l := range Inspect(all).Layers {
				if m.Weights.Searches() {
					requireSearchInspection(t, l, bits)
					continue
				}
				require.Positive(t, float64(l.SQNR), "%s: %s", m.Weights, l.Name)
				require.Equal(t, bits >= 2, float64(l.Ratio) > 0, "%s: %s: linear begins at 2 bits", m.Weights, l.Name)
				require.InDelta(t, 1, float64(l.Gain), 0.5, "%s: %s", m.Weights, l.Name)
				require.Equal(t, bits, l.MethodBits)
				require.LessOrEqual(t, l.LevelsUsed, l.LevelsPossible)
				require.LessOrEqual(t, l.LevelsPossible, 1<<l.CodeBits)
				require.Equal(t, m.Weights.HasCodebook(), len(l.Parameters) == 0)
				if s.Name == "linear" {
					require.Equal(t, Figure(1), l.Ratio)
				}
			}
		}
	}
}

// Of weights that are searched for, the soft ones are compared with the hard ones.
func requireSearchInspection(t *testing.T, l LayerInspection, bits int) {
	t.Helper()
	require.Equal(t, bits, l.CodeBits)
	require.Equal(t, bits, l.MethodBits)
	require.Positive(t, float64(l.SquaredError))
	require.Equal(t, "search.temperature", l.Parameters[0].Name)
	require.Equal(t, Figure(1), l.Parameters[0].Min)
	require.Equal(t, "search.entropy", l.Parameters[1].Name)
	require.Less(t, float64(l.Parameters[1].Min), float64(bits))
	require.Positive(t, float64(l.Parameters[1].Min))
}
