package submit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// tooLargeForEtcd and the next two functions return the errors of an API server for an object
// that is too large: the error of etcd, of the API server's etcd client, and of the API server.
func tooLargeForEtcd() error {
	return apierrors.FromObject(&metav1.Status{Code: http.StatusInternalServerError, Message: "etcdserver: request is too large"})
}

func tooLargeForItsClient() error {
	return apierrors.FromObject(&metav1.Status{Code: http.StatusInternalServerError,
		Message: "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2111065 vs. 2097152)"})
}

func tooLargeForTheAPIServer() error {
	return apierrors.NewRequestEntityTooLargeError("limit is 3145728")
}

// onWrite lets judge refuse status writes. judge gets the stored and the written version.
func onWrite(u *controllertest.Unit, judge func(now, written *v1alpha1.PrefetchTask) error) {
	u.T.Helper()
	inner, ok := u.Writer.Client.(client.WithWatch)
	if !ok {
		u.T.Fatalf("the client is a %T", u.Writer.Client)
	}
	u.Writer.Client = interceptor.NewClient(inner, interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, name string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			now := &v1alpha1.PrefetchTask{}
			if err := c.Get(ctx, client.ObjectKeyFromObject(obj), now); err != nil {
				return err
			}
			if err := judge(now, obj.(*v1alpha1.PrefetchTask)); err != nil {
				return err
			}
			return c.SubResource(name).Update(ctx, obj, opts...)
		},
	})
}

// reconcileFor reconciles the account once a second for a while.
func reconcileFor(u *controllertest.Unit, s *Submitter, d time.Duration) {
	u.T.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		if _, err := s.Reconcile(u.T.Context(), taskstate.AccountKey{}); err != nil {
			u.T.Fatal(err)
		}
	}
}

// pair returns a task whose writes fail, and a task in the same lane that is a second younger.
func pair() (bad, good *v1alpha1.PrefetchTask) {
	bad, good = controllertest.NewTask("bad", 1), controllertest.NewTask("good", 1)
	bad.Generation, good.Generation = 1, 1
	good.Spec.Targets[0] = "https://h/good"
	bad.CreationTimestamp = metav1.NewTime(time.Now())
	good.CreationTimestamp = metav1.NewTime(time.Now().Add(time.Second))
	return bad, good
}

// If the API server refuses to store the outcome of a task's call, no other task waits. The
// outcome is written once the API server accepts it.
func TestARecordThatIsNotTakenKeepsNobodyElseWaiting(t *testing.T) {
	for name, trouble := range map[string]error{
		"too large for etcd":            tooLargeForEtcd(),
		"too large for etcd's client":   tooLargeForItsClient(),
		"too large for the API server":  tooLargeForTheAPIServer(),
		"invalid by the rules of today": apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("PrefetchTask").GroupKind(), "bad", nil),
		"forbidden by a policy":         apierrors.NewForbidden(controllertest.PrefetchTasks, "bad", errors.New("policy")),
		"an error of a webhook":         apierrors.NewInternalError(errors.New("failed calling webhook")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(nil)
				defer edgeOne.Close()
				bad, good := pair()
				u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, bad, good)
				refused, mended := 0, false
				var mu sync.Mutex
				onWrite(u, func(now, _ *v1alpha1.PrefetchTask) error {
					mu.Lock()
					defer mu.Unlock()
					if now.Name == "bad" && now.Status.Submission != nil && !mended {
						refused++
						return trouble
					}
					return nil
				})
				s, l := submitterOf(u, u.ReadTask("bad"))
				l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
				u.LearnTime()
				reconcileFor(u, s, 2*time.Second)
				s.Tasks.ObserveTask(u.ReadTask("good"))
				reconcileFor(u, s, 5*time.Second)
				if n := len(u.ReadTask("good").Status.Jobs); n != 1 {
					t.Fatalf("5 s later the other task has %d jobs and is %s", n, taskstate.ReadyReason(u.ReadTask("good")))
				}
				reconcileFor(u, s, time.Hour)
				mu.Lock()
				if kube.IsRefused(trouble) && refused > 20 {
					t.Errorf("%d writes were refused in an hour", refused)
				}
				mended = true
				mu.Unlock()
				edited := u.ReadTask("bad")
				edited.Labels = map[string]string{"mended": "yes"}
				if err := u.Writer.Client.Update(t.Context(), edited); err != nil {
					t.Fatal(err)
				}
				s.Tasks.ObserveTask(u.ReadTask("bad"))
				// Two tries are at most 12 s apart. The first may get a conflict because
				// of the edit.
				reconcileFor(u, s, 15*time.Second)
				if status := u.ReadTask("bad").Status; status.Submission != nil || len(status.Jobs) != 1 {
					t.Errorf("the answer is not recorded: %+v", status)
				}
				if n := edgeOne.Executed("https://h/0"); n != 1 {
					t.Errorf("submitted %d times", n)
				}
			})
		})
	}
}

