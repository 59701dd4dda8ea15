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
	// Proxy returns the proxy for a request, or nil for none. If Proxy is nil, there is none.
	Proxy func(*http.Request) (*url.URL, error)
	// UserAgent is the name that the requests give.
	UserAgent string
}

// Ask asks every URL once and returns the answers in the order of the URLs, which are distinct. It ends
// early, with ctx's error, if ctx is done.
func Ask(ctx context.Context, urls []string, config Config) ([]Answer, error) {
	answers := make([]Answer, len(urls))
	next := make(chan int)
	var workers sync.WaitGroup
	for range max(1, min(config.Concurrency, len(urls))) {
		workers.Go(func() {
			for i := range next {
				answers[i] = askURL(ctx, urls[i], config)
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

// newTransport returns a transport for one request. A connection serves no second request, because
// net/http repeats a GET if a connection breaks that it has used before, and HTTP/2 does if a server
// refuses a stream. The transport does not ask for compressed answers, as EdgeOne's prefetch does not.
func newTransport(request *http.Request, config Config) (*http.Transport, error) {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, Protocols: &http.Protocols{}}
	transport.Protocols.SetHTTP1(true)
	if config.Proxy != nil {
		proxy, err := config.Proxy(request)
		if err != nil {
			return nil, err
		}
		if proxy != nil { // it finds the address, and may have a private one itself
			transport.Proxy = http.ProxyURL(proxy)
			return transport, nil
		}
	}
	transport.DialContext = config.Addresses.dial
	return transport, nil
}

// askURL asks a URL. It closes the body unread.
func askURL(ctx context.Context, rawURL string, config Config) Answer {
	answer := Answer{URL: rawURL, Outcome: NoAnswer}
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { answer.Address = info.Conn.RemoteAddr().String() },
	})
	response, err := sendGet(ctx, rawURL, config)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		answer.Error = fmt.Errorf("no answer within %v", config.Timeout)
	case err != nil:
		answer.Error = withoutURL(err)
	default:
		_ = response.Body.Close()
		answer.read(response)
	}
	return answer
}

// sendGet sends a GET, which a cache answers as it answers visitors. It follows no redirect.
func sendGet(ctx context.Context, rawURL string, config Config) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.Encode(rawURL), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", config.UserAgent)
	transport, err := newTransport(request, config)
	if err != nil {
		return nil, err
	}
	return transport.RoundTrip(request)
}

// withoutURL returns an error without the URL, which stands beside it.
func withoutURL(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err
	}
	return err
}
