package quantops

import (
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/random"
)

// coded is what Codebook.Fit makes of weights.
type coded struct {
	codes, centroids []float32
	left             float64
}

func fitCodebook(t *testing.T, b *Codebook, w []float32, gram []float64, seed uint64) coded {
	t.Helper()
	f := coded{codes: make([]float32, len(w)/b.Length), centroids: make([]float32, b.Centroids*b.Length)}
	var err error
	f.left, err = b.Fit(f.codes, f.centroids, w, gram, random.New(seed, "codebook"))
	require.NoError(t, err)
	require.NoError(t, b.Check(f.codes))
	return f
}

// objective is the definition of what Fit minimizes.
func (f coded) objective(b *Codebook, w []float32, gram []float64) float64 {
	decoded, sum := make([]float32, len(w)), 0.0
	b.Expand(decoded, f.codes, f.centroids)
	for at := 0; at < len(w); at += b.Length {
		for i := range b.Length {
			for j := range b.Length {
				g := 1.0
				if gram != nil {
					g = gram[i*b.Length+j]
				} else if i != j {
					continue
				}
				sum += g * (float64(w[at+i]) - float64(decoded[at+i])) * (float64(w[at+j]) - float64(decoded[at+j]))
			}
		}
	}
	return sum
}

// Vectors are cut as the reference cuts them; it has those of one place in all channels beside each other.
func TestCodebookLayout(t *testing.T) {
	golden.Run(t, "pq", "layout", func(t *testing.T, c golden.Case) {
		w, v, shape := c.Float32("W"), c.Float32("V"), c.Shape("W")
		b, err := MustParse("pq").Codebook(shape)
		require.NoError(t, err)
		require.Equal(t, c.Int("d"), b.Length)
		vectors, blocks := len(w)/b.Length, c.Int("n_blocks")
		codes, centroids := make([]float32, vectors), make([]float32, len(w))
		for j := range codes {
			output, block := j/blocks, j%blocks
			codes[j] = float32(block*shape[0] + output)
		}
		for i := range b.Length {
			for j := range vectors {
				centroids[j*b.Length+i] = v[i*vectors+j]
			}
		}
		expanded := make([]float32, len(w))
		b.Expand(expanded, codes, centroids)
		requireBits(t, w, expanded)
	})
}

func TestCodebookClamp(t *testing.T) {
	golden.Run(t, "pq", "clamp", func(t *testing.T, c golden.Case) {
		for row := range slices.Chunk(c.Integers("table"), 6) {
			outputs, inputs, kernel, length := int(row[0]), int(row[1]), int(row[2]), int(row[3])
			b, err := newCodebook([]int{outputs, inputs, kernel, kernel}, length, int(row[4]))
			require.NoError(t, err)
			require.EqualValues(t, row[5], b.Centroids, row)
			require.Equal(t, 1<<b.Bits(), b.Centroids)
		}
	})
	for vectors, want := range map[int]int{1: 2, 8: 2, 9: 2, 16: 2, 17: 4, 32: 4, 33: 8, 1024: 128, 1025: 256} {
		b, err := newCodebook([]int{vectors, 3}, 3, maxCentroids)
		require.NoError(t, err)
		require.Equal(t, want, b.Centroids, vectors)
	}
}

