package targetlist

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// parseTargets reads a list of URLs, one a line, and returns the distinct ones in
// order. Blank lines do not count, nor do those that start with a #.
func parseTargets(text string) ([]v1alpha1.Target, error) {
	var targets []v1alpha1.Target
	seen := map[v1alpha1.Target]bool{}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		line = strings.Trim(line, " \t\r\n\v\f") // what else cannot be seen is no format, but a mistake in the URL
		u := v1alpha1.Target(line)
		if line == "" || line[0] == '#' || seen[u] {
			continue
		}
		if problem := target.Check(line); problem != "" {
			return nil, fmt.Errorf("line %d, %q: %s", number, startOfLine(line), problem)
		}
		if len(targets) == taskstate.MaxTargets {
			return nil, fmt.Errorf("line %d: a task has at most %d URLs; split the list", number, taskstate.MaxTargets)
		}
		seen[u] = true
		targets = append(targets, u)
	}
	if len(targets) == 0 {
		return nil, errors.New("it has no URLs")
	}
	return targets, nil
}

// startOfLine is as much of a line as a message has room for.
func startOfLine(line string) string {
	const room = 80
	if len(line) <= room {
		return line
	}
	return strings.ToValidUTF8(line[:room], "") + "…"
}
