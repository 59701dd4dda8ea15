// Package verify asks public URLs whether EdgeOne has them in its cache. It asks each URL once, because
// only the first answer tells: the question itself makes EdgeOne fetch what it does not have.
package verify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// Config says how to ask.
type Config struct {
	// Concurrency is how many URLs are asked at once.
	Concurrency int
	// Timeout limits the time until the header of an answer.
	Timeout time.Duration
	// Addresses replaces what DNS says.
	Addresses Addresses
	// UserAgent is the name that the requests give.
	UserAgent string
}

// Ask asks every URL once and returns the answers in the order of the URLs. It ends early, with ctx's
// error, if ctx is done.
func Ask(ctx context.Context, urls []string, config Config) ([]Answer, error) {
	transport := newTransport(config)
	defer transport.CloseIdleConnections()
	answers := make([]Answer, len(urls))
	next := make(chan int)
	var workers sync.WaitGroup
	for range max(1, min(config.Concurrency, len(urls))) {
		workers.Go(func() {
			for i := range next {
				answers[i] = askURL(ctx, transport, urls[i], config)
			}
		})
	}
	for i := range urls {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	return answers, ctx.Err()
}

// newTransport returns a transport that does not ask for compressed answers, as EdgeOne's prefetch does
// not, and that reads no more of an answer than its header needs.
func newTransport(config Config) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         config.Addresses.dial,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		MaxIdleConnsPerHost: config.Concurrency,
	}
}

// askURL sends a GET, which a cache answers as it answers visitors. It closes the body unread. A
// transport follows no redirect.
func askURL(ctx context.Context, transport *http.Transport, rawURL string, config Config) Answer {
	answer := Answer{URL: rawURL, Outcome: NoAnswer}
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { answer.Address = info.Conn.RemoteAddr().String() },
	})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.Encode(rawURL), http.NoBody)
	if err != nil {
		answer.Error = withoutURL(err)
		return answer
	}
	request.Header.Set("User-Agent", config.UserAgent)
	response, err := transport.RoundTrip(request)
	if err != nil {
		answer.Error = withoutURL(err)
		if errors.Is(err, context.DeadlineExceeded) {
			answer.Error = fmt.Errorf("no answer within %v", config.Timeout)
		}
		return answer
	}
	_ = response.Body.Close()
	answer.read(response)
	return answer
}

// withoutURL returns an error without the URL, which stands beside it.
func withoutURL(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err
	}
	return err
}
