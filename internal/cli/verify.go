package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/verify"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// verifyCommand is verify with its flags.
type verifyCommand struct {
	env      *environment
	output   outputFlag
	filename string
	sample   int
	seed     uint64
	resolve  []string
	config   verify.Config
}

func newVerifyCommand(env *environment) *cobra.Command {
	v := &verifyCommand{env: env}
	v.config.UserAgent, v.config.Proxy = env.userAgent(), http.ProxyFromEnvironment
	cmd := &cobra.Command{
		Use:   "verify {NAME | -f FILE}",
		Short: "Ask public URLs whether EdgeOne has them in its cache",
		Long: `Ask the public URLs of a task, or a sample of them, whether EdgeOne has them in its cache.

Each URL is asked once, with a GET whose body is not read, from this machine. Only the EdgeOne node
that is nearest to it answers. A URL that this node does not have is fetched from the origin.
The exit code is 2 if an asked URL is not in the cache.`,
		Example: `  # Ask 20 URLs, spread over the list
  kubectl teo-prefetch verify warm-home

  # Ask all URLs of a file
  kubectl teo-prefetch verify -f urls.txt --sample=0

  # Ask a certain node
  kubectl teo-prefetch verify warm-home --resolve=www.example.com:443:192.0.2.1`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: env.completeTask,
		RunE:              func(cmd *cobra.Command, args []string) error { return v.run(cmd.Context(), args) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&v.filename, "filename", "f", "", "File with one URL a line, in place of a task; - is standard input")
	flags.IntVar(&v.sample, "sample", 20, "How many URLs to ask, spread over the list; 0 is all")
	flags.Uint64Var(&v.seed, "seed", 1, "Another seed selects other URLs, the same seed the same ones")
	flags.IntVar(&v.config.Concurrency, "concurrency", 4, "How many URLs to ask at once")
	flags.DurationVar(&v.config.Timeout, "timeout", 10*time.Second, "Time that each URL has to answer")
	flags.StringArrayVar(&v.resolve, "resolve", nil, "Address to connect to for a host and port, as HOST:PORT:ADDRESS; * is every host; can be repeated")
	v.output.addTo(cmd)
	return cmd
}

func (v *verifyCommand) run(ctx context.Context, args []string) error {
	if err := v.validate(args); err != nil {
		return err
	}
	result := &VerifyResult{OutputHeader: newOutputHeader("VerifyResult"), Seed: v.seed}
	urls, err := v.readURLs(ctx, args, result)
	if err != nil {
		return err
	}
	urls = verify.Distinct(urls)
	sample := verify.Sample(urls, v.sample, v.seed)
	if result.From, err = os.Hostname(); err != nil {
		result.From = "unknown"
	}
	_ = printLine(v.env.ErrOut, "Asking %d of %d URLs from %s. Only the EdgeOne node nearest to it answers.", len(sample), len(urls), result.From)
	answers, err := verify.Ask(ctx, sample, v.config)
	if err != nil {
		return err
	}
	result.addAnswers(len(urls), answers)
	if err := v.print(result); err != nil {
		return err
	}
	if result.Hits < len(result.Answers) {
		return exitError{code: ExitFailedTargets}
	}
	return nil
}

// validate checks what no server is needed for.
func (v *verifyCommand) validate(args []string) (err error) {
	switch {
	case len(args) == 0 && v.filename == "":
		return errors.New("no task is named: give its name, or --filename with a list of URLs")
	case len(args) > 0 && v.filename != "":
		return errors.New("give the name of a task or --filename, not both")
	case v.sample < 0:
		return errors.New("--sample must not be negative: 0 asks all URLs")
	case v.config.Concurrency < 1 || v.config.Concurrency > 64:
		return errors.New("--concurrency must be between 1 and 64")
	case v.config.Timeout <= 0:
		return errors.New("--timeout must be positive, for example 10s")
	}
	if v.config.Addresses, err = verify.ParseAddresses(v.resolve); err != nil {
		return err
	}
	return v.output.validate()
}

// readURLs reads the URLs of the task or of the file.
func (v *verifyCommand) readURLs(ctx context.Context, args []string, result *VerifyResult) (urls []string, err error) {
	if v.filename != "" {
		err = v.env.readURLs(v.filename, func(rawURL string) error {
			urls = append(urls, rawURL)
			return nil
		})
		if err == nil && len(urls) == 0 {
			err = errors.New("the list has no URLs, so there is nothing to ask")
		}
		return urls, err
	}
	task, c, err := v.env.readTask(ctx, args[0])
	if err != nil {
		return nil, err
	}
	resolved, err := resolveTargets(ctx, c, task)
	if err != nil {
		return nil, err
	}
	run := progress.Of(resolved)
	result.addRun(task, resolved, run)
	v.announceRun(result, run)
	return taskstate.DistinctTargets(resolved), nil
}

// announceRun says on standard error how far the run of the task is.
func (v *verifyCommand) announceRun(result *VerifyResult, run progress.Progress) {
	state := result.Phase
	if run.Reason != "" && run.Reason != state {
		state += " (" + run.Reason + ")"
	}
	sentences := append([]string{fmt.Sprintf("%s is %s: %d of %d targets prefetched", result.Name, state, run.Succeeded, run.Total)}, result.Notes...)
	for _, sentence := range sentences {
		_ = printLine(v.env.ErrOut, "%s.", sentence)
	}
}
