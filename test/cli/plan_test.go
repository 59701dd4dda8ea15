package cli

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

var (
	// plans is how many random specs are planned and then created.
	plans = flag.Int("plans", 12, "how many random specs TestPlanPredictsWhatTheOperatorSubmits plans and creates")
	seed  = flag.Uint64("plan-seed", 1, "seed of the random specs")
)

func TestPlanPredictsWhatTheOperatorSubmits(t *testing.T) {
	t.Parallel()
	p := newPlanning(t)
	for p.planned < *plans {
		p.round++
		p.playRound()
		// On a busy machine, a status may be written after the next call, which lacks its task then.
		if len(p.wrong) > 0 {
			p.again++
			p.playRound()
		}
		for _, wrong := range p.wrong {
			t.Errorf("round %d, twice: %s; the manager said:\n%s", p.round, wrong, p.manager.LastLines(20))
		}
		p.planned, p.equal = p.planned+p.plans, p.equal+p.plans-len(p.wrong)
	}
	t.Logf("%d of %d plans are what then happened; %d of %d rounds were played twice", p.equal, p.planned, p.again, p.round)
}

// planning is a cluster of its own, in which plan sees all that waits: three namespaces, an account, an
// EdgeOne, and a manager that does not run while tasks are created and planned. The account makes one call
// per second: the times in statuses, which decide what goes next, have no fractions.
type planning struct {
	*world
	random         *rand.Rand
	other          string // the namespace of neighbours
	separate       string // the namespace of tasks that have calls of their own
	manager        *cluster.Manager
	round          int
	again          int      // how many rounds were played twice
	planned, equal int      // how many plans were made, and how many of them are what then happened
	plans          int      // of this round
	wrong          []string // plans of this round that are not what then happened
}

const (
	planBatch = 7 // URLs of a call
	planPurge = 5 // URLs of a purge
)

func newPlanning(t *testing.T) *planning {
	t.Helper()
	p := &planning{world: newWorldIn(t, cluster.ForTest(t, cluster.Options{}))}
	p.other = newWorldIn(t, p.cluster).namespace
	p.separate = newWorldIn(t, p.cluster).namespace
	config := simulator.Demo()
	config.JobDuration, config.SignatureValidity = -1, time.Minute
	for i := range config.Zones {
		if zone := &config.Zones[i]; zone.ID == zoneID {
			zone.Batch, zone.Daily, zone.EdgeDaily = planBatch, 1_000_000, 1_000_000
			zone.Purge = map[string]simulator.Limits{"purge_url": {Batch: planPurge, Daily: 1_000_000}}
		}
	}
	p.edgeOne = simulator.New(config)
	url := p.edgeOne.Start()
	t.Cleanup(p.edgeOne.Close)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: "keys"}}
	secret.StringData = map[string]string{"secretId": "AKIDdemo", "secretKey": "demo-secret-key"}
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.DefaultAccount}}
	account.Spec.Credentials.SecretRef.Name = "keys"
	for _, namespace := range []string{p.namespace, p.other, p.separate} {
		account.Spec.Namespaces.Names = append(account.Spec.Namespaces.Names, v1alpha1.NamespaceName(namespace))
	}
	account.Spec.Zones = []v1alpha1.AccountZone{{ID: zoneID}}
	account.Spec.Allow.Purge = []v1alpha1.PurgeType{v1alpha1.PurgeURL, v1alpha1.PurgePrefix, v1alpha1.PurgeHost, v1alpha1.PurgeCacheTag}
	account.Spec.Allow.Modes = []v1alpha1.PrefetchMode{v1alpha1.ModeDefault, v1alpha1.ModeEdge}
	p.create(secret, account)
	p.manager = p.newManager(url, "--watch-namespaces="+strings.Join([]string{p.namespace, p.other, p.separate}, ","),
		"--teo-timeout=20s", "--signature-validity=1m", "--shutdown-grace=40s") // a lost call is no part of a plan
	p.startOperator()
	p.eventually("the account says how many URLs a call has", func() bool {
		zones := p.account().Status.Zones
		return len(zones) == 1 && zones[0].Batch == planBatch && len(zones[0].Purges) == 4
	})
	return p
}

func (p *planning) startOperator() {
	p.t.Helper()
	p.must(p.manager.Start(p.t.Context()))
	p.t.Cleanup(p.manager.Kill)
}

func (p *planning) stopOperator() {
	p.t.Helper()
	p.must(p.manager.Stop(p.t.Context(), patience))
}

