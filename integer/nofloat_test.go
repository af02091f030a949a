package integer_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// source is this package and the kernels it runs on, type-checked, with the declarations of their functions.
type source struct {
	files     *token.FileSet
	info      *types.Info
	pkg       *types.Package // this package
	kernel    *types.Package
	exports   types.Importer // of what they import
	functions map[*types.Func]*ast.FuncDecl
}

// Import lets this package find the kernels from source.
func (s *source) Import(path string) (*types.Package, error) {
	if s.kernel != nil && path == s.kernel.Path() {
		return s.kernel, nil
	}
	return s.exports.Import(path)
}

// TestRunKnowsNoFloat follows every call from the engine's entry points, into the kernels too, and looks at the type of
// every expression, field and conversion on the way.
func TestRunKnowsNoFloat(t *testing.T) {
	s := checkSource(t)
	for _, method := range []string{"Run", "Trace", "Cost", "Validate"} {
		found, _ := s.floats(s.pkg, "Program", method)
		require.Empty(t, found, method)
	}
	found, _ := s.floats(s.pkg, "Requantizer", "Apply")
	require.Empty(t, found)
	// The search itself finds floats where there are some: in a body, in a field behind a slice, and in a kernel.
	for _, c := range []struct {
		pkg          *types.Package
		name, method string
	}{{s.pkg, "Grid", "Value"}, {s.pkg, "Weights", "Bound"}, {s.kernel, "Conv", "Forward"}} {
		found, _ := s.floats(c.pkg, c.name, c.method)
		require.NotEmpty(t, found, c.name)
	}
	_, reached := s.floats(s.pkg, "Program", "Run")
	require.Subset(t, reached, []string{"transpose", "set", "PackBytes", "Dots", "Wide", "Bytes", "LargestBytes", "prove", "newStairs", "index"})
}

// checkSource type-checks the packages against the compiler's export data of their imports.
func checkSource(t *testing.T) *source {
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}={{.Dir}}={{range .GoFiles}}{{.}} {{end}}", ".").Output()
	require.NoError(t, err)
	packages := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), "=")
		packages[fields[0]] = fields[1:]
	}
	s := &source{files: token.NewFileSet(), functions: map[*types.Func]*ast.FuncDecl{}}
	s.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	s.exports = importer.ForCompiler(s.files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(packages[path][0]) })
	check := func(path string) *types.Package {
		return s.check(t, path, packages[path][1], strings.Fields(packages[path][2]))
	}
	s.kernel = check("github.com/goqat/goqat/internal/kernel")
	s.pkg = check("github.com/goqat/goqat/integer")
	return s
}

// check type-checks one package and notes its functions.
func (s *source) check(t *testing.T, path, folder string, names []string) *types.Package {
	var files []*ast.File
	for _, name := range names {
		file, err := parser.ParseFile(s.files, filepath.Join(folder, name), nil, 0)
		require.NoError(t, err)
		files = append(files, file)
	}
	pkg, err := (&types.Config{Importer: s}).Check(path, s.files, files, s.info)
	require.NoError(t, err)
	for _, file := range files {
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Name.Name != "init" {
				s.functions[s.info.Defs[f.Name].(*types.Func)] = f
			}
		}
	}
	return pkg
}

// floats lists the places of floating point types in everything that the method can reach in the two packages, and what
// functions those are.
func (s *source) floats(pkg *types.Package, typeName, method string) (found, reached []string) {
	named := pkg.Scope().Lookup(typeName).Type()
	object, _, _ := types.LookupFieldOrMethod(named, true, pkg, method)
	queue := []*types.Func{object.(*types.Func)}
	seen := map[*types.Func]bool{queue[0]: true}
	for len(queue) > 0 {
		reached = append(reached, queue[0].Name())
		declaration := s.functions[queue[0]]
		queue = queue[1:]
		ast.Inspect(declaration, func(n ast.Node) bool {
			expression, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			if kind := s.info.Types[expression].Type; s.hasFloat(kind, map[types.Type]bool{}) {
				found = append(found, fmt.Sprintf("%v: %v", s.files.Position(n.Pos()), kind))
			}
			if identifier, ok := n.(*ast.Ident); ok {
				if f, ok := s.info.Uses[identifier].(*types.Func); ok && s.functions[f.Origin()] != nil && !seen[f.Origin()] {
					seen[f.Origin()] = true
					queue = append(queue, f.Origin())
				}
			}
			return true
		})
	}
	return found, reached
}

// hasFloat looks through composite types and the two packages' own named types.
func (s *source) hasFloat(kind types.Type, seen map[types.Type]bool) bool {
	if kind == nil || seen[kind] {
		return false
	}
	seen[kind] = true
	switch k := kind.(type) {
	case *types.Basic:
		return k.Info()&(types.IsFloat|types.IsComplex) != 0
	case *types.Named:
		return (k.Obj().Pkg() == s.pkg || k.Obj().Pkg() == s.kernel) && s.hasFloat(k.Underlying(), seen)
	case *types.Struct:
		for field := range k.Fields() {
			if s.hasFloat(field.Type(), seen) {
				return true
			}
		}
	case *types.Tuple:
		for v := range k.Variables() {
			if s.hasFloat(v.Type(), seen) {
				return true
			}
		}
	case *types.Signature:
		return s.hasFloat(k.Params(), seen) || s.hasFloat(k.Results(), seen)
	case *types.Map:
		return s.hasFloat(k.Key(), seen) || s.hasFloat(k.Elem(), seen)
	case interface{ Elem() types.Type }: // pointer, slice, array, channel
		return s.hasFloat(k.Elem(), seen)
	}
	return false
}
