// Command smoke prefetches one URL with a real EdgeOne account, follows it to its outcome,
// and compares what EdgeOne does with what the operator assumes. Apart from the one call
// that prefetches the URL, it only reads. The table in docs/edgeone.md lists the
// assumptions and what breaks if one of them is wrong.
//
// Exit status: 0 if the URL was prefetched and no assumption is wrong, 1 otherwise, and 2
// if nothing was prefetched because of the input or the keys.
//
//   - main, settings: the command line and the environment
//   - wire: the transport, which lets one submission pass, and reads that the operator's
//     client does not make
//   - facts: the assumptions, the verdicts, and the report
//   - smoke: the steps of a run
//   - probes: what reads show before the URL is submitted
//   - submission, history: what the one call and its records show
//
// It uses the operator's client, and needs no cluster.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// The exit statuses.
const (
	exitOK      = 0
	exitDiffers = 1
	exitInput   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is the whole program. It returns the exit status.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	s, err := parseSettings(args, getenv, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if s != nil {
		stdout, stderr = redacting{stdout, secretsOf(s)}, redacting{stderr, secretsOf(s)}
	}
	if err == nil {
		var status int
		if status, err = runSmoke(ctx, s, stdout); err == nil {
			return status
		}
	}
	_, _ = fmt.Fprintf(stderr, "smoke: %v.\n", err)
	return exitInput
}
