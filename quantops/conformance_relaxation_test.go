package quantops

import (
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/kernel"
)

// searcher is a relaxation under test, started from data.
type searcher struct {
	Relaxation
	method         Method
	channels, n    int // n weights in all
	levels         []float32
	logits, scales []float32
}

// onRelaxations runs check for every registered method that searches, its bits and options, and tensor.
func onRelaxations(t *testing.T, check func(t *testing.T, s *searcher)) {
	found := false
	for _, spec := range All() {
		if spec.Relax == nil {
			continue
		}
		found = true
		for bits := spec.Weights.Min; bits <= spec.Weights.Max; bits++ {
			for _, text := range spec.variants(strconv.Itoa(bits)) {
				for name, x := range conformanceTensors {
					s := newSearcher(t, MustParse(text), x)
					if !t.Run(text+" "+name, func(t *testing.T) { check(t, s) }) {
						return
					}
				}
			}
		}
	}
	require.True(t, found)
}

func newSearcher(t *testing.T, m Method, x []float32) *searcher {
	t.Helper()
	s := &searcher{method: m, channels: min(len(x), conformanceChannels), n: len(x)}
	var err error
	s.Relaxation, err = m.Relaxation(Target{Role: Weights, Channels: s.channels, Size: len(x), Signed: true})
	require.NoError(t, err)
	s.levels = s.Search().Levels
	s.logits, s.scales = slices.Repeat([]float32{nan}, len(s.levels)*len(x)), slices.Repeat([]float32{nan}, s.channels)
	s.Start(s.logits, s.scales, x)
	return s
}

func (s *searcher) soft(temperature float32) []float32 {
	levels := slices.Repeat([]float32{nan}, s.n)
	s.Soft(levels, s.logits, temperature)
	return levels
}

func (s *searcher) hard() []float32 {
	levels := slices.Repeat([]float32{nan}, s.n)
	s.Hard(levels, s.logits)
	return levels
}

func TestRelaxationSearch(t *testing.T) {
	onRelaxations(t, func(t *testing.T, s *searcher) {
		search := s.Search()
		require.GreaterOrEqual(t, len(search.Levels), 2)
		require.LessOrEqual(t, len(search.Levels), 1<<s.method.Bits())
		require.True(t, slices.IsSorted(search.Levels))
		for _, level := range search.Levels {
			require.Equal(t, float32(math.Round(float64(level))), level)
		}
		require.Positive(t, search.Unit)
		require.Positive(t, search.Rate)
		require.True(t, kernel.Finite(s.logits))
		require.True(t, kernel.Finite(s.scales))
		for _, scale := range s.scales {
			require.Positive(t, scale)
		}
		require.Equal(t, s.method, MustParse(s.method.String()))
	})
}

// Soft levels lie between the levels, hard ones on them, and in the end both are one.
func TestRelaxationLevels(t *testing.T) {
	onRelaxations(t, func(t *testing.T, s *searcher) {
		hard := s.hard()
		for i, level := range hard {
			require.Contains(t, s.levels, level, "weight %d", i)
		}
		last := len(s.levels) - 1
		for _, temperature := range []float32{1e7, 1, 0.1, 1e-3} {
			for i, level := range s.soft(temperature) {
				require.True(t, level >= s.levels[0]*(1+1e-6) && level <= s.levels[last]*(1+1e-6), "weight %d at %v is %v", i, temperature, level)
			}
		}
		for i := range s.n { // of a clear choice
			for k := range s.levels {
				s.logits[k*s.n+i] = float32((k + i) % len(s.levels))
			}
		}
		requireBits(t, s.hard(), s.soft(1e-7))
	})
}

// What is deployed is what evaluation computes with, bit for bit.
func TestRelaxationExport(t *testing.T) {
	onRelaxations(t, func(t *testing.T, s *searcher) {
		for _, scales := range [][]float32{{1}, s.scales} {
			w, err := s.Encode(s.logits, scales, []int{s.channels, s.n / s.channels})
			require.NoError(t, err)
			require.EqualValues(t, s.method.Bits(), w.Bits)
			want := each(s.hard(), func(i int, level float32) float32 {
				return level * float32(scales[i*s.channels/s.n%len(scales)]*s.Search().Unit)
			})
			requireBits(t, want, w.Decode())
		}
	})
}

func TestRelaxationBackward(t *testing.T) {
	onRelaxations(t, func(t *testing.T, s *searcher) {
		dy := noise(s.n, 31)
		for _, temperature := range []float32{1, 1e-7} {
			dlogits := slices.Repeat([]float32{nan}, len(s.logits))
			s.Backward(dlogits, dy, s.logits, temperature)
			require.True(t, kernel.Finite(dlogits))
			for i := range s.n { // a shift of all logits of a weight changes nothing
				sum := 0.0
				for k := range s.levels {
					sum += float64(dlogits[k*s.n+i])
				}
				reach := math.Abs(float64(dy[i])) * float64(max(-s.levels[0], s.levels[len(s.levels)-1]))
				require.LessOrEqual(t, math.Abs(sum), 1e-6*reach/float64(temperature))
			}
			none := slices.Clone(dlogits)
			s.Backward(none, make([]float32, s.n), s.logits, temperature)
			for _, g := range none {
				require.Zero(t, g)
			}
		}
	})
}

// A NaN is never turned into a number.
func TestRelaxationNaN(t *testing.T) {
	onRelaxations(t, func(t *testing.T, s *searcher) {
		at := s.n / 2
		s.logits[(len(s.levels)-1)*s.n+at] = nan
		for _, levels := range [][]float32{s.soft(1), s.soft(1e-7), s.hard()} {
			for i, v := range levels {
				require.Equal(t, i == at, v != v, "weight %d", i)
			}
		}
		_, err := s.Encode(s.logits, s.scales, []int{s.channels, s.n / s.channels})
		require.EqualError(t, err, "quantops: weight "+strconv.Itoa(at)+" is not a number")
	})
	x := slices.Clone(conformanceTensors["normal"])
	x[7] = nan
	require.False(t, kernel.Finite(newSearcher(t, MustParse("lbw:2"), x).logits))
}
