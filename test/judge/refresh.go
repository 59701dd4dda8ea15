package judge

import (
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// The kinds of defects of runs that purge.
const (
	Repurge  Kind = "purged twice" // EdgeOne purged a URL more often than runs asked for it
	Overtake Kind = "overtaken"    // a URL was prefetched before its purge, or purged after its prefetch
	Older    Kind = "older"        // after Ready, a visitor saw a version from before the run
	Cold     Kind = "cold"         // a URL was purged and not prefetched for long, and no status said so
)

// RefreshEvidence is the input of FindRefreshDefects.
type RefreshEvidence struct {
	Ledger    simulator.Ledger
	Journal   simulator.Journal
	Sightings []Sighting
	// ColdLimit is how long a URL may be purged and not prefetched without a status that
	// says so.
	ColdLimit time.Duration
	// TimeSkew is how far the time of a purge in EdgeOne's history may be off. A purge that
	// seems to be older than its claim does not count for it, and is repeated if its answer
	// was lost.
	TimeSkew time.Duration
	// Asked is how many runs asked to purge a URL, by canonical URL. If it is nil, it is
	// the number of runs in Sightings.
	Asked map[string]int
}

// RefreshCounts are the size of the evidence, and what was found.
type RefreshCounts struct {
	Runs     int // that purge
	URLs     int // that these runs refresh
	Purges   int // targets that EdgeOne accepted for purge
	Visitors int // visits of a URL after its run was Ready
	Older    int // of these, the visitors that saw a version from before the run
	Repurged int // URLs that were purged more often than runs asked for it
	Overtook int // URLs that were prefetched before their purge, or purged after their prefetch
	Cold     int // URLs that were cold for long without a status that said so
}

// Plus returns the sums of two counts.
func (c RefreshCounts) Plus(d RefreshCounts) RefreshCounts {
	return RefreshCounts{
		c.Runs + d.Runs, c.URLs + d.URLs, c.Purges + d.Purges, c.Visitors + d.Visitors,
		c.Older + d.Older, c.Repurged + d.Repurged, c.Overtook + d.Overtook, c.Cold + d.Cold,
	}
}

// FindRefreshDefects compares what EdgeOne's cache and its visitors saw with what the
// statuses of runs that purge said at that time.
func FindRefreshDefects(e RefreshEvidence) (defects []Defect, counts RefreshCounts) {
	j := newRefreshJudgement(e)
	j.findRepurges()
	j.findOvertakes()
	j.findOlder()
	j.findCold()
	return j.defects, j.counts
}

// refreshRun is a run that purges, as it was last seen.
type refreshRun struct {
	Sighting
	readyAt time.Time // when it was first seen as Ready; zero if never
}

type refreshJudgement struct {
	RefreshEvidence
	runs    map[string]*refreshRun
	owners  map[string][]types.UID // of tasks that named a purge job, by JobId
	seenOf  map[types.UID][]int    // indexes into Sightings
	began   map[string]time.Time   // of the run that submitted a job, by JobId
	purged  map[string]time.Time   // when a purge first changed the cache, by JobId
	urls    map[string]*cacheTimes // the journal by URL
	counts  RefreshCounts
	defects []Defect
}

func newRefreshJudgement(e RefreshEvidence) *refreshJudgement {
	j := &refreshJudgement{
		RefreshEvidence: e, runs: map[string]*refreshRun{}, owners: map[string][]types.UID{},
		seenOf: map[types.UID][]int{}, began: map[string]time.Time{},
		purged: map[string]time.Time{}, urls: map[string]*cacheTimes{},
	}
	j.readJournal()
	urls := map[string]bool{}
	for i, s := range e.Sightings {
		j.seenOf[s.UID] = append(j.seenOf[s.UID], i)
		j.addJobs(s)
		if s.Run == "" || !s.IsPurging {
			continue
		}
		run := j.runs[s.Run]
		if run == nil {
			run = &refreshRun{}
			j.runs[s.Run] = run
		}
		run.Sighting = s
		if s.IsReady && run.readyAt.IsZero() {
			run.readyAt = s.At
		}
		for _, u := range s.Targets {
			urls[u] = true
		}
	}
	j.counts.Runs, j.counts.URLs = len(j.runs), len(urls)
	for _, execution := range e.Ledger.Purges() {
		j.counts.Purges += len(execution.Accepted)
	}
	return j
}

// addJobs records who named a job, and when the run began that submitted it.
func (j *refreshJudgement) addJobs(s Sighting) {
	for _, job := range s.Jobs {
		if job.IsPurge && !slices.Contains(j.owners[job.ID], s.UID) {
			j.owners[job.ID] = append(j.owners[job.ID], s.UID)
		}
		if _, isKnown := j.began[job.ID]; !isKnown && !job.IsAdopted && s.Run != "" {
			j.began[job.ID] = s.Began
		}
	}
}

func (j *refreshJudgement) add(kind Kind, task, url string, from, to time.Time, text string) {
	j.defects = append(j.defects, Defect{Kind: kind, Task: task, URL: url, Text: text, From: from, To: to})
}

// findRepurges finds URLs that EdgeOne purged by URL more often than runs asked for it.
func (j *refreshJudgement) findRepurges() {
	asked := j.Asked
	if asked == nil {
		asked = map[string]int{}
		for _, run := range j.runs {
			for _, u := range run.Targets {
				asked[u]++
			}
		}
	}
	purged, last := map[string]int{}, map[string]simulator.Execution{}
	for _, execution := range j.Ledger.Purges() {
		if execution.Type != "purge_url" {
			continue
		}
		for _, u := range execution.Accepted {
			u = simulator.Canonical(u)
			last[u] = execution
			if j.mayPredate(execution) {
				continue
			}
			purged[u]++
		}
	}
	for _, u := range slices.Sorted(maps.Keys(purged)) {
		if purged[u] > asked[u] {
			j.counts.Repurged++
			j.add(Repurge, "", u, last[u].SignedAt, last[u].Time, "purged more often than runs asked for it, last by job "+last[u].JobID)
		}
	}
}

// mayPredate reports whether EdgeOne's history may show a purge with a time before its claim.
func (e RefreshEvidence) mayPredate(purge simulator.Execution) bool {
	return e.TimeSkew > 0 && purge.Time.Add(-e.TimeSkew).Truncate(time.Second).Before(purge.SignedAt)
}

// cacheTimes are what the journal says of one URL.
type cacheTimes struct {
	purged     map[string][]time.Time // by JobId
	handedOver map[string]time.Time   // by JobId
	visits     []simulator.CacheEvent
}

func (j *refreshJudgement) readJournal() {
	for _, e := range j.Journal.Events {
		times := j.urls[e.URL]
		if times == nil {
			times = &cacheTimes{purged: map[string][]time.Time{}, handedOver: map[string]time.Time{}}
			j.urls[e.URL] = times
		}
		switch e.Kind {
		case simulator.Purged, simulator.Expired:
			times.purged[e.By] = append(times.purged[e.By], e.Time)
			if at, isKnown := j.purged[e.By]; !isKnown || e.Time.Before(at) {
				j.purged[e.By] = e.Time
			}
		case simulator.HandedOver:
			times.handedOver[e.By] = e.Time
		case simulator.Visited:
			times.visits = append(times.visits, e)
		case simulator.Filled, simulator.Kept:
		}
	}
}

// findOvertakes compares the purges and prefetches of each run, in the order in which the
// cache saw them.
func (j *refreshJudgement) findOvertakes() {
	for _, id := range slices.Sorted(maps.Keys(j.runs)) {
		run := j.runs[id]
		for _, prefetch := range run.Jobs {
			if prefetch.IsPurge || prefetch.IsAdopted {
				continue
			}
			for _, u := range prefetch.URLs {
				if times := j.urls[u]; times != nil {
					j.compareOrder(run, prefetch, u, times)
				}
			}
		}
	}
}

// compareOrder compares the prefetch of a URL with the purges of its run.
func (j *refreshJudgement) compareOrder(run *refreshRun, prefetch SeenJob, u string, times *cacheTimes) {
	at, isListed := times.handedOver[prefetch.ID]
	if !isListed {
		return // the journal no longer has it
	}
	isPurged := false
	for _, purge := range run.Jobs {
		if !purge.IsPurge {
			continue
		}
		// A purge by another type than URL does not list URLs that were not cached.
		begun, isKnown := j.purged[purge.ID]
		isByURL := slices.Contains(purge.URLs, u)
		isPurged = isPurged || !isByURL && isKnown && !begun.After(at)
		for _, purged := range times.purged[purge.ID] {
			isPurged = isPurged || !purged.After(at)
			if purged.After(at) {
				j.counts.Overtook++
				j.add(Overtake, run.Name, u, at, purged, "purged by job "+purge.ID+" after job "+prefetch.ID+" began to prefetch it")
			}
		}
	}
	if !isPurged {
		j.counts.Overtook++
		j.add(Overtake, run.Name, u, run.Began, at, "prefetched by job "+prefetch.ID+" before a purge of its run")
	}
}

// findOlder finds visitors that saw a version of a URL from before the run that had
// refreshed it.
func (j *refreshJudgement) findOlder() {
	for _, id := range slices.Sorted(maps.Keys(j.runs)) {
		run := j.runs[id]
		if run.readyAt.IsZero() {
			continue
		}
		for u, since := range j.freshness(run) {
			times := j.urls[u]
			if times == nil {
				continue
			}
			for _, visit := range times.visits {
				if !visit.Time.After(run.readyAt) {
					continue
				}
				j.counts.Visitors++
				if !visit.Superseded.IsZero() && !visit.Superseded.After(since) {
					j.counts.Older++
					j.add(Older, run.Name, u, since, visit.Time, "a visitor saw a version that the origin replaced at "+visit.Superseded.Format(time.RFC3339Nano))
				}
			}
		}
	}
}

// freshness returns for each URL of a run the time from which visitors may expect its
// content. That is when the run began that purged and prefetched the URL, or freshSince.
func (j *refreshJudgement) freshness(run *refreshRun) map[string]time.Time {
	since := map[string]time.Time{}
	for _, u := range run.Targets {
		since[u] = run.Began
	}
	for _, job := range run.Jobs {
		if !job.IsAdopted {
			continue
		}
		began, isKnown := j.began[job.ID]
		if !isKnown || !run.FreshSince.IsZero() && run.FreshSince.Before(began) {
			began = run.FreshSince
		}
		for _, u := range job.URLs {
			since[u] = began
		}
	}
	return since
}

// findCold finds URLs that a purge of the operator made cold, and that stayed so for long
// while the statuses did not say it.
func (j *refreshJudgement) findCold() {
	for _, span := range j.Journal.ColdLonger(j.ColdLimit) {
		for _, owner := range j.owners[span.By] {
			if at, said := j.findSilence(span, owner); !at.IsZero() {
				j.counts.Cold++
				j.add(Cold, said.Name, span.URL, span.Purged, at, "purged by job "+span.By+" and cold, and the status says "+said.Reason+": "+said.Message)
			}
		}
	}
}

// findSilence returns when a task did not say that a URL of it is cold, and what it said.
// A task that no longer asks for the URL need not say it.
func (j *refreshJudgement) findSilence(span simulator.ColdSpan, owner types.UID) (at time.Time, said Sighting) {
	from, to := span.Purged.Add(j.ColdLimit), span.Filled
	if to.IsZero() {
		to = j.Journal.ReadAt
	}
	seen := j.seenOf[owner]
	for n, i := range seen {
		s := j.Sightings[i]
		until := to
		if n+1 < len(seen) && j.Sightings[seen[n+1]].At.Before(to) {
			until = j.Sightings[seen[n+1]].At
		}
		start := s.At
		if start.Before(from) {
			start = from
		}
		isHandedOver := !span.HandedOver.IsZero() && span.HandedOver.Before(until)
		if start.Before(until) && !s.IsGone && slices.Contains(s.Targets, span.URL) && !s.saysCold(isHandedOver) {
			return start, s
		}
	}
	return time.Time{}, said
}

// saysCold reports whether a status says that URLs of the task are purged and not warm.
func (s Sighting) saysCold(isHandedOver bool) bool {
	switch {
	case s.IsReady:
		return false
	case isHandedOver, s.IsFinished, s.Reason == v1alpha1.ReasonPurging, s.Reason == v1alpha1.ReasonSubmitting:
		return true // the prefetch is on its way
	}
	return strings.Contains(s.Message, "purged and not prefetched yet")
}
