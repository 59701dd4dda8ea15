package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"strings"
	"text/template"
	"time"
)

// result is the result of a scenario.
type result struct {
	scenario scenario
	took     time.Duration
	tables   []*table
	figures  []figure
}

// table is a table that is printed as Markdown.
type table struct {
	title   string
	columns []string
	rows    [][]string
}

// figure is a measured value with its aim.
type figure struct {
	what, aim, measured string
	reached             bool
}

func (f figure) cells() []string {
	reached := "yes"
	if !f.reached {
		reached = "**no**"
	}
	return []string{f.what, f.aim, f.measured, reached}
}

func (f figure) missed() int {
	if f.reached {
		return 0
	}
	return 1
}

func (r *result) table(title string, columns ...string) *table {
	t := &table{title: title, columns: columns}
	r.tables = append(r.tables, t)
	return t
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (r *result) figure(what, aim, measured string, reached bool) {
	r.figures = append(r.figures, figure{what, aim, measured, reached})
}

func (t *table) markdown() string {
	var b strings.Builder
	if t.title != "" {
		fmt.Fprintf(&b, "%s\n\n", t.title)
	}
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.columns)
	fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(t.columns)))
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

// markdown returns the tables and the figures.
func (r *result) markdown() string {
	var parts []string
	for _, t := range r.tables {
		parts = append(parts, t.markdown())
	}
	figures := table{columns: []string{"figure", "aim", "measured", "reached"}}
	for _, f := range r.figures {
		figures.row(f.cells()...)
	}
	return strings.Join(append(parts, figures.markdown()), "\n")
}

// report prints the page. If the run was complete, report writes it to the file instead.
func (b *bench) report(ctx context.Context, results []*result) error {
	page, err := b.page(ctx, results)
	if err != nil {
		return err
	}
	if len(results) < len(scenarios) || b.scale != 1 {
		say("\n%s", page)
		return nil
	}
	if err := os.WriteFile(b.out, []byte(page), 0o644); err != nil {
		return err
	}
	say("\nWrote %s after %s", b.out, time.Since(b.started).Round(time.Second))
	return nil
}

//go:embed page.md.tmpl
var pageTemplate string

// page returns the content of docs/benchmarks.md.
func (b *bench) page(ctx context.Context, results []*result) (string, error) {
	m, err := thisMachine(ctx)
	if err != nil {
		return "", err
	}
	missed := 0
	var summary table
	summary.columns = []string{"scenario", "figure", "aim", "measured", "reached"}
	texts := map[string]string{}
	for _, r := range results {
		texts[r.scenario.name] = r.markdown()
		for _, f := range r.figures {
			missed += f.missed()
			summary.row(append([]string{"(" + r.scenario.name + ")"}, f.cells()...)...)
		}
	}
	page := template.Must(template.New("page").Parse(pageTemplate))
	var out strings.Builder
	err = page.Execute(&out, map[string]any{
		"Machine": m, "Date": b.started.UTC().Format(time.DateOnly), "Took": time.Since(b.started).Round(time.Minute).String(),
		"Command": b.command(), "Summary": summary.markdown(), "Missed": missed, "Figures": len(summary.rows), "Results": texts,
		"Creators": creators, "Calm": calm, "Batch": number(batch), "SharedBy": sharedBy, "WarmUp": warmUp, "IdleRoundTrip": idleRoundTrip,
		"BaselineRoundTrip": baselineRoundTrip, "RivalRate": rivalRate, "FloodURLs": floodURLs, "SingleEvery": singleEvery, "Planned": planned,
	})
	return out.String(), err
}

// command returns the command that repeats this run.
func (b *bench) command() string {
	command := "make bench"
	if b.pattern != "" {
		command += " BENCH_RUN='" + b.pattern + "'"
	}
	if b.scale != 1 {
		command += fmt.Sprintf(" BENCH_SCALE=%g", b.scale)
	}
	if len(b.managerArgs) > 0 {
		command = fmt.Sprintf("go run ./test/bench -run='%s' -scale=%g -manager-args='%s'", b.pattern, b.scale, strings.Join(b.managerArgs, " "))
	}
	return command
}
