package controller

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// users creates, edits, suspends and deletes tasks and Secrets at random, and remembers what the
// users requested.
type users struct {
	h    *simulation
	all  []*userTask
	live map[client.ObjectKey]*userTask
	asks map[string][]*userRun // work (see workOf) -> runs that requested it
	gone map[client.ObjectKey]bool
	keys map[client.ObjectKey]int // index of the key that a Secret holds

	lists  map[client.ObjectKey][]v1alpha1.Target // correct content of ConfigMaps
	broken map[client.ObjectKey]bool              // ConfigMaps whose content is not correct

	retries int // number of calls of retry

	purges map[string]int // see purgeWork -> how often runs asked for it
}

// userTask is one object. An object that is recreated under the same name is another userTask.
type userTask struct {
	key     client.ObjectKey
	spec    v1alpha1.PrefetchTaskSpec // with its targets, even if they are in a ConfigMap
	list    bool                      // the targets are in a ConfigMap whose name depends on the content, as with kustomize
	runs    []*userRun
	deleted bool
}

// userRun is one run that a user requested.
type userRun struct {
	task *userTask
	spec v1alpha1.PrefetchTaskSpec
}

// current reports whether the run is the latest run of an existing task.
func (r *userRun) current() bool {
	return !r.task.deleted && r == r.task.runs[len(r.task.runs)-1]
}

var secretOf = map[client.ObjectKey]string{{Namespace: "one", Name: "same"}: "same", {Namespace: "two", Name: "tenant"}: "tenant"}

// squatterSecret is the name of a squatter's Secret, in a separate namespace.
const squatterSecret = "squatter"

func newUsers(h *simulation) *users {
	u := &users{h: h, live: map[client.ObjectKey]*userTask{}, asks: map[string][]*userRun{}, gone: map[client.ObjectKey]bool{}, keys: map[client.ObjectKey]int{},
		purges: map[string]int{}, lists: map[client.ObjectKey][]v1alpha1.Target{}, broken: map[client.ObjectKey]bool{}}
	for _, secret := range sortedSecrets() {
		if h.plan.faults["secrets"] > 0 && h.dice.roll("no secret").IntN(3) == 0 {
			u.gone[secret] = true
		} else {
			u.restore(secret)
		}
	}
	if h.plan.faults["squatters"] > 0 {
		key := squatted[h.dice.roll("squatter").IntN(len(squatted))]
		h.server.setSecret(client.ObjectKey{Namespace: "three", Name: squatterSecret}, map[string][]byte{"secretId": []byte(key.SecretID), "secretKey": []byte(key.SecretKey)})
		h.counts["squatters"]++
	}
	return u
}

func sortedSecrets() []client.ObjectKey {
	return slices.SortedFunc(maps.Keys(secretOf), func(a, b client.ObjectKey) int { return strings.Compare(a.String(), b.String()) })
}

func (u *users) restore(secret client.ObjectKey) {
	key := keys[secretOf[secret]][u.keys[secret]]
	u.h.logf("USER Secret %s has %s", secret, key.SecretID)
	delete(u.gone, secret)
	u.h.server.setSecret(secret, map[string][]byte{"secretId": []byte(key.SecretID), "secretKey": []byte(key.SecretKey)})
}

// act performs the actions of users during the storm.
func (u *users) act(storm time.Duration) {
	r := u.h.dice.roll("users")
	times := make([]time.Duration, u.h.plan.actions)
	for i := range times {
		times[i] = between(r, 0, storm)
		if r.IntN(3) == 0 { // actions at the same time lead to shared calls
			times[i] = between(r, 0, time.Second)
		}
	}
	slices.Sort(times)
	for _, at := range times {
		time.Sleep(time.Until(u.h.began.Add(at)))
		u.actOnce(r)
		u.churn()
		u.retry(4)
	}
}

