package quantops

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
	"github.com/goqat/goqat/internal/random"
)

func TestX(t *testing.T) {
	golden.Run(t, "pq", "em", func(t *testing.T, c golden.Case) {
		w, gram := c.Float32("W"), c.Float64("gram")
		for _, g := range [][]float64{nil, gram} {
			var all []float64
			for seed := range uint64(9) {
				b := &Codebook{Length: c.Int("d"), Centroids: c.Int("k")}
				codes, centroids := make([]float32, len(w)/b.Length), make([]float32, b.Centroids*b.Length)
				e, err := b.Fit(codes, centroids, w, g, random.New(seed, "x"))
				require.NoError(t, err)
				all = append(all, e)
			}
			slices.Sort(all)
			fmt.Println(c.Name, all[0], all[4], all[8])
		}
	})
}
