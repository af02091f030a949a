package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every path adds in the documented order, for every number of terms and every one that y may be.
func TestAddPaths(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 15, 16, 17, 31, 33, 100, chunk - 1, chunk + 16, 2*chunk + 37} {
		for terms := 1; terms <= 4; terms++ {
			x := make([][]float32, terms)
			for i := range x {
				x[i] = []func(*rand.Rand, int) []float32{random, awkward}[i%2](stream, n)
			}
			want := make([]float32, n)
			for i := range want {
				want[i] = x[0][i]
				for _, term := range x[1:] {
					want[i] += term[i]
				}
			}
			onEveryPath(t, func(t *testing.T) {
				for alias := -1; alias < terms; alias++ {
					y, intact := guarded(t, n)
					operands := append([][]float32(nil), x...)
					if alias >= 0 {
						copy(y, x[alias])
						operands[alias] = y
					}
					Add(y, operands...)
					intact()
					requireSame(t, want, y, fmt.Sprintf("%d elements, %d terms, y is %d", n, terms, alias))
				}
			})
		}
	}
}

func TestAddRefusesShortTerms(t *testing.T) {
	y, x := make([]float32, 64), make([]float32, 64)
	require.PanicsWithValue(t, "kernel: Add: a term has 63 elements, want 64", func() { Add(y, x, x[:63]) })
}
