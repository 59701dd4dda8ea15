package account

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// step is a version of a task in the tests of Usage: its claim and its jobs, by claim ID.
type step struct {
	run, claim string
	shared     int32
	jobs       []v1alpha1.Job
}

// version returns a version of a task of 4 targets.
func version(name string, s step) *v1alpha1.PrefetchTask {
	task := newTask("https://h/1", "https://h/2", "https://h/3", "https://h/4")
	task.Name, task.UID = name, types.UID("uid of "+name)
	task.Status.Run = "run" + s.run
	if s.claim != "" {
		task.Status.Submission = &v1alpha1.Submission{
			ClaimID: s.claim, ZoneID: "zone-1", Positions: "0-3", SharedURLs: s.shared, SignedAt: metav1.NewTime(time.Now()),
		}
	}
	task.Status.Jobs = s.jobs
	return task
}

func job(claim, positions string, shared int32) v1alpha1.Job {
	return v1alpha1.Job{ID: "job of " + claim, ClaimID: claim, Positions: positions, SharedURLs: shared, SubmitTime: metav1.NewTime(time.Now())}
}

func TestWhatCountsAgainstABudget(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []step // versions of one task
		gone  bool   // the task is deleted at the end
		want  int
	}{
		{"nothing", []step{{}}, false, 0},
		{"a claim", []step{{claim: "a"}}, false, 4},
		{"a claim that other tasks share", []step{{claim: "a", shared: 3}}, false, 1},
		{"a call that was not executed", []step{{claim: "a"}, {}}, false, 0},
		{"a call that EdgeOne accepted", []step{{claim: "a"}, {jobs: []v1alpha1.Job{job("a", "0-3", 0)}}}, false, 4},
		{"a call that EdgeOne accepted in part", []step{{claim: "a"}, {jobs: []v1alpha1.Job{job("a", "0-1", 1)}}}, false, 1},
		{"two calls", []step{{claim: "a"}, {jobs: []v1alpha1.Job{job("a", "0-1", 0)}}, {claim: "b", jobs: []v1alpha1.Job{job("a", "0-1", 0)}}}, false, 6},
		{"a call in flight of a task that is deleted", []step{{claim: "a"}}, true, 4},
		{"a task that is deleted", []step{{claim: "a"}, {jobs: []v1alpha1.Job{job("a", "0-3", 0)}}}, true, 4},
		{"a call in flight when a new run starts", []step{{run: "1", claim: "a"}, {run: "2", claim: "b"}}, false, 8},
		{"a new run", []step{{run: "1", jobs: []v1alpha1.Job{job("a", "0-3", 0)}}, {run: "2"}}, false, 4},
		{"a job that is seen again", []step{{jobs: []v1alpha1.Job{job("a", "0-3", 0)}}, {jobs: []v1alpha1.Job{job("a", "0-3", 0)}}}, false, 4},
		{"a retry", []step{{jobs: []v1alpha1.Job{job("a", "0-3", 0)}}, {jobs: []v1alpha1.Job{job("a", "0-3", 0), job("b", "2-3", 0)}}}, false, 6},
		{"positions that a user wrote", []step{{jobs: []v1alpha1.Job{job("a", "everything", 0)}}}, false, taskstate.MaxTargets},
	} {
		t.Run(tt.name, func(t *testing.T) {
			usage := NewUsage(0)
			var before *v1alpha1.PrefetchTask
			for _, s := range tt.steps {
				after := version("a", s)
				usage.ObserveJobs(after)
				usage.OnTaskChange(before, after)
				usage.ObserveJobs(after) // the watch shows what this process wrote
				before = after
			}
			if tt.gone {
				usage.OnTaskChange(before, nil)
			}
			if _, total, namespaces, zones := usage.CountToday("main"); total != tt.want || namespaces["shop"] != tt.want || zones["zone-1"] != tt.want {
				t.Errorf("%d, %v, %v, want %d", total, namespaces, zones, tt.want)
			}
			if _, total, _, _ := usage.CountToday("other"); total != 0 {
				t.Errorf("%d of another account", total)
			}
		})
	}
}

