package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// releaseURLs are the targets of the sample refresh.
var releaseURLs = []string{"https://www.example.com/release/index.html", "https://www.example.com/release/app.js"}

// publishRelease publishes a new version of the release's URLs at the origin, while EdgeOne
// has copies of the old one. A visitor gets these copies.
func (d *demo) publishRelease(ctx context.Context) error {
	urls := simulator.Selection{URLs: releaseURLs}
	if err := d.edgeOne.Warm(ctx, urls); err != nil {
		return err
	}
	if _, err := d.edgeOne.Publish(ctx, simulator.Publication{Selection: urls}); err != nil {
		return err
	}
	_, err := d.edgeOne.Visit(ctx, simulator.Visit{URLs: releaseURLs, NoFill: true})
	return err
}

// showRelease lets a visitor visit the URLs of the release, and prints what happened to
// EdgeOne's copies of them. It returns an error if the visitor does not get the new version
// from EdgeOne's cache.
func (d *demo) showRelease(ctx context.Context) error {
	seen, err := d.edgeOne.Visit(ctx, simulator.Visit{URLs: releaseURLs, NoFill: true})
	if err != nil {
		return err
	}
	journal, err := d.edgeOne.Journal(ctx)
	if err != nil {
		return err
	}
	title("A release, purged and then prefetched: refresh")
	const columns = "%8s  %-12s  %s\n"
	fmt.Printf(columns, "TIME", "URL", "EVENT")
	for _, e := range journal.Events {
		if what := describeEvent(e); what != "" && slices.Contains(releaseURLs, e.URL) {
			fmt.Printf(columns, seconds(e.Time.Sub(d.tasks.start)), e.URL[strings.LastIndex(e.URL, "/")+1:], what)
		}
	}
	for _, s := range seen {
		if s.Status != simulator.StatusHit || !s.Superseded.IsZero() {
			return fmt.Errorf("a visitor of %s got version %d (%s), want the new version from the cache", s.URL, s.Version, s.Status)
		}
	}
	return nil
}

// describeEvent describes an event of a release. It returns "" for all other events.
func describeEvent(e simulator.CacheEvent) string {
	switch e.Kind {
	case simulator.Purged:
		return fmt.Sprintf("EdgeOne deletes version %d (purge %s)", e.Version, e.By)
	case simulator.HandedOver:
		return fmt.Sprintf("EdgeOne accepts the prefetch %s", e.By)
	case simulator.Filled:
		if e.By == simulator.ByWarm {
			return ""
		}
		return fmt.Sprintf("EdgeOne stores version %d", e.Version)
	case simulator.Visited:
		if !e.Superseded.IsZero() {
			return fmt.Sprintf("a visitor gets version %d, which is old: %s", e.Version, e.Status)
		}
		return fmt.Sprintf("a visitor gets version %d: %s", e.Version, e.Status)
	case simulator.Kept, simulator.Expired:
	}
	return ""
}
