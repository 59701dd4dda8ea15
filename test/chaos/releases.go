package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/judge"
)

// Releases are tasks that purge, or that say since when a copy is fresh. They have a zone of their
// own: a prefetch by another task under way during a purge may store an older copy. All the while,
// visitors visit their URLs, and EdgeOne stores what they get from the origin.

var refreshZone = zone{"zone-5fresh000000", "fresh.example.com", false, false}

const (
	// coldLimit is how long a URL may be purged and not prefetched without a status that says so.
	coldLimit = 2 * time.Minute
	// visitedURLs is how many URLs of the latest releases visitors visit again and again.
	visitedURLs = 200
)

// release publishes a new version of some URLs, and creates the task that refreshes them.
func (u *users) release(ctx context.Context) {
	owner := namespaces[u.rng.IntN(2)] // both have keys of the zone's account
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: owner.name, Name: fmt.Sprintf("task-%05d", u.done["created"])}}
	task.Spec.CredentialsSecretRef.Name, task.Spec.ZoneID = owner.secret, refreshZone.id
	u.runs++
	u.bases++
	base := fmt.Sprintf("https://%s/%s/%s/run-%d/", refreshZone.host, task.Namespace, task.Name, u.bases)
	n := 1 + u.rng.IntN(3)
	if u.rng.Float64() < 0.1 {
		n = 2*smallBatch + u.rng.IntN(smallBatch)
	}
	for i := range n {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprint(base, i)))
	}
	switch r := u.rng.Float64(); {
	case r < 0.7:
		task.Spec.Purge.Type = v1alpha1.PurgeURL
	case r < 0.85:
		task.Spec.Purge = v1alpha1.Purge{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{v1alpha1.PurgeTarget(base)}}
	}
	if task.Spec.Purge.Type == "" || u.rng.Float64() < 0.3 {
		task.Spec.FreshSince = metav1.NewTime(u.edgeOne.Now().Truncate(time.Second))
	}
	u.edgeOne.Warm(simulator.Selection{URLs: targetsOf(task)})
	u.publish(task)
	u.ask(task)
	u.mu.Lock()
	u.recent = append(u.recent, client.ObjectKeyFromObject(task))
	u.visited = append(u.visited, targetsOf(task)...)
	u.mu.Unlock()
	u.finish(ctx, "created", task, false, u.creates(task))
}

// releaseAgain publishes another version of the URLs of a release, and asks for a new run.
func (u *users) releaseAgain(task *v1alpha1.PrefetchTask) {
	u.publish(task)
	u.runs++
	if !task.Spec.FreshSince.IsZero() {
		task.Spec.FreshSince = metav1.NewTime(u.edgeOne.Now().Truncate(time.Second))
	}
	task.Spec.Revision = fmt.Sprintf("r%d", u.runs)
	u.ask(task)
}

func (u *users) publish(task *v1alpha1.PrefetchTask) {
	u.edgeOne.Publish(simulator.Publication{Selection: simulator.Selection{URLs: targetsOf(task)}})
}

func targetsOf(task *v1alpha1.PrefetchTask) (urls []string) {
	for _, target := range task.Spec.Targets {
		urls = append(urls, string(target))
	}
	return urls
}

// visitReleases visits the URLs of the latest releases until ctx is done. Every second visitor is one
// for whom EdgeOne stores nothing.
func (u *users) visitReleases(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		u.mu.Lock()
		urls := append([]string{}, u.visited[max(0, len(u.visited)-visitedURLs):]...)
		u.mu.Unlock()
		u.edgeOne.VisitWith(simulator.Visit{URLs: urls, NoFill: n%2 == 0})
		lasting(ctx, time.Second)
	}
}

// judgeReleases visits all URLs of releases once more, and compares what visitors and the cache saw with
// what the statuses said at that time. The last figures of each task must have been seen by then.
func (c *chaos) judgeReleases() ([]judge.Defect, judge.RefreshCounts) {
	c.endVisits()
	c.visits.Wait()
	c.edgeOne.Visit(c.users.visited...)
	journal := c.edgeOne.Journal()
	if journal.Dropped > 0 {
		c.fail(fmt.Errorf("the journal of EdgeOne's cache is too short: %d events are missing", journal.Dropped))
	}
	c.users.mu.Lock()
	defer c.users.mu.Unlock()
	return judge.FindRefreshDefects(judge.RefreshEvidence{
		Ledger: c.edgeOne.Ledger(), Journal: journal, Sightings: c.seen.releases.Sightings(),
		ColdLimit: coldLimit, TimeSkew: createTimeSkew + c.dateSkew().Abs(), Asked: c.users.asked,
	})
}
