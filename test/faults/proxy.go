package faults

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// Proxy is a reverse proxy between a client and the API server. It injects faults (see
// Fault) that look like faults of the network or the API server. If each client has its
// own proxy, a fault can affect one client only. Without faults, a proxy forwards
// everything at once, and watches event by event.
//
// A proxy serves TLS with the API server's own certificate. Only the address in a client's
// kubeconfig differs from a direct connection. Like the API server, a proxy serves HTTP/2:
// to close the connection of one request, it resets the request's stream. Clients see the
// same while the API server is down.
type Proxy struct {
	url       string
	target    *url.URL
	transport *http.Transport
	server    *http.Server
	served    chan struct{}
	requests  *request.RequestInfoFactory
	closed    context.Context // done when the proxy stops: ends every held and delayed request
	close     context.CancelFunc

	mu      sync.Mutex
	faults  []*activeFault
	taken   map[int]int // how many requests each ended fault has struck
	faultID int
	watches map[*openWatch]bool
}

// StartProxy starts a proxy to a cluster's API server. It ends with the cluster.
func StartProxy(c *cluster.Cluster) (*Proxy, error) {
	target, err := url.Parse(c.Admin.Host)
	if err != nil {
		return nil, err
	}
	cert, err := c.ServingCertificate()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.Admin.CAData)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		url:    "https://" + listener.Addr().String(),
		target: target,
		transport: &http.Transport{
			TLSClientConfig:    &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:  true,
			DisableCompression: true, // pass on the encoding that the client asked for
		},
		served:   make(chan struct{}),
		requests: &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")},
		taken:    map[int]int{},
		watches:  map[*openWatch]bool{},
	}
	p.closed, p.close = context.WithCancel(context.Background())
	p.server = &http.Server{
		Handler:           p,
		ReadHeaderTimeout: time.Minute,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ErrorLog:          log.New(io.Discard, "", 0), // omits errors about unfinished handshakes of killed clients
	}
	go func() {
		defer close(p.served)
		_ = p.server.ServeTLS(listener, "", "") // always returns ErrServerClosed
	}()
	c.AroundStop(p.ClearFaults, p.stop) // a stopping client may still have requests to send
	return p, nil
}

// Config returns a copy of cfg that connects through the proxy.
func (p *Proxy) Config(cfg *rest.Config) *rest.Config {
	through := rest.CopyConfig(cfg)
	through.Host = p.url
	return through
}

// stop ends all requests and stops the server.
func (p *Proxy) stop() {
	p.close()
	_ = p.server.Close()
	<-p.served
	p.transport.CloseIdleConnections()
}

// ServeHTTP forwards a request to the API server and sends the response back. The faults
// apply on both ways.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // closes the connection
	}
	c := p.newCall(r, body)
	if c.verb == "watch" {
		p.watch(w, r, c)
		return
	}
	// The API server may still execute the request of a client that has given up.
	ctx := context.WithoutCancel(r.Context())
	struck := p.strikeCall(c)
	if !p.passStage(p.closed, struck, atRequest) {
		panic(http.ErrAbortHandler)
	}
	answering := struck.answeringEffect()
	var resp *http.Response
	if answering == nil || answering.Executed {
		if resp, err = p.forward(ctx, r, body); err != nil {
			panic(http.ErrAbortHandler)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err = io.ReadAll(resp.Body)
	}
	if !p.passStage(p.closed, struck, atAnswer) || err != nil {
		panic(http.ErrAbortHandler)
	}
	if answering != nil {
		answering.answer(w, c)
		return
	}
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body) // the API server does not care whether the client is gone
}

// forward sends the request to the API server.
func (p *Proxy) forward(ctx context.Context, r *http.Request, body []byte) (*http.Response, error) {
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = p.target.Scheme, p.target.Host, p.target.Host, ""
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	return p.transport.RoundTrip(out)
}

// call is what a Match is compared with: a request, or an event of a watch.
type call struct {
	verb, resource, namespace, name string
	body                            []byte
	info                            *request.RequestInfo
	method                          string
}