// retry requests a retry of a random task with a probability of 1/n. The retry may execute the
// targets that EdgeOne failed to prefetch once more, and no others.
func (u *users) retry(n int) {
	r := u.h.dice.roll(fmt.Sprint("retry ", u.retries))
	u.retries++
	tasks := u.sortedLive()
	if len(tasks) == 0 || r.IntN(n) > 0 {
		return
	}
	task := tasks[r.IntN(len(tasks))]
	u.h.logf("USER asks for a retry of %s", task.key)
	for _, run := range task.runs {
		for _, target := range run.spec.Targets {
			if work := workOf(run.spec, string(target)); strings.Contains(string(target), "/fail/") {
				u.asks[work] = append(u.asks[work], run)
			}
		}
		u.askPurges(run.spec, mayFail)
	}
	u.h.server.annotate(task.key, v1alpha1.RetryAnnotation, fmt.Sprint(u.retries))
}

func (u *users) actOnce(r *rand.Rand) {
	secrets := u.h.plan.faults["secrets"] > 0
	n := r.IntN(100)
	switch {
	case len(u.all) < u.h.plan.tasks && (n < 60 || len(u.live) == 0):
		u.create(fmt.Sprintf("t%d", len(u.all)), r)
	case secrets && n >= 80:
		u.secret(r)
	case u.h.plan.faults["lists"] > 0 && n >= 65 && len(u.lists) > 0:
		u.list(r)
	case len(u.live) == 0:
	default:
		tasks := u.sortedLive()
		u.touch(tasks[r.IntN(len(tasks))], r)
	}
}

// churn edits a task many times a second.
func (u *users) churn() {
	r := u.h.dice.roll("churn")
	if len(u.live) == 0 || !u.h.chance(r, "churn", 0.2) {
		return
	}
	tasks := u.sortedLive()
	task := tasks[r.IntN(len(tasks))]
	u.h.fault("churn", "of %s", task.key)
	for i := range 4 + r.IntN(12) {
		before := runOf(task.spec)
		task.spec.Revision = fmt.Sprintf("churn-%d-%d", len(task.runs), i%3)
		u.edited(task, "churn", before)
		time.Sleep(between(r, 20*time.Millisecond, 200*time.Millisecond))
	}
}

func (u *users) sortedLive() []*userTask {
	return slices.SortedFunc(maps.Values(u.live), func(a, b *userTask) int { return strings.Compare(a.key.String(), b.key.String()) })
}

// secret deletes, restores or rotates a Secret.
func (u *users) secret(r *rand.Rand) {
	all := sortedSecrets()
	secret := all[r.IntN(len(all))]
	u.h.fault("secrets", "%s", secret)
	switch {
	case u.gone[secret]:
		u.restore(secret)
	case r.IntN(2) == 0:
		u.h.logf("USER Secret %s is deleted", secret)
		u.gone[secret] = true
		u.h.server.setSecret(secret, nil)
	default:
		old := keys[secretOf[secret]][u.keys[secret]]
		u.keys[secret] = 1 - u.keys[secret]
		now := keys[secretOf[secret]][u.keys[secret]]
		u.h.edgeOne.SetKey(now)
		u.restore(secret)
		if r.IntN(2) == 0 {
			u.h.logf("USER key %s is removed from its account", old.SecretID)
			u.h.edgeOne.RemoveKey(old.SecretID)
		}
	}
}

func (u *users) create(name string, r *rand.Rand) {
	task := &userTask{key: client.ObjectKey{Namespace: [...]string{"one", "two", "three"}[r.IntN(3)], Name: name}}
	s := &task.spec
	zones := []string{"zone-a1", "zone-a2"}
	switch {
	case task.key.Namespace == "one" && r.IntN(2) == 0:
		s.CredentialsSecretRef.Name = "same"
	case task.key.Namespace == "two" && r.IntN(3) > 0:
		s.CredentialsSecretRef.Name, zones = "tenant", []string{"zone-b1"}
	case task.key.Namespace == "three" && u.h.plan.faults["squatters"] > 0 && u.h.dice.roll("squat").IntN(2) == 0:
		s.CredentialsSecretRef.Name, zones = squatterSecret, []string{"zone-a1", "zone-b1"}
	}
	s.ZoneID = zones[r.IntN(len(zones))]
	u.semantics(s, r)
	u.targets(task, 0, r)
	u.refresh(s, name)
	task.list = r.IntN(3) == 0
	u.make(task)
}

