package controller

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// ReadAhead wraps the transport to the API server: while the manager reads one page
// of a list of tasks it asks for the next. Both take about as long for a page, and
// would wait for each other otherwise, for half of the time that a start beside many
// tasks takes. A page that was asked for in vain is dropped when a list begins again.
func ReadAhead(to http.RoundTripper) http.RoundTripper {
	return &readAhead{to: to, next: map[string]*page{}}
}

type readAhead struct {
	to   http.RoundTripper
	mu   sync.Mutex
	next map[string]*page // by path, the page after the one that was read last
}

// page is an answer that is under way or here.
type page struct {
	url      string
	here     chan struct{}
	response *http.Response
	body     []byte
	err      error
}

// pageTimeout is how long a page may take that nobody may be waiting for.
const pageTimeout = time.Minute

// continues is how a list of custom resources ends that has a next page.
var continues = regexp.MustCompile(`"metadata":\{"continue":"([^"\\]+)"[^{}]*\}\}\s*$`)

func (r *readAhead) RoundTrip(req *http.Request) (*http.Response, error) {
	query := req.URL.Query()
	if req.Method != http.MethodGet || query.Get("limit") == "" || query.Get("watch") != "" || !strings.HasSuffix(req.URL.Path, "/prefetchtasks") {
		return r.to.RoundTrip(req)
	}
	r.mu.Lock()
	p := r.next[req.URL.Path]
	delete(r.next, req.URL.Path)
	r.mu.Unlock()
	if p != nil {
		select {
		case <-p.here:
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	if p == nil || p.err != nil || p.url != req.URL.String() {
		p = newPage(req)
		if p.get(r.to, req); p.err != nil {
			return nil, p.err
		}
	}
	if end := continues.FindSubmatch(p.body[max(0, len(p.body)-4096):]); end != nil && p.response.StatusCode == http.StatusOK {
		r.ahead(req, string(end[1]))
	}
	p.response.Request, p.response.Body = req, io.NopCloser(bytes.NewReader(p.body))
	return p.response, nil
}

// ahead asks for the page after one.
func (r *readAhead) ahead(req *http.Request, token string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), pageTimeout)
	next := req.Clone(ctx)
	query := next.URL.Query()
	query.Set("continue", token)
	next.URL.RawQuery = query.Encode()
	p := newPage(next)
	r.mu.Lock()
	r.next[req.URL.Path] = p
	r.mu.Unlock()
	go func() {
		defer cancel()
		p.get(r.to, next)
	}()
}

func newPage(req *http.Request) *page { return &page{url: req.URL.String(), here: make(chan struct{})} }

func (p *page) get(to http.RoundTripper, req *http.Request) {
	defer close(p.here)
	response, err := to.RoundTrip(req)
	if err != nil {
		p.err = err
		return
	}
	defer func() { _ = response.Body.Close() }()
	p.response = response
	p.body, p.err = io.ReadAll(response.Body)
}
