package integer_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

func TestRound(t *testing.T) {
	for _, c := range []struct{ x, want float32 }{
		{0.4, 0}, {0.6, 1}, {-0.6, -1},
		{0.5, 0}, // alone tells ties-to-even from ties away from zero and from ties up
		{1.5, 2}, {2.5, 2}, {-0.5, 0}, {-1.5, -2}, {-2.5, -2},
		{8388607.5, 8388608}, {1e30, 1e30},
		{float32(math.Inf(-1)), float32(math.Inf(-1))},
	} {
		require.Equal(t, c.want, integer.Round(c.x), "%v", c.x)
	}
	require.True(t, math.IsNaN(float64(integer.Round(float32(math.NaN())))))
}

func TestGridCode(t *testing.T) {
	infinity := float32(math.Inf(1))
	unsigned := integer.Grid{Bits: 4, Scale: 0.25, Zero: 3, Min: 0, Max: 15}
	signed := integer.Grid{Bits: 8, Scale: 0.5, Zero: 0, Min: -127, Max: 127}
	seventh := integer.Grid{Bits: 8, Scale: 0.7, Zero: 0, Min: 0, Max: 255}
	for _, c := range []struct {
		name string
		grid integer.Grid
		x    float32
		want int32
	}{
		{"zero", unsigned, 0, 3},
		// Rounding after adding the odd zero point would give 4: 0.5 + 3 = 3.5.
		{"tie, odd zero point", unsigned, 0.125, 3},
		{"negative tie", unsigned, -0.375, 1},
		{"below", unsigned, -100, 0},
		{"above", unsigned, 100, 15},
		{"+Inf", unsigned, infinity, 15},
		{"-Inf", signed, -infinity, -127},
		{"quotient overflows", signed, math.MaxFloat32, 127},
		{"NaN", unsigned, float32(math.NaN()), 3},
		{"narrow", signed, -64, -127},
		// 3.15 / 0.7 is 4.5 in float32, a tie to even, and 3.15 * (1/0.7) is 4.5000005: only division gives 4.
		{"divides", seventh, math.Float32frombits(0x4049999a), 4},
	} {
		require.NoError(t, c.grid.Validate())
		require.Equal(t, c.want, c.grid.Code(c.x), c.name)
	}
}

func TestGridCodesAreFixedPoints(t *testing.T) {
	for _, g := range []integer.Grid{
		{Bits: 1, Scale: 1.7, Zero: 0, Min: 0, Max: 1},
		{Bits: 4, Scale: 0.1, Zero: -3, Min: -8, Max: 7},
		{Bits: 8, Scale: 1e-3, Zero: 131, Min: 0, Max: 255},
	} {
		for q := g.Min; q <= g.Max; q++ {
			require.Equal(t, q, g.Code(g.Value(q)))
		}
		require.Zero(t, g.Value(g.Zero))
	}
}

func TestGridValidate(t *testing.T) {
	good := integer.Grid{Bits: 4, Scale: 0.1, Zero: 0, Min: -8, Max: 7}
	for name, c := range map[string]struct {
		change func(*integer.Grid)
		want   string
	}{
		"no bits":          {func(g *integer.Grid) { g.Bits = 0 }, "0 bits: want 1 to 8"},
		"nine bits":        {func(g *integer.Grid) { g.Bits = 9 }, "9 bits: want 1 to 8"},
		"zero scale":       {func(g *integer.Grid) { g.Scale = 0 }, "want a finite positive number"},
		"infinite scale":   {func(g *integer.Grid) { g.Scale = float32(math.Inf(1)) }, "want a finite positive number"},
		"NaN scale":        {func(g *integer.Grid) { g.Scale = float32(math.NaN()) }, "want a finite positive number"},
		"too low":          {func(g *integer.Grid) { g.Min = -9 }, "want a range inside [-8, 7]"},
		"too high":         {func(g *integer.Grid) { g.Max = 8 }, "want a range inside [-8, 7]"},
		"unsigned high":    {func(g *integer.Grid) { g.Min, g.Max = 0, 16 }, "want a range inside [0, 15]"},
		"empty":            {func(g *integer.Grid) { g.Min, g.Max = 0, 0 }, "want a range inside"},
		"zero point above": {func(g *integer.Grid) { g.Zero = 8 }, "zero point 8: want it inside [-8, 7]"},
		"zero point below": {func(g *integer.Grid) { g.Zero = -9 }, "zero point -9: want it inside [-8, 7]"},
	} {
		require.NoError(t, good.Validate())
		g := good
		c.change(&g)
		require.ErrorContains(t, g.Validate(), c.want, name)
	}
}

