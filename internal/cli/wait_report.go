package cli

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// waitReporter shows on standard error how far the tasks are.
type waitReporter interface {
	// update shows a change of a task.
	update(task *waitedTask)
	// tick is called each second.
	tick(now time.Time)
	// note prints a line.
	note(text string)
	// end ends the report.
	end()
}

// newWaitReporter returns a progress bar for a terminal, and lines for anything else.
func newWaitReporter(env *environment, w *waiter) waitReporter {
	lines := &lineReporter{env: env, waiter: w, last: env.now(), shown: map[string]string{}}
	if isRichTerminal(env.ErrOut) {
		return &barReporter{lines: lines, width: terminalWidth(env.ErrOut)}
	}
	return lines
}

// reportInterval is how often lines are printed without a change, so that a pipeline does not take the
// wait for dead.
const reportInterval = 30 * time.Second

// lineReporter prints a line at a change, and now and then.
type lineReporter struct {
	env    *environment
	waiter *waiter
	last   time.Time         // of the last line
	shown  map[string]string // the phase and the reason that were printed last, by label
}

func (r *lineReporter) update(task *waitedTask) {
	state := string(task.Phase) + task.Reason
	former, isShown := r.shown[task.label]
	r.shown[task.label] = state
	isOutcome := task.Phase.IsOver() || task.Phase == progress.Deleted
	switch {
	case former == state:
	case isOutcome && (!isShown || r.waiter.isSettled()) && !r.waiter.output.isStructured(): // finish prints it
	default:
		r.print(task)
	}
}

// print prints how far a task is.
func (r *lineReporter) print(task *waitedTask) { r.note(r.waiter.describe(task)) }

func (r *lineReporter) note(text string) {
	r.last = r.env.now()
	_ = printLine(r.env.ErrOut, "%s", text)
}

func (r *lineReporter) tick(now time.Time) {
	if now.Sub(r.last) < reportInterval {
		return
	}
	const most = 5 // lines
	running := 0
	for _, key := range r.waiter.keys {
		task := r.waiter.tasks[key]
		if task.Phase.IsOver() || task.Phase == progress.Deleted {
			continue
		}
		if running++; running <= most {
			r.print(task)
		}
	}
	if running > most {
		r.note(fmt.Sprintf("%d more tasks are not over", running-most))
	}
}

func (r *lineReporter) end() {}

// describe says how far a task is, and why.
func (w *waiter) describe(t *waitedTask) string {
	count := ""
	if t.Total > 0 && t.Phase != progress.Deleted {
		count = fmt.Sprintf(" (%d/%d)", t.Succeeded, t.Total)
	}
	text := fmt.Sprintf("%s: %s%s: %s", t.label, t.state(), count, t.text())
	if t.Phase == progress.Suspended && t.IsSuspended {
		text += "; continues after: " + w.env.suggestCommand("kubectl teo-prefetch resume", t.key.Namespace, t.key.Name)
	}
	return text
}

// text returns the message of a task. finish names the failed targets, or the command that does.
func (t *waitedTask) text() string { return taskstate.TrimSeeFailedTargets(t.Message) }

// state returns the phase of a task that is over, and the reason of one that is not.
func (t *waitedTask) state() string {
	if t.Reason == "" || t.Phase.IsOver() {
		return string(t.Phase)
	}
	return t.Reason
}

// barReporter shows a progress bar with the state of the first task that is not over.
type barReporter struct {
	lines *lineReporter
	bar   *progressbar.ProgressBar
	width int
}

// barWidth is the width of the bar itself, and barRest what stands around it, but for the text.
const (
	barWidth = 24
	barRest  = 36
)

func (r *barReporter) update(*waitedTask) { r.draw() }
func (r *barReporter) tick(time.Time)     { r.draw() }

// draw draws the bar of all targets of all tasks.
func (r *barReporter) draw() {
	total, ended, text, over := 0, 0, "", 0
	for _, key := range r.lines.waiter.keys {
		task := r.lines.waiter.tasks[key]
		total, ended = total+task.Total, ended+task.Succeeded+task.Failed
		switch {
		case task.Phase.IsOver() || task.Phase == progress.Deleted:
			over++
		case text == "":
			text = task.state() + ": " + task.text()
		}
	}
	if n := len(r.lines.waiter.keys); n > 1 {
		text = fmt.Sprintf("%d of %d tasks over. %s", over, n, text)
	}
	if r.bar == nil {
		r.bar = progressbar.NewOptions(max(total, 1), progressbar.OptionSetWriter(r.lines.env.ErrOut), progressbar.OptionUseANSICodes(true),
			progressbar.OptionSetWidth(barWidth), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false),
			progressbar.OptionShowDescriptionAtLineEnd(), progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish())
	}
	if total != r.bar.GetMax() && total > 0 {
		r.bar.ChangeMax(total)
	}
	r.bar.Describe(shorten(printable(text), r.width-barWidth-barRest))
	if ended < r.bar.GetMax() {
		_ = r.bar.Set(ended)
	}
}

func (r *barReporter) note(text string) {
	if r.bar != nil {
		_ = r.bar.Clear()
	}
	r.lines.note(text)
	r.draw()
}

func (r *barReporter) end() {
	if r.bar != nil {
		_ = r.bar.Clear()
	}
}

// shorten returns the start of a text that has at most n characters.
func shorten(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return string(runes)
	}
	return string(runes[:max(n-1, 0)]) + "…"
}
