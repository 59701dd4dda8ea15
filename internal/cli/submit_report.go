package cli

import (
	"context"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/preview"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// newSubmitTarget returns what the operator submits for a task that is created (before is nil) or updated.
func newSubmitTarget(before, after *v1alpha1.PrefetchTask) *actTarget {
	t := &actTarget{task: taskstate.ElideTargets(after), label: after.Name, preview: preview.Create(after)}
	if before != nil {
		t.preview = preview.Update(before, after)
		t.changed = describeOutcome(before, after) != "unchanged"
	}
	return t
}

// announceRuns says on standard error what the operator submits for each task that is updated, and what all
// tasks take of the quotas.
func (s *submission) announceRuns(ctx context.Context, targets []*actTarget) {
	for _, t := range targets {
		say := func(text string) { _ = printLine(s.ErrOut, "%s: %s", t.label, text) }
		switch {
		case t.preview.Cause != "":
			say("a new run, because " + t.preview.Cause + ": " + submits(t.preview))
		case t.changed && t.preview.Nothing != "":
			say(t.preview.Nothing)
		}
		for _, note := range t.preview.Notes {
			say("note: " + note)
		}
		if t.isToChange() && taskstate.IsSuspended(t.task) {
			say("note: " + s.noteSuspended(t.task))
		}
	}
	s.announceQuotas(ctx, newQuotaReader(s.client, s.now()), targets)
}

// noteSuspended says what a suspended task needs before anything is submitted.
func (e *environment) noteSuspended(task *v1alpha1.PrefetchTask) string {
	return "the task is suspended: nothing is submitted before " + e.suggestCommand("kubectl teo-prefetch resume", task.Namespace, task.Name)
}
