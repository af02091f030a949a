// Package policy tests rules that hold for the module as a whole.
package policy

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/goqat/goqat"

// mayImport says which of the module's packages each part of the house may import, besides itself and internal
// packages; what is below a folder counts as the folder. See README, "Reading the source".
var mayImport = map[string][]string{
	"internal/kernel": {},
	"internal":        {},
	"integer":         {},
	"datasets":        {},
	"quantops":        {"integer"},
	"layers":          {"integer", "quantops"},
	"models":          {"layers"},
	"train":           {"datasets", "integer", "layers", "quantops"},
	"cmd":             {"datasets", "integer", "layers", "models", "quantops", "train"},
}

// graphless parts must not reach Gorgonia: whoever deploys integers or reads data imports them alone.
var graphless = []string{"integer", "datasets", "internal"}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// packages lists the module's packages.
func packages(t *testing.T) []goPackage {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"/...")
	out, err := command.Output()
	require.NoError(t, err)
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, all)
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

// room returns the part of the house that a package of the module belongs to.
func room(importPath string) string {
	rest := strings.TrimPrefix(importPath, module+"/")
	for ; rest != "."; rest = path.Dir(rest) {
		if _, ok := mayImport[rest]; ok {
			return rest
		}
	}
	return importPath
}

func TestImports(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		from := room(p.ImportPath)
		allowed, known := mayImport[from]
		require.True(t, known, "%s is in no part of the house: add it to the policy or move it", p.ImportPath)
		for _, i := range p.Imports {
			if !strings.HasPrefix(i, module+"/") {
				continue
			}
			to := room(i)
			if from == "internal/kernel" {
				require.Equal(t, from, to, "%s imports %s", p.ImportPath, i)
			}
			if to != from && !strings.HasPrefix(to, "internal") {
				require.Contains(t, allowed, to, "%s imports %s", p.ImportPath, i)
			}
		}
	}
}

func TestNoGraph(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, part := range graphless {
			if !strings.HasPrefix(p.ImportPath, module+"/"+part) {
				continue
			}
			for _, d := range p.Deps {
				require.NotContains(t, d, "gorgonia", "%s depends on %s", p.ImportPath, d)
			}
		}
	}
}
