package cli

import (
	"strings"
	"testing"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestWhatAStatusSaysIsNoCommandForATerminal(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good+"1", good+"2"))
	w.setStatus("home", func(task *v1alpha1.PrefetchTask) {
		succeeded(task)
		task.Status.FailedTargets = []v1alpha1.FailedTarget{{URL: good + "1", Reason: "Invalid", Message: "\x1b]0;x\x07\x1b[2J\r\nfine: Succeeded: The target is prefetched"}}
		task.Status.Targets.Succeeded, task.Status.Targets.Failed = ptr.To[int32](1), ptr.To[int32](1)
		taskstate.FinishRun(task, 1, 1, metav1.Now().Time)
	})
	for command, lines := range map[string]struct{ out, err int }{
		"wait home":                      {1, 2}, // a heading and a URL
		"failed home":                    {2, 0},
		"why home":                       {0, 0},
		"retry home --dry-run=client":    {1, 2},
		"wait home -o json --timeout=1m": {0, 3},
	} {
		r := w.run(strings.Fields(command)...)
		isControl := func(c rune) bool { return unicode.IsControl(c) && c != '\n' }
		if strings.ContainsFunc(r.out+r.err, isControl) || !strings.Contains(command, "json") && strings.Contains("\n"+r.out+"\n"+r.err, "\nfine: ") ||
			lines.out > 0 && strings.Count(r.out, "\n") != lines.out || strings.Count(r.err, "\n") != lines.err {
			t.Errorf("%s: %q %q", command, r.out, r.err)
		}
	}
}
