package follow

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// claimsRead is one look for the lost calls of a zone: what is asked for, and what was seen.
type claimsRead struct {
	*taskstate.HistoryRead
	timed   bool // EdgeOne's time was known before it
	claims  map[string]*v1alpha1.Submission
	fenced  map[string]bool  // claims that were past the fence before the look
	unread  map[string]error // claims whose window cannot be read
	wanted  map[string]bool  // the URLs that the claims may have; nil if they are not known
	account string           // hash of the SecretId that looks

	mu      sync.Mutex
	settled map[string]bool // claims that tasks were rid of, and whether something was found
}

// rejectionError is why EdgeOne rejects all windows that were asked for; nil if it does not.
func (l *claimsRead) rejectionError() (rejection error) {
	for id := range l.claims {
		if rejection = l.unread[id]; teo.KindOf(rejection) != teo.Rejected {
			return nil
		}
	}
	return rejection
}

// planClaimsRead decides what to look for. Whether a claim is past its fence is decided
// here, before the look: looked at first, a call could still execute afterwards.
// Where EdgeOne may have forgotten the call, no look shows that it was not
// executed, and the claim is never past the fence.
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

// wantedURLs are the URLs of which the claims of tasks may have some; nil if the list of
// one is not in memory.
func wantedURLs(tasks []*v1alpha1.PrefetchTask) map[string]bool {
	wanted := map[string]bool{}
	for _, task := range tasks {
		if taskstate.IsNewRun(task) {
			continue // whatever became of its call
		}
		if taskstate.LacksTargets(task) {
			return nil
		}
		targets := taskstate.DistinctTargets(task)
		for _, i := range taskstate.CoveredPositions(task.Status.Submission.Targets, len(targets)) {
			wanted[target.Identity(targets[i])] = true
		}
	}
	return wanted
}

// AddTasks keeps of what was read what may concern the claims.
func (l *claimsRead) addTasks(tasks []teo.PrefetchTask) {
	l.AddWanted(tasks, func(identity string) bool { return l.wanted == nil || l.wanted[identity] })
}

// fenceTime is when EdgeOne refuses a request signed for the claim.
func (p *Poller) fenceTime(claim *v1alpha1.Submission) time.Time {
	return claim.SignedAt.Add(p.SignatureValidity)
}

// completeTime is when EdgeOne's history shows all that was signed for the claim.
func (p *Poller) completeTime(claim *v1alpha1.Submission) time.Time {
	return p.fenceTime(claim).Add(p.SettleMargin)
}

// isExpired says whether the claim's call cannot be executed any more.
func (p *Poller) isExpired(claim *v1alpha1.Submission) bool {
	return p.EdgeOne.ServerTimeKnown() && p.EdgeOne.ServerTime().After(p.completeTime(claim))
}

// isForgotten says whether the claim is so old that EdgeOne's history may no
// longer show its call.
func (p *Poller) isForgotten(claim *v1alpha1.Submission, serverNow time.Time) bool {
	return serverNow.Sub(claim.SignedAt.Time) > p.HistoryRetention
}

// historyWindow is the time in which calls of some claims can have been executed.
type historyWindow struct {
	start, end time.Time
	claims     []string
}

// readClaimWindows reads the windows in which calls of unknown outcome can have been
// executed: one look-up for each call, fewer where windows overlap. Those past
// the fence are fixed in the past and no longer change; the others are read as far as
// they have passed. A window that EdgeOne does not let us read concerns its claims only.
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
	reader := windowReader{p, creds, z.ID, l.addTasks}
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

// mergeWindows joins windows that overlap.
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
