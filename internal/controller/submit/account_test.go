package submit

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// allow sets an account named main that allows these namespaces.
func allow(accounts *account.Store, namespaces ...v1alpha1.NamespaceName) *v1alpha1.EdgeOneAccount {
	main := &v1alpha1.EdgeOneAccount{}
	main.Name, main.Spec.Namespaces.Names = "main", namespaces
	accounts.SetAccount(main)
	return main
}

// accountTask returns a task that uses the account main.
func accountTask(name string, targets ...v1alpha1.Target) *v1alpha1.PrefetchTask {
	task := controllertest.NewTask(name, 1)
	task.Spec.AccountRef.Name, task.Spec.Targets = "main", targets
	return task
}

// accountSubmitter returns a Submitter with the store's accounts, and the queue of the account
// main with all tasks of the unit.
func accountSubmitter(u *controllertest.Unit, accounts *account.Store, names ...string) (*Submitter, *accountQueue) {
	config := submitConfigOf(u)
	config.Accounts, config.Answers = accounts, account.NewAnswers()
	s := NewSubmitter(config)
	for _, name := range names {
		s.Tasks.ObserveTask(u.ReadTask(name))
	}
	return s, s.queueFor(taskstate.AccountKey{Account: "main"})
}

func newAccounts() *account.Store { return account.NewStore(account.NewUsage(16 * time.Hour)) }

func TestAnAccountIsAskedBeforeEachClaimAndBeforeEachCall(t *testing.T) {
	for _, tt := range []struct {
		name    string
		when    func(accounts *account.Store, writes int) // called at the start, and at each write of a status
		claimed bool
	}{
		{"changed after the call was planned", func(accounts *account.Store, writes int) {
			if writes == 0 {
				allow(accounts, "other")
			}
		}, false},
		{"changed while the claim was written", func(accounts *account.Store, writes int) {
			if writes == 1 {
				allow(accounts, "other")
			}
		}, true},
		{"deleted while the claim was written", func(accounts *account.Store, writes int) {
			if writes == 1 {
				accounts.DeleteAccount("main")
			}
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, writes, accounts := 0, 0, newAccounts()
				edgeOne := seen(func(*http.Request, []string) (string, error) {
					calls++
					return acceptance, nil
				})
				u := controllertest.NewUnit(t, edgeOne, func(write func() error) error {
					writes++
					tt.when(accounts, writes)
					return write()
				}, accountTask("a", "https://h/0"))
				allow(accounts, "default")
				s, l := accountSubmitter(u, accounts, "a")
				call := planNext(u, l)
				tt.when(accounts, 0)
				s.newAttempt(l, controllertest.Creds, call, "mine").run(context.Background())
				task := u.ReadTask("a")
				if calls > 0 || task.Status.Submission != nil || len(task.Status.Jobs) > 0 {
					t.Errorf("%d calls; the status is %+v", calls, task.Status)
				}
				if claimed := task.Status.Run != ""; claimed != tt.claimed {
					t.Errorf("claimed: %v", claimed)
				}
				if notes, _ := l.queue.WaitingStatuses(10, time.Now()); len(notes) != 1 || !notes[0].NeedsUser {
					t.Errorf("it reports %+v", notes)
				}
				allow(accounts, "default")
				if call := planNext(u, l); len(call.Parts) != 1 {
					t.Errorf("not planned again: %+v", call)
				}
			})
		})
	}
}

// The account named default takes over what is claimed with the operator's own key.
func TestACallIsNotSentWithTheKeyThatItsTaskHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		edgeOne := seen(func(*http.Request, []string) (string, error) {
			calls++
			return acceptance, nil
		})
		var u *controllertest.Unit
		u = controllertest.NewUnit(t, edgeOne, func(write func() error) error {
			u.Tasks.SetDefaultAccount(true)
			return write()
		}, controllertest.NewTask("a", 1))
		s, _ := accountSubmitter(u, newAccounts(), "a")
		l := s.queueFor(taskstate.AccountKey{})
		s.newAttempt(l, controllertest.Creds, planNext(u, l), "mine").run(context.Background())
		if task := u.ReadTask("a"); calls > 0 || task.Status.Submission != nil || len(task.Status.Jobs) > 0 {
			t.Errorf("%d calls; the status is %+v", calls, task.Status)
		}
	})
}

