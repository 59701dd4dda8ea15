package cli

import (
	"strings"
	"testing"
)

func TestBadCommandLinesExitWith1AndPrintNothingOnStandardOutput(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{{"no-such-command"}, {"version", "--no-such-flag"}, {"version", "extra"}} {
		r := w.run(args...)
		if r.code != 1 || r.out != "" || !strings.HasPrefix(r.err, "Error: ") || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestNamesComplete(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("warm-home", good))
	r := w.run("__complete", "version", "--namespace", "")
	if !strings.Contains(r.out, "\n"+w.namespace+"\n") {
		t.Errorf("the namespace is not completed: %+v", r)
	}
}
