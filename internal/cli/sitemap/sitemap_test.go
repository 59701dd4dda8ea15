package sitemap

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

// site is a web server with files by path. HOST in them is its own address.
type site struct {
	*httptest.Server
	agents []string
}

func newSite(t *testing.T, files map[string]string) *site {
	t.Helper()
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.agents = append(s.agents, r.UserAgent())
		content, found := files[r.URL.Path]
		switch to, isRedirect := strings.CutPrefix(content, "-> "); {
		case !found:
			http.NotFound(w, r)
		case isRedirect:
			http.Redirect(w, r, strings.ReplaceAll(to, "HOST", s.URL), http.StatusFound)
		case content == "hang":
			<-r.Context().Done()
		case strings.HasPrefix(content, "\x1f\x8b"):
			_, _ = w.Write([]byte(content))
		default:
			_, _ = w.Write([]byte(strings.ReplaceAll(content, "HOST", s.URL)))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// read reads a sitemap of the site, and returns the URLs with HOST for its address.
func (s *site) read(t *testing.T, r *Reader, path string) ([]string, error) {
	t.Helper()
	var urls []string
	r.UserAgent = "test"
	r.Add = func(u string) error {
		urls = append(urls, strings.ReplaceAll(u, s.URL, "HOST"))
		return nil
	}
	err := r.Read(t.Context(), s.URL+path)
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), s.URL, "HOST"))
	}
	return urls, err
}

func urlset(entries ...string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">` + strings.Join(entries, "\n") + "</urlset>"
}

func loc(u string) string { return "<url><loc>" + u + "</loc></url>" }

func index(locations ...string) string {
	return "<sitemapindex><sitemap><loc>" + strings.Join(locations, "</loc></sitemap><sitemap><loc>") + "</loc></sitemap></sitemapindex>"
}

func zip(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(content))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadFollowsIndexesInOrder(t *testing.T) {
	s := newSite(t, map[string]string{
		"/index.xml": index("HOST/inner.xml", "HOST/b.xml", "HOST/b.xml"),
		"/inner.xml": "-> /real.xml",
		"/real.xml":  index("HOST/a.xml.gz"),
		"/b.xml": "\ufeff" + urlset("<!-- x -->", `<url> <image:image><image:loc>HOST/i.png</image:loc></image:image><image:loc>HOST/j.png</image:loc><loc>
			HOST/b?x=1&amp;y=<![CDATA[&]]>2 </loc></url>`),
		"/a.xml.gz": zip(t, urlset(loc("https://other/a1"), loc("https://other/a2"))),
	})
	r := &Reader{}
	urls, err := s.read(t, r, "/index.xml")
	if want := []string{"https://other/a1", "https://other/a2", "HOST/b?x=1&y=&2"}; err != nil || !slices.Equal(urls, want) {
		t.Errorf("%q, %v; want %q", urls, err, want)
	}
	if r.Files != 4 || slices.ContainsFunc(s.agents, func(agent string) bool { return agent != "test" }) {
		t.Error(r.Files, s.agents)
	}
	if !r.IsOnSameHost(s.URL+"/x") || r.IsOnSameHost("https://other/a1") {
		t.Error("the hosts are not told apart")
	}
}

