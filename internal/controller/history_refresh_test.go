package controller

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// This file has the part of histories that is about purges and caches: users that purge, with
// origins that publish and visitors that fill caches, and the judge of what visitors see.

// purgeRules fail the purge of some URLs and prefixes throughout a history.
var purgeRules = []simulator.Rule{
	{Action: teo.ActionCreatePurgeTask, URL: "/nopurge-refuse/", Refuse: "The resource is not allowed to be purged."},
	{Action: teo.ActionCreatePurgeTask, URL: "/nopurge-fail/", Status: "failed"},
	{Action: teo.ActionCreatePurgeTask, URL: "/nopurge-timeout/", Status: "timeout"},
}

const failsPurge = "/nopurge-"

// purgeSettings configures how EdgeOne purges.
func (h *simulation) purgeSettings(c *simulator.Config) {
	r := h.dice.roll("purge settings")
	h.purgeDuration = 2 * time.Second
	if h.plan.faults["slow-purges"] > 0 {
		h.purgeDuration = between(r, 3*time.Second, 4*time.Minute)
		h.counts["slow-purges"]++
	}
	c.PurgeDuration = h.purgeDuration
	if h.plan.faults["purge-quota"] > 0 {
		for i := range c.Zones {
			c.Zones[i].Purge = map[string]simulator.Limits{
				"purge_url": {Batch: 1 + r.IntN(8), Daily: 5 + r.IntN(60)}, "purge_prefix": {Batch: 1 + r.IntN(2), Daily: 2 + r.IntN(10)},
			}
		}
		h.counts["purge-quota"]++
	}
}

// strikeRefreshes causes faults that are about purges at random times.
func (h *simulation) strikeRefreshes(stormy context.Context, at func(kind string, most int, do func(r *rand.Rand))) {
	at("lost-quota", 4, func(r *rand.Rand) {
		h.awaitCold(stormy, r, "quota lost")
		zone, left := h.zones[r.IntN(len(h.zones))].ID, r.IntN(4)
		h.fault("lost-quota", "%s has %d left", zone, left)
		h.edgeOne.SetAvailable(zone, left)
	})
	at("denied-actions", 4, func(r *rand.Rand) {
		h.awaitCold(stormy, r, "action denied")
		denied := [...]string{teo.ActionCreatePrefetchTask, teo.ActionCreatePurgeTask, teo.ActionDescribePurgeTasks, teo.ActionDescribePrefetchTasks}[r.IntN(4)]
		key := keys["own"][0]
		for _, action := range []string{
			teo.ActionCreatePrefetchTask, teo.ActionCreatePurgeTask, teo.ActionDescribePurgeTasks, teo.ActionDescribePrefetchTasks, teo.ActionDescribeContentQuota,
		} {
			if action != denied {
				key.Actions = append(key.Actions, action)
			}
		}
		h.fault("denied-actions", "%s", denied)
		h.edgeOne.SetKey(key)
		sleep(stormy, between(r, 5*time.Second, 4*time.Minute))
		h.logf("ALLOWED %s", denied)
		h.edgeOne.SetKey(keys["own"][0])
	})
}

// countPurge counts a fault of a call that purges.
func (h *simulation) countPurge(action, fault string) {
	if action == teo.ActionCreatePurgeTask {
		h.count("refresh: purge, " + fault)
	}
}

var purgeTypes = []v1alpha1.PurgeType{v1alpha1.PurgeURL, v1alpha1.PurgePrefix, v1alpha1.PurgeHost, v1alpha1.PurgeCacheTag}

// release lets the origin publish a new version of the URLs of a task that purges, after caches
// had the version before.
func (u *users) release(task *userTask) {
	if task.spec.Purge.Type == "" {
		return
	}
	var tags []string
	if task.spec.Purge.Type == v1alpha1.PurgeCacheTag {
		tags = []string{string(task.spec.Purge.Targets[0])}
	}
	r := u.h.dice.roll("release")
	u.h.refreshes.publish(tags, task.spec.Targets)
	u.h.edgeOne.Warm(simulator.Selection{URLs: textsOf(task.spec.Targets)})
	if r.IntN(4) > 0 {
		u.h.refreshes.publish(tags, task.spec.Targets)
	}
}

