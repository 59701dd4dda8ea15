package submit

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/follow"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// standsIn returns the Secrets of the account queues in which the task default/a waits.
func standsIn(s *Submitter) (secrets []string) {
	for a, l := range s.accountQueues {
		if l.queue.Len() > 0 {
			secrets = append(secrets, a.Secret)
		}
	}
	return secrets
}

func TestATaskStandsInTheLineOfTheSecretThatItsNewestVersionNames(t *testing.T) {
	older := versionOf("x", "10")
	older.Spec.CredentialsSecretRef.Name = "old"
	newer := versionOf("x", "12")
	newer.Spec.CredentialsSecretRef.Name = "new"
	for name, bring := range map[string]func(v *kube.TaskStore){
		"the watch in order":           func(v *kube.TaskStore) { v.ObserveTask(older); v.ObserveTask(newer) },
		"the old version comes late":   func(v *kube.TaskStore) { v.ObserveTask(older); v.ObserveTask(newer); v.ObserveTask(older) },
		"a live read before the watch": func(v *kube.TaskStore) { v.ObserveTask(older); v.LearnVersion(newer); v.ObserveTask(newer) },
		"a write to the old version is late": func(v *kube.TaskStore) {
			v.ObserveTask(older)
			v.ObserveTask(newer)
			w := older.DeepCopy()
			w.ResourceVersion = "11"
			v.LearnVersion(w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := submitterOf(controllertest.NewUnit(t, nil, nil))
			bring(s.Tasks)
			if got := standsIn(s); !slices.Equal(got, []string{"new"}) {
				t.Errorf("it stands in the lines of %q, want new", got)
			}
			s.Tasks.RemoveTask(newer)
			if got := standsIn(s); got != nil {
				t.Errorf("it is gone, and stands in the lines of %q", got)
			}
		})
	}
}

// The write of a claim conflicts with an edit of credentialsSecretRef.
func TestATaskThatMovesToAnotherSecretIsNotSentWithTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, controllertest.NewTask("a", 1))
		u.LearnTime()
		s, l := submitterOf(u, u.ReadTask("a"))
		edited := u.ReadTask("a")
		edited.Spec.CredentialsSecretRef.Name = "new"
		if err := u.Writer.Update(t.Context(), edited); err != nil {
			t.Fatal(err)
		}
		call := planNext(u, l)
		l.claiming += len(call.Parts)
		s.newAttempt(l, controllertest.Creds, call, "claim").run(t.Context())
		if decision := l.queue.PlanNext(time.Now()); decision.Call != nil {
			t.Errorf("the line of the old Secret plans a call for a task that names %q", decision.Call.Parts[0].Task.Spec.CredentialsSecretRef.Name)
		}
		if got := standsIn(s); !slices.Equal(got, []string{"new"}) || len(edgeOne.Ledger()) != 0 {
			t.Errorf("it stands in the lines of %q, and EdgeOne executed %d calls", got, len(edgeOne.Ledger()))
		}
	})
}

// A task is replaced or deleted while its waiting status is written.
func TestAStatusWriteToATaskThatIsGoneLeavesNothingInLine(t *testing.T) {
	for _, again := range []bool{true, false} {
		t.Run(fmt.Sprint("made again: ", again), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(nil)
				defer edgeOne.Close()
				var s *Submitter
				var watched *v1alpha1.PrefetchTask
				made := versionOf("made again", "5000")
				u := controllertest.NewUnit(t, edgeOne.RoundTripper(), func(write func() error) error {
					err := write()
					s.Tasks.RemoveTask(watched) // kubectl replace --force; its event arrives before the answer to the write
					if again {
						s.Tasks.ObserveTask(made)
					}
					return err
				}, controllertest.NewTask("a", 1))
				watched = u.ReadTask("a")
				var l *accountQueue
				s, l = submitterOf(u, watched)
				l.queue.SetQuota(controllertest.Zone, 0, 0, time.Now()) // the day's quota is used up
				for range 3 {
					if _, err := s.Reconcile(t.Context(), taskstate.AccountKey{}); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				if told := u.ReadTask("a"); taskstate.ReadyReason(told) != v1alpha1.ReasonDailyQuota {
					t.Fatalf("it was told %q", taskstate.ReadyReason(told))
				}
				l.queue.SetQuota(controllertest.Zone, 0, 100, time.Now())
				if !again {
					if use := s.StatsByZone(time.Now())[controllertest.Zone]; l.queue.Len() > 0 || len(use.Waiting) > 0 {
						t.Errorf("a task that is gone waits: %+v", use)
					}
					return
				}
				call := planNext(u, l)
				if uid := call.Parts[0].Task.UID; uid != made.UID {
					t.Errorf("the call is planned for the task that is gone (%s)", uid)
				}
				l.queue.RecordReleased(call, s.newestVersions(l, call), time.Now())
				if l.queue.Len() != 1 {
					t.Error("the new task is not in line any more")
				}
			})
		})
	}
}

