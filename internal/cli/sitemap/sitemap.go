// Package sitemap reads sitemaps (sitemaps.org) over HTTP: lists of URLs, indexes of sitemaps, and both
// compressed with gzip. A sitemap comes from a server that nobody here controls, so everything that it
// can make a reader do is bounded: bytes, URLs, files, levels, hosts and time.
package sitemap

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// The limits. Those of a file are the limits of the sitemaps protocol.
const (
	// MaxURLs is how many entries a file may have.
	MaxURLs = 50_000
	// MaxBytes is how many bytes a file may have, uncompressed.
	MaxBytes = 50 << 20
	// MaxDepth is how many indexes may be above a list of URLs.
	MaxDepth = 2
	// MaxFiles is how many files are read in all.
	MaxFiles = 1000
	// MaxTotalBytes is how many bytes are read in all, compressed and uncompressed.
	MaxTotalBytes = 1 << 30
	// DefaultTimeout is how long a file may take.
	DefaultTimeout = time.Minute
	// maxFileTimes is how many times as long all files together may take.
	maxFileTimes = 15
)

// Reader reads sitemaps.
type Reader struct {
	// UserAgent names this program to the server.
	UserAgent string
	// Since leaves out what was last modified before, if it is not zero. Entries without a valid
	// lastmod are not left out.
	Since time.Time
	// Timeout is how long a file may take. If it is 0, it is DefaultTimeout.
	Timeout time.Duration
	// Add is called with each URL, in order.
	Add func(rawURL string) error
	// Files is how many files were read, and Old how many entries Since left out.
	Files, Old int

	origin   string // of the sitemap that Read is called with
	isSecure bool   // it has https
	seen     map[string]bool
	rest     int // bytes that may still be read
	client   *http.Client
}

// Read reads a sitemap, and the sitemaps that it names if it is an index.
func (r *Reader) Read(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("the sitemap %q must be a full URL that starts with http:// or https://", shown(address))
	}
	r.origin, r.isSecure, r.seen = originOf(u), u.Scheme == "https", map[string]bool{}
	if r.Timeout == 0 {
		r.Timeout = DefaultTimeout
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // gzip is removed once, by decompress
	defer transport.CloseIdleConnections()
	if r.rest == 0 {
		r.rest = MaxTotalBytes
	}
	ctx, cancel := context.WithTimeout(ctx, maxFileTimes*r.Timeout)
	defer cancel()
	r.client = &http.Client{Transport: transport, Timeout: r.Timeout, CheckRedirect: r.checkRedirect}
	return r.read(ctx, address, 0)
}

// read reads a file at a level below the first.
func (r *Reader) read(ctx context.Context, address string, level int) error {
	if r.seen[address] {
		return nil
	}
	r.seen[address] = true
	if r.Files++; r.Files > MaxFiles {
		return fmt.Errorf("the sitemap index names more than %d files: submit its sitemaps one by one", MaxFiles)
	}
	content, err := r.fetch(ctx, address)
	if err != nil {
		return fmt.Errorf("the sitemap %s %w", shown(address), err)
	}
	var children []string
	err = parse(content, func(e entry) error {
		switch {
		case r.isOld(e.lastModified):
			r.Old++
			return nil
		case !e.isSitemap:
			return r.Add(e.location)
		case level == MaxDepth:
			return fmt.Errorf("is an index below %d others: submit it by itself", MaxDepth)
		}
		children = append(children, e.location)
		return r.checkChild(e.location)
	})
	_ = content.Close()
	if err != nil {
		return fmt.Errorf("the sitemap %s %w", shown(address), err)
	}
	for _, child := range children {
		if err := r.read(ctx, child, level+1); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) isOld(lastModified time.Time) bool {
	return !lastModified.IsZero() && lastModified.Before(r.Since)
}

// checkChild refuses a sitemap of another host, and one that is less protected.
func (r *Reader) checkChild(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil:
		return fmt.Errorf("names the sitemap %q, which is no plain URL that starts with http:// or https://", shown(address))
	case originOf(u) != r.origin:
		return fmt.Errorf("names the sitemap %q, which is not on %s: sitemaps of other hosts are not read", shown(address), r.origin)
	case r.isSecure && u.Scheme != "https":
		return fmt.Errorf("names the sitemap %q without https", shown(address))
	}
	return nil
}

// shown returns an address for a message: without a password, not too long, and printable.
func shown(address string) string {
	const most = 200
	if u, err := url.Parse(address); err == nil {
		address = u.Redacted()
	}
	if runes := []rune(address); len(runes) > most {
		address = string(runes[:most]) + "…"
	}
	return printable(address)
}

// printable replaces what a terminal would take for commands, or not show.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// maxRedirects is how many redirects are followed.
const maxRedirects = 5

// checkRedirect refuses redirects to another host.
func (r *Reader) checkRedirect(request *http.Request, via []*http.Request) error {
	switch {
	case originOf(request.URL) != r.origin:
		return refusal(fmt.Sprintf("is redirected to %s, another host than %s: give that address if you trust it", shown(request.URL.String()), r.origin))
	case r.isSecure && request.URL.Scheme != "https":
		return refusal(fmt.Sprintf("is redirected to %s, without https: give that address if you trust it", shown(request.URL.String())))
	case len(via) > maxRedirects:
		return refusal(fmt.Sprintf("is redirected more than %d times", maxRedirects))
	}
	return nil
}

// IsOnSameHost reports whether a URL is on the host of the sitemap, as the protocol asks for.
func (r *Reader) IsOnSameHost(rawURL string) bool {
	u, err := url.Parse(rawURL)
	return err == nil && originOf(u) == r.origin
}

// originOf returns the host of a URL, with its port unless that is the default.
func originOf(u *url.URL) string {
	host := target.NormalizeHost(u.Hostname())
	port := u.Port()
	if port == "" || u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		return host
	}
	return host + ":" + port
}

// refusal is a reason not to read on.
type refusal string

func (r refusal) Error() string { return string(r) }

// reasonOf returns what the HTTP client says, without the address.
func reasonOf(err error) error {
	var refused refusal
	if errors.As(err, &refused) {
		return refused
	}
	var slow interface{ Timeout() bool }
	if errors.As(err, &slow) && slow.Timeout() {
		return refusal("did not arrive in time: try again, or download it and submit its URLs as a list")
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	return fmt.Errorf("cannot be read: %s", strings.TrimSpace(err.Error()))
}
