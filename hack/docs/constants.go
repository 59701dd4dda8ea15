package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
)

// constant is a constant of a Go file, with its comment and that of its block.
type constant struct{ name, value, comment, block string }

type constants []constant

// readConstants reads the string constants of a Go file.
func readConstants(file string) (all constants, err error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	for _, decl := range parsed.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec)
			literal, ok := value.Values[0].(*ast.BasicLit)
			if !ok {
				continue
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", value.Names[0].Name, err)
			}
			all = append(all, constant{value.Names[0].Name, text, value.Doc.Text(), group.Doc.Text()})
		}
	}
	return all, nil
}

// table returns a table of the constants whose names begin with prefix, in the blocks whose
// comments begin with block.
func (all constants) table(block, prefix, column, meaning string) string {
	values := make([]string, len(all))
	for i, c := range all {
		values[i] = c.value
	}
	// The words that a page formats as code: fields, flags, and the values of these
	// constants.
	code := regexp.MustCompile(`\b(?:spec|status)\.\w+|--[a-z][a-z-]+|\b(?:True|False|Unknown|` + strings.Join(values, "|") + `)\b`)
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | %s |\n|---|---|\n", column, meaning)
	for _, c := range all {
		if strings.HasPrefix(c.name, prefix) && strings.HasPrefix(c.block, block) {
			fmt.Fprintf(&b, "| `%s` | %s |\n", c.value, code.ReplaceAllString(sentence(c), "`$0`"))
		}
	}
	return b.String()
}

// sentence returns the comment of a constant without the constant's name at its start.
func sentence(c constant) string {
	text := strings.Join(strings.Fields(c.comment), " ")
	for _, start := range []string{c.name + ": ", c.name + " is "} {
		text = strings.TrimPrefix(text, start)
	}
	return strings.TrimSuffix(text, ".")
}
