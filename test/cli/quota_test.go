package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestQuotaShowsAccountsZonesAndTheTasksThatWait(t *testing.T) {
	w := newWorld(t)
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	account.Spec.Credentials.SecretRef.Name = "keys"
	account.Spec.Limits = v1alpha1.AccountLimits{DailyURLs: ptr.To[int32](1000), DailyURLsPerNamespace: ptr.To[int32](100)}
	w.create(account)
	t.Cleanup(func() { _ = w.Delete(context.WithoutCancel(t.Context()), account) })
	began := metav1.NewTime(time.Now().Add(-time.Hour).UTC().Truncate(time.Second))
	account.Status = v1alpha1.EdgeOneAccountStatus{
		ObservedGeneration: account.Generation, DayStartTime: began,
		Used: ptr.To[int32](1000), Left: ptr.To[int32](0),
		Zones:      []v1alpha1.AccountZoneStatus{{ID: smallZone, Daily: ptr.To[int32](3), Left: ptr.To[int32](1), Used: ptr.To[int32](2)}, {ID: zoneID}},
		Namespaces: []v1alpha1.AccountNamespaceStatus{{Name: w.namespace, Used: ptr.To[int32](40)}},
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted, LastTransitionTime: metav1.Now()}},
	}
	w.must(w.Status().Update(t.Context(), account))
	w.create(w.task("held", good+"1", good+"2"), w.task("free", good))
	w.setStatus("held", func(task *v1alpha1.PrefetchTask) {
		taskstate.ReportWaiting(taskstate.WaitingStatus{
			Task: task, Cause: taskstate.Cause{Reason: v1alpha1.ReasonDailyQuota, Message: "No quota", Quota: true},
			NextAttempt: time.Date(2026, 11, 29, 16, 0, 0, 0, time.UTC),
		}, time.Now())(task)
	})
	r := w.run("quota", w.namespace)
	name := w.namespace + "   "
	pad := strings.Repeat(" ", len(w.namespace)-len("NAMESPACE")+3)
	day := began.Format(time.RFC3339) + "   True\n"
	r.is(t, 0, "ACCOUNT"+strings.Repeat(" ", len(w.namespace)-len("ACCOUNT")+3)+"FOR                   QUOTA   LEFT   USED   DAY BEGAN              READY\n"+
		name+"all zones             1000    0      1000   "+day+
		name+"namespace "+w.namespace+"   100     60     40     "+day+
		name+"zone-3smallquota0     3       1      2      "+day+
		name+"zone-2x9examplea      -       -      -      "+day+"\n"+
		"NAMESPACE"+pad+"TASK   ZONE               WAITS FOR    URLS WAITING   NEXT ATTEMPT\n"+
		name+"held   zone-2x9examplea   DailyQuota   2              2026-11-29T16:00:00Z\n", "")
	var got cli.QuotaResult
	w.must(json.Unmarshal([]byte(w.run("quota", w.namespace, "-o", "json").out), &got))
	if len(got.Accounts) != 1 || *got.Accounts[0].Budget.Left != 0 || *got.Accounts[0].NamespaceBudget.Left != 60 || len(got.HeldTasks) != 1 ||
		got.HeldTasks[0].NextAttemptTime != "2026-11-29T16:00:00Z" || got.HeldTasks[0].Namespace != w.namespace {
		t.Errorf("%+v", got)
	}
	account.Status.DayStartTime.Time = began.Add(-48 * time.Hour) // the operator has written nothing since
	w.must(w.Status().Update(t.Context(), account))
	w.must(json.Unmarshal([]byte(w.run("quota", w.namespace, "-o", "json").out), &got))
	if a := got.Accounts[0]; !a.DayStartTime.Equal(began.Time) || *a.Budget.Left != 1000 || *a.NamespaceBudget.Left != 100 || *a.Zones[0].Left != 3 || *a.Zones[0].Used != 0 {
		t.Errorf("on a later day: %+v", a)
	}
	w.run("quota", "none").is(t, 1, "", "Error: there is no EdgeOneAccount \"none\": check the name\n")
}
