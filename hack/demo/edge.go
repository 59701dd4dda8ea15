package main

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// edge is a node of the simulated EdgeOne. Programs reach it as an HTTP proxy, so that they can ask
// for https://www.example.com.
type edge struct {
	node, proxy *httptest.Server
	certificate string // the file with the certificate that it answers with
}

// startEdge starts a node that has the copies of a simulated EdgeOne.
func startEdge(dir string, edgeOne simulator.Control) (*edge, error) {
	e := &edge{certificate: filepath.Join(dir, "edge.crt")}
	e.node = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answerVisit(w, r, edgeOne) }))
	e.node.Config.ErrorLog = log.New(io.Discard, "", 0) // clients close connections that they do not need
	e.node.StartTLS()
	e.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { e.connectToNode(w) }))
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.node.Certificate().Raw})
	return e, os.WriteFile(e.certificate, certificate, 0o600)
}

// proxyVariables returns the environment variables with which a program reaches the node.
func (e *edge) proxyVariables() []string {
	return []string{"HTTPS_PROXY=" + e.proxy.URL, "SSL_CERT_FILE=" + e.certificate}
}

// stop ends the node and its proxy.
func (e *edge) stop() {
	e.node.CloseClientConnections()
	e.node.Close()
	e.proxy.Close()
}

// answerVisit answers as EdgeOne answers a visitor. The origin forbids caches to keep what is called
// cart.
func answerVisit(w http.ResponseWriter, r *http.Request, edgeOne simulator.Control) {
	seen, err := edgeOne.Visit(r.Context(), simulator.Visit{URLs: []string{"https://" + r.Host + r.URL.String()}, NoFill: true})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("ETag", strconv.Quote("v"+strconv.Itoa(seen[0].Version)))
	if path.Base(r.URL.Path) == "cart" {
		header.Set("EO-Cache-Status", simulator.StatusMiss)
		header.Set("Set-Cookie", "cart=1")
		return
	}
	header.Set("EO-Cache-Status", seen[0].Status)
}

// connectToNode connects a client of the proxy with the node, whatever host it asks for.
func (e *edge) connectToNode(w http.ResponseWriter) {
	node, err := net.Dial("tcp", e.node.Listener.Addr().String())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = node.Close()
		return
	}
	_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { _, _ = io.Copy(node, client); _ = node.Close() }()
	go func() { _, _ = io.Copy(client, node); _ = client.Close() }()
}
