package e2e

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

var attackPercent = flag.Int("attack", 3, "size of the attack on a quiet namespace, in percent: 100 is 800 Secrets, 2,000 zones, 400 poisoned tasks and 200 large ones")

// memoryLimit is the maximum memory of the manager: half of what the chart allows.
const memoryLimit = 256 << 20

const (
	victimID, victimKey = "AKIDvictim", "victim-secret-key"
	quietZone           = "zone-5quiet00000"
	victimZone          = "zone-6victim0000"
	largeZone           = "zone-7large00000"
)

// attacked is an EdgeOne with two tenants who use only their own zones.
func attacked() simulator.Config {
	c := patient()
	c.Keys = append(c.Keys, simulator.Key{SecretID: victimID, SecretKey: victimKey, Account: "victim"})
	c.Zones = append(c.Zones,
		simulator.Zone{ID: quietZone, Account: "demo", Domains: []string{"quiet.example.org"}},
		simulator.Zone{ID: victimZone, Account: "victim", Domains: []string{"victim.example.org"}},
		simulator.Zone{ID: largeZone, Account: "demo", Domains: []string{"large.example.org"}, Daily: 15_000},
	)
	c.Rules = append([]simulator.Rule{
		{URL: "/poison/config/", Code: "InternalError.DomainConfig", Message: "origin config unavailable"},
		{URL: "/poison/executed/", Code: "InternalError.BackendError", Message: "try again", Executed: true},
		{URL: "/poison/target/", Code: "InvalidParameter.Target", Message: "the target is not valid"},
		{URL: "/poison/parameter/", Code: "InvalidParameter.ParameterError", Message: "a parameter is not valid"},
	}, c.Rules...)
	return c
}

// attack is what other namespaces do at the same time to a manager that also serves two
// quiet namespaces.
type attack struct {
	*world
	process                           *cluster.Process
	squatters, zones, poisoned, large int
	quiet                             int

	size int // bytes of the targets of a large task

	mu    sync.Mutex
	ready map[client.ObjectKey]time.Time // when a job of a quiet task was seen
}

// A quiet namespace keeps its pace, and no task ends in a wrong state, while other
// namespaces use its SecretId, invent zones, and create poisoned and huge tasks. The full
// attack: go test ./test/e2e -run QuietNamespace -v -attack=100 -timeout=40m.
func TestAQuietNamespaceKeepsItsPaceUnderAttack(t *testing.T) {
	t.Parallel()
	kube := cluster.ForTest(t, cluster.Options{})
	share := func(n int) int { return max(n**attackPercent/100, 2) }
	a := &attack{
		world: newWorldIn(t, kube, attacked()), squatters: share(800), zones: share(2000), poisoned: share(400), large: share(200), quiet: max(share(100), 10),
		ready: map[client.ObjectKey]time.Time{},
	}
	for _, name := range []string{"squatters", "zones", "poisoned", "bystanders", "large", "quiet", "victim"} {
		a.must(a.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	a.must(a.Create(t.Context(), secretIn("victim", "edgeone", victimID, victimKey)))
	limit := fmt.Sprint("GOMEMLIMIT=", memoryLimit/4*3) // the manager sets it in the same way from the limit of its container
	a.process = a.managerWith(append(cluster.Credentials(keyID, keyValue), limit), "--watch-namespaces=", "--zap-log-level=error")
	a.watchQuiet(t.Context())
	calm := a.measure("calm")
	before := a.memory("RssAnon:")
	a.strike()
	struck := a.measure("struck")
	a.untilBystandersSucceed()
	a.judgeEnds()
	high := a.memory("VmHWM:")
	a.withdraw()
	after := a.untilMemoryFalls(before)

	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "attack\t%d squatting Secrets, %d invented zones, %d poisoned tasks, %d tasks of %d KB\n", a.squatters, a.zones, a.poisoned, a.large, a.size>>10)
	for _, namespace := range []string{"quiet", "victim"} {
		for _, m := range []struct {
			when  string
			times map[string][]waited
		}{{"before", calm}, {"under attack", struck}} {
			_, _ = fmt.Fprintf(w, "namespace %s, %s: created\t%s\n", namespace, m.when, spread(m.times[namespace], func(w waited) time.Duration { return w.created }))
			_, _ = fmt.Fprintf(w, "namespace %s, %s: JobId after that\t%s\n", namespace, m.when, spread(m.times[namespace], func(w waited) time.Duration { return w.submitted }))
		}
	}
	_, _ = fmt.Fprintf(w, "memory\t%d MiB at most, with the program; without it %d MiB before, %d MiB within a minute after\n", high>>20, before>>20, after>>20)
	_ = w.Flush()
	t.Logf("\n%s", table.String())
	if high > memoryLimit {
		t.Errorf("the manager used %d MiB, more than %d MiB", high>>20, memoryLimit>>20)
	}
}

func secretIn(namespace, name, id, key string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		StringData: map[string]string{"secretId": id, "secretKey": key},
	}
}

