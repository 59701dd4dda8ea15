package controller

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// outage is an API server that fails every request before a given time, and none after it.
type outage struct {
	client.Client
	until   time.Time
	task    *v1alpha1.PrefetchTask
	written *v1alpha1.PrefetchTask
}

func (o *outage) Status() client.SubResourceWriter { return status{outage: o} }

type status struct {
	client.SubResourceWriter
	*outage
}

func (o status) Update(_ context.Context, obj client.Object, _ ...client.SubResourceUpdateOption) error {
	if time.Now().Before(o.until) {
		return errors.New("no API server")
	}
	o.outage.written = obj.(*v1alpha1.PrefetchTask)
	return nil
}

// live reads the task of outage.
type live struct{ *outage }

func (l live) Get(_ context.Context, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if time.Now().Before(l.until) {
		return errors.New("no API server")
	}
	l.task.DeepCopyInto(obj.(*v1alpha1.PrefetchTask))
	return nil
}

func (l live) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("not asked for")
}

func TestAJobIDIsRecordedHoweverLongTheAPIServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", UID: "u"}}
		task.Spec = v1alpha1.PrefetchTaskSpec{ZoneID: "zone-1", Targets: []v1alpha1.Target{"https://a/"}}
		taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-1", Positions: "0"}, time.Now())(task)
		o := &outage{until: time.Now().Add(10 * time.Minute), task: task}
		s := kube.NewStatusWriter(o, live{outage: o}, kube.NewTaskStore(), time.Second, nil)
		_, err := s.SettleClaim(t.Context(), task, "c", taskstate.RecordJob("job", nil, time.Now()), kube.UnlimitedTries)
		if err != nil {
			t.Error(err)
		}
		if o.written == nil || len(o.written.Status.Jobs) != 1 || o.written.Status.Submission != nil {
			t.Errorf("not recorded: %+v", o.written)
		}
	})
}

// A task's targets and managed fields can have a megabyte, but the API server uses only the
// status of a status write.
func TestAStatusWriteSendsTheStatusAndWhatLocksItAlone(t *testing.T) {
	server := newAPIServer()
	server.onStatus = func(_, _ *v1alpha1.PrefetchTask) {}
	task := controllertest.NewTask("a", 3)
	task.Labels, task.Annotations = map[string]string{"app": "shop"}, map[string]string{v1alpha1.RetryAnnotation: "1"}
	task.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl", Operation: metav1.ManagedFieldsOperationApply}}
	task = server.create(task)
	var sent map[string]any
	cfg := &rest.Config{
		Host:          "http://apiserver",
		ContentConfig: rest.ContentConfig{ContentType: kruntime.ContentTypeJSON, AcceptContentTypes: kruntime.ContentTypeJSON},
		Transport: controllertest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(req.Body)
			if err = errors.Join(err, json.Unmarshal(body, &sent)); err != nil {
				return nil, err
			}
			object, err := server.updateStatus(client.ObjectKeyFromObject(task), body)
			return answer(req, object, err), nil
		}),
	}
	restMapper, err := mapper(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme, Mapper: restMapper})
	if err != nil {
		t.Fatal(err)
	}
	written, err := kube.NewStatusWriter(c, c, kube.NewTaskStore(), time.Minute, nil).WriteStatus(t.Context(), task, controllertest.Claiming("0-2"))
	if err != nil || !kube.IsClaimedBy(server.get(client.ObjectKeyFromObject(task)), "c-0-2") || len(written.Spec.Targets) != 3 {
		t.Fatalf("written: %+v, %v", written, err)
	}
	metadata, _ := sent["metadata"].(map[string]any)
	for what, has := range map[string][2][]string{
		"object":   {slices.Sorted(maps.Keys(sent)), {"apiVersion", "kind", "metadata", "status"}},
		"metadata": {slices.Sorted(maps.Keys(metadata)), {"name", "namespace", "resourceVersion", "uid"}},
	} {
		if !slices.Equal(has[0], has[1]) {
			t.Errorf("the %s that is sent has %q, want %q alone", what, has[0], has[1])
		}
	}
}

