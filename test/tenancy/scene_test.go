package tenancy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// patience is how long something may take. Most things take seconds.
const patience = 90 * time.Second

// scene is what a test has for itself: two zones with any host, two namespaces, and accounts.
type scene struct {
	testing.TB
	*operator
	kube        client.Client
	name        string
	zone, other string // both belong to the owner of all keys of the scene
	team, rival string // namespaces
}

// newScene returns a scene of the shared operator. The test runs in parallel with others.
func newScene(t *testing.T) *scene {
	t.Helper()
	t.Parallel()
	s := sceneOf(t, shared.operator)
	s.team, s.rival = s.namespace(), s.namespace()
	return s
}

// newOwnScene returns a scene with an operator of its own, which is not started. It shares the
// cluster with the other operators, which write into the statuses of the same accounts.
func newOwnScene(t testing.TB) *scene {
	t.Helper()
	return newSceneIn(t, shared.cluster)
}

func newSceneIn(t testing.TB, c *cluster.Cluster) *scene {
	t.Helper()
	s := sceneOf(t, newOperator(c))
	t.Cleanup(s.close)
	for _, name := range []*string{&s.team, &s.rival} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "own-"}}
		s.must(s.kube.Create(t.Context(), namespace))
		*name = namespace.Name
	}
	return s
}

func sceneOf(t testing.TB, o *operator) *scene {
	t.Helper()
	shared.mu.Lock()
	shared.scenes++
	s := &scene{TB: t, operator: o, kube: o.cluster.Client, name: fmt.Sprint("scene", shared.scenes)}
	shared.mu.Unlock()
	s.zone, s.other = "zone-"+s.name, "zone-"+s.name+"other"
	for _, id := range []string{s.zone, s.other} {
		s.edgeOne.SetZone(simulator.Zone{ID: id, Account: s.name, Domains: []string{"*"}, EdgeMode: true, MediaSegments: true})
	}
	t.Cleanup(func() {
		if t.Failed() && o.manager != nil {
			t.Logf("the operator said:\n%s", s.logLines())
		}
	})
	return s
}

// logLines returns what the operator's log says about the scene.
func (s *scene) logLines() string {
	var lines []string
	for line := range strings.Lines(s.manager.LastLines(5000)) {
		if s.operator != shared.operator || strings.Contains(line, s.name) || strings.Contains(line, s.team) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// namespace takes a namespace of the shared operator.
func (s *scene) namespace() string {
	s.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if len(shared.namespaces) == 0 {
		s.Fatal("no namespace is left: raise poolSize")
	}
	name := shared.namespaces[0]
	shared.namespaces = shared.namespaces[1:]
	return name
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// expand replaces the names of the scene in a text: $team, $rival, $zone, $other.
func (s *scene) expand(text string) string {
	return strings.NewReplacer("$team", s.team, "$rival", s.rival, "$zone", s.zone, "$other", s.other).Replace(text)
}

// account is an EdgeOneAccount with a key of its own. All keys of a scene may use its zones.
type account struct {
	*scene
	name, key string
}

// account creates an account. Its name is suffix after the name of the scene, and spec is the
// rest of its spec in YAML.
func (s *scene) account(suffix, spec string) *account {
	s.Helper()
	a := &account{s, s.name + suffix, "AKID" + s.name + suffix}
	s.edgeOne.SetKey(simulator.Key{SecretID: a.key, SecretKey: "secret-of-" + a.name, Account: s.name})
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: a.name}}
	secret.StringData = map[string]string{"secretId": a.key, "secretKey": "secret-of-" + a.name}
	s.must(s.kube.Create(s.Context(), secret))
	a.create(spec)
	s.Cleanup(func() { _ = client.IgnoreNotFound(s.kube.Delete(context.Background(), a.object())) })
	return a
}

func (a *account) object() *v1alpha1.EdgeOneAccount {
	return &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: a.name}}
}

// create creates the object of the account.
func (a *account) create(spec string) {
	a.Helper()
	object := a.object()
	a.must(yaml.UnmarshalStrict([]byte(a.expand(spec)), &object.Spec))
	object.Spec.Credentials.SecretRef.Name = a.name
	a.must(a.kube.Create(a.Context(), object))
}

