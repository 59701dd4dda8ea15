package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestWhyExplainsWhatTheStatusSays(t *testing.T) {
	w := newWorld(t)
	quota := w.task("quota", "https://small.example.net/1", "https://small.example.net/2", "https://small.example.net/3", "https://small.example.net/4")
	quota.Spec.ZoneID = smallZone
	secret := w.task("no-secret", good+"secret.html")
	secret.Spec.CredentialsSecretRef.Name = "missing"
	suspended := w.task("suspended", good+"suspended.html")
	suspended.Spec.Suspend = ptr.To(true)
	purging := w.task("purging", good+"purging.html")
	purging.Spec.Purge.Type = v1alpha1.PurgeURL
	expiring := w.task("good", good+"index.html", good+"app.js")
	expiring.Spec.TTLSecondsAfterFinished = 3600
	w.create(expiring, w.task("one-bad", good+"a.html", good+"missing/b.html"), w.task("slow", good+"slow.html"), secret, quota, suspended, purging)
	unseen := w.run("why", "good")
	text := strings.Join(strings.Fields(unseen.out), " ")
	if unseen.code != 0 || !strings.Contains(text, "is Running (NotObserved)") || !strings.Contains(text, "The task has no status yet.") {
		t.Errorf("%+v", unseen)
	}
	w.operate(func(c *simulator.Config) {
		c.Rules = append(c.Rules, simulator.Rule{Action: "CreatePurgeTask", URL: "purging.html", Status: simulator.Never}, simulator.Rule{URL: "slow.html", Status: simulator.Never})
	})
	for _, tt := range []struct {
		task, reason string
		want         []string
	}{
		{"good", v1alpha1.ReasonSucceeded, []string{"2 of 2 targets submitted, 2 prefetched, 0 failed.", "All 2 targets are prefetched.", "The task will be deleted at 20", "(in "}},
		{"one-bad", v1alpha1.ReasonPartiallyFailed, []string{"is Failed (PartiallyFailed)", "https://www.example.com/missing/b.html (Invalid: The origin answered 404)", "To retry: kubectl teo-prefetch retry one-bad -n "}},
		{"no-secret", v1alpha1.ReasonCredentialsMissing, []string{"is Stalled (CredentialsMissing)", `Secret "missing" does not exist`, "Create it with the keys", "The task has been Stalled since 20"}},
		{"quota", v1alpha1.ReasonDailyQuota, []string{"is Running (DailyQuota): 3 of 4 targets submitted, 3 prefetched, 0 failed. The daily quota", "new quota is expected at 20", "(in ", "The task has waited for quota since 20", "buy more"}},
		{"suspended", v1alpha1.ReasonSuspended, []string{"is Suspended", "To resume it: kubectl teo-prefetch resume suspended"}},
		{"purging", v1alpha1.ReasonPurging, []string{"is Running (Purging)", "EdgeOne is purging 1", "less than a minute"}},
		{"slow", v1alpha1.ReasonSubmitted, []string{"is Running (Submitted)", "The outcomes of 1 job are missing: ", "5 to 30 minutes"}},
	} {
		w.until(tt.task, tt.reason, func(task *v1alpha1.PrefetchTask) bool {
			return taskstate.ReadyReason(task) == tt.reason && (tt.task != "no-secret" || taskstate.IsStalledFor(task, tt.reason)) &&
				(tt.task != "purging" || len(task.Status.Jobs) > 0) && (tt.task != "quota" || ptr.Deref(task.Status.Targets.Succeeded, 0) == 3)
		})
		r := w.run("why", tt.task)
		text := strings.Join(strings.Fields(r.out), " ")
		for _, want := range append(tt.want, w.namespace+"/"+tt.task) {
			if !strings.Contains(text, want) {
				t.Errorf("why %s does not say %q:\n%s", tt.task, want, r.out)
			}
		}
		if r.code != 0 || r.err != "" {
			t.Errorf("%+v", r)
		}
		if testing.Verbose() {
			t.Logf("why %s:\n%s", tt.task, r.out)
		}
	}
	r := w.run("why", "quota", "-o", "json")
	var got cli.WhyResult
	w.must(json.Unmarshal([]byte(r.out), &got))
	if got.Kind != "WhyResult" || got.Reason != v1alpha1.ReasonDailyQuota || got.Submitted != 3 || got.Until == "" || got.Since != "" {
		t.Errorf("%+v", got)
	}
	w.run("why", "nothing").is(t, 1, "", `Error: there is no PrefetchTask "nothing" in namespace "`+w.namespace+`": check the name and --namespace`+"\n")
}

func TestWhySaysWhatIsAheadOfAQueuedTask(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("queued", good+"2026-07-01T16:00:00Z", good+"b.html"))
	counted := time.Now().Add(-90 * time.Second).Truncate(time.Second)
	ahead := taskstate.Ahead{Tasks: 12, Targets: 5000, Time: counted}
	w.setStatus("queued", func(task *v1alpha1.PrefetchTask) {
		taskstate.ReportWaiting(taskstate.WaitingStatus{Task: task, Cause: taskstate.QueuedCause, Ahead: ahead}, counted)(task)
	})
	r := w.run("why", "queued")
	text := strings.Join(strings.Fields(r.out), " ")
	want := "queued is Running (Waiting): 0 of 2 targets submitted, 0 prefetched, 0 failed. Queued; will be submitted when its turn comes. At " +
		counted.UTC().Format(time.RFC3339) + " (9"
	if r.code != 0 || !strings.Contains(text, want) || !strings.Contains(text, "s ago), 12 tasks with 5000 targets were ahead. The task was created at") {
		t.Errorf("%+v", r)
	}
	var got cli.WhyResult
	r = w.run("why", "queued", "-o", "json")
	w.must(json.Unmarshal([]byte(r.out), &got))
	if got.Ahead == nil || *got.Ahead != (cli.AheadOfTask{Tasks: 12, Targets: 5000, Time: counted.UTC().Format(time.RFC3339)}) {
		t.Errorf("%+v", got)
	}
}

func TestWhyLooksForAnOperatorIfTheStatusIsOld(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("quota", good), w.task("throttled", good))
	w.setStatus("quota", func(task *v1alpha1.PrefetchTask) {
		cause := taskstate.Cause{Reason: v1alpha1.ReasonDailyQuota, Message: "The daily quota of this zone is used up", Quota: true}
		taskstate.ReportWaiting(taskstate.WaitingStatus{Task: task, Cause: cause, NextAttempt: time.Now().Add(-72 * time.Hour)}, time.Now())(task)
	})
	w.setStatus("throttled", func(task *v1alpha1.PrefetchTask) {
		cause := taskstate.Cause{Reason: v1alpha1.ReasonThrottled, Message: "EdgeOne throttles calls"}
		taskstate.ReportWaiting(taskstate.WaitingStatus{Task: task, Cause: cause}, time.Now())(task)
	})
	throttled := w.get("throttled")
	throttled.Labels = map[string]string{"aged": "true"} // the API server ignores a change of times alone
	for i := range throttled.ManagedFields {
		throttled.ManagedFields[i].Time = &metav1.Time{Time: time.Now().Add(-72 * time.Hour)}
	}
	w.must(w.Update(t.Context(), throttled))
	for _, name := range []string{"quota", "throttled"} {
		r := w.run("why", name)
		text := strings.Join(strings.Fields(r.out), " ")
		for _, want := range []string{"(3d ago)", "The status was last written at 20", "Deployment", "check that an operator runs"} {
			if r.code != 0 || !strings.Contains(text, want) {
				t.Errorf("%q is not in %+v", want, r)
			}
		}
	}
}