// The steps of Lloyd in the metric of a Gram matrix, from given centroids, are the reference's.
func TestCodebookSteps(t *testing.T) {
	golden.Run(t, "pq", "trace", func(t *testing.T, c golden.Case) {
		d, n, k := c.Int("d"), c.Int("n_vectors"), c.Int("k")
		columns, w := c.Float32("V"), make([]float32, d*n)
		for i := range d {
			for j := range n {
				w[j*d+i] = columns[i*n+j]
			}
		}
		s, err := newClustering(&Codebook{Length: d, Centroids: k}, w, c.Float64("gram"))
		require.NoError(t, err)
		start := &clustering{vectors: k, length: d, weights: c.Float64("C0"), points: make([]float64, k*d)}
		factor, err := cholesky(c.Float64("gram"), d)
		require.NoError(t, err)
		start.transform(factor)
		copy(s.centers, start.points)
		objective := c.Float64("objective")
		for step := range objective {
			s.assign()
			s.update()
			require.InEpsilon(t, objective[step], s.objective(), 1e-9)
			name := "_it" + string(rune('0'+(step+1)/10)) + string(rune('0'+(step+1)%10))
			if !c.Has("assign" + name) {
				continue
			}
			for j, want := range c.Integers("assign" + name) {
				require.EqualValues(t, want, s.codes[j], "vector %d in step %d", j, step+1)
			}
			require.InEpsilonSlice(t, c.Float64("centroids"+name), s.means(), 1e-9)
		}
	})
}

// What a search leaves is, in the middle over seeds, less than the best that the reference has found from any of its own.
func TestCodebookObjective(t *testing.T) {
	golden.Run(t, "pq", "em", func(t *testing.T, c golden.Case) {
		b := &Codebook{Length: c.Int("d"), Centroids: c.Int("k")}
		w, gram := c.Float32("W"), c.Float64("gram")
		official := c.Float64("per_seed_official")
		var left []float64
		for seed := range uint64(9) {
			f := fitCodebook(t, b, w, gram, seed)
			left = append(left, f.left)
			require.InEpsilon(t, f.left, f.objective(b, w, gram), 1e-5)
			plain := fitCodebook(t, b, w, nil, seed)
			require.InEpsilon(t, plain.left, plain.objective(b, w, nil), 1e-5)
			require.Less(t, 1.1*f.left, plain.objective(b, w, gram))
		}
		slices.Sort(left)
		require.Less(t, left[4], slices.Min(official))
		require.Less(t, left[8], 1.08*slices.Max(official))
	})
}

// The gradient of a centroid, and steps of SGD with it.
func TestCodebookGradient(t *testing.T) {
	golden.Run(t, "pq", "centroid_sgd", func(t *testing.T, c golden.Case) {
		b := &Codebook{Length: c.Int("d"), Centroids: c.Int("k")}
		size, blocks, outputs := len(c.Float32("W0")), c.Int("n_blocks"), c.Shape("W0")[0]
		codes := make([]float32, size/b.Length)
		for j, code := range c.Integers("assign") { // those of one place in all channels are beside each other
			codes[j%outputs*blocks+j/outputs] = float32(code)
		}
		centroids, gradient := c.Float64("centroids_it00"), make([]float32, b.Centroids*b.Length)
		momentum, scratch := make([]float64, len(gradient)), make([]float64, b.Centroids*(b.Length+1))
		for step := range c.Int("steps") {
			b.Gradient(gradient, scratch, c.Float32("grads")[step*size:][:size], codes)
			for i, g := range gradient {
				momentum[i] = c.Number("momentum")*momentum[i] + float64(g) + c.Number("weight_decay")*centroids[i]
				centroids[i] -= c.Number("lr") * momentum[i]
			}
			require.InDeltaSlice(t, c.Float64("centroids_it0"+string(rune('1'+step))), centroids, 1e-5)
		}
	})
}

// On tiny problems the best of all partitions is known: a search is never below it, and close to it.
func TestCodebookAgainstEveryPartition(t *testing.T) {
	const vectors, length, centroids = 9, 2, 2
	b := &Codebook{Length: length, Centroids: centroids}
	gram := []float64{2, 0.7, 0.7, 0.5}
	hits := 0
	for seed := range uint64(40) {
		w := noise(vectors*length, seed)
		s, err := newClustering(b, w, gram)
		require.NoError(t, err)
		least := math.Inf(1)
		for partition := range 1 << vectors {
			for j := range s.codes {
				s.codes[j] = partition >> j & 1
			}
			s.update()
			least = min(least, s.objective())
		}
		f := fitCodebook(t, b, w, gram, seed)
		require.GreaterOrEqual(t, f.left, least*(1-1e-9))
		require.LessOrEqual(t, f.left, 1.5*least, "seed %d", seed)
		if f.left <= least*(1+1e-9) {
			hits++
		}
	}
	require.GreaterOrEqual(t, hits, 30)
}

