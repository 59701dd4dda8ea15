package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// updateList writes the current names and files of the code into the list of mutations.
// The mutations fit without this, but they are easier to read with it.
func updateList(root string) error {
	sources, err := readSources(root)
	if err != nil {
		return err
	}
	lists, err := filepath.Glob(filepath.Join(root, "test", "mutations", "*.go"))
	if err != nil {
		return err
	}
	for _, list := range lists {
		if strings.HasSuffix(list, "_test.go") {
			continue // its mutations are of invented code
		}
		text, err := os.ReadFile(list)
		if err != nil {
			return err
		}
		updated, err := updateText(string(text), sources)
		if err != nil {
			return err
		}
		if err := os.WriteFile(list, []byte(updated), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// updateText updates the mutations in the text of a Go file.
func updateText(text string, sources []source) (string, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "", text, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	type edit struct {
		start, end int
		text       string
	}
	var edits []edit
	ast.Inspect(file, func(n ast.Node) bool {
		literal, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		fields := map[string]*ast.BasicLit{}
		for _, element := range literal.Elts {
			if pair, ok := element.(*ast.KeyValueExpr); ok {
				if key, ok := pair.Key.(*ast.Ident); ok {
					fields[key.Name], _ = pair.Value.(*ast.BasicLit)
				}
			}
		}
		if fields["file"] == nil || fields["old"] == nil || fields["new"] == nil {
			return true
		}
		value := func(field string) string {
			text, _ := strconv.Unquote(fields[field].Value)
			return text
		}
		m := mutation{file: value("file"), old: value("old"), new: value("new")}
		at, failed := m.locate(sources)
		if failed != nil {
			return true // the test of this package reports it
		}
		for field, now := range map[string]string{"file": at.path, "old": at.renameOrKeep(m.old), "new": at.renameOrKeep(m.new)} {
			if now == value(field) {
				continue
			}
			quoted := strconv.Quote(now)
			if strings.HasPrefix(fields[field].Value, "`") {
				quoted = "`" + now + "`"
			}
			edits = append(edits, edit{set.Position(fields[field].Pos()).Offset, set.Position(fields[field].End()).Offset, quoted})
		}
		return true
	})
	slices.SortFunc(edits, func(a, b edit) int { return b.start - a.start })
	for _, e := range edits {
		text = text[:e.start] + e.text + text[e.end:]
	}
	return text, nil
}

// renameOrKeep is like renameCode, but returns code unchanged if it cannot be scanned.
func (m match) renameOrKeep(code string) string {
	renamed, err := m.renameCode(code)
	if err != nil {
		return code
	}
	return renamed
}
