package cli

import (
	"fmt"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
)

// WaitResult is what wait -o json prints.
type WaitResult struct {
	OutputHeader `json:",inline"`
	// ExitCode is the exit code of the command.
	ExitCode int `json:"exitCode"`
	// Tasks are the tasks in the order of the arguments.
	Tasks []WaitedTask `json:"tasks"`
}

// WaitedTask is the outcome of a task.
type WaitedTask struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Phase is Succeeded, Failed, NotFollowed (the outcomes cannot be known), Stalled (a person
	// must act), Deleted or, after --timeout, Running or Suspended.
	Phase progress.Phase `json:"phase"`
	// Reason is that of the condition Ready. It is NotObserved if the operator has not seen the
	// current spec, and RetryRequested if it has not started a retry.
	Reason string `json:"reason,omitempty"`
	// Message is for people.
	Message string `json:"message,omitempty"`
	// Targets counts the targets of the run.
	Targets TargetCounts `json:"targets"`
	// FailedTargets are at most 100 targets that failed.
	FailedTargets []FailedTarget `json:"failedTargets,omitempty"`
	// NextAttemptTime is when a task that waits for quota is expected to get it.
	NextAttemptTime *time.Time `json:"nextAttemptTime,omitempty"`
}

// TargetCounts counts the targets of a run.
type TargetCounts struct {
	Total     int `json:"total"`
	Submitted int `json:"submitted"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

// FailedTarget is a target that failed.
type FailedTarget struct {
	URL string `json:"url"`
	// Reason is as in status.failedTargets. It is absent if the status does not say it.
	Reason string `json:"reason,omitempty"`
	// Message is what EdgeOne said.
	Message string `json:"message,omitempty"`
}

// finish reports the outcomes of all tasks, and returns the exit code.
func (w *waiter) finish(isTimeout bool) error {
	w.reporter.end()
	code := w.exitCode(isTimeout)
	if w.output.isStructured() {
		if err := w.output.print(w.env.Out, w.result(code)); err != nil {
			return err
		}
	} else {
		paint := newPainter(w.env.Out)
		for _, key := range w.keys {
			task := w.tasks[key]
			phase := paint.paint(phaseColor(task.Phase), string(task.Phase))
			if _, err := fmt.Fprintf(w.env.Out, "%s: %s: %s\n", task.label, phase, printable(task.text())); err != nil {
				return err
			}
		}
	}
	w.explain(code)
	if code == ExitSuccess {
		return nil
	}
	return exitError{code: code}
}

// exitCode returns the exit code for all tasks: what is most in need of attention.
func (w *waiter) exitCode(isTimeout bool) int {
	if isTimeout {
		return ExitTimeout
	}
	has := map[progress.Phase]bool{}
	for _, task := range w.tasks {
		has[task.Phase] = true
	}
	switch {
	case has[progress.Deleted]:
		return ExitError
	case has[progress.Stalled]:
		return ExitUserAction
	case has[progress.Failed], has[progress.NotFollowed]:
		return ExitFailedTargets
	}
	return ExitSuccess
}

// shownFailures is how many failed URLs of a task are shown at the end.
const shownFailures = 5

// explain prints the first failed URLs, and what to do next.
func (w *waiter) explain(code int) {
	for _, key := range w.keys {
		task := w.tasks[key]
		if task.Phase == progress.Failed {
			w.explainFailures(task)
		}
	}
	if code == ExitTimeout {
		_ = printLine(w.env.ErrOut, "The time of --timeout is over; the tasks continue. To wait again: %s", w.suggestWait())
	}
}

func (w *waiter) explainFailures(task *waitedTask) {
	_ = printLine(w.env.ErrOut, "Failed URLs of %s:", task.label)
	shown := task.FailedTargets[:min(len(task.FailedTargets), shownFailures)]
	for _, f := range shown {
		_ = printLine(w.env.ErrOut, "  %s  %s", f.URL, joinReason(f.Reason, f.Message))
	}
	if rest := task.Failed - len(shown); rest > 0 && !task.isGone {
		_ = printLine(w.env.ErrOut, "  and %d more: %s", rest, w.env.suggestCommand("kubectl teo-prefetch failed", task.key.Namespace, task.key.Name))
	}
}

// joinReason joins the reason and the message of a failed target.
func joinReason(reason, message string) string {
	if message == "" {
		return reason
	}
	return reason + ": " + message
}

func phaseColor(phase progress.Phase) color {
	switch phase {
	case progress.Succeeded:
		return colorGreen
	case progress.Failed, progress.Stalled, progress.Deleted:
		return colorRed
	case progress.NotFollowed, progress.Running, progress.Suspended:
		return colorYellow
	}
	return colorNone
}

// result returns the document of -o json.
func (w *waiter) result(code int) WaitResult {
	r := WaitResult{OutputHeader: newOutputHeader("WaitResult"), ExitCode: code, Tasks: []WaitedTask{}}
	for _, key := range w.keys {
		t := w.tasks[key]
		task := WaitedTask{
			Namespace: key.Namespace, Name: key.Name, Phase: t.Phase, Reason: t.Reason, Message: t.Message,
			Targets:       TargetCounts{Total: t.Total, Submitted: t.Submitted, Succeeded: t.Succeeded, Failed: t.Failed},
			FailedTargets: failedTargets(t.FailedTargets),
		}
		if !t.NextAttempt.IsZero() {
			next := t.NextAttempt.UTC()
			task.NextAttemptTime = &next
		}
		r.Tasks = append(r.Tasks, task)
	}
	return r
}

func failedTargets(of []v1alpha1.FailedTarget) (failed []FailedTarget) {
	for _, f := range of {
		failed = append(failed, FailedTarget{URL: f.URL, Reason: f.Reason, Message: f.Message})
	}
	return failed
}