func textsOf(targets []v1alpha1.Target) (texts []string) {
	for _, target := range targets {
		texts = append(texts, string(target))
	}
	return texts
}

// refresh decides at random what a task purges, and since when copies are fresh enough.
func (u *users) refresh(s *v1alpha1.PrefetchTaskSpec, name string) {
	r := u.h.dice.roll("refresh")
	purges, isWide, isFresh := r.IntN(3) > 0, r.IntN(2) == 0, r.IntN(2) == 0
	kind, method, ago := r.IntN(8), r.IntN(2) == 0, between(r, 0, 10*time.Minute)
	s.Purge, s.FreshSince = v1alpha1.Purge{}, metav1.Time{}
	if u.h.plan.faults["fresh-since"] > 0 && isFresh {
		s.FreshSince = metav1.NewTime(u.h.edgeOne.Now().Add(-ago).Truncate(time.Second).UTC())
		u.h.count("refresh: freshSince asked for")
	}
	if u.h.plan.faults["purges"] == 0 || !purges {
		return
	}
	s.Purge.Type = v1alpha1.PurgeURL
	if u.h.plan.faults["wide-purges"] > 0 && isWide {
		host := strings.TrimPrefix(s.ZoneID, "zone-") + ".example.com"
		switch {
		case kind == 0:
			s.Purge = v1alpha1.Purge{Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{v1alpha1.PurgeTarget(host)}}
		case kind < 4:
			s.Purge = v1alpha1.Purge{Type: v1alpha1.PurgeCacheTag, Targets: []v1alpha1.PurgeTarget{v1alpha1.PurgeTarget("tag-" + name)}}
		default:
			first := string(s.Targets[0])
			path := strings.SplitAfterN(first, "/", 5) // https:// host/ segment/ rest
			s.Purge = v1alpha1.Purge{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{v1alpha1.PurgeTarget(strings.Join(path[:4], ""))}}
			if strings.Contains(first, failsPurge) {
				s.Purge.Targets[0] = v1alpha1.PurgeTarget(first[:strings.LastIndex(first, "/")+1])
			}
		}
		if s.Purge.Type == v1alpha1.PurgeHost || s.Purge.Type == v1alpha1.PurgePrefix {
			if method {
				s.Purge.Method = v1alpha1.PurgeInvalidate
			}
		}
	}
	u.h.count("refresh: purge asked for, " + string(s.Purge.Type))
}

// editList changes the list of a task alone: it adds, removes, swaps or corrects targets.
func (u *users) editList(task *userTask, r *rand.Rand) {
	before := runOf(task.spec)
	targets := slices.Clone(task.spec.Targets)
	i, k := r.IntN(len(targets)), r.IntN(len(targets))
	fresh := v1alpha1.Target(fmt.Sprintf("https://%s.example.com/%s.%d.%d/edited",
		strings.TrimPrefix(task.spec.ZoneID, "zone-"), task.key.Name, len(u.all), len(task.runs)))
	switch n := r.IntN(4); {
	case n == 0 && len(targets) > 1:
		targets = slices.Delete(targets, i, i+1)
	case n == 1:
		targets[i], targets[k] = targets[k], targets[i]
	case n == 2:
		targets[i] = fresh
	default:
		targets = append(targets, fresh)
	}
	u.h.count("refresh: list edited")
	task.spec.Targets = targets
	u.edited(task, "list", before)
}

// touchRefresh makes an edit that is about a purge, the freshness or the list. It reports whether
// it made one.
func (u *users) touchRefresh(task *userTask) bool {
	r := u.h.dice.roll("touch refresh")
	switch n := r.IntN(10); {
	case n < 3 && u.h.plan.faults["list-edits"] > 0:
		u.editList(task, r)
	case n == 3 && u.h.plan.faults["purges"]+u.h.plan.faults["fresh-since"] > 0:
		before := runOf(task.spec)
		u.refresh(&task.spec, task.key.Name)
		u.edited(task, "refresh", before)
	default:
		return false
	}
	return true
}

// askPurges counts the purges that a run asks for once more.
func (u *users) askPurges(spec v1alpha1.PrefetchTaskSpec, isAsked func(target string) bool) {
	seen := map[string]bool{}
	for _, target := range purgeTargetsOf(spec) {
		if work := purgeWork(spec.ZoneID, string(spec.Purge.Type), target); !seen[work] && isAsked(target) {
			seen[work] = true
			u.purges[work]++
		}
	}
}

