package account

import (
	"slices"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// hostSet is a compiled list of patterns. A nil set contains all hosts.
type hostSet struct {
	names     map[string]bool
	wildcards []string // with the dot: ".example.com" for *.example.com
}

// newHostSet returns the set of the hosts that the patterns stand for, or nil if there are
// no patterns.
func newHostSet(patterns []v1alpha1.HostPattern) *hostSet {
	if len(patterns) == 0 {
		return nil
	}
	set := &hostSet{names: map[string]bool{}}
	for _, pattern := range patterns {
		if below, ok := strings.CutPrefix(string(pattern), "*."); ok {
			set.wildcards = append(set.wildcards, "."+target.NormalizeHost(below))
		} else {
			set.names[target.NormalizeHost(string(pattern))] = true
		}
	}
	return set
}

// contains reports whether the set has a host, which must be normalized. A wildcard stands
// for one or more labels. A host that other programs may read as another one, because it has
// a full-width slash or a semicolon for example, is in no set but the one of all hosts.
func (s *hostSet) contains(host string) bool {
	switch {
	case s == nil:
		return true
	case !isHostName(host):
		return false
	case s.names[host]:
		return true
	}
	return slices.ContainsFunc(s.wildcards, func(suffix string) bool { return strings.HasSuffix(host, suffix) })
}

// isHostName reports whether a normalized host consists of labels with the characters that
// names of hosts have.
func isHostName(host string) bool {
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