// Weights of few different vectors, or of one, leave centroids without vectors and nothing of the error.
func TestCodebookOfFewVectors(t *testing.T) {
	for name, w := range map[string][]float32{
		"zero":         make([]float32, 60),
		"constant":     slices.Repeat([]float32{0.3}, 60),
		"two":          slices.Repeat([]float32{1, 2, 3, -1, -2, -3}, 10),
		"one vector":   {1, -1, 2},
		"zero channel": append(make([]float32, 30), slices.Repeat([]float32{1, 0, 0, 0, 1, 0}, 5)...),
	} {
		b := &Codebook{Length: 3, Centroids: 8}
		for _, gram := range [][]float64{nil, {1, 0, 0, 0, 1, 0, 0, 0, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1}} {
			f := fitCodebook(t, b, w, gram, 1)
			require.Less(t, f.left, 1e-12, name)
			if gram == nil {
				expanded := make([]float32, len(w))
				b.Expand(expanded, f.codes, f.centroids)
				require.InDeltaSlice(t, w, expanded, 1e-6, name)
			}
		}
	}
}

// Centroids that nothing is closest to take over what is farthest from its own.
func TestCodebookRepair(t *testing.T) {
	s, err := newClustering(&Codebook{Length: 1, Centroids: 3}, []float32{0, 0.1, 5, 9, 9.1}, nil)
	require.NoError(t, err)
	copy(s.centers, []float64{0, 100, 200})
	require.True(t, s.assign())
	require.Equal(t, []int{0, 0, 0, 2, 1}, s.codes)
	require.Equal(t, []float64{0, float64(float32(9.1)), 9}, s.centers)
	s.run()
	require.Equal(t, []int{0, 0, 2, 1, 1}, s.codes, "the steps go on from there")
	s.exchange()
	require.NotContains(t, s.counts(), 0)
}

func TestCodebookErrors(t *testing.T) {
	b := &Codebook{Length: 2, Centroids: 2}
	fit := func(w []float32, gram []float64) error {
		_, err := b.Fit(make([]float32, len(w)/2), make([]float32, 4), w, gram, random.New(1, "x"))
		return err
	}
	w := noise(20, 1)
	require.EqualError(t, fit(w, make([]float64, 4)), "quantops: the inputs of the layer are all zero, or not finite: they tell nothing of its weights")
	require.Error(t, fit(w, []float64{math.NaN(), 0, 0, 1}))
	require.Error(t, fit(w, []float64{math.Inf(1), 0, 0, 1}))
	w[7] = nan
	require.EqualError(t, fit(w, nil), "quantops: weight 7 is NaN: want a finite number")
	w[7] = float32(math.Inf(-1))
	require.EqualError(t, fit(w, nil), "quantops: weight 7 is -Inf: want a finite number")
	for _, codes := range [][]float32{{0, 1, 2}, {-1}, {0.5}, {nan}, {1e30}} {
		require.ErrorContains(t, b.Check(codes), "want a whole number below 2")
	}
	require.EqualError(t, b.Check([]float32{0, 1, 2}), "quantops: code 2 of vector 2: want a whole number below 2")
}

