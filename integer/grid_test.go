package integer_test

import (
	"math"
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
