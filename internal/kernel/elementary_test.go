package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// The inputs are drawn without a product next to a sum, so that they are the same under every GOAMD64.
func TestElementaryAccuracy(t *testing.T) {
	t.Parallel()
	stream := rand.New(rand.NewPCG(1, 2))
	uniform := func(low, high float64) float64 { return low + float64((high-low)*stream.Float64()) }
	for range 50000 {
		x := uniform(-708, 709)
		require.InEpsilon(t, math.Exp(x), Exp(x), 1e-15, "Exp(%v)", x)
		x = uniform(-1, 1)
		require.InEpsilon(t, math.Exp(x), Exp(x), 1e-15, "Exp(%v)", x)
		x = math.Ldexp(uniform(1, 2), stream.IntN(2046)-1022)
		require.InEpsilon(t, math.Log(x), Log(x), 1e-15, "Log(%v)", x)
		x = uniform(0.5, 2)
		require.InEpsilon(t, math.Log(x), Log(x), 1e-15, "Log(%v)", x)
		x = uniform(-1e4, 1e4)
		require.InDelta(t, math.Cos(x), Cos(x), 1e-15, "Cos(%v)", x)
		require.InDelta(t, math.Sin(x), Sin(x), 1e-15, "Sin(%v)", x)
	}
}

// Logarithms of subnormals are held against those of numbers 2^60 times as large,
// because math.Log is itself wrong there on amd64.
func TestLogSubnormal(t *testing.T) {
	t.Parallel()
	for _, x := range []float64{math.SmallestNonzeroFloat64, 2.04163e-319, 1e-310, 2.2e-308} {
		want := math.Log(math.Ldexp(x, 60)) - 60*math.Ln2
		require.InEpsilon(t, want, Log(x), 1e-15, "Log(%v)", x)
	}
}

// Beside multiples of π/2 a reduction that keeps too few bits fails first.
func TestCircularBesideQuadrants(t *testing.T) {
	t.Parallel()
	for k := -6400; k <= 6400; k++ {
		x := float64(k) * (math.Pi / 2)
		for _, angle := range []float64{x, math.Nextafter(x, math.Inf(1)), math.Nextafter(x, math.Inf(-1))} {
			require.InDelta(t, math.Cos(angle), Cos(angle), 1e-15, "Cos(%v)", angle)
			require.InDelta(t, math.Sin(angle), Sin(angle), 1e-15, "Sin(%v)", angle)
		}
	}
}

func TestElementarySpecialValues(t *testing.T) {
	t.Parallel()
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		name     string
		function func(float64) float64
		x, want  float64
	}{
		{"Exp", Exp, 0, 1},
		{"Exp", Exp, inf, inf},
		{"Exp", Exp, -inf, 0},
		{"Exp", Exp, nan, nan},
		{"Exp", Exp, 709.782712893384, 1.7976931348622732e+308},
		{"Exp", Exp, 709.7827128933841, inf},
		{"Exp", Exp, -745.1332191019411, math.SmallestNonzeroFloat64},
		{"Exp", Exp, -745.1332191019412, 0},
		{"Exp", Exp, -1e300, 0},
		{"Log", Log, 1, 0},
		{"Log", Log, 0, -inf},
		{"Log", Log, math.Copysign(0, -1), -inf},
		{"Log", Log, -1, nan},
		{"Log", Log, -inf, nan},
		{"Log", Log, inf, inf},
		{"Log", Log, nan, nan},
		{"Cos", Cos, 0, 1},
		{"Cos", Cos, math.Pi, -1},
		{"Cos", Cos, MaxAngle + 1, nan},
		{"Cos", Cos, inf, nan},
		{"Cos", Cos, nan, nan},
		{"Sin", Sin, 0, 0},
		{"Sin", Sin, -MaxAngle - 1, nan},
		{"Sin", Sin, -inf, nan},
		{"Sin", Sin, nan, nan},
	} {
		got := c.function(c.x)
		if math.IsNaN(c.want) {
			require.True(t, math.IsNaN(got), "%s(%v) = %v", c.name, c.x, got)
			continue
		}
		require.Equal(t, c.want, got, "%s(%v)", c.name, c.x)
	}
}

// The table holds on every platform and under every GOAMD64.
func TestElementaryBits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		function func(float64) float64
		x        float64
		want     uint64
	}{
		{"Exp", Exp, 0, 0x3ff0000000000000},
		{"Exp", Exp, 1, 0x4005bf0a8b145769},
		{"Exp", Exp, -1, 0x3fd78b56362cef38},
		{"Exp", Exp, 0.5, 0x3ffa61298e1e069c},
		{"Exp", Exp, 1e-10, 0x3ff000000006df38},
		{"Exp", Exp, -0.1, 0x3fecf46d99d52b3a},
		{"Exp", Exp, 10, 0x40d5829dcf950560},
		{"Exp", Exp, -87.3, 0x38109874c0b9cacb},
		{"Exp", Exp, 700.5, 0x7f18625c7d4f56c2},
		{"Exp", Exp, -740.5, 0x0000000000000033},
		{"Log", Log, 1, 0x0000000000000000},
		{"Log", Log, 2, 0x3fe62e42fefa39ef},
		{"Log", Log, 0.5, 0xbfe62e42fefa39ef},
		{"Log", Log, 10, 0x40026bb1bbb55516},
		{"Log", Log, 0.1, 0xc0026bb1bbb55515},
		{"Log", Log, 1.0000001, 0x3e7ad7f2847b6492},
		{"Log", Log, 0.7071, 0xbfd62e6b3842a25e},
		{"Log", Log, 1.4143, 0x3fd62f4358c03e8a},
		{"Log", Log, 1e-310, 0xc0864e69394d9508},
		{"Log", Log, 1.7e+308, 0x40862dd08fdc6f88},
		{"Cos", Cos, 0, 0x3ff0000000000000},
		{"Sin", Sin, 0, 0x0000000000000000},
		{"Cos", Cos, 1, 0x3fe14a280fb5068c},
		{"Sin", Sin, 1, 0x3feaed548f090cee},
		{"Cos", Cos, -2, 0xbfdaa22657537205},
		{"Sin", Sin, -2, 0xbfed18f6ead1b446},
		{"Cos", Cos, 0.785, 0x3fe6a2ecb934b59a},
		{"Sin", Sin, 0.785, 0x3fe69e4fd79ac743},
		{"Cos", Cos, 1.5707963267948966, 0x3c91a62633145c07},
		{"Sin", Sin, 1.5707963267948966, 0x3ff0000000000000},
		{"Cos", Cos, 3.141592653589793, 0xbff0000000000000},
		{"Sin", Sin, 3.141592653589793, 0x3ca1a62633145c07},
		{"Cos", Cos, 100, 0x3feb981dbf665fdf},
		{"Sin", Sin, 100, 0xbfe03425b78c4db8},
		{"Cos", Cos, -9999.5, 0xbfef6d7af2c56c13},
		{"Sin", Sin, -9999.5, 0xbfc819bf47e7fab3},
		{"Cos", Cos, 1e+06, 0x3fedf9df9906d32c},
		{"Sin", Sin, 1e+06, 0xbfd6664b2568d867},
	} {
		require.Equal(t, c.want, math.Float64bits(c.function(c.x)), "%s(%v)", c.name, c.x)
	}
}

func BenchmarkElementary(b *testing.B) {
	for _, c := range []struct {
		name     string
		function func(float64) float64
	}{{"Exp", Exp}, {"Log", Log}, {"Cos", Cos}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			x := 0.0
			for b.Loop() {
				x += c.function(1.25 + float64(x*1e-9))
			}
		})
	}
}
