package cli

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// plans is how many random specs are planned and then created.
var plans = flag.Int("plans", 12, "how many random specs TestPlanPredictsWhatTheOperatorSubmits plans and creates")

func TestPlanPredictsWhatTheOperatorSubmits(t *testing.T) {
	w := newWorld(t)
	w.operate(func(config *simulator.Config) {
		for i := range config.Zones {
			if config.Zones[i].ID == zoneID {
				config.Zones[i].Batch = 7
				config.Zones[i].Purge = map[string]simulator.Limits{"purge_url": {Batch: 7, Daily: 10_000}}
				config.Zones[i].Daily = 100_000
			}
		}
	})
	random := rand.New(rand.NewPCG(1, 2))
	equal := 0
	for i := range *plans {
		task := w.task(fmt.Sprint("random-", i))
		task.APIVersion, task.Kind = v1alpha1.GroupVersion.String(), "PrefetchTask"
		for range 1 + random.IntN(30) {
			task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("%s%d/%d.html", good, i, random.IntN(40))))
		}
		if random.IntN(3) == 0 {
			task.Spec.Purge.Type = v1alpha1.PurgeURL
		}
		if random.IntN(4) == 0 {
			task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "Accept-Encoding", Value: "br"}}
		}
		text, err := yaml.Marshal(task)
		w.must(err)
		r := w.runWith(string(text), "plan", "-", "--batch=7", "-o", "json")
		var got cli.PlanResult
		if json.Unmarshal([]byte(r.out), &got) != nil || r.code != 0 || len(got.Tasks) != 1 {
			t.Fatalf("%+v", r)
		}
		before, purged := w.edgeOne.Ledger().Prefetches(), len(w.edgeOne.Ledger().Purges())
		w.create(task)
		w.until(task.Name, "over", taskstate.IsFinished)
		after := w.edgeOne.Ledger().Prefetches()
		calls, urls := len(after)-len(before), after.Targets()-before.Targets()
		purges := len(w.edgeOne.Ledger().Purges()) - purged
		if p := got.Tasks[0]; p.Calls != calls || p.URLs != urls || p.PurgeCalls != purges || p.NotToday != 0 {
			t.Errorf("planned %+v, got %d calls with %d URLs and %d purges", p, calls, urls, purges)
		} else {
			equal++
		}
	}
	t.Logf("%d of %d plans are what then happened", equal, *plans)
	r := w.runWith("apiVersion: teo.prefetch-operator.io/v1alpha1\nkind: PrefetchTask\nmetadata: {name: bad}\nspec: {zoneID: "+zoneID+", targets: [ftp://x]}\n", "plan", "-")
	if r.code != 1 || r.out != "" || !strings.Contains(r.err, "is invalid") {
		t.Errorf("%+v", r)
	}
}
