package queue

import (
	"testing"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

// Fields that do not affect how targets are fetched do not affect which calls a task
// shares.
func TestTheLaneOfATaskFollowsHowItsTargetsAreFetched(t *testing.T) {
	tests := []struct {
		name    string
		edit    func(*v1alpha1.PrefetchTask)
		changes bool
	}{
		{"suspend", func(p *v1alpha1.PrefetchTask) { p.Spec.Suspend = ptr.To(true) }, false},
		{"credentials", func(p *v1alpha1.PrefetchTask) { p.Spec.CredentialsSecretRef.Name = "other" }, false},
		{"labels", func(p *v1alpha1.PrefetchTask) { p.Labels = map[string]string{"a": "b"} }, false},
		{"the order of headers", func(p *v1alpha1.PrefetchTask) {
			h := p.Spec.Headers
			p.Spec.Headers = []v1alpha1.HTTPHeader{h[1], h[0]}
		}, false},
		{"a default spelled out", func(p *v1alpha1.PrefetchTask) {
			p.Spec.Mode, p.Spec.MediaSegments = v1alpha1.ModeDefault, v1alpha1.MediaSegmentsIgnore
		}, false},
		{"a target listed again", func(p *v1alpha1.PrefetchTask) { p.Spec.Targets = append(p.Spec.Targets, p.Spec.Targets[0]) }, false},
		{"another zone", func(p *v1alpha1.PrefetchTask) { p.Spec.ZoneID = "zone-2" }, true},
		{"encodeURL", func(p *v1alpha1.PrefetchTask) { p.Spec.EncodeURL = ptr.To(false) }, true},
		{"the mode", func(p *v1alpha1.PrefetchTask) { p.Spec.Mode = v1alpha1.ModeEdge }, true},
		{"the value of a header", func(p *v1alpha1.PrefetchTask) { p.Spec.Headers[0].Value = "x" }, true},
		{"media segments", func(p *v1alpha1.PrefetchTask) { p.Spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 3)...)
			a.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "B", Value: "1"}, {Name: "A", Value: "2"}}
			b := a.DeepCopy()
			tt.edit(b)
			if changes := newWorld(t).q.batchKeyOf(a) != newWorld(t).q.batchKeyOf(b); changes != tt.changes {
				t.Errorf("it changes the lane: %v", changes)
			}
		})
	}
}
