package cli

import (
	"bufio"
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
func (c *confirmation) ask(env *environment, question string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(env.In) || !isTerminal(env.ErrOut) {
		return errors.New("nothing was changed: nobody can be asked, because this is not a terminal; give --yes to confirm")
	}
	_, _ = fmt.Fprintf(env.ErrOut, "%s [y/N] ", question)
	answer, err := bufio.NewReader(env.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) { // Ctrl-D is no
		_, _ = fmt.Fprintln(env.ErrOut)
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errNotConfirmed
}