func (u *users) make(task *userTask) {
	u.all = append(u.all, task)
	u.live[task.key] = task
	u.newRun(task)
	u.h.logf("USER creates %s: %s", task.key, describe(task.spec))
	u.h.server.create(&v1alpha1.PrefetchTask{ObjectMeta: objectMeta(task.key), Spec: task.applied()})
}

// applied returns the spec that the API server stores.
func (t *userTask) applied() v1alpha1.PrefetchTaskSpec {
	spec := *t.spec.DeepCopy()
	if t.list {
		spec.Targets = nil
		spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: t.listKey().Name, Key: "urls"}
	}
	return spec
}

// listKey returns the key of the ConfigMap with the task's targets. Its name depends on the
// targets.
func (t *userTask) listKey() client.ObjectKey {
	return client.ObjectKey{Namespace: t.key.Namespace, Name: "list-" + taskstate.HashTargets(&v1alpha1.PrefetchTask{Spec: t.spec})}
}

// now returns the current task, with its targets in the order that its run uses.
func (u *users) now(task *userTask) *v1alpha1.PrefetchTask {
	now := u.h.server.get(task.key)
	if !task.list {
		return now
	}
	now = taskstate.WithTargets(now, task.spec.Targets)
	if reversed := taskstate.WithTargets(now, reverse(task.spec.Targets)); now.Status.TargetsHash == taskstate.HashTargets(reversed) {
		return reversed
	}
	return now
}

func reverse(targets []v1alpha1.Target) []v1alpha1.Target {
	targets = slices.Clone(targets)
	slices.Reverse(targets)
	return targets
}

// putList writes the ConfigMap with a task's targets. With faults, it sometimes leaves the
// ConfigMap out; list or calm writes it later.
func (u *users) putList(task *userTask) {
	key := task.listKey()
	if _, ok := u.lists[key]; !task.list || ok {
		return
	}
	u.lists[key] = task.spec.Targets
	if r := u.h.dice.roll("late list " + key.String()); u.h.plan.faults["lists"] > 0 && r.IntN(3) == 0 {
		u.h.fault("lists", "%s is not there yet", key)
		u.broken[key] = true
	} else {
		u.restoreList(key)
	}
}

func (u *users) restoreList(key client.ObjectKey) {
	u.h.logf("USER ConfigMap %s is as it should be", key)
	delete(u.broken, key)
	u.h.server.setList(key, textOf(u.lists[key]))
}

func textOf(targets []v1alpha1.Target) string {
	text := "# the list\r\n\n"
	for _, target := range targets {
		text += string(target) + "\n"
	}
	return text
}

// list deletes, spoils or restores a ConfigMap. If it reorders a list, every position refers to
// another target.
func (u *users) list(r *rand.Rand) {
	all := slices.SortedFunc(maps.Keys(u.lists), func(a, b client.ObjectKey) int { return strings.Compare(a.String(), b.String()) })
	key := all[r.IntN(len(all))]
	u.h.fault("lists", "%s", key)
	u.askAgain(key)
	n := r.IntN(4)
	switch {
	case u.broken[key] || n == 0:
		u.restoreList(key)
		return
	case n == 1:
		u.h.logf("USER ConfigMap %s is deleted", key)
		u.h.server.setList(key, "")
	case n == 2:
		u.h.logf("USER ConfigMap %s has a bad line", key)
		u.h.server.setList(key, textOf(u.lists[key])+"no URL\n")
	default:
		u.h.logf("USER ConfigMap %s is in another order", key)
		u.h.server.setList(key, textOf(reverse(u.lists[key])))
	}
	u.broken[key] = true
}

