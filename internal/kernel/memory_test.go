package kernel

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAllocateGivesZeros(t *testing.T) {
	for _, n := range []int{0, 1, 1 << 17, 1<<18 - 1, 1 << 18, 3<<20 + 5} {
		v := Allocate(n)
		require.Len(t, v, n)
		for i := range v {
			require.Zero(t, v[i])
			v[i] = 1
		}
	}
}