func TestGridMagnitude(t *testing.T) {
	require.EqualValues(t, 8, integer.Grid{Zero: 0, Min: -8, Max: 7}.Magnitude())
	require.EqualValues(t, 255, integer.Grid{Zero: 128, Min: 0, Max: 255}.Magnitude())
	require.EqualValues(t, 255, integer.Grid{Zero: -128, Min: -128, Max: 127}.Magnitude())
}

func TestTableGrid(t *testing.T) {
	g := integer.Grid{Bits: 3, Scale: 0.25, Zero: 2, Max: 4, Table: &integer.Table{Levels: []int32{-8, -1, 0, 3, 100}, Bounds: []float32{-1, -0.125, 0.5, 2}}}
	require.NoError(t, g.Validate())
	infinity := float32(math.Inf(1))
	for _, c := range []struct {
		x    float32
		want int32
	}{
		{-infinity, 0}, {-7, 0}, {-1, 0}, {math.Nextafter32(-1, 0), 1}, {-0.125, 1}, {-0.1, 2}, {0, 2}, {0.5, 2},
		{math.Nextafter32(0.5, 1), 3}, {2, 3}, {2.5, 4}, {infinity, 4}, {float32(math.NaN()), 2},
	} {
		require.Equal(t, c.want, g.Code(c.x), "%v", c.x)
	}
	require.EqualValues(t, -8, g.Level(0))
	require.Equal(t, float32(0.75), g.Value(3))
	require.Zero(t, g.Value(g.Zero))
	require.EqualValues(t, 100, g.Magnitude())
	require.Equal(t, []int32{1}, g.Factors())
	high, low := g.Split(100)
	require.Equal(t, []int32{0, 100}, []int32{high, low})
	require.Equal(t, "3 bits, codes 0 to 4 around 2, scale 0.25, levels [-8 -1 0 3 100] between [-1 -0.125 0.5 2]", g.String())
}

func TestTwoPlanes(t *testing.T) {
	for _, c := range []struct {
		levels []int32
		want   []int32
	}{
		{[]int32{0, 255}, []int32{1}},
		{[]int32{-128, 0, 127}, []int32{1}},
		{[]int32{0, 256}, []int32{256, 1}},
		{[]int32{-1, 0, 128}, []int32{256, 1}},
		{[]int32{-129, 0}, []int32{256, 1}},
	} {
		g := table(0.5, c.levels...)
		require.NoError(t, g.Validate())
		require.Equal(t, c.want, g.Factors(), "%v", c.levels)
	}
	g := table(0.5, -integer.MaxLevel, 0, integer.MaxLevel)
	for level := int32(-integer.MaxLevel); level <= integer.MaxLevel; level++ {
		high, low := g.Split(level)
		require.Equal(t, level, 256*high+low)
		require.LessOrEqual(t, max(high, -high), int32(127))
		require.True(t, -128 <= low && low <= 127)
	}
	require.EqualValues(t, 32639, g.Magnitude())
	w := twoPlanes()
	require.Equal(t, [][]int64{{3 * 127, 15 * 127}, {7 * 127, 13 * 127}, {3 * 127, 15 * 127}, {7 * 127, 13 * 127}}, g.AccumulatorBounds(w))
	require.Equal(t, [][]int64{{-1, 15}, {1, 7}, {-1, 15}, {1, 7}}, g.AccumulatorSums(w))
	require.Equal(t, [][]float64{{2048, 64}, {128, 32}, {8, 0.25}, {0.5, 0.125}}, integer.NewAffine(g, w.Planes, nil, 2).Scale)
	low := table(0.5, -100, 0, 300)
	require.Equal(t, [][]int64{{3, 15}, {7, 13}, {3 * 100, 15 * 100}, {7 * 100, 13 * 100}}, low.AccumulatorBounds(w))
	uniform := integer.Grid{Bits: 4, Scale: 0.5, Max: 15}
	require.Equal(t, w.Bound(15), uniform.AccumulatorBounds(w))
	require.Equal(t, w.Sum(), uniform.AccumulatorSums(w))
}

func TestGridEqual(t *testing.T) {
	g := apot(0.1)
	require.True(t, g.Equal(apot(0.1)))
	require.True(t, asymmetric(0.1).Equal(asymmetric(0.1)))
	for name, h := range map[string]integer.Grid{
		"scale": apot(0.2), "levels": table(0.1, 0, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 47), "uniform": unsigned(4, 0.1), "bounds": moved(apot(0.1)),
	} {
		require.False(t, g.Equal(h), name)
		require.False(t, h.Equal(g), name)
	}
}

// moved returns g with its first bound a little higher.
func moved(g integer.Grid) integer.Grid {
	g.Table.Bounds[0] = math.Nextafter32(g.Table.Bounds[0], 1)
	return g
}

