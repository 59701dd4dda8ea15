// Command demo shows the operator at work on this machine. It starts a real API server, a
// simulated EdgeOne, and the built manager with the ServiceAccount that it ships with.
// Then it applies the tasks of hack/demo/tasks. With DEMO_ONCE=1 it ends without user
// input, and its exit status is 0 only if every sample reached its expected state. With
// arguments it runs them as a command on that cluster, in place of the user, and ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

const (
	// jobDuration is how long the simulated EdgeOne takes to prefetch or purge a URL.
	jobDuration = 3 * time.Second
	// patience is how long the samples may take. Usually they take 10 seconds.
	patience = time.Minute
)

var errInterrupted = errors.New("the demo was interrupted")

func main() {
	// A closed pipe (`make demo | head`) must not end this program before the processes
	// that it started.
	ctx, stop := signal.NotifyContext(context.Background(),
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	go endWithParent(stop)
	cluster.SilenceClients()
	if err := run(ctx, os.Getenv("DEMO_ONCE") == "1", os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

// endWithParent calls end when the parent process has ended. It is needed because `go run`
// does not forward SIGTERM.
func endWithParent(end func()) {
	for parent := os.Getppid(); os.Getppid() == parent; {
		time.Sleep(500 * time.Millisecond)
	}
	end()
}

func run(ctx context.Context, once bool, command []string) (err error) {
	d, err := start(ctx)
	if d != nil {
		defer func() { err = errors.Join(err, d.stop()) }()
	}
	if err == nil {
		err = d.show(ctx)
	}
	if err == nil && len(command) > 0 {
		return d.runCommand(ctx, command[0], command[1:]...)
	}
	if err != nil && ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil || once {
		return err
	}
	d.invite()
	return d.watchOn(ctx)
}

// demo is a running demo.
type demo struct {
	cluster *cluster.Cluster
	manager *cluster.Manager
	edgeOne simulator.Control
	edge    *edge
	root    string // of the repository
	// programs are the folders of kubectl and of its plugin, as in PATH.
	programs string
	tasks    *taskWatch
	logs     []*os.File
}

// start starts everything. The caller must stop the demo that it returns, even with an
// error.
func start(ctx context.Context) (*demo, error) {
	managerPath, err := cluster.BuildManager(ctx)
	if err != nil {
		return nil, err
	}
	simulatorPath, err := cluster.Build(ctx, "simulator", "./cmd/simulator")
	if err != nil {
		return nil, err
	}
	pluginPath, err := cluster.Build(ctx, "kubectl-teo_prefetch", "./cmd/kubectl-teo_prefetch")
	if err != nil {
		return nil, err
	}
	kubectl, err := cluster.FindKubectl()
	if err != nil {
		return nil, err
	}
	root, err := cluster.FindRoot()
	if err != nil {
		return nil, err
	}
	step("etcd and kube-apiserver, with the CRD and the RBAC of config/")
	kube, err := cluster.Start(ctx, cluster.Options{})
	if err != nil {
		return nil, err
	}
	d := &demo{cluster: kube, root: root, programs: filepath.Dir(kubectl) + ":" + filepath.Dir(pluginPath)}
	step("a simulated EdgeOne, whose prefetches and purges take " + jobDuration.String())
	if err := d.startSimulator(ctx, simulatorPath); err != nil {
		return d, err
	}
	d.edge, err = startEdge(kube.Dir, d.edgeOne)
	if err != nil {
		return d, err
	}
	step("the manager, as ServiceAccount " + cluster.ServiceAccount)
	if err := d.startManager(ctx, managerPath); err != nil {
		return d, err
	}
	d.tasks, err = watchTasks(ctx, kube)
	return d, err
}

func step(what string) { fmt.Println("Starting " + what) }

func (d *demo) startSimulator(ctx context.Context, path string) error {
	address, err := cluster.FreeAddress()
	if err != nil {
		return err
	}
	d.edgeOne.URL = "http://" + address
	return d.run(ctx, &cluster.Process{
		Name: "simulator", Path: path, ReadyURL: d.edgeOne.URL + "/_simulator/",
		Args: []string{"--listen=" + address, "--job-duration=" + jobDuration.String()},
	})
}

func (d *demo) startManager(ctx context.Context, path string) (err error) {
	d.manager, err = d.cluster.NewManager(ctx, cluster.ManagerOptions{
		Path: path, EdgeOne: d.edgeOne.URL, Env: cluster.DemoCredentials(),
		Args: []string{
			"--leader-elect=false",
			"--poll-interval=1s",  // instead of 5s
			"--quota-interval=5s", // instead of 10m, because the user is waiting
		},
	})
	if err != nil {
		return err
	}
	return d.run(ctx, d.manager.Process)
}

// run starts a process that ends with the cluster. Its log file has the name of the
// process.
func (d *demo) run(ctx context.Context, p *cluster.Process) error {
	logFile, err := os.Create(d.log(p.Name))
	if err != nil {
		return err
	}
	d.logs = append(d.logs, logFile)
	p.Tee = logFile
	return d.cluster.Run(ctx, p)
}

func (d *demo) log(name string) string { return filepath.Join(d.cluster.Dir, name+".log") }

func (d *demo) stop() error {
	if d.tasks != nil {
		d.tasks.stop()
	}
	if d.edge != nil {
		d.edge.stop()
	}
	err := d.cluster.Stop()
	for _, f := range d.logs {
		_ = f.Close()
	}
	return err
}

// kubectlOutput runs kubectl as the administrator of the demo's cluster.
func (d *demo) kubectlOutput(ctx context.Context, args ...string) (string, error) {
	cmd, err := d.cluster.Kubectl(ctx, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
