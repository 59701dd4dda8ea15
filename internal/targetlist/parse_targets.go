package targetlist

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// ParseTargets parses a list with one URL per line, and returns the distinct URLs in list
// order. It ignores blank lines, and lines that start with #.
func ParseTargets(text string) ([]v1alpha1.Target, error) {
	var targets []v1alpha1.Target
	seen := map[v1alpha1.Target]bool{}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		line = strings.Trim(line, " \t\r\n\v\f") // other invisible characters are mistakes in the URL
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

// startOfLine truncates a line to 80 bytes for a message.
func startOfLine(line string) string {
	const room = 80
	if len(line) <= room {
		return line
	}
	return strings.ToValidUTF8(line[:room], "") + "…"
}
