package plan

import (
	"net/url"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Finding is a probable mistake in a list of URLs.
type Finding struct {
	// Code is HTTP, Directory, QueryNoise or DuplicateSpelling.
	Code string `json:"code"`
	// URL is the first URL that has it, and Count how many have it.
	URL   string `json:"url"`
	Count int    `json:"count"`
}

// noise are parameters that programs add to links. A cache that has them in its key has a copy for each.
var noise = []string{"utm_", "fbclid", "gclid", "msclkid", "mc_eid", "_ga"}

// Lint returns the probable mistakes in the targets of a task.
func Lint(task *v1alpha1.PrefetchTask) (findings []Finding) {
	index := map[string]int{}
	add := func(code, text string) {
		i, isKnown := index[code]
		if !isKnown {
			i = len(findings)
			index[code] = i
			findings = append(findings, Finding{Code: code, URL: text})
		}
		findings[i].Count++
	}
	seen := map[string]bool{}
	for _, text := range taskstate.DistinctTargets(task) {
		identity := target.Identity(text)
		if seen[identity] {
			add("DuplicateSpelling", text)
		}
		seen[identity] = true
		parsed, err := url.Parse(identity)
		if err != nil {
			continue
		}
		if parsed.Scheme == "http" {
			add("HTTP", text)
		}
		if parsed.Path != "/" && strings.HasSuffix(parsed.Path, "/") {
			add("Directory", text)
		}
		if hasNoise(parsed.RawQuery) {
			add("QueryNoise", text)
		}
	}
	return findings
}

// hasNoise reports whether a query has a parameter of noise.
func hasNoise(query string) bool {
	for parameter := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		for _, n := range noise {
			if name == n || strings.HasSuffix(n, "_") && strings.HasPrefix(name, n) {
				return true
			}
		}
	}
	return false
}
