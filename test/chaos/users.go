package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/judge"
)

// The namespaces and the keys that they use: the operator's own key, another key of the
// same account, and a key of another account.
var namespaces = []struct{ name, secret string }{{"chaos-own", ""}, {"chaos-team", "team-key"}, {"chaos-tenant", "tenant-key"}}

// zone is an EdgeOne site.
type zone struct {
	id, host string
	tenant   bool // belongs to the tenant's account
	edge     bool // Mode Edge is enabled
}

var zones = []zone{
	{"zone-1shop0000000", "shop.example.com", false, true},
	{"zone-2media000000", "media.example.com", false, false},
	{"zone-3small000000", "small.example.com", false, false}, // few URLs per call
	{"zone-4tenant00000", "tenant.example.org", true, true},
	refreshZone,
}

const (
	smallBatch = 20
	// sharedURLs is how many URLs of a zone are requested by many tasks.
	sharedURLs = 40
)

// answer returns how EdgeOne responds to a URL. See rules and foreign.
func answer(url string) judge.Answer {
	switch {
	case strings.Contains(url, "/refused/"), strings.Contains(url, foreign):
		return judge.Refused
	case strings.Contains(url, "/broken/"):
		return judge.Fails
	}
	return judge.Succeeds
}

// foreign is a host that no zone serves. One such URL makes the whole call fail.
const foreign = "elsewhere.test"

func rules(listingDelay time.Duration) []simulator.Rule {
	return []simulator.Rule{
		{URL: "/refused/", Refuse: "not allowed"},
		{URL: "/broken/", Status: "failed", FailType: "OriginError", ListingDelay: listingDelay},
		{URL: "", ListingDelay: listingDelay},
	}
}

// users create tasks and change their minds.
type users struct {
	client.Client
	rng     *rand.Rand // used by the deciding goroutine only
	working context.Context

	mu      sync.Mutex
	tasks   map[client.ObjectKey]*v1alpha1.PrefetchTask // as last written by the users
	recent  []client.ObjectKey
	asked   map[string]int
	changed map[client.ObjectKey]bool // edited, suspended or deleted at least once
	runs    int                       // number of requested runs
	bases   int                       // number of different target lists
	done    map[string]int            // how often users did what
	group   sync.WaitGroup

	edgeOne *simulator.Simulator
	visited []string // URLs of releases
}

func newUsers(c client.Client, edgeOne *simulator.Simulator, seed uint64) *users {
	return &users{
		Client: c, edgeOne: edgeOne, rng: rand.New(rand.NewPCG(seed, 2)),
		tasks: map[client.ObjectKey]*v1alpha1.PrefetchTask{}, asked: map[string]int{}, changed: map[client.ObjectKey]bool{}, done: map[string]int{},
	}
}

// live lets users act until ctx is done. Operations that have started continue with the
// context later. Users create no tasks while enough returns true.
func (u *users) live(ctx, later context.Context, enough func() bool) {
	defer u.group.Wait()
	u.working = ctx
	for tick := 0; ; tick++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		create := !enough()
		if create && tick%100 == 50 { // a release that warms the cache for hundreds of pages
			for range 40 + u.rng.IntN(160) {
				u.create(later)
			}
		}
		if create && u.rng.Float64() < 0.6 {
			u.create(later)
		}
		if create && u.rng.Float64() < 0.1 {
			u.release(later)
		}
		for _, act := range []struct {
			chance float64
			do     func(context.Context, *v1alpha1.PrefetchTask)
		}{{0.15, u.edit}, {0.06, u.suspend}, {0.06, u.resume}, {0.05, u.remove}, {0.03, u.recreate}, {0.04, u.detour}} {
			if u.rng.Float64() < act.chance {
				if task := u.pick(); task != nil {
					act.do(later, task)
				}
			}
		}
	}
}

// pick chooses a task, usually a recent one. No other operation can pick the task until
// finish puts it back.
func (u *users) pick() *v1alpha1.PrefetchTask {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.recent) == 0 {
		return nil
	}
	from := 0
	if u.rng.Float64() < 0.7 {
		from = max(0, len(u.recent)-50)
	}
	key := u.recent[from+u.rng.IntN(len(u.recent)-from)]
	task := u.tasks[key]
	delete(u.tasks, key) // nil if another change of the task is in progress, or the task is gone
	return task
}

