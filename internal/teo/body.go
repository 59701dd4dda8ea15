package teo

import (
	"errors"
	"io"
	"sync"
)

// onceBody is the body of a call. It hands out each byte at most once, so no
// transport can send a call twice, and it knows how much was handed out: a
// request that lacks a byte of the body its signature covers cannot be
// executed, whatever became of the rest of it. That answers "can this have
// been executed?" for every transport alike, and without a race with one that
// still writes while its caller already has the error.
type onceBody struct {
	mu     sync.Mutex
	rest   []byte
	begun  bool
	sealed bool
}

// progress is how much of a request's body the transport has read.
type progress int

const (
	unsent  progress = iota // nothing: the request did not leave
	cutOff                  // a part: the connection ended in the middle of the request
	sentAll                 // everything: the request may have been executed
)

var errSealed = errors.New("the call was given up")

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

// Close does nothing: there is nothing to free, and what is left unread says
// something.
func (b *onceBody) Close() error { return nil }

// seal refuses any further reading and returns how much was read.
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