// askAgain counts what runs may submit once more, because their ConfigMap changes and the change
// counts as an edit of the list.
func (u *users) askAgain(key client.ObjectKey) {
	for _, task := range u.all {
		if !task.list {
			continue
		}
		for _, run := range task.runs {
			if (&userTask{key: task.key, spec: run.spec, list: true}).listKey() == key {
				u.askPurges(run.spec, func(string) bool { return true })
			}
		}
	}
}

func purgeTargetsOf(spec v1alpha1.PrefetchTaskSpec) (targets []string) {
	if spec.Purge.Type == v1alpha1.PurgeURL {
		return textsOf(spec.Targets)
	}
	for _, target := range spec.Purge.Targets {
		targets = append(targets, string(target))
	}
	return targets
}

var simulatedTypes = map[string]string{"purge_url": "URL", "purge_prefix": "Prefix", "purge_host": "Host", "purge_cache_tag": "CacheTag"}

func purgeWork(zone, kind, target string) string {
	if kind == string(v1alpha1.PurgeURL) || kind == string(v1alpha1.PurgePrefix) {
		target = simulator.Canonical(target)
	}
	return strings.Join([]string{zone, kind, target}, " ")
}

// runID identifies a run of an object. A run that starts again after an edit that was taken back is
// another one.
type runID struct {
	uid   types.UID
	run   string
	start string
}

func runIDOf(task *v1alpha1.PrefetchTask) runID {
	return runID{task.UID, task.Status.Run, task.Status.StartTime.UTC().Format(time.RFC3339) + " " + task.Status.TargetsHash}
}

// refreshes judges what caches have and what visitors see.
type refreshes struct {
	h *simulation

	mu        sync.Mutex
	urls      []string                             // that the origin has published
	isURL     map[string]bool                      // the same
	specs     map[string]v1alpha1.PrefetchTaskSpec // by status.run
	began     map[runID]time.Time                  // when the status write arrived that began a run
	freshFrom map[types.UID]map[string]time.Time   // by job: what its copies are at least as new as
	claims    []purgeClaim
	said      map[types.UID][]statement
	promised  []promisedURL
	disturbed []period // in which statuses may not be written
}

type period struct{ from, to time.Time }

// purgeClaim is the claim on a purge as a status has it.
type purgeClaim struct {
	at, signed time.Time
	run        runID
	key        string
	work       map[string]bool // see purgeWork
}

// statement is what a status says about cold URLs.
type statement struct {
	at       time.Time
	run      runID
	isNewRun bool
	saysCold bool
	line     string
}

// promisedURL is a URL that a status counts as prefetched. No visitor gets a version that was
// replaced before since.
type promisedURL struct {
	url, key  string
	run       runID
	since, at time.Time // local
}

func newRefreshes(h *simulation) *refreshes {
	return &refreshes{h: h, isURL: map[string]bool{}, specs: map[string]v1alpha1.PrefetchTaskSpec{}, began: map[runID]time.Time{},
		freshFrom: map[types.UID]map[string]time.Time{}, said: map[types.UID][]statement{}}
}

func (c *refreshes) publish(tags []string, targets []v1alpha1.Target) {
	texts := textsOf(targets)
	c.h.edgeOne.Publish(simulator.Publication{Selection: simulator.Selection{URLs: texts}, Tags: tags})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, url := range texts {
		if url = simulator.Canonical(url); !c.isURL[url] {
			c.isURL[url] = true
			c.urls = append(c.urls, url)
		}
	}
}

// visit lets visitors ask for URLs, and the origin publish now and then, until the storm is over.
func (c *refreshes) visit(stormy context.Context) {
	if c.h.plan.faults["purges"] == 0 {
		return
	}
	r := c.h.dice.roll("visitors")
	for sleep(stormy, between(r, time.Second, 15*time.Second)) {
		c.mu.Lock()
		urls := slices.Clone(c.urls)
		c.mu.Unlock()
		if len(urls) == 0 {
			continue
		}
		var some []string
		for range 1 + r.IntN(6) {
			some = append(some, urls[r.IntN(len(urls))])
		}
		if r.IntN(8) == 0 {
			c.publish(nil, []v1alpha1.Target{v1alpha1.Target(some[0])})
			c.h.count("refresh: published at any time")
		}
		c.h.edgeOne.Visit(some...)
		c.h.count("refresh: visits")
	}
}

