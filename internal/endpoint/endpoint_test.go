package endpoint

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// apiServer answers reviews. The tokens "reader" and "other" belong to users; only the
// user reader may get /metrics.
type apiServer struct {
	tokenReviews, accessReviews atomic.Int64
	down                        atomic.Bool
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.down.Load() {
		http.Error(w, "no leader", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/apis/authentication.k8s.io/v1/tokenreviews":
		a.tokenReviews.Add(1)
		var review authenticationv1.TokenReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		if token := review.Spec.Token; token == "reader" || token == "other" {
			review.Status = authenticationv1.TokenReviewStatus{
				Authenticated: true,
				User:          authenticationv1.UserInfo{Username: token, Groups: []string{"system:authenticated"}},
			}
		} else {
			review.Status.Error = "[invalid bearer token, token lookup failed]"
		}
		_ = json.NewEncoder(w).Encode(review)
	case "/apis/authorization.k8s.io/v1/subjectaccessreviews":
		a.accessReviews.Add(1)
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		path := review.Spec.NonResourceAttributes
		review.Status.Allowed = review.Spec.User == "reader" && path.Path == "/metrics" && path.Verb == "get" && len(review.Spec.Groups) == 1
		_ = json.NewEncoder(w).Encode(review)
	default:
		http.NotFound(w, r)
	}
}

// start runs the server until the test ends.
func start(t *testing.T, server *manager.Server, err error) (address string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), logr.Discard()))
	stopped := make(chan error, 1)
	go func() { stopped <- server.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-stopped:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(shutdownTimeout + time.Second):
			t.Error("clients keep the server from stopping")
		}
	})
	return server.Listener.Addr().String()
}

func startMetrics(t *testing.T) (string, *apiServer) {
	t.Helper()
	reviews := &apiServer{}
	fake := httptest.NewServer(reviews)
	t.Cleanup(fake.Close)
	clients, err := kubernetes.NewForConfig(&rest.Config{Host: fake.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "works"}))
	server, err := NewMetrics("127.0.0.1:0", registry, clients)
	return start(t, server, err), reviews
}

