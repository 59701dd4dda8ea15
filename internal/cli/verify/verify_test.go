package verify

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve starts a server that plays EdgeOne: the name of the path says which header it answers with.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// ask asks servers of a test. Their addresses are not public, so it names them.
func ask(t *testing.T, config Config, urls ...string) []Answer {
	t.Helper()
	if config.Timeout == 0 {
		config.Timeout = time.Minute
	}
	if config.Addresses == nil {
		config.Addresses = Addresses{}
		for _, rawURL := range urls {
			if u, err := url.Parse(rawURL); err == nil {
				config.Addresses[u.Host] = u.Host
			}
		}
	}
	answers, err := Ask(t.Context(), urls, config)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

func TestTheFirstAnswerTellsTheOutcome(t *testing.T) {
	for _, c := range []struct {
		status  int
		header  http.Header
		want    Outcome
		forbids []string
	}{
		{200, http.Header{"Eo-Cache-Status": {"HIT"}}, Hit, nil},
		{200, http.Header{"Eo-Cache-Status": {"RefreshHit"}}, RefreshHit, nil},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}}, Miss, nil},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"max-age=60"}, "Vary": {"Accept-Encoding"}}, Miss, nil},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"No-Store, no-cache"}}, NotCacheable, []string{"Cache-Control: no-store", "Cache-Control: no-cache"}},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"public, Max-Age=0"}}, NotCacheable, []string{"Cache-Control: max-age=0"}},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"max-age=60", `s-maxage="0"`}}, NotCacheable, []string{"Cache-Control: s-maxage=0"}},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"max-age=0, s-maxage=60"}, "Expires": {"0"}}, Miss, nil},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"max-age=x"}, "Expires": {"0"}}, Miss, nil},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Expires": {"0"}}, NotCacheable, []string{"Expires: 0"}},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Expires": {"Thu, 19 Nov 1981 08:52:00 GMT"}}, NotCacheable, []string{"Expires: Thu, 19 Nov 1981 08:52:00 GMT"}},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Expires": {"Fri, 31 Dec 9999 23:59:59 GMT"}}, Miss, nil},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"x", `private="a"`}}, NotCacheable, []string{"Cache-Control: private"}},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {`x="a, no-store", max-age=60`}}, Miss, nil},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Set-Cookie": {"a=b"}, "Vary": {"Origin, *"}}, NotCacheable, []string{"Set-Cookie", "Vary: *"}},
		{200, http.Header{"Eo-Cache-Status": {"HIT"}, "Set-Cookie": {"a=b"}}, Hit, []string{"Set-Cookie"}},
		{200, http.Header{"Set-Cookie": {"a=b"}}, NotEdgeOne, []string{"Set-Cookie"}},
		{302, http.Header{"Eo-Cache-Status": {"HIT"}, "Location": {"/elsewhere"}}, Redirect, nil},
		{404, http.Header{"Eo-Cache-Status": {"HIT"}}, HTTPError, nil},
	} {
		var requests atomic.Int32
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			if r.Method != http.MethodGet || r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("%s with Accept-Encoding %q", r.Method, r.Header.Get("Accept-Encoding"))
			}
			for name, values := range c.header {
				w.Header()[name] = values
			}
			w.Header().Set("Age", "7")
			w.Header().Set("ETag", `"v1"`)
			w.WriteHeader(c.status)
		})
		a := ask(t, Config{}, url+"/x")[0]
		if a.Outcome != c.want || a.Status != c.status || !slices.Equal(a.Forbids, c.forbids) || requests.Load() != 1 ||
			a.CacheStatus != c.header.Get("EO-Cache-Status") || a.Age != "7" || a.ETag != `"v1"` || a.Location != c.header.Get("Location") ||
			"http://"+a.Address != url || a.Error != nil {
			t.Errorf("%d %v: %+v after %d requests", c.status, c.header, a, requests.Load())
		}
	}
}

