// Package judge compares three things URL by URL: what users requested, what EdgeOne
// executed according to the simulator's ledger, and what the statuses of the tasks say in
// the end.
//
//   - judge: the evidence, and the defects that the comparison finds
//   - ended: whether a task has ended, and whether its counts add up
//   - observer: what an observer sees of tasks while they run
//   - refresh: purges and prefetches in the journal of EdgeOne's cache, and visitors
//
// Except for the observer, its functions are pure. The package knows nothing of clusters,
// faults, or which calls were lost. It reads statuses with the operator's own rules for
// runs and positions. It counts executions independently.
package judge

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Evidence is the input of the judge.
type Evidence struct {
	// Ledger is what EdgeOne executed.
	Ledger simulator.Ledger
	// Tasks are all existing tasks, read at ReadAt on EdgeOne's clock.
	Tasks  []v1alpha1.PrefetchTask
	ReadAt time.Time
	// Asked is the number of runs that requested a URL, keyed by the canonical spelling of
	// the URL. EdgeOne may execute the URL that many times. Runs that were superseded or
	// deleted before they were submitted count as well. If Asked is nil, EdgeOne may
	// execute each URL of Tasks once, even if several tasks share it, and may have
	// executed any other URLs.
	Asked map[string]int
	// Answer returns how EdgeOne responds to a URL. Default: it succeeds.
	Answer func(url string) Answer
}

// Answer is how EdgeOne responds to a URL.
type Answer int

// The answers of EdgeOne.
const (
	Succeeds Answer = iota
	Fails           // fails after EdgeOne has executed it
	Refused         // EdgeOne never executes it
)

// Kind is the kind of a defect.
type Kind string

// The kinds of defects.
const (
	Duplicate Kind = "duplicate" // EdgeOne executed a URL more often than runs requested it
	Loss      Kind = "loss"      // a URL was not executed, or a status does not name its job
	Stuck     Kind = "stuck"     // a task has not ended
	Miscount  Kind = "miscount"  // the counts of a status do not add up
)

// Defect is a violation of the operator's promises.
type Defect struct {
	Kind Kind
	Task string // namespace/name, if the defect concerns one task
	URL  string // if the defect concerns one URL
	Text string
	// From and To limit when the defect arose, on EdgeOne's clock.
	From, To time.Time
}

func (d Defect) String() string {
	return fmt.Sprintf("%s: %s %s: %s (%s to %s)", strings.ToUpper(string(d.Kind)), d.Task, d.URL, d.Text,
		d.From.Format("15:04:05.000"), d.To.Format("15:04:05.000"))
}

// FindDefects compares the evidence. It returns nothing if there are no defects.
func FindDefects(e Evidence) []Defect {
	j := newJudgement(e)
	j.findDuplicates()
	for i := range e.Tasks {
		task := &e.Tasks[i]
		j.findStuck(task)
		j.findLosses(task)
		j.findUnknownJobs(task)
		j.findMiscounts(task)
	}
	return j.defects
}

type judgement struct {
	Evidence
	executions map[string][]int // indexes into the ledger, by URL
	jobs       map[string]int   // indexes into the ledger, by JobId
	defects    []Defect
}

func newJudgement(e Evidence) *judgement {
	j := &judgement{Evidence: e, executions: map[string][]int{}, jobs: map[string]int{}}
	for i, execution := range e.Ledger {
		j.jobs[execution.JobID] = i
		if execution.IsPurge() {
			continue
		}
		for _, u := range execution.Accepted {
			u = simulator.Canonical(u)
			j.executions[u] = append(j.executions[u], i)
		}
	}
	if j.Answer == nil {
		j.Answer = func(string) Answer { return Succeeds }
	}
	if j.Asked == nil {
		j.Asked = map[string]int{}
		for u, executions := range j.executions {
			j.Asked[u] = len(executions)
		}
		for i := range e.Tasks {
			for _, target := range taskstate.DistinctTargets(&e.Tasks[i]) {
				j.Asked[simulator.Canonical(target)] = 1
			}
		}
	}
	return j
}

func (j *judgement) add(kind Kind, task *v1alpha1.PrefetchTask, from time.Time, format string, args ...any) {
	j.defects = append(j.defects, Defect{
		Kind: kind, Task: task.Namespace + "/" + task.Name, Text: fmt.Sprintf(format, args...), From: from, To: j.ReadAt,
	})
}

