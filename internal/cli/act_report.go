package cli

import (
	"fmt"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/preview"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// ActResult is what retry, suspend, resume and rerun print with -o json.
type ActResult struct {
	OutputHeader `json:",inline"`
	// DryRun is none, client or server.
	DryRun string      `json:"dryRun"`
	Tasks  []ActedTask `json:"tasks"`
}

// ActedTask is what was done to a task.
type ActedTask struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Changed says whether the task was changed, or would be without --dry-run.
	Changed bool `json:"changed"`
	// Message is why there is nothing to change.
	Message string `json:"message,omitempty"`
	// Error is why it could not be changed.
	Error string `json:"error,omitempty"`
	// URLs is how many URLs the operator submits because of the change, and so takes from the
	// quota of the zone; for suspend, how many it does not submit. It is absent if it is unknown.
	URLs *int `json:"urls,omitempty"`
	// AtMost says that URLs may be fewer: what EdgeOne's history shows as prefetched is not submitted.
	AtMost bool `json:"atMost,omitempty"`
	// Purges is how many targets are purged first.
	Purges int `json:"purges,omitempty"`
	// Notes are what else to know.
	Notes []string `json:"notes,omitempty"`
}

// announce says on standard error what an action makes the operator submit for a task.
func (e *environment) announce(a *action, t *actTarget) {
	say := func(text string) { _ = printLine(e.ErrOut, "%s: %s", t.label, text) }
	if t.preview.Nothing != "" {
		say("nothing to do, " + t.preview.Nothing)
		return
	}
	if tool := taskstate.RecreatedBy(t.task); tool != "" {
		t.preview.Notes = append(t.preview.Notes, fmt.Sprintf("%s manages this task: if its source sets %s, the next sync sets it back%s", tool, a.field, a.afterSync()))
	}
	if a.field != "spec.suspend" && taskstate.IsSuspended(t.task) {
		t.preview.Notes = append(t.preview.Notes, e.noteSuspended(t.task))
	}
	say(a.sentence(t.preview))
	for _, note := range t.preview.Notes {
		say("note: " + note)
	}
}

// afterSync says what it means if another tool sets the field back.
func (a *action) afterSync() string {
	if a.field == "spec.revision" {
		return ", which submits everything once more; change it there"
	}
	return "; change it there"
}

// submits says how many URLs are submitted.
func submits(p preview.Preview) string {
	text := "submits " + countURLs(p)
	if p.Purges > 0 {
		text += fmt.Sprintf(", after purging %d", p.Purges)
	}
	return text
}

// countURLs returns the number of URLs as text.
func countURLs(p preview.Preview) string {
	text := fmt.Sprintf("%d URLs", p.URLs)
	switch p.URLs {
	case preview.Unknown:
		return "an unknown number of URLs"
	case 0:
		return "nothing"
	case 1:
		text = "1 URL"
	}
	if p.IsAtMost {
		text = "at most " + text
	}
	return text
}

// printActions prints what was done on standard output.
func (e *environment) printActions(options *actOptions, a *action, targets []*actTarget) error {
	if options.output.isStructured() {
		result := ActResult{OutputHeader: newOutputHeader("ActResult"), DryRun: options.dryRun, Tasks: []ActedTask{}}
		for _, t := range targets {
			result.Tasks = append(result.Tasks, t.result())
		}
		return options.output.print(e.Out, result)
	}
	for _, t := range targets {
		if t.err != nil { // it is on standard error
			continue
		}
		text := "prefetchtask." + v1alpha1.GroupVersion.Group + "/" + t.task.Name
		if options.output.format != "name" {
			text += " " + t.outcome(a, options)
		}
		if _, err := fmt.Fprintln(e.Out, text); err != nil {
			return err
		}
	}
	return nil
}

// outcome says what was done, as kubectl does, and where, if that may be in any namespace.
func (t *actTarget) outcome(a *action, options *actOptions) string {
	suffix := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[options.dryRun]
	if options.selection.allNamespaces {
		suffix = " in namespace " + t.task.Namespace + suffix
	}
	if !t.changed {
		return "unchanged" + suffix
	}
	return a.done + suffix
}

func (t *actTarget) result() ActedTask {
	r := ActedTask{
		Namespace: t.task.Namespace, Name: t.task.Name, Changed: t.changed, Message: t.preview.Nothing,
		AtMost: t.preview.IsAtMost, Purges: t.preview.Purges, Notes: t.preview.Notes,
	}
	if urls := t.preview.URLs; urls != preview.Unknown {
		r.URLs = &urls
	}
	if t.err != nil {
		r.Error = explain(t.err).Error()
	}
	return r
}