func TestTableValidate(t *testing.T) {
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		change func(*integer.Grid)
		want   string
	}{
		"codes":             {func(g *integer.Grid) { g.Max = 14 }, "grid codes [0, 14] for 16 levels and 15 bounds"},
		"signed codes":      {func(g *integer.Grid) { g.Bits, g.Min = 5, -1 }, "grid codes [-1, 15] for 16 levels"},
		"too many for bits": {func(g *integer.Grid) { g.Bits = 3 }, "want a range inside [0, 7] for 3 bits"},
		"bounds":            {func(g *integer.Grid) { g.Table.Bounds = g.Table.Bounds[1:] }, "16 levels and 14 bounds"},
		"equal levels":      {func(g *integer.Grid) { g.Table.Levels[3] = 2 }, "grid level 2 at 3: want ascending levels of at most 32639"},
		"large level":       {func(g *integer.Grid) { g.Table.Levels[15] = 32640 }, "grid level 32640 at 15"},
		"low level":         {func(g *integer.Grid) { g.Table.Levels[0] = math.MinInt32 }, "grid level -2147483648 at 0"},
		"descending bounds": {func(g *integer.Grid) { g.Table.Bounds[3] = 0.1 }, "grid bound 0.1 at 3: want finite numbers that never descend"},
		"bound no number":   {func(g *integer.Grid) { g.Table.Bounds[3] = nan }, "grid bound NaN at 3"},
		"infinite bound":    {func(g *integer.Grid) { g.Table.Bounds[14] = float32(math.Inf(1)) }, "grid bound +Inf at 14"},
		"no zero":           {func(g *integer.Grid) { g.Table.Levels[0] = -1 }, "grid zero point 0 has level -1"},
		"signs of two sizes": {func(g *integer.Grid) {
			g.Max, g.Zero, g.Table = 1, 1, &integer.Table{Levels: []int32{-1, 2}, Bounds: []float32{-1e-45}}
		}, "grid zero point 1 has level 2"},
		"sign of zero": {func(g *integer.Grid) {
			g.Max, g.Zero, g.Table = 1, 0, &integer.Table{Levels: []int32{-1, 1}, Bounds: []float32{-1e-45}}
		}, "and 0 has the code 1"},
		"zero elsewhere": {func(g *integer.Grid) { g.Table.Bounds[0] = -0.1 }, "and 0 has the code 1: want level 0 and one code"},
	} {
		g := apot(0.1)
		require.NoError(t, g.Validate())
		c.change(&g)
		require.ErrorContains(t, g.Validate(), c.want, name)
	}
}

// Signs are the one grid without 0: it is worth a code all the same, the real one and the integer.
func TestSigns(t *testing.T) {
	g := integer.Grid{Bits: 1, Scale: 1, Zero: 1, Max: 1, Table: &integer.Table{Levels: []int32{-1, 1}, Bounds: []float32{-math.SmallestNonzeroFloat32}}}
	require.NoError(t, g.Validate())
	for x, want := range map[float32]int32{-3: -1, -1e-45: -1, 0: 1, 1e-45: 1, 3: 1} {
		require.Equal(t, want, g.Level(g.Code(x)), "%v", x)
	}
	require.Equal(t, []int32{-1}, g.Thresholds(0.25))
	require.EqualValues(t, 1, g.Magnitude())
	require.Equal(t, []int32{1}, g.Factors())
}

// An integer lies above a threshold exactly where what it is worth lies above the bound, for units that are powers of two.
func TestThresholds(t *testing.T) {
	grids := []integer.Grid{apot(0.0123), pot(0.31), logarithmic(1./32768, 16, 127), table(1e-40, -1, 0, 1)}
	for _, g := range grids {
		require.NoError(t, g.Validate())
		for _, unit := range []float64{0x1p-30, 0x1p-12, 0.125, 1, 0x1p900} {
			thresholds := g.Thresholds(unit)
			require.True(t, slices.IsSorted(thresholds))
			for i, threshold := range thresholds {
				bound := float64(g.Table.Bounds[i])
				for v := int64(threshold) - 2; v <= int64(threshold)+2; v++ {
					if v > math.MinInt32 && v <= math.MaxInt32 {
						require.Equal(t, float64(v)*unit > bound, v > int64(threshold), "%v units of %v, bound %v", v, unit, bound)
					}
				}
			}
		}
		require.EqualValues(t, g.Zero, below(g.Thresholds(0x1p900), 0))
		require.EqualValues(t, g.Zero, below(g.Thresholds(0x1p-1000), 0))
	}
	require.Equal(t, []int32{math.MinInt32, math.MaxInt32}, table(0.5, -1, 0, 1).Thresholds(1e-20))
}

// below counts thresholds below v.
func below(thresholds []int32, v int32) (count int) {
	for _, t := range thresholds {
		if t < v {
			count++
		}
	}
	return count
}