func TestAURLOfSeveralTasksCountsOnceAgainstABudget(t *testing.T) {
	for _, tt := range []struct {
		name   string
		gone   string // a task that changes before it is claimed
		answer string
		shared map[string]int32 // by task
		used   int
	}{
		{"all are claimed", "", acceptance, map[string]int32{"a": 0, "b": 3, "c": 1}, 3},
		{"the first is not claimed", "a", acceptance, map[string]int32{"b": 1, "c": 1}, 3},
		{"EdgeOne refuses what they share", "", `{"Response":{"JobId":"job-1","FailedList":[{"Reason":"no","Targets":["https://h/x"]}],"RequestId":"r"}}`,
			map[string]int32{"a": 0, "b": 1, "c": 0}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				accounts, edgeOne := newAccounts(), seen(func(*http.Request, []string) (string, error) { return tt.answer, nil })
				allow(accounts, "default")
				u := controllertest.NewUnit(t, edgeOne, nil,
					accountTask("a", "https://h/x", "https://h/y"), accountTask("b", "https://H/x", "https://h/y", "https://h:443/x"), accountTask("c", "https://h/x", "https://h/z"))
				names := []string{"a", "b", "c"}
				s, l := accountSubmitter(u, accounts, names...)
				call := planNext(u, l)
				if tt.gone != "" {
					if _, err := u.Writer.WriteStatus(t.Context(), u.ReadTask(tt.gone), taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(1), "meanwhile", controllertest.T0)); err != nil {
						t.Fatal(err)
					}
				}
				s.newAttempt(l, controllertest.Creds, call, "mine").run(context.Background())
				used := 0
				for _, name := range names {
					task := u.ReadTask(name)
					if len(task.Status.Jobs) == 0 {
						continue
					}
					if got := task.Status.Jobs[0].SharedURLs; got != tt.shared[name] {
						t.Errorf("%s shares %d URLs, want %d: %+v", name, got, tt.shared[name], task.Status.Jobs)
					}
					used += taskstate.ChargedURLs(task.Status.Jobs[0].Positions, task.Status.Jobs[0].SharedURLs)
				}
				if _, total, _, _ := accounts.Usage.CountToday("main"); total != used || used != tt.used {
					t.Errorf("%d URLs are used, and %d are in the statuses; want %d", total, used, tt.used)
				}
			})
		})
	}
}

func TestAnEditOfAnAccountEndsTheWaitForItsCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newAccounts()
		main := allow(accounts, "default").DeepCopy()
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return acceptance, nil }), nil, accountTask("a", "https://h/0"))
		s, l := accountSubmitter(u, accounts, "a")
		call := planNext(u, l)
		denied := &teo.Error{Action: teo.ActionCreatePrefetchTask, Kind: teo.Denied, Code: "AuthFailure.SecretIdNotFound", Message: "no such key"}
		l.queue.RecordReleased(call, s.newestVersions(l, call), time.Now())
		l.recheck = time.Now().Add(s.backOffCall(l, nil, denied))
		if decision := l.queue.PlanNext(time.Now()); decision.Call != nil || decision.Wait == 0 {
			t.Fatalf("%+v", decision)
		}
		main.Spec.Credentials.SecretRef.Name = "another"
		accounts.SetAccount(main)
		if !l.recheck.IsZero() {
			t.Error("the credentials are not read at once")
		}
		planNext(u, l)
	})
}

func TestAnAccountMakesNoMoreCallsPerSecondThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newAccounts()
		main := allow(accounts, "default").DeepCopy()
		main.Spec.Limits.CallsPerSecond = 3
		accounts.SetAccount(main)
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return acceptance, nil }), nil)
		s, l := accountSubmitter(u, accounts)
		began := time.Now()
		for i := range 12 {
			got, err := s.limitersFor(l, controllertest.Creds).wait(t.Context(), teo.Turn{Line: l.account.String()})
			if err != nil {
				t.Fatal(err)
			}
			got.done(false)
			if n := 1 + int(time.Since(began)/time.Second); i >= 3*n {
				t.Fatalf("%d calls in %s", i+1, time.Since(began))
			}
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("12 calls took %s", took)
		}
		if free, _ := s.limitersFor(l, controllertest.Creds).countFree(l.account.String(), nil); free > 3 {
			t.Errorf("%d calls are planned ahead", free)
		}
	})
}

func TestOnlyAnswersAboutCredentialsAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newAccounts()
		allow(accounts, "default")
		answer := `{"Response":{"Error":{"Code":"InternalError","Message":"x"},"RequestId":"r"}}`
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return answer, nil }), nil, accountTask("a", "https://h/0"))
		s, l := accountSubmitter(u, accounts, "a")
		s.recordAnswer(l, controllertest.Creds, &teo.Error{Kind: teo.Unavailable})
		if _, ok := s.Answers.LastAnswer("main"); ok {
			t.Error("an error of the network says something about the key")
		}
		s.newAttempt(l, controllertest.Creds, planNext(u, l), "mine").run(context.Background())
		if _, ok := s.Answers.LastAnswer("main"); ok {
			t.Error("an error of EdgeOne says something about the key")
		}
		s.recordAnswer(l, controllertest.Creds, nil)
		if last, ok := s.Answers.LastAnswer("main"); !ok || last.Err != nil || last.Principal != controllertest.Creds.SecretID {
			t.Errorf("%+v", last)
		}
	})
}

