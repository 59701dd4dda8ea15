package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// The exit codes of all commands. They are stable.
const (
	// ExitSuccess says that the command did what it was asked to, and for wait that every
	// target is prefetched.
	ExitSuccess = 0
	// ExitError is every error that has no code of its own.
	ExitError = 1
	// ExitFailedTargets says that the run is over and some targets failed. For verify, it
	// says that some URLs are not in the cache.
	ExitFailedTargets = 2
	// ExitUserAction says that nothing goes on until a person acts. For plan, it says that
	// the task does not fit into today's quota.
	ExitUserAction = 3
	// ExitTimeout says that the time of --timeout is over.
	ExitTimeout = 4
	// ExitInterrupted says that Ctrl-C ended the command, as shells say it.
	ExitInterrupted = 130
)

// exitError is an error with an exit code of its own. With a nil err, nothing is printed,
// because the command has already said it.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// ProgramName is the name of the program, and CompletionName the one under which kubectl runs it to
// complete arguments.
const (
	ProgramName    = "kubectl-teo_prefetch"
	CompletionName = "kubectl_complete-teo_prefetch"
)

// Main runs the command line and returns the exit code. It ends early, also while it reads standard
// input, if ctx is done.
func Main(ctx context.Context, args []string, streams genericiooptions.IOStreams, version string) (code int) {
	defer func() {
		if fault := recover(); fault != nil { // the runtime would exit with 2, which is ExitFailedTargets
			_, _ = fmt.Fprintf(streams.ErrOut, "Error: a fault of this program, please report it: %v\n%s", fault, debug.Stack())
			code = ExitError
		}
	}()
	streams.In = standardInput{ctx, streams.In}
	root := NewCommand(streams, version)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitSuccess
	}
	code = ExitError
	exit := exitError{}
	switch {
	case errors.As(err, &exit):
		if code, err = exit.code, exit.err; err == nil {
			return code
		}
	case ctx.Err() != nil:
		code, err = ExitInterrupted, errors.New("interrupted")
	}
	_ = printLine(streams.ErrOut, "Error: %v", explain(err))
	return code
}

// NewCommand returns the command with all its subcommands.
func NewCommand(streams genericiooptions.IOStreams, version string) *cobra.Command {
	env := newEnvironment(streams, version)
	root := &cobra.Command{
		Use:   ProgramName, // in completion scripts; users read the name of the annotation
		Short: "Plan, submit, follow and verify prefetches of Tencent EdgeOne",
		Annotations: map[string]string{
			cobra.CommandDisplayNameAnnotation: "kubectl teo-prefetch",
		},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	env.addFlags(root)
	root.AddCommand(newPlanCommand(env))
	root.AddCommand(newSubmitCommand(env))
	root.AddCommand(newWaitCommand(env))
	root.AddCommand(newWhyCommand(env))
	root.AddCommand(newFailedCommand(env))
	root.AddCommand(newRetryCommand(env), newSuspendCommand(env), newResumeCommand(env), newRerunCommand(env))
	root.AddCommand(newQuotaCommand(env))
	root.AddCommand(newVerifyCommand(env))
	root.AddCommand(newVersionCommand(env))
	root.SetFlagErrorFunc(explainFlag)
	refuseUnknownShells(root)
	return root
}