func TestCodebookMethods(t *testing.T) {
	for _, c := range []struct {
		method string
		shape  []int
		want   Codebook
	}{
		{"pq", []int{64, 32, 3, 3}, Codebook{Length: 9, Centroids: 256}},
		{"pq:d=18,k=16,assign=weighted", []int{64, 32, 3, 3}, Codebook{Length: 18, Centroids: 16, Weighted: true}},
		{"pq", []int{64, 32, 1, 1}, Codebook{Length: 4, Centroids: 64}},
		{"pq:pointwise=8", []int{64, 32}, Codebook{Length: 8, Centroids: 32}},
		{"pq", []int{32, 1, 3, 3}, Codebook{Length: 9, Centroids: 4}},
		{"vq", []int{64, 32, 3, 3}, Codebook{Length: 288, Centroids: 8}},
		{"vq:k=2", []int{64, 32}, Codebook{Length: 32, Centroids: 2}},
		{"kmeans:4", []int{64, 32, 3, 3}, Codebook{Length: 1, Centroids: 16}},
		{"kmeans:8", []int{3, 5}, Codebook{Length: 1, Centroids: 2}},
	} {
		b, err := MustParse(c.method).Codebook(c.shape)
		require.NoError(t, err, c.method)
		require.Equal(t, c.want, *b, "%s of %v", c.method, c.shape)
		_, err = MustParse(c.method).Quantizer(Target{Role: Weights, Channels: 1, Size: 9})
		require.ErrorContains(t, err, "it has a codebook instead of a quantizer")
		_, err = MustParse(c.method).Quantizer(Target{Role: Activations, Channels: 1, Size: 9})
		require.ErrorContains(t, err, "is not for activations")
	}
	for _, c := range []struct {
		method, want string
		shape        []int
	}{
		{"pq", "vectors of 9 weights do not divide the 150 weights of an output channel; those of 6 or 10 would", []int{16, 6, 5, 5}},
		{"pq:d=400", "vectors of 400 weights do not divide the 150 weights of an output channel; those of 150 would", []int{16, 6, 5, 5}},
		{"pq:d=2", "vectors of 2 weights do not divide the 25 weights of an output channel; those of 1 or 5 would", []int{16, 1, 5, 5}},
		{"pq", "vectors of 4 weights do not divide the 90 weights of an output channel; those of 3 or 5 would", []int{16, 90}},
	} {
		_, err := MustParse(c.method).Codebook(c.shape)
		require.EqualError(t, err, `quantops: method "`+c.method+`": `+c.want)
	}
	for _, m := range []string{"none", "lsq:4"} {
		b, err := MustParse(m).Codebook([]int{4, 4})
		require.NoError(t, err)
		require.Nil(t, b)
		require.False(t, MustParse(m).HasCodebook())
	}
}

// Integers stand for the levels of centroids, by vector.
func TestCodebookEncode(t *testing.T) {
	b := &Codebook{Length: 3, Centroids: 2}
	w, err := b.Encode([]float32{1, 0, 1, 1}, []float32{1, -127, 3, 0, 5, 127}, 0.5, []int{2, 6})
	require.NoError(t, err)
	require.Equal(t, []float32{0, 2.5, 63.5, 0.5, -63.5, 1.5, 0, 2.5, 63.5, 0, 2.5, 63.5}, w.Decode())
	require.Equal(t, []uint16{1, 0, 1, 1}, w.Codes)
	require.EqualValues(t, 1, w.Bits)
}

// The same seed gives the same codebook on any number of threads, another seed another start.
func TestCodebookThreads(t *testing.T) {
	b := &Codebook{Length: 9, Centroids: 32}
	w := noise(9*700, 3)
	before := runtime.GOMAXPROCS(1)
	want := fitCodebook(t, b, w, nil, 1)
	runtime.GOMAXPROCS(max(4, before))
	got := fitCodebook(t, b, w, nil, 1)
	runtime.GOMAXPROCS(before)
	require.Equal(t, want, got)
	require.NotEqual(t, want.codes, fitCodebook(t, b, w, nil, 2).codes)
}

func BenchmarkCodebookFit(b *testing.B) {
	c, err := MustParse("pq").Codebook([]int{64, 64, 3, 3})
	require.NoError(b, err)
	w := noise(64*64*9, 1)
	codes, centroids := make([]float32, len(w)/c.Length), make([]float32, c.Centroids*c.Length)
	b.ReportAllocs()
	for b.Loop() {
		_, err := c.Fit(codes, centroids, w, nil, random.New(1, "bench"))
		require.NoError(b, err)
	}
}