// mend starts a new run of each task whose list changed during its run.
func (u *users) mend() {
	for _, task := range u.all {
		if !task.deleted && taskstate.IsStalledFor(u.h.server.get(task.key), v1alpha1.ReasonTargetsChanged) && !ptr.Deref(task.spec.Suspend, false) {
			before := runOf(task.spec)
			task.spec.Revision = fmt.Sprintf("mended-%d", len(task.runs))
			u.edited(task, "a new revision for the list as it is", before)
		}
	}
}

// semantics chooses at random how targets are fetched.
func (u *users) semantics(s *v1alpha1.PrefetchTaskSpec, r *rand.Rand) {
	s.Mode, s.Headers, s.MediaSegments = "", nil, ""
	if n := r.IntN(6); n < 2 {
		s.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: fmt.Sprint(n)}}
	}
	if s.ZoneID != "zone-a2" && r.IntN(8) == 0 {
		s.Mode = v1alpha1.ModeEdge
	}
	if s.ZoneID == "zone-a1" && r.IntN(10) == 0 {
		s.MediaSegments = v1alpha1.MediaSegmentsPrefetch
	}
}

// longQuery makes most lists too long for the operator to keep in memory.
var longQuery = "?" + strings.Repeat("long", 400)

// targets chooses new targets at random. Most of them belong to no other run.
func (u *users) targets(task *userTask, run int, r *rand.Rand) {
	host := strings.TrimPrefix(task.spec.ZoneID, "zone-") + ".example.com"
	own := fmt.Sprintf("https://%s/%s.%d.%d", host, task.key.Name, len(u.all), run)
	n := 1 + r.IntN(4)
	if r.IntN(5) == 0 {
		n = 5 + r.IntN(25)
	}
	bad := u.h.plan.faults["bad-urls"] > 0
	long := ""
	if u.h.plan.faults["long-lists"] > 0 && u.h.dice.roll("long").IntN(3) == 0 {
		u.h.count("long-lists")
		n, long = n+taskstate.MaxCachedTargets/len(longQuery), longQuery
	}
	task.spec.Targets = nil
	for i := range n {
		target := fmt.Sprintf("%s/%d%s", own, i, long)
		switch k := r.IntN(24); {
		case k < 4:
			target = fmt.Sprintf("https://%s/shared/%d", host, r.IntN(6))
		case k == 4 && bad:
			target = fmt.Sprintf("%s/refuse/%d", own, i)
		case k == 9 && bad:
			target = fmt.Sprintf("%s%s%s/%d", own, failsPurge, [...]string{"refuse", "fail", "timeout"}[i%3], i)
		case k == 5 && bad:
			target = fmt.Sprintf("%s/fail/%d", own, i)
		case k == 6 && bad && r.IntN(3) == 0:
			target = fmt.Sprintf("https://unknown.example.net/%s.%d.%d/%d", task.key.Name, len(u.all), run, i)
		case k == 7 && bad:
			target = fmt.Sprintf("%s/slow/%d", own, i)
		case k == 8 && u.h.plan.faults["unknown-codes"] > 0:
			target = fmt.Sprintf("%s/%s/%d", own, [...]string{"config", "backend"}[r.IntN(2)], i)
		}
		if u.h.plan.faults["duplicate-spellings"] > 0 {
			task.spec.Targets = append(task.spec.Targets, u.spellings(target)...)
			continue
		}
		if !slices.Contains(task.spec.Targets, v1alpha1.Target(target)) {
			task.spec.Targets = append(task.spec.Targets, v1alpha1.Target(target))
		}
	}
}

