package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// stairs is a staircase with what it was made from.
type stairs struct{ bounds, levels []float32 }

// level is the definition.
func (s *stairs) level(x float32) float32 {
	if x != x {
		return x
	}
	below := 0
	for _, b := range s.bounds {
		if b < x {
			below++
		}
	}
	return s.levels[below]
}

// randomStairs makes a staircase of n levels, integers of one byte in any order, with bounds like x and some of them equal.
func randomStairs(stream *rand.Rand, n int, x func(*rand.Rand, int) []float32) stairs {
	s := stairs{make([]float32, 0, n), make([]float32, n)}
	for _, b := range x(stream, n-1) {
		if b == b {
			s.bounds = append(s.bounds, b)
		}
	}
	for len(s.bounds) < n-1 {
		s.bounds = append(s.bounds, float32(stream.NormFloat64()))
	}
	slices.Sort(s.bounds)
	for i := range s.levels {
		s.levels[i] = float32(stream.IntN(384) - 128)
	}
	return s
}

// whole is integers of up to 2^24 in magnitude, most of them small.
func whole(stream *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(stream.IntN(2<<stream.IntN(25)+1) - 1<<stream.IntN(25))
		x[i] = max(min(x[i], 1<<24), -1<<24)
	}
	return x
}

// around is the bounds and their neighbours.
func (s *stairs) around() []float32 {
	var x []float32
	for _, b := range s.bounds {
		x = append(x, math.Nextafter32(b, -math.MaxFloat32), b, math.Nextafter32(b, math.MaxFloat32))
	}
	return x
}

var stairSizes = []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 255, 256, 257, 511, 512, 513, 1025}

func TestStepsEqualTheirDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(21, 22))
		for _, n := range stairSizes {
			for _, fill := range []func(*rand.Rand, int) []float32{random, awkward, whole} {
				plain := randomStairs(stream, n, fill)
				s := NewSteps(plain.bounds, plain.levels)
				x := append(plain.around(), awkward(stream, 300)...)
				y, intact := guarded(t, len(x))
				s.Levels(y, x)
				intact()
				want, single := make([]float32, len(x)), make([]float32, len(x))
				for i, v := range x {
					want[i], single[i] = plain.level(v), s.Level(v)
				}
				requireSame(t, want, y, fmt.Sprintf("%d levels", n))
				requireSame(t, want, single, fmt.Sprintf("%d levels one by one", n))
				s.Levels(x, x)
				requireSame(t, y, x, fmt.Sprintf("%d levels in place", n))
			}
		}
	})
}

func TestStepsBytesEqualTheirDefinition(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		stream := rand.New(rand.NewPCG(23, 24))
		for _, n := range stairSizes {
			plain := randomStairs(stream, n, whole)
			s := NewSteps(plain.bounds, plain.levels)
			var x []int32
			for _, v := range append(plain.around(), whole(stream, 300)...) {
				x = append(x, int32(v)-1, int32(v), int32(v)+1)
			}
			x = append(x, math.MinInt32, math.MaxInt32)
			y, intact := guardedBytes(t, len(x))
			s.Bytes(y, x)
			intact()
			want := make([]uint8, len(x))
			for i, v := range x {
				want[i] = uint8(int32(plain.level(float32(v))))
			}
			require.Equal(t, want, y, "%d levels", n)
		}
	})
}

// guardedBytes is n bytes at an odd place between guards, which the returned check wants untouched.
func guardedBytes(t *testing.T, n int) (v []uint8, check func()) {
	t.Helper()
	all := slices.Repeat([]uint8{0xA5}, 2*margin+n)
	return all[margin-1:][:n:n], func() {
		t.Helper()
		require.Equal(t, slices.Repeat([]uint8{0xA5}, margin-1), all[:margin-1], "before %d", n)
		require.Equal(t, slices.Repeat([]uint8{0xA5}, margin+1), all[margin-1+n:], "after %d", n)
	}
}

// lengths are those around whole vectors and chunks.
func lengths() []int {
	all := []int{0, Chunk - 1, Chunk, Chunk + 17, 3*Chunk - 1}
	for n := 1; n <= 50; n++ {
		all = append(all, n)
	}
	return all
}

