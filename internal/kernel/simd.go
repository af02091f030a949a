package kernel

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// path is a set of machine instructions that the kernels run on. A greater one needs more of the machine; results are
// the same on all.
type path int

const (
	portable path = iota // Go alone
	avx2                 // AVX2 and FMA
	avx512               // AVX-512 F, DQ and VL
)

var pathNames = []string{portable: "portable", avx2: "avx2", avx512: "avx512"}

// live is the path that the kernels take.
var live = choose(os.Getenv("GOQAT_SIMD"), supported())

// Path names the live path: "avx512", "avx2" or "portable", the best that the machine has. The environment variable
// GOQAT_SIMD holds it down to the named one, or to the best that the machine has below; any other name panics at start.
func Path() string { return pathNames[live] }

func choose(name string, best path) path {
	if name == "" {
		return best
	}
	i := slices.Index(pathNames, name)
	if i < 0 {
		panic(fmt.Sprintf("kernel: GOQAT_SIMD is %q, want one of %s", name, strings.Join(pathNames, ", ")))
	}
	return min(path(i), best)
}
