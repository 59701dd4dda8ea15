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

// metricsPath is what a reader needs the permission to get.
const metricsPath = "/metrics"

// maxScrapes is how many scrapes are answered at a time; one more gets 503.
const maxScrapes = 4

// NewMetrics returns a server of what gatherer has, at /metrics. It listens already. It
// asks the API server who a reader is and whether the reader may get the path, and
// serves over TLS with a certificate that it signs itself. If apiServer is nil it serves
// everybody, without TLS.
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

// newCertificate signs itself, so that it serves to encrypt the connection only. Its kind
// of key makes a handshake, which strangers may ask for, cost little.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), // browsers refuse two of one issuer with the same
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
