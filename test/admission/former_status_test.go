package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// formerStatus is a status as a former version of the operator wrote it.
const formerStatus = `{"observedGeneration":1,"run":"0123","refusedTargets":"2",
	"jobs":[{"id":"job-1","claimID":"claim-1","submitTime":"2026-01-01T00:00:00Z","targets":"0-1","retried":"1"}],
	"submission":{"claimID":"claim-2","zoneID":"zone-1","accountHash":"ab","signedAt":"2026-01-01T00:00:00Z","targets":"3"}}`

// patchStatus writes a status as JSON, past the Go types.
func patchStatus(ctx context.Context, c client.Client, task *v1alpha1.PrefetchTask, status string) error {
	return c.Status().Patch(ctx, task, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"status":%s}`, status)))
}

// The API server drops fields that the CRD does not have, and validates a whole object at each
// write. An upgrade of the CRD must neither drop the positions in an old status nor refuse what
// users write to the task.
func TestAStatusOfAFormerVersionSurvivesAnUpgradeOfTheCRDAndWritesOfUsers(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	c, ctx := kube.Client, t.Context()
	for name, change := range map[string]func(*v1alpha1.PrefetchTask){
		"label":   func(task *v1alpha1.PrefetchTask) { task.Labels = map[string]string{"team": "web"} },
		"retry":   func(task *v1alpha1.PrefetchTask) { task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"} },
		"suspend": func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) },
		"targets": func(task *v1alpha1.PrefetchTask) { task.Spec.Targets = append(task.Spec.Targets, "https://h/new") },
		"ttl":     func(task *v1alpha1.PrefetchTask) { task.Spec.TTLSecondsAfterFinished = 60 },
	} {
		t.Run(name, func(t *testing.T) {
			task := newTask("former-"+name, "https://h/0", "https://h/1", "https://h/2", "https://h/3")
			if err := c.Create(ctx, task); err != nil {
				t.Fatal(err)
			}
			if err := patchStatus(ctx, c, task, formerStatus); err != nil {
				t.Fatalf("the manager of a former version cannot write: %v", err)
			}
			before := task.DeepCopy()
			change(task)
			if err := c.Patch(ctx, task, client.MergeFrom(before)); err != nil {
				t.Fatalf("a user cannot write: %v", err)
			}
			if err := c.Get(ctx, client.ObjectKeyFromObject(task), task); err != nil {
				t.Fatal(err)
			}
			s := task.Status
			if len(s.Jobs) != 1 || s.Submission == nil || s.Jobs[0].FormerTargets != "0-1" || s.Jobs[0].FormerRetried != "1" ||
				s.Submission.FormerTargets != "3" || s.FormerRefusedTargets != "2" {
				t.Errorf("the API server dropped positions: %+v", s)
			}
		})
	}
}

func TestAJobAndAClaimMustHavePositions(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	c, ctx := kube.Client, t.Context()
	present := strings.NewReplacer(`"targets"`, `"positions"`, `"retried"`, `"retriedPositions"`, `"refusedTargets"`, `"refusedPositions"`).Replace(formerStatus)
	task := newTask("positions", "https://h/0", "https://h/1", "https://h/2", "https://h/3")
	if err := c.Create(ctx, task); err != nil {
		t.Fatal(err)
	}
	if err := patchStatus(ctx, c, task, present); err != nil {
		t.Fatal(err)
	}
	if s, _ := json.Marshal(task.Status); strings.Count(string(s), "ositions") != 4 {
		t.Errorf("the status is %s", s)
	}
	for said, positions := range map[string]string{
		"status.jobs[0]: Invalid value: must have positions":    `"positions":"0-1"`,
		"status.submission: Invalid value: must have positions": `"positions":"3"`,
	} {
		err := patchStatus(ctx, c, newTask("positions"), strings.Replace(present, positions, `"positions":null`, 1))
		if err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("the error is %v, want %q", err, said)
		}
	}
}
