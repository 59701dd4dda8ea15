package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

// theCall is the first call that submits.
var theCall = simulator.Matcher{Action: "CreatePrefetchTask", Count: 1}

// everyFourth lets most requests through, until each of the manager's writers waits for a
// held request.
func everyFourth(m faults.Match) faults.Match {
	m.Every = 4
	return m
}

// proxy starts a proxy of this test in front of the API server, for managers that start
// later.
func (w *world) proxy() *faults.Proxy {
	w.t.Helper()
	var err error
	w.api, err = faults.StartProxy(w.cluster)
	w.must(err)
	return w.api
}

// A manager is killed at every step of a call that hundreds of tasks share, and restarted.
// step brings the manager to this step. It returns what happens, after the manager's
// death, to the request in progress; nil means nothing.
func TestAManagerKilledAtAnyStepSubmitsNothingTwice(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name string
		step func(w *world, start func()) (after func())
	}{
		{"before the claims", func(w *world, start func()) func() {
			held := w.api.Hold(faults.Claims)
			start()
			<-held.Arrived()
			return held.Drop
		}},
		{"before the claims, which arrive after its death", func(w *world, start func()) func() {
			held := w.api.Hold(faults.Claims)
			start()
			<-held.Arrived()
			return held.Release
		}},
		{"with some claims written", func(w *world, start func()) func() {
			held := w.api.Hold(everyFourth(faults.Claims))
			start()
			w.eventuallyAll("some tasks are claimed", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, claimed) > 50 })
			return held.Drop
		}},
		{"after the claims, before the call is written", func(w *world, start func()) func() {
			m := faults.Claims
			m.Nth = hundreds
			held := w.api.HoldAnswer(m)
			start()
			<-held.Arrived() // all claims are written, one is not acknowledged
			return held.Drop
		}},
		{"after the call is written, before EdgeOne sees it", func(w *world, start func()) func() {
			held := w.edgeOne.Hold(theCall)
			start()
			<-held.Arrived()
			return held.Drop
		}},
		{"after the call is written, which arrives after its death", func(w *world, start func()) func() {
			held := w.edgeOne.Hold(theCall)
			start()
			<-held.Arrived()
			return held.Release
		}},
		{"after EdgeOne executed the call, before the answer", func(w *world, start func()) func() {
			held := w.edgeOne.HoldAnswer(theCall)
			start()
			<-held.Arrived()
			return held.Drop
		}},
		{"after the answer, before the records", func(w *world, start func()) func() {
			held := w.api.Hold(faults.Records)
			start()
			<-held.Arrived()
			return held.Drop
		}},
		{"after the answer, and the records arrive after its death", func(w *world, start func()) func() {
			held := w.api.Hold(faults.Records)
			start()
			<-held.Arrived()
			return held.Release
		}},
		{"with some records written", func(w *world, start func()) func() {
			held := w.api.Hold(everyFourth(faults.Records))
			start()
			w.eventuallyAll("some tasks have recorded the job", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) > 50 })
			return held.Drop
		}},
		{"while it asks for outcomes", func(w *world, start func()) func() {
			held := w.edgeOne.HoldAnswer(simulator.Matcher{Action: "DescribePrefetchTasks", Count: 1})
			start()
			<-held.Arrived()
			return held.Drop
		}},
		{"while it writes outcomes", func(w *world, start func()) func() {
			held := w.api.Hold(everyFourth(faults.Outcomes))
			start()
			w.eventuallyAll("some tasks are finished", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, succeeded) > 50 })
			return held.Drop
		}},
	}
	for _, tt := range steps {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, patient())
			w.proxy()
			w.many(hundreds)
			var p *cluster.Process
			after := tt.step(w, func() { p = w.manager() })
			p.Kill()
			w.strikes(1)
			after()
			w.must(p.Start(t.Context()))
			w.judge()
		})
	}
}