// A task is recreated while its call is in flight, and the answer to the call is lost.
func TestALostCallHoldsItsURLsWhenItsTaskWasMadeAgain(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		t.Run("as "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := controllertest.NewUnit(t, nil, nil)
				s, l := submitterOf(u)
				old := versionOf("old", "100")
				s.Tasks.ObserveTask(old)
				call := planNext(u, l)
				l.queue.ReserveURLs("c", controllertest.Zone, call.URLs, time.Now())
				claimed := controllertest.ClaimedAt(old.DeepCopy(), time.Now())
				claimed.Status.Submission.ClaimID, claimed.ResourceVersion = "c", "101"
				s.Tasks.LearnVersion(claimed)
				s.Tasks.RemoveTask(old)
				made := controllertest.NewTask(name, 1) // with the same URL
				made.UID, made.ResourceVersion = "new", "103"
				s.Tasks.ObserveTask(made)
				l.queue.TrackLostCall(call, "c", s.newestVersions(l, call), time.Now())
				if next := l.queue.PlanNext(time.Now()); next.Call != nil {
					t.Error("the URL goes out again at once, while the lost call may be executed")
				}
				time.Sleep(7 * time.Minute)
				if next := l.queue.PlanNext(time.Now()); next.Call == nil {
					t.Error("the URL never goes out again")
				}
			})
		})
	}
}

func TestAListThatComesLateBringsNothingBack(t *testing.T) {
	for _, what := range []string{"other Secret", "deleted"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := controllertest.NewListUnit(t, controllertest.ListTask("a", "urls"))
				u.Put("urls", "https://h/0\n")
				s, _ := submitterOf(u.Unit)
				cached := u.ReadTask("a")
				s.Tasks.ObserveTask(cached)
				synctest.Wait() // the read is in progress
				newer := cached.DeepCopy()
				newer.ResourceVersion, newer.Generation = "9999", 2
				newer.Spec.CredentialsSecretRef.Name = "new"
				if what == "deleted" {
					s.Tasks.RemoveTask(cached)
				} else {
					s.Tasks.ObserveTask(newer)
				}
				s.Tasks.LearnVersion(taskstate.WithTargets(cached, []v1alpha1.Target{"https://h/0"})) // the result of the read
				controllertest.Pass(10 * time.Second)
				want := []string{"new"}
				if what == "deleted" {
					want = nil
				}
				if got := standsIn(s); !slices.Equal(got, want) {
					t.Errorf("it stands in the lines of %q, want %q", got, want)
				}
				s.Tasks.RemoveTask(newer)
				if n := len(s.Tasks.AllTasks()); n > 0 || !u.Lists.IsEmpty() {
					t.Errorf("%d things stay of a task that is gone", n)
				}
			})
		})
	}
}

