package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

// EdgeOne's response to a purge is spoiled, with and without execution of the purge. The
// manager cannot distinguish the two cases.
func TestAPurgeWhoseAnswerIsLostIsNotRepeatedAndNotOvertaken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		effect simulator.Effect
	}{
		{"reset connection", simulator.Effect{Answer: simulator.ConnectionReset}},
		{"time-out", simulator.Effect{Answer: simulator.ConnectionClosed, AnswerDelay: 3 * time.Second}},
		{"502 with HTML", simulator.Effect{Answer: simulator.BadGateway}},
		{"InternalError", simulator.Effect{Code: "InternalError"}},
	} {
		for name, isExecuted := range map[string]bool{"executed": true, "not executed": false} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				r := newRefresh(t, refreshConfig())
				effect := tt.effect
				effect.Executed = isExecuted
				r.edgeOne.AddFault(simulator.Fault{Match: thePurge, Effect: effect})
				r.release(few)
				r.refresher()
				r.eventually("the answer is spoiled", func() bool { return r.purges() > 0 })
				r.strikes(1)
				r.judgeFresh()
			})
		}
	}
}

// The network or EdgeOne delays a purge for longer than the manager waits for the response.
// Whatever the manager reads in EdgeOne's history in the meantime, no URL may be prefetched
// while the purge can still delete it.
func TestAPurgeThatIsDeliveredLateDeletesNothingThatWasPrefetched(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		hold func(r *refresh) (held *simulator.Held, release func())
	}{
		{"before the fence", func(r *refresh) (*simulator.Held, func()) {
			held := r.edgeOne.Hold(thePurge)
			return held, func() {
				time.Sleep(r.validity / 2) // well before the fence, and after the time-out of the manager
				held.Release()
			}
		}},
		{"after the fence, so that EdgeOne refuses it", func(r *refresh) (*simulator.Held, func()) {
			held := r.edgeOne.Hold(thePurge)
			return held, func() {
				r.eventually("the purge is sent again", func() bool { return r.edgeOne.Stats().PurgeJobs > 0 })
				held.Release()
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := refreshConfig()
			c.SignatureValidity = 8 * time.Second
			r := newRefresh(t, c)
			held, release := tt.hold(r)
			r.release(few)
			r.refresher()
			<-held.Arrived()
			release()
			r.strikes(1)
			r.judgeFresh()
		})
	}
	t.Run("EdgeOne lists it late, and executes it late", func(t *testing.T) {
		c := refreshConfig()
		c.ListingDelay = 3 * time.Second
		c.Rules = append([]simulator.Rule{{Action: "CreatePurgeTask", Duration: 4 * time.Second}}, c.Rules...)
		r := newRefresh(t, c)
		r.edgeOne.AddFault(simulator.Fault{Match: thePurge, Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: true}})
		r.release(few)
		r.refresher("--settle-margin=5s")
		r.eventually("the answer is lost", func() bool { return r.purges() > 0 })
		r.strikes(1)
		r.judgeFresh()
	})
}

// EdgeOne refuses purges for a while, as a whole or in part.
func TestAPurgeThatEdgeOneRefusesIsNotFollowedByItsPrefetch(t *testing.T) {
	t.Parallel()
	t.Run("throttled", func(t *testing.T) {
		r := newRefresh(t, refreshConfig())
		r.edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: "CreatePurgeTask", Count: 3},
			Effect: simulator.Effect{Code: "RequestLimitExceeded", Message: "too many"},
		})
		r.release(few)
		r.refresher()
		r.judgeFresh()
	})
	for name, rule := range map[string]simulator.Rule{
		"in FailedList":       {Refuse: "not now"},
		"failed":              {Status: "failed", FailType: "purgeFailed"},
		"timed out":           {Status: "timeout"},
		"past its deadline":   {Status: simulator.Never},
		"failed and executed": {Status: "failed", Executed: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRefresh(t, refreshConfig())
			rule.Action, rule.URL = "CreatePurgeTask", "/long/7"
			r.edgeOne.SetRules(rule)
			r.release(0)
			r.refresher("--purge-deadline=3s")
			task := r.untilFinished("list", v1alpha1.ReasonPartiallyFailed)
			bad := r.list()[7]
			if failed := task.Status.FailedTargets; len(failed) != 1 || failed[0].URL != bad || failed[0].Reason != v1alpha1.FailedPurge {
				t.Errorf("the failed targets are %+v", failed)
			}
			if n := r.edgeOne.Executed(bad); n != 0 {
				t.Errorf("%s was prefetched %d times, and its purge has failed", bad, n)
			}
			r.strikes(1)
			r.edgeOne.SetRules()
			r.edgeOne.FinishPurges("/long/7", "success", "", "")
			r.edit("list", func(task *v1alpha1.PrefetchTask) { task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"} })
			r.judgeFreshBy(r.compareRetried(bad))
		})
	}
}

