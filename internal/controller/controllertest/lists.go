package controllertest

import (
	"context"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// ConfigMaps reads ConfigMaps with one key each, "urls". A read takes a second and returns the
// content at its start.
type ConfigMaps struct {
	client.Reader
	mu    sync.Mutex
	Texts map[string]string
	reads int
}

// Put stores the text of a ConfigMap.
func (c *ConfigMaps) Put(name, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Texts[name] = text
}

// Get reads a ConfigMap.
func (c *ConfigMaps) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	c.mu.Lock()
	text, ok := c.Texts[key.Name]
	c.reads++
	c.mu.Unlock()
	time.Sleep(time.Second)
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("configmaps"), key.Name)
	}
	obj.(*corev1.ConfigMap).Data = map[string]string{"urls": text}
	return nil
}

// ListUnit is an operator that takes targets from ConfigMaps. Fed holds, by name, the newest
// version of each task that got its targets.
type ListUnit struct {
	*Unit
	*ConfigMaps
	Fed map[string]*v1alpha1.PrefetchTask
}

// NewListUnit returns an operator with these tasks and no ConfigMaps.
func NewListUnit(t *testing.T, tasks ...*v1alpha1.PrefetchTask) *ListUnit {
	lists := &ConfigMaps{Texts: map[string]string{}}
	u := &ListUnit{NewUnitReading(t, nil, nil, lists, tasks...), lists, map[string]*v1alpha1.PrefetchTask{}}
	u.Tasks.Subscribe(func(_, task *v1alpha1.PrefetchTask) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if task != nil && !taskstate.IsUnresolved(task) {
			u.Fed[task.Name] = task
		}
	})
	return u
}

// Seen returns the number of reads of ConfigMaps, and the tasks that got their targets.
func (u *ListUnit) Seen() (reads int, fed map[string]*v1alpha1.PrefetchTask) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reads, maps.Clone(u.Fed)
}

// Pass advances the time, and waits until all goroutines of the bubble are blocked.
func Pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ListTask returns a new task that takes its targets from a ConfigMap.
func ListTask(name, configMap string) *v1alpha1.PrefetchTask {
	task := NewTask(name, 0)
	task.Generation = 1
	task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: configMap, Key: "urls"}
	return task
}
