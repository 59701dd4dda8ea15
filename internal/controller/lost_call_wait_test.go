package controller

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// The queue reports what a task waits for, and the Poller writes outcomes of the task's other
// targets. Neither overwrites the other's message.
func TestTheReasonOfAWaitForALostCallIsWrittenOnce(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: 30 * time.Minute}, func(t *testing.T, w *calm) {
		w.edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: teo.ActionCreatePrefetchTask, URL: "/x/0", Count: 1},
			Effect: simulator.Effect{Answer: simulator.ConnectionClosed},
		})
		w.create("n", "a", urls("x", 1))
		w.start()
		time.Sleep(3 * time.Second)
		b := w.create("n", "b", urls("x", 2))
		var messages []string
		for range 300 { // the look-up ends after five and a half minutes
			time.Sleep(time.Second)
			ready := meta.FindStatusCondition(w.server.get(b).Status.Conditions, v1alpha1.ConditionReady)
			if ready != nil && (len(messages) == 0 || messages[len(messages)-1] != ready.Message) {
				messages = append(messages, ready.Message)
			}
		}
		if len(messages) == 0 || !strings.Contains(messages[len(messages)-1], "outcome of a call of task a") || len(messages) > 3 {
			t.Errorf("the messages are %q, want the reason of the wait once", messages)
		}
		if writes := len(w.writes[b]); writes > 4 {
			t.Errorf("the status was written %d times, want at most 4", writes)
		}
	})
}