func taskIn(namespace, name, zone string, targets ...string) *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	task.Spec.ZoneID = zone
	for _, target := range targets {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(target))
	}
	return task
}

// strike creates everything that the attackers create, and returns once it exists.
func (a *attack) strike() {
	a.t.Helper()
	var objects []func() []client.Object
	add := func(n int, object func(i int) []client.Object) {
		for i := range n {
			objects = append(objects, func() []client.Object { return object(i) })
		}
	}
	add(a.squatters, func(i int) []client.Object {
		name := fmt.Sprint("s", i)
		task := taskIn("squatters", name, victimZone, fmt.Sprint("https://victim.example.org/squat/", i))
		task.Spec.CredentialsSecretRef.Name = name
		return []client.Object{secretIn("squatters", name, victimID, fmt.Sprint("wrong-key-", i)), task}
	})
	add(a.zones, func(i int) []client.Object {
		return []client.Object{taskIn("zones", fmt.Sprint("z", i), fmt.Sprintf("zone-invented%d", i), fmt.Sprint("https://www.example.com/invented/", i))}
	})
	kinds := []string{"config", "executed", "target", "parameter"}
	add(a.poisoned, func(i int) []client.Object {
		return []client.Object{
			taskIn("poisoned", fmt.Sprint("p", i), zoneID, fmt.Sprintf("https://www.example.com/poison/%s/%d", kinds[i%len(kinds)], i)),
			taskIn("bystanders", fmt.Sprint("b", i), zoneID, fmt.Sprint("https://www.example.com/bystander/", i)),
		}
	})
	a.size = a.admittedSize()
	add(a.large, func(i int) []client.Object {
		task := largeTask(fmt.Sprint("l", i), a.size)
		task.Spec.Suspend = ptr.To(i%2 == 0)
		return []client.Object{task}
	})
	work := make(chan func() []client.Object)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for make := range work {
				for _, object := range make() {
					a.createPatiently(object)
				}
			}
		})
	}
	for i := range objects { // mixes the kinds
		work <- objects[(i*7919)%len(objects)]
	}
	close(work)
	group.Wait()
}

// createPatiently retries while the API server is overloaded. The attack hits the API
// server too.
func (a *attack) createPatiently(object client.Object) {
	err := a.poll(time.Second, func(ctx context.Context) (bool, error) {
		err := a.Create(ctx, object)
		busy := apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err)
		return err == nil || apierrors.IsAlreadyExists(err), ignoreIf(busy || apierrors.IsAlreadyExists(err), err)
	})
	if err != nil {
		a.t.Error(err)
	}
}

func ignoreIf(ignore bool, err error) error {
	if ignore {
		return nil
	}
	return err
}

