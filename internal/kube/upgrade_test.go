package kube

import (
	"context"
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// formerTask returns a task whose status a former version of the operator wrote.
func formerTask() *v1alpha1.PrefetchTask {
	return &v1alpha1.PrefetchTask{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "release", UID: "uid", ResourceVersion: "7"},
		Spec:       v1alpha1.PrefetchTaskSpec{ZoneID: "zone-1", Targets: []v1alpha1.Target{"https://h/0", "https://h/1", "https://h/2", "https://h/3"}},
		Status: v1alpha1.PrefetchTaskStatus{
			Jobs:                 []v1alpha1.Job{{ID: "job-1", ClaimID: "claim-1", FormerTargets: "0-1", FormerRetried: "1"}},
			Submission:           &v1alpha1.Submission{ClaimID: "claim-2", ZoneID: "zone-1", FormerTargets: "3"},
			FormerRefusedTargets: "2",
		},
	}
}

// upgradedStatus returns the status of formerTask in the present fields.
func upgradedStatus() v1alpha1.PrefetchTaskStatus {
	return v1alpha1.PrefetchTaskStatus{
		Jobs:             []v1alpha1.Job{{ID: "job-1", ClaimID: "claim-1", Positions: "0-1", RetriedPositions: "1"}},
		Submission:       &v1alpha1.Submission{ClaimID: "claim-2", ZoneID: "zone-1", Positions: "3"},
		RefusedPositions: "2",
	}
}

// seenByRecorder records the versions that a JobRecorder sees.
type seenByRecorder struct{ tasks []*v1alpha1.PrefetchTask }

func (s *seenByRecorder) ObserveTask(task *v1alpha1.PrefetchTask) {
	s.tasks = append(s.tasks, task.DeepCopy())
}
func (*seenByRecorder) MayStillBeSeen(*v1alpha1.PrefetchTask) bool { return false }

// onePage lists one page with the task of a former version.
type onePage struct {
	toolscache.ListerWatcherWithContext
}

func (onePage) ListWithContext(context.Context, metav1.ListOptions) (runtime.Object, error) {
	return &v1alpha1.PrefetchTaskList{Items: []v1alpha1.PrefetchTask{*formerTask()}}, nil
}

// An operator that read an old status without its positions would submit the URLs again.
func TestAStatusOfAFormerVersionIsUpgradedWhereverATaskComesFrom(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	server := fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
			formerTask().DeepCopyInto(obj.(*v1alpha1.PrefetchTask))
			return nil
		},
		SubResourceUpdate: func(_ context.Context, _ client.Client, _ string, obj client.Object, _ ...client.SubResourceUpdateOption) error {
			formerTask().DeepCopyInto(obj.(*v1alpha1.PrefetchTask)) // as a webhook of a user could
			return nil
		},
	}).Build()
	recorder := &seenByRecorder{}
	transform := CacheOptions(recorder).DefaultTransform
	versions := NewTaskStore()
	writer := NewStatusWriter(server, server, versions, time.Second, nil)

	for name, read := range map[string]func() (*v1alpha1.PrefetchTask, error){
		"the watch": func() (*v1alpha1.PrefetchTask, error) {
			kept, err := transform(formerTask())
			return kept.(*v1alpha1.PrefetchTask), err
		},
		"a page of a list": func() (*v1alpha1.PrefetchTask, error) {
			list, err := pagedLister{onePage{}, transform}.ListWithContext(t.Context(), metav1.ListOptions{})
			return list.(*metav1.List).Items[0].Object.(*v1alpha1.PrefetchTask), err
		},
		"what the cache records of jobs": func() (*v1alpha1.PrefetchTask, error) {
			recorder.tasks = nil
			_, err := transform(formerTask())
			return recorder.tasks[0], err
		},
		"a live read": func() (*v1alpha1.PrefetchTask, error) { return writer.ReadTask(t.Context(), formerTask()) },
		"the response to a status write": func() (*v1alpha1.PrefetchTask, error) {
			task := formerTask()
			NormalizeTask(task)
			return writer.WriteStatus(t.Context(), task, func(task *v1alpha1.PrefetchTask) { task.Status.LostCalls++ })
		},
	} {
		t.Run(name, func(t *testing.T) {
			task, err := read()
			if err != nil {
				t.Fatal(err)
			}
			if want := upgradedStatus(); !reflect.DeepEqual(task.Status, want) {
				t.Errorf("the status is\n%+v, want\n%+v", task.Status, want)
			}
		})
	}
}

// A write moves the positions to the present fields, and leaves nothing in the former ones.
func TestAWriteMovesTheFormerFieldsOfAStatus(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	stored := formerTask()
	stored.ResourceVersion = ""
	server := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(stored).WithObjects(stored).Build()
	writes := 0
	counting := interceptor.NewClient(server, interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, name string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			writes++
			return c.SubResource(name).Update(ctx, obj, opts...)
		},
	})
	writer := NewStatusWriter(counting, server, NewTaskStore(), time.Second, nil)
	task, err := writer.ReadTask(t.Context(), stored)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteStatus(t.Context(), task, func(*v1alpha1.PrefetchTask) {}); err != nil || writes > 0 {
		t.Errorf("a status with nothing new is written %d times, %v", writes, err)
	}
	if _, err := writer.WriteStatus(t.Context(), task, func(task *v1alpha1.PrefetchTask) { task.Status.LostCalls = 1 }); err != nil {
		t.Fatal(err)
	}
	now := &v1alpha1.PrefetchTask{}
	if err := server.Get(t.Context(), client.ObjectKeyFromObject(stored), now); err != nil {
		t.Fatal(err)
	}
	want := upgradedStatus()
	want.LostCalls = 1
	if !reflect.DeepEqual(now.Status, want) {
		t.Errorf("the status is\n%+v, want\n%+v", now.Status, want)
	}
}