// knows records the spec of a run.
func (c *refreshes) knows(task *userTask) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.specs[taskstate.RunHash(&v1alpha1.PrefetchTask{Spec: task.applied()})] = *task.spec.DeepCopy()
}

// disturb records a fault that may delay the status writes.
func (c *refreshes) disturb(kind string) {
	switch kind {
	case "api-refuse", "api-lose", "api-late", "api-conflict", "watch", "outage", "crash", "stop", "pause", "rival-manager":
		c.disturbFor(0)
	}
}

// disturbFor records that statuses may not be written from now on for d.
func (c *refreshes) disturbFor(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disturbed = append(c.disturbed, period{time.Now(), time.Now().Add(d)})
}

// targetsOf returns the distinct targets of the run of a status, in the order of its positions.
func (c *refreshes) targetsOf(task *v1alpha1.PrefetchTask) (spec v1alpha1.PrefetchTaskSpec, targets []string, ok bool) {
	spec, ok = c.specs[task.Status.Run]
	if !ok {
		return spec, nil, false
	}
	if hash := task.Status.TargetsHash; hash != "" && hash != taskstate.HashTargets(&v1alpha1.PrefetchTask{Spec: spec}) {
		spec.Targets = reverse(spec.Targets)
		if hash != taskstate.HashTargets(&v1alpha1.PrefetchTask{Spec: spec}) {
			return spec, nil, false
		}
	}
	return spec, taskstate.DistinctTargets(&v1alpha1.PrefetchTask{Spec: spec}), true
}

// written judges a status write. The caller holds no lock but the API server's.
func (c *refreshes) written(before, after *v1alpha1.PrefetchTask) {
	if after.Status.Run == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := runIDOf(after)
	spec, targets, ok := c.targetsOf(after)
	if !ok {
		return
	}
	key := after.Namespace + "/" + after.Name
	if c.began[id].IsZero() {
		c.began[id] = time.Now()
		c.started(before, after, spec, targets)
	}
	c.recordJobs(after, spec, id)
	c.claimed(before, after, spec, targets, id)
	if ready := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		c.said[after.UID] = append(c.said[after.UID], statement{
			time.Now(), id, taskstate.RunHash(after) != after.Status.Run,
			saysCold(ready), statusLine(after),
		})
	}
	was, is := meta.IsStatusConditionTrue(before.Status.Conditions, v1alpha1.ConditionFinished) && runIDOf(before) == id, meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionFinished)
	if !was && is != nil && is.Status == metav1.ConditionTrue && is.Reason != v1alpha1.ReasonNotFollowed && spec.Purge.Type != "" {
		c.finished(after, spec, targets, id, key)
	}
}

// recordJobs records as how new the copies of each job count, and those after each purge: as what the
// origin has when the run begins that makes the call.
func (c *refreshes) recordJobs(task *v1alpha1.PrefetchTask, spec v1alpha1.PrefetchTaskSpec, id runID) {
	from := c.freshFrom[task.UID]
	if from == nil {
		from = map[string]time.Time{}
		c.freshFrom[task.UID] = from
	}
	for _, job := range task.Status.Jobs {
		if !from[job.ID].IsZero() {
			continue // kept from the run before
		}
		if from[job.ID] = c.began[id]; job.Adopted {
			from[job.ID] = c.local(spec.FreshSince.Time)
		}
	}
}

// local converts a time of EdgeOne's clock.
func (c *refreshes) local(t time.Time) time.Time {
	return t.Add(time.Since(c.h.edgeOne.Now()))
}

// edge converts a local time to EdgeOne's clock.
func (c *refreshes) edge(t time.Time) time.Time {
	return t.Add(time.Until(c.h.edgeOne.Now()))
}

// mayFail reports whether EdgeOne refuses or fails to purge or to prefetch a target.
func mayFail(target string) bool {
	return strings.Contains(target, failsPurge) || strings.Contains(target, "/refuse/") || strings.Contains(target, "/fail/") || strings.Contains(target, "unknown.example.net")
}

