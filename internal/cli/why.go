package cli

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/why"
)

// WhyResult is what why -o json prints.
type WhyResult struct {
	OutputHeader `json:",inline"`
	Namespace    string `json:"namespace"`
	Name         string `json:"name"`
	// Phase is Running, Suspended, Stalled, Succeeded, Failed or NotFollowed.
	Phase string `json:"phase"`
	// Reason is that of the condition Ready, NotObserved or RetryRequested.
	Reason string `json:"reason"`
	// Total, Submitted, Succeeded and Failed count the targets of the run.
	Total     int `json:"total"`
	Submitted int `json:"submitted"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	// Cause is what the task waits for, or how its run has ended.
	Cause string `json:"cause"`
	// Since and Until are when the cause began and when it ends, as RFC 3339, if they are known.
	Since string `json:"since,omitempty"`
	Until string `json:"until,omitempty"`
	// Ahead is what goes before a task that waits for its turn, if the status says it.
	Ahead *AheadOfTask `json:"ahead,omitempty"`
	// Advice is what a person can do. It may be part of the cause.
	Advice string `json:"advice,omitempty"`
	// Notes are what else explains the state.
	Notes []string `json:"notes,omitempty"`
}

// AheadOfTask is what goes before a task that waits for its turn.
type AheadOfTask struct {
	// Tasks of the same account have their turn first, and the next calls of these tasks may have
	// this number of Targets.
	Tasks   int `json:"tasks"`
	Targets int `json:"targets"`
	// Time is when they were counted, as RFC 3339.
	Time string `json:"time"`
}

func newWhyCommand(env *environment) *cobra.Command {
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "why NAME",
		Short: "Explain what a task waits for, and what to do",
		Long: `Explain in a few sentences what a task waits for: which rule, quota or call is behind it, since when and
until when, and what a person can do. Of a task whose run is over, it explains the outcome.

It says what the operator has written into the task's status and into that of its EdgeOneAccount.`,
		Example: `  kubectl teo-prefetch why warm-home

  # For a program
  kubectl teo-prefetch why warm-home -o json`,
		Args:              requireTask,
		ValidArgsFunction: env.completeTask,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.validate(); err != nil {
				return err
			}
			task, c, err := env.readTask(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			// The rules of runs need the list. If it is missing, the status says so.
			if resolved, err := resolveTargets(cmd.Context(), c, task); err == nil {
				task = resolved
			}
			now := env.now()
			explanation := why.Explain(task, env.findFacts(cmd.Context(), c, task, now), now)
			if output.isStructured() {
				return output.print(env.Out, newWhyResult(task, &explanation))
			}
			return env.printWhy(task, &explanation)
		},
	}
	output.addTo(cmd)
	return cmd
}

// findFacts reads what explains a task beside its status. What a user may not read is left out.
func (e *environment) findFacts(ctx context.Context, c client.Client, task *v1alpha1.PrefetchTask, now time.Time) (facts why.Facts) {
	facts.ResumeCommand = e.suggestCommand("kubectl teo-prefetch resume", task.Namespace, task.Name)
	facts.RetryCommand = e.suggestCommand("kubectl teo-prefetch retry", task.Namespace, task.Name)
	switch {
	case why.MayLackOperator(task, now):
		facts.Operators = e.describeOperators(ctx, c)
	case !progress.Of(task).Phase.IsOver():
		facts.Account = newQuotaReader(c, now).account(ctx, task)
	}
	return facts
}

// describeOperators says how many pods of operators are available.
func (e *environment) describeOperators(ctx context.Context, c client.Client) string {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	list := &appsv1.DeploymentList{}
	if err := c.List(ctx, list, client.MatchingLabels{labelName: operatorName}, client.Limit(pageSize)); err != nil {
		return ""
	}
	if len(list.Items) == 0 {
		return "The cluster has no Deployment of an operator (label " + labelName + "=" + operatorName + ")"
	}
	var texts []string
	for i := range list.Items {
		d := &list.Items[i]
		texts = append(texts, fmt.Sprintf("%s in namespace %s has %d of %d pods available", d.Name, d.Namespace, d.Status.AvailableReplicas, d.Status.Replicas))
	}
	return "Deployment " + strings.Join(texts, "; ")
}