// newCall parses a request as the API server does.
func (p *Proxy) newCall(r *http.Request, body []byte) *call {
	info, err := p.requests.NewRequestInfo(r)
	if err != nil {
		info = &request.RequestInfo{}
	}
	resource := info.Resource
	if info.Subresource != "" {
		resource += "/" + info.Subresource
	}
	return &call{info.Verb, resource, info.Namespace, info.Name, body, info, r.Method}
}

// openWatch is an open watch.
type openWatch struct {
	cut  context.CancelFunc
	call *call
	deaf bool // a fault drops its events
}

// watch forwards a watch, event by event. It requests JSON, which has one event per line.
func (p *Proxy) watch(w http.ResponseWriter, r *http.Request, c *call) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.closed, cancel)()
	struck := p.strikeCall(c)
	if !p.passStage(ctx, struck, atRequest) {
		panic(http.ErrAbortHandler)
	}
	if answering := struck.answeringEffect(); answering != nil {
		answering.answer(w, c)
		return
	}
	open := &openWatch{cut: cancel, call: c}
	p.mu.Lock()
	p.watches[open] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watches, open)
	}()
	r.Header.Set("Accept-Encoding", "identity") // compressed data would not end at the end of an event
	if strings.Contains(r.Header.Get("Accept"), "protobuf") {
		r.Header.Set("Accept", "application/json")
	}
	resp, err := p.forward(ctx, r, nil)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer func() { _ = resp.Body.Close() }()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	flusher := http.NewResponseController(w)
	_ = flusher.Flush()
	for events := bufio.NewReader(resp.Body); ; {
		event, err := events.ReadBytes('\n')
		if len(event) > 0 && p.deliversEvent(ctx, open, event) {
			_, _ = w.Write(event)
			_ = flusher.Flush()
		}
		if errors.Is(err, io.EOF) && ctx.Err() == nil {
			return // the API server closes watches from time to time
		} else if err != nil || ctx.Err() != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// deliversEvent applies the faults to an event, and reports whether the event gets
// through.
func (p *Proxy) deliversEvent(ctx context.Context, w *openWatch, event []byte) bool {
	c := *w.call
	c.verb, c.body = eventVerb, event
	struck := p.strikeCall(&c)
	p.mu.Lock()
	for _, f := range struck {
		if f.Effect.Drop {
			f.deafened[w], w.deaf = true, true
		}
	}
	deaf := w.deaf
	p.mu.Unlock()
	if deaf {
		return false
	}
	if !p.passStage(ctx, struck, atRequest) {
		w.cut()
		return false
	}
	return true
}

// CutWatches closes the connections of the open watches that m selects, and returns their
// number. Clients resume their watches after the last event that they received.
func (p *Proxy) CutWatches(m Match) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for w := range p.watches {
		if m.selectsCall(w.call) {
			w.cut()
			n++
		}
	}
	return n
}

// CountWatches returns how many open watches m selects.
func (p *Proxy) CountWatches(m Match) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watches {
		if m.selectsCall(w.call) {
			n++
		}
	}
	return n
}

// answer sends a response in place of the API server.
func (e Effect) answer(w http.ResponseWriter, c *call) {
	if e.Close {
		panic(http.ErrAbortHandler)
	}
	retryAfter := 0
	if e.Status == http.StatusTooManyRequests {
		retryAfter = 1
	}
	resource := schema.GroupResource{Group: c.info.APIGroup, Resource: c.info.Resource}
	status := apierrors.NewGenericServerResponse(e.Status, c.method, resource, c.name, "the proxy was told to", retryAfter, false).Status()
	status.Kind, status.APIVersion = "Status", "v1"
	w.Header().Set("Content-Type", "application/json")
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(status)
}

// endFaultLocked saves how many requests the fault has struck, and releases those it
// holds.
func (p *Proxy) endFaultLocked(f *activeFault) {
	p.taken[f.id] = f.taken
	if f.held != nil {
		f.held.end(true)
	}
	for w := range f.deafened {
		w.cut()
	}
}

func (p *Proxy) removeFaults(which func(*activeFault) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = slices.DeleteFunc(p.faults, func(f *activeFault) bool {
		if which(f) {
			p.endFaultLocked(f)
			return true
		}
		return false
	})
}
