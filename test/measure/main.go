// Command measure prints the size and the shape of the shipped code as a Markdown table.
// It measures packages, files, functions, parameter lists and names, and the share of
// comments. It also prints the amount of Go code in hack/, which should stay small. Tests
// do not count.
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
)

// measures are the measurements of a package.
type measures struct {
	lines, comments int
	files           map[string]int // number of lines, by file
	functions       map[string]int // number of lines, by function
	names, types    []string
	parameters      map[string]int // number of parameters, by function
	mutexes         []string
}

func main() {
	packages, err := measurePackages(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
	printTable(packages)
	lines, err := countLines(".", "hack")
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
	fmt.Printf("\nhack/ has %d lines of Go without tests.\n", lines)
}

// walkCode calls visit for each Go file below dir, except tests.
func walkCode(root, dir string, visit func(file string, text []byte) error) error {
	return fs.WalkDir(os.DirFS(root), dir, func(file string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return err
		}
		return visit(file, text)
	})
}

func countLines(root, dir string) (lines int, err error) {
	err = walkCode(root, dir, func(_ string, text []byte) error {
		lines += bytes.Count(text, []byte("\n"))
		return nil
	})
	return lines, err
}

// measurePackages measures the shipped packages: cmd and internal.
func measurePackages(root string) (map[string]*measures, error) {
	packages := map[string]*measures{}
	for _, dir := range []string{"cmd", "internal"} {
		err := walkCode(root, dir, func(file string, text []byte) error {
			m := packages[path.Dir(file)]
			if m == nil {
				m = &measures{files: map[string]int{}, functions: map[string]int{}, parameters: map[string]int{}}
				packages[path.Dir(file)] = m
			}
			return m.addFile(file, text)
		})
		if err != nil {
			return nil, err
		}
	}
	return packages, nil
}

func (m *measures) addFile(file string, text []byte) error {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	lines := func(from, to token.Pos) int { return set.Position(to).Line - set.Position(from).Line + 1 }
	m.files[file] = strings.Count(string(text), "\n")
	m.lines += m.files[file]
	for _, group := range parsed.Comments {
		m.comments += lines(group.Pos(), group.End())
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			name := file + " " + n.Name.Name
			m.functions[name] = lines(n.Pos(), n.End())
			m.names = append(m.names, n.Name.Name)
			m.parameters[name] = n.Type.Params.NumFields()
		case *ast.TypeSpec:
			m.types = append(m.types, n.Name.Name)
			m.addMutexes(n)
		}
		return true
	})
	return nil
}

// addMutexes records the mutexes of a struct. It names each together with the next field,
// which the mutex guards.
func (m *measures) addMutexes(spec *ast.TypeSpec) {
	fields, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	for i, field := range fields.Fields.List {
		selector, ok := field.Type.(*ast.SelectorExpr)
		if !ok || selector.Sel.Name != "Mutex" && selector.Sel.Name != "RWMutex" {
			continue
		}
		guards := "nothing by its side"
		if i+1 < len(fields.Fields.List) && len(fields.Fields.List[i+1].Names) > 0 {
			guards = fields.Fields.List[i+1].Names[0].Name
		}
		m.mutexes = append(m.mutexes, spec.Name.Name+" ("+guards+")")
	}
}

func printTable(packages map[string]*measures) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	columns := []string{
		"package", "lines", "files p90 / max", "functions p50 / p90 / max", "one-word functions", "one-word types",
		"letters of a function's name", "parameters max", "comments in 100 lines",
	}
	_, _ = fmt.Fprintf(w, "| %s\t|\n|%s\n", strings.Join(columns, "\t| "), strings.Repeat("---\t|", len(columns)))
	var mutexes []string
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		m := packages[name]
		files, functions := sortValues(m.files), sortValues(m.functions)
		letters := make([]int, len(m.names))
		for i, name := range m.names {
			letters[i] = len(name)
		}
		slices.Sort(letters)
		_, _ = fmt.Fprintf(w, "| `%s`\t| %d\t| %d / %d\t| %d / %d / %d\t| %s\t| %s\t| %d\t| %d\t| %d\t|\n", name, m.lines,
			percentile(files, 90), percentile(files, 100), percentile(functions, 50), percentile(functions, 90), percentile(functions, 100),
			shareOfOneWord(m.names), shareOfOneWord(m.types), percentile(letters, 50), percentile(sortValues(m.parameters), 100), 100*m.comments/m.lines)
		for _, mutex := range m.mutexes {
			mutexes = append(mutexes, "`"+name+"` "+mutex)
		}
	}
	_ = w.Flush()
	fmt.Printf("\nThe longest functions: %s\n", listLongest(packages))
	fmt.Printf("\n%d mutexes, each with the field after it:\n\n- %s\n", len(mutexes), strings.Join(mutexes, "\n- "))
}

func sortValues(m map[string]int) []int { return slices.Sorted(maps.Values(m)) }

func percentile(sorted []int, percent int) int {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// shareOfOneWord returns the percentage of names that consist of one word.
func shareOfOneWord(names []string) string {
	n := 0
	for _, name := range names {
		if !strings.ContainsFunc(name[1:], unicode.IsUpper) {
			n++
		}
	}
	return fmt.Sprintf("%d %%", 100*n/max(len(names), 1))
}

// listLongest lists the five longest functions.
func listLongest(packages map[string]*measures) string {
	all := map[string]int{}
	for _, m := range packages {
		maps.Copy(all, m.functions)
	}
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Or(all[b]-all[a], strings.Compare(a, b)) })
	var top []string
	for _, name := range names[:min(5, len(names))] {
		top = append(top, fmt.Sprintf("%s (%d)", name, all[name]))
	}
	return strings.Join(top, ", ")
}
