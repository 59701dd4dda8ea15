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

// NewReadAhead wraps the transport to the API server. While the manager parses one page
// of a list of tasks, the transport requests the next page. The manager and the API
// server need about the same time for a page. Without read-ahead, they would wait for
// each other, which doubles the startup time in a cluster with many tasks. An unused page
// is dropped when a new list starts, or after two minutes.
//
// If a page is too large for the manager's memory, the transport requests it again with
// fewer tasks. A page of a thousand tasks may have a megabyte or a gigabyte.
func NewReadAhead(to http.RoundTripper) http.RoundTripper {
	return &readAhead{to: to, next: map[string]*prefetchedPage{}}
}

// readAhead is the transport that NewReadAhead returns.
type readAhead struct {
	to   http.RoundTripper
	mu   sync.Mutex                 // guards next
	next map[string]*prefetchedPage // by path: the page after the last one that was read
}

// prefetchedPage is a response that is being fetched or has arrived. Read response, body
// and err only after here is closed.
type prefetchedPage struct {
	url      string        // URL of the manager's request for this page
	limit    int           // maximum number of tasks in the page
	here     chan struct{} // closed when the response has arrived or failed
	response *http.Response
	body     []byte
	err      error
}

// maxPage is the maximum size, in bytes, of a page with more than one task. The parsed
// page needs several times as much memory, and the transport reads the next page at the
// same time.
const maxPage = 16 << 20

// maxAhead is the maximum number of prefetched pages that the manager has not read yet.
// Each watched namespace has its own list, and each list may have one prefetched page.
const maxAhead = 4

// pageTimeout bounds a prefetch. The context of the manager's request does not bound it,
// because the prefetch continues after that request has ended.
const pageTimeout = time.Minute

// continues matches the end of a list of custom resources that has a next page. Its group
// is the token of the next page. The API server writes the metadata of such a list last.
var continues = regexp.MustCompile(`"metadata":\{"continue":"([^"\\]+)"[^{}]*\}\}\s*$`)

// RoundTrip returns the prefetched page if the request is for it, and starts the prefetch
// of the page that follows. It only handles lists of tasks with a limit. It passes on all
// other requests unchanged.
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
	// A failed prefetch, or the page of another list, is dropped. The request then fetches
	// its own page.
	if p == nil || p.err != nil || p.url != req.URL.String() {
		p = newPrefetchedPage(req, limit)
		if p.fetchPage(r.to, req); p.err != nil {
			return nil, p.err
		}
	}
	if end := continues.FindSubmatch(p.body[max(0, len(p.body)-4096):]); end != nil && p.response.StatusCode == http.StatusOK {
		if len(p.body) < maxPage/4 { // the tasks are small again
			p.limit = min(2*p.limit, limit)
		}
		r.fetchAhead(req, string(end[1]), p.limit)
	}
	p.response.Request, p.response.Body = req, io.NopCloser(bytes.NewReader(p.body))
	return p.response, nil
}

// fetchAhead requests the page with this token, unless maxAhead pages are unread.
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
	time.AfterFunc(2*pageTimeout, func() { // the list ended early
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

// newPrefetchedPage returns a page that fetchPage has yet to fetch.
func newPrefetchedPage(req *http.Request, limit int) *prefetchedPage {
	return &prefetchedPage{url: req.URL.String(), limit: limit, here: make(chan struct{})}
}

// fetchPage reads the page. If the page is larger than maxPage, it tries again with a
// quarter of the tasks, down to a single task.
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

// tryFetch reads the page once. It stops reading after maxPage bytes, except for a page
// with a single task.
func (p *prefetchedPage) tryFetch(to http.RoundTripper, req *http.Request) {
	p.body = nil // free the previous body first
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
