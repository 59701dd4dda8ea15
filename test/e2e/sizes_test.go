package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// numbered returns n URLs with the given number of characters.
func numbered(prefix string, n, length int) (urls []string) {
	for i := range n {
		u := fmt.Sprintf("%s%05d", prefix, i)
		urls = append(urls, u+strings.Repeat("p", length-len(u)))
	}
	return urls
}

// Tasks that leave almost no room in etcd for their status still end with exact counts. A
// later task in another namespace is served within seconds.
func TestATaskThatLeavesNoRoomForItsStatusEndsAndHoldsNobody(t *testing.T) {
	for _, tt := range []struct {
		name   string
		urls   []string
		failed int32
	}{
		{"723 URLs of 2,000 characters, all refused", numbered(good+"refused/", 723, 2000), 723},
		{"10,000 URLs of a host that the zone does not have", numbered("https://cdn.not-in-this-zone.example/", 10_000, 152), 10_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, other := newWorldPair(t)
			w.manager("--watch-namespaces=" + w.namespace + "," + other.namespace)
			w.create(w.task("large", tt.urls...))
			w.until("large", "claimed, or more", func(s v1alpha1.PrefetchTaskStatus) bool { return s.Run != "" })
			created := time.Now()
			other.create(other.task("small", good+other.namespace))
			other.untilFinished("small", v1alpha1.ReasonSucceeded)
			if took := time.Since(created); took > 20*time.Second {
				t.Errorf("the other task took %s", took)
			}
			task := w.untilFinished("large", v1alpha1.ReasonFailed)
			if failed := ptr.Deref(task.Status.Targets.Failed, 0); failed != tt.failed {
				t.Errorf("%d targets failed, want %d", failed, tt.failed)
			}
			for i, failed := range task.Status.FailedTargets {
				if failed.URL != tt.urls[i] {
					t.Errorf("failed target %d is %s", i, failed.URL)
				}
			}
		})
	}
}

func TestAFirstRetryOfLongURLsIsNotRefused(t *testing.T) {
	w := newWorld(t, config())
	var urls []string
	for i := range 100 {
		urls = append(urls, fmt.Sprintf("%sbroken/%s/%03d", good, w.namespace, i)+strings.Repeat("页", 900))
	}
	w.create(w.task("long", urls...))
	w.manager()
	w.untilFinished("long", v1alpha1.ReasonFailed)
	w.edgeOne.SetRules()
	w.ask("long", "1")
	w.untilFinished("long", v1alpha1.ReasonSucceeded)
}

// A user fills up the object after its claim was written, so the response of the call
// cannot be recorded. The response is not lost, and is recorded once there is room again.
func TestAnAnswerThatDoesNotFitIsRecordedOnceThereIsRoom(t *testing.T) {
	c := unhurried()
	for _, digit := range "13579" { // the positions need more room than the claim leaves
		c.Rules = append(c.Rules, simulator.Rule{URL: string(digit) + "pp", Refuse: "no"})
	}
	w, other := newWorldPairOf(t, c)
	held := w.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", Count: 1})
	w.manager(append(unhurriedFlags, "--watch-namespaces="+w.namespace+","+other.namespace)...)
	urls := numbered(good+w.namespace+"/", 700, 2000)
	w.create(w.task("full", urls...))
	<-held.Arrived()
	task := w.get("full")
	var fills int
	for size := 256 << 10; size > 16; { // until not even a few more bytes fit
		before := task.DeepCopy()
		metav1.SetMetaDataAnnotation(&task.ObjectMeta, fmt.Sprint("fill-", fills), strings.Repeat("x", size))
		if err := w.Patch(t.Context(), task, client.MergeFrom(before)); err != nil {
			size /= 2
			task = before
			continue
		}
		fills++
	}
	held.Release()
	w.eventually("an Event says what to do", func() bool { return w.reported("full", v1alpha1.ReasonTooLarge) })
	created := time.Now()
	other.create(other.task("small", good+other.namespace))
	other.untilFinished("small", v1alpha1.ReasonSucceeded)
	if took := time.Since(created); took > 20*time.Second {
		t.Errorf("the other task took %s", took)
	}
	w.edit("full", func(task *v1alpha1.PrefetchTask) { task.Annotations = nil })
	task = w.untilFinished("full", v1alpha1.ReasonPartiallyFailed)
	if got, want := counts(task.Status), "700 submitted, 350 succeeded, 350 failed of 700"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for i := 0; i < len(urls); i += 2 {
		w.once(urls[i])
	}
}

// reported reports whether there is an Event with the given reason about a task.
func (w *world) reported(name, reason string) bool {
	w.t.Helper()
	var events eventsv1.EventList
	w.must(w.List(w.t.Context(), &events, client.InNamespace(w.namespace)))
	return slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool { return e.Reason == reason && e.Regarding.Name == name })
}
