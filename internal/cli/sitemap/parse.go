package sitemap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// entry is a url or sitemap element.
type entry struct {
	location     string
	lastModified time.Time
	isSitemap    bool
}

// maxNesting is how deep elements may be nested. Extensions for news and videos need 5.
const maxNesting = 16

// parser reads the elements of a file.
type parser struct {
	path    []string // local names of the open elements
	entry   entry
	text    strings.Builder
	entries int
	hasRoot bool
	emit    func(entry) error
}

// parse calls emit with each entry of a file.
func parse(content io.Reader, emit func(entry) error) error {
	p := &parser{emit: emit}
	bounded := &tokenReader{reader: content}
	decoder := xml.NewDecoder(bounded)
	for {
		bounded.rest = maxToken
		token, err := decoder.RawToken()
		if errors.Is(err, io.EOF) && len(p.path) == 0 {
			return p.checkEnd()
		}
		if err == nil {
			err = p.take(token)
		} else {
			err = p.explain(err)
		}
		if err != nil {
			return err
		}
	}
}

// maxToken is how many bytes an element's tag or a text may have. A URL has 2,048 characters at most.
const maxToken = 64 << 10

// tokenReader reads at most rest bytes, and fails if there are more: the decoder keeps a whole token in
// memory, which takes many times its bytes.
type tokenReader struct {
	reader io.Reader
	rest   int
}

func (t *tokenReader) Read(p []byte) (int, error) {
	if t.rest <= 0 {
		return 0, refusal("has a text or a tag that is too long")
	}
	n, err := t.reader.Read(p[:min(len(p), t.rest)])
	t.rest -= n
	return n, err
}

// checkEnd refuses a file without a root element.
func (p *parser) checkEnd() error {
	if !p.hasRoot {
		return refusal("is empty")
	}
	return nil
}

// explain returns an error of the decoder as a reason.
func (p *parser) explain(err error) error {
	var refused refusal
	if errors.As(err, &refused) {
		return refused
	}
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("is not valid XML: line %d: %s", syntax.Line, printable(syntax.Msg))
	}
	if errors.Is(err, io.EOF) {
		return refusal("is not valid XML: it ends too early")
	}
	if strings.Contains(err.Error(), "CharsetReader") {
		return refusal("is not in UTF-8, as sitemaps must be")
	}
	return reasonOf(err)
}

// take takes in a token.
func (p *parser) take(token xml.Token) error {
	switch t := token.(type) {
	case xml.Directive:
		return p.refuseDirective(t)
	case xml.StartElement:
		return p.open(nameOf(t.Name))
	case xml.EndElement:
		return p.close(nameOf(t.Name))
	case xml.CharData:
		if len(p.path) == 0 && len(bytes.TrimSpace(t)) > 0 {
			return refusal("is not XML: a sitemap starts with <urlset> or <sitemapindex>; a plain list of URLs can be submitted as a file")
		}
		if len(p.path) == 3 {
			p.text.Write(t)
		}
	}
	return nil
}

// nameOf returns the name of an element with its prefix: <image:loc> is no <loc>.
func nameOf(name xml.Name) string {
	if name.Space == "" {
		return name.Local
	}
	return name.Space + ":" + name.Local
}

func (p *parser) refuseDirective(directive xml.Directive) error {
	if fields := strings.Fields(strings.ToLower(string(directive))); len(fields) > 1 && fields[0] == "doctype" && fields[1] == "html" {
		return errHTML
	}
	return errDocument
}

func (p *parser) open(name string) error {
	p.path = append(p.path, name)
	switch len(p.path) {
	case 1:
		if p.hasRoot {
			return refusal("is not valid XML: it has more than one root element")
		}
		p.hasRoot = true
		if strings.EqualFold(name, "html") {
			return errHTML
		}
		if name != "urlset" && name != "sitemapindex" {
			return fmt.Errorf("is not a sitemap: it starts with <%s>, and a sitemap with <urlset> or <sitemapindex>", printable(name))
		}
	case 2:
		p.entry = entry{isSitemap: p.path[0] == "sitemapindex"}
	case 3:
		p.text.Reset()
	case 4:
		if p.path[2] == "loc" {
			return refusal("has an element in a <loc>, which must be a URL")
		}
	case maxNesting + 1:
		return refusal("has elements that are nested too deep")
	}
	return nil
}

func (p *parser) close(name string) error {
	depth := len(p.path)
	if depth == 0 || p.path[depth-1] != name {
		return fmt.Errorf("is not valid XML: </%s> closes nothing", printable(name))
	}
	path := strings.Join(p.path, "/")
	p.path = p.path[:depth-1]
	switch path {
	case "urlset/url/loc", "sitemapindex/sitemap/loc":
		if p.entry.location != "" {
			return refusal("has an entry with more than one <loc>")
		}
		p.entry.location = strings.TrimSpace(p.text.String())
	case "urlset/url/lastmod", "sitemapindex/sitemap/lastmod":
		p.entry.lastModified = parseTime(strings.TrimSpace(p.text.String()))
	case "urlset/url", "sitemapindex/sitemap":
		if p.entries++; p.entries > MaxURLs {
			return fmt.Errorf("has more than %d entries, the limit of the sitemaps protocol: split it", MaxURLs)
		}
		if p.entry.location == "" {
			return fmt.Errorf("has a <%s> without <loc>, the %d. of the file", name, p.entries)
		}
		return p.emit(p.entry)
	}
	return nil
}

// parseTime parses a W3C date and time. A date without a time is its last moment, as the change may have
// been at any time of the day. What is no date is the zero time.
func parseTime(text string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t
		}
	}
	for layout, months := range map[string]int{"2006": 12, "2006-01": 1, time.DateOnly: 0} {
		if t, err := time.Parse(layout, text); err == nil {
			days := 0
			if months == 0 {
				days = 1
			}
			return t.AddDate(0, months, days).Add(-time.Nanosecond)
		}
	}
	return time.Time{}
}
