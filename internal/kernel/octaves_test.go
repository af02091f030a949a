package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// logarithmic makes the staircase of nnie: 2^shift steps to the octave, positives of them above zero, the largest at
// 2^(position/2^shift), bounds halfway in exponents.
func logarithmic(positives, shift, position int) (s stairs, zero int) {
	zero = positives - 1
	s = stairs{make([]float32, 2*positives-1), make([]float32, 2*positives)}
	power := func(i int, half float64) float64 {
		return math.Exp2((float64(position-zero+i) + half) / float64(int(1)<<shift))
	}
	floor := func(v float64) float32 {
		f := float32(v)
		if float64(f) > v {
			f = math.Nextafter32(f, -math.MaxFloat32)
		}
		return f
	}
	s.bounds[zero], s.bounds[zero-1] = floor(power(0, 0)/2), floor(-power(1, 0)/2)
	for i := range positives {
		level := float32(math.RoundToEven(32639 * power(i, 0) / power(zero, 0)))
		s.levels[zero+1+i] = level
		if i < zero {
			s.bounds[zero+1+i] = floor(power(i, 0.5))
		}
		if i > 0 {
			s.levels[zero-i] = -level
		}
		if 0 < i && i < zero {
			s.bounds[zero-1-i] = floor(-power(i, 0.5))
		}
	}
	return s, zero
}

func TestLogarithmicStepsEqualTheirDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(33, 34))
		for _, c := range []struct{ positives, shift int }{{128, 4}, {64, 3}, {32, 3}, {16, 2}, {8, 1}, {4, 0}, {100, 4}} {
			for _, position := range []int{0, 1, 7, 8, 15, 51, -40, 100, -80, 3} {
				name := fmt.Sprintf("%d positive levels, %d to the octave, largest at %d", c.positives, 1<<c.shift, position)
				plain, zero := logarithmic(c.positives, c.shift, position)
				s := NewSteps(plain.bounds, plain.levels)
				s.Logarithmic(plain.bounds, plain.levels, zero, c.shift)
				require.NotNil(t, s.octaves, name)
				x := append(plain.around(), awkward(stream, 300)...)
				for _, v := range random(stream, 300) {
					x = append(x, v*plain.bounds[len(plain.bounds)-1])
				}
				y, intact := guarded(t, len(x))
				s.Levels(y, x)
				intact()
				want := make([]float32, len(x))
				for i, v := range x {
					want[i] = plain.level(v)
				}
				requireSame(t, want, y, name)
			}
		}
	})
}

// What is no such staircase is searched like any other.
func TestStepsThatAreNotLogarithmic(t *testing.T) {
	stream := rand.New(rand.NewPCG(35, 36))
	damage := map[string]func(s *stairs, zero int){
		"a bound out of place":          func(s *stairs, zero int) { s.bounds[zero+5] = s.bounds[zero+4] },
		"a negative bound out of place": func(s *stairs, zero int) { s.bounds[zero-5] = s.bounds[zero-4] },
		"a level out of place":          func(s *stairs, zero int) { s.levels[zero-3]++ },
		"another zero":                  func(s *stairs, zero int) { s.levels[zero] = 1 },
		"tiny bounds": func(s *stairs, _ int) {
			for i := range s.bounds {
				s.bounds[i] *= 0x1p-130
			}
		},
	}
	for name, do := range damage {
		plain, zero := logarithmic(128, 4, 3)
		do(&plain, zero)
		s := NewSteps(plain.bounds, plain.levels)
		s.Logarithmic(plain.bounds, plain.levels, zero, 4)
		require.Nil(t, s.octaves, name)
		x := append(plain.around(), awkward(stream, 100)...)
		want, y := make([]float32, len(x)), make([]float32, len(x))
		for i, v := range x {
			want[i] = plain.level(v)
		}
		s.Levels(y, x)
		requireSame(t, want, y, name)
	}
	plain, zero := logarithmic(128, 4, 3)
	for _, shift := range []int{3, 5} {
		s := NewSteps(plain.bounds, plain.levels)
		s.Logarithmic(plain.bounds, plain.levels, zero, shift)
		require.Nil(t, s.octaves, "%d steps to the octave told of sixteen", 1<<shift)
	}
	s := NewSteps(plain.bounds, plain.levels)
	s.Logarithmic(plain.bounds, plain.levels, zero, 4)
	s.Set(plain.bounds[:1], plain.levels[:2])
	require.Nil(t, s.octaves, "another staircase")
}
