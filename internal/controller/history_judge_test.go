package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// judge compares what users requested, what EdgeOne executed and what the statuses report.
type judge struct {
	h *simulation

	mu        sync.Mutex
	disturbed time.Time // end of the last fault
	strays    int       // calls that arrived after their caller had given up
	executed  map[string]time.Time
	unheard   map[string]bool     // by job ID: whether the answer to its call was lost
	recorded  map[string]bool     // by job ID
	lost      map[string]lostCall // by target
	writes    map[types.UID]int
	adopted   []time.Duration
	again     []time.Duration
}

// bubbleBegan is the Unix time at which a bubble starts: 2000-01-01 00:00 UTC.
const bubbleBegan = 946684800

// manyWrites is more status writes than any task needs, whatever faults occur.
const manyWrites = 500

type lostCall struct{ sendable time.Time }

func newJudge(h *simulation) *judge {
	return &judge{h: h, executed: map[string]time.Time{}, unheard: map[string]bool{}, recorded: map[string]bool{}, lost: map[string]lostCall{}, writes: map[types.UID]int{}}
}

func (j *judge) errorf(format string, args ...any) {
	j.h.t.Helper()
	j.h.logf("WRONG "+format, args...)
	j.h.t.Errorf(format, args...)
}

// disturb records a fault that starts now and lasts for d.
func (j *judge) disturb(d time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if until := time.Now().Add(d); until.After(j.disturbed) {
		j.disturbed = until
	}
}

func (j *judge) stray() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.strays++
}