func TestABudgetSurvivesARestartAndTheDeletionOfTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := newAccount(t, "limits: {dailyURLs: 10, dailyURLsPerNamespace: 9}")
		left := func(u *Usage) (int, int) {
			a := u.admit(limits, "shop")
			return a.Left, a.NamespaceLeft
		}
		was := limits.DeepCopy()
		first := NewUsage(16 * time.Hour)
		day, _, _, _ := first.CountToday("main")
		was.Status.DayStartTime, was.Status.Used = metav1.NewTime(day), ptr.To[int32](7)
		was.Status.Namespaces = []v1alpha1.AccountNamespaceStatus{{Name: "shop", Used: ptr.To[int32](5)}}
		first.observeStatus(was)
		if all, own := left(first); all != 3 || own != 4 {
			t.Errorf("after a restart, %d and %d are left", all, own)
		}
		seen := version("a", step{jobs: []v1alpha1.Job{job("a", "0-1", 0)}})
		first.ObserveJobs(seen)
		first.OnTaskChange(nil, seen)
		first.observeStatus(was)
		if all, own := left(first); all != 3 || own != 4 {
			t.Errorf("with tasks that the status counts, %d and %d are left", all, own)
		}
		first.Seal()
		if all, own := left(first); all != 3 || own != 4 {
			t.Errorf("after the start, %d and %d are left", all, own)
		}
		first.OnTaskChange(seen, version("a", step{jobs: []v1alpha1.Job{job("a", "0-1", 0), job("b", "2-3", 0)}}))
		if all, own := left(first); all != 1 || own != 2 {
			t.Errorf("after more, %d and %d are left", all, own)
		}
		was.Status.Used = ptr.To[int32](10)
		first.observeStatus(was)
		if all, _ := left(first); all != 1 {
			t.Errorf("a status of its own counts: %d are left", all)
		}
		second := NewUsage(16 * time.Hour)
		was.Status.Used, was.Status.Namespaces = ptr.To[int32](1), nil
		for _, name := range []string{"a", "b"} {
			second.ObserveJobs(version(name, step{jobs: []v1alpha1.Job{job(name, "0-3", 0)}}))
		}
		second.observeStatus(was)
		if all, own := left(second); all != 2 || own != 1 {
			t.Errorf("with more in the tasks than in the status, %d and %d are left", all, own)
		}
		time.Sleep(24 * time.Hour)
		second.observeStatus(was)
		if all, own := left(second); all != 10 || own != 9 {
			t.Errorf("on the next day, %d and %d are left", all, own)
		}
		if time.Until(second.NextDay()) > 24*time.Hour || second.NextDay().Hour() != 16 {
			t.Errorf("the next day begins at %s", second.NextDay())
		}
	})
}

