package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

// TestModel drives a queue with random tasks, edits, responses and faults. After each
// step, it checks the invariants of the queue. After the faults stop, every task must
// finish.
func TestModel(t *testing.T) {
	for seed := range uint64(150) {
		m := &model{world: newWorld(t), r: rand.New(rand.NewPCG(seed, 2))}
		m.q.limits.Batch, m.q.limits.TasksPerCall = 1+m.r.IntN(12), 1+m.r.IntN(6)
		m.batch = []int{0, 0, 3, 5}[m.r.IntN(4)]
		m.unread = m.r.IntN(3) == 0
		if m.r.IntN(2) == 0 {
			m.useAccount("ns0", "ns1", "ns2")
		}
		for range 300 {
			m.step()
			m.check()
		}
		m.calm()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

type flight struct {
	call   *Call
	before []types.UID
}

type lostFlight struct {
	tasks    []*v1alpha1.PrefetchTask
	claimID  string
	executed bool
	refund   func()
}

type model struct {
	*world
	r       *rand.Rand
	flights []flight
	lost    []lostFlight
}

var bads = []string{"https://a.example/3", "https://foreign.example/1"}

func (m *model) task() *v1alpha1.PrefetchTask {
	task := taskstatetest.NewTask(fmt.Sprintf("ns%d/t%d", m.r.IntN(3), m.r.IntN(8)))
	for range 1 + m.r.IntN(9) {
		host := "a.example"
		if m.r.IntN(8) == 0 {
			host = "foreign.example"
		}
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("https://%s/%d", host, m.r.IntN(30))))
	}
	if m.r.IntN(4) == 0 {
		taskstatetest.UseEdgeMode(task)
	}
	return task
}

func (m *model) step() {
	m.now = m.now.Add(time.Duration(m.r.IntN(200)) * time.Millisecond)
	switch n := m.r.IntN(20); {
	case n < 3:
		if task := m.task(); m.live[keyOf(task)] == nil {
			m.set(task)
		}
	case n < 5:
		if task := m.any(); task != nil {
			task = task.DeepCopy()
			[]func(*v1alpha1.PrefetchTask){taskstatetest.Revise, taskstatetest.Suspend, taskstatetest.Resume, taskstatetest.UseEdgeMode}[m.r.IntN(4)](task)
			m.set(task)
		}
	case n == 5:
		if task := m.any(); task != nil {
			delete(m.live, keyOf(task))
			m.q.RemoveTask(keyOf(task), m.now)
			if m.r.IntN(2) == 0 { // recreated at once
				again := task.DeepCopy()
				again.UID, again.Status = types.UID(fmt.Sprint("again", m.rv)), v1alpha1.PrefetchTaskStatus{ObservedGeneration: -1}
				m.set(again)
			}
		}
	case n == 6 && m.account != nil && m.r.IntN(2) == 0:
		m.changeAccount()
	case n == 6:
		m.hold()
	case n == 7:
		m.q.WaitingStatuses(3, m.now)
	case n == 8:
		m.settleOne()
	case n < 14:
		m.plan()
	default:
		m.land()
	}
}

func (m *model) hold() {
	until := m.now.Add(time.Duration(m.r.IntN(3000)) * time.Millisecond)
	why := taskstate.Cause{Reason: "Trouble", Message: "trouble", NeedsUser: m.r.IntN(2) == 0}
	switch m.r.IntN(4) {
	case 0:
		m.q.BackOffAccount(why, m.now, until)
	case 1:
		m.q.BackOffZone("zone-1", why, m.now, until)
	case 2:
		for lane := range m.q.lanes {
			m.q.BackOffLane(lane, why, m.now, until)
			break
		}
	case 3:
		m.q.limits.QuotaInterval = time.Second
		m.quota = m.r.IntN(20)
	}
}

// changeAccount changes a rule of the account.
func (m *model) changeAccount() {
	a, namespace := m.account, fmt.Sprintf("ns%d", m.r.IntN(3))
	switch m.r.IntN(4) {
	case 0:
		a.allowed[namespace] = !a.allowed[namespace]
	case 1:
		a.budget = m.r.IntN(60) - 1
	case 2:
		a.budgets[namespace] = m.r.IntN(30)
	case 3:
		delete(a.budgets, namespace)
	}
	m.q.Readmit("", m.now)
}