// largeTask returns a task with 10,000 targets of size bytes in total.
func largeTask(name string, size int) *v1alpha1.PrefetchTask {
	const n = 10_000
	task := taskIn("large", name, largeZone)
	for i := range n {
		target := fmt.Sprintf("https://large.example.org/%s/%d/", name, i)
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(target+strings.Repeat("x", max(size/n-len(target), 0))))
	}
	return task
}

// admittedSize returns the maximum size of a task's targets in bytes, up to 1.4 MB.
func (a *attack) admittedSize() int {
	a.t.Helper()
	for size := 1_400_000; ; size -= 100_000 {
		err := a.Create(a.t.Context(), largeTask("trial", size), client.DryRunAll)
		if err == nil {
			return size
		}
		if size <= 400_000 {
			a.t.Fatalf("a task of %d bytes is refused: %v", size, err)
		}
	}
}

// watchQuiet records when the quiet tasks get their jobs.
func (a *attack) watchQuiet(ctx context.Context) {
	c, err := client.NewWithWatch(a.cluster.Admin, client.Options{Scheme: a.cluster.Client.Scheme()})
	a.must(err)
	for _, namespace := range []string{"quiet", "victim"} {
		watch, err := c.Watch(ctx, &v1alpha1.PrefetchTaskList{}, client.InNamespace(namespace))
		a.must(err)
		go func() {
			for event := range watch.ResultChan() {
				task, ok := event.Object.(*v1alpha1.PrefetchTask)
				if !ok || len(task.Status.Jobs) == 0 {
					continue
				}
				a.mu.Lock()
				if key := client.ObjectKeyFromObject(task); a.ready[key].IsZero() {
					a.ready[key] = time.Now()
				}
				a.mu.Unlock()
			}
		}()
		a.t.Cleanup(watch.Stop)
	}
}

// waited has two durations: how long the API server took to create a task, and how long
// the manager then took to submit it. Everything under attack, including the API server,
// shares one machine.
type waited struct{ created, submitted time.Duration }

// measure creates single quiet tasks one after the other, alternating between the two
// namespaces. It returns how long each took to get its JobId. The test fails only if a
// task never gets one, and not if it takes longer than others.
func (a *attack) measure(name string) (took map[string][]waited) {
	a.t.Helper()
	took = map[string][]waited{}
	start := time.Now()
	for i := range a.quiet {
		task := taskIn("quiet", fmt.Sprint(name, i), quietZone, fmt.Sprintf("https://quiet.example.org/%s/%d", name, i))
		if i%2 == 1 {
			task = taskIn("victim", fmt.Sprint(name, i), victimZone, fmt.Sprintf("https://victim.example.org/%s/%d", name, i))
			task.Spec.CredentialsSecretRef.Name = "edgeone"
		}
		began := time.Now()
		a.must(a.Create(a.t.Context(), task))
		created := time.Now()
		var ready time.Time
		a.must(a.poll(5*time.Millisecond, func(context.Context) (bool, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			ready = a.ready[client.ObjectKeyFromObject(task)]
			return !ready.IsZero(), nil
		}))
		w := waited{created.Sub(began), max(ready.Sub(created), 0)}
		if w.created+w.submitted > 2*time.Second {
			a.t.Logf("%s after %s: created in %s, submitted in %s", task.Name, began.Sub(start).Round(time.Second), w.created, w.submitted)
		}
		took[task.Namespace] = append(took[task.Namespace], w)
	}
	return took
}

// spread summarizes durations.
func spread(waits []waited, of func(waited) time.Duration) string {
	var sorted []time.Duration
	for _, w := range waits {
		sorted = append(sorted, of(w))
	}
	slices.Sort(sorted)
	at := func(percent int) time.Duration {
		return sorted[min(len(sorted)*percent/100, len(sorted)-1)].Round(time.Millisecond)
	}
	return fmt.Sprintf("median %s, p99 %s, worst %s of %d", at(50), at(99), at(100), len(sorted))
}

