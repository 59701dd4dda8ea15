// Command simulator is a simulated EdgeOne for rehearsals: it needs no account and costs
// nothing.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

const usage = `simulator behaves like Tencent EdgeOne's prefetch and purge API: it verifies signatures,
meters rates and quotas and runs jobs. It prints a line for every call.

Usage:
  simulator [flags]

Where:
  --listen ADDRESS            address to serve (default 127.0.0.1:8081; port 0: any free one)
  --config FILE               zones, keys, rules and limits, as JSON (default: built in)
  --print-config              print the built-in configuration and exit, to start your own from
  --quiet                     print no line for each call

Limits and times, over those of the configuration:
  --qps N                     calls a second for each action and account (default 20; -1: any)
  --qps-window KIND           how they are counted: sliding, fixed or bucket (default sliding)
  --signature-validity TIME   how old a signature may be (default 5m)
  --clock-offset TIME         how far this EdgeOne's clock is ahead (default 0s)
  --job-duration TIME         how long a target is processing (default 2s; -1s: not at all)
  --purge-duration TIME       the same for targets of purges (default: as --job-duration)
  --listing-delay TIME        how long until a job can be looked up (default 0s)
  --quota-reset HH:MM         time of day, UTC, at which daily quotas return (default: never)

The built-in configuration has the keys AKIDdemo / demo-secret-key, for the zones
zone-ajj243dwrew (www.qq.com), zone-2x9examplea (*.example.com) and
zone-3smallquota0 (small.example.net, 3 URLs a day), and AKIDtenant /
tenant-secret-key, for zone-4tenant00000 (shop.example.org). A URL with /broken/
in it fails, one with /missing/ ends as invalid, one with /refused/ is refused.

README.md of this command describes the configuration. GET /_simulator/ says how
to look into the simulator and make it misbehave.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the values of the flags. config includes the flags that override it.
type options struct {
	listen      string
	config      simulator.Config
	printConfig bool
	quiet       bool
}

// run serves until ctx ends and returns the exit code: 2 for a wrong command line or
// configuration, 1 if the simulator cannot serve.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, usage)
		return 0
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "simulator: %v. See simulator --help.\n", err)
		return 2
	case o.printConfig:
		_, _ = stdout.Write(simulator.DemoConfig)
		return 0
	}
	if err := serve(ctx, o, stdout); err != nil {
		_, _ = fmt.Fprintf(stderr, "simulator: %v\n", err)
		return 1
	}
	return 0
}

// parse reads the command line and the configuration file that it names. Flags override
// the configuration.
func parse(args []string) (options, error) {
	var o options
	var file string
	var over simulator.Config
	flags := flag.NewFlagSet("simulator", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8081", "")
	flags.StringVar(&file, "config", "", "")
	flags.BoolVar(&o.printConfig, "print-config", false, "")
	flags.BoolVar(&o.quiet, "quiet", false, "")
	flags.IntVar(&over.Rate, "qps", 0, "")
	flags.StringVar((*string)(&over.RateWindow), "qps-window", "", "")
	flags.DurationVar(&over.SignatureValidity, "signature-validity", 0, "")
	flags.DurationVar(&over.ClockOffset, "clock-offset", 0, "")
	flags.DurationVar(&over.JobDuration, "job-duration", 0, "")
	flags.DurationVar(&over.PurgeDuration, "purge-duration", 0, "")
	flags.DurationVar(&over.ListingDelay, "listing-delay", 0, "")
	flags.StringVar(&over.QuotaResetAt, "quota-reset", "", "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	o.config = simulator.Demo()
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return o, err
		}
		defer func() { _ = f.Close() }()
		if o.config, err = simulator.ReadConfig(f); err != nil {
			return o, fmt.Errorf("%s: %w", file, err)
		}
	}
	c := &o.config
	c.Rate = cmp.Or(over.Rate, c.Rate)
	c.RateWindow = cmp.Or(over.RateWindow, c.RateWindow)
	c.SignatureValidity = cmp.Or(over.SignatureValidity, c.SignatureValidity)
	c.ClockOffset = cmp.Or(over.ClockOffset, c.ClockOffset)
	c.JobDuration = cmp.Or(over.JobDuration, c.JobDuration)
	c.PurgeDuration = cmp.Or(over.PurgeDuration, c.PurgeDuration)
	c.ListingDelay = cmp.Or(over.ListingDelay, c.ListingDelay)
	c.QuotaResetAt = cmp.Or(over.QuotaResetAt, c.QuotaResetAt)
	return o, c.Validate()
}

// serve runs a simulator until ctx ends. It prints a line for each call.
func serve(ctx context.Context, o options, stdout io.Writer) error {
	var printing sync.Mutex
	o.config.OnCall = func(c simulator.Call) {
		if !o.quiet {
			printing.Lock()
			defer printing.Unlock()
			_, _ = fmt.Fprintln(stdout, line(c))
		}
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	sim := simulator.New(o.config)
	server := &http.Server{Handler: sim.WithControl(), ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	_, _ = fmt.Fprintf(stdout, "EdgeOne is simulated at http://%s (control: /_simulator/)\n", listener.Addr())

	err = server.Serve(listener)
	sim.Close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// line describes a call:
//
//	09:46:39.000  CreatePrefetchTask     zone-ajj243dwrew    2 URLs  OK  job 1379afjk91u32h
func line(c simulator.Call) string {
	text := fmt.Sprintf("%s  %-21s  %-18s", c.Time.Format("15:04:05.000"), cmp.Or(c.Action, "-"), cmp.Or(c.ZoneID, "-"))
	if c.Targets > 0 {
		text += fmt.Sprintf("  %5d %-4s", c.Targets, unit(c))
	} else {
		text += fmt.Sprintf("  %10s", "")
	}
	text += "  " + c.Outcome
	if c.Executed && c.Outcome != "OK" {
		text += " (executed)"
	}
	if c.JobID != "" {
		text += "  job " + c.JobID
	}
	return text
}

// unit returns what the targets of a call are, such as URLs, host or cache_tag.
func unit(c simulator.Call) string {
	switch {
	case c.Type != "" && c.Type != "purge_url":
		return strings.TrimPrefix(c.Type, "purge_")
	case c.Targets == 1:
		return "URL"
	default:
		return "URLs"
	}
}
