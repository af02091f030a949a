package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuadraticKeepsProductsUpToDate(t *testing.T) {
	onEveryPath(t, func(t *testing.T) {
		for _, size := range []int{1, 9, 96, 97, 200, 288} {
			stream := rand.New(rand.NewPCG(2, uint64(size)))
			a := make([]float64, size*size)
			for r := range size {
				for c := range r + 1 {
					a[r*size+c] = float64(float32(stream.NormFloat64()))
					a[c*size+r] = a[r*size+c]
				}
			}
			q := NewQuadratic(a, size)
			for _, vectors := range []int{1, 4, 7} {
				for _, others := range []bool{false, true} {
					checkChange(t, stream, q, a, vectors, others)
				}
			}
		}
	})
}

func checkChange(t *testing.T, stream *rand.Rand, q *Quadratic, a []float64, vectors int, others bool) {
	t.Helper()
	group := stream.IntN(q.Groups())
	first, n := q.Group(group)
	changes, products, want := make([]float32, vectors*q.Side()), make([][]float64, vectors), make([][]float64, vectors)
	for v := range vectors {
		products[v], want[v] = make([]float64, q.size), make([]float64, q.size)
		for i := range n {
			if stream.IntN(3) > 0 { // the others make no difference
				changes[v*q.Side()+i] = float32(stream.IntN(15) - 7)
			}
		}
		for c := range q.size {
			products[v][c] = stream.NormFloat64()
			want[v][c] = products[v][c]
			if others && c >= first && c < first+n {
				continue
			}
			sum := 0.0
			for i := range n {
				if change := changes[v*q.Side()+i]; change != 0 {
					sum = fma(a[(first+i)*q.size+c], float64(change), sum)
				}
			}
			want[v][c] += sum
		}
	}
	q.Change(products, changes, group, others)
	require.Equal(t, want, products)
}

func BenchmarkQuadraticChange(b *testing.B) {
	for _, size := range []int{144, 576, 4608} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			stream := rand.New(rand.NewPCG(1, 1))
			a := make([]float64, size*size)
			for i := range a {
				a[i] = stream.NormFloat64()
			}
			q := NewQuadratic(a, size)
			const vectors = 64
			products, changes := make([][]float64, vectors), make([]float32, vectors*q.Side())
			for i := range products {
				products[i] = make([]float64, size)
			}
			for i := range changes {
				changes[i] = float32(stream.IntN(3) - 1)
			}
			b.ReportAllocs()
			group := 0
			for b.Loop() {
				q.Change(products, changes, group%q.Groups(), true)
				group++
			}
			flops := 2 * float64(min(size, q.Side())) * float64(size) * vectors
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
