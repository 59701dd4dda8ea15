package submit

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
)

func TestTargetsAreSentEncodedOnce(t *testing.T) {
	const written = "https://例え.jp/中 %e4?q=é#top"
	for _, tt := range []struct {
		name   string
		encode *bool
		want   string
	}{
		{"by the operator", nil, "https://xn--r8jz45g.jp/%E4%B8%AD%20%e4?q=%C3%A9"},
		{"by the operator, as EdgeOne is told not to", ptr.To(false), "https://xn--r8jz45g.jp/%E4%B8%AD%20%e4?q=%C3%A9"},
		{"by EdgeOne, as the task asks", ptr.To(true), "https://xn--r8jz45g.jp/中 %e4?q=é"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent []string
				edgeOne := seen(func(_ *http.Request, targets []string) (string, error) {
					sent = targets
					return `{"Response":{"JobId":"job-1","FailedList":[],"RequestId":"r"}}`, nil
				})
				task := controllertest.NewTask("a", 0)
				task.Spec.Targets, task.Spec.EncodeURL = []v1alpha1.Target{written}, tt.encode
				u := controllertest.NewUnit(t, edgeOne, nil, task)
				s, l := submitterOf(u, u.ReadTask("a"))
				s.newAttempt(l, controllertest.Creds, planNext(u, l), "mine").run(context.Background())
				if !slices.Equal(sent, []string{tt.want}) {
					t.Errorf("EdgeOne was asked for %q, want %q", sent, tt.want)
				}
			})
		})
	}
}

// The call contains one spelling of a URL. This hands over all spellings, also those of other
// tasks in the call, and its outcome applies to all of them.
func TestTheFirstSpellingOfAURLIsSentForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		edgeOne := seen(func(_ *http.Request, targets []string) (string, error) {
			sent = append(sent, targets...)
			return `{"Response":{"JobId":"job-1","FailedList":[{"Reason":"no","Targets":["https://h/%E4%B8%AD"]}],"RequestId":"r"}}`, nil
		})
		a, b := controllertest.NewTask("a", 0), controllertest.NewTask("b", 0)
		a.Spec.Targets = []v1alpha1.Target{"https://h/page", "https://h/page#top", "https://H:443/page#caf%C3%A9", "https://h/中", "https://h/%e4%b8%ad"}
		b.Spec.Targets = []v1alpha1.Target{"https://h/page#library", "https://h/%E4%B8%AD", "https://h/other"}
		u := controllertest.NewUnit(t, edgeOne, nil, a, b)
		s, l := submitterOf(u, u.ReadTask("a"), u.ReadTask("b"))
		s.newAttempt(l, controllertest.Creds, planNext(u, l), "mine").run(context.Background())
		if want := []string{"https://h/page", "https://h/%E4%B8%AD", "https://h/other"}; !slices.Equal(sent, want) {
			t.Errorf("EdgeOne was asked for %q, want %q", sent, want)
		}
		for name, want := range map[string][2]string{"a": {"0-2", "3-4"}, "b": {"0,2", "1"}} {
			status := u.ReadTask(name).Status
			if len(status.Jobs) != 1 || status.Jobs[0].Positions != want[0] || status.RefusedPositions != want[1] {
				t.Errorf("%s: jobs %+v, refused %q; want %q", name, status.Jobs, status.RefusedPositions, want)
			}
		}
	})
}
