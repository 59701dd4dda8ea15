package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/verify"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
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
	v.config.UserAgent = "kubectl-teo_prefetch/" + env.version
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
	flags.StringArrayVar(&v.resolve, "resolve", nil, "Address to connect to for a host and port, as HOST:PORT:ADDRESS; * is every host")
	v.output.addTo(cmd)
	return cmd
}

func (v *verifyCommand) run(ctx context.Context, args []string) error {
	if err := v.validate(args); err != nil {
		return err
	}
	result := &VerifyResult{OutputHeader: newOutputHeader("VerifyResult"), Seed: v.seed}
	targets, err := v.readTargets(ctx, args, result)
	if err != nil {
		return err
	}
	urls := make([]string, len(targets))
	for i, target := range targets {
		urls[i] = string(target)
	}
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

// readTargets reads the URLs of the task or of the file.
func (v *verifyCommand) readTargets(ctx context.Context, args []string, result *VerifyResult) ([]v1alpha1.Target, error) {
	if v.filename != "" {
		return v.readFile()
	}
	namespace, err := v.env.namespace()
	if err != nil {
		return nil, err
	}
	c, err := v.env.client()
	if err != nil {
		return nil, err
	}
	task, err := getTask(ctx, c, client.ObjectKey{Namespace: namespace, Name: trimKind(args[0])})
	if err != nil {
		return nil, err
	}
	if task, err = resolveTargets(ctx, c, task); err != nil {
		return nil, err
	}
	result.Namespace, result.Name = task.Namespace, task.Name
	return task.Spec.Targets, nil
}

// readFile reads the URLs of the file, by the rules of lists in ConfigMaps.
func (v *verifyCommand) readFile() ([]v1alpha1.Target, error) {
	var text []byte
	var err error
	if v.filename == "-" {
		text, err = io.ReadAll(v.env.In)
	} else {
		text, err = os.ReadFile(v.filename)
	}
	if err != nil {
		return nil, fmt.Errorf("the list cannot be read: %w", err)
	}
	targets, err := targetlist.ParseTargets(string(text))
	if err != nil {
		return nil, fmt.Errorf("the list %s: %w", v.filename, err)
	}
	return targets, nil
}