// EdgeOne's clock, with which calls are signed, is known in whole seconds and is late. It may
// be off by minutes, too.
func TestTheFirstCallsOfADayCountAlthoughTheyAreSignedEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		usage := NewUsage(0)
		day, _, _, _ := usage.CountToday("main")
		time.Sleep(time.Until(day.Add(24*time.Hour + 100*time.Millisecond)))
		expect := func(when string, want int) {
			t.Helper()
			if _, total, _, _ := usage.CountToday("main"); total != want {
				t.Errorf("%s, %d count, want %d", when, total, want)
			}
		}
		early := metav1.NewTime(time.Now().Add(-2 * time.Second))
		waits, claimed := version("a", step{}), version("a", step{claim: "a"})
		claimed.Status.Submission.SignedAt = early
		usage.OnTaskChange(nil, waits)
		usage.OnTaskChange(waits, claimed)
		expect("with the claim", 4)
		one, two := job("a", "0-1", 0), job("a", "2", 0)
		one.SubmitTime, two.SubmitTime, two.ID = early, early, "another"
		accepted := version("a", step{jobs: []v1alpha1.Job{one, two}})
		usage.ObserveJobs(accepted)
		usage.OnTaskChange(claimed, accepted)
		expect("with its jobs", 3)
		refused, again := version("b", step{claim: "b"}), version("b", step{})
		refused.Status.Submission.SignedAt = early
		usage.OnTaskChange(again, refused)
		usage.OnTaskChange(refused, again)
		expect("with a call that was not executed", 3)
		// A call of yesterday whose outcome is still unknown counts yesterday.
		lost := version("c", step{claim: "c"})
		usage.OnTaskChange(version("c", step{}), lost)
		time.Sleep(24 * time.Hour)
		expect("on the next day", 0)
		usage.OnTaskChange(lost, lost.DeepCopy())
		usage.OnTaskChange(lost, version("c", step{jobs: []v1alpha1.Job{{ID: "c", ClaimID: "c", Positions: "0-3", SubmitTime: lost.Status.Submission.SignedAt}}}))
		expect("on the next day, with yesterday's call", 0)
	})
}

func TestWhoHasMoreLeftIsToldOnce(t *testing.T) {
	usage := NewUsage(0)
	refunds := 0
	usage.Subscribe(func(account string) {
		if account != "main" {
			t.Errorf("account %q", account)
		}
		refunds++
	})
	before := version("a", step{claim: "a"})
	usage.OnTaskChange(nil, before)
	released := version("a", step{})
	usage.OnTaskChange(before, released)
	usage.OnTaskChange(released, version("a", step{claim: "b"}))
	if refunds != 1 {
		t.Errorf("%d refunds", refunds)
	}
}

func TestAnAccountThatATaskHasLeftIsToldWhatItsLostCallGivesBack(t *testing.T) {
	usage := NewUsage(0)
	var told []string
	usage.Subscribe(func(account string) { told = append(told, account) })
	claimed := version("a", step{claim: "a"})
	moved, settled := claimed.DeepCopy(), version("a", step{})
	moved.Spec.AccountRef.Name, settled.Spec.AccountRef.Name = "other", "other"
	usage.OnTaskChange(nil, claimed)
	usage.OnTaskChange(claimed, moved)
	usage.OnTaskChange(moved, settled)
	if _, total, _, _ := usage.CountToday("main"); total != 0 || len(told) != 1 || told[0] != "main" {
		t.Errorf("%d count, and told are %q", total, told)
	}
}

// The TaskStore does not keep tasks that are finished. If the watch shows that EdgeOne refused
// everything before the process learns of its own write, the store goes from the claim to none.
func TestWhatEdgeOneRefusesIsGivenBackAlthoughTheTaskIsFinished(t *testing.T) {
	usage, told := NewUsage(0), 0
	usage.Subscribe(func(string) { told++ })
	claimed, refused := version("a", step{claim: "a"}), version("a", step{})
	usage.OnTaskChange(nil, claimed)
	refused.Status.Targets.Total, refused.Status.RefusedPositions = ptr.To[int32](4), "0-3"
	refused.Status.Run = taskstate.RunHash(refused)
	taskstate.UpdateSummary(refused, time.Now())
	if !taskstate.IsRunOver(refused) {
		t.Fatalf("%+v", refused.Status)
	}
	usage.ObserveJobs(refused)
	usage.OnTaskChange(claimed, nil)
	if _, total, _, _ := usage.CountToday("main"); total != 0 || told != 1 {
		t.Errorf("%d count, told %d times", total, told)
	}
}