func TestTasksThatNameNoAccountMoveToTheDefaultOneAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newAccounts()
		task := accountTask("a", "https://h/0")
		task.Spec.AccountRef.Name = ""
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return acceptance, nil }), nil, task)
		s, _ := accountSubmitter(u, accounts, "a")
		lines := func() (own, account int) {
			return s.queueFor(taskstate.AccountKey{}).queue.Len(), s.queueFor(taskstate.AccountKey{Account: v1alpha1.DefaultAccount}).queue.Len()
		}
		for range 2 {
			if own, account := lines(); own != 1 || account != 0 {
				t.Errorf("without the account: %d and %d", own, account)
			}
			byDefault := &v1alpha1.EdgeOneAccount{}
			byDefault.Name, byDefault.Spec.Suspend = v1alpha1.DefaultAccount, ptr.To(false)
			accounts.SetAccount(byDefault)
			u.Tasks.SetDefaultAccount(true)
			if own, account := lines(); own != 0 || account != 1 {
				t.Errorf("with the account: %d and %d", own, account)
			}
			if newest := u.Tasks.LearnVersion(u.ReadTask("a")); newest.Spec.AccountRef.Name != v1alpha1.DefaultAccount {
				t.Errorf("a version that this process reads uses another account: %+v", newest.Spec)
			}
			accounts.DeleteAccount(v1alpha1.DefaultAccount)
			u.Tasks.SetDefaultAccount(false)
		}
	})
}

func TestLabelsOfANamespaceTakeEffectAtOnceBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newAccounts()
		main := &v1alpha1.EdgeOneAccount{}
		main.Name = "main"
		main.Spec.Namespaces.Selector = &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelText{"edgeone": "main"}}
		accounts.SetAccount(main)
		accounts.SetNamespace("default", nil)
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return acceptance, nil }), nil, accountTask("a", "https://h/0"))
		_, l := accountSubmitter(u, accounts, "a")
		for range 2 {
			if decision := l.queue.PlanNext(time.Now()); decision.Call != nil || decision.ReadQuota != "" {
				t.Fatalf("without the label: %+v", decision)
			}
			accounts.SetNamespace("another", map[string]string{"edgeone": "main"})
			accounts.SetNamespace("default", map[string]string{"edgeone": "main"})
			call := planNext(u, l)
			l.queue.EndPlanning(call, time.Now())
			l.queue.RecordReleased(call, []*v1alpha1.PrefetchTask{u.ReadTask("a")}, time.Now())
			accounts.DeleteNamespace("another")
			accounts.SetNamespace("default", nil)
		}
	})
}

// A pass may run after the account is gone, and before its tasks know that.
func TestAnAccountThatIsMissingForAMomentKeepsNoZoneFromItsQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newAccounts()
		var s *Submitter
		accounts.Subscribe(func(string) {
			if s != nil && accounts.Account("main") == nil {
				if _, err := s.Reconcile(t.Context(), taskstate.AccountKey{Account: "main"}); err != nil {
					t.Error(err)
				}
			}
		})
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return acceptance, nil }), nil, accountTask("a", "https://h/0"))
		allow(accounts, "default")
		s, l := accountSubmitter(u, accounts, "a")
		accounts.DeleteAccount("main")
		synctest.Wait()
		allow(accounts, "default")
		l.mu.Lock()
		defer l.mu.Unlock()
		if decision := l.queue.PlanNext(time.Now()); decision.ReadQuota == "" && decision.Call == nil {
			t.Errorf("nothing is submitted any more: %+v", decision)
		}
	})
}

func TestATaskOfAMissingAccountIsStalledAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := newAccounts()
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return acceptance, nil }), nil, accountTask("a", "https://h/0"))
		s, _ := accountSubmitter(u, accounts, "a")
		isStalled := func() bool {
			synctest.Wait()
			task := u.ReadTask("a")
			if reason := taskstate.ReadyReason(task); reason != v1alpha1.ReasonAccountMissing {
				t.Errorf("the reason is %s", reason)
			}
			return taskstate.IsStalledFor(task, v1alpha1.ReasonAccountMissing)
		}
		began, stalled := time.Now(), false
		for i := 0; !stalled && i < 20; i++ {
			result, err := s.Reconcile(t.Context(), taskstate.AccountKey{Account: "main"})
			if err != nil {
				t.Fatal(err)
			}
			stalled = isStalled()
			time.Sleep(max(result.RequeueAfter, time.Millisecond))
		}
		if took := time.Since(began).Round(time.Second); !stalled || took < 2*u.RecheckInterval {
			t.Errorf("stalled: %v, after %s", stalled, took)
		}
	})
}
