package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
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

func ask(t *testing.T, config Config, urls ...string) []Answer {
	t.Helper()
	if config.Timeout == 0 {
		config.Timeout = time.Minute
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
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"max-age=0, No-Store"}}, NotCacheable, []string{"Cache-Control: no-store"}},
		{200, http.Header{"Eo-Cache-Status": {"MISS"}, "Cache-Control": {"x", `private="a"`}}, NotCacheable, []string{"Cache-Control: private"}},
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
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := Ask(ctx, []string{url, url, url}, Config{Timeout: time.Hour}); !errors.Is(err, context.Canceled) {
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
	if a, err := ParseAddresses([]string{"a:443:[::1]"}); err != nil || a["a:443"] != "[::1]:443" {
		t.Error(a, err)
	}
	for _, text := range []string{"", "a", "a:443", "a:0:::1", "a:x:127.0.0.1", "a:443:b", ":443:127.0.0.1", "a:70000:127.0.0.1"} {
		if _, err := ParseAddresses([]string{text}); err == nil {
			t.Errorf("%q is accepted", text)
		}
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