func TestSinceLeavesOutWhatIsOlder(t *testing.T) {
	at := func(name, lastmod string) string {
		return "<url><lastmod>" + lastmod + "</lastmod><loc>" + name + "</loc></url>"
	}
	s := newSite(t, map[string]string{"/s.xml": urlset(
		at("year", "2026"), at("old-year", "2025"), at("month", "2026-11"), at("old-month", "2026-10"), at("day", "2026-11-28"), at("old-day", "2026-11-27"),
		at("minute", "2026-11-28T12:00Z"), at("old-minute", "2026-11-28T13:59+02:00"), at("second", "2026-11-28T12:00:00.5Z"), at("none", "yesterday"), loc("without"),
	)})
	r := &Reader{Since: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	urls, err := s.read(t, r, "/s.xml")
	if want := []string{"year", "month", "day", "minute", "second", "none", "without"}; err != nil || !slices.Equal(urls, want) || r.Old != 4 {
		t.Errorf("%q, %d, %v", urls, r.Old, err)
	}
}

func TestBadSitemapsAreRefused(t *testing.T) {
	big := strings.Repeat("<!-- "+strings.Repeat("x", 1000)+" -->", MaxBytes/1000)
	other := newSite(t, map[string]string{"/s.xml": urlset(loc("https://h/"))})
	files := map[string]struct{ content, problem string }{
		"/html":        {"<!DOCTYPE html><html>", "is a web page (HTML), not a sitemap: give the address of the sitemap"},
		"/html2":       {"<HTML><body>", "is a web page (HTML), not a sitemap"},
		"/doctype":     {`<?xml version="1.0"?><!DOCTYPE urlset [<!ENTITY a "b">]>` + urlset(loc("&a;")), "has a document type declaration"},
		"/entity":      {urlset(loc("https://h/&lol;")), "is not valid XML: line 1: invalid character entity &lol;"},
		"/charset":     {`<?xml version="1.0" encoding="EBCDIC"?>` + urlset(), "is not in UTF-8, as sitemaps must be"},
		"/rss":         {"<rss></rss>", "is not a sitemap: it starts with <rss>"},
		"/text":        {"https://h/a\nhttps://h/b\n", "is not XML"},
		"/empty":       {"", "is empty"},
		"/cut":         {"<urlset><url><loc>https://h/", "is not valid XML"},
		"/cross":       {"<urlset><url></loc></url></urlset>", "is not valid XML: </loc> closes nothing"},
		"/no-loc":      {urlset("<url></url>"), "has a <url> without <loc>, the 1. of the file"},
		"/nested":      {strings.Replace(urlset("X"), "X", strings.Repeat("<a>", 100), 1), "nested too deep"},
		"/many":        {urlset(strings.Repeat("<url><loc>https://h/</loc></url>", MaxURLs+1)), "has more than 50000 entries"},
		"/big":         {urlset(big), "is longer than 50 MB uncompressed"},
		"/bomb":        {zip(t, urlset(big)), "is longer than 50 MB uncompressed"},
		"/attributes":  {zip(t, urlset("<url "+strings.Repeat(`a="" `, 1<<20)+"></url>")), "has a text or a tag that is too long"},
		"/long-loc":    {urlset(loc("https://h/" + strings.Repeat("x", 1<<20))), "has a text or a tag that is too long"},
		"/two-locs":    {urlset("<url><loc>https://h/a</loc><loc>https://h/b</loc></url>"), "has an entry with more than one <loc>"},
		"/in-loc":      {urlset("<url><loc>https://h/a<b>x</b></loc></url>"), "has an element in a <loc>"},
		"/two-roots":   {urlset() + "<urlset></urlset>", "has more than one root element"},
		"/wrong-child": {"<urlset><sitemap><loc>HOST/a</loc></sitemap></urlset>", ""},
		"/ftp-child":   {index("ftp://h/x"), "which is no plain URL"},
		"/escape":      {urlset("</\u009b31m>"), "invalid XML name: ?31m"},
		"/twice":       {zip(t, zip(t, urlset())), "is compressed with gzip more than once"},
		"/damaged":     {zip(t, urlset())[:12], "is damaged gzip: download it again"},
		"/no-gzip":     {"\x1f\x8bxxxxxxxxxxxxxxxx", "is not valid gzip"},
		"/checksum":    {zip(t, urlset())[:len(zip(t, urlset()))-8] + "12345678", "is damaged gzip"},
		"/deep":        {index("HOST/deep1"), "is an index below 2 others"},
		"/deep1":       {index("HOST/deep2"), ""},
		"/deep2":       {index("HOST/deep3"), ""},
		"/deep3":       {urlset(), ""},
		"/other-child": {index(other.URL + "/s.xml"), "sitemaps of other hosts are not read"},
		"/redirect":    {"-> " + other.URL + "/s.xml", "is redirected to " + other.URL + "/s.xml, another host"},
		"/loop":        {"-> HOST/loop", "is redirected more than 5 times"},
		"/slow":        {"hang", "did not arrive in time"},
	}
	contents := map[string]string{}
	for path, file := range files {
		contents[path] = file.content
	}
	s := newSite(t, contents)
	for path, file := range files {
		if file.problem == "" {
			continue
		}
		t.Run(path, func(t *testing.T) {
			timeout := time.Duration(0)
			if path == "/slow" {
				timeout = 50 * time.Millisecond
			}
			_, err := s.read(t, &Reader{Timeout: timeout}, path)
			if err == nil || !strings.Contains(err.Error(), file.problem) || !strings.HasPrefix(err.Error(), "the sitemap HOST/") || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%v, want %q", err, file.problem)
			}
		})
	}
	if _, err := s.read(t, &Reader{}, "/missing"); err == nil || err.Error() != "the sitemap HOST/missing is not there: the server answers 404 Not Found" {
		t.Error(err)
	}
	if len(other.agents) != 0 {
		t.Error("another host was asked")
	}
	if err := (&Reader{}).Read(t.Context(), "ftp://h/s.xml"); err == nil {
		t.Error("ftp is taken")
	}
}