// untilBystandersSucceed waits for the quiet tasks, and for the tasks that share zone and
// account with the poisoned ones.
func (a *attack) untilBystandersSucceed() {
	a.t.Helper()
	for _, namespace := range []string{"bystanders", "quiet", "victim"} {
		w := &world{Client: a.Client, t: a.t, cluster: a.cluster, namespace: namespace, edgeOne: a.edgeOne}
		tasks, stuck := w.untilAll(func(task *v1alpha1.PrefetchTask) bool { return succeeded(task.Status) })
		if stuck > 0 {
			a.t.Errorf("%d of %d tasks in %s did not succeed:\n%s", stuck, len(tasks), namespace, summary(tasks))
		}
	}
}

// judgeEnds compares the statuses with what EdgeOne did. Each URL must be executed once,
// and each task that ended must have the right end state.
func (a *attack) judgeEnds() {
	a.t.Helper()
	if duplicates := a.edgeOne.Duplicates(); len(duplicates) > 0 {
		a.t.Errorf("%d URLs were executed more than once", len(duplicates))
	}
	ends := map[string][]string{ // the right Finished reasons for finished tasks
		"squatters": nil, "zones": nil, "large": {v1alpha1.ReasonSucceeded}, "bystanders": {v1alpha1.ReasonSucceeded},
		"quiet": {v1alpha1.ReasonSucceeded}, "victim": {v1alpha1.ReasonSucceeded},
	}
	var list v1alpha1.PrefetchTaskList
	a.must(a.List(a.t.Context(), &list))
	wrong := map[string]int{}
	for _, task := range list.Items {
		finished := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionFinished)
		if finished == nil || finished.Status != metav1.ConditionTrue {
			continue
		}
		right := ends[task.Namespace]
		if task.Namespace == "poisoned" {
			right = a.endsOfPoison(string(task.Spec.Targets[0]))
		}
		if !slices.Contains(right, finished.Reason) {
			wrong[task.Namespace+" "+finished.Reason+": "+finished.Message]++
		}
	}
	for what, n := range wrong {
		a.t.Errorf("%d tasks ended wrongly: %s", n, what)
	}
}

// endsOfPoison returns the right end states for a poisoned URL: Failed if EdgeOne rejects
// it, Succeeded if EdgeOne executed it nevertheless. A code of unknown outcome is not an
// end.
func (a *attack) endsOfPoison(url string) []string {
	switch {
	case a.edgeOne.Executed(url) > 0:
		return []string{v1alpha1.ReasonSucceeded}
	case strings.Contains(url, "/target/"), strings.Contains(url, "/parameter/"):
		return []string{v1alpha1.ReasonFailed}
	}
	return nil
}

// withdraw deletes everything that the attackers created.
func (a *attack) withdraw() {
	a.t.Helper()
	for _, namespace := range []string{"squatters", "zones", "poisoned", "bystanders", "large"} {
		a.must(a.DeleteAllOf(a.t.Context(), &v1alpha1.PrefetchTask{}, client.InNamespace(namespace)))
		a.must(a.DeleteAllOf(a.t.Context(), &corev1.Secret{}, client.InNamespace(namespace)))
	}
}

// untilMemoryFalls waits up to a minute until the memory is close to its earlier value. It
// returns the memory at that time.
func (a *attack) untilMemoryFalls(before int) (now int) {
	a.t.Helper()
	const slack = 48 << 20
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		if now = a.memory("RssAnon:"); now <= before+slack {
			return now
		}
		if time.Now().After(end) {
			a.t.Errorf("a minute after the attackers are gone the manager uses %d MiB; before them it used %d", now>>20, before>>20)
			return now
		}
	}
}

// memory reads a value of the manager's process, in bytes.
func (a *attack) memory(field string) int {
	a.t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", a.process.PID()))
	a.must(err)
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), field); ok {
			var kilobytes int
			_, err := fmt.Sscan(text, &kilobytes)
			a.must(err)
			return kilobytes << 10
		}
	}
	a.t.Skipf("the system does not tell %s", field)
	return 0
}
