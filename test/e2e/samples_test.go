package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// isSuspendedAndFine reports whether a task is suspended, and neither failed nor in need of a
// person.
func isSuspendedAndFine(task *v1alpha1.PrefetchTask) bool {
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == v1alpha1.ReasonSuspended && !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled)
}

// The samples of a user who applies them first and reads them later: their EdgeOne knows
// neither the zones nor the hosts.
func TestTheSamplesDoNothingUntilAUserEditsThem(t *testing.T) {
	const zone, host = "zone-ofastranger", "cdn.stranger.example"
	c := config()
	c.Zones = []simulator.Zone{{ID: zone, Account: "demo", Domains: []string{host}}}
	w := newWorld(t, c)
	w.manager()
	apply := func(dir string) {
		t.Helper()
		if out, err := kubectl(t, "apply", "--server-side", "-n", w.namespace, "-k", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	apply("../../config/samples")
	all := []string{"assets", "edge-mode", "fresh-since", "large-list", "one-url", "own-credentials", "refresh", "refresh-prefix"}
	w.eventuallyAll("the samples are suspended", func(tasks []v1alpha1.PrefetchTask) bool {
		return !slices.ContainsFunc(tasks, func(task v1alpha1.PrefetchTask) bool { return !isSuspendedAndFine(&task) })
	})
	var names []string
	for _, task := range w.list() {
		names = append(names, task.Name)
		if task.Spec.EncodeURL != nil {
			t.Errorf("%s has the deprecated field encodeURL", task.Name)
		}
		for _, u := range task.Spec.Targets {
			if !strings.HasPrefix(string(u), "https://www.example.com/") && !strings.HasPrefix(string(u), "https://shop.example.org/") {
				t.Errorf("%s has %s, which is not reserved for examples", task.Name, u)
			}
		}
	}
	if slices.Sort(names); !slices.Equal(names, all) {
		t.Errorf("the samples are %q, want %q", names, all)
	}

	mine := filepath.Join(t.TempDir(), "samples")
	w.must(os.CopyFS(mine, os.DirFS("../../config/samples")))
	edit := func(file string, pairs ...string) {
		t.Helper()
		path := filepath.Join(mine, file)
		text, err := os.ReadFile(path)
		w.must(err)
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(string(text), pairs[i]) {
				t.Fatalf("%s has no %s", file, pairs[i])
			}
		}
		w.must(os.WriteFile(path, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o600))
	}
	edit("one-url.yaml", "zone-2x9examplea", zone, "www.example.com", host, "suspend: true", "suspend: false")
	edit("assets.yaml", "suspend: true", "suspend: false")
	apply(mine)
	w.untilFinished("one-url", v1alpha1.ReasonSucceeded)
	w.untilFinished("assets", v1alpha1.ReasonSucceeded)
	w.once("https://" + host + "/assets/app.js")
	if prefix := w.get("refresh-prefix").Spec.Purge.Targets[0]; prefix != v1alpha1.PurgeTarget("https://"+host+"/catalog/") {
		t.Errorf("the sample purges %s", prefix)
	}
	for _, name := range []string{"edge-mode", "fresh-since", "large-list", "own-credentials", "refresh", "refresh-prefix"} {
		if !isSuspendedAndFine(w.get(name)) {
			t.Errorf("%s is no longer suspended: %+v", name, w.get(name).Status.Conditions)
		}
	}
}
