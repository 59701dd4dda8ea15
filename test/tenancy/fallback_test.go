package tenancy

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// askedWithOwnKey returns what EdgeOne was asked for with the operator's own key.
func (s *scene) askedWithOwnKey() map[string]int {
	return s.askedBy(func(secretID, _ string) bool { return secretID == ownKey })
}

// A task that names an account is never signed with another key: neither if the account is
// missing, nor if it is suspended, nor if EdgeOne refuses its key, nor if its Secret is gone.
func TestATaskThatNamesAnAccountIsNeverSignedWithAnotherKey(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	s.edgeOne.SetKey(simulator.Key{SecretID: ownKey, SecretKey: "the-operator's-own", Account: s.name}) // it could
	s.must(s.start(t.Context(), []string{s.team, s.rival}))
	suspended := s.account("-suspended", "{namespaces: {names: [$team]}, suspend: true}")
	refused := s.account("-refused", "namespaces: {names: [$team]}")
	s.edgeOne.RemoveKey(refused.key)
	missing := &account{s, s.name + "-missing", "AKID" + s.name + "-missing"}
	tasks := map[string]*v1alpha1.PrefetchTask{
		v1alpha1.ReasonSuspended:          suspended.newTask(s.team, "suspended", "https://a.example/suspended"),
		v1alpha1.ReasonCredentialsRefused: refused.newTask(s.team, "refused", "https://a.example/refused"),
		v1alpha1.ReasonAccountMissing:     missing.newTask(s.team, "missing", "https://a.example/missing"),
	}
	for reason, task := range tasks {
		s.createTasks(task)
		s.until(reason, task)
		if reason != v1alpha1.ReasonSuspended {
			s.eventually(task.Name+" is stalled", func() bool { s.read(task); return isStalled(task) })
			s.hasOneEvent(task, reason)
		}
	}
	if task := tasks[v1alpha1.ReasonAccountMissing]; !strings.Contains(ready(task).Message, missing.name) {
		t.Errorf("the message is %q", ready(task).Message)
	}
	own := s.newTask(s.team, "own", "https://a.example/own")
	s.createTasks(own)
	s.until(v1alpha1.ReasonSucceeded, own)
	s.settle()
	if asked := s.askedWithOwnKey(); len(asked) != 1 || asked["https://a.example/own"] != 1 {
		t.Errorf("with the operator's own key: %v", asked)
	}
	for _, key := range []string{suspended.key, refused.key} {
		if asked := s.askedBy(func(secretID, _ string) bool { return secretID == key }); asked["https://a.example/suspended"]+asked["https://a.example/refused"] > 0 {
			t.Errorf("with %s: %v", key, asked)
		}
	}
}

// Tasks that name neither an account nor a Secret use the account named default while it
// exists. They move to it and back while they wait, and nothing is submitted twice.
func TestTasksWithoutAReferenceMoveToTheDefaultAccountAndBack(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	s.edgeOne.SetKey(simulator.Key{SecretID: ownKey, SecretKey: "the-operator's-own", Account: s.name})
	s.must(s.start(t.Context(), []string{s.team, s.rival}))
	named := s.account("", "namespaces: {names: [$team]}") // has the key and the Secret
	a := &account{s, v1alpha1.DefaultAccount, named.key}
	createDefault := func(spec string) {
		object := a.object()
		object.Spec.Credentials.SecretRef.Name = named.name
		s.must(s.kube.Create(t.Context(), object))
		a.edit(spec)
	}
	t.Cleanup(func() { _ = s.kube.Delete(t.Context(), a.object()) })
	submit := func(name string) *v1alpha1.PrefetchTask {
		task := s.newTask(s.team, name, "https://a.example/"+name)
		s.createTasks(task)
		return task
	}
	s.until(v1alpha1.ReasonSucceeded, submit("before"))
	held := s.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", SecretID: ownKey})
	flight := submit("flight") // its call is in flight with the operator's own key
	s.eventually("the call", func() bool { return held.Waiting() == 1 })
	queued := submit("queued") // behind it, with the operator's own key
	createDefault("namespaces: {names: [$rival]}")
	s.until(v1alpha1.ReasonNotAllowed, queued)
	held.Release()
	s.until(v1alpha1.ReasonSucceeded, flight)
	refused := submit("refused")
	s.until(v1alpha1.ReasonNotAllowed, refused)
	s.settle()
	if asked := s.askedWithOwnKey(); len(asked) != 2 || asked["https://a.example/flight"] != 1 {
		t.Errorf("with the operator's own key, while the default account exists: %v", asked)
	}
	a.edit("namespaces: {names: [$team]}")
	s.until(v1alpha1.ReasonSucceeded, queued, refused)
	a.onlyAsked("https://a.example/queued", "https://a.example/refused")
	a.edit("{namespaces: {names: [$team]}, suspend: true}")
	back := submit("back")
	s.until(v1alpha1.ReasonSuspended, back)
	s.must(client.IgnoreNotFound(s.kube.Delete(t.Context(), a.object())))
	s.until(v1alpha1.ReasonSucceeded, back)
	a.onlyAsked("https://a.example/queued", "https://a.example/refused")
	if asked := s.askedWithOwnKey(); len(asked) != 3 || asked["https://a.example/back"] != 1 {
		t.Errorf("with the operator's own key at the end: %v", asked)
	}
}