func TestTheBodyIsNotRead(t *testing.T) {
	ended := make(chan error, 1)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("EO-Cache-Status", "HIT")
		block := bytes.Repeat([]byte("x"), 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				ended <- err
				return
			}
		}
	})
	if a := ask(t, Config{}, url)[0]; a.Outcome != Hit {
		t.Errorf("%+v", a)
	}
	if err := <-ended; err == nil {
		t.Error("the whole body was read")
	}
}

func TestAnswersKeepTheOrderAndConcurrencyIsBounded(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		defer func() { mu.Lock(); now--; mu.Unlock() }()
		w.Header().Set("EO-Cache-Status", "HIT")
		w.Header().Set("ETag", r.URL.Path)
	})
	var urls []string
	for i := range 50 {
		urls = append(urls, fmt.Sprintf("%s/%d", url, i))
	}
	for i, a := range ask(t, Config{Concurrency: 3}, urls...) {
		if a.URL != urls[i] || a.ETag != fmt.Sprintf("/%d", i) {
			t.Errorf("%d: %+v", i, a)
		}
	}
	if most > 3 {
		t.Errorf("%d URLs were asked at once", most)
	}
}

func TestFailuresAreAnswersOfTheirURLs(t *testing.T) {
	release := make(chan struct{})
	slow := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	_ = listener.Close()
	answers := append(ask(t, Config{Timeout: 100 * time.Millisecond}, slow), ask(t, Config{}, "http://"+closed, "ftp://x/", "http://a b/")...)
	for i, want := range []string{"no answer within 100ms", "refused", "unsupported protocol", "invalid character"} {
		if a := answers[i]; a.Outcome != NoAnswer || a.Error == nil || !strings.Contains(a.Error.Error(), want) || strings.Contains(a.Error.Error(), "http://") {
			t.Errorf("%s: %+v", want, a)
		}
	}
}

func TestADoneContextEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	host := strings.TrimPrefix(server, "http://")
	config := Config{Timeout: time.Hour, Addresses: Addresses{host: host}}
	if _, err := Ask(ctx, []string{server, server, server}, config); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestResolveReplacesDNS(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("ETag", r.Host) })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	for _, host := range []string{"WWW.example.invalid", "*"} {
		addresses, err := ParseAddresses([]string{host + ":" + port + ":127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		a := ask(t, Config{Addresses: addresses}, "http://www.example.invalid:"+port+"/")[0]
		if a.ETag != "www.example.invalid:"+port || a.Outcome != NotEdgeOne {
			t.Errorf("%s: %+v", host, a)
		}
	}
	addresses, err := ParseAddresses([]string{"a:443:127.0.0.1", "A:443:127.0.0.2"})
	if want := "--resolve has two addresses for a:443: give one, and run verify once for each address"; err == nil || err.Error() != want {
		t.Errorf("%v, %v", addresses, err)
	}
	if a, err := ParseAddresses([]string{"a:443:[::1]"}); err != nil || a["a:443"] != "[::1]:443" {
		t.Error(a, err)
	}
	for _, text := range []string{"", "a", "a:443", "a:0:::1", "a:x:127.0.0.1", "a:443:b", ":443:127.0.0.1", "a:70000:127.0.0.1"} {
		if _, err := ParseAddresses([]string{text}); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestAURLIsAskedOnceAlsoIfAConnectionBreaks(t *testing.T) {
	var mu sync.Mutex
	asked, known := map[string]int{}, map[string]bool{}
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.Path]++
		if known[r.RemoteAddr] {
			panic(http.ErrAbortHandler) // breaks a connection at its second request
		}
		known[r.RemoteAddr] = true
	})
	for _, a := range ask(t, Config{}, server+"/1", server+"/2", server+"/3") {
		if a.Outcome != NotEdgeOne {
			t.Errorf("%+v", a)
		}
	}
	if len(asked) != 3 || asked["/1"]+asked["/2"]+asked["/3"] != 3 {
		t.Errorf("asked: %v", asked)
	}
}