// covers reports whether the purge of a run is about a target.
func covers(spec v1alpha1.PrefetchTaskSpec, target string) bool {
	url := simulator.Canonical(target)
	for _, purged := range spec.Purge.Targets {
		switch spec.Purge.Type {
		case v1alpha1.PurgePrefix:
			if strings.HasPrefix(url, simulator.Canonical(string(purged))) {
				return true
			}
		case v1alpha1.PurgeHost:
			if strings.HasPrefix(url, simulator.Canonical("https://"+string(purged)+"/")) {
				return true
			}
		case v1alpha1.PurgeCacheTag:
			if !strings.Contains(url, "/shared/") { // others may have given them other tags
				return true
			}
		}
	}
	return spec.Purge.Type == v1alpha1.PurgeURL
}

// finished judges the caches when a status says that a run is over.
func (c *refreshes) finished(task *v1alpha1.PrefetchTask, spec v1alpha1.PrefetchTaskSpec, targets []string, id runID, key string) {
	if spec.Purge.Type != v1alpha1.PurgeURL && slices.ContainsFunc(purgeTargetsOf(spec), mayFail) {
		return // nothing is prefetched
	}
	isUnknown := func(target string) bool { return strings.Contains(target, "unknown.example.net") }
	if spec.Purge.Type == v1alpha1.PurgeCacheTag && spec.ZoneID == "*" && slices.ContainsFunc(targets, isUnknown) {
		return // a purge of tags in all zones names the hosts of all targets
	}
	c.h.count("refresh: finished runs with a purge")
	for i, target := range targets {
		if mayFail(target) || !covers(spec, target) {
			continue
		}
		since := c.sinceOf(task, i, id)
		if since.IsZero() {
			c.h.judge.errorf("%s is finished, and no job covers %s", key, target)
			continue
		}
		p := promisedURL{simulator.Canonical(target), key, id, since, time.Now()}
		c.promised = append(c.promised, p)
		c.h.count("refresh: URLs promised to be new")
		seen := c.h.edgeOne.Peek(target)[0]
		if seen.IsOlderThan(c.edge(since)) {
			c.h.judge.errorf("%s is finished, and visitors of %s see version %d, which was replaced before the run: %+v", key, target, seen.Version, seen)
		}
	}
}

// sinceOf returns the time from which on the copy of a position counts as new. The last job that
// covers it decides.
func (c *refreshes) sinceOf(task *v1alpha1.PrefetchTask, position int, id runID) (since time.Time) {
	for _, job := range task.Status.Jobs {
		positions, _ := taskstate.ParsePositions(job.Positions)
		if job.Kind != v1alpha1.JobPurge && slices.Contains(positions, position) {
			since = c.freshFrom[id.uid][job.ID]
		}
	}
	if since.IsZero() {
		return since
	}
	for _, job := range task.Status.Jobs { // a list that is edited keeps the purge of its prefix, host or tag
		if from := c.freshFrom[id.uid][job.ID]; job.Kind == v1alpha1.JobPurge && job.Adopted && from.Before(since) {
			since = from
		}
	}
	return since
}

// claimed judges a claim. A prefetch is claimed only after all purges of its URLs succeeded.
func (c *refreshes) claimed(before, after *v1alpha1.PrefetchTask, spec v1alpha1.PrefetchTaskSpec, targets []string, id runID) {
	claim := after.Status.Submission
	if claim == nil || before.Status.Submission != nil && before.Status.Submission.ClaimID == claim.ClaimID || spec.Purge.Type == "" {
		return
	}
	key := after.Namespace + "/" + after.Name
	positions, _ := taskstate.ParsePositions(claim.Positions)
	if claim.Kind == v1alpha1.JobPurge {
		c.h.count("refresh: claims on purges")
		all, work := targets, map[string]bool{}
		if spec.Purge.Type != v1alpha1.PurgeURL {
			all = purgeTargetsOf(spec)
		}
		for _, i := range positions {
			work[purgeWork(spec.ZoneID, string(spec.Purge.Type), all[i])] = true
		}
		c.claims = append(c.claims, purgeClaim{time.Now(), claim.SignedAt.Time, id, key, work})
		return
	}
	c.h.count("refresh: claims on prefetches after purges")
	ends := c.purgeEnds(after)
	for _, i := range positions {
		needed := []string{targets[i]}
		if spec.Purge.Type != v1alpha1.PurgeURL {
			needed = purgeTargetsOf(spec)
		}
		for _, target := range needed {
			end, isPurged := ends[purgeWork(spec.ZoneID, string(spec.Purge.Type), target)]
			switch {
			case !isPurged:
				c.h.judge.errorf("%s claims the prefetch of %s, but no purge of %s has succeeded", key, targets[i], target)
			case end.After(time.Now()):
				c.h.judge.errorf("%s claims the prefetch of %s, but the purge of %s ends only in %s", key, targets[i], target, time.Until(end))
			case end.Before(c.purgedFrom(after, id)):
				c.staleTolerated(fmt.Sprintf("%s claims the prefetch of %s, but the purge of %s had ended before the run", key, targets[i], target), targets[i])
			}
		}
	}
}

