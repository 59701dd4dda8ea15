package account

import (
	"hash/maphash"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Usage counts the URLs that EdgeOne accepted today, by account, namespace and zone. It
// counts what the statuses of tasks say: each claim from its write on, and each job. So it
// counts the calls of other processes too, and a call of unknown outcome counts until it is
// known that EdgeOne did not execute it. What is counted stays if the task is deleted or
// starts a new run.
//
// A new process counts the jobs in the statuses of tasks. Jobs of tasks that are gone are in
// the account's status only, so the larger number counts: see Seal. It is safe for concurrent
// use.
type Usage struct {
	reset time.Duration // the time of day (UTC) at which a day begins

	mu       sync.Mutex // a leaf: nothing else is locked while it is held
	seed     maphash.Seed
	day      time.Time // when today began
	counted  map[uint64]bool
	pending  pendingUses
	today    map[string]*accountUse // by account; "" has the tasks that name none; see payerOf
	reported map[string]*accountUse // what the statuses of accounts say; none after Seal
	sealed   bool
	changed  []func(account string) // called without mu
}

// accountUse is what is used of an account today.
type accountUse struct {
	total      int
	namespaces map[string]int
	zones      map[string]int
}

// pendingKey identifies a claim of a task.
type pendingKey struct {
	uid   types.UID
	claim string
}

// pendingUse is what a claim counts.
type pendingUse struct {
	account, namespace, zone string
	urls                     int
}

// pendingUses are the claims that count, by task and claim ID. Most tasks have one at most, and
// thousands of tasks may have one: nothing looks through those of other tasks.
type pendingUses map[types.UID]map[string]pendingUse

func (m pendingUses) get(key pendingKey) (pendingUse, bool) {
	p, ok := m[key.uid][key.claim]
	return p, ok
}

func (m pendingUses) put(key pendingKey, p pendingUse) {
	if m[key.uid] == nil {
		m[key.uid] = map[string]pendingUse{}
	}
	m[key.uid][key.claim] = p
}

func (m pendingUses) remove(key pendingKey) {
	if delete(m[key.uid], key.claim); len(m[key.uid]) == 0 {
		delete(m, key.uid)
	}
}

// NewUsage returns a Usage whose days begin at a time of day (UTC).
func NewUsage(reset time.Duration) *Usage {
	u := &Usage{reset: reset, seed: maphash.MakeSeed(), pending: pendingUses{}}
	u.startDay(u.dayOf(time.Now()))
	return u
}

// Subscribe calls f when there is more left of an account's budgets than before, with the
// name of the account. Call Subscribe before the first change.
func (u *Usage) Subscribe(f func(account string)) { u.changed = append(u.changed, f) }

// dayOf returns when the day of a time began.
func (u *Usage) dayOf(now time.Time) time.Time {
	begin := now.UTC().Truncate(24 * time.Hour).Add(u.reset)
	if begin.After(now) {
		begin = begin.Add(-24 * time.Hour)
	}
	return begin
}

// startDay forgets what was used before. Claims of unknown outcome count on the new day only
// if they are recorded as jobs of it.
func (u *Usage) startDay(day time.Time) {
	u.day, u.counted, u.today, u.reported = day, map[uint64]bool{}, map[string]*accountUse{}, map[string]*accountUse{}
	clear(u.pending)
}

// rollOver starts a new day if it has begun. The caller holds mu.
func (u *Usage) rollOver() {
	if day := u.dayOf(time.Now()); day.After(u.day) {
		u.startDay(day)
	}
}

// NextDay returns when the next day begins.
func (u *Usage) NextDay() time.Time { return u.dayOf(time.Now()).Add(24 * time.Hour) }

// Seal ends the start of a process, whose statuses of tasks and accounts are counted. What
// the status of an account says beyond its tasks is of tasks that are gone, and counts from
// now on together with everything that this process sees. The statuses of accounts count no
// longer. Call Seal when this process may make calls.
func (u *Usage) Seal() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rollOver()
	u.sealed = true
	for account, said := range u.reported {
		counted, use := u.sum(account), u.useOf(account)
		use.total += max(0, said.total-counted.total)
		for name, n := range said.namespaces {
			use.namespaces[name] += max(0, n-counted.namespaces[name])
		}
		for id, n := range said.zones {
			use.zones[id] += max(0, n-counted.zones[id])
		}
	}
	clear(u.reported)
}

