package kernel

import (
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// onEveryPath runs the same check on every path that the machine has. The path is one variable of the package, so such
// tests are not parallel.
func onEveryPath(t *testing.T, check func(t *testing.T)) {
	before := live
	defer func() { live = before }()
	for p := portable; p <= supported(); p++ {
		live = p
		t.Run(Path(), check)
	}
}

// onPath runs do on one path.
func onPath(p path, do func()) {
	before := live
	defer func() { live = before }()
	live = p
	do()
}

// withThreads runs do on n threads.
func withThreads(n int, do func()) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
	do()
}

func TestBestPathIsLive(t *testing.T) {
	want := choose(os.Getenv("GOQAT_SIMD"), supported())
	require.Equal(t, pathNames[want], Path())
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name       string
		best, want path
	}{
		{"", portable, portable},
		{"", avx512, avx512},
		{"portable", avx512, portable},
		{"avx2", avx512, avx2},
		{"avx512", avx512, avx512},
		{"avx512", avx2, avx2},
		{"avx2", portable, portable},
	} {
		require.Equal(t, c.want, choose(c.name, c.best), "%q on %s", c.name, pathNames[c.best])
	}
	require.PanicsWithValue(t, `kernel: GOQAT_SIMD is "sse", want one of portable, avx2, avx512`, func() { choose("sse", avx512) })
}

// margin is how many floats of guard lie on both sides of a slice under test.
const margin = 40

// guarded is n floats at an odd place between guards, which the returned check wants untouched.
func guarded(t *testing.T, n int) (v []float32, check func()) {
	t.Helper()
	guard := math.Float32frombits(0x7fc12345)
	all := make([]float32, 2*margin+n)
	for i := range all {
		all[i] = guard
	}
	v = all[margin-1:][:n:n]
	return v, func() {
		t.Helper()
		for i, g := range all {
			if i < margin-1 || i >= margin-1+n {
				require.Equal(t, math.Float32bits(guard), math.Float32bits(g), "guard at %d of %d", i-margin+1, n)
			}
		}
	}
}

// random is n floats around 1 in magnitude, misaligned.
func random(stream *rand.Rand, n int) []float32 {
	v := make([]float32, n+3)[3:]
	for i := range v {
		v[i] = float32(stream.NormFloat64())
	}
	return v
}

// even is n floats between -1/2 and 1/2 that depend on no mathematical function of the machine.
func even(stream *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = stream.Float32() - 0.5
	}
	return v
}

// awkward is random with zeros of both signs, subnormal and huge numbers, infinities and NaN among them.
func awkward(stream *rand.Rand, n int) []float32 {
	v := random(stream, n)
	special := []float32{0, float32(math.Copysign(0, -1)), 1e-45, -1e-45, 1e-30, -1e-30, 1e30, -1e30, math.MaxFloat32,
		float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}
	for i := range v {
		if stream.IntN(4) == 0 {
			v[i] = special[stream.IntN(len(special))]
		}
	}
	return v
}

// requireSame wants equal bits; one NaN is as good as another, since x86 and Go hand on different payloads.
func requireSame(t *testing.T, want, got []float32, note string) {
	t.Helper()
	require.Len(t, got, len(want), note)
	for i, w := range want {
		if g := got[i]; math.Float32bits(w) != math.Float32bits(g) && (w == w || g == g) {
			require.Failf(t, "different bits", "%s: element %d is %x, want %x", note, i, g, w)
		}
	}
}