// purgedFrom returns the time before which no purge counts for a run.
func (c *refreshes) purgedFrom(task *v1alpha1.PrefetchTask, id runID) time.Time {
	since := c.began[id]
	for _, job := range task.Status.Jobs {
		if from := c.freshFrom[id.uid][job.ID]; job.Kind == v1alpha1.JobPurge && job.Adopted && from.Before(since) {
			c.h.count("refresh: claims on prefetches after a purge that was kept")
			since = from
		}
	}
	return since
}

// staleTolerated fails the test, unless one call may have been taken for another. EdgeOne's history
// does not show who purges.
func (c *refreshes) staleTolerated(what, target string) {
	if c.h.manyManagers() {
		c.h.count("tolerated: taken for another purge")
		return
	}
	c.h.judge.errorf("%s", what)
}

// purgeEnds returns when the purges end that the status of a task has recorded, by purgeWork. It
// has only those that succeed.
func (c *refreshes) purgeEnds(task *v1alpha1.PrefetchTask) map[string]time.Time {
	ends := map[string]time.Time{}
	for _, e := range c.h.edgeOne.Ledger().Purges() {
		if !slices.ContainsFunc(task.Status.Jobs, func(job v1alpha1.Job) bool { return job.ID == e.JobID && job.Kind == v1alpha1.JobPurge }) {
			continue
		}
		for _, target := range e.Accepted {
			if !strings.Contains(target, failsPurge) {
				ends[purgeWork(e.ZoneID, simulatedTypes[e.Type], target)] = c.local(e.Time).Add(c.h.purgeDuration)
			}
		}
	}
	return ends
}

// started judges the start of a run: what its history shows is not submitted again.
func (c *refreshes) started(before, after *v1alpha1.PrefetchTask, spec v1alpha1.PrefetchTaskSpec, targets []string) {
	task := &v1alpha1.PrefetchTask{Spec: spec}
	isEdit := before.Status.Run != "" && before.Status.Request != "" && before.Status.Request == taskstate.RequestHash(task) &&
		slices.ContainsFunc(before.Status.Jobs, func(job v1alpha1.Job) bool { return job.Kind == v1alpha1.JobPrefetch })
	mayAdopt := taskstate.MayAdopt(task) && !taskstate.HasPurge(task)
	if !isEdit && !taskstate.MayAdopt(task) {
		return
	}
	var kept taskstate.Positions
	for _, job := range after.Status.Jobs {
		positions, _ := taskstate.ParsePositions(job.Positions)
		kept = kept.Union(positions)
	}
	ledger := c.h.edgeOne.Ledger().Prefetches()
	for i, target := range targets {
		isKept := slices.Contains(kept, i)
		switch {
		case isEdit && isKept:
			c.h.count("refresh: URLs kept in an edit of the list")
		case isEdit:
			c.h.count("refresh: URLs new in an edit of the list")
		case isKept:
			c.h.count("refresh: URLs kept since freshSince")
		default:
			c.h.count("refresh: URLs not fresh since freshSince")
		}
		if isKept || mayFail(target) {
			continue
		}
		isSame := sameURL(target)
		for _, e := range ledger {
			isOwn := isEdit && slices.ContainsFunc(before.Status.Jobs, func(job v1alpha1.Job) bool { return job.ID == e.JobID })
			isFresh := mayAdopt && !c.h.manyManagers() && e.ZoneID == spec.ZoneID && e.Time.After(spec.FreshSince.Add(3*time.Second)) && c.h.edgeOne.Now().Sub(e.Time) > 90*time.Second
			if (isOwn || isFresh) && slices.ContainsFunc(e.Accepted, isSame) {
				c.h.judge.errorf("%s/%s starts a run and submits %s again, which job %s prefetched at %s", after.Namespace, after.Name, target, e.JobID, c.local(e.Time).Sub(c.h.began))
				break
			}
		}
	}
}

