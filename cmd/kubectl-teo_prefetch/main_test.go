package main

import (
	"slices"
	"testing"
)

func TestTheNameSaysWhetherToComplete(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"/usr/bin/kubectl-teo_prefetch", "wait", "home"}, []string{"wait", "home"}},
		{[]string{"/usr/bin/kubectl_complete-teo_prefetch", "wait", ""}, []string{"__complete", "wait", ""}},
		{[]string{"kubectl_complete-teo_prefetch.exe", "qu"}, []string{"__complete", "qu"}},
	} {
		if got := arguments(c.args); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
}