// sent records a request to create a job that a process sends.
func (j *judge) sent(process string, req *http.Request, body []byte, lost bool) {
	var call struct{ Targets []string }
	_ = json.Unmarshal(body, &call)
	unix, _ := strconv.ParseInt(req.Header.Get("X-TC-Timestamp"), 10, 64)
	action := req.Header.Get("X-TC-Action")
	j.h.logf("SEND %s %s signed %d, %d targets %s", process, action, unix-j.h.began.Unix(), len(call.Targets), shorten(call.Targets))
	for i := range call.Targets {
		call.Targets[i] = action + " " + call.Targets[i]
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	for _, target := range call.Targets {
		if before, ok := j.lost[target]; ok {
			if delete(j.lost, target); j.disturbed.Before(before.sendable.Add(-20 * time.Second)) {
				j.again = append(j.again, now.Sub(before.sendable))
				break
			}
		}
	}
	if lost {
		signed := time.Unix(unix, 0).Add(time.Since(j.h.edgeOne.Now()))
		for _, target := range call.Targets {
			j.lost[target] = lostCall{signed.Add(j.h.options.SignatureValidity + j.h.options.SettleMargin)}
		}
	}
}

// shortenURL returns a URL in the form that the log of a history uses.
func shortenURL(target string) string {
	return strings.ReplaceAll(strings.TrimPrefix(target, "https://"), longQuery, "?long")
}

func shorten(targets []string) string {
	var b strings.Builder
	for i, target := range targets {
		if i == 6 {
			return b.String() + "…"
		}
		b.WriteString(shortenURL(target) + " ")
	}
	return b.String()
}

// called records a call that EdgeOne has handled.
func (j *judge) called(call simulator.Call) {
	if !creates(call.Action) {
		if call.Outcome != "OK" {
			j.h.logf("EDGEONE %s %s: %s", call.Action, call.ZoneID, call.Outcome)
		}
		return
	}
	j.h.logf("EDGEONE %s %s %s, %d targets: %s executed=%v job %s", call.Action, call.SecretID, call.ZoneID, call.Targets, call.Outcome, call.Executed, call.JobID)
	j.mu.Lock()
	defer j.mu.Unlock()
	if call.Executed {
		j.executed[call.JobID] = time.Now()
		j.unheard[call.JobID] = call.Outcome != "OK"
	}
}

var jobIDInAnswer = regexp.MustCompile(`"JobId":"([^"]+)"`)

// unheardAnswer records an answer that is lost.
func (j *judge) unheardAnswer(body []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if found := jobIDInAnswer.FindSubmatch(body); found != nil {
		j.unheard[string(found[1])] = true
	}
}

// written checks and records a status write.
func (j *judge) written(before, after *v1alpha1.PrefetchTask) {
	key := client.ObjectKeyFromObject(after)
	j.h.logf("STATUS %s %s", key, statusLine(after))
	j.h.refreshes.written(before, after)
	if before.Status.Run == after.Status.Run && before.Status.TargetsHash == after.Status.TargetsHash {
		for _, job := range before.Status.Jobs {
			if !slices.ContainsFunc(after.Status.Jobs, func(now v1alpha1.Job) bool { return now.ID == job.ID }) {
				j.errorf("%s: job %s was dropped from the status of the run that recorded it", key, job.ID)
			}
		}
		if was, is := before.Status.Submission, after.Status.Submission; was != nil && is != nil && was.ClaimID != is.ClaimID {
			j.errorf("%s: claim %s was replaced by %s without having been settled", key, was.ClaimID, is.ClaimID)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.writes[after.UID]++; j.writes[after.UID] == manyWrites && !j.h.manyManagers() { // two managers may keep contradicting each other
		j.errorf("%s: its status was written %d times", key, manyWrites)
	}
	for _, job := range after.Status.Jobs {
		if j.recorded[job.ID] {
			continue
		}
		j.recorded[job.ID] = true
		at := j.executed[job.ID]
		if j.unheard[job.ID] && !j.disturbed.After(at) {
			positions, _ := taskstate.ParsePositions(job.Positions)
			j.adopted = append(j.adopted, time.Since(at.Add(j.h.listed(len(positions)))))
		}
	}
}

func statusLine(task *v1alpha1.PrefetchTask) string {
	s := task.Status
	var b strings.Builder
	fmt.Fprintf(&b, "rv %s gen %d/%d run %.6s", task.ResourceVersion, s.ObservedGeneration, task.Generation, s.Run)
	if c := s.Submission; c != nil {
		fmt.Fprintf(&b, " claim %s%s targets %s signed %d", c.Kind, c.ClaimID, c.Positions, c.SignedAt.Unix()-bubbleBegan)
	}
	for _, job := range s.Jobs {
		fmt.Fprintf(&b, " job %s%s[%s +%d -%d retried %s]", job.Kind, job.ID, job.Positions, job.Succeeded, job.Failed, job.RetriedPositions)
	}
	if s.RefusedPositions != "" {
		fmt.Fprintf(&b, " refused [%s]", s.RefusedPositions)
	}
	if s.LostCalls > 0 {
		fmt.Fprintf(&b, " lost %d", s.LostCalls)
	}
	for _, c := range s.Conditions {
		fmt.Fprintf(&b, " %s=%s/%s", c.Type, c.Status, c.Reason)
		if c.Type == v1alpha1.ConditionStalled || c.Type == v1alpha1.ConditionReady && s.Purge.Submitted != nil {
			fmt.Fprintf(&b, " (%.60s)", c.Message)
		}
	}
	return b.String()
}

// waitForEnds advances the time until every task has ended. It gives up after three hours.
func (j *judge) waitForEnds() {
	for began := time.Now(); time.Since(began) < 3*time.Hour; time.Sleep(20 * time.Second) {
		if !slices.ContainsFunc(j.h.users.all, func(task *userTask) bool { return !task.deleted && j.stuck(task) != "" }) {
			break
		}
		j.h.users.mend()
	}
	time.Sleep(7 * time.Minute) // late requests and events arrive
}

// stuck returns why a task has not ended, or "" if it has.
func (j *judge) stuck(task *userTask) string {
	now := j.h.users.now(task)
	is := func(condition string) *metav1.Condition {
		return meta.FindStatusCondition(now.Status.Conditions, condition)
	}
	ready, stalled, finished := is(v1alpha1.ConditionReady), is(v1alpha1.ConditionStalled), is(v1alpha1.ConditionFinished)
	switch {
	case now.Status.ObservedGeneration != now.Generation:
		return "the status speaks of an old generation"
	case taskstate.IsRetryDue(now) && (!task.list || now.Status.TargetsHash == taskstate.HashTargets(&v1alpha1.PrefetchTask{Spec: task.spec})):
		return "a retry is not handled"
	case finished != nil && finished.Status == metav1.ConditionTrue && !taskstate.IsNewRun(now):
		return ""
	case ptr.Deref(task.spec.Suspend, false):
		if claim := now.Status.Submission; claim != nil && !claim.Expired && !j.h.users.lacksCredentials(task) {
			return "suspended, but a call is not settled"
		} else if claim == nil && len(taskstate.OpenPositions(now)) > 0 && (ready == nil || ready.Reason != v1alpha1.ReasonSuspended) {
			return "does not say that it is suspended"
		}
		return ""
	case j.h.users.lacksCredentials(task):
		if stalled == nil {
			return "not Stalled without its Secret"
		}
		return ""
	}
	return "not Finished"
}

// judge fails the test if the operator broke its promises: no target is executed twice or lost,
// no task is stuck, all counts are correct, and every job is recorded.
func (j *judge) judge() {
	ledger, u := j.h.edgeOne.Ledger(), j.h.users
	executed := map[string]int{}
	for _, e := range ledger.Prefetches() {
		for _, url := range e.Accepted {
			executed[workDone(e, url)]++
		}
	}
	for _, work := range slices.Sorted(maps.Keys(executed)) {
		if n, asked := executed[work], len(u.asks[work]); n > asked {
			j.errorf("executed %d times, asked for %d times: %s", n, asked, work)
		}
	}
	for _, task := range u.all {
		if task.deleted {
			continue
		}
		if why := j.stuck(task); why != "" {
			j.errorf("%s is stuck, %s: %s", task.key, why, statusLine(j.h.server.get(task.key)))
			continue
		}
		j.complete(task, executed)
	}
	for _, e := range ledger.Prefetches() {
		for _, url := range e.Accepted {
			j.accounted(e, url)
		}
	}
	j.rates()
}

// complete checks each URL in the run of a finished task.
func (j *judge) complete(task *userTask, executed map[string]int) {
	now := j.h.users.now(task)
	if !meta.IsStatusConditionTrue(now.Status.Conditions, v1alpha1.ConditionFinished) || taskstate.IsNewRun(now) {
		return
	}
	succeeded, failed := 0, 0
	isPurgeFailed := func(target string) bool {
		if task.spec.Purge.Type == v1alpha1.PurgeURL {
			return strings.Contains(target, failsPurge)
		}
		return slices.ContainsFunc(purgeTargetsOf(task.spec), mayFail)
	}
	for _, target := range taskstate.DistinctTargets(now) {
		taken := !strings.Contains(target, "/refuse/") && !strings.Contains(target, "unknown.example.net") && !isPurgeFailed(target)
		if taken && executed[workOf(task.spec, target)] == 0 {
			if !j.otherwise(target) && !j.isFresh(task, target) {
				j.errorf("%s is finished, but EdgeOne never executed %s", task.key, target)
			}
		}
		if taken && !strings.Contains(target, "/fail/") {
			succeeded++
		} else {
			failed++
		}
	}
	counts := now.Status.Targets
	if s, f := ptr.Deref(counts.Succeeded, -1), ptr.Deref(counts.Failed, -1); int(s) != succeeded || int(f) != failed {
		j.errorf("%s counts %d succeeded and %d failed, but they are %d and %d: %s", task.key, s, f, succeeded, failed, statusLine(now))
	}
}

// otherwise reports whether a target was executed in another mode or with other headers.
// EdgeOne's history does not show modes and headers. One call can therefore be mistaken for
// another if two managers work at once, if two accounts use one zone, or if a manager does not
// know the list of a task whose call was lost.
func (j *judge) otherwise(target string) bool {
	executed := slices.ContainsFunc(j.h.edgeOne.Ledger().Prefetches(), func(e simulator.Execution) bool { return slices.ContainsFunc(e.Accepted, sameURL(target)) })
	isListUnknown := j.h.users.fromList(target) || j.h.plan.faults["long-lists"] > 0 // a new process reads long lists again
	if !executed || !j.h.manyManagers() && !j.h.users.severalAccounts(target) && !isListUnknown {
		return false
	}
	j.h.count("tolerated: taken for a call in another mode or with other headers")
	return true
}

// isFresh reports whether a target may have been adopted since spec.freshSince. EdgeOne's history
// does not show the mode and the headers of a job.
func (j *judge) isFresh(task *userTask, target string) bool {
	if task.spec.FreshSince.IsZero() {
		return false
	}
	j.h.count("tolerated: fresh by a call in another mode or with other headers")
	return slices.ContainsFunc(j.h.edgeOne.Ledger().Prefetches(), func(e simulator.Execution) bool {
		return !e.Time.Before(task.spec.FreshSince.Add(-3*time.Second)) && slices.ContainsFunc(e.Accepted, sameURL(target))
	})
}

// accounted checks that a task that requested a URL has recorded the job that executed it. If
// such a task was edited or deleted, the job may have belonged to it. If such tasks have
// different Secrets, one may have recorded the other's job.
func (j *judge) accounted(e simulator.Execution, url string) {
	askers := j.h.users.asks[workDone(e, url)]
	for _, run := range askers {
		if !run.current() || j.h.users.lacksCredentials(run.task) || j.recordedFor(run, e.JobID, url) || j.h.users.severalAccounts(url) {
			return
		}
	}
	if len(askers) > 0 {
		j.errorf("job %s executed %s, but no task that asked for it has recorded that", e.JobID, url)
	}
}

// recordedFor reports whether the task of a run has recorded a job for a URL.
func (j *judge) recordedFor(run *userRun, id, url string) bool {
	now := j.h.users.now(run.task)
	if taskstate.IsNewRun(now) {
		return false
	}
	position := slices.IndexFunc(taskstate.DistinctTargets(now), sameURL(url))
	return slices.ContainsFunc(now.Status.Jobs, func(job v1alpha1.Job) bool {
		positions, _ := taskstate.ParsePositions(job.Positions)
		return job.ID == id && slices.Contains(positions, position)
	})
}

// sameURL returns a function that reports whether a text is a spelling of the URL.
func sameURL(url string) func(string) bool {
	canonical := simulator.Canonical(url)
	return func(other string) bool { return simulator.Canonical(other) == canonical }
}

func workDone(e simulator.Execution, url string) string {
	spec := v1alpha1.PrefetchTaskSpec{ZoneID: e.ZoneID}
	if e.Mode == "edge" {
		spec.Mode = v1alpha1.ModeEdge
	}
	if e.MediaSegments {
		spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch
	}
	for _, header := range e.Headers {
		spec.Headers = append(spec.Headers, v1alpha1.HTTPHeader{Name: header.Name, Value: header.Value})
	}
	return workOf(spec, url)
}

// rates checks that a single manager never exceeds EdgeOne's rate limit. It tolerates calls that
// arrive after their caller has given up or is gone, because the manager does not know of them.
func (j *judge) rates() {
	if j.h.manyManagers() {
		return
	}
	recent := map[string][]time.Time{}
	calls := j.h.edgeOne.Calls()
	slices.SortStableFunc(calls, func(a, b simulator.Call) int { return a.Time.Compare(b.Time) })
	for _, call := range calls {
		key := call.SecretID + " " + call.Action
		times := append(recent[key], call.Time)
		for call.Time.Sub(times[0]) >= time.Second {
			times = times[1:]
		}
		if recent[key] = times; len(times) > j.h.options.QPS+j.strays {
			j.errorf("%d calls in a second by %s", len(times), key)
			return
		}
	}
}

func objectMeta(key client.ObjectKey) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
}
