package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/judge"
)

// hundreds is the number of tasks that share the faulty call, in tests where the number
// matters.
const hundreds = 200

// few is the number of tasks in tests where the number does not matter.
const few = 20

// patient configures an EdgeOne that leaves enough time to claim hundreds of tasks on a
// busy machine.
func patient() simulator.Config {
	c := config()
	c.SignatureValidity = 20 * time.Second
	return c
}

// patientFlags are for managers that must not give up a call with a late response on a
// busy machine.
var patientFlags = []string{"--teo-timeout=15s", "--shutdown-grace=1m"}

// patience is how long a test waits for something that must happen. Nothing should take a
// tenth of this time, but a busy machine must not look like a stuck task.
const patience = 10 * time.Minute

// unhurried is for tests in which no claim expires and no test waits for that. What a test
// holds is not given up, however busy the machine is.
func unhurried() simulator.Config {
	c := config()
	c.SignatureValidity = time.Minute
	return c
}

var unhurriedFlags = []string{"--write-timeout=1m", "--teo-timeout=50s", "--shutdown-grace=2m"}

// many creates n one-URL tasks as fast as the API server accepts them, and returns their
// URLs. changes are applied to each task before its creation.
func (w *world) many(n int, changes ...func(*v1alpha1.PrefetchTask)) (urls []string) {
	var group sync.WaitGroup
	work := make(chan *v1alpha1.PrefetchTask)
	for range 20 {
		group.Go(func() {
			for task := range work {
				if err := w.Create(w.t.Context(), task); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	for i := range n {
		task := w.task(fmt.Sprintf("task-%04d", i), fmt.Sprintf("%s%s/%d", good, w.namespace, i))
		for _, change := range changes {
			change(task)
		}
		for _, target := range task.Spec.Targets {
			urls = append(urls, string(target))
		}
		work <- task
	}
	close(work)
	group.Wait()
	return urls
}

// named gives the tasks of a second many different names and URLs.
func named(prefix string) func(*v1alpha1.PrefetchTask) {
	return func(task *v1alpha1.PrefetchTask) {
		task.Name = prefix + strings.TrimPrefix(task.Name, "task")
		for i := range task.Spec.Targets {
			task.Spec.Targets[i] += v1alpha1.Target("/" + prefix)
		}
	}
}

// inLanes spreads the tasks of many over n lanes, and thus over n calls.
func inLanes(n int) func(*v1alpha1.PrefetchTask) {
	i := 0
	return func(task *v1alpha1.PrefetchTask) {
		task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: fmt.Sprint(i % n)}}
		i++
	}
}

// urls returns n URLs that only this test uses.
func (w *world) urls(n int) (urls []string) {
	for i := range n {
		urls = append(urls, fmt.Sprintf("%s%s/long/%d", good, w.namespace, i))
	}
	return urls
}

// eventuallyAll is like eventually, for a condition on the list of all tasks.
func (w *world) eventuallyAll(what string, done func([]v1alpha1.PrefetchTask) bool) {
	w.t.Helper()
	var last []v1alpha1.PrefetchTask
	if err := w.poll(500*time.Millisecond, func(ctx context.Context) (bool, error) {
		tasks, err := w.tryList(ctx)
		if err == nil {
			last = tasks
		}
		return err == nil && done(tasks), nil
	}); err != nil {
		w.t.Fatalf("never happened: %s; as things are:\n%s", what, summary(last))
	}
}

// summary shows one example task of each kind in the list, with the number of tasks of
// that kind.
func summary(tasks []v1alpha1.PrefetchTask) string {
	examples, counts := map[string]v1alpha1.PrefetchTaskStatus{}, map[string]int{}
	for _, task := range tasks {
		kind := fmt.Sprint(len(task.Status.Jobs), " jobs, claimed ", task.Status.Submission != nil)
		for _, c := range task.Status.Conditions {
			kind += ", " + c.Type + " " + string(c.Status) + " " + c.Reason
		}
		examples[kind], counts[kind] = task.Status, counts[kind]+1
	}
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		status, err := json.Marshal(examples[kind])
		fmt.Fprintln(&b, counts[kind], "with", kind, "such as", string(status), err)
	}
	return b.String()
}

// untilAll waits until done returns true for every task. It returns the tasks, and the
// number for which done never returned true. Mostly it polls a single unfinished task:
// listing hundreds of tasks again and again would use more CPU time than the code under
// test.
func (w *world) untilAll(done func(*v1alpha1.PrefetchTask) bool) (tasks []v1alpha1.PrefetchTask, stuck int) {
	var waitFor string
	undone := func(task v1alpha1.PrefetchTask) bool { return !done(&task) }
	_ = w.poll(200*time.Millisecond, func(ctx context.Context) (bool, error) {
		if waitFor != "" {
			var task v1alpha1.PrefetchTask
			err := w.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: waitFor}, &task)
			if client.IgnoreNotFound(err) != nil || err == nil && undone(task) {
				return false, nil // the API server may be down: some rows test this
			}
		}
		now, err := w.tryList(ctx)
		if err != nil {
			return false, nil //nolint:nilerr // as above
		}
		tasks = now
		i := slices.IndexFunc(tasks, undone)
		if i >= 0 {
			waitFor = tasks[i].Name
		}
		return i < 0, nil
	})
	if now, err := w.tryList(w.t.Context()); err == nil {
		tasks = now // the previous list may be as old as the wait
	}
	for _, task := range tasks {
		if undone(task) {
			stuck++
		}
	}
	return tasks, stuck
}

