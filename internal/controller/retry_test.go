package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// ended returns the records with which EdgeOne lists an ended job.
func ended(job string, succeeded, failed taskstate.Positions) taskstate.JobRecords {
	all := controllertest.Listed(job, "success", succeeded...)
	for id, entries := range controllertest.Listed(job, "failed", failed...) {
		if all[id] == nil {
			all[id] = entries
		}
		maps.Copy(all[id], entries)
	}
	return all
}

func TestARetryOpensWhatFailedAndNothingElse(t *testing.T) {
	following := func(l taskstate.JobRecords) taskstate.Transition {
		return controllertest.FollowJobs(l, time.Hour, controllertest.T0, controllertest.T0)
	}
	late := controllertest.FollowJobs(controllertest.Listed("j", "success", 0), time.Hour, controllertest.T0, controllertest.T0.Add(2*time.Hour))
	all, first, rest := taskstate.AllPositions(300), taskstate.AllPositions(100), taskstate.AllPositions(300).Minus(taskstate.AllPositions(100))
	for _, c := range []struct {
		name    string
		targets int
		changes []taskstate.Transition
		again   taskstate.JobRecords // what EdgeOne lists when the retry is requested
		open    string
		counts  string // total, submitted, succeeded, failed
	}{
		{"refused", 3, []taskstate.Transition{controllertest.Claiming("0-2"), taskstate.RecordJob("j", map[string]string{"https://h/1": "no"}, controllertest.T0), following(controllertest.Listed("j", "success", 0, 2))}, nil, "1", "3 2 2 0"},
		{"refused as a whole", 2, []taskstate.Transition{taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(2), "no", controllertest.T0)}, nil, "0-1", "2 0 0 0"},
		{"a whole job", 3, []taskstate.Transition{controllertest.Submitted("0", "i"), controllertest.Submitted("1-2", "j"), following(controllertest.Listed("i", "success", 0)), following(controllertest.Listed("j", "failed", 1, 2))}, nil, "1-2", "3 1 1 0"},
		{"part of a job", 3, []taskstate.Transition{controllertest.Submitted("0-2", "j"), following(ended("j", []int{0, 2}, []int{1}))}, nil, "1", "3 2 2 0"},
		{"without an outcome", 2, []taskstate.Transition{controllertest.Submitted("0-1", "j"), late}, nil, "1", "2 1 1 0"},
		{"everything succeeded", 2, []taskstate.Transition{controllertest.Submitted("0-1", "j"), following(controllertest.Listed("j", "success", 0, 1))}, nil, "", "2 2 2 0"},
		{"where outcomes cannot be read", 2, []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", map[string]string{"https://h/1": "no"}, controllertest.T0), taskstate.EndNotFollowed("no", controllertest.T0)}, nil, "1", "2 1 0 0"},
		{"retried before", 3, []taskstate.Transition{controllertest.Submitted("0-2", "j"), following(ended("j", []int{0}, []int{1, 2})), controllertest.Asking("0"), reopen(nil, controllertest.T0),
			controllertest.Submitted("1-2", "k"), following(ended("k", []int{1}, []int{2}))}, nil, "2", "3 2 2 0"},
		{"more than the status names", 300, []taskstate.Transition{controllertest.Submitted("0-299", "j"), following(ended("j", first, rest))}, ended("j", first, rest), "100-299", "300 100 100 0"},
		{"some of them have succeeded since", 300, []taskstate.Transition{controllertest.Submitted("0-299", "j"), following(ended("j", first, rest))}, ended("j", first.Union([]int{100}), rest.Minus([]int{100})), "101-299", "300 101 101 0"},
		{"forgotten by EdgeOne", 300, []taskstate.Transition{controllertest.Submitted("0-299", "j"), following(ended("j", first, rest))}, taskstate.JobRecords{}, "", "300 300 100 200"},
		{"half forgotten by EdgeOne", 300, []taskstate.Transition{controllertest.Submitted("0-299", "j"), following(ended("j", first, rest))}, ended("j", first[:50], rest), "", "300 300 100 200"},
		{"named or whole, without a look", 300, []taskstate.Transition{controllertest.Submitted("0", "i"), controllertest.Submitted("1-299", "j"), following(controllertest.Listed("i", "success", 0)), following(controllertest.Listed("j", "failed", all[1:]...))}, nil, "1-299", "300 1 1 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := controllertest.TaskOf(c.targets)
			for _, change := range c.changes {
				change(task)
			}
			jobs := len(task.Status.Jobs)
			controllertest.Asking("1")(task)
			if !taskstate.IsRetryDue(task) {
				t.Fatalf("no retry is due: %s", controllertest.Summary(task))
			}
			reopen(c.again, controllertest.T0)(task)
			if taskstate.IsRetryDue(task) || task.Status.LastHandledRetry != "1" {
				t.Error("the status does not say that the retry is handled")
			}
			if got := taskstate.OpenPositions(task).String(); got != c.open || taskstate.IsRunOver(task) != (c.open == "") || task.Status.CompletionTime.IsZero() != (c.open != "") {
				t.Errorf("open: %q, want %q; completed %v", got, c.open, task.Status.CompletionTime)
			}
			s := task.Status
			if got := fmt.Sprint(*s.Targets.Total, *s.Targets.Submitted, *s.Targets.Succeeded, *s.Targets.Failed); got != c.counts {
				t.Errorf("counts are %s, want %s", got, c.counts)
			}
			if len(s.Jobs) != jobs {
				t.Errorf("%d jobs of %d are left", len(s.Jobs), jobs)
			}
			if c.open == "" {
				return
			}
			controllertest.Submitted(c.open, "last")(task)
			following(controllertest.Listed("last", "success", taskstate.AllPositions(c.targets)...))(task)
			if want := c.targets; c.name != "where outcomes cannot be read" && (!strings.Contains(controllertest.Summary(task), "Finished=Succeeded") || int(*task.Status.Targets.Succeeded) != want) {
				t.Errorf("in the end: %s, %d of %d", controllertest.Summary(task), *task.Status.Targets.Succeeded, want)
			}
		})
	}
}

