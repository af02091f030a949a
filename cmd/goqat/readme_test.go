package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/goqat/goqat/quantops"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the README's generated tables")

const readme = "../../README.md"

// TestReadmeMethods holds the README's table of methods to the registry.
func TestReadmeMethods(t *testing.T) {
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), "<!-- methods -->\n")
	require.True(t, found)
	_, after, found := strings.Cut(rest, "<!-- end methods -->")
	require.True(t, found)
	want := before + "<!-- methods -->\n" + methodTable() + "<!-- end methods -->" + after
	if *update {
		require.NoError(t, os.WriteFile(readme, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(text), "go test ./cmd/goqat -run TestReadmeMethods -update rewrites it")
}

func methodTable() string {
	var table strings.Builder
	table.WriteString("| method | weights | activations | what it is | paper |\n|---|---|---|---|---|\n")
	for _, s := range quantops.All() {
		entry := newMethodEntry(s)
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", s.Name, entry.weightsText(), bitsText(span(s.Activations)), s.Doc, s.Paper)
	}
	return table.String()
}