func (p *planning) account() *v1alpha1.EdgeOneAccount {
	p.t.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	p.must(p.Get(p.t.Context(), client.ObjectKey{Name: v1alpha1.DefaultAccount}, account))
	return account
}

// playRound creates tasks that wait, plans others, creates them, and lets the operator run. Then it plans
// and makes an edit and a retry.
func (p *planning) playRound() {
	p.t.Helper()
	p.random, p.plans, p.wrong = rand.New(rand.NewPCG(*seed, uint64(p.round))), 0, nil
	p.stopOperator()
	kind := []string{"together", "together", "neighbours", "quota", "budget", "purge quota"}[p.random.IntN(6)]
	waiting, files := p.newTasks(kind)
	p.limit(kind, waiting, files)
	for _, task := range waiting {
		p.create(task)
	}
	result := p.planFiles(files)
	for _, o := range files {
		p.create(o)
	}
	before, left := p.edgeOne.Ledger(), p.edgeOne.Available(zoneID)
	p.startOperator()
	var tasks []*v1alpha1.PrefetchTask
	for _, o := range files {
		if task, isTask := o.(*v1alpha1.PrefetchTask); isTask {
			p.compare(kind, result.Tasks[len(tasks)], p.waitForEnd(task))
			tasks = append(tasks, task)
		}
	}
	urls, edge := 0, 0
	for _, task := range slices.Concat(tasks, waiting) {
		n := usedURLs(p.waitForEnd(task))
		if urls += n; taskstate.IsEdgeMode(task) {
			edge += n
		}
	}
	after := p.edgeOne.Ledger()
	if got := after.Targets() - before.Targets(); got != urls || left-p.edgeOne.Available(zoneID) != urls-edge {
		p.t.Errorf("round %d: %d URLs are submitted, the quota is %d less, and the statuses say %d, of them %d edge", p.round, got, left-p.edgeOne.Available(zoneID), urls, edge)
	}
	if kind == "together" {
		p.editAndRetry(tasks)
	}
	for _, task := range waiting {
		files = append(files, task)
	}
	for _, o := range files {
		p.must(p.Delete(p.t.Context(), o))
	}
}

// newTasks returns tasks that wait, and objects that are planned: tasks, and ConfigMaps with their lists.
// Neighbours are tasks of two namespaces that fit into one call. If they need more, it is in the operator's
// memory only whose turn it is.
func (p *planning) newTasks(kind string) (waiting []*v1alpha1.PrefetchTask, files []client.Object) {
	switch kind {
	case "purge quota":
		task := p.newTask("alone", p.namespace)
		task.Spec.Purge.Type = v1alpha1.PurgeURL
		return nil, []client.Object{task}
	case "neighbours":
		a, b, c := p.newTask("a-waits", p.other), p.newTask("b-plain", p.namespace), p.newTask("c-plain", p.other)
		for _, task := range []*v1alpha1.PrefetchTask{a, b, c} {
			p.separateURLs(task)
			task.Spec.Targets = task.Spec.Targets[:min(len(task.Spec.Targets), planBatch/3)]
		}
		return []*v1alpha1.PrefetchTask{a}, []client.Object{b, c}
	}
	for i := range p.random.IntN(3) {
		waiting = append(waiting, p.newTask(fmt.Sprint("a-waits-", i), p.namespace))
	}
	for i := range 1 + p.random.IntN(3) {
		files = append(files, p.newTask(fmt.Sprint("b-plain-", i), p.namespace))
	}
	if kind != "together" {
		return waiting, files
	}
	for i, edit := range []func(*v1alpha1.PrefetchTask) client.Object{p.purge, p.moveList, p.useEdgeMode, p.generateName} {
		if p.random.IntN(2) == 0 {
			task := p.newTask(fmt.Sprint("c-special-", i), p.separate)
			p.separateCalls(task)
			if other := edit(task); other != nil {
				files = append(files, other)
			}
			files = append(files, task)
		}
	}
	return waiting, files
}

// newTask returns a new task. Tasks of a round have URLs in common; some URLs fail.
func (p *planning) newTask(name, namespace string) *v1alpha1.PrefetchTask {
	task := p.task(fmt.Sprintf("r%d-%s", p.round, name))
	task.Namespace = namespace
	task.APIVersion, task.Kind = v1alpha1.GroupVersion.String(), "PrefetchTask"
	for range 1 + p.random.IntN(20) {
		folder := []string{"", "", "", "broken/"}[p.random.IntN(4)]
		url := fmt.Sprintf("%s%s%d/%d.html", good, folder, p.round, p.random.IntN(40))
		if p.random.IntN(8) == 0 {
			url = strings.Replace(url, "https://www.example.com", "https://WWW.example.com:443", 1) // another spelling
		}
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(url))
	}
	return task
}

