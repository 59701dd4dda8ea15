package taskstate

import (
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

func TestAQueuedTaskSaysWhatIsAheadOfIt(t *testing.T) {
	at := time.Date(2026, 11, 29, 16, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		ahead     Ahead
		submitted int
		want      string
	}{
		{Ahead{}, 0, QueuedMessage},
		{Ahead{Time: at}, 0, QueuedMessage + ". At 2026-11-29T16:00:00Z, no task was ahead"},
		{Ahead{1, 1, at}, 0, QueuedMessage + ". At 2026-11-29T16:00:00Z, 1 task with 1 target was ahead"},
		{Ahead{12, 5000, at}, 3, "3 of 5 targets submitted, 2 waiting. " + QueuedMessage + ". At 2026-11-29T16:00:00Z, 12 tasks with 5000 targets were ahead"},
	} {
		task := messageTask()
		if tt.submitted > 0 {
			submitFirst(task, tt.submitted)
		}
		note := WaitingStatus{Task: task, Cause: QueuedCause, Ahead: tt.ahead}
		ReportWaiting(note, at)(task)
		if got := messageOf(task, v1alpha1.ConditionReady); got != tt.want {
			t.Errorf("Ready says %q, want %q", got, tt.want)
		}
		if got := AheadOf(task); got != tt.ahead {
			t.Errorf("%q is read as %+v, want %+v", tt.want, got, tt.ahead)
		}
		note.Ahead = Ahead{3, 3, at.Add(time.Hour)}
		if want := !tt.ahead.Time.IsZero(); note.IsWritten() != want {
			t.Errorf("%q: a later count counts as written: %v, want %v", tt.want, !want, want)
		}
		note.Ahead = Ahead{}
		if !note.IsWritten() {
			t.Errorf("%q: the message without a count is written again", tt.want)
		}
	}
}

func TestOnlyAQueuedTaskHasTasksAhead(t *testing.T) {
	at := time.Date(2026, 11, 29, 16, 0, 0, 0, time.UTC)
	task := messageTask()
	ReportWaiting(WaitingStatus{Task: task, Cause: Cause{Reason: v1alpha1.ReasonUnavailable, Message: "No route"}, Ahead: Ahead{1, 1, at}}, at)(task)
	if got := messageOf(task, v1alpha1.ConditionReady); got != "No route" || AheadOf(task) != (Ahead{}) {
		t.Errorf("Ready says %q, which is read as %+v", got, AheadOf(task))
	}
}
