package taskstate_test

import (
	"reflect"
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestFormerFieldsOfAStatusCountUnlessThePresentOnesAreSet(t *testing.T) {
	type status = v1alpha1.PrefetchTaskStatus
	for _, c := range []struct {
		name      string
		was, want status
	}{
		{"nothing submitted", status{Run: "r"}, status{Run: "r"}},
		{"refused", status{FormerRefusedTargets: "1-2"}, status{RefusedPositions: "1-2"}},
		{"several jobs",
			status{Jobs: []v1alpha1.Job{{ID: "1", FormerTargets: "0-2", FormerRetried: "1"}, {ID: "2", FormerTargets: "1"}}},
			status{Jobs: []v1alpha1.Job{{ID: "1", Positions: "0-2", RetriedPositions: "1"}, {ID: "2", Positions: "1"}}}},
		{"a claim", status{Submission: &v1alpha1.Submission{FormerTargets: "7"}}, status{Submission: &v1alpha1.Submission{Positions: "7"}}},
		{"both",
			status{
				FormerRefusedTargets: "9", RefusedPositions: "1",
				Jobs:       []v1alpha1.Job{{FormerTargets: "9", Positions: "2", FormerRetried: "9", RetriedPositions: "2"}},
				Submission: &v1alpha1.Submission{FormerTargets: "9", Positions: "3"},
			},
			status{
				RefusedPositions: "1",
				Jobs:             []v1alpha1.Job{{Positions: "2", RetriedPositions: "2"}},
				Submission:       &v1alpha1.Submission{Positions: "3"},
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.was.DeepCopy()
			taskstate.UpgradeStatus(got)
			if !reflect.DeepEqual(*got, c.want) {
				t.Errorf("the status is\n%+v, want\n%+v", *got, c.want)
			}
		})
	}
}