// separateCalls gives a task calls and URLs of its own: it is not submitted at once, or not with the others.
func (p *planning) separateCalls(task *v1alpha1.PrefetchTask) {
	task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Task", Value: task.Name}}
	p.separateURLs(task)
}

// separateURLs gives a task URLs of its own.
func (p *planning) separateURLs(task *v1alpha1.PrefetchTask) {
	for i, target := range task.Spec.Targets {
		task.Spec.Targets[i] = v1alpha1.Target(strings.ReplaceAll(string(target), fmt.Sprintf("/%d/", p.round), "/"+task.Name+"/"))
	}
}

func (p *planning) purge(task *v1alpha1.PrefetchTask) client.Object {
	task.Spec.Purge = []v1alpha1.Purge{
		{Type: v1alpha1.PurgeURL},
		{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{v1alpha1.PurgeTarget(good + task.Name + "/"), v1alpha1.PurgeTarget(good + "broken/" + task.Name + "/")}},
		{Type: v1alpha1.PurgeCacheTag, Targets: []v1alpha1.PurgeTarget{v1alpha1.PurgeTarget(task.Name)}},
	}[p.random.IntN(3)]
	return nil
}

// moveList moves the list of a task into a ConfigMap.
func (p *planning) moveList(task *v1alpha1.PrefetchTask) client.Object {
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: task.Namespace, Name: task.Name}, Data: map[string]string{}}
	configMap.APIVersion, configMap.Kind = "v1", "ConfigMap"
	for _, target := range task.Spec.Targets {
		configMap.Data["urls"] += string(target) + "\n"
	}
	task.Spec.Targets = nil
	task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: task.Name, Key: "urls"}
	return configMap
}

func (p *planning) useEdgeMode(task *v1alpha1.PrefetchTask) client.Object {
	task.Spec.Mode = v1alpha1.ModeEdge
	return nil
}

func (p *planning) generateName(task *v1alpha1.PrefetchTask) client.Object {
	task.GenerateName, task.Name = task.Name+"-", ""
	return nil
}

// limit leaves less of the quota or of the budget than the tasks need, and says so in the account, as the
// operator does a little later.
func (p *planning) limit(kind string, waiting []*v1alpha1.PrefetchTask, files []client.Object) {
	p.t.Helper()
	urls := 0
	for _, task := range waiting {
		urls += len(taskstate.DistinctTargets(task))
	}
	for _, o := range files {
		if task, isTask := o.(*v1alpha1.PrefetchTask); isTask {
			urls += len(taskstate.DistinctTargets(task))
		}
	}
	room := p.random.IntN(urls)
	account := p.account()
	account.Spec.Limits = v1alpha1.AccountLimits{CallsPerSecond: 1}
	switch kind {
	case "budget":
		account.Spec.Limits.DailyURLs = ptr.To(ptr.Deref(account.Status.Used, 0) + int32(room))
		room = 500_000
	case "together", "neighbours":
		room = 500_000
	}
	p.must(p.Update(p.t.Context(), account))
	p.edgeOne.SetAvailable(zoneID, room)
	account.Status.Zones[0].Left = ptr.To(int32(room))
	p.must(p.Status().Update(p.t.Context(), account))
}

// planFiles plans objects that are not created.
func (p *planning) planFiles(files []client.Object) cli.PlanResult {
	p.t.Helper()
	var manifests []string
	for _, o := range files {
		text, err := yaml.Marshal(o)
		p.must(err)
		manifests = append(manifests, string(text))
	}
	return p.plan(strings.Join(manifests, "---\n"), "-")
}

func (p *planning) plan(input string, args ...string) (result cli.PlanResult) {
	p.t.Helper()
	r := p.runWith(input, append([]string{"plan", "-o", "json"}, args...)...)
	if json.Unmarshal([]byte(r.out), &result) != nil || r.code != result.ExitCode || len(result.Notes) > 0 || len(result.Tasks) == 0 {
		p.t.Fatalf("%+v", r)
	}
	fits := !slices.ContainsFunc(result.Tasks, func(task *plan.TaskPlan) bool { return !task.Fits() })
	if fits != (r.code == 0) || !fits && r.code != cli.ExitUserAction {
		p.t.Errorf("exit code %d of %s", r.code, r.out)
	}
	return result
}