// compareRetried is compare for a test in which a retry purges a URL again.
func (r *refresh) compareRetried(bad string) func([]v1alpha1.PrefetchTask, *row) []string {
	return func(tasks []v1alpha1.PrefetchTask, row *row) []string {
		r.asked = map[string]int{}
		for _, u := range r.list() {
			r.asked[simulator.Canonical(u)] = 1
		}
		r.asked[simulator.Canonical(bad)] = 2
		return r.compare(tasks, row)
	}
}

// step is a point in the life of a refresh. It brings the manager to this point, and
// returns what happens afterwards to the request in progress.
type step struct {
	name string
	step func(r *refresh, start func()) (after func())
}

func holdAt(hold func(r *refresh) (arrived <-chan struct{}, after func())) func(*refresh, func()) func() {
	return func(r *refresh, start func()) func() {
		arrived, after := hold(r)
		start()
		<-arrived
		return after
	}
}

// purgeSuccesses are the status writes that record which targets EdgeOne has purged.
var purgeSuccesses = faults.Match{Verb: "update", Resource: "prefetchtasks/status", Body: `"purgedPositions"`}

var refreshSteps = []step{
	{"before the claim of the purge", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.api.Hold(faults.Claims)
		return held.Arrived(), held.Drop
	})},
	{"before EdgeOne sees the purge", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.edgeOne.Hold(thePurge)
		return held.Arrived(), held.Drop
	})},
	{"before EdgeOne sees the purge, which arrives later", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.edgeOne.Hold(thePurge)
		return held.Arrived(), held.Release
	})},
	{"before the answer of the purge", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.edgeOne.HoldAnswer(thePurge)
		return held.Arrived(), held.Drop
	})},
	{"before the record of the purge", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.api.Hold(faults.Records)
		return held.Arrived(), held.Drop
	})},
	{"while EdgeOne purges", func(r *refresh, start func()) func() {
		r.edgeOne.SetRules(simulator.Rule{Action: "CreatePurgeTask", Status: simulator.Never})
		start()
		r.until("list", "the purge is recorded", recorded)
		return func() {
			r.edgeOne.SetRules()
			r.edgeOne.FinishPurges("", "success", "", "")
		}
	}},
	{"before the success of the purge is written", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.api.Hold(purgeSuccesses)
		return held.Arrived(), held.Drop
	})},
	{"before the success of the purge is written, which arrives later", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.api.Hold(purgeSuccesses)
		return held.Arrived(), held.Release
	})},
	{"before the claim of the prefetch", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		m := purgeSuccesses
		m.Nth = 2
		held := r.api.Hold(m)
		return held.Arrived(), held.Drop
	})},
	{"before EdgeOne sees the prefetch", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.edgeOne.Hold(theCall)
		return held.Arrived(), held.Drop
	})},
	{"before EdgeOne sees the prefetch, which arrives later", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.edgeOne.Hold(theCall)
		return held.Arrived(), held.Release
	})},
	{"before the answer of the prefetch", holdAt(func(r *refresh) (<-chan struct{}, func()) {
		held := r.edgeOne.HoldAnswer(theCall)
		return held.Arrived(), held.Drop
	})},
}

// A manager is killed at every step of a refresh, and restarted.
func TestAManagerKilledAtAnyStepOfARefreshKeepsTheOrder(t *testing.T) {
	t.Parallel()
	for _, tt := range refreshSteps {
		t.Run(tt.name, func(t *testing.T) {
			r := newRefresh(t, refreshConfig())
			r.proxy()
			r.release(0)
			var p *cluster.Process
			after := tt.step(r, func() { p = r.refresher() })
			p.Kill()
			r.strikes(1)
			after()
			r.must(p.Start(t.Context()))
			r.judgeFresh()
		})
	}
}

// A leader is paused at every step of a refresh, and another one takes over. Then the first
// one resumes, and what it had sent or written may arrive.
func TestALeaderThatIsPausedAtAnyStepOfARefreshKeepsTheOrder(t *testing.T) {
	t.Parallel()
	for _, tt := range refreshSteps {
		t.Run(tt.name, func(t *testing.T) {
			r := newRefresh(t, refreshConfig())
			r.proxy()
			elect := append(r.elect(), "--allow-purge=URL", "--leader-election-lease-duration=4s", "--leader-election-renew-deadline=3s")
			r.release(0)
			var first *cluster.Process
			var old string
			after := tt.step(r, func() {
				first = r.manager(elect...)
				old = r.leads("")
			})
			r.must(faults.Pause(first))
			r.api = nil
			r.kept(elect...)
			r.leads(old)
			after()
			r.must(faults.Resume(first))
			r.strikes(1)
			r.judgeFresh()
			_ = first.Wait(t.Context()) // it has lost its lease, and may end with an error for that reason
		})
	}
}

