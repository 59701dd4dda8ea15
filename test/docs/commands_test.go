package docs

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

//go:embed prelude.sh
var prelude []byte

// fromNothing are the pages that install the operator themselves. All other pages run with
// an installed operator.
var fromNothing = map[string]bool{
	"README.md":                              true,
	"docs/quickstart.md":                     true,
	"docs/install.md":                        true,
	"charts/teo-prefetch-operator/README.md": true,
}

const (
	name      = "teo-prefetch-operator" // of the release, the Deployment and the ServiceAccount
	namespace = "teo-prefetch-system"
	patience  = 4 * time.Minute // for a page, on a busy machine
)

// desk is the environment in which the commands of the pages run.
type desk struct {
	cluster *cluster.Cluster
	root    string
	dir     string // shared by all pages
	env     []string
	manager string
	plugin  string
	edgeOne string
	started []*cluster.Manager
}

func TestTheCommandsOfThePagesRun(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster; skipped with -short")
	}
	cluster.SilenceClients()
	kube, err := cluster.Start(t.Context(), cluster.Options{Bare: true, Workloads: true})
	must(t, err)
	t.Cleanup(func() { _ = kube.Stop() }) // kube-scheduler ends with exit status 1
	d := &desk{cluster: kube, dir: t.TempDir()}
	d.start(t)
	var later []*page
	for _, p := range pages(t) {
		switch {
		case !p.hasCommands():
		case fromNothing[p.path]:
			t.Run(strings.ReplaceAll(p.path, "/", "_"), func(t *testing.T) { d.run(t, p) })
			d.shell(t, "cleanup", "remove_operator")
		default:
			later = append(later, p)
		}
	}
	d.shell(t, "setup", "install_operator")
	for _, p := range later {
		t.Run(strings.ReplaceAll(p.path, "/", "_"), func(t *testing.T) { d.run(t, p) })
	}
}

func (p *page) hasCommands() bool {
	for i := range p.blocks {
		if p.blocks[i].shell() || p.blocks[i].language == "yaml" {
			return true
		}
	}
	return false
}

// start prepares the programs and an EdgeOne, and starts what runs in place of the
// cluster's pods.
func (d *desk) start(t *testing.T) {
	t.Helper()
	var err error
	d.root, err = cluster.FindRoot()
	must(t, err)
	d.manager, err = cluster.BuildManager(t.Context())
	must(t, err)
	d.plugin, err = cluster.Build(t.Context(), "kubectl-teo_prefetch", "./cmd/kubectl-teo_prefetch")
	must(t, err)
	config := simulator.Demo()
	config.JobDuration = -1
	edgeOne := simulator.New(config)
	d.edgeOne = edgeOne.Start()
	path := filepath.Dir(d.plugin) + ":" + os.Getenv("PATH")
	for _, program := range []string{"helm", "kubectl"} {
		file, err := cluster.FindBinary(program)
		must(t, err)
		path = filepath.Dir(file) + ":" + path
	}
	must(t, os.WriteFile(filepath.Join(d.dir, "prelude.sh"), prelude, 0o600))
	d.env = append(cluster.DemoCredentials(),
		"PATH="+path, "EDGEONE="+d.edgeOne, "PRELUDE="+filepath.Join(d.dir, "prelude.sh"), "KUBECACHEDIR="+filepath.Join(d.dir, "kubectl"),
		"PLUGIN="+d.plugin, "GOBIN="+filepath.Join(d.dir, "go"), // where go install puts programs
		"FLAGGER_CHARTS="+d.installDeliveryKinds(t),
		"HELM_CACHE_HOME="+d.dir+"/helm", "HELM_CONFIG_HOME="+d.dir+"/helm", "HELM_DATA_HOME="+d.dir+"/helm")
	d.env = append(d.env, startSite(t)...)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.play(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := len(d.started); t.Failed() && n > 0 {
			t.Logf("the last manager said:\n%s", d.started[n-1].LastLines(30))
		}
		edgeOne.Close()
	})
}

// play runs in place of the pods: the manager while its Deployment exists, the plugin in the
// pods of Jobs, and the check of `helm test`. play reports the check as successful, because
// test/install runs it.
func (d *desk) play(ctx context.Context) error {
	var manager *cluster.Manager
	var of string // the Deployment and the arguments that the manager runs with
	jobs := &jobPods{desk: d, started: map[types.UID]bool{}}
	stop := func() error {
		if manager == nil {
			return nil
		}
		m := manager
		manager = nil
		return m.Stop(context.WithoutCancel(ctx), time.Minute)
	}
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		var deployment appsv1.Deployment
		if err := d.cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &deployment); client.IgnoreNotFound(err) != nil {
			return false, err
		}
		var args []string
		var running string
		if replicas := deployment.Spec.Replicas; deployment.UID != "" && (replicas == nil || *replicas > 0) {
			args = deployment.Spec.Template.Spec.Containers[0].Args
			running = fmt.Sprint(deployment.UID, args)
		}
		if of != running { // deleted, scaled to zero, replaced, with other arguments, or the first one
			if err := stop(); err != nil {
				return false, err
			}
			of = running
		}
		if of != "" && manager == nil && deployment.Status.AvailableReplicas > 0 {
			var err error
			if manager, err = d.startManager(ctx, args); err != nil {
				return false, err
			}
		}
		return false, errors.Join(d.playChecks(ctx), jobs.startNew(ctx))
	})
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, jobs.running.Wait(), stop())
}

