package situations

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// situation is a section of the page.
type situation struct {
	slug  string
	title string
	what  string // one sentence
	now   string // what to do, in one sentence; Markdown

	operator string
	zone     simulator.Zone // settings of the zone
	key      simulator.Key  // settings of the key
	noKey    bool           // there is no Secret
	account  string         // in the log, if the task names no Secret
	bring    func(*scene)   // brings the task into the situation

	// The task is in the situation when the condition Ready has this reason, and there
	// are Events with these reasons and lines of the log with these texts.
	reason string
	events []string
	log    []string
}

// scene is what a situation has for itself, so that situations run at the same time: a
// namespace with a Secret, and an account with a zone. The task is called release.
type scene struct {
	*testing.T
	situation
	world     *world
	operator  *operator
	namespace string
	zoneID    string

	explanation, explainedVersion string // see explain
}

const (
	taskName   = "release"
	secretName = "edgeone-keys"
	site       = "https://www.example.com/"
	// patience is how long a situation may take on a busy machine. Most take seconds, the
	// longest half a minute.
	patience = 3 * time.Minute
)

// prepareAccount makes the account, the zone and the key of a situation, and the Secret.
func (s *scene) prepareAccount() {
	s.Helper()
	zone, key := s.zone, s.key
	zone.ID, zone.Account, zone.Domains = s.zoneID, s.namespace, []string{"www.example.com"}
	key.SecretID, key.SecretKey, key.Account = "AKID"+s.slug, "a-secret-key-of-"+s.slug, s.namespace
	s.operator.edgeOne.SetZone(zone)
	s.operator.edgeOne.SetKey(key)
	if !s.noKey {
		s.secret(map[string]string{"secretId": key.SecretID, "secretKey": key.SecretKey})
	}
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// secret writes the Secret of the task.
func (s *scene) secret(values map[string]string) {
	s.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: secretName}}
	s.must(client.IgnoreNotFound(s.world.cluster.Client.Delete(s.Context(), secret)))
	secret.StringData = values
	s.must(s.world.cluster.Client.Create(s.Context(), secret))
}

// list writes the ConfigMap release-urls.
func (s *scene) list(urls ...string) {
	s.Helper()
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "release-urls"}}
	s.must(client.IgnoreNotFound(s.world.cluster.Client.Delete(s.Context(), list)))
	list.Data = map[string]string{"urls.txt": strings.Join(urls, "\n")}
	s.must(s.world.cluster.Client.Create(s.Context(), list))
}

// create creates a task. Paths are those of URLs.
func (s *scene) create(name string, edit func(*v1alpha1.PrefetchTask), paths ...string) {
	s.Helper()
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
	task.Spec.ZoneID = s.zoneID
	task.Spec.CredentialsSecretRef.Name = secretName
	for _, path := range paths {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(site+path))
	}
	if edit != nil {
		edit(task)
	}
	s.must(s.world.cluster.Client.Create(s.Context(), task))
}

// createFromList creates the task with the list in the ConfigMap release-urls.
func (s *scene) createFromList() {
	s.Helper()
	s.create(taskName, func(task *v1alpha1.PrefetchTask) {
		task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "release-urls", Key: "urls.txt"}
	})
}

// accountName returns the name of the situation's EdgeOneAccount.
func (s *scene) accountName() string { return "main-" + s.slug }

// createAccount creates an EdgeOneAccount that the situation's namespace may use, with the
// situation's key in a Secret of the operator's namespace.
func (s *scene) createAccount(edit func(*v1alpha1.EdgeOneAccountSpec)) {
	s.Helper()
	s.must(s.world.cluster.Client.Create(s.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: s.accountName()},
		StringData: map[string]string{"secretId": "AKID" + s.slug, "secretKey": "a-secret-key-of-" + s.slug},
	}))
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: s.accountName()}}
	account.Spec.Credentials.SecretRef.Name = s.accountName()
	account.Spec.Namespaces.Names = []v1alpha1.NamespaceName{v1alpha1.NamespaceName(s.namespace)}
	edit(&account.Spec)
	s.must(s.world.cluster.Client.Create(s.Context(), account))
}

// useAccount makes a task use the situation's account.
func (s *scene) useAccount(task *v1alpha1.PrefetchTask) {
	task.Spec.CredentialsSecretRef.Name, task.Spec.AccountRef.Name = "", s.accountName()
}

func (s *scene) get(name string) *v1alpha1.PrefetchTask {
	s.Helper()
	task := &v1alpha1.PrefetchTask{}
	s.must(s.world.cluster.Client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, task))
	return task
}

// edit changes a task.
func (s *scene) edit(name string, change func(*v1alpha1.PrefetchTask)) {
	s.Helper()
	task := s.get(name)
	before := task.DeepCopy()
	change(task)
	s.must(s.world.cluster.Client.Patch(s.Context(), task, client.MergeFrom(before)))
}

// retry asks for a retry of the task.
func (s *scene) retry() {
	s.Helper()
	s.edit(taskName, func(task *v1alpha1.PrefetchTask) {
		metav1.SetMetaDataAnnotation(&task.ObjectMeta, v1alpha1.RetryAnnotation, "1")
	})
}

// until polls until a task's condition Ready has the reason, and the rest holds.
func (s *scene) until(name, reason string, rest ...func(*v1alpha1.PrefetchTaskStatus) bool) {
	s.Helper()
	var last *v1alpha1.PrefetchTask
	if !eventually(s.Context(), patience, func() bool {
		last = s.get(name)
		return readyReason(last) == reason && !slices.ContainsFunc(rest, func(holds func(*v1alpha1.PrefetchTaskStatus) bool) bool { return !holds(&last.Status) })
	}) {
		s.Fatalf("%s never gets the reason %s as wanted: %+v\n%s", name, reason, last.Status, s.logLines())
	}
}

// untilEvent polls until there is an Event with the reason. The operator reports it after
// it has written the status.
func (s *scene) untilEvent(reason string) {
	s.Helper()
	if !eventually(s.Context(), patience, func() bool { return hasEvent(s.taskEvents(), reason) }) {
		s.Fatalf("there is never an Event with the reason %s: %v", reason, s.taskEvents())
	}
}

func hasEvent(events []eventsv1.Event, reason string) bool {
	return slices.ContainsFunc(events, func(e eventsv1.Event) bool { return e.Reason == reason })
}

func readyReason(task *v1alpha1.PrefetchTask) string {
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	return cmp.Or(ready, &metav1.Condition{}).Reason
}

// isStalled reports whether a user must act.
func isStalled(status *v1alpha1.PrefetchTaskStatus) bool {
	return meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled)
}

// fault makes EdgeOne misbehave in the zone of the situation.
func (s *scene) fault(match simulator.Matcher, effect simulator.Effect) {
	match.ZoneID = s.zoneID
	if match.Action == "" {
		match.Action = "CreatePrefetchTask"
	}
	s.operator.edgeOne.AddFault(simulator.Fault{Match: match, Effect: effect})
}