// Purges by prefix, host and tag go through the same faults.
func TestPurgesOfOtherTypesSurviveTheSameFaults(t *testing.T) {
	t.Parallel()
	for _, purge := range []v1alpha1.Purge{
		{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{"PREFIX/long/", "PREFIX/"}},
		{Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{"www.example.com"}, Method: v1alpha1.PurgeInvalidate},
		{Type: v1alpha1.PurgeCacheTag, Targets: []v1alpha1.PurgeTarget{"release"}},
	} {
		for name, match := range map[string]struct {
			simulator.Matcher
			isExecuted bool
		}{
			"the purge is lost":                  {thePurge, true},
			"the purge is lost, not executed":    {thePurge, false},
			"the prefetch is lost":               {theCall, true},
			"the prefetch is lost, not executed": {theCall, false},
		} {
			t.Run(fmt.Sprint(purge.Type, "/", name), func(t *testing.T) {
				r := newRefresh(t, refreshConfig())
				r.edgeOne.AddFault(simulator.Fault{Match: match.Matcher, Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: match.isExecuted}})
				purge := *purge.DeepCopy()
				for i := range purge.Targets {
					purge.Targets[i] = v1alpha1.PurgeTarget(strings.Replace(string(purge.Targets[i]), "PREFIX", good+r.namespace, 1))
				}
				r.release(0, func(task *v1alpha1.PrefetchTask) { task.Spec.Purge = purge })
				r.refresher()
				r.strikes(1)
				r.judgeFresh()
			})
		}
	}
}

// Users act on a task while its first batch is purged, before EdgeOne has answered, and
// between the purge and the prefetch.
func TestWhatUsersDoDuringARefreshKeepsTheOrder(t *testing.T) {
	t.Parallel()
	edit := func(change func(*refresh, *v1alpha1.PrefetchTaskSpec)) func(*refresh) {
		return func(r *refresh) {
			r.edit("list", func(task *v1alpha1.PrefetchTask) { change(r, &task.Spec) })
		}
	}
	acts := []struct {
		name string
		act  func(r *refresh)
		// twice means that a new run asks for everything again.
		twice bool
	}{
		{"the list gets other URLs", edit(func(r *refresh, spec *v1alpha1.PrefetchTaskSpec) {
			spec.Targets[0], spec.Targets[1] = spec.Targets[1], spec.Targets[0]
			spec.Targets[3] = v1alpha1.Target(r.added())
			spec.Targets = append(spec.Targets[:30:30], spec.Targets[31:]...)
		}), false},
		{"another method of purge", edit(func(r *refresh, spec *v1alpha1.PrefetchTaskSpec) {
			spec.Purge = v1alpha1.Purge{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{v1alpha1.PurgeTarget(good + r.namespace + "/")}}
		}), true},
		{"no purge", edit(func(_ *refresh, spec *v1alpha1.PrefetchTaskSpec) { spec.Purge = v1alpha1.Purge{} }), true},
		{"another revision", edit(func(_ *refresh, spec *v1alpha1.PrefetchTaskSpec) { spec.Revision = "2" }), true},
		{"another revision, and back", func(r *refresh) {
			edit(func(_ *refresh, spec *v1alpha1.PrefetchTaskSpec) { spec.Revision, spec.Suspend = "2", ptr.To(true) })(r)
			edit(func(_ *refresh, spec *v1alpha1.PrefetchTaskSpec) { spec.Revision, spec.Suspend = "", nil })(r)
		}, false},
		{"suspended for a while", func(r *refresh) {
			edit(func(_ *refresh, spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = ptr.To(true) })(r)
			time.AfterFunc(coldLimit+2*time.Second, func() {
				edit(func(_ *refresh, spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = nil })(r)
			})
		}, false},
	}
	moments := []step{
		{"before the answer of the purge", holdAt(func(r *refresh) (<-chan struct{}, func()) {
			held := r.edgeOne.HoldAnswer(thePurge)
			return held.Arrived(), held.Release
		})},
		{"the purge is lost", holdAt(func(r *refresh) (<-chan struct{}, func()) {
			held := r.edgeOne.HoldAnswer(thePurge)
			return held.Arrived(), held.Drop
		})},
		{"while EdgeOne purges", func(r *refresh, start func()) func() {
			r.edgeOne.SetRules(simulator.Rule{Action: "CreatePurgeTask", Status: simulator.Never})
			start()
			r.until("list", "the purge is recorded", recorded)
			return func() {
				r.edgeOne.SetRules()
				r.edgeOne.FinishPurges("", "success", "", "")
			}
		}},
		{"before the answer of the prefetch", holdAt(func(r *refresh) (<-chan struct{}, func()) {
			held := r.edgeOne.HoldAnswer(theCall)
			return held.Arrived(), held.Release
		})},
	}
	for _, act := range acts {
		for _, moment := range moments {
			t.Run(act.name+"/"+moment.name, func(t *testing.T) {
				r := newRefresh(t, refreshConfig())
				r.publish(r.added())
				r.release(0)
				after := moment.step(r, func() { r.refresher() })
				act.act(r)
				r.strikes(1)
				after()
				r.judgeFreshBy(r.compareEdited(act.twice))
			})
		}
	}
}

