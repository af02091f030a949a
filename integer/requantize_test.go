package integer_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/integer"
)

// roundEven rounds an exact rational to the nearest integer, ties to even.
func roundEven(x *big.Rat) *big.Int {
	half := big.NewRat(1, 2)
	floor := new(big.Int).Div(x.Num(), x.Denom()) // Div rounds down for a positive denominator
	rest := new(big.Rat).Sub(x, new(big.Rat).SetInt(floor))
	if c := rest.Cmp(half); c > 0 || c == 0 && floor.Bit(0) == 1 {
		floor.Add(floor, big.NewInt(1))
	}
	return floor
}

// exactApply is the requantizer's formula in rationals.
func exactApply(r *integer.Requantizer, channel int, acc []int32) int32 {
	weigh := func(multiplier [][]int32, bias []int64) *big.Int {
		sum := big.NewInt(bias[channel])
		for p, a := range acc {
			sum.Add(sum, new(big.Int).Mul(big.NewInt(int64(a)), big.NewInt(int64(multiplier[p][channel]))))
		}
		return sum
	}
	sum := weigh(r.Multiplier, r.Bias)
	if sum.Sign() < 0 && r.Negative != nil {
		sum = weigh(r.Negative.Multiplier, r.Negative.Bias)
	}
	quotient := new(big.Rat).SetFrac(sum, new(big.Int).Lsh(big.NewInt(1), uint(r.Shift[channel])))
	out := roundEven(quotient)
	out.Add(out, big.NewInt(int64(r.Zero)))
	if out.Cmp(big.NewInt(int64(r.Max))) > 0 {
		return r.Max
	}
	if out.Cmp(big.NewInt(int64(r.Min))) < 0 {
		return r.Min
	}
	return int32(out.Int64())
}

func TestApplyTies(t *testing.T) {
	for _, c := range []struct {
		shift     uint8
		acc, want int32
	}{
		{0, -7, -7}, {1, 2, 1}, {2, 3, 1}, {2, -3, -1}, {2, 1, 0},
		{1, 3, 2}, {2, 6, 2}, {1, -3, -2},
		{1, 1, 0},  // alone tells ties-to-even from ties up and from ties away from zero
		{1, -1, 0}, // alone tells ties-to-even from ties down, together with the row above
		{2, 2, 0},  // the tie of a shift of more than one bit
		{2, 10, 2}, // 2.5
		{2, -10, -2},
	} {
		r := &integer.Requantizer{Multiplier: [][]int32{{1}}, Bias: []int64{0}, Shift: []uint8{c.shift}, Min: -100, Max: 100}
		require.Equal(t, c.want, r.Apply(0, []int32{c.acc}), "%d >> %d", c.acc, c.shift)
		require.Equal(t, c.want, r.Apply1(0, c.acc), "%d >> %d", c.acc, c.shift)
	}
}

func TestRequantizerAgainstRationals(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		planes, scale := 1+random.IntN(3), math.Ldexp(random.Float64()+0.1, random.IntN(30)-20)
		g := integer.Grid{Bits: 8, Scale: float32(math.Ldexp(random.Float64()+0.1, random.IntN(10)-8)), Zero: 100, Min: 0, Max: 255}
		a := integer.Affine{Bias: []float64{random.NormFloat64() * float64(g.Scale) * 50}}
		var bound [][]int64
		for range planes {
			a.Scale = append(a.Scale, []float64{random.NormFloat64() * scale})
			bound = append(bound, []int64{random.Int64N(1 << (1 + random.IntN(30)))})
		}
		if random.IntN(2) == 0 {
			a.Slope = []float64{random.NormFloat64()}
		}
		r, err := integer.NewRequantizer(a, bound, g)
		require.NoError(t, err)
		for range 20 {
			acc, real := make([]int32, planes), a.Bias[0]
			for p := range acc {
				acc[p] = int32(random.Int64N(2*bound[p][0]+1) - bound[p][0])
				real += float64(acc[p]) * a.Scale[p][0]
			}
			got := r.Apply(0, acc)
			require.Equal(t, exactApply(r, 0, acc), got)
			if planes == 1 {
				require.Equal(t, got, r.Apply1(0, acc[0]))
			}
			if real < 0 && a.Slope != nil {
				real *= a.Slope[0]
			}
			// The multiplier's own rounding moves the result only next to a tie.
			want := real/float64(g.Scale) + float64(g.Zero)
			want = math.Max(float64(g.Min), math.Min(want, float64(g.Max)))
			require.InDelta(t, want, float64(got), 0.5+1e-5*(1+math.Abs(want)))
		}
	}
}

