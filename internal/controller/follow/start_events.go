package follow

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// reportStart sends an Event about what a run keeps, or why it keeps nothing.
func (p *Poller) reportStart(before, after *v1alpha1.PrefetchTask, kept taskstate.KeptJobs, isEdit bool) {
	n, total := kept.Count(), taskstate.CountTargets(before)
	switch {
	case n > 0:
		p.Events.RecordEvent(after, corev1.EventTypeNormal, "KeptFromHistory", "Start",
			fmt.Sprintf("%d of %d targets are prefetched already, by EdgeOne's history; %d are submitted", n, total, total-n))
	case p.isTooOld(before):
		p.Events.RecordEvent(after, corev1.EventTypeWarning, "HistoryTooShort", "Start",
			"spec.freshSince is older than EdgeOne's history, which cannot show what is fresh; every target is submitted")
	case isEdit && taskstate.IsPastRetention(before, p.HistoryRetention, p.EdgeOne.ServerTime()):
		p.Events.RecordEvent(after, corev1.EventTypeWarning, "HistoryTooShort", "Start",
			"EdgeOne's history no longer shows what the former list has prefetched; every target is submitted")
	case !before.Spec.FreshSince.IsZero() && !taskstate.MayAdopt(before):
		p.Events.RecordEvent(after, corev1.EventTypeNormal, "HistoryNotAdopted", "Start",
			"EdgeOne's history does not show the mode, the headers, the media segments or the zone of a prefetch; every target is submitted")
	}
	log.Log.WithName("poller").Info("Started a run with EdgeOne's history", "task", client.ObjectKeyFromObject(after).String(), "kept", n, "targets", total)
}
