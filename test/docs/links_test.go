package docs

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	// The text of a link may contain brackets, for example those of an image, and line
	// breaks.
	link = regexp.MustCompile(`!?\[(?:[^\[\]]|\[[^\[\]]*\](?:\([^()]*\))?)*\]\(([^()\s]*)\)`)
	// tag matches a link in HTML.
	tag     = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+?)\s*$`)
	named   = regexp.MustCompile(`(?:id|name)="([^"]+)"`)
)

// links visits the links of a page.
func (p *page) links(visit func(line int, target string)) {
	prose := inlineCode.ReplaceAllStringFunc(p.prose, func(code string) string { return strings.Repeat("x", len(code)) })
	for _, pattern := range []*regexp.Regexp{link, tag} {
		for _, at := range pattern.FindAllStringSubmatchIndex(prose, -1) {
			visit(p.at(at[0]), prose[at[2]:at[3]])
		}
	}
	rest := link.ReplaceAllString(prose, "")
	if at := strings.Index(rest, "]("); at >= 0 {
		visit(0, rest[at:min(len(rest), at+40)]) // neither a link nor text
	}
}

// anchors returns the targets for links in a page, as GitHub names them.
func (p *page) anchors() map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(p.prose, -1) {
		text := link.ReplaceAllStringFunc(m[1], func(l string) string { return l[1:strings.LastIndex(l, "](")] })
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
				return unicode.ToLower(r)
			}
			return -1
		}, text)
		unique := name
		for n := 1; all[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		all[unique] = true
	}
	for _, m := range named.FindAllStringSubmatch(p.prose, -1) {
		all[m[1]] = true
	}
	return all
}

// follow returns the file that a link leads to, and what is wrong with the link, or "".
func follow(p *page, all map[string]*page, target string) (file, problem string) {
	u, err := url.Parse(target)
	switch {
	case err != nil || target == "":
		return "", "is no link"
	case u.Scheme == "http" || u.Scheme == "https":
		if !strings.Contains(u.Hostname(), ".") {
			return "", "has no host"
		}
		return "", ""
	case u.Scheme != "" || u.Host != "" || strings.HasPrefix(u.Path, "/"):
		return "", "is neither relative nor of the web"
	}
	file = p.path
	if u.Path != "" {
		file = path.Join(path.Dir(p.path), u.Path)
	}
	if strings.HasPrefix(file, "..") {
		return "", "leads out of the repository"
	}
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
		return "", "leads to a file that does not exist"
	}
	if u.Fragment == "" {
		return file, ""
	}
	if all[file] == nil {
		return "", "names a place in a file that is no page"
	}
	if !all[file].anchors()[u.Fragment] {
		return "", "names a place that does not exist"
	}
	return file, ""
}

func byPath(t *testing.T) map[string]*page {
	t.Helper()
	all := map[string]*page{}
	for _, p := range pages(t) {
		all[p.path] = p
	}
	return all
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := byPath(t)
	for _, p := range all {
		p.links(func(line int, target string) {
			if _, problem := follow(p, all, target); problem != "" {
				t.Errorf("%s:%d: %s %s", p.path, line, target, problem)
			}
		})
	}
}

// A reader who starts at the index can reach every page.
func TestEveryPageIsReachableFromTheIndex(t *testing.T) {
	all := byPath(t)
	seen, queue := map[string]bool{}, []string{"docs/README.md"}
	for len(queue) > 0 {
		p := all[queue[0]]
		queue = queue[1:]
		if p == nil || seen[p.path] {
			continue
		}
		seen[p.path] = true
		p.links(func(_ int, target string) {
			if file, problem := follow(p, all, target); problem == "" {
				queue = append(queue, file)
			}
		})
	}
	for _, p := range all {
		if strings.HasPrefix(p.path, "docs/") && !seen[p.path] {
			t.Errorf("no link leads to %s", p.path)
		}
	}
}

func TestWhatIsWrongWithALink(t *testing.T) {
	here, _ := parse("docs/gitops.md", "# One `word`, two\n## Two\n## Two\n[a](x.md) ![b [c](d)](e.svg)\n`[no](link)` [over\ntwo](f.md) <a href=\"g\">g</a>\n")
	var targets []string
	here.links(func(_ int, target string) { targets = append(targets, target) })
	if got := strings.Join(targets, " "); got != "x.md e.svg f.md g" {
		t.Errorf("links: %s", got)
	}
	all := map[string]*page{here.path: here}
	for target, ok := range map[string]bool{
		"#one-word-two": true, "#two-1": true, "gitops.md#two": true, "../Makefile": true, "../config/samples": true, "https://example.com/x": true,
		"#three": false, "gone.md": false, "../../x": false, "/etc/passwd": false, "https://": false, "ftp://example.com": false, "": false, "../Makefile#x": false,
	} {
		if _, problem := follow(here, all, target); (problem == "") != ok {
			t.Errorf("%q: %q", target, problem)
		}
	}
	broken, _ := parse("docs/gitops.md", "[a] (x) [b](x y)\n")
	found := 0
	broken.links(func(int, string) { found++ })
	if found != 1 {
		t.Errorf("a broken link is found %d times", found)
	}
}
