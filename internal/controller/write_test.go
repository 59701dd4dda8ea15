package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// outage is an API server that answers nothing until a time, and then all.
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

// live reads what outage holds.
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
		claim(v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-1", Targets: "0"}, time.Now())(task)
		o := &outage{until: time.Now().Add(10 * time.Minute), task: task}
		s := newStore(o, live{outage: o}, time.Second)
		s.settle(t.Context(), task, "c", record("job", nil, time.Now()))
		if o.written == nil || len(o.written.Status.Jobs) != 1 || o.written.Status.Submission != nil {
			t.Errorf("not recorded: %+v", o.written)
		}
	})
}