func TestARetryIsAskedForByANewValueOfARunThatIsOver(t *testing.T) {
	failed := func() *v1alpha1.PrefetchTask {
		task := controllertest.TaskOf(2)
		taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(2), "no", controllertest.T0)(task)
		return task
	}
	for _, c := range []struct {
		name   string
		change taskstate.Transition
		due    bool
	}{
		{"no annotation", func(*v1alpha1.PrefetchTask) {}, false},
		{"a value", controllertest.Asking("1"), true},
		{"a long value", controllertest.Asking(strings.Repeat("long", 1000)), true},
		{"a value that was handled", func(task *v1alpha1.PrefetchTask) {
			controllertest.Asking("1")(task)
			task.Status.LastHandledRetry = "1"
		}, false},
		{"the annotation is removed", func(task *v1alpha1.PrefetchTask) { task.Status.LastHandledRetry = "1" }, false},
		{"the run is under way", func(task *v1alpha1.PrefetchTask) {
			controllertest.Asking("1")(task)
			reopen(nil, controllertest.T0)(task)
			controllertest.Asking("2")(task)
		}, false},
		{"another run is asked for", func(task *v1alpha1.PrefetchTask) { controllertest.Asking("1")(task); task.Spec.Revision = "2" }, false},
		{"another run has begun, and failed", func(task *v1alpha1.PrefetchTask) {
			controllertest.Asking("1")(task)
			task.Spec.Revision = "2"
			taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(2), "no", controllertest.T0)(task)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := failed()
			c.change(task)
			if taskstate.IsRetryDue(task) != c.due {
				t.Errorf("due: %v, want %v", !c.due, c.due)
			}
			if reopen(nil, controllertest.T0)(task); taskstate.IsRetryDue(task) {
				t.Error("it is due again when it is handled")
			}
		})
	}
}

// Half of 10,000 targets fail again and again. No two of them are neighbors, so their positions
// take much room in the status.
func TestAStatusGrowsByRetriesOnlyAsFarAsThereIsRoom(t *testing.T) {
	task := controllertest.TaskOf(taskstate.MaxTargets)
	var failing, fine taskstate.Positions
	for i := range taskstate.MaxTargets {
		if i%2 == 0 {
			failing = append(failing, i)
		} else {
			fine = append(fine, i)
		}
	}
	controllertest.Submitted("0-9999", "j0")(task)
	answer := ended("j0", fine, failing)
	controllertest.FollowJobs(answer, time.Hour, controllertest.T0, controllertest.T0)(task)
	retries := 0
	for ; taskstate.IsRunOver(task); retries++ {
		controllertest.Asking(fmt.Sprint(retries))(task)
		if reopen(answer, controllertest.T0)(task); taskstate.IsRunOver(task) {
			break
		}
		job := fmt.Sprint("j", retries+1)
		controllertest.Submitted(failing.String(), job)(task)
		answer[job] = ended(job, nil, failing)[job]
		controllertest.FollowJobs(answer, time.Hour, controllertest.T0, controllertest.T0)(task)
		if retries > 100 {
			t.Fatal("a retry is never refused")
		}
	}
	size, err := json.Marshal(task.Status)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d retries fill %d KiB", retries, len(size)>>10)
	if retries < 3 || len(size) > 400<<10 || taskstate.IsRetryDue(task) || !strings.Contains(task.Status.Conditions[0].Message, "no room") {
		t.Errorf("after %d retries the status has %d bytes and says %q", retries, len(size), task.Status.Conditions[0].Message)
	}
}

