// Package judge compares three things URL by URL: what users asked for, what EdgeOne
// executed by the simulator's ledger, and what the statuses of the tasks say in the end.
//
//   - judge: the evidence, and the defects that the comparison finds
//   - ended: whether a task has come to an end, and whether its counts add up
//
// Its functions are pure. The package does not know clusters, faults, or how the evidence
// came about: neither the order of calls nor which of them were lost. It reads statuses
// with the operator's own rules for runs and positions, and counts executions itself.
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

// Evidence is what the judge looks at.
type Evidence struct {
	// Ledger is what EdgeOne executed.
	Ledger simulator.Ledger
	// Tasks are all that live, as of ReadAt on EdgeOne's clock.
	Tasks  []v1alpha1.PrefetchTask
	ReadAt time.Time
	// Asked counts the runs that asked for a URL, by its canonical spelling: EdgeOne may
	// execute it that often. Runs that were superseded or deleted before their turn count as
	// well. Without Asked, EdgeOne may execute the URLs of Tasks once, however many of them
	// share a URL, and may have executed others for whomever.
	Asked map[string]int
	// Answer is what EdgeOne makes of a URL. Default: it succeeds.
	Answer func(url string) Answer
}

// Answer is what EdgeOne makes of a URL.
type Answer int

// EdgeOne's answers.
const (
	Succeeds Answer = iota
	Fails           // after EdgeOne executed it
	Refused         // EdgeOne never executes it
)

// Kind is what is wrong.
type Kind string

// The kinds of defects.
const (
	Duplicate Kind = "duplicate" // EdgeOne executed a URL more often than runs asked for it
	Loss      Kind = "loss"      // a URL was not executed, or a status does not name its job
	Stuck     Kind = "stuck"     // a task has not come to an end
	Miscount  Kind = "miscount"  // the counts of a status do not add up
)

// Defect is something that must not be.
type Defect struct {
	Kind Kind
	Task string // namespace/name, if it is about one
	URL  string // if it is about one
	Text string
	// From and To bound when it came about, on EdgeOne's clock.
	From, To time.Time
}

func (d Defect) String() string {
	return fmt.Sprintf("%s: %s %s: %s (%s to %s)", strings.ToUpper(string(d.Kind)), d.Task, d.URL, d.Text,
		d.From.Format("15:04:05.000"), d.To.Format("15:04:05.000"))
}

// FindDefects compares the evidence. It returns nothing if all is well.
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
	jobs       map[string]int   // and by JobId
	defects    []Defect
}

func newJudgement(e Evidence) *judgement {
	j := &judgement{Evidence: e, executions: map[string][]int{}, jobs: map[string]int{}}
	for i, execution := range e.Ledger {
		j.jobs[execution.JobID] = i
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

// addURL adds a loss that is about one URL of a task.
func (j *judgement) addURL(task *v1alpha1.PrefetchTask, url string, from time.Time, format string, args ...any) {
	j.add(Loss, task, from, format, args...)
	j.defects[len(j.defects)-1].URL = url
}

// findDuplicates finds URLs that EdgeOne executed more often than runs asked for them.
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

// findLosses finds URLs that a finished task has and EdgeOne never executed, and URLs
// that EdgeOne executed for the task and whose job its status does not name.
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
			continue // perhaps executed for another run, or not recorded yet: findStuck reports that
		}
		for _, i := range executions {
			e := j.Ledger[i]
			urls, isNamed := recorded[e.JobID]
			if !isNamed || !urls[u] && !isNewRun { // the positions of another run are those of another list
				j.addURL(task, u, e.SignedAt, "executed by job %s, which the status does not name for it; %s", e.JobID, describeReady(task))
			}
		}
	}
}

// recordedURLs are the URLs that a status names for each job.
func recordedURLs(task *v1alpha1.PrefetchTask) map[string]map[string]bool {
	targets, byJob := taskstate.DistinctTargets(task), map[string]map[string]bool{}
	for _, job := range task.Status.Jobs {
		byJob[job.ID] = map[string]bool{}
		positions, _ := taskstate.ParsePositions(job.Targets)
		for _, p := range positions {
			if p < len(targets) {
				byJob[job.ID][simulator.Canonical(targets[p])] = true
			}
		}
	}
	return byJob
}

// findUnknownJobs finds jobs in a status that EdgeOne does not have, or that do not hold
// what the status says.
func (j *judgement) findUnknownJobs(task *v1alpha1.PrefetchTask) {
	if taskstate.IsNewRun(task) {
		return // the positions are those of another list
	}
	targets := taskstate.DistinctTargets(task)
	for _, job := range task.Status.Jobs {
		i, isKnown := j.jobs[job.ID]
		if !isKnown {
			j.add(Loss, task, job.SubmitTime.Time, "EdgeOne knows no job %s", job.ID)
			continue
		}
		positions, err := taskstate.ParsePositions(job.Targets)
		if err != nil {
			j.add(Loss, task, job.SubmitTime.Time, "job %s: %v", job.ID, err)
		}
		held := map[string]bool{}
		for _, u := range j.Ledger[i].Accepted {
			held[simulator.Canonical(u)] = true
		}
		for _, p := range positions {
			if p >= len(targets) || !held[simulator.Canonical(targets[p])] {
				j.add(Loss, task, job.SubmitTime.Time, "job %s does not hold target %d of the task", job.ID, p)
			}
		}
	}
}