func TestNewRequantizerTakesTheLargestShift(t *testing.T) {
	g := integer.Grid{Bits: 8, Scale: 1, Zero: 5, Min: 0, Max: 255}
	for _, c := range []struct {
		name        string
		scale, bias float64
		bound       int64
		multiplier  int32
		wantBias    int64
		shift       uint8
	}{
		{"multiplier below 2^31", 1, 0, 1000, 1 << 30, 0, 30},
		{"one step more would round to 2^31", 1 - 0x1p-53, 0, 1000, 1 << 30, 0, 30},
		{"negative", -0.75, 2, 100, -0x60000000, 1 << 32, 31},
		{"shift limit", 0x1p-40, 0, 1000, 1 << 22, 0, 62},
		{"bias limits", 0x1p-40, 0x1p30, 1000, 0, 1 << 61, 31},
		{"bound limits nothing below 2^31", 0x1p-1, 0, 1<<31 - 1, 1 << 30, 0, 31},
		{"zero scale", 0, 1, 10, 0, 1 << 61, 61},
		{"fraction ties to even", 0x1.8p-63, 0, 10, 1, 0, 62},
		{"fraction tie", 0x1p-63, 0, 10, 0, 0, 62},
	} {
		r, err := integer.NewRequantizer(integer.Affine{Scale: [][]float64{{c.scale}}, Bias: []float64{c.bias}}, [][]int64{{c.bound}}, g)
		require.NoError(t, err, c.name)
		require.Equal(t, &integer.Requantizer{Multiplier: [][]int32{{c.multiplier}}, Bias: []int64{c.wantBias}, Shift: []uint8{c.shift}, Zero: 5, Min: 0, Max: 255}, r, c.name)
	}
}

// The sign that chooses is that of the sum before rounding: here a code of 0 on either side.
func TestSlopesOfNegativeSums(t *testing.T) {
	a := integer.Affine{Scale: [][]float64{{0.25}}, Bias: []float64{0.25}, Slope: []float64{-8}}
	r, err := integer.NewRequantizer(a, [][]int64{{100}}, integer.Grid{Bits: 8, Scale: 1, Min: -128, Max: 127})
	require.NoError(t, err)
	require.Equal(t, uint8(29), r.Shift[0], "the larger multiplier limits the shift")
	require.Equal(t, &integer.Branch{Multiplier: [][]int32{{-1 << 30}}, Bias: []int64{-1 << 30}}, r.Negative)
	for acc, want := range map[int32]int32{0: 0, -1: 0, -2: 2, -3: 4, 1: 0, 2: 1} {
		require.Equal(t, want, r.Apply1(0, acc), "%d", acc)
	}
	apart := integer.Requantizer{Multiplier: [][]int32{{1}}, Bias: []int64{0}, Negative: &integer.Branch{Multiplier: [][]int32{{1}}, Bias: []int64{50}}, Shift: []uint8{0}, Min: -99, Max: 99}
	require.EqualValues(t, 0, apart.Apply1(0, 0), "a sum of 0 is not negative")
	require.EqualValues(t, 49, apart.Apply1(0, -1))
	folded := r.FoldZero(7, [][]int64{{3}})
	for acc := int32(-50); acc < 50; acc++ {
		require.Equal(t, r.Apply1(0, acc), folded.Apply1(0, acc+21))
	}
	require.EqualValues(t, 202, r.Bound([][]int64{{100}}))
	a.ReLU = true
	r, err = integer.NewWideRequantizer(a, [][]int64{{100}}, 1)
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Apply1(0, -2), "a negative slope makes it positive before the ReLU")
}

func TestReLURaisesMin(t *testing.T) {
	a := integer.Affine{Scale: [][]float64{{1}}, Bias: []float64{0}, ReLU: true}
	r, err := integer.NewRequantizer(a, [][]int64{{10}}, integer.Grid{Bits: 4, Scale: 1, Zero: -2, Min: -8, Max: 7})
	require.NoError(t, err)
	require.EqualValues(t, -2, r.Min)
	require.EqualValues(t, -2, r.Apply1(0, -5))
	w, err := integer.NewWideRequantizer(a, [][]int64{{10}}, 1)
	require.NoError(t, err)
	require.EqualValues(t, 0, w.Apply1(0, -5))
}