// waitForEnd waits until a task is over, or has not enough quota.
func (p *planning) waitForEnd(task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	p.t.Helper()
	got := &v1alpha1.PrefetchTask{}
	p.eventually(fmt.Sprintf("%s in round %d is over, or has not enough quota", task.Name, p.round), func() bool {
		p.must(p.Get(p.t.Context(), client.ObjectKeyFromObject(task), got))
		reason := taskstate.ReadyReason(got)
		return taskstate.IsFinished(got) || reason == v1alpha1.ReasonDailyQuota || reason == v1alpha1.ReasonBudget
	})
	return got
}

// compare compares a plan with what the status of the task says after it.
func (p *planning) compare(kind string, planned *plan.TaskPlan, task *v1alpha1.PrefetchTask) {
	p.t.Helper()
	calls, purges := 0, 0
	for i := range task.Status.Jobs {
		if task.Status.Jobs[i].Kind == v1alpha1.JobPurge {
			purges++
		} else {
			calls++
		}
	}
	open := int(*task.Status.Targets.Total - *task.Status.Targets.Submitted)
	reason := ""
	if open > 0 {
		reason = taskstate.ReadyReason(task)
	}
	p.count(kind, planned, fmt.Sprintf("%d calls with %d URLs, %d purges, %d not today %s", calls, usedURLs(task), purges, open, reason))
}

// count counts a plan, and notes it if something else than it has happened.
func (p *planning) count(kind string, planned *plan.TaskPlan, got string) {
	p.plans++
	want := fmt.Sprintf("%d calls with %d URLs, %d purges, %d not today %s", planned.Calls, planned.URLs, planned.PurgeCalls, planned.NotToday, planned.Reason)
	if got != want {
		p.wrong = append(p.wrong, fmt.Sprintf("%s: planned %s: %+v; got %s", kind, want, planned, got))
	}
}

// usedURLs returns how many URLs a task has taken from the quota.
func usedURLs(task *v1alpha1.PrefetchTask) (n int) {
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.Kind == v1alpha1.JobPrefetch {
			n += taskstate.ChargedURLs(job.Positions, job.SharedURLs)
		}
	}
	return n
}

// editAndRetry plans an edit of the list of a finished task and makes it, and then a retry of a task with
// failures.
func (p *planning) editAndRetry(tasks []*v1alpha1.PrefetchTask) {
	p.t.Helper()
	edited := &v1alpha1.PrefetchTask{}
	p.must(p.Get(p.t.Context(), client.ObjectKeyFromObject(tasks[0]), edited))
	if len(edited.Spec.Targets) == 0 {
		return
	}
	for i := range 1 + p.random.IntN(10) {
		edited.Spec.Targets = append(edited.Spec.Targets, v1alpha1.Target(fmt.Sprintf("%snew/%d/%d", good, p.round, i)))
	}
	edited.Spec.Targets = edited.Spec.Targets[p.random.IntN(len(edited.Spec.Targets)):]
	file := edited.DeepCopy()
	file.APIVersion, file.Kind, file.ManagedFields = v1alpha1.GroupVersion.String(), "PrefetchTask", nil
	planned := p.planFiles([]client.Object{file}).Tasks[0]
	p.observe("edit", planned, func() {
		p.must(p.Update(p.t.Context(), edited))
		p.waitForEnd(edited)
	})
	for _, task := range tasks {
		p.must(p.Get(p.t.Context(), client.ObjectKeyFromObject(task), task))
		if *task.Status.Targets.Failed == 0 {
			continue
		}
		metav1.SetMetaDataAnnotation(&task.ObjectMeta, v1alpha1.RetryAnnotation, "again")
		file := task.DeepCopy()
		file.APIVersion, file.Kind, file.ManagedFields = v1alpha1.GroupVersion.String(), "PrefetchTask", nil
		planned := p.planFiles([]client.Object{file}).Tasks[0]
		p.observe("retry", planned, func() {
			p.must(p.Update(p.t.Context(), task))
			p.eventually("the retry is over", func() bool {
				return p.waitForEnd(task).Status.LastHandledRetry == "again"
			})
		})
		return
	}
}

// observe compares a plan with what EdgeOne gets meanwhile.
func (p *planning) observe(kind string, planned *plan.TaskPlan, do func()) {
	p.t.Helper()
	before := p.edgeOne.Ledger()
	do()
	after := p.edgeOne.Ledger()
	p.count(kind, planned, fmt.Sprintf("%d calls with %d URLs, %d purges, 0 not today ", len(after.Prefetches())-len(before.Prefetches()),
		after.Targets()-before.Targets(), len(after.Purges())-len(before.Purges())))
}