// finish carries out a user's operation in the background, with as many attempts as
// necessary.
func (u *users) finish(ctx context.Context, what string, task *v1alpha1.PrefetchTask, gone bool, do func(context.Context) error) {
	key := client.ObjectKeyFromObject(task)
	u.mu.Lock()
	u.done[what]++
	u.changed[key] = u.changed[key] || what != "created"
	u.mu.Unlock()
	u.group.Go(func() {
		if !insist(ctx, do) {
			return
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if !gone {
			u.tasks[key] = task
		}
	})
}

// insist repeats do until it succeeds or ctx is done.
func insist(ctx context.Context, do func(context.Context) error) bool {
	for {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := do(attempt)
		cancel()
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (u *users) create(ctx context.Context) {
	owner := namespaces[u.rng.IntN(len(namespaces))]
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: owner.name, Name: fmt.Sprintf("task-%05d", u.done["created"])}}
	task.Spec.CredentialsSecretRef.Name = owner.secret
	var own []zone
	for _, z := range zones {
		if z.tenant == (owner.name == "chaos-tenant") && z != refreshZone {
			own = append(own, z)
		}
	}
	z := own[u.rng.IntN(len(own))]
	task.Spec.ZoneID = z.id
	u.semantics(task, z)
	u.newTargets(task)
	u.mu.Lock()
	u.recent = append(u.recent, client.ObjectKeyFromObject(task))
	u.mu.Unlock()
	u.finish(ctx, "created", task, false, u.creates(task))
}

// creates returns an operation that creates a task. A task that already exists comes from
// an earlier attempt whose response was lost.
func (u *users) creates(task *v1alpha1.PrefetchTask) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := u.Create(ctx, task.DeepCopy()); !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	}
}

// semantics gives the task one of the lanes of its zone.
func (u *users) semantics(task *v1alpha1.PrefetchTask, z zone) {
	task.Spec.Mode, task.Spec.Headers = "", nil
	if z.edge && u.rng.Float64() < 0.25 {
		task.Spec.Mode = v1alpha1.ModeEdge
	}
	if u.rng.Float64() < 0.25 {
		task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "Accept-Encoding", Value: []string{"br", "gzip"}[u.rng.IntN(2)]}}
	}
}

// newTargets gives the task targets that no other task has requested, and a few shared
// ones.
func (u *users) newTargets(task *v1alpha1.PrefetchTask) {
	u.runs++
	u.otherTargets(task)
	u.ask(task)
}

func (u *users) otherTargets(task *v1alpha1.PrefetchTask) {
	host := zones[slices.IndexFunc(zones, func(z zone) bool { return z.id == task.Spec.ZoneID })].host
	u.bases++
	base := fmt.Sprintf("https://%s/%s/%s/run-%d/", host, task.Namespace, task.Name, u.bases)
	n := 1 + u.rng.IntN(3)
	if u.rng.Float64() < 0.05 {
		n = 20 + u.rng.IntN(40)
	}
	targets := map[string]bool{}
	for i := range n {
		targets[fmt.Sprintf("%s%d", base, i)] = true
	}
	if u.rng.Float64() < 0.3 {
		for range 1 + u.rng.IntN(3) {
			targets[spelled(host, u.rng)] = true
		}
	}
	for _, odd := range []struct {
		target string
		chance float64
	}{{base + "refused/x", 0.02}, {base + "broken/x", 0.02}, {"https://" + foreign + "/" + task.Name, 0.005}} {
		if u.rng.Float64() < odd.chance {
			targets[odd.target] = true
		}
	}
	task.Spec.Targets = nil
	for _, target := range slices.Sorted(maps.Keys(targets)) {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(target))
	}
}

// ask records a run before it is written, so that asked is never too low.
func (u *users) ask(task *v1alpha1.PrefetchTask) {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked := map[string]bool{}
	for _, target := range task.Spec.Targets {
		asked[simulator.Canonical(string(target))] = true
	}
	for url := range asked {
		u.asked[url]++
	}
}

