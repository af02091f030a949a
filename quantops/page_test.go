package quantops

import (
	"go/doc/comment"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every method has a page, with a formula and a picture of its levels in it, that fits a terminal.
func TestEveryMethodHasAPage(t *testing.T) {
	t.Parallel()
	for _, s := range All() {
		page := s.Page()
		require.NotEmpty(t, page, "%s.go opens with the section `# %s` of the package comment", s.Name, s.Name)
		require.NotContains(t, page, "# "+s.Name)
		require.Contains(t, page, "\n    ", "%s: an indented formula", s.Name)
		require.Contains(t, page, regexp.MustCompile(`\b(19|20)\d\d\b`).FindString(s.Paper), "%s: the year of its paper", s.Name)
	}
}

func TestPageOfOthers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "mine", "../lsq", "page", "doc"} {
		require.Empty(t, (&Spec{Name: name}).Page(), name)
	}
}

func TestSection(t *testing.T) {
	t.Parallel()
	content := new(comment.Parser).Parse("intro\n\n# one\n\nfirst\n\n\ty = x\n\n# two\n\nsecond").Content
	text := func(name string) string {
		return string(new(comment.Printer).Text(&comment.Doc{Content: section(content, name)}))
	}
	require.Equal(t, "first\n\n    y = x\n", strings.ReplaceAll(text("one"), "\t", "    "))
	require.Equal(t, "second\n", text("two"))
	require.Empty(t, text("three"))
}
