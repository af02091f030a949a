package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

var quantizers = []Uniform{
	{0.25, -8, 7}, {0.5, 0, 255}, {0.1, -127, 127}, {0.0371, 0, 3}, {1, -1, 1}, {0x1p-20, -32768, 32767}, {3, -1, 0}, {1e-38, 0, 65535},
}

// plainLevel is the definition, in float64 after the one float32 division.
func plainLevel(u Uniform, x float32) (v float32, rounded float64) {
	v = x / u.Scale
	return v, math.RoundToEven(float64(v))
}

// onGrid is numbers around every half step of the range, with exact ties where the scale is a power of two.
func onGrid(u Uniform) []float32 {
	var x []float32
	for half := 2*max(u.Low, -200) - 5; half <= 2*min(u.High, 200)+5; half++ {
		v := half / 2 * u.Scale
		x = append(x, math.Nextafter32(v, -1e9), v, math.Nextafter32(v, 1e9))
	}
	return append(x, 0, float32(math.Copysign(0, -1)), 1e30, -1e30, math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), 1e-45, -1e-45)
}

func TestUniformEqualsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		for _, u := range quantizers {
			x := onGrid(u)
			stream := rand.New(rand.NewPCG(1, 1))
			for _, v := range random(stream, 3000) {
				x = append(x, v*u.Scale*u.High)
			}
			dy := random(stream, len(x))
			y, yIntact := guarded(t, len(x))
			dx, dxIntact := guarded(t, len(x))
			u.Levels(y, x)
			u.Gradient(dx, dy, x)
			yIntact()
			dxIntact()
			for i, xi := range x {
				_, r := plainLevel(u, xi)
				want := float32(min(max(r, float64(u.Low)), float64(u.High))) + 0
				require.Equal(t, math.Float32bits(want), math.Float32bits(y[i]), "%+v: level of %x", u, xi)
				require.Equal(t, math.Float32bits(want), math.Float32bits(u.Level(xi)), "%+v: level of %x", u, xi)
				g := float32(0)
				if r >= float64(u.Low) && r <= float64(u.High) {
					g = dy[i]
				}
				require.Equal(t, g, dx[i], "%+v: gradient at %x", u, xi)
			}
		}
	})
}

func TestStepGradientEqualsDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		for _, u := range quantizers {
			for _, exact := range []bool{false, true} {
				x := onGrid(u)
				stream := rand.New(rand.NewPCG(2, 2))
				for _, v := range random(stream, 5000) {
					x = append(x, v*u.Scale*u.High)
				}
				dy := random(stream, len(x))
				dx, dxIntact := guarded(t, len(x))
				levels, levelsIntact := guarded(t, len(x))
				got := u.StepGradient(dx, levels, dy, x, exact)
				dxIntact()
				levelsIntact()
				plain := make([]float32, len(x))
				u.Levels(plain, x)
				requireSame(t, plain, levels, fmt.Sprintf("%+v: levels", u))
				require.Equal(t, got, u.StepGradient(plain, nil, dy, x, exact))
				requireSame(t, dx, plain, fmt.Sprintf("%+v: gradient without levels", u))
				total := 0.0
				for from := 0; from < len(x); from += 4096 {
					var lanes [Lanes]float64
					for i := from; i < min(len(x), from+4096); i++ {
						v, r := plainLevel(u, x[i])
						test := r
						if exact {
							test = float64(v)
						}
						g, slope := dy[i], float32(min(max(r, float64(u.Low)-1), float64(u.High)+1))-v
						if test < float64(u.Low) {
							g, slope = 0, u.Low
						}
						if test > float64(u.High) {
							g, slope = 0, u.High
						}
						require.Equal(t, g, dx[i], "%+v exact %v: gradient at %x", u, exact, x[i])
						lanes[i%Lanes] += float64(dy[i] * slope)
					}
					total += halve(&lanes)
				}
				require.Equal(t, math.Float64bits(total), math.Float64bits(got), "%+v exact %v", u, exact)
			}
		}
	})
}

func TestUniformNaN(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		u := Uniform{0.5, -8, 7}
		x, y, dx := make([]float32, 40), make([]float32, 40), make([]float32, 40)
		x[3], x[37] = float32(math.NaN()), float32(math.NaN())
		u.Levels(y, x)
		u.Gradient(dx, onesLike(x), x)
		for i := range x {
			require.Equal(t, i == 3 || i == 37, y[i] != y[i], "%d", i)
			require.Equal(t, i != 3 && i != 37, dx[i] == 1, "%d", i)
		}
		require.True(t, math.IsNaN(u.StepGradient(dx, nil, onesLike(x), x, false)))
		require.Equal(t, onesLike(x), dx)
	})
}

func onesLike(x []float32) []float32 {
	ones := make([]float32, len(x))
	for i := range ones {
		ones[i] = 1
	}
	return ones
}

// elementwiseKernels are the loops over elements; each writes y, from x and z, and may return a sum.
var elementwiseKernels = []struct {
	name string
	run  func(y, x, z []float32) float64
}{
	{"ReLU", func(y, x, _ []float32) float64 { ReLU(y, x); return 0 }},
	{"ReLUGradient", func(y, x, z []float32) float64 { ReLUGradient(y, x, z); return 0 }},
	{"Levels", func(y, x, _ []float32) float64 { quantizers[2].Levels(y, x); return 0 }},
	{"Gradient", func(y, x, z []float32) float64 { quantizers[2].Gradient(y, x, z); return 0 }},
	{"StepGradient", func(y, x, z []float32) float64 { return quantizers[2].StepGradient(y, nil, x, z, false) }},
	{"StepGradient exact", func(y, x, z []float32) float64 { return quantizers[2].StepGradient(y, nil, x, z, true) }},
}

// Every path gives the bits of the portable one for every length around whole vectors and chunks.
func TestElementwisePaths(t *testing.T) {
	stream := rand.New(rand.NewPCG(3, 3))
	lengths := []int{4096, 4096 + 17, 3*4096 - 1, 0}
	for n := 1; n <= 50; n++ {
		lengths = append(lengths, n)
	}
	for _, k := range elementwiseKernels {
		for _, n := range lengths {
			for _, fill := range []func(*rand.Rand, int) []float32{random, awkward} {
				x, z := fill(stream, n), fill(stream, n)
				want := make([]float32, n)
				var sum float64
				onPath(portable, func() { sum = k.run(want, x, z) })
				for p := portable; p <= supported(); p++ {
					onPath(p, func() {
						got, intact := guarded(t, n)
						gotSum := k.run(got, x, z)
						intact()
						requireSame(t, want, got, fmt.Sprintf("%s of %d on %s", k.name, n, Path()))
						require.True(t, math.Float64bits(sum) == math.Float64bits(gotSum) || sum != sum && gotSum != gotSum,
							"%s of %d on %s: %x, want %x", k.name, n, Path(), gotSum, sum)
					})
				}
			}
		}
	}
}

func TestReLU(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		negative, nan := float32(math.Copysign(0, -1)), float32(math.NaN())
		x := append(make([]float32, 10), -1, 2, 0, negative, nan, 1e-45)
		y, dx := make([]float32, 16), make([]float32, 16)
		ReLU(y, x)
		requireSame(t, []float32{0, 2, 0, negative, nan, 1e-45}, y[10:], "y")
		ReLUGradient(dx, onesLike(x), x)
		requireSame(t, []float32{0, 1, 0, 0, 0, 1}, dx[10:], "dx")
	})
}