func TestAManagerKilledAgainAndAgainStartsWithoutDoublesOrLosses(t *testing.T) {
	w := newWorld(t, patient())
	p := w.manager()
	done := make(chan []string)
	go func() { done <- w.many(1000) }()
	for kills := range 3 {
		w.eventuallyAll("more tasks are claimed", func(tasks []v1alpha1.PrefetchTask) bool {
			return count(tasks, func(s v1alpha1.PrefetchTaskStatus) bool { return !s.StartTime.IsZero() }) > 50+350*kills
		})
		p.Kill()
		w.strikes(1)
		w.must(p.Start(t.Context()))
	}
	<-done
	w.judge()
	if n := w.creates(); n >= 60 {
		t.Errorf("%d calls, want fewer than 60", n)
	}
}

func TestACallInFlightIsRecordedBeforeTheManagerStops(t *testing.T) {
	w := newWorld(t, unhurried())
	held := w.edgeOne.HoldAnswer(theCall)
	w.many(hundreds)
	p := w.manager(unhurriedFlags...)
	<-held.Arrived()
	inFlight := map[string]bool{}
	for _, target := range w.targets(0) {
		inFlight[target] = true
	}
	w.must(p.Signal(syscall.SIGTERM))
	w.many(few, named("late"), func(task *v1alpha1.PrefetchTask) { // in another lane, so that they need not wait for the response
		task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-A", Value: "1"}}
	})
	held.Release()
	w.strikes(1)
	if err := p.Wait(t.Context()); err != nil {
		t.Errorf("the manager ended with %v", err)
	}
	tasks := w.list()
	if got := count(tasks, claimed); got != 0 {
		t.Errorf("%d tasks carry a claim that is to be settled", got)
	}
	for _, task := range tasks {
		if inFlight[string(task.Spec.Targets[0])] && !recorded(task.Status) {
			t.Errorf("%s was in the call and has not recorded the answer", task.Name)
		}
	}
	w.must(p.Start(t.Context()))
	w.judge()
}

// A manager that stops does not wait indefinitely for a response. Otherwise Kubernetes
// would kill it, perhaps in the middle of a record.
func TestAManagerStopsThoughEdgeOneDoesNotAnswer(t *testing.T) {
	w := newWorld(t, patient())
	held := w.edgeOne.HoldAnswer(theCall)
	w.many(few)
	p := w.manager()
	<-held.Arrived()
	w.must(p.Stop(t.Context(), time.Minute))
	w.strikes(1)
	held.Drop()
	w.must(p.Start(t.Context()))
	w.judge()
}

// elect makes managers work only while they lead. The test has its own lease, with the
// Role that the operator ships with.
func (w *world) elect() (flags []string) {
	w.t.Helper()
	text, err := os.ReadFile("../../config/rbac/leader_election_role.yaml")
	w.must(err)
	role := &rbacv1.Role{}
	w.must(yaml.UnmarshalStrict(text, role))
	role.Namespace = w.namespace
	w.must(w.Create(w.t.Context(), role))
	w.must(w.Create(w.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: cluster.Namespace, Name: cluster.ServiceAccount}},
	}))
	return []string{
		"--leader-elect", "--leader-election-namespace=" + w.namespace,
		"--leader-election-lease-duration=10s", "--leader-election-renew-deadline=8s", "--leader-election-retry-period=500ms",
	}
}

// kept starts a manager that is restarted whenever it ends, as a kubelet does. On a busy
// machine a leader may lose its lease at any time, and then it ends.
func (w *world) kept(args ...string) *cluster.Process {
	w.t.Helper()
	return w.keep(w.manager(args...))
}

func (w *world) keep(p *cluster.Process) *cluster.Process {
	ended := p.KeepRunning(w.t.Context(), 100*time.Millisecond)
	w.t.Cleanup(func() {
		<-ended
		p.Kill()
	})
	return p
}

func (w *world) lease() *coordinationv1.Lease {
	w.t.Helper()
	lease := &coordinationv1.Lease{}
	w.must(client.IgnoreNotFound(w.Get(w.t.Context(), w.leaseKey(), lease)))
	return lease
}

func (w *world) leaseKey() client.ObjectKey {
	return client.ObjectKey{Namespace: w.namespace, Name: "teo-prefetch-operator"}
}

