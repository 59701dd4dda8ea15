// Package endpoint serves the manager's metrics and health probes. Any client that can
// connect can send anything. Everything that a request makes the manager hold is
// therefore bounded: connections, header bytes, time, and requests to the API server.
//
//   - server.go: a server with these bounds.
//   - metrics.go: the server of the metrics; access.go decides who may read them.
//   - probes.go: the server of the health probes.
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

// The bounds of a server. docs/security.md documents them.
const (
	// maxConnections is how many connections can be open at a time.
	maxConnections = 64
	// maxHeaderBytes bounds the request line and the headers; net/http reads 4 KiB more.
	maxHeaderBytes = 8 << 10
	// readTimeout bounds the TLS handshake, and the reading of the headers and the body
	// of a request.
	readTimeout = 5 * time.Second
	// writeTimeout bounds a request from its headers to the last byte of the response. It
	// includes the time that the API server needs to authenticate the client
	// (reviewTimeout).
	writeTimeout = 30 * time.Second
	// idleTimeout is how long an idle connection is kept. It is longer than the usual
	// scrape intervals, so a scraper connects only once.
	idleTimeout = 90 * time.Second
	// shutdownTimeout is short, because the lease is released after the servers stop. A
	// client that keeps a connection open must not delay that.
	shutdownTimeout = time.Second
)

// newServer returns a server whose listener is open already, so an address in use is an
// error at startup. It speaks HTTP/1.1, over TLS if secure is not nil.
func newServer(name, address string, secure *tls.Config, handler http.Handler) (*manager.Server, error) {
	bound, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for %s: %w", name, err)
	}
	listener := net.Listener(&boundedListener{Listener: bound})
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	// HTTP/2 would allow more concurrent requests on each connection.
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

// errorLog logs the messages of net/http. Apart from panics, they are about clients, and
// any client can cause any number of them. They are therefore logged at level 1.
type errorLog struct{ logr.Logger }

// Write implements io.Writer.
func (l errorLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	if bytes.Contains(line, []byte("panic serving")) {
		l.Error(nil, text)
	} else {
		l.V(1).Info(text)
	}
	return len(line), nil
}

// boundedListener keeps at most maxConnections open: a further connection closes the
// oldest one. If new connections waited instead, a client that opens connections and
// sends nothing could block the kubelet's probes, and the kubelet would restart the pod.
type boundedListener struct {
	net.Listener

	mu   sync.Mutex
	open []*boundedConn // oldest first
}

// Accept waits for the next connection, and closes the oldest one if there are too many.
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
		_ = oldest.Close() // Close also removes it from l.open
	}
	return conn, nil
}

// boundedConn is a connection that its listener counts until it is closed.
type boundedConn struct {
	net.Conn
	listener *boundedListener
}

// Close closes the connection and removes it from the listener's count.
func (c *boundedConn) Close() error {
	c.listener.forget(c)
	return c.Conn.Close()
}

// forget removes a connection from the open ones, if it is still there.
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