// If the API server refuses a task's claim, the task loses its turn. Nothing is sent for it until
// the task changes. The status reports the cause if the API server accepts that write.
func TestAClaimThatIsNotTakenKeepsNobodyElseWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		trouble error
		reason  string
	}{
		"too large for etcd":    {tooLargeForEtcd(), v1alpha1.ReasonTooLarge},
		"forbidden by a policy": {apierrors.NewForbidden(controllertest.PrefetchTasks, "bad", errors.New("policy")), v1alpha1.ReasonUnavailable},
		"an error of a webhook": {apierrors.NewInternalError(errors.New("failed calling webhook")), v1alpha1.ReasonUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(nil)
				defer edgeOne.Close()
				bad, good := pair()
				u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, bad, good)
				refused := 0
				var mu sync.Mutex
				onWrite(u, func(now, written *v1alpha1.PrefetchTask) error {
					mu.Lock()
					defer mu.Unlock()
					if now.Name == "bad" && written.Status.Submission != nil && now.Labels == nil {
						refused++
						return c.trouble
					}
					return nil
				})
				s, l := submitterOf(u, u.ReadTask("bad"))
				l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
				u.LearnTime()
				reconcileFor(u, s, 30*time.Second)
				s.Tasks.ObserveTask(u.ReadTask("good"))
				reconcileFor(u, s, 5*time.Second)
				if n := len(u.ReadTask("good").Status.Jobs); n != 1 {
					t.Fatalf("5 s later the other task has %d jobs and is %s", n, taskstate.ReadyReason(u.ReadTask("good")))
				}
				reconcileFor(u, s, time.Hour)
				now := u.ReadTask("bad")
				if n := edgeOne.Executed("https://h/0"); n != 0 || taskstate.ReadyReason(now) != c.reason || refused > 150 {
					t.Errorf("submitted %d times, %s, %d claims refused", n, controllertest.Summary(now), refused)
				}
				if kube.IsRefused(c.trouble) && (!taskstate.IsStalledFor(now, c.reason) || refused > 20) {
					t.Errorf("%s after %d refused claims", controllertest.Summary(now), refused)
				}
				now.Labels = map[string]string{"mended": "yes"}
				if err := u.Writer.Client.Update(t.Context(), now); err != nil {
					t.Fatal(err)
				}
				s.Tasks.ObserveTask(u.ReadTask("bad"))
				reconcileFor(u, s, 5*time.Second)
				if now := u.ReadTask("bad"); len(now.Status.Jobs) != 1 || taskstate.IsStalledFor(now, c.reason) {
					t.Errorf("it is mended, and is %s", controllertest.Summary(now))
				}
			})
		})
	}
}

// etcd refuses writes of objects larger than room, in bytes.
func etcd(room int) func(now, written *v1alpha1.PrefetchTask) error {
	return func(now, written *v1alpha1.PrefetchTask) error {
		stored := now.DeepCopy()
		stored.Status = written.Status
		if taskstate.JSONSize(stored) > room {
			return tooLargeForEtcd()
		}
		return nil
	}
}

// longURLs changes the URLs of a task to the given host and length.
func longURLs(task *v1alpha1.PrefetchTask, host string, length int) *v1alpha1.PrefetchTask {
	for i := range task.Spec.Targets {
		u := fmt.Sprintf("https://%s/%05d", host, i)
		task.Spec.Targets[i] = v1alpha1.Target(u + strings.Repeat("x", length-len(u)))
	}
	return task
}

// EdgeOne refuses all targets of these lists, and etcd has little room to record the refusals.
func TestAListThatIsRefusedWholeFinishesWithExactCounts(t *testing.T) {
	for name, c := range map[string]struct {
		task *v1alpha1.PrefetchTask
		left int // room in etcd in addition to the object as created, in bytes
	}{
		"723 URLs of 2,000 characters":             {longURLs(controllertest.NewTask("bad", 723), "h", 2000), 100 << 10},
		"723 URLs, and hardly any room":            {longURLs(controllertest.NewTask("bad", 723), "h", 2000), 5 << 10},
		"10,000 URLs of a host that is not there":  {longURLs(controllertest.NewTask("bad", 10_000), "not-in-this-zone.example", 152), 15 << 10},
		"1,000 of them, and room for no URL":       {longURLs(controllertest.NewTask("bad", 1000), "not-in-this-zone.example", 152), 3 << 10},
		"100 of them, all of which can be named":   {longURLs(controllertest.NewTask("bad", 100), "not-in-this-zone.example", 152), 1 << 20},
		"100 of 900 Chinese characters, escaped &": {longURLs(controllertest.NewTask("bad", 100), "h/"+strings.Repeat("页&", 450), 2000), 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) {
					c.Rules = []simulator.Rule{{URL: "h/", Refuse: strings.Repeat("why ", 100)}}
				})
				defer edgeOne.Close()
				u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, c.task)
				onWrite(u, etcd(taskstate.JSONSize(c.task)+c.left))
				s, l := submitterOf(u, u.ReadTask("bad"))
				l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
				u.LearnTime()
				reconcileFor(u, s, 2*time.Minute)
				now := u.ReadTask("bad")
				n := len(c.task.Spec.Targets)
				finished := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionFinished)
				if finished == nil || finished.Reason != v1alpha1.ReasonFailed || int(*now.Status.Targets.Failed) != n {
					t.Fatalf("%s, %+v", controllertest.Summary(now), now.Status.Targets)
				}
				for i, failed := range now.Status.FailedTargets {
					if failed.URL != string(now.Spec.Targets[i]) {
						t.Errorf("the failed target %d is %s", i, failed.URL)
					}
				}
				if got := len(now.Status.FailedTargets); c.left == 1<<20 && (got == 0 || taskstate.JSONSize(now.Status) > taskstate.MaxStatus) || got > 100 {
					t.Errorf("%d failed targets are named in %d bytes", got, taskstate.JSONSize(now.Status))
				}
			})
		})
	}
}
