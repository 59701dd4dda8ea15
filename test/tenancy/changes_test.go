package tenancy

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// change is a change that forbids what an account allowed, and the change back.
type change struct {
	name, spec, reason string
	forbid, allow      func(s *scene, a *account)
}

// changes are all the ways in which a platform team can forbid something.
var changes = []change{
	{"label", "namespaces: {selector: {matchLabels: {edgeone: main}}}", v1alpha1.ReasonNotAllowed,
		func(s *scene, _ *account) { s.label(s.team, "edgeone", "") }, func(s *scene, _ *account) { s.label(s.team, "edgeone", "main") }},
	{"label-of-the-zone", "{namespaces: {names: [$team]}, zones: [{id: $zone, namespaces: {selector: {matchLabels: {edgeone: main}}}}]}", v1alpha1.ReasonNotAllowed,
		func(s *scene, _ *account) { s.label(s.team, "edgeone", "other") }, func(s *scene, _ *account) { s.label(s.team, "edgeone", "main") }},
	edited("names", "namespaces: {names: [$team]}", "namespaces: {names: [$rival]}", v1alpha1.ReasonNotAllowed),
	edited("zone", "{namespaces: {names: [$team]}, zones: [{id: $zone}]}", "{namespaces: {names: [$team]}, zones: [{id: $other}]}", v1alpha1.ReasonNotAllowed),
	edited("hosts", "namespaces: {names: [$team]}", "{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: [b.example]}]}", v1alpha1.ReasonNotAllowed),
	edited("modes", "namespaces: {names: [$team]}", "{namespaces: {names: [$team]}, allow: {modes: [Edge]}}", v1alpha1.ReasonNotAllowed),
	edited("budget", "namespaces: {names: [$team]}", "{namespaces: {names: [$team]}, limits: {dailyURLs: 1}}", v1alpha1.ReasonBudget),
	edited("suspended", "namespaces: {names: [$team]}", "{namespaces: {names: [$team]}, suspend: true}", v1alpha1.ReasonSuspended),
	{"deleted", "namespaces: {names: [$team]}", v1alpha1.ReasonAccountMissing,
		func(_ *scene, a *account) { a.remove() }, func(_ *scene, a *account) { a.create("namespaces: {names: [$team]}") }},
}

// edited returns a change of the account's spec.
func edited(name, allowed, forbidden, reason string) change {
	return change{name, allowed, reason, func(_ *scene, a *account) { a.edit(forbidden) }, func(_ *scene, a *account) { a.edit(allowed) }}
}

// While EdgeOne's answer to a call is outstanding, other tasks wait, and the account changes.
// None of them is submitted; the call that was made is followed to its end. Changed back, all
// continue without a touch, and nothing is submitted twice.
func TestAChangeKeepsWhatWaitsFromEdgeOneUntilItIsChangedBack(t *testing.T) {
	for _, tt := range changes {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			s.label(s.team, "edgeone", "main")
			a := s.account("", tt.spec)
			held := s.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", SecretID: a.key})
			first := a.newTask(s.team, "first", "https://a.example/first")
			s.createTasks(first)
			s.eventually("the first call", func() bool { return held.Waiting() == 1 })
			var tasks []*v1alpha1.PrefetchTask
			for i := range 4 {
				tasks = append(tasks, a.newTask(s.team, fmt.Sprint("waiting-", i), fmt.Sprint("https://a.example/waiting/", i)))
			}
			big := a.newTask(s.team, "big", urls("a.example", 50)...)
			tasks = append(tasks, big)
			s.createTasks(tasks...)
			tt.forbid(s, a)
			s.until(tt.reason, tasks...)
			held.Release()
			if tt.reason != v1alpha1.ReasonAccountMissing { // without its key, the outcome cannot be read
				s.until(v1alpha1.ReasonSucceeded, first)
			}
			s.settle()
			a.onlyAsked("https://a.example/first")
			generations := map[string]int64{}
			for _, task := range tasks {
				s.read(task)
				generations[task.Name] = task.Generation
				if want := tt.reason == v1alpha1.ReasonNotAllowed; isStalled(task) != want && tt.reason != v1alpha1.ReasonAccountMissing {
					t.Errorf("%s: stalled %v with the reason %s", task.Name, isStalled(task), tt.reason)
				}
			}
			if tt.reason == v1alpha1.ReasonAccountMissing {
				s.eventually("the tasks are stalled", func() bool { s.read(big); return isStalled(big) })
			}
			tt.allow(s, a)
			s.until(v1alpha1.ReasonSucceeded, append(tasks, first)...)
			all := append(urls("a.example", 50), "https://a.example/first")
			for i, task := range tasks {
				if task.Generation != generations[task.Name] || isStalled(task) {
					t.Errorf("%s: %+v", task.Name, task.Status)
				}
				if i < 4 {
					all = append(all, fmt.Sprint("https://a.example/waiting/", i))
				}
			}
			a.onlyAsked(all...)
		})
	}
}