// edit replaces the rest of the account's spec.
func (a *account) edit(spec string) {
	a.Helper()
	a.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error { // the operator writes the status
		object := a.object()
		if err := a.kube.Get(a.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		before := object.DeepCopy()
		object.Spec = v1alpha1.EdgeOneAccountSpec{}
		a.must(yaml.UnmarshalStrict([]byte(a.expand(spec)), &object.Spec))
		object.Spec.Credentials = before.Spec.Credentials
		return a.kube.Update(a.Context(), object)
	}))
}

// remove deletes the object of the account.
func (a *account) remove() {
	a.Helper()
	a.must(a.kube.Delete(a.Context(), a.object()))
}

// asked returns the URLs that EdgeOne was ever asked for with the account's key, and how
// often it executed each.
func (a *account) asked() map[string]int {
	return a.askedBy(func(secretID, _ string) bool { return secretID == a.key })
}

// askedBy returns the URLs of the calls that a function selects, and how often EdgeOne
// executed each. The calls include those that EdgeOne refused.
func (s *scene) askedBy(selects func(secretID, zoneID string) bool) map[string]int {
	urls := map[string]int{}
	for _, call := range s.edgeOne.Calls() {
		if call.Action == "CreatePrefetchTask" && selects(call.SecretID, call.ZoneID) {
			for _, url := range call.URLs {
				urls[url] += 0
			}
		}
	}
	for _, e := range s.edgeOne.Ledger() {
		if selects(e.SecretID, e.ZoneID) {
			for _, url := range e.Accepted {
				urls[url]++
			}
			for _, url := range e.Refused {
				urls[url] += 0
			}
		}
	}
	return urls
}

// executed returns how many URLs EdgeOne executed with the account's key.
func (a *account) executed() (n int) {
	for _, times := range a.asked() {
		n += times
	}
	return n
}

// onlyAsked fails unless EdgeOne was asked for these URLs with the account's key, executed
// each once, and was asked for no other URL.
func (a *account) onlyAsked(urls ...string) {
	a.Helper()
	want := map[string]int{}
	for _, url := range urls {
		want[url] = 1
	}
	if got := a.asked(); !maps.Equal(got, want) {
		a.Errorf("EdgeOne was asked with the key of %s: %v, want %v", a.name, got, want)
	}
}

// newTask returns a task of the account. Edit it before createTasks.
func (a *account) newTask(namespace, name string, urls ...string) *v1alpha1.PrefetchTask {
	task := a.scene.newTask(namespace, name, urls...)
	task.Spec.AccountRef.Name = a.name
	return task
}

// newTask returns a task that names no account.
func (s *scene) newTask(namespace, name string, urls ...string) *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	task.Spec.ZoneID = s.zone
	for _, url := range urls {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(url))
	}
	return task
}

func (s *scene) createTasks(tasks ...*v1alpha1.PrefetchTask) {
	s.Helper()
	for _, task := range tasks {
		s.must(s.kube.Create(s.Context(), task))
	}
}

// editTask changes a task.
func (s *scene) editTask(task *v1alpha1.PrefetchTask, change func(*v1alpha1.PrefetchTask)) {
	s.Helper()
	s.read(task)
	before := task.DeepCopy()
	change(task)
	s.must(s.kube.Patch(s.Context(), task, client.MergeFrom(before)))
}

// read reads the newest version of a task into it.
func (s *scene) read(task *v1alpha1.PrefetchTask) {
	s.Helper()
	s.must(s.kube.Get(s.Context(), client.ObjectKeyFromObject(task), task))
}

// label sets a label of a namespace, or removes it if value is "".
func (s *scene) label(namespace, name, value string) {
	s.Helper()
	object := &corev1.Namespace{}
	s.must(s.kube.Get(s.Context(), client.ObjectKey{Name: namespace}, object))
	before := object.DeepCopy()
	if metav1.SetMetaDataLabel(&object.ObjectMeta, name, value); value == "" {
		delete(object.Labels, name)
	}
	s.must(s.kube.Patch(s.Context(), object, client.MergeFrom(before)))
}

