package simulator

import (
	"bytes"
	"cmp"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
)

// RoundTripper returns a transport that reaches the simulator in memory, whatever host
// the request names. A lost answer becomes the error that a real connection would return.
// As on a network, a request continues when its caller gives up; [Simulator.Close] ends
// such requests.
func (s *Simulator) RoundTripper() http.RoundTripper { return transport{s} }

type transport struct{ s *Simulator }

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		_ = req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	arrived := &http.Request{Method: req.Method, URL: req.URL, Host: req.Host, Header: req.Header.Clone()}
	if arrived.Host == "" {
		arrived.Host = req.URL.Host
	}
	if !t.s.begin() {
		return nil, connectionError("dial", syscall.ECONNREFUSED)
	}
	answered := make(chan answer, 1)
	go func() { answered <- t.s.handle(arrived, body) }()

	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case a := <-answered:
		switch a.fate {
		case fateClose:
			return nil, io.EOF
		case fateReset:
			return nil, connectionError("read", syscall.ECONNRESET)
		}
		return a.response(req), nil
	}
}

// connectionError returns an error as the net package does.
func connectionError(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, errno)}
}

// response returns the answer as an HTTP response.
func (a answer) response(req *http.Request) *http.Response {
	var body io.Reader = bytes.NewReader(a.body)
	if a.fate == fateTruncate {
		body = io.MultiReader(bytes.NewReader(a.body[:len(a.body)/2]), brokenReader{})
	}
	return &http.Response{
		Status:     strconv.Itoa(a.status) + " " + cmp.Or(a.statusText, http.StatusText(a.status)),
		StatusCode: a.status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        a.header(),
		Body:          io.NopCloser(body),
		ContentLength: int64(len(a.body)),
		Request:       req,
	}
}

// brokenReader is the rest of a body after its connection broke.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