// spellings returns one or two spellings of a URL with a part that can be percent-encoded.
func (u *users) spellings(target string) []v1alpha1.Target {
	r := u.h.dice.roll("spelling")
	if strings.Contains(target, "unknown.example.net") {
		return []v1alpha1.Target{v1alpha1.Target(target)}
	}
	rest := strings.TrimPrefix(target, "https://")
	host, path, _ := strings.Cut(rest, "/")
	ways := []string{
		"https://" + host + "/" + path + "/中", "https://" + host + "/" + path + "/%E4%B8%AD", "https://" + host + "/" + path + "/%e4%b8%ad",
		"https://" + strings.ToUpper(host) + "/" + path + "/%E4%b8%ad", "https://" + host + ":443/" + path + "/中", "https://" + host + "/" + path + "/中#here",
	}
	spelled := []v1alpha1.Target{v1alpha1.Target(ways[r.IntN(len(ways))])}
	if other := v1alpha1.Target(ways[r.IntN(len(ways))]); r.IntN(3) == 0 && other != spelled[0] {
		spelled = append(spelled, other)
		u.h.count("duplicate-spellings")
	}
	return spelled
}

// newRun records a new run, and the work that it requests.
func (u *users) newRun(task *userTask) {
	u.putList(task)
	run := &userRun{task: task, spec: *task.spec.DeepCopy()}
	task.runs = append(task.runs, run)
	u.h.refreshes.knows(task)
	u.release(task)
	u.askPurges(task.spec, func(string) bool { return true })
	for _, target := range task.spec.Targets {
		work := workOf(task.spec, string(target))
		if asked := u.asks[work]; len(asked) == 0 || asked[len(asked)-1] != run { // count once, however many spellings the run has
			u.asks[work] = append(asked, run)
		}
	}
}

// touch edits, suspends, deletes or recreates a task.
func (u *users) touch(task *userTask, r *rand.Rand) {
	before := runOf(task.spec)
	what := ""
	n := r.IntN(100)
	if n < 80 && u.touchRefresh(task) {
		return
	}
	switch {
	case n < 15:
		what = "revision"
		task.spec.Revision = fmt.Sprintf("r%d", len(task.runs))
	case n < 32:
		what = "targets"
		u.targets(task, len(task.runs), r)
	case n < 40:
		what = "one more target"
		task.spec.Targets = append(slices.Clone(task.spec.Targets), v1alpha1.Target(fmt.Sprintf("https://%s.example.com/%s.%d.%d/more",
			strings.TrimPrefix(task.spec.ZoneID, "zone-"), task.key.Name, len(u.all), len(task.runs))))
	case n < 50:
		what = "semantics"
		u.semantics(&task.spec, r)
	case n < 55:
		what = "back to its first spec"
		suspend := task.spec.Suspend
		task.spec = *task.runs[0].spec.DeepCopy()
		task.spec.Suspend = suspend
	case n < 60:
		what = "credentials"
		if task.key.Namespace == "one" && task.spec.CredentialsSecretRef.Name == "" {
			task.spec.CredentialsSecretRef.Name = "same"
		} else if task.key.Namespace == "one" {
			task.spec.CredentialsSecretRef.Name = ""
		}
	case n < 80:
		what = "suspend"
		task.spec.Suspend = ptr.To(!ptr.Deref(task.spec.Suspend, false))
	default:
		u.h.logf("USER deletes %s", task.key)
		task.deleted = true
		delete(u.live, task.key)
		u.h.server.delete(task.key)
		if r.IntN(3) == 0 {
			return
		}
		again := &userTask{key: task.key, spec: *task.spec.DeepCopy(), list: task.list}
		if r.IntN(2) == 0 {
			u.targets(again, 0, r)
		}
		if r.IntN(2) == 0 {
			time.Sleep(between(r, 0, 3*time.Second))
		}
		u.make(again)
		return
	}
	u.edited(task, what, before)
}