func (w *world) poll(interval time.Duration, done wait.ConditionWithContextFunc) error {
	return wait.PollUntilContextTimeout(w.t.Context(), interval, patience, true, done)
}

func (w *world) tryList(ctx context.Context) ([]v1alpha1.PrefetchTask, error) {
	var list v1alpha1.PrefetchTaskList
	err := w.List(ctx, &list, client.InNamespace(w.namespace))
	return list.Items, err
}

func count(tasks []v1alpha1.PrefetchTask, fits func(v1alpha1.PrefetchTaskStatus) bool) (n int) {
	for _, task := range tasks {
		if fits(task.Status) {
			n++
		}
	}
	return n
}

func claimed(s v1alpha1.PrefetchTaskStatus) bool  { return s.Submission != nil }
func recorded(s v1alpha1.PrefetchTaskStatus) bool { return len(s.Jobs) > 0 }
func succeeded(s v1alpha1.PrefetchTaskStatus) bool {
	return isTrue(s, v1alpha1.ConditionFinished, v1alpha1.ReasonSucceeded)
}
func lostCalls(s v1alpha1.PrefetchTaskStatus) bool { return s.LostCalls > 0 }

// targets returns the URLs of the n-th call of the manager, counted from 0. On a busy
// machine, a call takes only as many tasks as can be claimed in time.
func (w *world) targets(n int) []string {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var call struct{ Targets []string }
	w.must(json.Unmarshal([]byte(w.bodies[n]), &call))
	return call.Targets
}

// strikes records that a fault strikes now, or that a fault with a duration ends. Recovery
// time is measured from the last one.
func (w *world) strikes(times int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.injected += times
	w.struck = time.Now()
}

// judge waits until every task has succeeded, and compares the statuses with what EdgeOne
// executed. Each URL must be executed once, and each job must be recorded in the status of
// every task that requested one of its URLs. judge adds a row to the report.
func (w *world) judge() {
	w.t.Helper()
	w.judgeBy(w.compare)
}

