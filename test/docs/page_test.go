// Package docs tests the pages of the repository: their links lead somewhere, their
// commands run, and the flags and make targets that they mention exist.
//
// Indented blocks, and fenced blocks with the language sh, are commands. The commands of a
// page run in order, in one shell at the root of the repository, against a real API server
// with the operator and a simulated EdgeOne. Two comments on a separate line before a
// block change this:
//
//	<!-- not run: why it cannot -->
//	<!-- before: commands that run first and are not shown -->
//
// If the first line of a block is a comment with a file name, such as "# release.yaml",
// the block is written to that file. The cluster must accept YAML of the kinds that it
// knows. What other programs run of a block runs in its place: the steps of a GitHub
// workflow, the Job of an AnalysisTemplate, other arguments of that Job, and the commands of a Canary's
// webhooks.
//
// page parses pages, commands runs their commands, jobs runs the pods of their Jobs, recipes
// plays other programs, web plays the website of the examples, links and names check the
// rest. The package knows the operator only by its pages, flags and make targets.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// page is a Markdown file.
type page struct {
	path   string // relative to the root
	prose  string // the text without blocks of code, with the same line numbers
	lines  int
	blocks []block
}

// block is a block of code.
type block struct {
	line     int // line number of its first line of code, counted from 1
	language string
	lines    []string
	notRun   string // why it does not run; "" if it runs
	before   string // commands that run first
}

func (b *block) text() string { return strings.Join(b.lines, "\n") + "\n" }

// shell reports whether the block has commands to run.
func (b *block) shell() bool { return b.language == "sh" && b.notRun == "" }

var fileName = regexp.MustCompile(`^# ([\w-]+\.(?:yaml|txt))\b`)

// file returns the name of the file that the block is written to, or "".
func (b *block) file() string {
	if m := fileName.FindStringSubmatch(b.lines[0]); m != nil && b.language != "sh" {
		return m[1]
	}
	return ""
}

// pages reads all pages of the repository.
func pages(t *testing.T) (all []*page) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && path != root && (name == "bin" || name == "dist" || name == "node_modules" || name[0] == '.') {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		p, problem := parse(filepath.ToSlash(relative), string(text))
		if problem != "" {
			t.Error(problem)
		}
		all = append(all, p)
		return err
	})
	if err != nil || len(all) == 0 {
		t.Fatal("no pages: ", err)
	}
	return all
}

var (
	marker = regexp.MustCompile(`^<!-- (not run|before): (.+) -->$`)
	item   = regexp.MustCompile(`^\s*(?:[-*]|\d+\.)\s`)
)

// parse finds the blocks of code of a page.
func parse(path, text string) (*page, string) {
	lines := strings.Split(text, "\n")
	p := &page{path: path, lines: len(lines)}
	prose := slices.Clone(lines)
	var next block // what is known about the next block
	var inBlock, fenced, inList bool
	end := func() {
		last := &p.blocks[len(p.blocks)-1]
		last.lines = strings.Split(strings.TrimRight(strings.Join(last.lines, "\n"), "\n"), "\n")
		inBlock, fenced = false, false
	}
	for i, line := range lines {
		blank := strings.TrimSpace(line) == ""
		fence, isFence := strings.CutPrefix(line, "```")
		indented := strings.HasPrefix(line, "    ")
		if inBlock && !fenced && !indented && !blank {
			end()
		}
		switch m := marker.FindStringSubmatch(line); {
		case fenced && isFence:
			prose[i] = ""
			end()
			continue
		case m != nil && !inBlock:
			if m[1] == "before" {
				next.before = m[2]
			} else {
				next.notRun = m[2]
			}
			continue
		}
		switch {
		case inBlock:
			last := &p.blocks[len(p.blocks)-1]
			if !fenced {
				line = strings.TrimPrefix(line, "    ")
			}
			last.lines = append(last.lines, line)
			prose[i] = ""
		case isFence:
			next.line, next.language = i+2, strings.TrimSpace(fence)
			p.blocks, next, inBlock, fenced, inList = append(p.blocks, next), block{}, true, true, false
			prose[i] = ""
		case indented && !blank && !inList && (i == 0 || strings.TrimSpace(lines[i-1]) == ""):
			next.line, next.language, next.lines = i+1, "sh", []string{line[4:]}
			p.blocks, next, inBlock = append(p.blocks, next), block{}, true
			prose[i] = ""
		case item.MatchString(line):
			inList = true
		case !blank && line[0] != ' ' && i > 0 && strings.TrimSpace(lines[i-1]) == "":
			inList = false
		}
	}
	p.prose = strings.Join(prose, "\n")
	switch {
	case fenced:
		return p, path + " has a fence that is not closed"
	case next.notRun+next.before != "":
		return p, path + " has a marker that no block follows: " + next.notRun + next.before
	}
	return p, ""
}

// at returns the line number of an index in the prose.
func (p *page) at(index int) int { return 1 + strings.Count(p.prose[:index], "\n") }

var inlineCode = regexp.MustCompile("`[^`\n]+(?:\n[^`\n]+)?`")

// code visits the inline code in the prose, with line numbers.
func (p *page) code(visit func(line int, code string)) {
	for _, at := range inlineCode.FindAllStringIndex(p.prose, -1) {
		visit(p.at(at[0]), strings.Join(strings.Fields(strings.Trim(p.prose[at[0]:at[1]], "`")), " "))
	}
}

func TestBlocksOfAPage(t *testing.T) {
	p, problem := parse("page.md", `# Title

    make one   # comment
    make two \
      --more

    make three

<!-- before: ls -->

    make four
- a list

    a paragraph of the list

  another

Text again

<!-- not run: no network -->

    git clone

- an item

`+"```yaml\n# file.yaml: of a kind\nkind: X\n\n```"+`

    make five

<!-- before: kubectl create namespace x -->

`+"```sh\nkubectl get pods\n```\n")
	if problem != "" {
		t.Fatal(problem)
	}
	want := []struct {
		line                           int
		language, notRun, before, text string
	}{
		{3, "sh", "", "", "make one   # comment\nmake two \\\n  --more\n\nmake three\n"},
		{11, "sh", "", "ls", "make four\n"},
		{22, "sh", "no network", "", "git clone\n"},
		{27, "yaml", "", "", "# file.yaml: of a kind\nkind: X\n"},
		{32, "sh", "", "", "make five\n"},
		{37, "sh", "", "kubectl create namespace x", "kubectl get pods\n"},
	}
	if len(p.blocks) != len(want) {
		t.Fatalf("%d blocks: %+v", len(p.blocks), p.blocks)
	}
	for i, w := range want {
		b := p.blocks[i]
		if b.line != w.line || b.language != w.language || b.notRun != w.notRun || b.before != w.before || b.text() != w.text {
			t.Errorf("got %+v, want %+v", b, w)
		}
	}
	if p.blocks[3].file() != "file.yaml" || !p.blocks[0].shell() || p.blocks[2].shell() || strings.Contains(p.prose, "make") {
		t.Errorf("%+v", p)
	}
	for _, text := range []string{"```\nopen", "<!-- before: ls -->\n\ntext"} {
		if _, problem := parse("page.md", text); problem == "" {
			t.Errorf("%q is accepted", text)
		}
	}
}
