package teo

import (
	"errors"
	"io"
	"sync"
)

// onceBody is the body of a call. It returns each byte at most once, so no transport can
// send a call twice. It also knows how much the transport has read. EdgeOne cannot
// execute a request that lacks a byte of the body that its signature covers, whatever
// happens to the rest of the request. With any transport, the body therefore knows
// whether EdgeOne may have executed the call. This holds even if the transport still
// writes after its caller has the error.
type onceBody struct {
	mu     sync.Mutex
	rest   []byte
	begun  bool // the transport has read something
	sealed bool // no further reads; see seal
}

// progress is how much of a request's body the transport has read.
type progress int

const (
	unsent  progress = iota // nothing: the request was not sent
	cutOff                  // a part: the connection ended in the middle of the request
	sentAll                 // everything: EdgeOne may have executed the request
)

// errSealed is the error of a read after seal.
var errSealed = errors.New("the call was given up")

// Read implements io.Reader. It fails after seal.
func (b *onceBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sealed {
		return 0, errSealed
	}
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	b.begun = true
	return n, nil
}

// Close does nothing: there is nothing to free, and seal needs the unread bytes.
func (b *onceBody) Close() error { return nil }

// seal prevents any further reading and returns how much was read.
func (b *onceBody) seal() progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed = true
	switch {
	case len(b.rest) == 0:
		return sentAll
	case b.begun:
		return cutOff
	}
	return unsent
}
