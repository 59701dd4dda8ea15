// Package endpoint serves the manager's metrics and health probes. Whoever can
// connect can send anything, so everything that a request makes the manager hold is
// bounded: connections, header bytes, time, and requests to the API server.
package endpoint

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// The bounds of a server. docs/security.md has them.
const (
	// maxConnections is how many connections are open at a time.
	maxConnections = 64
	// maxHeaderBytes bounds the request line and the headers; net/http reads 4 KiB more.
	maxHeaderBytes = 8 << 10
	// readTimeout bounds the TLS handshake, and reading the headers and the body of a request.
	readTimeout = 5 * time.Second
	// writeTimeout bounds a request from its headers to the last byte of the response.
	// It leaves time for the API server to say who asks (reviewTimeout).
	writeTimeout = 30 * time.Second
	// idleTimeout is how long a connection is kept for the next request. It spans the
	// usual scrape intervals, so that a scraper connects once.
	idleTimeout = 90 * time.Second
	// shutdownTimeout is short: nobody who keeps a connection open may delay the release
	// of the lease, which follows.
	shutdownTimeout = time.Second
)

// newServer returns a server that listens on the address already, so that an address
// in use is an error at startup. It speaks HTTP/1.1, over TLS if secure is not nil.
func newServer(name, address string, secure *tls.Config, handler http.Handler) (*manager.Server, error) {
	bound, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for %s: %w", name, err)
	}
	listener := net.Listener(&boundedListener{Listener: bound})
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	// HTTP/2 would multiply what a connection can ask for at a time.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &manager.Server{
		Name:     name,
		Listener: listener,
		Server: &http.Server{
			Handler:           handler,
			Protocols:         protocols,
			MaxHeaderBytes:    maxHeaderBytes,
			ReadHeaderTimeout: readTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			ErrorLog:          log.New(errorLog{ctrl.Log.WithName("endpoint").WithValues("server", name)}, "", 0),
		},
		ShutdownTimeout: ptr.To(shutdownTimeout),
	}, nil
}

// errorLog takes what net/http complains about. All of it but a panic is about clients,
// any of which can make it complain as often as it likes.
type errorLog struct{ logr.Logger }

func (l errorLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	if bytes.Contains(line, []byte("panic serving")) {
		l.Error(nil, text)
	} else {
		l.V(1).Info(text)
	}
	return len(line), nil
}

// boundedListener keeps at most maxConnections open. One more closes the oldest. If it
// had to wait instead, whoever opens connections and sends nothing would keep the
// kubelet's probes out, and the kubelet would restart the pod.
type boundedListener struct {
	net.Listener

	mu   sync.Mutex
	open []*boundedConn // oldest first
}

// Accept waits for the next connection and makes room for it.
func (l *boundedListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &boundedConn{Conn: accepted, listener: l}
	l.mu.Lock()
	l.open = append(l.open, conn)
	var oldest *boundedConn
	if len(l.open) > maxConnections {
		oldest = l.open[0]
	}
	l.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // it forgets itself
	}
	return conn, nil
}

// boundedConn is a connection that its listener counts until it is closed.
type boundedConn struct {
	net.Conn
	listener *boundedListener
}

// Close closes the connection and forgets it.
func (c *boundedConn) Close() error {
	c.listener.forget(c)
	return c.Conn.Close()
}

func (l *boundedListener) forget(conn *boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, known := range l.open {
		if known == conn {
			l.open = append(l.open[:i], l.open[i+1:]...)
			return
		}
	}
}
