package endpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// metricsPath is the path of the metrics. A client needs RBAC permission to get this
// non-resource URL.
const metricsPath = "/metrics"

// maxScrapes is how many scrapes are served at a time. Any further scrape gets 503.
const maxScrapes = 4

// NewMetrics returns a server that serves the metrics of gatherer at /metrics. Its
// listener is open already. It serves over TLS with a self-signed certificate, and only
// to clients that the API server authenticates and authorizes. If apiServer is nil, it
// serves all clients, without TLS.
func NewMetrics(address string, gatherer prometheus.Gatherer, apiServer kubernetes.Interface) (*manager.Server, error) {
	handler := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.HTTPErrorOnError,
		MaxRequestsInFlight: maxScrapes,
	})
	var secure *tls.Config
	if apiServer != nil {
		certificate, err := newCertificate()
		if err != nil {
			return nil, fmt.Errorf("cannot sign a certificate for the metrics: %w", err)
		}
		secure = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
		handler = newAccess(apiServer).guard(handler)
	}
	mux := http.NewServeMux()
	mux.Handle(metricsPath, handler)
	return newServer("metrics", address, secure, mux)
}

// newCertificate returns a self-signed certificate. It only encrypts the connection and
// does not identify the server. An ECDSA key keeps a TLS handshake cheap, because any
// client can start one.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), // browsers refuse two certificates of one issuer with the same number
		Subject:      pkix.Name{CommonName: "teo-prefetch-operator"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