// added is a URL that an edit adds to the list.
func (r *refresh) added() string { return good + r.namespace + "/added" }

// compareEdited is compare for a test in which an edit starts a new run, which may ask for
// everything again.
func (r *refresh) compareEdited(isTwice bool) func([]v1alpha1.PrefetchTask, *row) []string {
	return func(tasks []v1alpha1.PrefetchTask, row *row) (complaints []string) {
		most := 1
		if isTwice {
			most = 2
		}
		for _, task := range tasks {
			for _, u := range taskstate.DistinctTargets(&task) {
				if n := r.edgeOne.Executed(u); n < 1 || n > most {
					complaints = append(complaints, fmt.Sprintf("%s was prefetched %d times, want 1 to %d", u, n, most))
					row.duplicates += max(0, n-most)
				}
			}
		}
		return complaints
	}
}

// The quota for prefetches is used up by another program after URLs were purged.
func TestQuotaThatIsLostBetweenPurgeAndPrefetchIsReported(t *testing.T) {
	r := newRefresh(t, refreshConfig())
	held := r.edgeOne.Hold(theCall)
	r.release(0)
	r.refresher("--teo-timeout=30s", "--shutdown-grace=40s")
	<-held.Arrived()
	r.edgeOne.SetAvailable(zoneID, 0)
	held.Release()
	r.until("list", "says that URLs are cold, and why", func(s v1alpha1.PrefetchTaskStatus) bool {
		ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		return isTrue(s, v1alpha1.ConditionQuotaExceeded, v1alpha1.ReasonDailyQuota) &&
			strings.Contains(ready.Message, fmt.Sprint(purgeBatch, " targets are purged and not prefetched yet"))
	})
	before := r.edgeOne.Stats().PurgeTargets
	time.Sleep(coldLimit + time.Second) // the status must say it for all of this time
	if n := r.edgeOne.Stats().PurgeTargets; n != before {
		t.Errorf("%d more URLs were purged while nothing can be prefetched", n-before)
	}
	r.strikes(1)
	r.edgeOne.ResetQuota()
	r.judgeFresh()
}

// A key lacks a permission that a refresh needs. Nothing is purged until it has it.
func TestAKeyThatLacksAPermissionPurgesNothing(t *testing.T) {
	t.Parallel()
	all := []string{"CreatePrefetchTask", "DescribePrefetchTasks", "CreatePurgeTask", "DescribePurgeTasks", "DescribeContentQuota"}
	for _, action := range []string{"CreatePurgeTask", "DescribePurgeTasks", "CreatePrefetchTask"} {
		t.Run(action, func(t *testing.T) {
			r := newRefresh(t, refreshConfig())
			key := simulator.Key{SecretID: keyID, SecretKey: keyValue, Account: "demo"}
			key.Actions = slices.DeleteFunc(slices.Clone(all), func(a string) bool { return a == action })
			r.edgeOne.SetKey(key)
			r.release(0)
			r.refresher()
			r.until("list", "is stalled", func(s v1alpha1.PrefetchTaskStatus) bool {
				stalled := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionStalled)
				return stalled != nil && stalled.Status == "True" && strings.Contains(stalled.Message, action)
			})
			if n := r.edgeOne.Stats().PurgeTargets; n != 0 && action != "CreatePrefetchTask" {
				t.Errorf("%d URLs were purged", n)
			}
			key.Actions = nil
			r.edgeOne.SetKey(key)
			r.strikes(1)
			r.judgeFresh()
		})
	}
}
