package kube

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// NewReadAhead wraps the transport to the API server: while the manager reads one page
// of a list of tasks it asks for the next. Both take about as long for a page, and
// would wait for each other otherwise, for half of the time that a start beside many
// tasks takes. A page that was asked for in vain is dropped when a list begins again, or
// after two minutes.
//
// A page that is too large for the manager's memory is asked for again with fewer
// tasks: that of a thousand tasks may have a megabyte or a gigabyte.
func NewReadAhead(to http.RoundTripper) http.RoundTripper {
	return &readAhead{to: to, next: map[string]*prefetchedPage{}}
}

type readAhead struct {
	to   http.RoundTripper
	mu   sync.Mutex
	next map[string]*prefetchedPage // by path, the page after the one that was read last
}

// prefetchedPage is an answer that is under way or here.
type prefetchedPage struct {
	url      string // as it was or will be asked for
	limit    int    // how many tasks it may have
	here     chan struct{}
	response *http.Response
	body     []byte
	err      error
}

// maxPage is how many bytes a page may have that has more than one task. Parsed it takes
// a few times as much, and the next one is read meanwhile.
const maxPage = 16 << 20

// maxAhead is how many pages are kept that were not read yet: each list of a watched
// namespace may have one.
const maxAhead = 4

// pageTimeout is how long a page may take that nobody may be waiting for.
const pageTimeout = time.Minute

// continues is how a list of custom resources ends that has a next page.
var continues = regexp.MustCompile(`"metadata":\{"continue":"([^"\\]+)"[^{}]*\}\}\s*$`)

func (r *readAhead) RoundTrip(req *http.Request) (*http.Response, error) {
	query := req.URL.Query()
	limit, err := strconv.Atoi(query.Get("limit"))
	if req.Method != http.MethodGet || err != nil || query.Get("watch") != "" || !strings.HasSuffix(req.URL.Path, "/prefetchtasks") {
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
		p = newPrefetchedPage(req, limit)
		if p.fetchPage(r.to, req); p.err != nil {
			return nil, p.err
		}
	}
	if end := continues.FindSubmatch(p.body[max(0, len(p.body)-4096):]); end != nil && p.response.StatusCode == http.StatusOK {
		if len(p.body) < maxPage/4 {
			p.limit = min(2*p.limit, limit)
		}
		r.fetchAhead(req, string(end[1]), p.limit)
	}
	p.response.Request, p.response.Body = req, io.NopCloser(bytes.NewReader(p.body))
	return p.response, nil
}

// fetchAhead asks for the page after one, unless many pages are here that were not read yet.
func (r *readAhead) fetchAhead(req *http.Request, token string, limit int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), pageTimeout)
	next := withParameter(req.WithContext(ctx), "continue", token)
	p := newPrefetchedPage(next, limit)
	r.mu.Lock()
	full := len(r.next) >= maxAhead
	if !full {
		r.next[req.URL.Path] = p
	}
	r.mu.Unlock()
	if full {
		cancel()
		return
	}
	go func() {
		defer cancel()
		p.fetchPage(r.to, next)
	}()
	time.AfterFunc(2*pageTimeout, func() { // the list has ended early
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.next[req.URL.Path] == p {
			delete(r.next, req.URL.Path)
		}
	})
}

// withParameter returns a copy of a request with one parameter changed.
func withParameter(req *http.Request, name, value string) *http.Request {
	req = req.Clone(req.Context())
	query := req.URL.Query()
	query.Set(name, value)
	req.URL.RawQuery = query.Encode()
	return req
}

func newPrefetchedPage(req *http.Request, limit int) *prefetchedPage {
	return &prefetchedPage{url: req.URL.String(), limit: limit, here: make(chan struct{})}
}

// fetchPage reads the page, with fewer tasks if they are large.
func (p *prefetchedPage) fetchPage(to http.RoundTripper, req *http.Request) {
	defer close(p.here)
	for {
		p.tryFetch(to, withParameter(req, "limit", strconv.Itoa(p.limit)))
		if len(p.body) <= maxPage || p.limit == 1 {
			return
		}
		p.limit = max(1, p.limit/4)
	}
}

// tryFetch reads the page, of one that is too large only the beginning.
func (p *prefetchedPage) tryFetch(to http.RoundTripper, req *http.Request) {
	p.body = nil // before there is another
	response, err := to.RoundTrip(req)
	if err != nil {
		p.err = err
		return
	}
	defer func() { _ = response.Body.Close() }()
	p.response = response
	body := io.Reader(response.Body)
	if p.limit > 1 {
		body = io.LimitReader(body, maxPage+1)
	}
	p.body, p.err = io.ReadAll(body)
}
