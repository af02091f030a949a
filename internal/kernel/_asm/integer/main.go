// Command integer writes the assembly of package kernel's integer kernels. Run it with go generate in the package's folder.
package main

import (
	"errors"
	"log"
	"os"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func main() {
	// The package's types are read from its portable build, which compiles without the files written here.
	if err := errors.Join(os.Chdir(".."), os.Setenv("GOFLAGS", "-tags=purego")); err != nil {
		log.Fatal(err)
	}
	Package("github.com/goqat/goqat/internal/kernel")
	ConstraintExpr("!purego")
	for _, d := range []dots{vnni512, vnni256, avx2} {
		d.kernel()
	}
	requantize512()
	requantize256()
	requantizeBlocks512()
	requantizeBlocks256()
	largest()
	Generate()
}

// The registers by number.
var (
	zmm = []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}
	ymm = []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
)

// field is a struct field behind the pointer in base.
func field(structure string, base Register, name string) Mem {
	return address(Param(structure).Dereference(base).Field(name))
}

func address(c gotypes.Component) Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}
