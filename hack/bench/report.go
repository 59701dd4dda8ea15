package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// result is what came out of a scenario.
type result struct {
	scenario scenario
	took     time.Duration
	tables   []*table
	figures  []figure
}

// table is written in Markdown.
type table struct {
	title   string
	columns []string
	rows    [][]string
}

// figure is one of those to reach.
type figure struct {
	what, aim, measured string
	reached             bool
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

// markdown is the tables and the figures.
func (r *result) markdown() string {
	var parts []string
	for _, t := range r.tables {
		parts = append(parts, t.markdown())
	}
	figures := table{columns: []string{"figure", "aim", "measured", "reached"}}
	for _, f := range r.figures {
		reached := "**no**"
		if f.reached {
			reached = "yes"
		}
		figures.row(f.what, f.aim, f.measured, reached)
	}
	return strings.Join(append(parts, figures.markdown()), "\n")
}

func (b *bench) report(ctx context.Context, results []*result) error { return nil }
