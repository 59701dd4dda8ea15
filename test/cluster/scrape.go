package cluster

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
)

// Scrape reads the metrics of a manager over TLS. It does not verify the certificate,
// because the manager signs it itself. If token is not "", Scrape sends it as a bearer
// token. A status of 0 means that there was no response; text then contains the error.
func Scrape(ctx context.Context, url, token string) (status int, text string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} //nolint:gosec // signed by the manager itself
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}