func TestPlansNeedValidTasksAndACluster(t *testing.T) {
	w := newWorld(t)
	const head = "apiVersion: teo.prefetch-operator.io/v1alpha1\nkind: PrefetchTask\nmetadata: {name: home}\n"
	valid := head + "spec: {zoneID: " + zoneID + ", targets: [" + good + "]}\n"
	for input, want := range map[string]string{
		head + "spec: {zoneID: " + zoneID + ", targets: [ftp://x]}\n": "is invalid",
		valid + "---\n" + valid: "the files have the task home in namespace " + w.namespace + " twice: remove one of them",
	} {
		if r := w.runWith(input, "plan", "-"); r.code != 1 || r.out != "" || !strings.Contains(r.err, want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%+v", r)
		}
	}
	r := w.runWith(valid, "plan", "-", "--server=https://127.0.0.1:1")
	if r.code != 1 || r.out != "" || !strings.HasPrefix(r.err, "Error: the cluster cannot be reached at https://127.0.0.1:1/") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("without a cluster: %+v", r)
	}
	untrusted := rest.CopyConfig(w.cluster.Admin)
	untrusted.CAData, untrusted.CAFile = nil, ""
	r = w.startWith(untrusted, valid, "plan", "-").wait()
	if r.code != 1 || r.out != "" || strings.Count(r.err, "\n") != 1 || !strings.HasPrefix(r.err, "Error: the certificate of the cluster at "+w.cluster.Admin.Host) ||
		!strings.HasSuffix(r.err, "is not trusted: x509: certificate signed by unknown authority; check --context, and the certificate-authority of the cluster in the kubeconfig\n") {
		t.Errorf("with an unknown certificate: %+v", r)
	}
}

func TestPlanNamesTheNamespacesOfItsTasksIfTheyAreSeveral(t *testing.T) {
	w, other := newWorld(t), newSecondWorld(t)
	var manifests []string
	for _, task := range []*v1alpha1.PrefetchTask{w.task("home", "http://www.example.com/"), other.task("home", "http://www.example.com/")} {
		task.APIVersion, task.Kind = v1alpha1.GroupVersion.String(), "PrefetchTask"
		text, err := yaml.Marshal(task)
		w.must(err)
		manifests = append(manifests, string(text))
	}
	w.runWith(manifests[0], "plan", "-").has(t, 0, "\nhome: HTTP: 1, ", "")
	r := w.runWith(strings.Join(manifests, "---\n"), "plan", "-")
	for _, namespace := range []string{w.namespace, other.namespace} {
		r.has(t, 0, "\n"+namespace+"/home: HTTP: 1, ", "Letting the API server check 2 tasks\n")
	}
}

func TestPlanSaysWhatItMayNotRead(t *testing.T) {
	w := newWorld(t)
	waits := w.task("waits", good)
	waits.Spec.AccountRef.Name = "unknown"
	w.create(waits, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "editor"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: w.namespace}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "teo-prefetch-operator-prefetchtask-editor"},
	})
	editor := rest.CopyConfig(w.cluster.Admin)
	editor.Impersonate.UserName = w.namespace
	task := w.task("planned", good+"new")
	task.Spec.AccountRef.Name = "unknown"
	task.APIVersion, task.Kind = v1alpha1.GroupVersion.String(), "PrefetchTask"
	text, err := yaml.Marshal(task)
	w.must(err)
	var result cli.PlanResult
	r := w.startWith(editor, string(text), "--as="+w.namespace, "plan", "-", "-o", "json").wait()
	if json.Unmarshal([]byte(r.out), &result) != nil || r.code != 0 || len(result.Tasks) != 1 {
		t.Fatalf("%+v", r)
	}
	if shared := result.Tasks[0].SharedWith; len(shared) != 1 || shared[0] != w.namespace+"/waits" {
		t.Errorf("the other tasks in its calls are %q", shared)
	}
	for _, want := range []string{"the accounts are not known", "tasks that wait in other namespaces are not known", "the labels of namespaces are not known"} {
		has := func(note string) bool { return strings.HasPrefix(note, want) }
		if !slices.ContainsFunc(result.Notes, has) || !strings.Contains(r.err, "Note: "+want) {
			t.Errorf("no note says that %s: %q, %s", want, result.Notes, r.err)
		}
	}
}
