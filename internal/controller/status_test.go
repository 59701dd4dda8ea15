package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestTransitions(t *testing.T) {
	quota := taskstate.Cause{Reason: v1alpha1.ReasonDailyQuota, Message: "no quota", Quota: true}
	person := taskstate.Cause{Reason: v1alpha1.ReasonCredentialsMissing, Message: "no Secret", NeedsUser: true}
	budget := taskstate.Cause{Reason: v1alpha1.ReasonBudget, Message: "no budget", Quota: true}
	notAllowed := taskstate.Cause{Reason: v1alpha1.ReasonNotAllowed, Message: "not allowed", NeedsUser: true}
	missing := taskstate.Cause{Reason: v1alpha1.ReasonAccountMissing, Message: "no account", NeedsUser: true}
	revise := func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "2"; task.Generation++ }
	following := func(l taskstate.JobRecords, after time.Duration) taskstate.Transition {
		return controllertest.FollowJobs(l, time.Hour, controllertest.T0, controllertest.T0.Add(after))
	}
	for _, c := range []struct {
		name    string
		changes []taskstate.Transition
		want    string
		counts  string // total, submitted, succeeded, failed
	}{
		{"claimed", []taskstate.Transition{controllertest.Claiming("0-1")}, "-Finished=Submitting -Ready=Submitting -Submitted=Submitting", "2 0 0 0"},
		{"submitted", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", nil, controllertest.T0)}, "-Finished=Submitted -Ready=Submitted Submitted=Submitted", "2 2 0 0"},
		{"submitted in part", []taskstate.Transition{controllertest.Claiming("0"), taskstate.RecordJob("j", nil, controllertest.T0)}, "-Finished=Waiting -Ready=Waiting -Submitted=Waiting", "2 1 0 0"},
		{"refused in part", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", map[string]string{"https://h/1": "no"}, controllertest.T0)}, "-Finished=Submitted -Ready=Submitted Submitted=Submitted", "2 2 0 1"},
		{"refused as a whole", []taskstate.Transition{taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(2), "no", controllertest.T0)}, "Finished=Failed -Ready=Failed Stalled=Failed Submitted=Submitted", "2 2 0 2"},
		{"released", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.ReleaseClaim(taskstate.Cause{}, controllertest.T0)}, "-Finished=Waiting -Ready=Waiting -Submitted=Waiting", "2 0 0 0"},
		{"unknown", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.OutcomeUnknown("lost", false)}, "-Finished=OutcomeUnknown -Ready=OutcomeUnknown ?Submitted=OutcomeUnknown", "2 0 0 0"},
		{"found", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.OutcomeUnknown("lost", false), taskstate.AdoptJobs([]taskstate.AdoptedJob{{JobID: "j", Positions: taskstate.AllPositions(2)}}, controllertest.T0)}, "-Finished=Submitted -Ready=Submitted Submitted=Submitted", "2 2 0 0"},
		{"released for a cause that a user must correct", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.ReleaseClaim(person, controllertest.T0)}, "-Finished=CredentialsMissing -Ready=CredentialsMissing -Submitted=CredentialsMissing", "2 0 0 0"},
		{"found in part", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.AdoptJobs([]taskstate.AdoptedJob{{JobID: "j", Positions: taskstate.AllPositions(1)}}, controllertest.T0)}, "-Finished=Waiting -Ready=Waiting -Submitted=Waiting", "2 1 0 0"},
		{"lost three times with others", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.AdoptJobs(nil, controllertest.T0), controllertest.Claiming("0-1"), taskstate.AdoptJobs(nil, controllertest.T0), controllertest.Claiming("0-1"), taskstate.AdoptJobs(nil, controllertest.T0)}, "-Finished=Waiting -Ready=Waiting -Submitted=Waiting", "2 0 0 0"},
		{"lost three times, the last one alone", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.AdoptJobs(nil, controllertest.T0), controllertest.Claiming("0-1"), taskstate.AdoptJobs(nil, controllertest.T0), controllertest.Claiming("0"), taskstate.AdoptJobs(nil, controllertest.T0)}, "-Finished=OutcomeUnknown -Ready=OutcomeUnknown Stalled=OutcomeUnknown -Submitted=OutcomeUnknown", "2 0 0 0"},
		{"waiting for quota", []taskstate.Transition{taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: quota}, controllertest.T0)}, "-Finished=DailyQuota QuotaExceeded=DailyQuota -Ready=DailyQuota -Submitted=DailyQuota", ""},
		{"half done and waiting for quota, while the other half is followed", []taskstate.Transition{controllertest.Claiming("0"), taskstate.RecordJob("j", nil, controllertest.T0), taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: quota}, controllertest.T0), following(controllertest.Listed("j", "success", 0), 0)}, "-Finished=DailyQuota QuotaExceeded=DailyQuota -Ready=DailyQuota -Submitted=DailyQuota", "2 1 1 0"},
		{"half done and waiting for a budget, while the other half is followed", []taskstate.Transition{controllertest.Claiming("0"), taskstate.RecordJob("j", nil, controllertest.T0), taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: budget}, controllertest.T0), following(controllertest.Listed("j", "success", 0), 0)}, "-Finished=Budget QuotaExceeded=Budget -Ready=Budget -Submitted=Budget", "2 1 1 0"},
		{"half done and not allowed any more, while the other half is followed", []taskstate.Transition{controllertest.Claiming("0"), taskstate.RecordJob("j", nil, controllertest.T0), taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: notAllowed, Stalled: true}, controllertest.T0), following(controllertest.Listed("j", "success", 0), 0)}, "-Finished=NotAllowed -Ready=NotAllowed Stalled=NotAllowed -Submitted=NotAllowed", "2 1 1 0"},
		{"half done and without its account, while the other half is followed", []taskstate.Transition{controllertest.Claiming("0"), taskstate.RecordJob("j", nil, controllertest.T0), taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: missing, Stalled: true}, controllertest.T0), following(controllertest.Listed("j", "success", 0), 0)}, "-Finished=AccountMissing -Ready=AccountMissing Stalled=AccountMissing -Submitted=AccountMissing", "2 1 1 0"},
		{"stalled", []taskstate.Transition{taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: person, Stalled: true}, controllertest.T0)}, "-Finished=CredentialsMissing -Ready=CredentialsMissing Stalled=CredentialsMissing -Submitted=CredentialsMissing", ""},
		{"mended", []taskstate.Transition{taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: person, Stalled: true}, controllertest.T0), controllertest.Claiming("0-1"), taskstate.RecordJob("j", nil, controllertest.T0)}, "-Finished=Submitted -Ready=Submitted Submitted=Submitted", "2 2 0 0"},
		{"succeeded", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", nil, controllertest.T0), following(controllertest.Listed("j", "success", 0, 1), 0)}, "Finished=Succeeded Ready=Succeeded Submitted=Submitted", "2 2 2 0"},
		{"failed in part", []taskstate.Transition{controllertest.Claiming("0"), taskstate.RecordJob("i", nil, controllertest.T0), controllertest.Claiming("1"), taskstate.RecordJob("j", nil, controllertest.T0), following(controllertest.Listed("i", "success", 0), 0), following(controllertest.Listed("j", "failed", 1), 0)}, "Finished=PartiallyFailed -Ready=PartiallyFailed Stalled=PartiallyFailed Submitted=Submitted", "2 2 1 1"},
		{"not to be seen", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", nil, controllertest.T0), taskstate.OutcomesUnreadable(person)}, "-Finished=CredentialsMissing -Ready=CredentialsMissing Stalled=CredentialsMissing Submitted=Submitted", "2 2 0 0"},
		{"seen again", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", nil, controllertest.T0), taskstate.OutcomesUnreadable(person), following(controllertest.Listed("j", "success", 0), 0)}, "-Finished=Submitted -Ready=Submitted Submitted=Submitted", "2 2 1 0"},
		{"under way", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", nil, controllertest.T0), following(controllertest.Listed("j", "processing", 0, 1), 0)}, "-Finished=Submitted -Ready=Submitted Submitted=Submitted", "2 2 0 0"},
		{"without an outcome", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", nil, controllertest.T0), following(taskstate.JobRecords{}, 2*time.Hour)}, "Finished=Failed -Ready=Failed Stalled=Failed Submitted=Submitted", "2 2 0 2"},
		{"not followed", []taskstate.Transition{controllertest.Claiming("0-1"), taskstate.RecordJob("j", nil, controllertest.T0), taskstate.EndNotFollowed("denied", controllertest.T0)}, "Finished=NotFollowed ?Ready=NotFollowed Stalled=NotFollowed Submitted=Submitted", "2 2 0 0"},
		{"a new run after the end", []taskstate.Transition{taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(2), "no", controllertest.T0), revise, controllertest.Claiming("0-1")}, "-Finished=Submitting -Ready=Submitting -Submitted=Submitting", "2 0 0 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := controllertest.TaskOf(2)
			for _, change := range c.changes {
				change(task)
			}
			if got := controllertest.Summary(task); got != c.want {
				t.Errorf("the conditions are\n%s, want\n%s", got, c.want)
			}
			s := task.Status
			if c.counts != "" {
				got := fmt.Sprint(*s.Targets.Total, *s.Targets.Submitted, *s.Targets.Succeeded, *s.Targets.Failed)
				if got != c.counts {
					t.Errorf("counts are %s, want %s", got, c.counts)
				}
			}
			if s.ObservedGeneration != task.Generation || taskstate.IsRunOver(task) == s.CompletionTime.IsZero() {
				t.Errorf("observed %d, completed %v", s.ObservedGeneration, s.CompletionTime)
			}
			for _, condition := range s.Conditions {
				if condition.ObservedGeneration != task.Generation {
					t.Errorf("%s speaks of generation %d", condition.Type, condition.ObservedGeneration)
				}
			}
			last := c.changes[len(c.changes)-1]
			if s.Submission == nil && s.LostCalls == 0 && len(s.Jobs) > 0 && !strings.Contains(c.name, "submitted") && !strings.Contains(c.name, "found") && c.name != "mended" && c.name != "refused in part" {
				again := task.DeepCopy()
				if last(again); !equality.Semantic.DeepEqual(again.Status, s) {
					t.Error("the same news again writes something")
				}
			}
		})
	}
}

func TestTellingTheSameAgainWritesNothing(t *testing.T) {
	quota := taskstate.Cause{Reason: v1alpha1.ReasonBatchQuota, Message: "none", Quota: true, NeedsUser: true}
	for name, tell := range map[string]taskstate.Transition{
		"held for quota": taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: quota, Stalled: true, NextAttempt: controllertest.T0}, controllertest.T0),
		"stalled":        taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: taskstate.Cause{Reason: v1alpha1.ReasonCredentialsMissing, Message: "none", NeedsUser: true}, Stalled: true}, controllertest.T0),
		"unknown":        taskstate.OutcomeUnknown("lost", true),
		"not to be seen": taskstate.OutcomesUnreadable(taskstate.Cause{Reason: v1alpha1.ReasonCredentialsMissing, Message: "none", NeedsUser: true}),
	} {
		t.Run(name, func(t *testing.T) {
			task := controllertest.TaskOf(2)
			taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-1", Positions: "0"}, controllertest.T0)(task)
			tell(task)
			for i := range task.Status.Conditions {
				task.Status.Conditions[i].LastTransitionTime = metav1.NewTime(controllertest.T0)
			}
			again := task.DeepCopy()
			if tell(again); !equality.Semantic.DeepEqual(again.Status, task.Status) {
				t.Errorf("%+v became %+v", task.Status, again.Status)
			}
		})
	}
}

func TestFailedTargetsAreTheFirst100AndCountsAreExact(t *testing.T) {
	task := controllertest.TaskOf(300)
	controllertest.Claiming("0-299")(task)
	all := map[string]string{}
	for i := range 300 {
		all[fmt.Sprintf("https://h/%d", i)] = strings.Repeat("é", 1000)
	}
	taskstate.RecordJob("", all, controllertest.T0)(task)
	s := task.Status
	if len(s.FailedTargets) != 100 || *s.Targets.Failed != 300 || len(s.Jobs) != 0 || s.RefusedPositions != "0-299" {
		t.Errorf("%d named, %d counted, %d jobs, refused %s", len(s.FailedTargets), *s.Targets.Failed, len(s.Jobs), s.RefusedPositions)
	}
	if n := len(s.FailedTargets[0].Message); n > 1024 {
		t.Errorf("a message has %d bytes", n)
	}
	if c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionFinished); c == nil || c.Reason != v1alpha1.ReasonFailed {
		t.Errorf("%+v", c)
	}
}
