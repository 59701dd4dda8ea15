package follow

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// claimsRead is one pass over a zone's history for lost calls: the claims to settle, and
// the records that EdgeOne returned.
type claimsRead struct {
	*taskstate.HistoryRead
	timed   bool // EdgeOne's time was known before the pass
	claims  map[string]*v1alpha1.Submission
	fenced  map[string]bool  // claims whose calls could no longer execute before the pass
	unread  map[string]error // claims whose window cannot be read
	wanted  map[string]bool  // URLs that the claims may cover; nil if unknown
	account string           // hash of the SecretId that reads the history

	mu      sync.Mutex
	settled map[string]bool // claims settled in this pass, and whether a job was found
}

// rejectionError returns the reason for which EdgeOne rejects all requested windows. It
// returns nil if EdgeOne does not reject every window.
func (l *claimsRead) rejectionError() (rejection error) {
	for id := range l.claims {
		if rejection = l.unread[id]; teo.KindOf(rejection) != teo.Rejected {
			return nil
		}
	}
	return rejection
}

// planClaimsRead selects the claims to read the history for. It also decides whether a
// claim is past its fence. This decision must precede the read: if the read came first,
// the call could still execute after it.
//
// A claim that EdgeOne may have forgotten is never past its fence, because no read can
// show that its call was not executed.
func (p *Poller) planClaimsRead(tasks []*v1alpha1.PrefetchTask) *claimsRead {
	serverNow := p.EdgeOne.ServerTime()
	l := &claimsRead{
		HistoryRead: taskstate.NewHistoryRead(serverNow), timed: p.EdgeOne.ServerTimeKnown(), claims: map[string]*v1alpha1.Submission{},
		fenced: map[string]bool{}, unread: map[string]error{}, settled: map[string]bool{},
	}
	for _, task := range tasks {
		claim := task.Status.Submission
		l.claims[claim.ClaimID] = claim
		l.fenced[claim.ClaimID] = l.timed && serverNow.After(p.completeTime(claim)) && !p.isForgotten(claim, serverNow)
	}
	l.wanted = wantedURLs(tasks)
	return l
}

// wantedURLs returns the URLs that the claims of tasks may cover. It returns nil if the
// targets of one task are not in memory.
func wantedURLs(tasks []*v1alpha1.PrefetchTask) map[string]bool {
	wanted := map[string]bool{}
	for _, task := range tasks {
		claim := task.Status.Submission
		if taskstate.IsNewRun(task) && (claim.Kind == v1alpha1.JobPurge || taskstate.HasPurge(task) || taskstate.IsListEdit(task)) {
			return nil // the new run waits for everything that may be of its call, or keeps it
		}
		if taskstate.IsNewRun(task) {
			continue // the outcome of its call does not matter to the new run
		}
		if taskstate.LacksTargets(task) {
			return nil
		}
		targets := taskstate.CallIdentities(task, claim.Kind)
		for _, i := range taskstate.CoveredPositions(claim.Positions, len(targets)) {
			wanted[targets[i]] = true
		}
	}
	return wanted
}

// addTasks keeps the records that may belong to the claims.
func (l *claimsRead) addTasks(tasks []teo.Record) {
	l.AddWanted(tasks, func(identity string) bool { return l.wanted == nil || l.wanted[identity] })
}

// fenceTime returns the time from which EdgeOne refuses a request signed for the claim.
func (p *Poller) fenceTime(claim *v1alpha1.Submission) time.Time {
	return claim.SignedAt.Add(p.SignatureValidity)
}

// completeTime returns the time from which EdgeOne's history shows everything that was
// signed for the claim.
func (p *Poller) completeTime(claim *v1alpha1.Submission) time.Time {
	return p.fenceTime(claim).Add(p.SettleMargin)
}

// isExpired reports whether the claim's call can no longer be executed. While EdgeOne's
// time is unknown, no claim is expired.
func (p *Poller) isExpired(claim *v1alpha1.Submission) bool {
	return p.EdgeOne.ServerTimeKnown() && p.EdgeOne.ServerTime().After(p.completeTime(claim))
}

// isHarmless reports whether the call of a claim can no longer change anything, although EdgeOne's
// history cannot be read: it can no longer be executed. A purge, or a prefetch before the purge of
// the new run, would also have ended.
func (p *Poller) isHarmless(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission) bool {
	if p.Kind == v1alpha1.JobPurge || taskstate.HasPurge(task) {
		return p.isExpired(claim) && p.EdgeOne.ServerTime().After(p.completeTime(claim).Add(p.JobDeadline))
	}
	return p.isExpired(claim)
}

// isForgotten reports whether the claim is so old that EdgeOne's history may no longer
// show its call.
func (p *Poller) isForgotten(claim *v1alpha1.Submission, serverNow time.Time) bool {
	return serverNow.Sub(claim.SignedAt.Time) > p.HistoryRetention
}

// historyWindow is the period in which the calls of some claims can have been executed.
type historyWindow struct {
	start, end time.Time
	claims     []string
}

// readClaimWindows reads the windows in which calls of unknown outcome can have been
// executed. It makes one read for each call, and fewer where windows overlap.
//
// With fenced, it reads the windows of claims past the fence: they lie in the past and no
// longer change. Without, it reads the other windows up to the present. If EdgeOne refuses
// one window, only the claims of that window stay unread.
func (p *Poller) readClaimWindows(ctx context.Context, creds teo.Credentials, z ZoneKey, l *claimsRead, fenced bool) error {
	var windows []historyWindow
	for id, claim := range l.claims {
		if l.fenced[id] != fenced {
			continue
		}
		if fenced || !p.isForgotten(claim, l.At) { // EdgeOne may refuse a window that far back
			windows = append(windows, historyWindow{claim.SignedAt.Add(-taskstate.ClockSkew), p.completeTime(claim), []string{id}})
		}
	}
	reader := windowReader{p, creds, z.ID, p.history(), l.addTasks}
	for _, window := range mergeWindows(windows) {
		var err error
		if fenced {
			err = reader.readWindow(ctx, window.start, window.end)
		} else {
			err = reader.readRecentWindow(ctx, window.start)
		}
		switch {
		case err == nil:
		case concernsOneJob(err):
			for _, id := range window.claims {
				l.unread[id] = err
			}
		default:
			return err
		}
	}
	return nil
}

// mergeWindows joins windows that overlap. It sorts its argument.
func mergeWindows(windows []historyWindow) (merged []historyWindow) {
	slices.SortFunc(windows, func(a, b historyWindow) int { return a.start.Compare(b.start) })
	for _, w := range windows {
		if last := len(merged) - 1; last >= 0 && !w.start.After(merged[last].end) {
			merged[last].end = latestTime(merged[last].end, w.end)
			merged[last].claims = append(merged[last].claims, w.claims...)
		} else {
			merged = append(merged, w)
		}
	}
	return merged
}