// judge judges the whole history.
func (c *refreshes) judge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.purgedOnce()
	journal := c.h.edgeOne.Journal()
	c.seenByVisitors(journal)
	c.purgedAfterwards(journal)
	c.coldInSilence(journal)
}

// purgedOnce checks that no run purges twice.
func (c *refreshes) purgedOnce() {
	purged := map[string]int{}
	for _, e := range c.h.edgeOne.Ledger().Purges() {
		// EdgeOne may list it with a time before its claim. Then it does not count: a purge from
		// before the run would leave old copies.
		if c.h.plan.faults["skew"] > 0 && e.Time.Add(-time.Second).Truncate(time.Second).Before(e.SignedAt) {
			c.h.count("tolerated: a purge that may be listed with a time before its claim")
			continue
		}
		for _, target := range e.Accepted {
			purged[purgeWork(e.ZoneID, simulatedTypes[e.Type], target)]++
		}
	}
	for _, work := range slices.Sorted(maps.Keys(purged)) {
		if n, asked := purged[work], c.h.users.purges[work]; n > asked {
			c.h.judge.errorf("purged %d times, asked for %d times: %s", n, asked, work)
		}
	}
}

// seenByVisitors checks that no visitor sees an older version than a status has promised.
func (c *refreshes) seenByVisitors(journal simulator.Journal) {
	byURL := map[string][]promisedURL{}
	for _, p := range c.promised {
		byURL[p.url] = append(byURL[p.url], p)
	}
	for _, e := range journal.Events {
		if e.Kind != simulator.Visited {
			continue
		}
		for _, p := range byURL[e.URL] {
			if e.Time.Before(c.edge(p.at)) {
				continue
			}
			c.h.count("refresh: visits after a promise")
			if !e.Superseded.IsZero() && !e.Superseded.After(c.edge(p.since)) {
				c.h.judge.errorf("%s was finished at %s, and a visitor of %s saw version %d at %s", p.key, p.at.Sub(c.h.began), e.URL, e.Version, c.local(e.Time).Sub(c.h.began))
			}
		}
	}
	for url, promises := range byURL {
		for _, p := range promises {
			if seen := c.h.edgeOne.Peek(url)[0]; seen.IsOlderThan(c.edge(p.since)) {
				c.h.judge.errorf("%s was finished at %s, and at the end visitors of %s see version %d", p.key, p.at.Sub(c.h.began), url, seen.Version)
			}
		}
	}
}

// purgedAfterwards checks that a purge that a task has asked for before its run finished removes
// nothing afterwards.
func (c *refreshes) purgedAfterwards(journal simulator.Journal) {
	byURL := map[string][]promisedURL{}
	for _, p := range c.promised {
		byURL[p.url] = append(byURL[p.url], p)
	}
	executions := map[string]simulator.Execution{}
	for _, e := range c.h.edgeOne.Ledger().Purges() {
		executions[e.JobID] = e
	}
	for _, event := range journal.Events {
		e, isPurge := executions[event.By]
		if !isPurge || event.Kind != simulator.Purged && event.Kind != simulator.Expired {
			continue
		}
		for _, p := range byURL[event.URL] {
			if event.Time.Before(c.edge(p.at)) {
				continue
			}
			owners := c.ownersOf(e)
			if len(owners) == 0 {
				c.h.judge.errorf("job %s purged %s, and no status has claimed it", e.JobID, event.URL)
			}
			isOthers := slices.ContainsFunc(owners, func(o purgeClaim) bool { return o.run.uid != p.run.uid || o.at.After(p.at) })
			if c.h.count("refresh: purged again after a promise"); !isOthers {
				c.h.judge.errorf("%s was finished at %s, and its job %s purged %s at %s", p.key, p.at.Sub(c.h.began), e.JobID, event.URL, c.local(event.Time).Sub(c.h.began))
			}
		}
	}
}

