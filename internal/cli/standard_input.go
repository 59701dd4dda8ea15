package cli

import (
	"context"
	"io"
)

// standardInput reads standard input until ctx is done, and then returns ctx's error. Nothing interrupts
// a read of a pipe or a terminal, so a goroutine of its own makes each read. Nothing is read ahead: what a
// command does not read is left to others, and a process in the background must not read its terminal.
type standardInput struct {
	ctx    context.Context
	source io.Reader
}

func (s standardInput) Read(p []byte) (int, error) {
	type result struct {
		bytes []byte
		err   error
	}
	read := make(chan result, 1)
	go func() {
		bytes := make([]byte, len(p)) // p is the caller's again when ctx is done
		n, err := s.source.Read(bytes)
		read <- result{bytes[:n], err}
	}()
	select {
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	case got := <-read:
		return copy(p, got.bytes), got.err
	}
}

// Fd returns the file descriptor, for isTerminal, or that of no file.
func (s standardInput) Fd() uintptr {
	if file, isFile := s.source.(interface{ Fd() uintptr }); isFile {
		return file.Fd()
	}
	return ^uintptr(0)
}