func (u *users) edited(task *userTask, what, before string) {
	if runOf(task.spec) != before {
		u.newRun(task)
		what += ", a new run"
	}
	u.h.logf("USER edits %s (%s): %s", task.key, what, describe(task.spec))
	u.h.server.edit(task.key, func(spec *v1alpha1.PrefetchTaskSpec) { *spec = task.applied() })
}

// calm restores most Secrets and all ConfigMaps, requests retries, and resumes most tasks.
func (u *users) calm() {
	r := u.h.dice.roll("users calm")
	for _, secret := range sortedSecrets() {
		if u.gone[secret] && r.IntN(10) > 0 {
			u.restore(secret)
		}
	}
	for key := range u.lists {
		if u.broken[key] {
			u.restoreList(key)
		}
	}
	for range u.all {
		u.retry(2)
	}
	for _, task := range u.all {
		if !task.deleted && ptr.Deref(task.spec.Suspend, false) && r.IntN(4) > 0 {
			task.spec.Suspend = nil
			u.edited(task, "resume", runOf(task.spec))
		}
	}
}

// lacksCredentials reports whether a task's Secret is gone or belongs to a squatter.
func (u *users) lacksCredentials(task *userTask) bool {
	name := task.spec.CredentialsSecretRef.Name
	return name == squatterSecret || name != "" && u.gone[client.ObjectKey{Namespace: task.key.Namespace, Name: name}]
}

func runOf(spec v1alpha1.PrefetchTaskSpec) string {
	return taskstate.RunHash(&v1alpha1.PrefetchTask{Spec: spec})
}

// severalAccounts reports whether tasks with different Secrets requested a target.
func (u *users) severalAccounts(target string) bool {
	secrets, same := map[string]bool{}, sameTarget(target)
	for _, runs := range u.asks {
		for _, run := range runs {
			if slices.ContainsFunc(run.spec.Targets, same) {
				secrets[run.spec.CredentialsSecretRef.Name], secrets[run.task.spec.CredentialsSecretRef.Name] = true, true
			}
		}
	}
	return len(secrets) > 1
}

// fromList reports whether a task with a ConfigMap requested a target.
func (u *users) fromList(target string) bool {
	for _, targets := range u.lists {
		if slices.ContainsFunc(targets, sameTarget(target)) {
			return true
		}
	}
	return false
}

func sameTarget(url string) func(v1alpha1.Target) bool {
	same := sameURL(url)
	return func(target v1alpha1.Target) bool { return same(string(target)) }
}

// workOf returns a name for what EdgeOne does for a target, independent of the URL's spelling.
// Two executions with the same name do the same work twice.
func workOf(spec v1alpha1.PrefetchTaskSpec, target string) string {
	var headers []string
	for _, header := range spec.Headers {
		headers = append(headers, header.Name+":"+header.Value)
	}
	slices.Sort(headers)
	return fmt.Sprint(spec.ZoneID, " edge=", spec.Mode == v1alpha1.ModeEdge, " media=", spec.MediaSegments == v1alpha1.MediaSegmentsPrefetch, " ", headers, " ", simulator.Canonical(target))
}

func describe(spec v1alpha1.PrefetchTaskSpec) string {
	text := fmt.Sprintf("run %s %s", runOf(spec), spec.ZoneID)
	if spec.CredentialsSecretRef.Name != "" {
		text += " secret=" + spec.CredentialsSecretRef.Name
	}
	if len(spec.Headers) > 0 || spec.Mode != "" || spec.MediaSegments != "" {
		text += fmt.Sprint(" ", spec.Mode, spec.MediaSegments, spec.Headers)
	}
	if spec.Revision != "" {
		text += " revision=" + spec.Revision
	}
	if ptr.Deref(spec.Suspend, false) {
		text += " suspended"
	}
	targets := make([]string, len(spec.Targets))
	for i, target := range spec.Targets {
		targets[i] = shortenURL(string(target))
	}
	return text + " " + strings.Join(targets, " ")
}