func (w *world) leader() string { return ptr.Deref(w.lease().Spec.HolderIdentity, "") }

// leads waits until a replica other than the given one leads.
func (w *world) leads(not string) (leader string) {
	w.t.Helper()
	w.eventually("there is a new leader", func() bool {
		leader = w.leader()
		return leader != "" && leader != not
	})
	return leader
}

func TestALeaderThatIsAskedToStopLeavesNothingToSettle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		hold func(w *world) (arrived <-chan struct{}, release func())
	}{
		{"while it claims", func(w *world) (<-chan struct{}, func()) {
			held := w.api.Hold(faults.Claims)
			return held.Arrived(), held.Release
		}},
		{"while EdgeOne answers", func(w *world) (<-chan struct{}, func()) {
			held := w.edgeOne.HoldAnswer(theCall)
			return held.Arrived(), held.Release
		}},
		{"while it records", func(w *world) (<-chan struct{}, func()) {
			held := w.api.Hold(faults.Records)
			return held.Arrived(), held.Release
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, unhurried())
			w.proxy()
			arrived, release := tt.hold(w)
			elect := append(w.elect(), unhurriedFlags...)
			first := w.manager(elect...)
			w.many(hundreds)
			<-arrived
			w.must(first.Signal(syscall.SIGTERM))
			release()
			if err := first.Wait(t.Context()); err != nil {
				t.Errorf("the leader ended with %v", err)
			}
			w.strikes(1)
			if leader := w.leader(); leader != "" {
				t.Errorf("%s has ended and keeps the lease", leader)
			}
			if n := count(w.list(), claimed); n != 0 {
				t.Errorf("%d tasks carry a claim that is to be settled", n)
			}
			w.kept(elect...)
			w.many(few, named("later"))
			w.judge()
		})
	}
}

func TestALeaderThatIsKilledIsReplaced(t *testing.T) {
	w := newWorld(t, patient())
	held := w.edgeOne.HoldAnswer(theCall)
	elect := w.elect()
	first := w.manager(elect...)
	old := w.leads("")
	w.kept(elect...)
	w.many(hundreds)
	<-held.Arrived()
	first.Kill()
	w.strikes(1)
	held.Drop()
	w.leads(old)
	w.many(few, named("later"))
	w.judge()
}

// A leader is paused between its claims and its call. When it resumes, another manager
// leads. Only the time in its signature prevents its call from being a second one.
func TestALeaderThatWasPausedDoesNoHarmWhenItWakesUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		wake func(w *world)
	}{
		{"before its claims are settled", func(*world) {}},
		{"after its calls were made by another", func(w *world) {
			w.eventuallyAll("another leader has submitted everything", func(tasks []v1alpha1.PrefetchTask) bool {
				return count(tasks, recorded) == len(tasks)
			})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, patient())
			w.proxy()
			m := faults.Claims
			m.Nth = hundreds
			held := w.api.HoldAnswer(m)
			w.many(hundreds)
			elect := w.elect()
			first := w.manager(elect...)
			old := w.leads("")
			w.api = nil
			w.kept(elect...)
			<-held.Arrived()
			w.must(faults.Pause(first))
			held.Release()
			w.leads(old)
			tt.wake(w)
			w.must(faults.Resume(first))
			w.strikes(1)
			w.judge()
			_ = first.Wait(t.Context()) // it has lost its lease, and may end with an error for that reason
		})
	}
}