// observeStatus takes what another process wrote into the status of an account.
func (u *Usage) observeStatus(account *v1alpha1.EdgeOneAccount) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rollOver()
	status := &account.Status
	if u.sealed || !status.DayStartTime.Time.Equal(u.day) {
		return
	}
	said := useIn(u.reported, account.Name)
	if status.Used != nil {
		said.total = max(said.total, int(*status.Used))
	}
	for _, ns := range status.Namespaces {
		if ns.Used != nil {
			said.namespaces[ns.Name] = max(said.namespaces[ns.Name], int(*ns.Used))
		}
	}
	for _, zone := range status.Zones {
		if zone.Used != nil {
			said.zones[zone.ID] = max(said.zones[zone.ID], int(*zone.Used))
		}
	}
}

// useOf returns what is counted of an account. The caller holds mu.
func (u *Usage) useOf(account string) *accountUse { return useIn(u.today, account) }

// useIn returns the use of an account in a map.
func useIn(uses map[string]*accountUse, account string) *accountUse {
	use := uses[account]
	if use == nil {
		use = newAccountUse()
		uses[account] = use
	}
	return use
}

func newAccountUse() *accountUse {
	return &accountUse{namespaces: map[string]int{}, zones: map[string]int{}}
}

// sum returns what is counted for an account. The caller holds mu, and may change the result.
func (u *Usage) sum(account string) *accountUse {
	all := newAccountUse()
	for _, name := range countedFor(account) {
		if use := u.today[name]; use != nil {
			all.total += use.total
			addCounts(all.namespaces, use.namespaces)
			addCounts(all.zones, use.zones)
		}
	}
	return all
}

// add adds n URLs. The caller holds mu.
func (u *Usage) add(p pendingUse, n int) {
	use := u.useOf(p.account)
	use.total += n
	use.namespaces[p.namespace] += n
	use.zones[p.zone] += n
}

// payerOf returns the name under which the calls of a task count. The calls of a tenant's own
// Secret count under a name that no account has, so that they count for no account if the task
// names one later: whoever may create tasks could otherwise use up the budget of any account.
func payerOf(task *v1alpha1.PrefetchTask) string {
	if key := taskstate.AccountKeyOf(task); key.IsTenants() {
		return key.String()
	}
	return taskstate.AccountKeyOf(task).Account
}

// ObserveJobs counts the jobs in a version of a task, whether or not it is the newest one. If
// the run is over, its claim has ended: the TaskStore may never see this version.
func (u *Usage) ObserveJobs(task *v1alpha1.PrefetchTask) {
	isOver := task.Status.Submission == nil && taskstate.IsRunOver(task)
	if len(task.Status.Jobs) == 0 && !isOver {
		return
	}
	for _, account := range u.observe(task, isOver) {
		for _, f := range u.changed {
			f(account)
		}
	}
}

// observe is ObserveJobs. It returns the accounts that have more left than before.
func (u *Usage) observe(task *v1alpha1.PrefetchTask, isOver bool) (refunded []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rollOver()
	u.countJobs(task)
	if !isOver {
		return nil
	}
	for _, p := range u.pending[task.UID] {
		u.add(p, -p.urls)
		refunded = append(refunded, p.account)
	}
	delete(u.pending, task.UID)
	return refunded
}