// checkAccount verifies that a planned call is within the rules of the account.
func (m *model) checkAccount(call *Call) {
	a := m.account
	if a == nil {
		return
	}
	planned, by := 0, map[string]int{}
	for _, f := range append(slices.Clone(m.flights), flight{call: call}) {
		for namespace, n := range f.call.planned {
			planned += n
			by[namespace] += n
		}
	}
	for _, part := range call.Parts {
		if !a.allowed[part.Task.Namespace] {
			m.Errorf("a call of %s, which is not allowed", part.Task.Namespace)
		}
	}
	if sum := 0; call.Refusal == "" {
		for namespace, n := range call.planned {
			sum += n
			if limit, ok := a.budgets[namespace]; ok && a.usedBy[namespace]+by[namespace] > limit {
				m.Errorf("%s uses %d of %d", namespace, a.usedBy[namespace]+by[namespace], limit)
			}
		}
		if sum != len(call.URLs) {
			m.Errorf("%d of %d URLs are counted", sum, len(call.URLs))
		}
	}
	if a.budget >= 0 && a.used+planned > a.budget && len(call.planned) > 0 {
		m.Errorf("%d of %d URLs are used", a.used+planned, a.budget)
	}
}

func (m *model) any() *v1alpha1.PrefetchTask {
	var keys []types.NamespacedName
	for key := range m.live {
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, func(a, b types.NamespacedName) int { return slices.Compare([]byte(a.String()), []byte(b.String())) })
	return m.live[keys[m.r.IntN(len(keys))]]
}

func (m *model) plan() (Decision, bool) {
	d := m.q.PlanNext(m.now)
	switch {
	case d.ReadQuota != "":
		m.readQuota(d.ReadQuota)
	case d.Call != nil:
		f := flight{call: d.Call}
		m.checkAccount(d.Call)
		if size := len(d.Call.URLs); size > m.q.limits.Batch && m.batch == 0 {
			m.Errorf("a call of %d URLs", size)
		}
		for _, part := range d.Call.Parts {
			f.before = append(f.before, part.Task.UID)
			if len(part.Positions) == 0 {
				m.Errorf("%s has nothing in its call", part.Task.Name)
			}
			for _, other := range m.flights {
				for _, p := range other.call.Parts {
					if keyOf(p.Task) == keyOf(part.Task) {
						m.Errorf("%s is in two calls", part.Task.Name)
					}
				}
			}
		}
		for _, other := range m.flights {
			if other.call.Lane == d.Call.Lane && other.call.Refusal == "" && d.Call.Refusal == "" && other.call.test == d.Call.test {
				m.Errorf("two calls of a lane are unanswered")
			}
		}
		m.flights = append(m.flights, f)
	default:
		return d, false
	}
	return d, true
}

func (m *model) land() {
	if len(m.flights) == 0 {
		return
	}
	i := m.r.IntN(len(m.flights))
	call := m.flights[i].call
	m.flights = slices.Delete(m.flights, i, i+1)
	m.bad, m.foreign = map[string]bool{bads[0]: true}, ""
	if len(call.URLs) > 0 && slices.ContainsFunc(call.URLs, func(u string) bool { return hostOfURL(u) == "foreign.example" }) {
		m.foreign = "foreign.example"
	}
	switch n := m.r.IntN(10); {
	case call.Refusal != "" || n > 2:
		m.answer(call)
	case n == 0: // the response is lost
		claimID, tasks := m.claim(call)
		refund := m.charge(call)
		wrong := slices.ContainsFunc(call.URLs, func(u string) bool { return u == bads[0] || hostOfURL(u) == "foreign.example" })
		executed := m.r.IntN(2) == 0 && !wrong
		if executed {
			m.execute(call, claimID, tasks)
		}
		if !slices.ContainsFunc(tasks, func(task *v1alpha1.PrefetchTask) bool { return has(task, claimID) }) {
			m.q.ReleaseURLs(claimID, m.now)
			m.q.RecordReleased(call, m.newest(call), m.now)
			refund()
			return
		}
		m.lost = append(m.lost, lostFlight{slices.Clone(tasks), claimID, executed, refund})
		m.q.TrackLostCall(call, claimID, m.newest(call), m.now)
	default: // EdgeOne did not execute the call
		claimID, tasks := m.claim(call)
		defer m.charge(call)()
		m.settle(tasks, claimID, unchanged)
		m.q.ReleaseURLs(claimID, m.now)
		m.q.BackOffLane(call.Lane, taskstate.Cause{Reason: "Throttled"}, m.now, m.now.Add(100*time.Millisecond))
		m.q.RecordReleased(call, m.newest(call), m.now)
	}
}

