// Command dashboard draws the chart's Grafana dashboard for docs/monitoring.md. It runs
// managers under load and a Prometheus that scrapes them. It sends the queries of each
// panel to Prometheus, and draws the results as an SVG picture.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/monitoring/stack"
)

func main() {
	out := flag.String("out", "docs/images/dashboard.svg", "`file` to write")
	length := flag.Duration("for", 3*time.Minute, "how long there is load")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cluster.SilenceClients()
	if err := run(ctx, *out, *length); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, length time.Duration) error {
	dashboard, err := stack.ReadDashboard()
	if err != nil {
		return err
	}
	w, err := stack.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = w.Stop() }()
	fmt.Println("Managers and Prometheus are running; there is load for", length)
	start := time.Now()
	if err := w.GenerateLoad(ctx, length); err != nil {
		return err
	}
	job, err := w.Job(ctx, dashboard)
	if err != nil {
		return err
	}
	p := picture{start: start, end: time.Now()}
	for _, panel := range dashboard.Panels {
		var lines []line
		for _, target := range panel.Targets {
			series, err := w.QueryRange(ctx, target.Query(job), p.start, p.end, stack.ScrapeInterval)
			if err != nil {
				return err
			}
			for _, s := range series {
				if s.HasNumber() {
					lines = append(lines, line{target.Legend(s), s.Points})
				}
			}
		}
		if len(lines) == 0 {
			return fmt.Errorf("the panel %q shows nothing", panel.Title)
		}
		p.draw(panel, lines)
	}
	if err := os.WriteFile(out, []byte(p.svg()), 0o644); err != nil {
		return err
	}
	fmt.Println("Wrote", out)
	return nil
}
