// Command asm writes the assembly of package kernel. Run it with go generate in the package's folder.
package main

import (
	"errors"
	"log"
	"os"

	. "github.com/mmcloughlin/avo/build"
)

func main() {
	// The package's types are read from its portable build, which compiles without the files written here.
	if err := errors.Join(os.Chdir(".."), os.Setenv("GOFLAGS", "-tags=purego")); err != nil {
		log.Fatal(err)
	}
	Package("github.com/goqat/goqat/internal/kernel")
	ConstraintExpr("!purego")
	tiles(avx512)
	tiles(avx2)
	outers(avx512)
	outers(avx2)
	gradients3x3(avx512, 3)
	gradients3x3(avx2, 1)
	depthwise(avx512)
	depthwise(avx2)
	halve()
	elementwise()
	staircases()
	octaves()
	clip()
	relaxation()
	batchNorm()
	affineReLUs()
	pools()
	winograd(avx512)
	winograd(avx2)
	probe(avx512)
	probe(avx2)
	Generate()
}
