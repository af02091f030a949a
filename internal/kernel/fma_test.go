package kernel

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// exactFMA rounds x·y + z once, with arbitrary precision. It takes finite numbers.
func exactFMA(x, y, z float32) float32 {
	wide := func(v float32) *big.Float { return new(big.Float).SetPrec(700).SetFloat64(float64(v)) }
	sum := new(big.Float).SetPrec(700)
	sum.Add(sum.Mul(wide(x), wide(y)), wide(z))
	if sum.Sign() == 0 {
		return float32(float64(x)*float64(y)) + z // zeros keep their sign by IEEE 754's rule for sums
	}
	result, _ := sum.Float32()
	return result
}

func requireFMA(t *testing.T, x, y, z float32) {
	t.Helper()
	got := float32(fma(float64(x), float64(y), float64(z)))
	want := exactFMA(x, y, z)
	if math.Float32bits(got) != math.Float32bits(want) {
		require.Failf(t, "not rounded once", "fma(%x, %x, %x) = %x, want %x", x, y, z, got, want)
	}
	var sum [Lanes]float64
	var v [Lanes]float32
	sum[3], v[3] = float64(z), x
	multiplyAdd(&sum, &v, float64(y))
	require.Equal(t, math.Float32bits(got), math.Float32bits(float32(sum[3])))
}

func TestFMA(t *testing.T) {
	t.Parallel()
	negative := float32(math.Copysign(0, -1))
	const tiny, least = 0x1p-149, 0x1p-126
	for _, c := range []struct {
		name          string
		x, y, z, want float32
	}{
		{"a tie to even, pushed up by a bit that float64 loses", 1 + 0x1p-23, 1 + 0x1p-23, 0x1p-80, float32(1 + 0x1p-22)},
		{"an exact tie goes to even, down", 1, 0x1p-24, 1, 1},
		{"an exact tie goes to even, up", 1, 0x1p-24, 1 + 0x1p-23, 1 + 0x1p-22},
		{"just above a tie: rounding twice gives 1", 0x1p-24, 1 + 0x1p-23, 1, 1 + 0x1p-23},
		{"just below a tie: rounding twice gives 1 + 2^-22", 0x1p-24, 1 - 0x1p-23, 1 + 0x1p-23, 1 + 0x1p-23},
		{"above a tie by less than float64 sees", 0x1p-60, 0x1p-60, 1 + 0x1p-23, 1 + 0x1p-23},
		{"half the least subnormal goes to zero", tiny, 0.5, 0, 0},
		{"negative half the least subnormal goes to negative zero", -tiny, 0.5, 0, negative},
		{"more than half goes up", 0x1p-75, 0x1p-75 * (1 + 0x1p-23), 0, tiny},
		{"a subnormal tie goes to even", 0x1p-75, 0x1p-75, tiny, 2 * tiny},
		{"a subnormal rounds up to the least normal number", 1, least - tiny, 0x1p-149, least},
		{"overflow", math.MaxFloat32, 2, -math.MaxFloat32, math.MaxFloat32},
		{"overflow at the tie", math.MaxFloat32, 1, 0x1p103, float32(math.Inf(1))},
		{"no overflow below the tie", math.MaxFloat32, 1, 0x1p102, math.MaxFloat32},
		{"cancellation gives +0", 3, 2, -6, 0},
		{"negative zeros", negative, 1, negative, negative},
		{"zeros of both signs", negative, 1, 0, 0},
	} {
		require.Equal(t, math.Float32bits(c.want), math.Float32bits(exactFMA(c.x, c.y, c.z)), c.name)
		requireFMA(t, c.x, c.y, c.z)
	}
	inf := float32(math.Inf(1))
	require.Equal(t, float64(inf), fma(float64(inf), 2, 1))
	require.True(t, math.IsNaN(fma(float64(inf), 1, float64(-inf))))
	require.True(t, math.IsNaN(fma(math.NaN(), 1, 1)))
}

// Sums near ties and near the subnormal range, where rounding twice goes wrong.
func TestFMANearTies(t *testing.T) {
	t.Parallel()
	stream := rand.New(rand.NewPCG(1, 1))
	number := func(exponent int) float32 {
		mantissa := 1 + float64(stream.IntN(1<<23))*0x1p-23
		if stream.IntN(2) == 0 {
			mantissa = 1 + float64(stream.IntN(4))*0x1p-23
		}
		return float32(math.Ldexp(float64(2*stream.IntN(2)-1)*mantissa, exponent))
	}
	for range 100000 {
		scale := stream.IntN(250) - 125
		x := stream.IntN(100) - 50
		requireFMA(t, number(x), number(scale-x-24-stream.IntN(3)), number(scale))
		requireFMA(t, number(-75), number(-75+stream.IntN(30)), number(-149+stream.IntN(30)))
	}
}

func FuzzFMA(f *testing.F) {
	for _, seed := range [][3]uint32{{0x3f800001, 0x33800000, 0x3f800000}, {1, 0x3f000000, 0}, {0x7f7fffff, 0x3f800000, 0x73000000}, {0x80000000, 0x3f800000, 0x80000000}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, x, y, z uint32) {
		for _, bits := range []uint32{x, y, z} {
			if bits>>23&0xff == 0xff {
				t.Skip("not finite")
			}
		}
		requireFMA(t, math.Float32frombits(x), math.Float32frombits(y), math.Float32frombits(z))
	})
}