// Two managers lead at once. The first one has lost its lease, but checks the lease again
// only after a minute. Each task is claimed by one of them.
func TestTwoLeadersAtOnceShareTheWorkWithoutDoubles(t *testing.T) {
	c := patient()
	c.Keys = append(c.Keys, simulator.Key{SecretID: "AKIDsecond", SecretKey: keyValue, Account: "demo"})
	w := newWorld(t, c)
	elect := w.elect()
	w.kept(append(elect, "--leader-election-lease-duration=4m", "--leader-election-renew-deadline=3m", "--leader-election-retry-period=2m")...)
	old := w.leads("")
	w.must(faults.EditLease(t.Context(), w.Client, w.leaseKey(), func(lease *coordinationv1.LeaseSpec) { lease.HolderIdentity = ptr.To("") }))
	w.keep(w.managerWith(cluster.Credentials("AKIDsecond", keyValue), elect...))
	w.leads(old)
	w.strikes(1)
	w.many(1000)
	w.judge()
	leaders := map[string]int{}
	for _, execution := range w.edgeOne.Ledger() {
		leaders[execution.SecretID]++
	}
	if t.Logf("jobs by leader: %v", leaders); len(leaders) != 2 {
		t.Error("only one of them worked")
	}
}

// Kubernetes keeps two replicas running, whichever of them dies.
func TestTwoReplicasOfWhichOneAlwaysDiesSubmitEverythingOnce(t *testing.T) {
	w := newWorld(t, patient())
	elect := w.elect()
	replicas := []*cluster.Process{w.kept(elect...), w.kept(elect...)}
	for round := range 4 {
		w.many(100, named(fmt.Sprint("round-", round)))
		w.eventuallyAll("half of them are claimed", func(tasks []v1alpha1.PrefetchTask) bool {
			return count(tasks, func(s v1alpha1.PrefetchTaskStatus) bool { return !s.StartTime.IsZero() }) >= 100*round+50
		})
		p := replicas[round%2]
		if round < 2 {
			p.Kill()
		} else if err := p.Stop(t.Context(), time.Minute); err != nil {
			t.Log(err) // a replica that has just lost its lease returns an error
		}
		w.strikes(1)
	}
	w.judge()
}

func TestFinishedTasksCostNothingAfterARestart(t *testing.T) {
	c := patient()
	c.Rules = append([]simulator.Rule{{URL: "/running", Status: simulator.Never}}, c.Rules...)
	w := newWorld(t, c)
	finished := w.many(334, named("finished"))
	w.many(333, named("running"))
	p := w.manager()
	w.eventuallyAll("some are finished and the others run", func(tasks []v1alpha1.PrefetchTask) bool {
		return count(tasks, succeeded) == 334 && count(tasks, recorded) == 667
	})
	p.Kill()
	w.strikes(1)
	before := map[string]string{}
	for _, task := range w.list() {
		if succeeded(task.Status) {
			before[task.Name] = task.ResourceVersion
		}
	}
	w.many(333, named("waiting"), inLanes(100))
	w.mu.Lock()
	w.bodies, w.lookUps = nil, nil
	w.mu.Unlock()
	w.must(p.Start(t.Context()))
	w.eventuallyAll("those that waited are submitted", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) == 1000 })
	w.edgeOne.Finish("/running", "success", "", "")
	w.judge()
	for _, task := range w.list() {
		if rv, ok := before[task.Name]; ok && rv != task.ResourceVersion {
			t.Errorf("%s was finished and is written again", task.Name)
		}
	}
	stats := w.edgeOne.Stats()
	for _, action := range []string{"CreatePrefetchTask", "DescribePrefetchTasks", "DescribeContentQuota"} {
		if peak := stats.Peak(action); peak > 20 {
			t.Errorf("%d calls of %s in a second", peak, action)
		}
	}
	if n := stats.Throttled(""); n != 0 {
		t.Errorf("%d calls were throttled", n)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := strings.Join(w.bodies, "")
	for _, u := range finished {
		if strings.Contains(asked, `"`+u+`"`) {
			t.Errorf("%s was submitted again", u)
		}
	}
	jobs := map[string]bool{}
	for _, task := range w.list() {
		if before[task.Name] != "" {
			jobs[task.Status.Jobs[0].ID] = true
		}
	}
	for _, task := range w.list() { // look-ups of jobs that running tasks share are allowed
		if before[task.Name] == "" {
			delete(jobs, task.Status.Jobs[0].ID)
		}
	}
	for id := range jobs {
		if strings.Contains(strings.Join(w.lookUps, ""), id) {
			t.Errorf("the finished job %s was looked up", id)
		}
	}
}
