package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// evidence is what the judge looks at: what EdgeOne executed, what users asked
// for, and what the statuses say in the end. How it came about is no concern of
// the judge.
type evidence struct {
	ledger simulator.Ledger
	// asked is in how many runs each URL, in whatever spelling, was asked for: the most that EdgeOne may
	// have executed it. A run that was superseded or deleted before its turn counts
	// as well.
	asked map[string]int
	tasks []v1alpha1.PrefetchTask // all that live
}

// A defect is something that must not be.
type defect struct {
	kind defectKind
	task string // namespace/name, if it is about one
	url  string // if it is about one
	text string
	// from and to bound when it came about, on EdgeOne's clock.
	from, to time.Time
}

type defectKind string

const (
	duplicate defectKind = "duplicate"
	loss      defectKind = "loss"
	stuck     defectKind = "stuck"
)

func (d defect) String() string {
	return fmt.Sprintf("%s: %s %s: %s (%s to %s)", strings.ToUpper(string(d.kind)), d.task, d.url, d.text,
		d.from.Format("15:04:05.000"), d.to.Format("15:04:05.000"))
}

// judge compares the three URL by URL. now is when the statuses were read.
func judge(e evidence, now time.Time) []defect {
	j := &judgement{evidence: e, now: now, executions: map[string][]int{}, jobs: map[string]int{}}
	for i, execution := range e.ledger {
		j.jobs[execution.JobID] = i
		for _, u := range execution.Accepted {
			u = simulator.Canonical(u)
			j.executions[u] = append(j.executions[u], i)
		}
	}
	j.duplicates()
	for i := range e.tasks {
		task := &e.tasks[i]
		j.ended(task)
		j.recorded(task)
		j.known(task)
	}
	return j.defects
}

type judgement struct {
	evidence
	now        time.Time
	executions map[string][]int // indexes into the ledger by URL
	jobs       map[string]int   // and by job
	defects    []defect
}

func (j *judgement) add(kind defectKind, task *v1alpha1.PrefetchTask, u string, from, to time.Time, format string, args ...any) {
	d := defect{kind: kind, url: u, text: fmt.Sprintf(format, args...), from: from, to: to}
	if task != nil {
		d.task = task.Namespace + "/" + task.Name
	}
	j.defects = append(j.defects, d)
}

// duplicates finds URLs that were executed more often than runs asked for them.
func (j *judgement) duplicates() {
	for u, executions := range j.executions {
		if n := len(executions); n > j.asked[u] {
			first, last := j.ledger[executions[0]], j.ledger[executions[n-1]]
			var jobs []string
			for _, i := range executions {
				jobs = append(jobs, j.ledger[i].JobID)
			}
			j.add(duplicate, nil, u, first.SignedAt, last.Time, "executed %d times for %d runs, by jobs %s", n, j.asked[u], strings.Join(jobs, " "))
		}
	}
}

// ended finds tasks that have not come to an end: those to be submitted that are
// not finished, and suspended ones whose call is still not settled.
func (j *judgement) ended(task *v1alpha1.PrefetchTask) {
	from := task.Status.StartTime.Time
	if from.IsZero() {
		from = task.CreationTimestamp.Time
	}
	switch {
	case taskstate.IsSuspended(task):
		// An expired claim of an earlier run stays for the case that the spec is changed back.
		if s := task.Status.Submission; s != nil && !(s.Expired && taskstate.IsNewRun(task)) {
			j.add(stuck, task, "", from, j.now, "suspended, and its call %s is not settled", task.Status.Submission.ClaimID)
		}
	case !finished(task):
		j.add(stuck, task, "", from, j.now, "not finished: %s", reason(task))
	}
}

// finished says that the task's present run is over.
func finished(task *v1alpha1.PrefetchTask) bool {
	return !taskstate.IsNewRun(task) && meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionFinished)
}

func reason(task *v1alpha1.PrefetchTask) string {
	text := "not seen yet"
	if c := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		text = c.Reason + ": " + c.Message
	}
	if s := task.Status.Submission; s != nil {
		text += fmt.Sprintf(" (call %s signed %s)", s.ClaimID, s.SignedAt.Format("15:04:05"))
	}
	if taskstate.IsNewRun(task) {
		text += " (the status is of an earlier run)"
	}
	return text
}

// recorded finds what a task that is over says was executed and was not, and what it has
// executed for this run and the status does not say.
func (j *judgement) recorded(task *v1alpha1.PrefetchTask) {
	for _, target := range task.Spec.Targets {
		u := simulator.Canonical(string(target))
		if !accepted(u) {
			continue
		}
		executions := j.executions[u]
		if len(executions) == 0 {
			if finished(task) && !taskstate.IsSuspended(task) { // of one that is not, ended tells
				j.add(loss, task, u, task.CreationTimestamp.Time, j.now, "never executed; %s", reason(task))
			}
			continue
		}
		if j.asked[u] != 1 || task.Status.Submission != nil {
			continue // executed, but perhaps for another run, or about to be recorded: ended tells
		}
		for _, i := range executions {
			e := j.ledger[i]
			if !slices.ContainsFunc(task.Status.Jobs, func(job v1alpha1.Job) bool { return job.ID == e.JobID }) {
				j.add(loss, task, u, e.SignedAt, j.now, "executed by job %s, which the status does not name; %s", e.JobID, reason(task))
			}
		}
	}
}

// known finds jobs in a status that EdgeOne does not have, or that do not hold
// what the status says.
func (j *judgement) known(task *v1alpha1.PrefetchTask) {
	if taskstate.IsNewRun(task) {
		return // its jobs speak of targets that the spec no longer has
	}
	targets := taskstate.DistinctTargets(task)
	for _, job := range task.Status.Jobs {
		i, ok := j.jobs[job.ID]
		if !ok {
			j.add(loss, task, "", job.SubmitTime.Time, j.now, "EdgeOne knows no job %s", job.ID)
			continue
		}
		positions, err := taskstate.ParsePositions(job.Targets)
		if err != nil {
			j.add(loss, task, "", job.SubmitTime.Time, j.now, "job %s: %v", job.ID, err)
		}
		for _, p := range positions {
			if p >= len(targets) || !slices.ContainsFunc(j.ledger[i].Accepted, func(u string) bool { return simulator.Canonical(u) == simulator.Canonical(targets[p]) }) {
				j.add(loss, task, "", job.SubmitTime.Time, j.now, "job %s does not hold target %d of the task", job.ID, p)
			}
		}
	}
}
