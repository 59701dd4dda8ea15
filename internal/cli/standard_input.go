package cli

import (
	"context"
	"io"
	"sync"
)

// standardInput reads standard input until ctx is done, and then returns ctx's error. Nothing interrupts
// a read of a pipe or a terminal, so a goroutine reads. It starts with the first Read: a command that
// reads nothing leaves standard input to others.
type standardInput struct {
	source io.Reader
	open   func() *io.PipeReader
}

func newStandardInput(ctx context.Context, source io.Reader) *standardInput {
	return &standardInput{source: source, open: sync.OnceValue(func() *io.PipeReader {
		reader, writer := io.Pipe()
		context.AfterFunc(ctx, func() { _ = writer.CloseWithError(ctx.Err()) })
		go func() {
			_, err := io.Copy(writer, source)
			_ = writer.CloseWithError(err)
		}()
		return reader
	})}
}

func (s *standardInput) Read(p []byte) (int, error) { return s.open().Read(p) }

// Fd returns the file descriptor, for isTerminal, or that of no file.
func (s *standardInput) Fd() uintptr {
	if file, isFile := s.source.(interface{ Fd() uintptr }); isFile {
		return file.Fd()
	}
	return ^uintptr(0)
}