// Calls that are planned and claimed wait for the rate of the account, one call per second,
// when the account changes. Once a status says so, no further call is made.
func TestAChangeStopsCallsThatWaitForTheRateLimit(t *testing.T) {
	s := newScene(t)
	const spec, suspended = "{namespaces: {names: [$team]}, limits: {callsPerSecond: 1}}", "{namespaces: {names: [$team]}, limits: {callsPerSecond: 1}, suspend: true}"
	a := s.account("", spec)
	var tasks []*v1alpha1.PrefetchTask
	for i := range 8 { // different headers: a call each
		task := a.newTask(s.team, fmt.Sprint("lane-", i), fmt.Sprint("https://a.example/lane/", i))
		task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: fmt.Sprint(i)}}
		tasks = append(tasks, task)
	}
	s.createTasks(tasks...)
	s.eventually("two calls", func() bool { return a.executed() >= 2 })
	a.edit(suspended)
	s.eventually("a status that says so", func() bool { return s.countReasons(tasks)[v1alpha1.ReasonSuspended] > 0 })
	before := maps.Clone(a.asked())
	s.settle()
	s.settle()
	if after := a.asked(); len(after) != len(before) {
		t.Errorf("EdgeOne was asked for %v, and after the change for %v", before, after)
	}
	a.edit(spec)
	s.until(v1alpha1.ReasonSucceeded, tasks...)
	var lanes []string
	for i := range 8 {
		lanes = append(lanes, fmt.Sprint("https://a.example/lane/", i))
	}
	a.onlyAsked(lanes...)
	a.hasRate(1)
}

// hasRate fails if the account made more calls in any second than n.
func (a *account) hasRate(n int) {
	a.Helper()
	var times []time.Time
	for _, e := range a.edgeOne.Ledger() {
		if e.SecretID == a.key {
			times = append(times, e.Time)
		}
	}
	for i := n; i < len(times); i++ {
		if gap := times[i].Sub(times[i-n]); gap < 900*time.Millisecond {
			a.Errorf("%d calls within %v", n+1, gap)
		}
	}
}

// The first part of a task is submitted when a tenant changes its mode, zone or targets to
// what the account does not allow.
func TestAnEditOfARunningTaskIsCheckedLikeANewTask(t *testing.T) {
	for name, edit := range map[string]func(s *scene, task *v1alpha1.PrefetchTask){
		"mode":      func(_ *scene, task *v1alpha1.PrefetchTask) { task.Spec.Mode = v1alpha1.ModeEdge },
		"zone":      func(s *scene, task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = s.other },
		"all zones": func(_ *scene, task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = "*" },
		"targets":   func(_ *scene, task *v1alpha1.PrefetchTask) { task.Spec.Targets[7] = "https://evil.test/" },
		"segments":  func(_ *scene, task *v1alpha1.PrefetchTask) { task.Spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch },
		"one target": func(_ *scene, task *v1alpha1.PrefetchTask) {
			task.Spec.Targets = []v1alpha1.Target{"https://evil.test/"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			a := s.account("", "{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: [a.example]}], limits: {dailyURLs: 3}}")
			held := s.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", SecretID: a.key})
			task := a.newTask(s.team, "edited", urls("a.example", 8)...)
			s.createTasks(task)
			s.eventually("the first part", func() bool { return held.Waiting() == 1 })
			s.editTask(task, func(task *v1alpha1.PrefetchTask) { edit(s, task) })
			held.Release()
			s.until(v1alpha1.ReasonNotAllowed, task)
			a.edit("{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: [a.example]}]}") // a budget is not what keeps it
			s.settle()
			s.until(v1alpha1.ReasonNotAllowed, task)
			a.onlyAsked(urls("a.example", 3)...)
			for _, e := range s.edgeOne.Ledger() {
				if e.SecretID == a.key && (e.Mode != "default" || e.ZoneID != s.zone || e.MediaSegments) {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

// A task moves to another account while the answer to its call is lost. Whoever's history
// settles the call, nothing is submitted twice, and each account signs only its own calls.
func TestMovingATaskWithALostCallSubmitsNothingTwice(t *testing.T) {
	for _, isExecuted := range []bool{true, false} {
		t.Run(fmt.Sprintf("executed %v", isExecuted), func(t *testing.T) {
			s := newScene(t)
			a, b := s.account("-a", "namespaces: {names: [$team]}"), s.account("-b", "namespaces: {names: [$team]}")
			s.edgeOne.AddFault(simulator.Fault{
				Match:  simulator.Matcher{Action: "CreatePrefetchTask", SecretID: a.key, Nth: 1},
				Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: isExecuted},
			})
			task := a.newTask(s.team, "moved", urls("a.example", 3)...)
			s.createTasks(task)
			s.eventually("the call", func() bool { return len(a.asked()) == 3 })
			for _, to := range []*account{b, a, b} {
				s.editTask(task, func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = to.name })
			}
			s.until(v1alpha1.ReasonSucceeded, task)
			if total := a.executed() + b.executed(); total != 3 || isExecuted && b.executed() > 0 {
				t.Errorf("executed: %v and %v", a.asked(), b.asked())
			}
			if duplicates := s.edgeOne.Ledger().DuplicatesBy(func(e simulator.Execution, url string) string { return e.ZoneID + url }); len(duplicates) > 0 && duplicates[s.zone+"https://a.example/0"] > 0 {
				t.Errorf("executed twice: %v", duplicates)
			}
		})
	}
}

// Whoever may delete an account does not give its tenants a new budget by recreating it.
func TestARecreatedAccountHasWhatWasLeftOfItsBudget(t *testing.T) {
	s := newScene(t)
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 3}}")
	task := a.newTask(s.team, "before", urls("a.example", 2)...)
	s.createTasks(task)
	s.until(v1alpha1.ReasonSucceeded, task)
	s.must(client.IgnoreNotFound(s.kube.Delete(t.Context(), task)))
	a.remove()
	a.create("{namespaces: {names: [$team]}, limits: {dailyURLs: 3}}")
	after := a.newTask(s.team, "after", urls("b.example", 5)...)
	s.createTasks(after)
	s.holdsBudget(after)
	a.endsAt(3, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{after})
}
