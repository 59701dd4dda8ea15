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
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// judge compares what users asked for, what EdgeOne executed and what the
// statuses say.
type judge struct {
	h *simulation

	mu        sync.Mutex
	disturbed time.Time // when the last fault was over
	strays    int       // calls that arrived when nobody waited for their answer any more
	executed  map[string]time.Time
	unheard   map[string]bool     // jobs whose call got no answer
	recorded  map[string]bool     // jobs
	lost      map[string]lostCall // by target
	writes    map[types.UID]int
	adopted   []time.Duration
	again     []time.Duration
}

// bubbleBegan is when time begins in a bubble: midnight of 2000-01-01, UTC.
const bubbleBegan = 946684800

// manyWrites is more than any task needs, whatever befalls it.
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

// disturb notes a fault that lasts for a while from now on.
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

// sent sees a CreatePrefetchTask on its way.
func (j *judge) sent(process string, req *http.Request, body []byte, lost bool) {
	var call struct{ Targets []string }
	_ = json.Unmarshal(body, &call)
	unix, _ := strconv.ParseInt(req.Header.Get("X-TC-Timestamp"), 10, 64)
	j.h.logf("SEND %s signed %d, %d targets %s", process, unix-j.h.began.Unix(), len(call.Targets), shorten(call.Targets))
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

// shortenURL returns a URL as the log of a history has it.
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

// called sees a call when EdgeOne has dealt with it.
func (j *judge) called(call simulator.Call) {
	if call.Action != teo.ActionCreatePrefetchTask {
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

// unheardAnswer sees an answer that gets lost.
func (j *judge) unheardAnswer(body []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if found := jobIDInAnswer.FindSubmatch(body); found != nil {
		j.unheard[string(found[1])] = true
	}
}

// written sees every status write.
func (j *judge) written(before, after *v1alpha1.PrefetchTask) {
	key := client.ObjectKeyFromObject(after)
	j.h.logf("STATUS %s %s", key, statusLine(after))
	if before.Status.Run == after.Status.Run {
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
	if j.writes[after.UID]++; j.writes[after.UID] == manyWrites && !j.h.manyManagers() { // two go on contradicting each other
		j.errorf("%s: its status was written %d times", key, manyWrites)
	}
	for _, job := range after.Status.Jobs {
		if j.recorded[job.ID] {
			continue
		}
		j.recorded[job.ID] = true
		at := j.executed[job.ID]
		if j.unheard[job.ID] && !j.disturbed.After(at) {
			positions, _ := taskstate.ParsePositions(job.Targets)
			j.adopted = append(j.adopted, time.Since(at.Add(j.h.listed(len(positions)))))
		}
	}
}

func statusLine(task *v1alpha1.PrefetchTask) string {
	s := task.Status
	var b strings.Builder
	fmt.Fprintf(&b, "rv %s gen %d/%d run %.6s", task.ResourceVersion, s.ObservedGeneration, task.Generation, s.Run)
	if c := s.Submission; c != nil {
		fmt.Fprintf(&b, " claim %s targets %s signed %d", c.ClaimID, c.Targets, c.SignedAt.Unix()-bubbleBegan)
	}
	for _, job := range s.Jobs {
		fmt.Fprintf(&b, " job %s[%s +%d -%d retried %s]", job.ID, job.Targets, job.Succeeded, job.Failed, job.Retried)
	}
	if s.RefusedTargets != "" {
		fmt.Fprintf(&b, " refused [%s]", s.RefusedTargets)
	}
	if s.LostCalls > 0 {
		fmt.Fprintf(&b, " lost %d", s.LostCalls)
	}
	for _, c := range s.Conditions {
		fmt.Fprintf(&b, " %s=%s/%s", c.Type, c.Status, c.Reason)
		if c.Type == v1alpha1.ConditionStalled {
			fmt.Fprintf(&b, " (%.60s)", c.Message)
		}
	}
	return b.String()
}

// waitForEnds lets time pass until every task has ended, or it is clear that
// some never will.
func (j *judge) waitForEnds() {
	for began := time.Now(); time.Since(began) < 3*time.Hour; time.Sleep(20 * time.Second) {
		if !slices.ContainsFunc(j.h.users.all, func(task *userTask) bool { return !task.deleted && j.stuck(task) != "" }) {
			break
		}
		j.h.users.mend()
	}
	time.Sleep(7 * time.Minute) // whatever is late arrives
}

// stuck says why a task has not ended; "" if it has.
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

// judge says whether the promise was kept.
func (j *judge) judge() {
	ledger, u := j.h.edgeOne.Ledger(), j.h.users
	executed := map[string]int{}
	for _, e := range ledger {
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
	for _, e := range ledger {
		for _, url := range e.Accepted {
			j.accounted(e, url)
		}
	}
	j.rates()
}

// complete checks the run of a finished task URL by URL.
func (j *judge) complete(task *userTask, executed map[string]int) {
	now := j.h.users.now(task)
	if !meta.IsStatusConditionTrue(now.Status.Conditions, v1alpha1.ConditionFinished) || taskstate.IsNewRun(now) {
		return
	}
	succeeded, failed := 0, 0
	for _, target := range taskstate.DistinctTargets(now) {
		taken := !strings.Contains(target, "/refuse/") && !strings.Contains(target, "unknown.example.net")
		if taken && executed[workOf(task.spec, target)] == 0 {
			if !j.otherwise(target) {
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

// otherwise says whether a target was executed in another mode or with other
// headers. EdgeOne's history does not tell those, so where two managers work at
// once, or two accounts in one zone, or where a manager does not know the list of a
// task whose call was lost, the one call may be taken for the other.
func (j *judge) otherwise(target string) bool {
	executed := slices.ContainsFunc(j.h.edgeOne.Ledger(), func(e simulator.Execution) bool { return slices.ContainsFunc(e.Accepted, sameURL(target)) })
	if !executed || !j.h.manyManagers() && !j.h.users.severalAccounts(target) && !j.h.users.fromList(target) {
		return false
	}
	j.h.count("tolerated: taken for a call in another mode or with other headers")
	return true
}

// accounted checks that a job is recorded for a URL by a task that asked for it.
// Where one of those was edited or deleted, the job may have been made for it;
// where they have different Secrets, one may have taken the other's job.
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

// recordedFor says whether a job is recorded for a URL in the task of a run.
func (j *judge) recordedFor(run *userRun, id, url string) bool {
	now := j.h.users.now(run.task)
	if taskstate.IsNewRun(now) {
		return false
	}
	position := slices.IndexFunc(taskstate.DistinctTargets(now), sameURL(url))
	return slices.ContainsFunc(now.Status.Jobs, func(job v1alpha1.Job) bool {
		positions, _ := taskstate.ParsePositions(job.Targets)
		return job.ID == id && slices.Contains(positions, position)
	})
}

// sameURL says of a text whether it is a spelling of a URL.
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

// rates checks that one manager alone never calls faster than EdgeOne allows.
// Calls whose sender had given up or was gone when they arrived, it cannot know.
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
