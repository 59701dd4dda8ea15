package taskstate

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Ahead is what goes before a queued task: the tasks of the same account that wait for the same
// kind of call, and whose turn comes first. Tasks that can share a call go together, so a task
// may go sooner.
type Ahead struct {
	// Tasks is the number of tasks, and Targets how many targets the next calls of these tasks
	// may have.
	Tasks, Targets int
	// Time is when they were counted; zero if they are not known.
	Time time.Time
}

// addTo adds what is ahead to the message of a queued task. AheadOf recognizes it.
func (a Ahead) addTo(message string) string {
	if a.Time.IsZero() {
		return message
	}
	who := "no task was"
	switch {
	case a.Tasks == 1:
		who = "1 task with " + countNoun(a.Targets, "target") + " was"
	case a.Tasks > 1:
		who = fmt.Sprintf("%d tasks with %s were", a.Tasks, countNoun(a.Targets, "target"))
	}
	return message + ". At " + a.Time.UTC().Format(time.RFC3339) + ", " + who + " ahead"
}

// countNoun returns a number with a noun, for example "1 target".
func countNoun(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// aheadInMessage is the end of a message that Ahead.addTo has returned.
var aheadInMessage = regexp.MustCompile(regexp.QuoteMeta(QueuedMessage) + `\. At (\S+), (?:no task was|(\d+) tasks? with (\d+) targets? (?:was|were)) ahead$`)

// AheadOf returns what the status of a queued task says is ahead of it. Its Time is zero if the
// status does not say it.
func AheadOf(task *v1alpha1.PrefetchTask) (ahead Ahead) {
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Reason != v1alpha1.ReasonWaiting {
		return Ahead{}
	}
	found := aheadInMessage.FindStringSubmatch(ready.Message)
	if found == nil {
		return Ahead{}
	}
	ahead.Time, _ = time.Parse(time.RFC3339, found[1])
	ahead.Tasks, _ = strconv.Atoi(found[2])   // absent if no task is ahead
	ahead.Targets, _ = strconv.Atoi(found[3]) // absent as well
	return ahead
}