func TestStepsOfEveryLength(t *testing.T) {
	stream := rand.New(rand.NewPCG(25, 26))
	for _, n := range []int{16, 32, 256, 512, 600} {
		plain := randomStairs(stream, n, random)
		s := NewSteps(plain.bounds, plain.levels)
		onEveryPath(t, func(t *testing.T) {
			for _, length := range lengths() {
				x, numbers := awkward(stream, length), make([]int32, length)
				want, bytes := make([]float32, length), make([]uint8, length)
				for i, v := range x {
					numbers[i] = stream.Int32N(9) - 4
					want[i], bytes[i] = plain.level(v), uint8(int32(plain.level(float32(numbers[i]))))
				}
				y, intact := guarded(t, length)
				narrow, narrowIntact := guardedBytes(t, length)
				s.Levels(y, x)
				s.Bytes(narrow, numbers)
				intact()
				narrowIntact()
				requireSame(t, want, y, fmt.Sprintf("%d levels of %d", n, length))
				require.Equal(t, bytes, narrow, "%d levels of %d", n, length)
			}
		})
	}
}

// A staircase that was another before is as good as new.
func TestStepsSet(t *testing.T) {
	stream := rand.New(rand.NewPCG(27, 28))
	s := NewSteps(nil, []float32{3})
	x := append(random(stream, 100), float32(math.NaN()))
	for _, n := range []int{300, 5, 17, 256, 1, 512, 40} {
		plain := randomStairs(stream, n, random)
		s.Set(plain.bounds, plain.levels)
		for _, v := range x {
			requireSame(t, []float32{plain.level(v)}, []float32{s.Level(v)}, fmt.Sprintf("%d levels: Level of %x", n, v))
		}
	}
	require.PanicsWithValue(t, "kernel: a staircase has one bound less than levels", func() { s.Set([]float32{1}, []float32{1}) })
	require.PanicsWithValue(t, "kernel: a staircase has one bound less than levels", func() { s.Set(nil, nil) })
}

func TestStepsRefuseShortSlices(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		s := NewSteps([]float32{0}, []float32{0, 1})
		require.Panics(t, func() { s.Levels(make([]float32, 31)[:31:31], make([]float32, 32)) })
		require.Panics(t, func() { s.Bytes(make([]uint8, 31)[:31:31], make([]int32, 32)) })
		require.Panics(t, func() { new(Steps).Levels(make([]float32, 32), make([]float32, 32)) })
	})
}

func TestStepsAllocateNothing(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		plain := randomStairs(rand.New(rand.NewPCG(29, 30)), 256, random)
		s := NewSteps(plain.bounds, plain.levels)
		x, y, numbers, bytes := make([]float32, Chunk), make([]float32, Chunk), make([]int32, Chunk), make([]uint8, Chunk)
		require.Zero(t, testing.AllocsPerRun(10, func() {
			s.Levels(y, x)
			s.Bytes(bytes, numbers)
			s.Set(plain.bounds[:20], plain.levels[:21])
			s.Set(plain.bounds, plain.levels)
		}))
	})
}

func BenchmarkSteps(b *testing.B) {
	defer func(before path) { live = before }(live)
	stream := rand.New(rand.NewPCG(31, 32))
	for _, n := range []int{16, 32, 256} {
		plain := randomStairs(stream, n, random)
		s := NewSteps(plain.bounds, plain.levels)
		for live = portable; live <= supported(); live++ {
			for _, size := range []int{1 << 14, benchElements} {
				x, y := aligned(stream, size), make([]float32, size)
				numbers, bytes := make([]int32, size), make([]uint8, size)
				b.Run(fmt.Sprintf("Levels %d/%s/%d", n, Path(), size), func(b *testing.B) {
					for b.Loop() {
						s.Levels(y, x)
					}
					reportElements(b, size, 8)
				})
				b.Run(fmt.Sprintf("Bytes %d/%s/%d", n, Path(), size), func(b *testing.B) {
					for b.Loop() {
						s.Bytes(bytes, numbers)
					}
					reportElements(b, size, 5)
				})
			}
		}
		if n == 256 {
			plain, zero := logarithmic(128, 4, 3)
			s := NewSteps(plain.bounds, plain.levels)
			s.Logarithmic(plain.bounds, plain.levels, zero, 4)
			live = supported()
			x := aligned(stream, 1<<14)
			b.Run("Levels 256 logarithmic/"+Path(), func(b *testing.B) {
				for b.Loop() {
					s.Levels(x, x)
				}
				reportElements(b, len(x), 8)
			})
		}
		b.Run(fmt.Sprintf("Set %d", n), func(b *testing.B) {
			for b.Loop() {
				s.Set(plain.bounds, plain.levels)
			}
		})
	}
}

// reportElements adds the time of an element and GB/s of the bytes that it reads and writes.
func reportElements(b *testing.B, elements, bytes int) {
	perElement := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(elements)
	b.ReportMetric(perElement, "ns/element")
	b.ReportMetric(float64(bytes)/perElement, "GB/s")
}
