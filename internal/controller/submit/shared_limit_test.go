package submit

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// farAway delays each answer.
func farAway(way http.RoundTripper, delay time.Duration) controllertest.RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := way.RoundTrip(req)
		time.Sleep(delay)
		return resp, err
	}
}

// Two Secrets can contain the same key. Each Secret has its own account queue, and both queues
// share the rate limit of the key.
func TestALineIsWokenByTheAnswersToAnotherLinesCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, controllertest.NewTask("a", 1))
		s, l := submitterOf(u, u.ReadTask("a"))
		due := priorityqueue.New[taskstate.AccountKey]("accounts")
		defer due.ShutDown()
		s.UseQueue(due)
		drain := func() (woken int) {
			for ; due.Len() > 0; woken++ {
				a, _ := due.Get()
				due.Done(a)
			}
			return woken
		}
		u.LearnTime()
		l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
		limiter := u.EdgeOne.Limiter(controllertest.Creds, teo.ActionCreatePrefetchTask)
		time.Sleep(3 * time.Second)
		var slots []*teo.Slot // of another queue's calls, whose answers take long
		for range u.QPS {
			slot, err := limiter.Wait(t.Context(), teo.Turn{Line: "another"})
			if err != nil {
				t.Fatal(err)
			}
			slots = append(slots, slot)
		}
		for again := time.Duration(1); again > 0; time.Sleep(again) { // until all waiting statuses are written
			result, err := s.Reconcile(t.Context(), taskstate.AccountKey{})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			again = result.RequeueAfter
		}
		time.Sleep(time.Minute)
		if len(u.ReadTask("a").Status.Jobs) > 0 {
			t.Fatal("it was submitted without a slot")
		}
		synctest.Wait()
		drain()
		slots[0].Done(false)
		synctest.Wait()
		if drain() == 0 {
			t.Error("a slot will be free soon, and nobody looks")
		}
	})
}

func TestLinesOfOneKeyAreServedInTurnHoweverManyCallsEachHasMade(t *testing.T) {
	for _, earlier := range []int64{0, 1_000_000} {
		t.Run(fmt.Sprint(earlier, " calls before"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily = 1_000_000 })
				defer edgeOne.Close()
				old := controllertest.NewTask("old", 1)
				old.Spec.Targets[0] = "https://h/old"
				tasks := []*v1alpha1.PrefetchTask{old}
				for i := range 400 { // tasks of another Secret, each with its own call
					task := controllertest.NewTask(fmt.Sprint("new-", i), 1)
					task.Spec.Targets[0] = v1alpha1.Target(fmt.Sprintf("https://h/new/%d", i))
					task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "x", Value: fmt.Sprint(i)}}
					task.Spec.CredentialsSecretRef.Name = "b"
					tasks = append(tasks, task)
				}
				u := controllertest.NewUnit(t, farAway(edgeOne.RoundTripper(), 50*time.Millisecond), nil, tasks...)
				s, a := submitterOf(u)
				other := taskstate.AccountKey{Namespace: "default", Secret: "b"}
				secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}, Data: map[string][]byte{
					"secretId": []byte(controllertest.Creds.SecretID), "secretKey": []byte(controllertest.Creds.SecretKey),
				}}
				if err := u.Writer.Create(t.Context(), secret); err != nil {
					t.Fatal(err)
				}
				u.LearnTime()
				b := s.queueFor(other)
				for _, l := range []*accountQueue{a, b} {
					l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
				}
				a.queue.MarkSent(&queue.Call{Sequence: earlier})
				for _, task := range tasks[1:] {
					s.Tasks.ObserveTask(u.ReadTask(task.Name))
				}
				reconcile := func(end time.Time, done func() bool) {
					for time.Now().Before(end) && !done() {
						for _, acc := range []taskstate.AccountKey{other, {}} {
							if _, err := s.Reconcile(t.Context(), acc); err != nil {
								t.Fatal(err)
							}
						}
						time.Sleep(20 * time.Millisecond)
					}
				}
				reconcile(time.Now().Add(3*time.Second), func() bool { return false })
				s.Tasks.ObserveTask(u.ReadTask("old"))
				begin := time.Now()
				reconcile(begin.Add(10*time.Second), func() bool { return len(u.ReadTask("old").Status.Jobs) > 0 })
				if took := time.Since(begin); took > 2*time.Second {
					t.Errorf("the only task of a line was submitted after %v", took)
				}
				reconcile(time.Now().Add(time.Minute), func() bool { return false })
				s.Calls.Wait()
			})
		})
	}
}