// eventually polls done, and fails with what if it never returns true.
func (s *scene) eventually(what string, done func() bool) {
	s.Helper()
	err := wait.PollUntilContextTimeout(s.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		return done(), nil
	})
	if err != nil {
		s.Fatalf("never happened: %s", what)
	}
}

// until polls tasks until the condition Ready of each has a reason.
func (s *scene) until(reason string, tasks ...*v1alpha1.PrefetchTask) {
	s.Helper()
	for _, task := range tasks {
		err := wait.PollUntilContextTimeout(s.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
			s.read(task)
			return ready(task).Reason == reason, nil
		})
		if err != nil {
			s.Fatalf("%s/%s never has the reason %s: %+v", task.Namespace, task.Name, reason, task.Status)
		}
	}
}

// countReasons returns how many of the tasks have each reason.
func (s *scene) countReasons(tasks []*v1alpha1.PrefetchTask) map[string]int {
	s.Helper()
	reasons := map[string]int{}
	for _, task := range tasks {
		s.read(task)
		reasons[ready(task).Reason]++
	}
	return reasons
}

// untilReasons polls until the tasks have these reasons, in any order.
func (s *scene) untilReasons(want map[string]int, tasks []*v1alpha1.PrefetchTask) {
	s.Helper()
	var got map[string]int
	err := wait.PollUntilContextTimeout(s.Context(), 100*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		got = s.countReasons(tasks)
		return maps.Equal(got, want), nil
	})
	if err != nil {
		s.Fatalf("the tasks have the reasons %v, want %v", got, want)
	}
}

// settle returns once the operator has had time to do wrong: it has submitted a task of
// another account meanwhile, whose outcome takes a second.
func (s *scene) settle() {
	s.Helper()
	suffix := fmt.Sprint("-bystander-", time.Now().UnixNano())
	bystander := s.account(suffix, "namespaces: {names: [$rival]}")
	task := bystander.newTask(s.rival, "bystander"+suffix, "https://bystander.example/"+suffix)
	s.createTasks(task)
	s.until(v1alpha1.ReasonSucceeded, task)
}

func ready(task *v1alpha1.PrefetchTask) metav1.Condition {
	return *cmp.Or(meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady), &metav1.Condition{})
}

func isStalled(task *v1alpha1.PrefetchTask) bool {
	return meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled)
}

func isQuotaExceeded(task *v1alpha1.PrefetchTask) bool {
	return meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionQuotaExceeded)
}

func counts(task *v1alpha1.PrefetchTask) string {
	n := task.Status.Targets
	return fmt.Sprintf("%d submitted, %d succeeded, %d failed of %d",
		ptr.Deref(n.Submitted, -1), ptr.Deref(n.Succeeded, -1), ptr.Deref(n.Failed, -1), ptr.Deref(n.Total, -1))
}

// hasOneEvent fails unless there is one Event about a task with a reason. Events follow the
// status.
func (s *scene) hasOneEvent(task *v1alpha1.PrefetchTask, reason string) {
	s.Helper()
	s.eventually("an Event "+reason+" about "+task.Name, func() bool { return len(s.eventsOf(task, reason)) > 0 })
	if events := s.eventsOf(task, reason); len(events) != 1 {
		s.Errorf("%s: Events %q, want one", task.Name, events)
	}
}

// eventsOf returns the Events about a task with a reason, repeated ones as often as they were
// reported.
func (s *scene) eventsOf(task *v1alpha1.PrefetchTask, reason string) (notes []string) {
	s.Helper()
	var list eventsv1.EventList
	s.must(s.kube.List(s.Context(), &list, client.InNamespace(task.Namespace)))
	for _, event := range list.Items {
		if event.Regarding.Name == task.Name && event.Reason == reason {
			times := 1
			if event.Series != nil {
				times = int(event.Series.Count)
			}
			notes = append(notes, slices.Repeat([]string{event.Note}, times)...)
		}
	}
	return notes
}

// urls returns n URLs of a host.
func urls(host string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("https://%s/%d", host, i))
	}
	return list
}
