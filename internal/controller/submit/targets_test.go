package submit

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// A task can wait for hours after its list was read.
func TestARunStartsWithTheListThatTheConfigMapHasThen(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"the same", "https://h/first\n", []string{"https://h/first"}},
		{"corrected", "https://h/corrected\n", []string{"https://h/corrected"}},
		{"invalid by now", "no URL\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(nil)
				defer edgeOne.Close()
				u := controllertest.NewListUnit(t, controllertest.ListTask("a", "urls"))
				u.EdgeOne = controllertest.NewUnit(t, edgeOne.RoundTripper(), nil).EdgeOne
				u.Put("urls", "https://h/first\n")
				u.LearnTime()
				s, l := submitterOf(u.Unit, u.ReadTask("a"))
				controllertest.Pass(time.Second)
				l.mu.Lock()
				l.queue.SetQuota(controllertest.Zone, 0, 0, time.Now())
				l.mu.Unlock()
				controllertest.Pass(12 * time.Hour)
				u.Put("urls", tt.text)
				l.mu.Lock()
				l.queue.SetQuota(controllertest.Zone, 0, 100, time.Now())
				l.mu.Unlock()
				for range 20 {
					if _, err := s.Reconcile(t.Context(), taskstate.AccountKey{}); err != nil {
						t.Fatal(err)
					}
					controllertest.Pass(time.Second)
				}
				var executed []string
				for _, execution := range edgeOne.Ledger() {
					executed = append(executed, execution.Accepted...)
				}
				if !slices.Equal(executed, tt.want) {
					t.Errorf("executed is %v, want %v", executed, tt.want)
				}
				if reason := taskstate.ReadyReason(u.ReadTask("a")); tt.want == nil && reason != v1alpha1.ReasonTargetsInvalid {
					t.Errorf("the reason is %s", reason)
				}
			})
		})
	}
}
