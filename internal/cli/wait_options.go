package cli

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
)

// waitOptions are the flags of commands that wait.
type waitOptions struct {
	// timeout is how long to wait, if it is not 0.
	timeout time.Duration
	// stalledGrace is how long a task may be Stalled before the wait ends.
	stalledGrace time.Duration
	output       outputFlag
}

// defaultStalledGrace is the value of --stalled-grace.
const defaultStalledGrace = 10 * time.Second

func (o *waitOptions) addTo(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "How long to wait, for example 45m; 0 waits without a limit")
	cmd.Flags().DurationVar(&o.stalledGrace, "stalled-grace", defaultStalledGrace,
		"How long a task may need a person before the wait ends: what it lacks may be on its way")
}

func (o *waitOptions) validate() error {
	if o.timeout < 0 || o.stalledGrace < 0 {
		return errors.New("--timeout and --stalled-grace must not be negative")
	}
	return o.output.validate()
}

// refuse refuses the flags of a command that does not wait.
func (o *waitOptions) refuse() error {
	if o.timeout != 0 || o.stalledGrace != 0 && o.stalledGrace != defaultStalledGrace {
		return errors.New("--timeout and --stalled-grace are of no use without --wait: give --wait as well")
	}
	return nil
}

// arguments returns the options as a command line has them.
func (o *waitOptions) arguments() (args []string) {
	if o.timeout > 0 {
		args = append(args, "--timeout="+o.timeout.String())
	}
	if o.stalledGrace != defaultStalledGrace {
		args = append(args, "--stalled-grace="+o.stalledGrace.String())
	}
	if o.output.format != "" {
		args = append(args, "-o", o.output.format)
	}
	return args
}