// spelled returns a URL that many tasks request, in one of several spellings.
func spelled(host string, rng *rand.Rand) string {
	n := rng.IntN(sharedURLs)
	return fmt.Sprintf([]string{"https://%s/shared/%d/中", "https://%s/shared/%d/%%E4%%B8%%AD", "https://%s:443/shared/%d/%%e4%%b8%%ad"}[rng.IntN(3)], host, n)
}

// edit changes the targets, or how they are fetched. Both result in a new run.
func (u *users) edit(ctx context.Context, task *v1alpha1.PrefetchTask) {
	before := task.DeepCopy()
	if task.Spec.ZoneID == refreshZone.id {
		u.releaseAgain(task)
	} else if u.rng.Float64() < 0.8 {
		u.newTargets(task)
	} else {
		task.Spec.Revision = fmt.Sprintf("r%d", u.runs)
		u.semantics(task, zones[slices.IndexFunc(zones, func(z zone) bool { return z.id == task.Spec.ZoneID })])
		u.runs++
		u.ask(task)
	}
	u.finish(ctx, "edited", task, false, u.patches(task, before))
}

func (u *users) patches(task, before *v1alpha1.PrefetchTask) func(context.Context) error {
	return func(ctx context.Context) error { return u.Patch(ctx, task.DeepCopy(), client.MergeFrom(before)) }
}

func (u *users) suspend(ctx context.Context, task *v1alpha1.PrefetchTask) {
	before := task.DeepCopy()
	task.Spec.Suspend = ptr.To(true)
	u.finish(ctx, "suspended", task, false, u.patches(task, before))
}

// resume resumes the task if it is suspended.
func (u *users) resume(ctx context.Context, task *v1alpha1.PrefetchTask) {
	if task.Spec.Suspend == nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.tasks[client.ObjectKeyFromObject(task)] = task
		return
	}
	before := task.DeepCopy()
	task.Spec.Suspend = nil
	u.finish(ctx, "resumed", task, false, u.patches(task, before))
}

func (u *users) remove(ctx context.Context, task *v1alpha1.PrefetchTask) {
	u.finish(ctx, "deleted", task, true, u.deletes(task))
}

func (u *users) deletes(task *v1alpha1.PrefetchTask) func(context.Context) error {
	return func(ctx context.Context) error { return client.IgnoreNotFound(u.Delete(ctx, task.DeepCopy())) }
}

// recreate deletes the task and creates it again at once, with the same name and targets.
// The new task has its own run.
func (u *users) recreate(ctx context.Context, task *v1alpha1.PrefetchTask) {
	u.ask(task)
	u.runs++
	deleted := false
	u.finish(ctx, "recreated", task, false, func(ctx context.Context) error {
		if !deleted { // only once: a second delete could delete the new task
			if err := u.deletes(task)(ctx); err != nil {
				return err
			}
			deleted = true
		}
		return u.creates(task)(ctx)
	})
}

// detour changes the targets of a task while it is suspended, and then changes them back.
// The run stays the same, and the other targets must never be submitted.
func (u *users) detour(ctx context.Context, task *v1alpha1.PrefetchTask) {
	if task.Spec.Suspend != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.tasks[client.ObjectKeyFromObject(task)] = task
		return
	}
	other := task.DeepCopy()
	other.Spec.Suspend = ptr.To(true)
	u.otherTargets(other)
	length := time.Duration(u.rng.Int64N(int64(validity + margin + 3*time.Second)))
	away := false
	u.finish(ctx, "detoured", task, false, func(ctx context.Context) error {
		if !away {
			if err := u.patches(other, task)(ctx); err != nil {
				return err
			}
			away = true
			lasting(u.working, length)
			return errors.New("on the way back")
		}
		return u.patches(task, other)(ctx)
	})
}

// resumeMost resumes four of five suspended tasks at the end.
func (u *users) resumeMost(ctx context.Context) {
	u.mu.Lock()
	var suspended []*v1alpha1.PrefetchTask
	for _, task := range u.tasks {
		if ptr.Deref(task.Spec.Suspend, false) {
			suspended = append(suspended, task)
		}
	}
	u.mu.Unlock()
	for _, task := range suspended {
		if u.rng.Float64() < 0.8 {
			u.resume(ctx, task)
		}
	}
	u.group.Wait()
}

// summary returns how often users did what, and how many runs and URLs they requested.
func (u *users) summary() (done map[string]int, runs, urls int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.done), u.runs, len(u.asked)
}
