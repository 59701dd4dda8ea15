package controller

import (
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// What a batch leaves of the quota does not cover the rest of a task. The rest goes out when the
// quota is back, whoever reads it.
func TestTheRestOfATaskIsPurgedWhenTheQuotaIsBack(t *testing.T) {
	zone := zoneA1
	zone.Batch, zone.Purge = 11, map[string]simulator.Limits{"purge_url": {Batch: 11, Daily: 1 << 20}}
	zone.Daily = 1000
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}}, func(t *testing.T, w *calm) {
		r := startRelease(w, 27)
		key := w.create("n", "release", r.urls, purgeURLs)
		w.await(time.Minute, func() bool { return w.ready(key) == "False/"+v1alpha1.ReasonPurging })
		w.edgeOne.SetAvailable(zone.ID, 20)
		if !w.await(12*time.Minute, func() bool { return heldBy(w.server.get(key)) }) {
			t.Errorf("it is %s", w.ready(key))
		}
		w.edgeOne.ResetQuota()
		w.awaitAll(time.Hour)
		r.checkFresh()
	})
}
