package integer_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// twoPlanes has levels 16*high + low.
func twoPlanes() *integer.Weights {
	return &integer.Weights{
		Shape: []int{2, 3}, Bits: 2, Codes: []uint16{0, 1, 2, 3, 3, 1},
		Planes: []integer.Plane{
			{Table: []int8{0, 1, -2, 7}, Scale: []float64{16, 0.5}},
			{Table: []int8{0, -3, 4, 5}, Scale: []float64{1, 0.25}},
		},
	}
}

func TestWeightsDecode(t *testing.T) {
	w := twoPlanes()
	require.NoError(t, w.Validate())
	require.Equal(t, []float32{0, 13, -28, 4.75, 4.75, -0.25}, w.Decode())
}

func TestWeightsDecodeOnePlaneIsTheFloat32Product(t *testing.T) {
	scale := float32(0.1)
	w := &integer.Weights{Shape: []int{1, 256}, Bits: 8, Planes: []integer.Plane{{Table: integer.SignedTable(8), Scale: []float64{float64(scale)}}}}
	for code := range 256 {
		w.Codes = append(w.Codes, uint16(code))
	}
	for code, value := range w.Decode() {
		require.Equal(t, float32(int8(code))*scale, value)
	}
}

func TestWeightsBoundAndSum(t *testing.T) {
	w := twoPlanes()
	require.Equal(t, [][]int64{{30, 150}, {70, 130}}, w.Bound(10))
	require.Equal(t, [][]int64{{-1, 15}, {1, 7}}, w.Sum())
}

func TestSignedTable(t *testing.T) {
	require.Equal(t, []int8{0, -1}, integer.SignedTable(1))
	require.Equal(t, []int8{0, 1, 2, 3, -4, -3, -2, -1}, integer.SignedTable(3))
	require.EqualValues(t, -128, integer.SignedTable(8)[128])
}

func TestWeightsValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*integer.Weights)
		want   string
	}{
		"rank":             {func(w *integer.Weights) { w.Shape = []int{6} }, "1 dimensions"},
		"zero dimension":   {func(w *integer.Weights) { w.Shape = []int{0, 3} }, "want positive dimensions"},
		"overflow":         {func(w *integer.Weights) { w.Shape = []int{math.MaxInt, math.MaxInt} }, "less than 2^31"},
		"code count":       {func(w *integer.Weights) { w.Codes = w.Codes[1:] }, "5 weight codes for shape [2 3]: want 6"},
		"code range":       {func(w *integer.Weights) { w.Codes[4] = 4 }, "weight code 4 at 4: want less than 4"},
		"no planes":        {func(w *integer.Weights) { w.Planes = nil }, "0 planes"},
		"many planes":      {func(w *integer.Weights) { w.Planes = make([]integer.Plane, 9) }, "9 planes"},
		"odd table":        {func(w *integer.Weights) { w.Planes[0].Table = make([]int8, 3) }, "want 2^bits"},
		"unequal tables":   {func(w *integer.Weights) { w.Planes[1].Table = make([]int8, 8) }, "different lengths"},
		"bits":             {func(w *integer.Weights) { w.Bits = 3 }, "3 bits with a table of 4"},
		"seventeen bits":   {func(w *integer.Weights) { w.Bits = 17 }, "17 bits"},
		"scale count":      {func(w *integer.Weights) { w.Planes[1].Scale = []float64{1} }, "plane 1 has 1 scales"},
		"scale not finite": {func(w *integer.Weights) { w.Planes[0].Scale[1] = math.NaN() }, "plane 0, channel 1 has scale NaN"},
	} {
		w := twoPlanes()
		c.change(w)
		require.ErrorContains(t, w.Validate(), c.want, name)
	}
}
