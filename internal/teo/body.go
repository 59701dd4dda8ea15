package teo

import (
	"errors"
	"io"
	"sync"
)

// onceBody is the body of a call. It hands out each byte at most once, so no
// transport can send a call twice, and it knows whether all were handed out:
// a request that lacks a byte of the body its signature covers cannot be
// executed, whatever became of the rest of it. That answers "can this have
// been executed?" for every transport alike, and without a race with one that
// still writes while its caller already has the error.
type onceBody struct {
	mu     sync.Mutex
	rest   []byte
	sealed bool
}

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
	return n, nil
}

// Close does nothing: there is nothing to free, and what is left unread says
// something.
func (b *onceBody) Close() error { return nil }

// seal refuses any further reading and says whether the whole body was read,
// that is, whether the request may have been executed.
func (b *onceBody) seal() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed = true
	return len(b.rest) == 0
}