func (d *desk) startManager(ctx context.Context, podArgs []string) (*cluster.Manager, error) {
	m, err := d.cluster.NewManager(ctx, cluster.ManagerOptions{
		Path: d.manager, EdgeOne: d.edgeOne, Env: d.env, PodArgs: podArgs, Unprobed: true,
		Args: []string{
			"--credentials-dir=", "--poll-interval=200ms",
			"--leader-elect=false", // otherwise it would wait for the Lease of an operator that a page has removed
		},
	})
	if err != nil {
		return nil, err
	}
	d.started = append(d.started, m)
	return m, m.Start(ctx)
}

func (d *desk) playChecks(ctx context.Context) error {
	var pods corev1.PodList
	if err := d.cluster.Client.List(ctx, &pods, client.MatchingLabels{"app.kubernetes.io/component": "check"}); err != nil {
		return err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodPending || pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil {
			continue
		}
		pod.Status.Phase = corev1.PodSucceeded
		if err := d.cluster.Client.Status().Update(ctx, pod); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}

// run runs the commands of a page, in a folder that looks like the root of the repository,
// and in a separate namespace.
func (d *desk) run(t *testing.T, p *page) {
	dir := t.TempDir()
	entries, err := os.ReadDir(d.root)
	must(t, err)
	for _, entry := range entries {
		must(t, os.Symlink(filepath.Join(d.root, entry.Name()), filepath.Join(dir, entry.Name())))
	}
	script := make([]string, p.lines)
	for i := range p.blocks {
		b := &p.blocks[i]
		if file := b.file(); file != "" {
			if _, err := os.Lstat(filepath.Join(dir, file)); err == nil {
				t.Errorf("%s:%d: there is a file %s already", p.path, b.line, file)
				continue
			}
			must(t, os.WriteFile(filepath.Join(dir, file), []byte(b.text()), 0o600))
		}
		switch {
		case b.shell():
			if b.before != "" {
				script[b.line-3] = b.before // on the line of the comment, or close to it
			}
			copy(script[b.line-1:], b.lines)
		case b.language == "yaml" && b.notRun == "" && known(t, p, b):
			file := fmt.Sprintf(".line-%d.yaml", b.line)
			must(t, os.WriteFile(filepath.Join(dir, file), []byte(b.text()), 0o600))
			verb := "apply"
			if strings.Contains(b.text(), "generateName:") {
				verb = "create"
			}
			script = append(script, "kubectl "+verb+" --dry-run=server -f "+file)
		}
		if command := recipeCommands(t, dir, b); command != "" {
			script[b.line-1] = command
		}
		if values := chartValues(t, b); values != nil {
			file := fmt.Sprintf(".values-%d.yaml", b.line)
			must(t, os.WriteFile(filepath.Join(dir, file), values, 0o600))
			script = append(script, "helm template charts/teo-prefetch-operator --set image.repository=registry.example/teo-prefetch-operator --values "+file+" > /dev/null")
		}
	}
	d.bash(t, dir, p.path, strings.Join(script, "\n"))
}

// known reports whether all kinds in the YAML exist in the test's cluster.
func known(t *testing.T, p *page, b *block) bool {
	t.Helper()
	for part := range strings.SplitSeq(b.text(), "\n---\n") {
		var object struct {
			metav1.TypeMeta `json:",inline"`
		}
		if err := yaml.Unmarshal([]byte(part), &object); err != nil {
			t.Errorf("%s:%d: %v", p.path, b.line, err)
			return false
		}
		group, _, grouped := strings.Cut(object.APIVersion, "/")
		if object.Kind == "" || grouped && strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io") && group != "teo.prefetch-operator.io" && !deliveryKinds[object.Kind] {
			return false
		}
	}
	return true
}

// chartValues returns the chart's values in an Application of Argo CD or a HelmRelease of
// Flux, both of which are in the installation page.
func chartValues(t *testing.T, b *block) (values []byte) {
	t.Helper()
	if b.language != "yaml" {
		return nil
	}
	for part := range strings.SplitSeq(b.text(), "\n---\n") {
		var object struct {
			Spec struct {
				Values any `json:"values"`
				Source struct {
					Helm struct {
						Values any `json:"valuesObject"`
					} `json:"helm"`
				} `json:"source"`
			} `json:"spec"`
		}
		if yaml.Unmarshal([]byte(part), &object) != nil {
			continue // known reports the error
		}
		for _, v := range []any{object.Spec.Values, object.Spec.Source.Helm.Values} {
			if v != nil {
				var err error
				values, err = yaml.Marshal(v)
				must(t, err)
			}
		}
	}
	return values
}

// shell runs commands that do not belong to a page.
func (d *desk) shell(t *testing.T, what, command string) {
	t.Helper()
	d.bash(t, d.root, what, "\n"+command)
}

// bash runs a script. Its first line must be empty, because the prelude is inserted there.
func (d *desk) bash(t *testing.T, dir, what, script string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "page-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}}
	must(t, d.cluster.Client.Create(t.Context(), ns))
	file, kubeconfig := filepath.Join(t.TempDir(), "script"), filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(file, []byte(". \"$PRELUDE\""+script), 0o600))
	must(t, cluster.WriteKubeconfig(kubeconfig, d.cluster.Admin, ns.Name))
	bash, err := exec.LookPath("bash")
	must(t, err)
	p := &cluster.Process{
		Name: what, Path: bash, Args: []string{file}, Dir: dir,
		Env: append(slices.Clone(d.env), "PAGE="+what, "KUBECONFIG="+kubeconfig),
	}
	must(t, p.Start(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = p.Wait(ctx)
	p.Kill() // kills the children that it waits for
	out := p.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", what, err, out[max(0, len(out)-4000):])
	}
	t.Logf("%s\n%s", what, out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
