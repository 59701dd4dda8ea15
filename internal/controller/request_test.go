package controller

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
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
				task := unitTask("a", 0)
				task.Spec.Targets, task.Spec.EncodeURL = []v1alpha1.Target{written}, tt.encode
				u := newUnit(t, edgeOne, nil, task)
				s, l := u.submitter(u.get("a"))
				s.call(context.Background(), l, unitCreds, u.planned(l), "mine")
				if !slices.Equal(sent, []string{tt.want}) {
					t.Errorf("EdgeOne was asked for %q, want %q", sent, tt.want)
				}
			})
		})
	}
}