// judgeBy is judge with another comparison with the ledger.
func (w *world) judgeBy(compare func([]v1alpha1.PrefetchTask, *row) (complaints []string)) {
	w.t.Helper()
	tasks, stuck := w.untilAll(func(task *v1alpha1.PrefetchTask) bool { return succeeded(task.Status) })
	w.mu.Lock()
	r := row{name: w.t.Name(), tasks: len(tasks), injected: w.injected, stuck: stuck}
	if !w.struck.IsZero() {
		r.recovery = time.Since(w.struck)
	}
	w.mu.Unlock()
	complaints := compare(tasks, &r)
	for _, task := range tasks {
		if !succeeded(task.Status) {
			complaints = append(complaints, fmt.Sprintf("%s is stuck: %+v", task.Name, task.Status))
		}
	}
	for i, complaint := range complaints {
		if i == 10 {
			w.t.Errorf("and %d more", len(complaints)-i)
			break
		}
		w.t.Error(complaint)
	}
	w.t.Logf("%d tasks; %d faults, %s after the last all have succeeded; %d calls of CreatePrefetchTask, %d of DescribePrefetchTasks",
		r.tasks, r.injected, r.recovery.Round(10*time.Millisecond), w.creates(), w.edgeOne.Stats().Calls("DescribePrefetchTasks"))
	report.add(r)
}

// compare compares the tasks' statuses with the ledger, and counts the defects in the row.
func (w *world) compare(tasks []v1alpha1.PrefetchTask, r *row) (complaints []string) {
	for _, d := range judge.FindDefects(judge.Evidence{Ledger: w.edgeOne.Ledger(), Tasks: tasks, ReadAt: w.edgeOne.Now()}) {
		switch d.Kind {
		case judge.Duplicate:
			r.duplicates++
		case judge.Loss:
			r.losses++
		case judge.Stuck:
			continue // judgeBy reports all tasks that have not succeeded
		case judge.Miscount:
		}
		complaints = append(complaints, d.String())
	}
	return complaints
}

// row is a row of the report: which fault struck how many tasks, and the result.
type row struct {
	name                                       string
	tasks, injected, duplicates, losses, stuck int
	recovery                                   time.Duration
	refresh                                    *judge.RefreshCounts // if runs of the test purge
}

// rows are the rows of the tests that ran.
type rows struct {
	mu   sync.Mutex
	rows []row
}

var report rows

func (r *rows) add(added row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, added)
}

// printReport prints the rows and their totals.
func printReport() {
	report.mu.Lock()
	defer report.mu.Unlock()
	if len(report.rows) == 0 {
		return
	}
	slices.SortFunc(report.rows, func(a, b row) int { return strings.Compare(a.name, b.name) })
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "fault\ttasks\tinjected\tduplicates\tlosses\tstuck\trecovery")
	sum := row{name: "in all"}
	for _, r := range report.rows {
		sum.tasks += r.tasks
		sum.injected += r.injected
		sum.duplicates += r.duplicates
		sum.losses += r.losses
		sum.stuck += r.stuck
		sum.recovery = max(sum.recovery, r.recovery)
		r.print(out)
	}
	sum.print(out)
	_ = out.Flush()
	printRefreshes()
}

// printRefreshes prints what became of the runs that purge.
func printRefreshes() {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	sum := judge.RefreshCounts{}
	line := func(name string, c judge.RefreshCounts, duplicates int) {
		_, _ = fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", name, c.Runs, c.URLs, c.Purges, c.Visitors, c.Older, duplicates, c.Repurged, c.Overtook, c.Cold)
	}
	_, _ = fmt.Fprintln(out, "\nfault\truns\tURLs\tpurged\tvisitors after Ready\tsaw older\tprefetched twice\tpurged twice\tout of order\tcold unsaid")
	duplicates := 0
	for _, r := range report.rows {
		if r.refresh == nil {
			continue
		}
		line(r.name, *r.refresh, r.duplicates)
		duplicates += r.duplicates
		sum = sum.Plus(*r.refresh)
	}
	if sum.Runs == 0 {
		return
	}
	line("in all", sum, duplicates)
	_ = out.Flush()
}

func (r row) print(out *tabwriter.Writer) {
	_, _ = fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%d\t%s\n", r.name, r.tasks, r.injected, r.duplicates, r.losses, r.stuck, r.recovery.Round(10*time.Millisecond))
}
