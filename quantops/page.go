package quantops

import (
	"embed"
	"go/doc/comment"
	"go/parser"
	"go/token"
)

// sources are the files of the package: every method's own opens with its page.
//
//go:embed *.go
var sources embed.FS

// Page returns what there is to know about the method as text for a terminal: its section of the package comment, from
// NAME.go, without the heading. It is empty for a method that is not of this package.
func (s *Spec) Page() string {
	name := s.Name + ".go"
	source, err := sources.ReadFile(name)
	if err != nil {
		return ""
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		return ""
	}
	page := &comment.Doc{Content: section(new(comment.Parser).Parse(file.Doc.Text()).Content, s.Name)}
	return string((&comment.Printer{TextCodePrefix: "    "}).Text(page))
}

// section returns what is between a heading and the next.
func section(content []comment.Block, name string) []comment.Block {
	var found []comment.Block
	inside := false
	for _, block := range content {
		if h, ok := block.(*comment.Heading); ok {
			inside = len(h.Text) == 1 && h.Text[0] == comment.Plain(name)
			continue
		}
		if inside {
			found = append(found, block)
		}
	}
	return found
}
