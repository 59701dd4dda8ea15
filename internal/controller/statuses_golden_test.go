package controller

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// statusesWrittenAt is the time at which the statuses in testdata/statuses were written: a few
// seconds before the operator of this test starts.
var statusesWrittenAt = time.Date(2000, 1, 1, 0, 0, 5, 0, time.UTC)

// testdata/statuses contains tasks in all states, as version 0.1 of the operator wrote them. A
// cluster may contain any of them when the operator is upgraded. Never edit these files. If a new
// version writes something new, add a file.
func TestStatusesOfTheFirstVersionAreUnderstood(t *testing.T) {
	const untouched = true
	for _, c := range []struct {
		name      string
		sent      string // last parts of the URLs that the operator submits after the upgrade
		ready     string // condition Ready at the end; "" for any
		untouched bool   // the status is not written at all
	}{
		{"unseen", "1 2 3", "True/Succeeded", false},
		{"waiting", "1 2 3", "True/Succeeded", false},
		{"released", "1 2 3", "True/Succeeded", false},
		{"claimed-executed", "", "True/Succeeded", false},
		{"claimed-unknown", "", "True/Succeeded", false},
		{"claimed-lost", "1 2 3", "True/Succeeded", false},
		{"claimed-changed", "1 2 3", "True/Succeeded", false},
		{"lost-often", "1 2 3", "True/Succeeded", false},
		{"submitted", "", "True/Succeeded", false},
		{"submitted-half", "3", "True/Succeeded", false},
		{"submitted-spellings", "", "True/Succeeded", false},
		{"submitted-from-a-list", "", "True/Succeeded", false},
		{"suspended", "", "False/Suspended", false},
		{"finished", "", "True/Succeeded", untouched},
		{"finished-spellings", "", "True/Succeeded", untouched},
		{"finished-in-two-jobs", "", "True/Succeeded", untouched},
		{"finished-from-a-list", "", "True/Succeeded", untouched},
		{"finished-with-all-fields", "", "True/Succeeded", untouched},
		{"refused", "", "False/PartiallyFailed", untouched},
		{"partly-failed", "", "False/PartiallyFailed", untouched},
		{"all-failed", "", "False/Failed", untouched},
		{"no-outcome", "", "", false},
		{"retry-asked", "2", "True/Succeeded", false},
		{"retried", "", "True/Succeeded", untouched},
		{"not-followed", "", "", false},
		{"not-followed-unreadable", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			forgetTimes()
			synctest.Test(t, func(t *testing.T) {
				h, task := newUpgrade(t, c.name)
				writes := 0
				h.server.onStatus = func(_, _ *v1alpha1.PrefetchTask) { writes++ }
				h.start()
				time.Sleep(2 * time.Hour)
				h.end()

				var sent []string
				for _, execution := range h.edgeOne.Ledger() {
					for _, url := range execution.Accepted {
						sent = append(sent, path.Base(url))
					}
				}
				slices.Sort(sent)
				if got := strings.Join(sent, " "); got != c.sent {
					t.Errorf("EdgeOne was asked for %q, want %q", got, c.sent)
				}
				now := h.server.get(client.ObjectKeyFromObject(task))
				if got := controllertest.ConditionOf(now, v1alpha1.ConditionReady); c.ready != "" && got != c.ready {
					t.Errorf("Ready is %s, want %s: %s", got, c.ready, statusLine(now))
				}
				if c.untouched && writes > 0 {
					t.Errorf("the status was written %d times: %s", writes, statusLine(now))
				}
			})
		})
	}
	files, err := filepath.Glob("testdata/statuses/*.yaml")
	if err != nil || len(files) != 26 {
		t.Errorf("there are %d statuses (%v): add a line to the table for each", len(files), err)
	}
}

// newUpgrade returns a simulation in which an earlier version of the operator wrote a task's
// status and has stopped. EdgeOne has executed the jobs in the status.
func newUpgrade(t *testing.T, name string) (*simulation, *v1alpha1.PrefetchTask) {
	raw, err := os.ReadFile(filepath.Join("testdata", "statuses", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	task := &v1alpha1.PrefetchTask{}
	if err := yaml.UnmarshalStrict(raw, task); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(statusesWrittenAt.Add(10 * time.Second)))
	h := newSimulation(t, plan{}, 1)

	urls := taskstate.DistinctTargets(task)
	if from := task.Spec.TargetsFrom.ConfigMapKeyRef.Name; from != "" {
		for _, part := range []string{"1", "2", "3"} {
			urls = append(urls, "https://a1.example.com/"+name+"/"+part)
		}
		h.server.setList(client.ObjectKey{Namespace: task.Namespace, Name: from}, strings.Join(urls, "\n"))
	}
	h.edgeOne.SetRules(failedBefore(task)...)
	executed := func(id, positions string) {
		job := simulator.Job{ID: id, ZoneID: task.Spec.ZoneID, Created: statusesWrittenAt}
		at, err := taskstate.ParsePositions(positions)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range at {
			job.URLs = append(job.URLs, urls[i])
		}
		h.edgeOne.AddJob(job)
	}
	status := task.Status.DeepCopy()
	taskstate.UpgradeStatus(status)
	for _, job := range status.Jobs {
		if job.ID != "job-gone" {
			executed(job.ID, job.Positions)
		}
	}
	if name == "claimed-executed" || name == "claimed-unknown" {
		executed("job-"+name, status.Submission.Positions)
	}
	h.edgeOne.SetRules()
	h.server.restore(task)
	return h, task
}

// failedBefore returns rules with which EdgeOne fails the failed targets of the status.
func failedBefore(task *v1alpha1.PrefetchTask) (rules []simulator.Rule) {
	for _, failed := range task.Status.FailedTargets {
		rules = append(rules, simulator.Rule{URL: failed.URL, Status: teo.StatusFailed, FailType: "originPullFailed"})
	}
	return rules
}