func TestTasksThatNameNoAccountCountForTheDefaultOne(t *testing.T) {
	usage := NewUsage(0)
	task := version("a", step{jobs: []v1alpha1.Job{job("a", "0-3", 0)}})
	task.Spec.AccountRef.Name = ""
	usage.ObserveJobs(task) // the watch does not say that the default account exists
	usage.OnTaskChange(nil, taskstate.WithDefaultAccount(task, true))
	if _, total, _, _ := usage.CountToday(v1alpha1.DefaultAccount); total != 4 {
		t.Errorf("%d of the default account, want 4", total)
	}
	tenants := version("b", step{jobs: []v1alpha1.Job{job("b", "0-3", 0)}})
	tenants.Spec.AccountRef.Name, tenants.Spec.CredentialsSecretRef.Name = "", "keys"
	usage.ObserveJobs(tenants)
	usage.OnTaskChange(nil, tenants)
	if _, total, _, _ := usage.CountToday(v1alpha1.DefaultAccount); total != 4 {
		t.Errorf("%d with the calls of a Secret, want 4", total)
	}
}

func TestWhatATaskSubmittedWithItsOwnSecretCountsForNoAccountThatItNamesLater(t *testing.T) {
	for _, tt := range []struct {
		name    string
		earlier step
	}{
		{"a job", step{jobs: []v1alpha1.Job{job("a", "0-3", 0)}}},
		{"a claim", step{claim: "a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			usage := NewUsage(0)
			own := version("a", tt.earlier)
			own.Spec.AccountRef.Name, own.Spec.CredentialsSecretRef.Name = "", "keys"
			moved := version("a", tt.earlier)
			settled := version("a", step{jobs: []v1alpha1.Job{job("a", "0-3", 0)}})
			var before *v1alpha1.PrefetchTask
			for _, after := range []*v1alpha1.PrefetchTask{version("a", step{}), own, moved, settled} {
				usage.ObserveJobs(after)
				usage.OnTaskChange(before, after)
				before = after
			}
			if _, total, _, _ := usage.CountToday("main"); total != 0 {
				t.Errorf("%d URLs count, and the account has paid for none", total)
			}
		})
	}
}

func TestAfterADayWithoutAWriteAllQuotasOfAnAccountAreLeft(t *testing.T) {
	began := time.Date(2026, 11, 28, 16, 0, 0, 0, time.UTC)
	account := &v1alpha1.EdgeOneAccount{}
	account.Spec.Limits.DailyURLs = ptr.To[int32](500)
	account.Status = v1alpha1.EdgeOneAccountStatus{
		DayStartTime: metav1.NewTime(began), Used: ptr.To[int32](500), Left: ptr.To[int32](0),
		Zones:      []v1alpha1.AccountZoneStatus{{ID: "known", Daily: ptr.To[int32](1000), Left: ptr.To[int32](0), Used: ptr.To[int32](500)}, {ID: "unknown"}},
		Namespaces: []v1alpha1.AccountNamespaceStatus{{Name: "shop", Used: ptr.To[int32](500)}},
	}
	if same := AdvanceDay(account, began.Add(24*time.Hour-time.Second)); *same.Status.Left != 0 || *same.Status.Zones[0].Left != 0 {
		t.Errorf("on the same day: %+v", same.Status)
	}
	today := AdvanceDay(account, began.Add(70*time.Hour)).Status
	if !today.DayStartTime.Time.Equal(began.Add(48*time.Hour)) || *today.Used != 0 || *today.Left != 500 || len(today.Namespaces) != 0 {
		t.Errorf("%+v", today)
	}
	if known, unknown := today.Zones[0], today.Zones[1]; *known.Left != 1000 || *known.Used != 0 || unknown.Left != nil {
		t.Errorf("%+v, %+v", known, unknown)
	}
	if *account.Status.Left != 0 || *account.Status.Zones[0].Left != 0 {
		t.Errorf("the account itself is changed: %+v", account.Status)
	}
	if none := AdvanceDay(&v1alpha1.EdgeOneAccount{}, began); none.Status.Left != nil || !none.Status.DayStartTime.IsZero() {
		t.Errorf("without a day: %+v", none.Status)
	}
}
