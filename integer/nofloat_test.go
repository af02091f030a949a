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
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// source is this package, type-checked, with the declarations of its functions.
type source struct {
	files     *token.FileSet
	info      *types.Info
	pkg       *types.Package
	functions map[*types.Func]*ast.FuncDecl
}

// TestRunKnowsNoFloat follows every call from the engine's entry points and looks at the type of every
// expression, field and conversion on the way.
func TestRunKnowsNoFloat(t *testing.T) {
	s := checkSource(t)
	for _, method := range []string{"Run", "Trace", "Cost", "Validate"} {
		require.Empty(t, s.floats("Program", method), method)
	}
	require.Empty(t, s.floats("Requantizer", "Apply"))
	// The search itself finds floats where there are some: in a body, and in a field behind a slice.
	require.NotEmpty(t, s.floats("Grid", "Value"))
	require.NotEmpty(t, s.floats("Weights", "Bound"))
}

// checkSource type-checks the package against the compiler's export data of its imports.
func checkSource(t *testing.T) *source {
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", ".").Output()
	require.NoError(t, err)
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "=")
		exports[path] = file
	}
	s := &source{files: token.NewFileSet(), functions: map[*types.Func]*ast.FuncDecl{}}
	s.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var files []*ast.File
	for _, name := range slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, "_test.go") }) {
		file, err := parser.ParseFile(s.files, name, nil, 0)
		require.NoError(t, err)
		files = append(files, file)
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	config := types.Config{Importer: importer.ForCompiler(s.files, "gc", lookup)}
	s.pkg, err = config.Check("github.com/goqat/goqat/integer", s.files, files, s.info)
	require.NoError(t, err)
	for _, file := range files {
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok {
				s.functions[s.info.Defs[f.Name].(*types.Func)] = f
			}
		}
	}
	return s
}

// floats lists the places of floating point types in everything that the method can reach in this package.
func (s *source) floats(typeName, method string) []string {
	named := s.pkg.Scope().Lookup(typeName).Type()
	object, _, _ := types.LookupFieldOrMethod(named, true, s.pkg, method)
	queue := []*types.Func{object.(*types.Func)}
	seen := map[*types.Func]bool{queue[0]: true}
	var found []string
	for len(queue) > 0 {
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
	return found
}

// hasFloat looks through composite types and this package's own named types.
func (s *source) hasFloat(kind types.Type, seen map[types.Type]bool) bool {
	if kind == nil || seen[kind] {
		return false
	}
	seen[kind] = true
	switch k := kind.(type) {
	case *types.Basic:
		return k.Info()&(types.IsFloat|types.IsComplex) != 0
	case *types.Named:
		return k.Obj().Pkg() == s.pkg && s.hasFloat(k.Underlying(), seen)
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