func (m *model) settleOne() {
	if len(m.lost) == 0 {
		return
	}
	l := m.lost[0]
	m.lost = m.lost[1:]
	m.find(l.tasks, l.claimID, l.executed)
	if !l.executed {
		l.refund()
	}
}

// check verifies the invariants of the queue.
func (m *model) check() {
	count := map[*queueItem]int{}
	for _, l := range m.q.lanesWithSuspects {
		if len(l.suspects)+len(l.postponed) > 0 && m.q.lanes[l.BatchKey] != l {
			m.Errorf("a lane with %d groups is forgotten", len(l.suspects)+len(l.postponed))
		}
		for _, g := range l.suspects {
			for _, s := range g {
				if s.isCurrent() {
					count[s.item]++
				}
			}
		}
	}
	for _, l := range m.q.lanes {
		for g := range l.postponed {
			for _, s := range *g {
				if s.isCurrent() {
					count[s.item]++
				}
			}
		}
	}
	for _, f := range m.flights {
		for _, s := range f.call.suspects {
			if s.isCurrent() {
				count[s.item]++
			}
		}
	}
	for key, it := range m.q.items {
		places := 0
		for _, in := range []bool{it.queue != nil, it.inFlight, it.blockedBy != nil, it.suspectGroups > 0 && !it.inFlight} {
			if in {
				places++
			}
		}
		if places > 1 || places == 0 && taskstate.IsWaiting(it.task, v1alpha1.JobPrefetch) && m.q.returnedCalls[key] == nil && it.denied.Reason == "" || places > 0 && !it.inFlight && it.denied.Reason != "" {
			m.Errorf("%s is in %d places: line %v, in flight %v, parked %v, suspects %d", key, places, it.queue != nil, it.inFlight, it.blockedBy != nil, it.suspectGroups)
		}
		if it.suspectGroups != count[it] {
			m.Errorf("%s counts %d groups and is in %d", key, it.suspectGroups, count[it])
		}
		if it.queue != nil && m.q.lanes[it.lane.BatchKey] != it.lane {
			m.Errorf("%s stands in a lane that is forgotten", key)
		}
	}
}

// calm stops the faults and continues until every task has finished.
func (m *model) calm() {
	m.quota = -1
	if m.account != nil {
		m.useAccount("ns0", "ns1", "ns2")
		m.q.Readmit("", m.now)
	}
	for i := 0; ; i++ {
		if i > 20000 {
			m.Errorf("%d tasks do not end", m.open())
			return
		}
		for len(m.flights) > 0 {
			f := m.flights[0]
			m.flights = m.flights[1:]
			m.bad, m.foreign = map[string]bool{bads[0]: true}, ""
			if slices.ContainsFunc(f.call.URLs, func(u string) bool { return hostOfURL(u) == "foreign.example" }) {
				m.foreign = "foreign.example"
			}
			m.answer(f.call)
		}
		for len(m.lost) > 0 {
			m.settleOne()
		}
		m.check()
		if m.Failed() {
			return
		}
		d, more := m.plan()
		switch {
		case more:
			m.now = m.now.Add(50 * time.Millisecond)
		case d.Wait > 0:
			m.now = m.now.Add(d.Wait)
		default:
			for key, task := range m.live {
				if taskstate.IsWaiting(task, v1alpha1.JobPrefetch) {
					m.Errorf("%s waits for ever: %+v", key, m.q.items[key])
				}
			}
			if n := len(m.q.reservations) + len(m.q.reservedURLs); n > 0 {
				m.Errorf("%d claims and URLs are held for ever", n)
			}
			return
		}
	}
}