// ownersOf returns the claims that a purge may belong to.
func (c *refreshes) ownersOf(e simulator.Execution) (owners []purgeClaim) {
	for _, claim := range c.claims {
		if claim.signed.Unix() == e.SignedAt.Unix() && slices.ContainsFunc(e.Accepted, func(target string) bool {
			return claim.work[purgeWork(e.ZoneID, simulatedTypes[e.Type], target)]
		}) {
			owners = append(owners, claim)
		}
	}
	return owners
}

// coldFor is how long a purged URL may be cold without a status that says so.
const coldFor = 2 * time.Minute

// coldInSilence checks that a status says so when a task leaves purged URLs cold.
func (c *refreshes) coldInSilence(journal simulator.Journal) {
	executions := map[string]simulator.Execution{}
	for _, e := range c.h.edgeOne.Ledger().Purges() {
		executions[e.JobID] = e
	}
	for _, span := range journal.Cold() {
		e, isPurge := executions[span.By]
		end := journal.ReadAt
		for _, t := range []time.Time{span.HandedOver, span.Filled} {
			if !t.IsZero() && t.Before(end) {
				end = t
			}
		}
		if !isPurge || e.Type != "purge_url" || mayFail(span.URL) {
			continue
		}
		purged := c.local(e.Time).Add(c.h.purgeDuration) // the last purge
		if c.local(end).Sub(purged) <= coldFor {
			continue
		}
		c.h.count("refresh: URLs cold for longer than two minutes")
		for _, owner := range c.ownersOf(e) {
			if owner.work[purgeWork(e.ZoneID, "URL", span.URL)] {
				c.saysCold(owner, span.URL, purged, c.local(end))
			}
		}
	}
}

// saysCold checks what the status of a task says of a URL that it has purged.
func (c *refreshes) saysCold(owner purgeClaim, url string, purged, end time.Time) {
	from := purged.Add(coldFor)
	for _, p := range c.disturbed {
		if p.from.Before(from) && p.to.Add(30*time.Second).After(purged) {
			c.h.count("refresh: cold while statuses could not be written")
			return
		}
	}
	var last statement
	for _, s := range c.said[owner.run.uid] {
		if s.at.Before(from) {
			last = s
		}
	}
	switch {
	case last.run != owner.run || last.isNewRun || !c.isAlive(owner.run.uid):
		c.h.count("refresh: cold, and another run is asked for")
	case last.saysCold:
		c.h.count("refresh: cold, and the status says so")
	default:
		c.h.judge.errorf("%s purged %s at %s, it is cold until %s, and the status does not say so: %s", owner.key, url, purged.Sub(c.h.began), end.Sub(c.h.began), last.line)
	}
}

// isAlive reports whether a task exists at the end.
func (c *refreshes) isAlive(uid types.UID) bool {
	return slices.ContainsFunc(c.h.server.list(), func(task *v1alpha1.PrefetchTask) bool { return task.UID == uid })
}

// countCold counts the tasks with URLs that are purged and not prefetched yet.
func (h *simulation) countCold() (n int) {
	for _, task := range h.server.list() {
		if taskstate.CountCold(task) > 0 {
			n++
		}
	}
	return n
}

// awaitCold sometimes waits for a task that has purged URLs, so that a fault comes between the
// purge and the prefetch.
func (h *simulation) awaitCold(stormy context.Context, r *rand.Rand, fault string) {
	if h.plan.faults["purges"] == 0 || r.IntN(2) == 0 {
		return
	}
	for range 100 {
		if h.countCold() > 0 {
			h.count("refresh: " + fault + " between purge and prefetch")
			return
		}
		if !sleep(stormy, 500*time.Millisecond) {
			return
		}
	}
}

// saysCold reports whether a condition says that targets are purged, or may be, and not prefetched.
func saysCold(ready *metav1.Condition) bool {
	return ready.Reason == v1alpha1.ReasonPurging || strings.Contains(ready.Message, "purged and not prefetched yet") ||
		strings.Contains(ready.Message, "answer to a purge was lost")
}