// client returns a client that connects from an address of this machine.
func client(t *testing.T, from string) *http.Client {
	transport := &http.Transport{
		DialContext:     (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func scrape(t *testing.T, c *http.Client, method, address, authorization string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestMetricsAreForReadersOnly(t *testing.T) {
	address, _ := startMetrics(t)
	c := client(t, "127.0.0.1")
	for _, tt := range []struct {
		name, method, authorization string
		want                        int
	}{
		{"a reader", http.MethodGet, "Bearer reader", http.StatusOK},
		{"a reader in other letters", http.MethodGet, "bearer  reader", http.StatusUnauthorized}, // two spaces, so the token is empty, as for the API server
		{"a scheme in lower case", http.MethodGet, "bearer reader", http.StatusOK},
		{"a user who may not", http.MethodGet, "Bearer other", http.StatusForbidden},
		{"a token of nobody", http.MethodGet, "Bearer forged", http.StatusUnauthorized},
		{"no token", http.MethodGet, "", http.StatusUnauthorized},
		{"an empty token", http.MethodGet, "Bearer ", http.StatusUnauthorized},
		{"a password", http.MethodGet, "Basic cmVhZGVyOg==", http.StatusUnauthorized},
		{"a reader who posts", http.MethodPost, "Bearer reader", http.StatusMethodNotAllowed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := scrape(t, c, tt.method, address, tt.authorization)
			if code != tt.want || (code == http.StatusOK) != strings.Contains(body, "works 0") {
				t.Errorf("it answers %d, want %d: %s", code, tt.want, body)
			}
		})
	}
}

func TestRequestsWithoutATokenCostTheAPIServerNothing(t *testing.T) {
	address, reviews := startMetrics(t)
	c := client(t, "127.0.0.1")
	for range 500 {
		if code, _ := scrape(t, c, http.MethodGet, address, ""); code != http.StatusUnauthorized {
			t.Fatalf("it answers %d", code)
		}
	}
	if n := reviews.tokenReviews.Load() + reviews.accessReviews.Load(); n != 0 {
		t.Errorf("the API server was asked %d times", n)
	}
}

func TestATokenIsReviewedOnceInAWhile(t *testing.T) {
	address, reviews := startMetrics(t)
	c := client(t, "127.0.0.1")
	for token, want := range map[string]int{"reader": http.StatusOK, "other": http.StatusForbidden, "forged": http.StatusUnauthorized} {
		for range 50 {
			if code, _ := scrape(t, c, http.MethodGet, address, "Bearer "+token); code != want {
				t.Fatalf("%s gets %d, want %d", token, code, want)
			}
		}
	}
	if n := reviews.tokenReviews.Load(); n != 3 {
		t.Errorf("3 tokens were reviewed %d times", n)
	}
	if n := reviews.accessReviews.Load(); n != 2 {
		t.Errorf("the access of 2 users was reviewed %d times", n)
	}
}

func TestAFloodOfForgedTokensIsRefusedAndKeepsNoReaderOut(t *testing.T) {
	address, reviews := startMetrics(t)
	began := time.Now()
	flood := client(t, "127.0.0.2")
	for i := range 400 {
		code, body := scrape(t, flood, http.MethodGet, address, fmt.Sprintf("Bearer forged-%d", i))
		if code != http.StatusUnauthorized && code != http.StatusTooManyRequests {
			t.Fatalf("it answers %d: %s", code, body)
		}
	}
	most := addressReviewBurst + addressReviewsPerSecond*int64(1+time.Since(began)/time.Second)
	if n := reviews.tokenReviews.Load(); n > most {
		t.Errorf("the API server was asked about %d tokens, want at most %d", n, most)
	}
	if code, _ := scrape(t, client(t, "127.0.0.1"), http.MethodGet, address, "Bearer reader"); code != http.StatusOK {
		t.Errorf("the reader gets %d", code)
	}
}

func TestAnAPIServerThatDoesNotAnswerIsNotTakenForARefusal(t *testing.T) {
	address, reviews := startMetrics(t)
	c := client(t, "127.0.0.1")
	reviews.down.Store(true)
	if code, _ := scrape(t, c, http.MethodGet, address, "Bearer reader"); code != http.StatusServiceUnavailable {
		t.Errorf("it answers %d", code)
	}
	reviews.down.Store(false)
	if code, _ := scrape(t, c, http.MethodGet, address, "Bearer reader"); code != http.StatusOK {
		t.Errorf("once the API server answers: %d", code)
	}
}

func TestRefusalsAreNotLoggedUnlessAskedForAndTokensNever(t *testing.T) {
	for level, want := range map[int]bool{0: false, 10: true} {
		var mu sync.Mutex
		var lines []string
		logger := funcr.New(func(prefix, args string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, prefix+args)
		}, funcr.Options{Verbosity: level})
		reviews := &apiServer{}
		fake := httptest.NewServer(reviews)
		clients, err := kubernetes.NewForConfig(&rest.Config{Host: fake.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
		if err != nil {
			t.Fatal(err)
		}
		access := newAccess(clients)
		access.log = logger
		for _, token := range []string{"forged-secret", "other"} {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			r = r.WithContext(logr.NewContext(r.Context(), logger))
			access.guard(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
		}
		fake.Close()
		all := strings.Join(lines, "\n")
		if (all != "") != want || strings.Contains(all, "forged-secret") {
			t.Errorf("at level %d it logs:\n%s", level, all)
		}
	}
}

func startProbes(t *testing.T, ready healthz.Checker) string {
	t.Helper()
	server, err := NewProbes("127.0.0.1:0", map[string]healthz.Checker{"tasks": ready})
	return start(t, server, err)
}

func TestProbesHaveTheUsualPaths(t *testing.T) {
	var unready atomic.Bool
	address := startProbes(t, func(*http.Request) error {
		if unready.Load() {
			return io.EOF
		}
		return nil
	})
	for _, tt := range []struct {
		path    string
		unready bool
		want    int
	}{
		{"/healthz", false, http.StatusOK},
		{"/healthz/", true, http.StatusOK},
		{"/readyz", false, http.StatusOK},
		{"/readyz?verbose=1", false, http.StatusOK},
		{"/readyz", true, http.StatusInternalServerError},
		{"/readyz/tasks", true, http.StatusInternalServerError},
		{"/", false, http.StatusNotFound},
	} {
		unready.Store(tt.unready)
		resp, err := client(t, "127.0.0.1").Get("http://" + address + tt.path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s, unready %t: %d, want %d", tt.path, tt.unready, resp.StatusCode, tt.want)
		}
	}
}

// heap returns the size of the reachable heap, in bytes.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestHeadersThatAreNeverFinishedTakeLittleMemoryAndKeepNoProbeOut(t *testing.T) {
	address := startProbes(t, healthz.Ping)
	before := heap()
	half := []byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Filler: " + strings.Repeat("a", 900<<10))
	for range 300 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = conn.Write(half)
	}
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	}
	resp, err := client(t, "127.0.0.1").Get("http://" + address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the probe gets %d", resp.StatusCode)
	}
}

func TestConnectionsThatSendNothingKeepNoProbeOut(t *testing.T) {
	address := startProbes(t, healthz.Ping)
	open := make([]net.Conn, 4*maxConnections)
	for i := range open {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		open[i] = conn
	}
	c := client(t, "127.0.0.1")
	c.Timeout = time.Second // like the kubelet's
	resp, err := c.Get("http://" + address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	for i, conn := range open[:len(open)-maxConnections] {
		_ = conn.SetReadDeadline(time.Now().Add(readTimeout / 4))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d is still open: %v", i, err)
		}
	}
}

func TestAClientThatKeepsAConnectionOpenDoesNotKeepTheServerFromStopping(t *testing.T) {
	var conn net.Conn
	t.Cleanup(func() { _ = conn.Close() })
	address := startProbes(t, healthz.Ping) // cleanups run in reverse order, so the server stops before conn is closed
	var err error
	if conn, err = net.Dial("tcp", address); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n")); err != nil {
		t.Fatal(err)
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	address := startProbes(t, healthz.Ping)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Filler: " + strings.Repeat("a", maxHeaderBytes+4<<10)))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("it answers %d", resp.StatusCode)
	}
}