// The room check of a retry does not count the failed targets that the retry clears.
func TestAFirstRetryHasRoomHoweverLongTheNamesOfWhatFailed(t *testing.T) {
	for name, fails := range map[string]taskstate.Transition{
		"refused": taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(100), strings.Repeat("no ", 300), controllertest.T0),
		"failed": func(task *v1alpha1.PrefetchTask) {
			controllertest.Submitted("0-99", "j")(task)
			entries := taskstate.JobRecords{"j": {}}
			for _, u := range taskstate.DistinctTargets(task) {
				entries["j"][target.Identity(u)] = teo.Record{JobID: "j", Target: u, Status: "failed", FailMessage: strings.Repeat("no ", 300)}
			}
			controllertest.FollowJobs(entries, time.Hour, controllertest.T0, controllertest.T0)(task)
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := controllertest.TaskOf(100)
			for i := range task.Spec.Targets {
				task.Spec.Targets[i] = v1alpha1.Target(fmt.Sprintf("https://h/%03d", i) + strings.Repeat("页", 900))
			}
			fails(task)
			if size := taskstate.JSONSize(task.Status); !taskstate.IsRunOver(task) || size <= taskstate.MaxStatus {
				t.Fatalf("%s in %d bytes", controllertest.Summary(task), size)
			}
			controllertest.Asking("1")(task)
			if reopen(nil, controllertest.T0)(task); len(taskstate.OpenPositions(task)) != 100 {
				t.Errorf("%d targets are open: %s", len(taskstate.OpenPositions(task)), task.Status.Conditions[0].Message)
			}
		})
	}
}

func TestARetryOfWhatSucceededSaysNothingOfRoom(t *testing.T) {
	const n = 3000
	task := controllertest.TaskOf(n)
	controllertest.Submitted(taskstate.AllPositions(n).String(), "j")(task)
	job := task.Status.Jobs[0]
	task.Status.Jobs = nil
	for i := range n { // as if EdgeOne accepted a single URL per call
		job.ID, job.Positions, job.Succeeded = fmt.Sprint("j", i), fmt.Sprint(i), 1
		task.Status.Jobs = append(task.Status.Jobs, job)
	}
	taskstate.UpdateSummary(task, controllertest.T0)
	before := controllertest.Summary(task)
	controllertest.Asking("1")(task)
	if reopen(nil, controllertest.T0)(task); taskstate.IsRetryDue(task) || controllertest.Summary(task) != before || !strings.HasPrefix(task.Status.Conditions[0].Message, "All 3000 targets") {
		t.Errorf("after a retry it says %s, %q; before: %s", controllertest.Summary(task), task.Status.Conditions[0].Message, before)
	}
}

func TestTheCacheKeepsATaskThatAsksForARetryUntilItIsHandled(t *testing.T) {
	task := controllertest.TaskOf(2)
	taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(2), "no", controllertest.T0)(task)
	controllertest.Asking("1")(task)
	if _, whole := kube.PruneFinishedTask(task.DeepCopy()).(*v1alpha1.PrefetchTask); !whole {
		t.Error("slimmed before")
	}
	task.Status.LastHandledRetry = "1"
	kept := kube.PruneFinishedTask(task.DeepCopy())
	if _, whole := kept.(*v1alpha1.PrefetchTask); whole || len(kept.GetAnnotations()) > 0 {
		t.Errorf("kept afterwards: %+v", kept)
	}
}

func TestAStatusEditedByHandReopensNothingThatDidNotFail(t *testing.T) {
	for _, retried := range []string{"0-1", "1-2", "2", "1,0", "all", "0-99999999999999999999"} {
		task := controllertest.TaskOf(2)
		controllertest.Submitted("0-1", "j")(task)
		controllertest.FollowJobs(ended("j", []int{0}, []int{1}), time.Hour, controllertest.T0, controllertest.T0)(task)
		task.Status.Jobs[0].RetriedPositions = retried
		if open := taskstate.OpenPositions(task); len(open) > 0 {
			t.Errorf("with %q retried, %v are open", retried, open)
		}
	}
}
