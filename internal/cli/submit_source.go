package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/sitemap"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/urllist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// listSource says where a list of URLs is: a file, standard input or sitemaps.
type listSource struct {
	sitemaps         []string
	since            string
	include, exclude []string
	includes         []*regexp.Regexp
	excludes         []*regexp.Regexp
}

func (s *listSource) addTo(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.sitemaps, "sitemap", nil, "URL of a sitemap or an index of sitemaps; can be repeated")
	cmd.Flags().StringVar(&s.since, "since", "",
		"With --sitemap: only what was modified since then, for example 24h, 2026-11-28 or 2026-11-28T14:05:00Z; what has no lastmod is taken")
	cmd.Flags().StringArrayVar(&s.include, "include", nil, "Regular expression: take only URLs that match it; can be repeated")
	cmd.Flags().StringArrayVar(&s.exclude, "exclude", nil, "Regular expression: leave out URLs that match it; can be repeated")
}

func (s *listSource) validate(args []string) (err error) {
	switch {
	case len(args) == 0 && len(s.sitemaps) == 0:
		return errors.New("no list is given: give a file, - for standard input, or --sitemap")
	case len(args) > 0 && len(s.sitemaps) > 0:
		return errors.New("give a file or --sitemap, not both")
	case len(args) > 0 && strings.Contains(args[0], "://"):
		return fmt.Errorf("%q is a URL, and a list is a file: give --sitemap for a sitemap, or - to read URLs from standard input", args[0])
	case s.since != "" && len(s.sitemaps) == 0:
		return errors.New("--since needs --sitemap: a list has no dates")
	}
	if s.includes, err = compileAll("--include", s.include); err != nil {
		return err
	}
	s.excludes, err = compileAll("--exclude", s.exclude)
	return err
}

func compileAll(flag string, texts []string) (all []*regexp.Regexp, err error) {
	for _, text := range texts {
		expression, err := regexp.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("%s is not a regular expression: %w", flag, err)
		}
		all = append(all, expression)
	}
	return all, nil
}

// parseSince parses a time, a date or a duration before now.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since is %q: give a duration such as 24h, a date such as 2026-11-28, or a time such as 2026-11-28T14:05:00Z", text)
}

// read reads the list. It has no URLs only if --since has left out what there was: a sitemap without news
// is no error.
func (s *listSource) read(ctx context.Context, e *environment, args []string) (list *urllist.List, err error) {
	list = &urllist.List{}
	old := 0
	if len(args) > 0 {
		err = s.readFile(e, args[0], list)
	} else {
		old, err = s.readSitemaps(ctx, e, list)
	}
	if err == nil && len(list.URLs) == 0 && old == 0 {
		err = errors.New("the list has no URLs, so there is nothing to submit")
		if len(s.includes)+len(s.excludes) > 0 || s.since != "" {
			err = errors.New("no URL is left after --since, --include and --exclude, so there is nothing to submit")
		}
	}
	return list, err
}

func (s *listSource) readFile(e *environment, path string, list *urllist.List) error {
	return e.readURLs(path, func(rawURL string) error {
		if !s.isWanted(rawURL) {
			return nil
		}
		return list.Add(rawURL)
	})
}

// readURLs reads a file with one URL a line, or standard input for -.
func (e *environment) readURLs(path string, add func(rawURL string) error) error {
	if path == "-" {
		return urllist.Read(e.In, "standard input", add)
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("the list cannot be read: %w", err)
	}
	defer func() { _ = file.Close() }()
	return urllist.Read(file, path, add)
}

// readSitemaps reads the sitemaps, and returns how many entries --since has left out.
func (s *listSource) readSitemaps(ctx context.Context, e *environment, list *urllist.List) (old int, err error) {
	since, err := parseSince(s.since, e.now())
	if err != nil {
		return 0, err
	}
	for _, address := range s.sitemaps {
		reader := &sitemap.Reader{UserAgent: e.userAgent(), Since: since}
		reader.Add = func(rawURL string) error {
			if !s.isWanted(rawURL) {
				return nil
			}
			if problem := target.Check(rawURL); problem != "" {
				return fmt.Errorf("names %q, which %s; --exclude leaves it out", urllist.Shorten(rawURL), problem)
			}
			if !reader.IsOnSameHost(rawURL) {
				return fmt.Errorf("names %q, which is not on the host of the sitemap; --exclude leaves it out", urllist.Shorten(rawURL))
			}
			return list.Add(rawURL)
		}
		if err := reader.Read(ctx, address); err != nil {
			return 0, err
		}
		old += reader.Old
	}
	return old, nil
}

// isWanted applies --include and --exclude.
func (s *listSource) isWanted(rawURL string) bool {
	isIncluded := len(s.includes) == 0
	for _, expression := range s.includes {
		isIncluded = isIncluded || expression.MatchString(rawURL)
	}
	for _, expression := range s.excludes {
		isIncluded = isIncluded && !expression.MatchString(rawURL)
	}
	return isIncluded
}

// userAgent names this program to web servers.
func (e *environment) userAgent() string {
	return "kubectl-teo_prefetch/" + e.version + " (+https://github.com/prefetch-operator/teo-prefetch-operator)"
}