func TestNewRequantizerRefuses(t *testing.T) {
	infinity := math.Inf(1)
	for name, c := range map[string]struct {
		a     integer.Affine
		bound [][]int64
		want  string
	}{
		"bound":         {integer.Affine{Scale: [][]float64{{1, 1}}, Bias: []float64{0, 0}}, [][]int64{{5, 1 << 31}}, "channel 1: accumulators reach 2147483648"},
		"NaN scale":     {integer.Affine{Scale: [][]float64{{1, math.NaN()}}, Bias: []float64{0, 0}}, [][]int64{{5, 5}}, "channel 1: scale NaN"},
		"infinite bias": {integer.Affine{Scale: [][]float64{{1}}, Bias: []float64{infinity}}, [][]int64{{5}}, "channel 0"},
		"large scale":   {integer.Affine{Scale: [][]float64{{0x1p31}}, Bias: []float64{0}}, [][]int64{{5}}, "channel 0: scale and bias 0 are too large"},
		"large bias":    {integer.Affine{Scale: [][]float64{{1}}, Bias: []float64{0x1p62}}, [][]int64{{5}}, "no shift keeps the sum below 2^62"},
		"large sum":     {integer.Affine{Scale: [][]float64{{0x1p30}, {0x1p30}}, Bias: []float64{0x1p61}}, [][]int64{{1<<31 - 1}, {1<<31 - 1}}, "no shift"},
		"slopes":        {integer.Affine{Scale: [][]float64{{1}}, Bias: []float64{0}, Slope: []float64{1, 2}}, [][]int64{{5}}, "2 slopes: want none or one for each of 1 channels"},
		"NaN slope":     {integer.Affine{Scale: [][]float64{{1}}, Bias: []float64{0}, Slope: []float64{math.NaN()}}, [][]int64{{5}}, "times NaN, is not finite"},
		"large slope":   {integer.Affine{Scale: [][]float64{{1}}, Bias: []float64{0}, Slope: []float64{-0x1p31}}, [][]int64{{5}}, "no shift"},
		"planes":        {integer.Affine{Scale: [][]float64{{1}}, Bias: []float64{0}}, [][]int64{{5}, {5}}, "1 planes of scales, 2 of bounds"},
		"channels":      {integer.Affine{Scale: [][]float64{{1, 2}}, Bias: []float64{0}}, [][]int64{{5}}, "plane 0 has 2 scales"},
		"nothing":       {integer.Affine{}, nil, "at least one channel"},
	} {
		_, err := integer.NewRequantizer(c.a, c.bound, integer.Grid{Bits: 8, Scale: 1, Min: 0, Max: 255})
		require.ErrorContains(t, err, c.want, name)
	}
	_, err := integer.NewRequantizer(integer.Affine{}, nil, integer.Grid{})
	require.ErrorContains(t, err, "grid of 0 bits")
	_, err = integer.NewRequantizer(integer.Affine{Scale: [][]float64{{1}}, Bias: []float64{0}}, [][]int64{{5}}, apot(0.1))
	require.ErrorContains(t, err, "requantization to unequal steps: want a uniform grid")
	_, err = integer.NewWideRequantizer(integer.Affine{}, nil, math.NaN())
	require.ErrorContains(t, err, "wide scale NaN")
}

func TestWideScaleIsTheSmallestThatHolds(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		bits := 2 + random.IntN(23)
		a := integer.Affine{Scale: [][]float64{{random.NormFloat64(), 0.1}}, Bias: []float64{random.NormFloat64() * 100, 0}}
		slope := 1.0
		if random.IntN(3) == 0 {
			a.Slope = []float64{4 * random.NormFloat64(), 0}
			slope = max(1, math.Abs(a.Slope[0]))
		}
		bound := [][]int64{{random.Int64N(1 << (1 + random.IntN(30))), 3}}
		scale := integer.WideScale(a, bound, bits)
		fraction, _ := math.Frexp(scale)
		require.Equal(t, 0.5, fraction)
		r, err := integer.NewWideRequantizer(a, bound, scale)
		require.NoError(t, err)
		limit := int64(1)<<bits - 1
		require.LessOrEqual(t, r.Bound(bound), limit)
		largest := math.Abs(a.Bias[0]) + math.Abs(a.Scale[0][0])*float64(bound[0][0])
		largest *= slope
		require.Greater(t, largest/(scale/2), float64(limit)-1.001, "half the scale would do")
	}
}

func TestWideScaleEdges(t *testing.T) {
	one := func(scale, bias float64) integer.Affine {
		return integer.Affine{Scale: [][]float64{{scale}}, Bias: []float64{bias}}
	}
	bound := [][]int64{{1}}
	require.Equal(t, 1.0, integer.WideScale(one(0, 0), bound, 24))
	require.Equal(t, 1.0, integer.WideScale(one(0, 0xfffffe), bound, 24))
	require.Equal(t, 2.0, integer.WideScale(one(0, 0xffffff), bound, 24), "one unit is kept for rounding")
	for name, scale := range map[string]float64{
		"infinite":     integer.WideScale(one(math.Inf(1), 0), bound, 24),
		"bits":         integer.WideScale(one(1, 0), bound, 25),
		"shape":        integer.WideScale(one(1, 0), nil, 24),
		"not a number": integer.WideScale(one(0, math.NaN()), bound, 24),
	} {
		require.True(t, math.IsNaN(scale), name)
	}
}

func TestFoldZeroIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	w := twoPlanes()
	g := integer.Grid{Bits: 8, Scale: 0.01, Zero: 77, Min: 0, Max: 255}
	a := integer.Affine{Scale: [][]float64{{0.3, -0.2}, {0.01, 0.02}}, Bias: []float64{0.4, -1}}
	r, err := integer.NewRequantizer(a, w.Bound(g.Magnitude()), g)
	require.NoError(t, err)
	folded := r.FoldZero(g.Zero, w.Sum())
	for range 1000 {
		q := []int32{random.Int32N(256), random.Int32N(256), random.Int32N(256)}
		for o := range 2 {
			levels, codes := make([]int32, 2), make([]int32, 2)
			for p, plane := range w.Planes {
				for i := range q {
					weight := int32(plane.Table[w.Codes[o*3+i]])
					levels[p] += (q[i] - g.Zero) * weight
					codes[p] += q[i] * weight
				}
			}
			require.Equal(t, r.Apply(o, levels), folded.Apply(o, codes))
		}
	}
}