func TestOnlyPublicAddressesAreAskedUnasked(t *testing.T) {
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s is asked", r.Host) })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(server, "http://"))
	for _, host := range []string{"127.0.0.1", "LOCALHOST"} {
		a := ask(t, Config{Addresses: Addresses{}}, "http://"+host+":"+port+"/")[0]
		want := "this is not a public address; --resolve=" + strings.ToLower(host) + ":" + port + ":"
		if a.Outcome != NoAnswer || a.Error == nil || !strings.Contains(a.Error.Error(), want) {
			t.Errorf("%s: %+v, want %s", host, a, want)
		}
	}
	for text, want := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "172.32.0.1": true, "198.18.0.1": true, "100.128.0.1": true,
		"127.0.0.1": false, "10.0.0.1": false, "172.16.0.1": false, "192.168.0.1": false, "169.254.169.254": false, "100.100.100.200": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "fe80::1%eth0": false, "fd00::1": false, "ff02::1": false, "::ffff:100.64.0.1": false,
	} {
		if got := isPublic(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: public is %v", text, got)
		}
	}
}

func TestAProxyMayHaveAPrivateAddress(t *testing.T) {
	proxy, err := url.Parse(serve(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("ETag", r.URL.String()) }))
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Proxy: http.ProxyURL(proxy), Addresses: Addresses{}}
	if a := ask(t, config, "http://www.example.com/")[0]; a.ETag != "http://www.example.com/" || a.Address != proxy.Host {
		t.Errorf("%+v", a)
	}
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, errors.New("HTTPS_PROXY is not a URL") }
	if a := ask(t, config, "http://www.example.com/")[0]; a.Outcome != NoAnswer || a.Error == nil || a.Error.Error() != "HTTPS_PROXY is not a URL" {
		t.Errorf("%+v", a)
	}
}

func TestHTTPSNeedsTheCertificateOfTheHostAlsoWithResolve(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("EO-Cache-Status", "HIT")
		w.Header().Set("ETag", r.TLS.ServerName+" "+r.Proto)
	}))
	server.EnableHTTP2, server.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	server.StartTLS() // for *.example.com
	t.Cleanup(server.Close)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(roots, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", roots) // is read once: no other test of this package asks with HTTPS
	address := server.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	config := Config{Addresses: Addresses{"*:" + port: address}}
	answers := ask(t, config, "https://www.example.com:"+port+"/", "https://www.example.net:"+port+"/")
	if a := answers[0]; a.Outcome != Hit || a.ETag != "www.example.com HTTP/1.1" || a.Error != nil {
		t.Errorf("%+v", a)
	}
	if a := answers[1]; a.Outcome != NoAnswer || a.Error == nil || !strings.Contains(a.Error.Error(), "not www.example.net") {
		t.Errorf("%+v", a)
	}
}

func TestSpellingsOfOneURLAreOneURL(t *testing.T) {
	got := Distinct([]string{"https://h/a", "https://h/b#x", "https://h/a", "https://H:443/b#y", "https://h/%e4", "https://h/%E4", "https://h/a?"})
	if want := []string{"https://h/a", "https://h/b#x", "https://h/%e4", "https://h/a?"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestTheSampleIsSpreadAndCanBeRepeated(t *testing.T) {
	var urls []string
	for i := range 1003 {
		urls = append(urls, fmt.Sprint(i))
	}
	first := Sample(urls, 20, 1)
	if len(first) != 20 || !slices.Equal(first, Sample(urls, 20, 1)) || slices.Equal(first, Sample(urls, 20, 2)) {
		t.Errorf("%v", first)
	}
	for i, got := range first {
		if at := slices.Index(urls, got); at < i*1003/20 || at >= (i+1)*1003/20 {
			t.Errorf("%d of the sample is at %d", i, at)
		}
	}
	for _, size := range []int{0, 1003, 5000} {
		if !slices.Equal(Sample(urls, size, 1), urls) {
			t.Errorf("size %d is not the list", size)
		}
	}
}
