package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// confirmation is the flag --yes of a command that asks before it acts.
type confirmation struct{ yes bool }

func (c *confirmation) addTo(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "Do not ask for confirmation")
}

// errNotConfirmed says that a person answered no.
var errNotConfirmed = errors.New("nothing was changed")

// ask asks a question on a terminal, and returns nil if the answer is yes. Without a terminal and
// without --yes, it is an error: a pipeline has nobody to answer.
func (c *confirmation) ask(ctx context.Context, env *environment, question string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(env.In) || !isTerminal(env.ErrOut) {
		return errors.New("nothing was changed: nobody can be asked, because this is not a terminal; give --yes to confirm")
	}
	_, _ = fmt.Fprintf(env.ErrOut, "%s [y/N] ", question)
	answer, err := readLine(ctx, env.In)
	if err != nil {
		_, _ = fmt.Fprintln(env.ErrOut)
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errNotConfirmed
}

// readLine reads a line, until ctx is done.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := bufio.NewReader(r).ReadString('\n')
		read <- result{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case got := <-read:
		if errors.Is(got.err, io.EOF) { // Ctrl-D is no
			return got.line, nil
		}
		return got.line, got.err
	}
}
