// Command bench measures the speed and the cost of the operator. It uses a real etcd and
// kube-apiserver, the manager as a process with its default flags, and a simulated EdgeOne
// that strictly enforces its limits. For comparison, the same run measures today's
// alternatives (baseline/). The command prints its tables and writes them to
// docs/benchmarks.md.
//
//   - share, rates, large, idle, finished, rival, fairness: the scenarios
//   - world, network, track: the environment of a scenario, and how its tasks are followed
//   - baselines: today's alternatives
//   - measure, machine, report: figures, the machine that they are from, and the page
//
// The command knows the operator only by its flags, metrics and statuses, and treats the
// baselines in the same way. It injects no faults.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// progressEvery is the interval between progress messages of a scenario.
const progressEvery = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cluster.SilenceClients()
	b := &bench{started: time.Now()}
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.StringVar(&b.pattern, "run", "", "`regexp` of the scenarios to run; default: all. They are\n"+describe())
	f.Float64Var(&b.scale, "scale", 1, "`share` of the tasks: 1 is the benchmark and takes about 50 minutes on 2 cores, 0.05 about 10")
	f.StringVar(&b.out, "out", "docs/benchmarks.md", "`file` to write; written only when everything ran at scale 1, else printed")
	managerArgs := f.String("manager-args", "", "`flags` to add to the manager's, separated by spaces; by default it gets those that connect it and no others")
	_ = f.Parse(os.Args[1:])
	b.managerArgs = strings.Fields(*managerArgs)
	run, err := regexp.Compile(b.pattern)
	if err != nil || b.scale <= 0 || b.scale > 1 || f.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: -run must be a regular expression, -scale above 0 and at most 1, and there are no other arguments")
		os.Exit(2)
	}
	if err := b.run(ctx, run); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// scenario is a measurement. run prints progress and returns the result.
type scenario struct {
	name  string
	title string
	run   func(*bench, context.Context) (*result, error)
}

var scenarios = []scenario{
	{"a", "5,000 one-URL tasks in one zone", (*bench).share},
	{"b", "2,000 tasks that cannot share a call", (*bench).rates},
	{"c", "one task with 10,000 URLs", (*bench).large},
	{"d", "a task every 100 ms", (*bench).idle},
	{"e", "100,000 finished tasks", (*bench).finished},
	{"f", "a rival on the account", (*bench).rival},
	{"g", "two namespaces, one flooding", (*bench).fairness},
}

func describe() string {
	var text strings.Builder
	for _, s := range scenarios {
		fmt.Fprintf(&text, "  %s  %s\n", s.name, s.title)
	}
	return strings.TrimRight(text.String(), "\n")
}

// bench is a run of the benchmark.
type bench struct {
	pattern     string
	scale       float64
	out         string
	managerArgs []string
	started     time.Time
	programs    map[string]string // paths of the programs, by name
}

// scaled returns a number of tasks, adjusted to the scale of the run.
func (b *bench) scaled(n, least int) int { return max(int(float64(n)*b.scale), least) }

func (b *bench) run(ctx context.Context, which *regexp.Regexp) error {
	if err := b.build(ctx); err != nil {
		return err
	}
	var results []*result
	for _, s := range scenarios {
		if !which.MatchString(s.name) {
			continue
		}
		say("\n(%s) %s", s.name, s.title)
		start := time.Now()
		r, err := s.run(b, ctx)
		if err != nil {
			return fmt.Errorf("(%s): %w", s.name, err)
		}
		r.scenario, r.took = s, time.Since(start)
		results = append(results, r)
		say("%s", r.markdown())
	}
	if len(results) == 0 {
		return errors.New("-run selects no scenario")
	}
	return b.report(ctx, results)
}

// build builds the manager and the baselines.
func (b *bench) build(ctx context.Context) error {
	b.programs = map[string]string{}
	say("Building the manager and the baselines")
	for _, p := range []struct{ name, module, pkg string }{
		{"manager", ".", "./cmd/manager"},
		{"script", "test/bench/baseline", "./script"},
		{"kubebuilder", "test/bench/baseline/kubebuilder", "."},
		{"crossplane", "test/bench/baseline/crossplane", "."},
	} {
		path, err := cluster.BuildModule(ctx, "bench-"+p.name, p.module, p.pkg)
		if err != nil {
			return err
		}
		b.programs[p.name] = path
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
