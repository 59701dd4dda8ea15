package docs

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// site is what www.example.com answers: its path and its sitemap. Other paths answer 404.
var site = map[string]string{
	"/sitemap.xml": `<urlset>
<url><loc>https://www.example.com/</loc></url>
<url><loc>https://www.example.com/articles/1.html</loc></url>
<url><loc>https://www.example.com/articles/1.pdf</loc></url>
</urlset>`,
	// EdgeOne's simulation fails to prefetch what is below /missing/.
	"/missing/sitemap.xml": `<urlset><url><loc>https://www.example.com/missing/page.html</loc></url></urlset>`,
}

// startSite plays https://www.example.com until the test ends. It returns the environment in
// which programs reach it: through a proxy, with the certificate of the test.
func startSite(t *testing.T) (env []string) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, isThere := site[r.URL.Path]
		if !isThere || r.Host != "www.example.com" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "www.example.com:443" {
			http.Error(w, "the test has only www.example.com", http.StatusBadGateway)
			return
		}
		pipe(w, strings.TrimPrefix(server.URL, "https://"))
	}))
	t.Cleanup(proxy.Close)
	certificate := filepath.Join(t.TempDir(), "certificate.pem")
	must(t, os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return []string{"HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + certificate}
}

// pipe connects the client of a proxy with an address, until one of them ends the connection.
func pipe(w http.ResponseWriter, address string) {
	server, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = server.Close() }()
	w.WriteHeader(http.StatusOK)
	client, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = client.Close() }()
	ended := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(server, buffered); ended <- struct{}{} }()
	go func() { _, _ = io.Copy(client, server); ended <- struct{}{} }()
	<-ended
}