// countJobs counts the jobs of a task that are not counted yet. A job of a claim that counts
// today does so too, whatever its time. The caller holds mu.
func (u *Usage) countJobs(task *v1alpha1.PrefetchTask) {
	replaced := map[string]bool{} // claims that jobs have replaced; several jobs may share one
	for i := len(task.Status.Jobs) - 1; i >= 0; i-- {
		job := &task.Status.Jobs[i]
		if job.Kind == v1alpha1.JobPurge || job.ClaimID == taskstate.HistoryClaim {
			continue // budgets count prefetches that the task has submitted
		}
		claim := pendingKey{task.UID, job.ClaimID}
		known, isPending := u.pending.get(claim)
		if job.SubmitTime.Time.Before(u.day) && !isPending && !replaced[job.ClaimID] {
			continue
		}
		key := maphash.Comparable(u.seed, pendingKey{task.UID, job.ClaimID + "/" + job.ID})
		if u.counted[key] {
			continue
		}
		u.counted[key] = true
		p := pendingUse{payerOf(task), task.Namespace, task.Spec.ZoneID, 0}
		if isPending { // its claim is counted: replace it
			u.pending.remove(claim)
			u.add(known, -known.urls)
			p.account, p.zone = known.account, known.zone
			replaced[job.ClaimID] = true
		}
		u.add(p, taskstate.ChargedURLs(job.Positions, job.SharedURLs))
	}
}

// OnTaskChange takes a change of the newest version of a task: before is nil for a new task,
// and after is nil for a task that is gone. It is a subscriber of the kube.TaskStore.
func (u *Usage) OnTaskChange(before, after *v1alpha1.PrefetchTask) {
	for _, account := range u.count(before, after) {
		for _, f := range u.changed {
			f(account)
		}
	}
}

// count is OnTaskChange. It returns the accounts that have more left than before: that of the
// task, or that of its claim, which the task may have left.
func (u *Usage) count(before, after *v1alpha1.PrefetchTask) (refunded []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rollOver()
	if after == nil {
		if before != nil && before.Status.Submission != nil { // its call stays counted
			u.pending.remove(pendingKey{before.UID, before.Status.Submission.ClaimID})
		}
		return nil
	}
	account := payerOf(after)
	used := u.usedBy(account, before)
	u.countJobs(after)
	if claim := after.Status.Submission; claim != nil && claim.Kind == v1alpha1.JobPrefetch {
		key := pendingKey{after.UID, claim.ClaimID}
		if _, known := u.pending.get(key); !known && (isNewClaim(before, after) || !claim.SignedAt.Time.Before(u.day)) {
			p := pendingUse{account, after.Namespace, claim.ZoneID, taskstate.ChargedURLs(claim.Positions, claim.SharedURLs)}
			u.pending.put(key, p)
			u.add(p, p.urls)
		}
	}
	if before != nil && before.UID == after.UID && before.Status.Submission != nil {
		u.endClaim(before, after)
	}
	for name, n := range used {
		if u.useOf(name).total < n {
			refunded = append(refunded, name)
		}
	}
	return refunded
}

// isNewClaim reports whether the claim of a task was written just now. It counts today even if
// it was signed before the day began: EdgeOne's clock is read from answers in whole seconds, so
// it is late, and the first calls of a day would not count otherwise.
func isNewClaim(before, after *v1alpha1.PrefetchTask) bool {
	return before != nil && before.UID == after.UID &&
		(before.Status.Submission == nil || before.Status.Submission.ClaimID != after.Status.Submission.ClaimID)
}

// usedBy returns what is used of an account, and of that of the claim of a task. The caller
// holds mu.
func (u *Usage) usedBy(account string, before *v1alpha1.PrefetchTask) map[string]int {
	used := map[string]int{account: u.useOf(account).total}
	if before != nil && before.Status.Submission != nil {
		if p, ok := u.pending.get(pendingKey{before.UID, before.Status.Submission.ClaimID}); ok {
			used[p.account] = u.useOf(p.account).total
		}
	}
	return used
}

// endClaim removes the claim of the version before, if the version after does not have it. If
// the run is the same, EdgeOne did not execute the call, so it no longer counts. If there is
// a new run, nobody knows, so it still does. The caller holds mu.
func (u *Usage) endClaim(before, after *v1alpha1.PrefetchTask) {
	key := pendingKey{before.UID, before.Status.Submission.ClaimID}
	p, ok := u.pending.get(key)
	if !ok || after.Status.Submission != nil && after.Status.Submission.ClaimID == key.claim {
		return
	}
	u.pending.remove(key)
	if before.Status.Run == after.Status.Run {
		u.add(p, -p.urls)
	}
}
