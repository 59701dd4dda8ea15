package cli

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

// keyboard is an input that counts its reads. After one line, nobody types more.
type keyboard struct{ reads int }

func (k *keyboard) Read(p []byte) (int, error) {
	if k.reads++; k.reads == 1 {
		return copy(p, "yes\n"), nil
	}
	select {}
}

func TestStandardInputIsReadOnlyWhenAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user := &keyboard{}
		line := make([]byte, 10)
		n, err := standardInput{t.Context(), user}.Read(line)
		synctest.Wait()
		if string(line[:n]) != "yes\n" || err != nil || user.reads != 1 {
			t.Errorf("%q, %v after %d reads", line[:n], err, user.reads)
		}
	})
}

func TestStandardInputEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	source, user := io.Pipe()
	defer func() { _ = user.Close() }()
	ended := make(chan error)
	go func() {
		_, err := io.ReadAll(standardInput{ctx, source})
		ended <- err
	}()
	if _, err := user.Write([]byte("more follows\n")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if isTerminal(standardInput{ctx, source}) {
		t.Error("a pipe is a terminal")
	}
}