// errAway means that the outcome of a write is unknown.
var errAway = errors.New("no answer")

func TestAStatusWriteLosesToOneThatWasNotSeen(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil, controllertest.NewTask("a", 1))
	stale := u.ReadTask("a")
	if _, err := u.Writer.WriteStatus(t.Context(), u.ReadTask("a"), controllertest.Claiming("0")); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Writer.WriteStatus(t.Context(), stale, taskstate.OutcomeUnknown("stale", true)); !apierrors.IsConflict(err) {
		t.Errorf("a write over one that was not seen gives %v", err)
	}
	submission := v1alpha1.Submission{ClaimID: "mine", ZoneID: controllertest.Zone, Positions: "0", SignedAt: metav1.NewTime(controllertest.T0)}
	if _, err := u.Writer.WriteClaim(t.Context(), stale, submission, taskstate.ClaimTargets(submission, controllertest.T0)); !errors.Is(err, kube.ErrStale) {
		t.Errorf("a claim on a stale copy gives %v", err)
	}
	if now := u.ReadTask("a"); !kube.IsClaimedBy(now, "c-0") || taskstate.ReadyReason(now) != v1alpha1.ReasonSubmitting {
		t.Errorf("the status is %+v", now.Status)
	}
}

func TestAClaimThatWasNotAcknowledgedIsTakenBack(t *testing.T) {
	first := true
	u := controllertest.NewUnit(t, nil, func(write func() error) error {
		err := write()
		if first {
			first, err = false, errAway
		}
		return err
	}, controllertest.NewTask("a", 1))
	submission := v1alpha1.Submission{ClaimID: "mine", ZoneID: controllertest.Zone, Positions: "0", SignedAt: metav1.NewTime(controllertest.T0)}
	task, err := u.Writer.WriteClaim(t.Context(), u.ReadTask("a"), submission, taskstate.ClaimTargets(submission, controllertest.T0))
	if !errors.Is(err, errAway) || task.Status.Submission != nil {
		t.Errorf("the claim is taken for made: %v, %+v", err, task.Status.Submission)
	}
	if now := u.ReadTask("a"); now.Status.Submission != nil || now.Status.LostCalls != 0 {
		t.Errorf("the claim stays: %+v", now.Status)
	}
}

func TestAnAnswerIsRecordedUnderItsOwnClaimOnly(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil, controllertest.NewTask("a", 1))
	old, err := u.Writer.WriteStatus(t.Context(), u.ReadTask("a"), controllertest.Claiming("0"))
	if err != nil {
		t.Fatal(err)
	}
	newer := v1alpha1.Submission{ClaimID: "of the new run", ZoneID: controllertest.Zone, Positions: "0", SignedAt: metav1.NewTime(controllertest.T0)}
	if _, err := u.Writer.WriteStatus(t.Context(), u.ReadTask("a"), taskstate.ClaimTargets(newer, controllertest.T0)); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Writer.SettleClaim(t.Context(), old, "c-0", taskstate.RecordJob("job", nil, controllertest.T0), kube.UnlimitedTries); err != nil {
		t.Error(err)
	}
	if now := u.ReadTask("a"); !kube.IsClaimedBy(now, "of the new run") || len(now.Status.Jobs) > 0 {
		t.Errorf("recorded: %+v", now.Status)
	}
}

func TestATaskMadeAgainUnderItsNameIsAnotherOne(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil, controllertest.NewTask("a", 1))
	old := u.ReadTask("a")
	again := controllertest.NewTask("a", 1)
	again.UID = "another"
	if err := errors.Join(u.Writer.Delete(t.Context(), old), u.Writer.Create(t.Context(), again)); err != nil {
		t.Fatal(err)
	}
	if now, err := u.Writer.ReadTask(t.Context(), old); now != nil || err != nil {
		t.Errorf("read %v, %v", now, err)
	}
}