// A finalizer of another controller keeps the deleted tasks for a long time.
func TestATaskThatIsBeingDeletedIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		followed := controllertest.ClaimedAt(controllertest.NewTask("followed", 1), time.Now())
		taskstate.RecordJob(controllertest.Execute(t, edgeOne, "https://h/0"), nil, time.Now())(followed)
		claimed, waiting := controllertest.ClaimedAt(controllertest.NewTask("claimed", 2), time.Now()), controllertest.NewTask("waiting", 3)
		var tasks []*v1alpha1.PrefetchTask
		for _, task := range []*v1alpha1.PrefetchTask{followed, claimed, waiting} {
			task.Finalizers = []string{"example.com/f"}
			tasks = append(tasks, task)
		}
		writes := 0
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), func(write func() error) error { writes++; return write() }, tasks...)
		p := pollerOf(u)
		s, l := submitterOf(u, u.ReadTask("followed"), u.ReadTask("claimed"), u.ReadTask("waiting"))
		for _, task := range tasks {
			if err := u.Writer.Delete(t.Context(), u.ReadTask(task.Name)); err != nil {
				t.Fatal(err)
			}
			s.Tasks.ObserveTask(u.ReadTask(task.Name))
		}
		if len(p.UnsettledAges()) != 0 || l.queue.Len() != 0 {
			t.Errorf("looked at are %v, in line are %d", p.UnsettledAges(), l.queue.Len())
		}
		for range 60 {
			_, _ = p.Reconcile(t.Context(), follow.ZoneKey{ID: controllertest.Zone})
			_, _ = s.Reconcile(t.Context(), taskstate.AccountKey{})
			time.Sleep(time.Second)
		}
		if writes > 0 {
			t.Errorf("%d writes", writes)
		}
		other := controllertest.NewTask("other", 1) // has the URL that the lost call may have submitted
		s.Tasks.ObserveTask(other)
		if next := l.queue.PlanNext(time.Now()); next.Call != nil {
			t.Error("a URL of a lost call goes out again while that call may be executed")
		}
	})
}

// Events of tasks can arrive before the controller has its workqueue: another controller's queue
// or the response to a list may come first.
func TestWhatBecomesDueBeforeTheQueueIsThereIsDueAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now())
		taskstate.RecordJob(controllertest.Execute(t, edgeOne, "https://h/0"), nil, time.Now())(task)
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, task)
		p := pollerOf(u)
		s, _ := submitterOf(u, u.ReadTask("a"), controllertest.NewTask("b", 1))
		accounts, zones := priorityqueue.New[taskstate.AccountKey]("accounts"), priorityqueue.New[follow.ZoneKey]("zones")
		defer accounts.ShutDown()
		defer zones.ShutDown()
		s.UseQueue(accounts)
		p.UseQueue(zones)
		time.Sleep(time.Minute)
		synctest.Wait()
		if accounts.Len() != 1 || zones.Len() != 1 {
			t.Errorf("due are %d accounts and %d zones, want one each", accounts.Len(), zones.Len())
		}
	})
}

// Users can create and delete tasks that name any number of Secrets.
func TestNothingIsKeptOfAccountsWhoseTasksAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil)
		s, _ := submitterOf(u)
		var gone []*v1alpha1.PrefetchTask
		for i := range 100 {
			task := controllertest.NewTask("a", 1)
			task.Namespace, task.ResourceVersion = fmt.Sprintf("preview-%d", i), fmt.Sprint(i+1)
			task.Spec.CredentialsSecretRef.Name = "edgeone"
			s.Tasks.ObserveTask(task)
			gone = append(gone, task)
		}
		stays := controllertest.NewTask("stays", 1)
		stays.Spec.CredentialsSecretRef.Name, stays.ResourceVersion = "own", "200"
		s.Tasks.ObserveTask(stays)
		s.DropIdleQueues()
		for _, task := range gone {
			s.Tasks.RemoveTask(task)
		}
		for range 2 {
			s.DropIdleQueues()
		}
		if _, ok := s.accountQueues[taskstate.AccountKeyOf(stays)]; !ok || len(s.accountQueues) > 2 { // the operator's own account may remain
			t.Errorf("%d lines are kept", len(s.accountQueues))
		}
		back := gone[0].DeepCopy()
		back.UID, back.ResourceVersion = "made again", "300"
		s.Tasks.ObserveTask(back)
		if n := s.queueFor(taskstate.AccountKeyOf(back)).queue.Len(); n != 1 {
			t.Errorf("%d tasks are in the line of an account that is back", n)
		}
	})
}

// versionOf returns a version of the task default/a.
func versionOf(uid, resourceVersion string) *v1alpha1.PrefetchTask {
	task := controllertest.NewTask("a", 1)
	task.UID, task.ResourceVersion = types.UID(uid), resourceVersion
	return task
}