// addURL adds a loss that concerns one URL of a task.
func (j *judgement) addURL(task *v1alpha1.PrefetchTask, url string, from time.Time, format string, args ...any) {
	j.add(Loss, task, from, format, args...)
	j.defects[len(j.defects)-1].URL = url
}

// findDuplicates finds URLs that EdgeOne executed more often than runs requested them.
func (j *judgement) findDuplicates() {
	for _, u := range slices.Sorted(maps.Keys(j.executions)) {
		executions := j.executions[u]
		n := len(executions)
		if n <= j.Asked[u] {
			continue
		}
		var jobs []string
		for _, i := range executions {
			jobs = append(jobs, j.Ledger[i].JobID)
		}
		j.defects = append(j.defects, Defect{
			Kind: Duplicate, URL: u, Text: fmt.Sprintf("executed %d times for %d runs, by jobs %s", n, j.Asked[u], strings.Join(jobs, " ")),
			From: j.Ledger[executions[0]].SignedAt, To: j.Ledger[executions[n-1]].Time,
		})
	}
}

// findLosses finds two kinds of URLs: those of a finished task that EdgeOne never
// executed, and those that EdgeOne executed for the task in a job that its status does not
// name.
func (j *judgement) findLosses(task *v1alpha1.PrefetchTask) {
	recorded, isNewRun := recordedURLs(task), taskstate.IsNewRun(task)
	for _, target := range taskstate.DistinctTargets(task) {
		u := simulator.Canonical(target)
		if j.Answer(target) == Refused {
			continue
		}
		executions := j.executions[u]
		if len(executions) == 0 {
			if taskstate.IsFinished(task) && !taskstate.IsSuspended(task) { // findStuck reports the others
				j.addURL(task, u, task.CreationTimestamp.Time, "never executed; %s", describeReady(task))
			}
			continue
		}
		if j.Asked[u] != 1 || task.Status.Submission != nil {
			continue // another run may have executed it, or it is not recorded yet: findStuck reports that
		}
		for _, i := range executions {
			e := j.Ledger[i]
			urls, isNamed := recorded[e.JobID]
			if !isNamed || !urls[u] && !isNewRun { // the positions of another run refer to another list
				j.addURL(task, u, e.SignedAt, "executed by job %s, which the status does not name for it; %s", e.JobID, describeReady(task))
			}
		}
	}
}

// recordedURLs returns the URLs that a status names for each prefetch.
func recordedURLs(task *v1alpha1.PrefetchTask) map[string]map[string]bool {
	targets, byJob := taskstate.DistinctTargets(task), map[string]map[string]bool{}
	for _, job := range task.Status.Jobs {
		if job.Kind != v1alpha1.JobPrefetch {
			continue
		}
		byJob[job.ID] = map[string]bool{}
		positions, _ := taskstate.ParsePositions(job.Positions)
		for _, p := range positions {
			if p < len(targets) {
				byJob[job.ID][simulator.Canonical(targets[p])] = true
			}
		}
	}
	return byJob
}

// findUnknownJobs finds jobs in a status that EdgeOne does not have, or whose URLs differ
// from what the status says.
func (j *judgement) findUnknownJobs(task *v1alpha1.PrefetchTask) {
	if taskstate.IsNewRun(task) {
		return // the positions refer to another list
	}
	for _, job := range task.Status.Jobs {
		i, isKnown := j.jobs[job.ID]
		if !isKnown {
			if job.Adopted {
				continue // another program submitted it: the ledger does not have it
			}
			j.add(Loss, task, job.SubmitTime.Time, "EdgeOne knows no job %s", job.ID)
			continue
		}
		positions, err := taskstate.ParsePositions(job.Positions)
		if err != nil {
			j.add(Loss, task, job.SubmitTime.Time, "job %s: %v", job.ID, err)
		}
		if want := job.Kind == v1alpha1.JobPurge; j.Ledger[i].IsPurge() != want {
			j.add(Loss, task, job.SubmitTime.Time, "job %s is a purge: %t, and the status says %t", job.ID, !want, want)
		}
		held := map[string]bool{}
		for _, u := range j.Ledger[i].Accepted {
			held[simulator.Canonical(u)] = true
		}
		targets := taskstate.CallTargets(task, job.Kind)
		for _, p := range positions {
			if p >= len(targets) || !held[simulator.Canonical(targets[p])] {
				j.add(Loss, task, job.SubmitTime.Time, "job %s does not hold target %d of the task", job.ID, p)
			}
		}
	}
}