func newWhyResult(task *v1alpha1.PrefetchTask, x *why.Explanation) WhyResult {
	result := WhyResult{
		OutputHeader: newOutputHeader("WhyResult"), Namespace: task.Namespace, Name: task.Name,
		Phase: string(x.Phase), Reason: x.Reason, Total: x.Total, Submitted: x.Submitted, Succeeded: x.Succeeded, Failed: x.Failed,
		Cause: x.Cause, Since: optionalTime(x.Since), Until: optionalTime(x.Until), Advice: x.Advice, Notes: x.Notes,
	}
	if ahead := x.Ahead; !ahead.Time.IsZero() {
		result.Ahead = &AheadOfTask{Tasks: ahead.Tasks, Targets: ahead.Targets, Time: optionalTime(ahead.Time)}
	}
	return result
}

// optionalTime returns a time as RFC 3339, or "" for none.
func optionalTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// phaseColors are the colors of phases on a terminal.
var phaseColors = map[progress.Phase]color{
	progress.Succeeded: colorGreen, progress.Failed: colorRed, progress.NotFollowed: colorYellow,
	progress.Stalled: colorRed, progress.Suspended: colorYellow,
}

// printWhy prints the explanation as a paragraph.
func (e *environment) printWhy(task *v1alpha1.PrefetchTask, x *why.Explanation) error {
	paint := newPainter(e.Out)
	head := paint.paint(colorBold, task.Namespace+"/"+task.Name) + " is " + paint.paint(phaseColors[x.Phase], string(x.Phase))
	if x.Reason != "" && x.Reason != string(x.Phase) {
		head += " (" + x.Reason + ")"
	}
	if !x.Since.IsZero() {
		head += " since " + e.describeTime(x.Since)
	}
	if x.Total > 0 {
		head += fmt.Sprintf(": %d of %d targets submitted, %d prefetched, %d failed", x.Submitted, x.Total, x.Succeeded, x.Failed)
	}
	sentences := append([]string{x.Cause}, x.Notes...)
	if until := optionalTime(x.Until); until != "" && !strings.Contains(x.Cause, until) {
		sentences = append(sentences, "The task is expected to continue at "+until)
	}
	isCommand := strings.Contains(x.Advice, ": kubectl ")
	if x.Advice != "" && !isCommand {
		sentences = append(sentences, x.Advice)
	}
	text := e.describeTimes(printable(strings.Join(sentences, ". ") + "."))
	text = wrapText(text, min(terminalWidth(e.Out), maxTextWidth))
	if isCommand { // to be copied: a line of its own, without a full stop
		text += "\n" + x.Advice
	}
	_, err := fmt.Fprintf(e.Out, "%s.\n%s\n", head, text)
	return err
}

// maxTextWidth is the most columns of a paragraph.
const maxTextWidth = 100

// describeTime returns a time, and how far away it is.
func (e *environment) describeTime(t time.Time) string {
	away := t.Sub(e.now()).Round(time.Second)
	text := t.UTC().Format(time.RFC3339)
	switch {
	case away > 0:
		return fmt.Sprintf("%s (in %s)", text, duration.HumanDuration(away))
	case away < 0:
		return fmt.Sprintf("%s (%s ago)", text, duration.HumanDuration(-away))
	}
	return text + " (now)"
}

// timeInText is a time in a sentence, and what surrounds it: a URL may have one as well.
var timeInText = regexp.MustCompile(`( )(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)([ .,;)])`)

// describeTimes adds to each time in a text how far away it is.
func (e *environment) describeTimes(text string) string {
	return timeInText.ReplaceAllStringFunc(text, func(found string) string {
		parts := timeInText.FindStringSubmatch(found)
		t, err := time.Parse(time.RFC3339, parts[2])
		if err != nil {
			return found
		}
		return parts[1] + e.describeTime(t) + parts[3]
	})
}

// wrapText breaks a text into lines of at most width columns. A longer word has a line of its own.
func wrapText(text string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case column == 0:
		case column+1+n > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
