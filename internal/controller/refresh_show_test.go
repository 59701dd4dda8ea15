package controller

import (
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// A release of 2,000 URLs takes as long as its prefetch and its purge, and at most a tenth of the
// purge more. The time is virtual, so that it does not depend on the machine.
func TestARefreshTakesItsPurgeLongerThanAPrefetch(t *testing.T) {
	const purgeTime, prefetchTime, n = time.Minute, 5 * time.Minute, 2000
	zone := zoneA1
	zone.Batch, zone.Purge = 2000, map[string]simulator.Limits{"purge_url": {Batch: 2000, Daily: 1 << 20}}
	took := map[v1alpha1.PurgeType]time.Duration{}
	for _, purge := range []v1alpha1.PurgeType{"", v1alpha1.PurgeURL} {
		inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, JobDuration: prefetchTime, PurgeDuration: purgeTime}, func(t *testing.T, w *calm) {
			w.options.Batch = n
			r := startRelease(w, n)
			time.Sleep(time.Minute) // the quota is read before the first call
			began := time.Now()
			key := w.create("n", "release", r.urls, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Purge.Type = purge })
			w.awaitAll(2 * time.Hour)
			if took[purge] = time.Since(began); w.ready(key) != "True/Succeeded" || ptr.Deref(w.server.get(key).Status.Targets.Succeeded, 0) != n {
				t.Fatalf("it is %s", w.ready(key))
			}
			if peak := w.edgeOne.Journal().Peaks().NotHandedOver; peak > n {
				t.Errorf("%d URLs were cold at once", peak)
			}
		})
	}
	longer := took[v1alpha1.PurgeURL] - took[""]
	t.Logf("prefetch alone: %s; with a purge of %s: %s longer", took[""], purgeTime, longer)
	if longer > purgeTime+purgeTime/10 {
		t.Errorf("a purge of %s makes it %s longer", purgeTime, longer)
	}
}
