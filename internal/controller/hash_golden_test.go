package controller

import (
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// A claim contains the hash of its call. Settling compares it with the hashes of the jobs that
// EdgeOne lists, possibly after an upgrade of the operator. Never edit a hash in this table.
func TestTheHashOfACallInAClaimNeverChanges(t *testing.T) {
	for _, c := range []struct {
		name, hash string
		urls       []string
	}{
		{"several URLs", "1543380f1932737c063c", []string{"https://a.example/2", "https://a.example/1", "https://a.example/10"}},
		{"in other spellings", "1543380f1932737c063c", []string{"HTTPS://A.example:443/2#x", "https://a.example:/1", "https://a.example/10", "https://a.EXAMPLE/10"}},
		{"raw", "2d6f9b0dcd40292a6f06", []string{"https://a.example/中 文?q=中", "https://a.example"}},
		{"percent-encoded", "2d6f9b0dcd40292a6f06", []string{"https://a.example/%e4%b8%ad%20%E6%96%87?q=%E4%B8%AD", "https://a.example/"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := taskstate.HashCall(c.urls); got != c.hash {
				t.Errorf("the hash is %q, want %q", got, c.hash)
			}
		})
	}
}
