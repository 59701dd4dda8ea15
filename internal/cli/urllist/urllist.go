// Package urllist reads lists of URLs, and splits them into lists that tasks can have. It has the rules
// of lists in a ConfigMap (internal/targetlist), and its errors name the column as well.
package urllist

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

const (
	// MaxURLs is how many URLs a list may have: 100 tasks of 10,000.
	MaxURLs = 1_000_000
	// MaxTargets is how many targets a task may have (api/v1alpha1).
	MaxTargets = 10_000
	// MaxBytes is how many bytes the targets of a task may take, with bytesPerTarget more for each
	// (api/v1alpha1).
	MaxBytes       = 1_550_000
	bytesPerTarget = 3
	// maxLine is how many bytes a line may have.
	maxLine = 64 << 10
)

// List has distinct URLs in the order in which they were added.
type List struct {
	URLs []v1alpha1.Target
	// Duplicates is how many URLs were there already.
	Duplicates int
	seen       map[string]bool
}

// Add adds a URL that target.Check accepts.
func (l *List) Add(rawURL string) error {
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	if l.seen[rawURL] {
		l.Duplicates++
		return nil
	}
	if len(l.URLs) == MaxURLs {
		return fmt.Errorf("there are more than %d URLs: submit them in several lists", MaxURLs)
	}
	l.seen[rawURL] = true
	l.URLs = append(l.URLs, v1alpha1.Target(rawURL))
	return nil
}

// Read reads a list with one URL a line. It ignores blank lines, and lines that start with #. The name
// of the list is for errors, which have the form name:line:column: "URL" must be …. If several lines are
// wrong, the error names the first five. After a wrong line, no URL is added.
func Read(r io.Reader, name string, add func(rawURL string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	number := 0
	wrong := &wrongLines{}
	for lines.Scan() {
		number++
		line := lines.Text()
		if number == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		rawURL := strings.Trim(line, " \t\r\n\v\f")
		if rawURL == "" || rawURL[0] == '#' {
			continue
		}
		if problem := target.Check(rawURL); problem != "" {
			column := utf8.RuneCountInString(line[:strings.Index(line, rawURL)+target.Offset(rawURL)]) + 1
			wrong.add(fmt.Sprintf("%s:%d:%d: %q %s", name, number, column, Shorten(rawURL), problem))
		}
		if wrong.count > 0 {
			continue
		}
		if err := add(rawURL); err != nil {
			return fmt.Errorf("%s:%d:1: %w", name, number, err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		wrong.add(fmt.Sprintf("%s:%d:1: the line is longer than %d bytes: write one URL a line", name, number+1, maxLine))
	} else if err := lines.Err(); err != nil {
		return fmt.Errorf("%s cannot be read: %w", name, err)
	}
	return wrong.err()
}

// maxWrongLines is how many wrong lines an error names.
const maxWrongLines = 5

// wrongLines are the lines of a list that are no URLs.
type wrongLines struct {
	first []string // at most maxWrongLines
	count int
}

func (w *wrongLines) add(problem string) {
	if w.count++; w.count <= maxWrongLines {
		w.first = append(w.first, problem)
	}
}

// err returns an error that names the first lines, or nil if there are none.
func (w *wrongLines) err() error {
	switch rest := w.count - len(w.first); {
	case w.count == 0:
		return nil
	case rest == 1:
		return errors.New(strings.Join(w.first, "; ") + "; and 1 more line")
	case rest > 0:
		return fmt.Errorf("%s; and %d more lines", strings.Join(w.first, "; "), rest)
	}
	return errors.New(strings.Join(w.first, "; "))
}

// Shorten truncates a URL to 80 bytes for a message.
func Shorten(rawURL string) string {
	const room = 80
	if len(rawURL) <= room {
		return rawURL
	}
	return strings.ToValidUTF8(rawURL[:room], "") + "…"
}

// Split splits URLs into the lists of tasks, each as long as a task may have them. reserved is how many
// bytes of a task's limit something else takes.
func Split(urls []v1alpha1.Target, reserved int) (parts [][]v1alpha1.Target) {
	start, size := 0, reserved
	for i, u := range urls {
		cost := len(u) + bytesPerTarget
		if i > start && (i-start == MaxTargets || size+cost > MaxBytes) {
			parts = append(parts, urls[start:i])
			start, size = i, reserved
		}
		size += cost
	}
	if start < len(urls) {
		parts = append(parts, urls[start:])
	}
	return parts
}