func TestTheNumberOfFilesIsBounded(t *testing.T) {
	children := make([]string, MaxFiles)
	files := map[string]string{}
	for i := range children {
		path := fmt.Sprintf("/%d.xml", i)
		children[i], files[path] = "HOST"+path, urlset()
	}
	files["/index.xml"] = index(children...)
	s := newSite(t, files)
	if _, err := s.read(t, &Reader{}, "/index.xml"); err == nil || !strings.Contains(err.Error(), "names more than 1000 files") {
		t.Error(err)
	}
}

func TestTheBytesOfAllFilesAreBounded(t *testing.T) {
	padding := "<!--" + strings.Repeat(" ", 1000) + "-->"
	s := newSite(t, map[string]string{
		"/index.xml": index("HOST/1.xml", "HOST/2.xml", "HOST/3.xml"),
		"/1.xml":     urlset(loc("HOST/a")) + padding, "/2.xml": urlset(loc("HOST/b")) + padding, "/3.xml": urlset(loc("HOST/c")) + padding,
	})
	if got, err := s.read(t, &Reader{rest: 10_000}, "/index.xml"); err != nil || len(got) != 3 {
		t.Error(got, err)
	}
	_, err := s.read(t, &Reader{rest: 3000}, "/index.xml")
	if err == nil || !strings.HasPrefix(err.Error(), "the sitemap HOST/3.xml would be read, but more than 1024 MB were read before it") {
		t.Error(err)
	}
}

func TestOriginsAreEqualInAllSpellings(t *testing.T) {
	r := &Reader{origin: "xn--r8jz45g.jp"}
	for _, u := range []string{"https://例え.jp/", "http://XN--R8JZ45G.jp:80", "https://xn--r8jz45g.jp.:443/a"} {
		if !r.IsOnSameHost(u) {
			t.Error(u)
		}
	}
	if r.IsOnSameHost("https://xn--r8jz45g.jp:80/") || r.IsOnSameHost("https://www.xn--r8jz45g.jp/") {
		t.Error("another origin is the same")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", urlset(loc("https://h/a")), index("https://h/a"), "<urlset><url><lastmod>2026-02-30</lastmod></url>", "<!DOCTYPE a>", "<html>",
		"<urlset/>", "</urlset>", "<urlset><url/></urlset>", "<sitemapindex><sitemap><loc/></sitemap></sitemapindex>", "\x1f\x8b", "<urlset></urlset><urlset></urlset>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		entries := 0
		decompressed, err := (&Reader{rest: MaxTotalBytes}).decompress(bytes.NewReader(content))
		if err != nil {
			return
		}
		err = parse(decompressed, func(e entry) error {
			if entries++; e.location == "" || e.location != strings.TrimSpace(e.location) {
				t.Errorf("%q", e.location)
			}
			return nil
		})
		if entries > MaxURLs || err != nil && err.Error() == "" {
			t.Error(entries, err)
		}
	})
}
