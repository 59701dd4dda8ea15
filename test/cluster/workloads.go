package cluster

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed stages.yaml
var stages []byte

// nodeName is the name of the only node, which kwok simulates.
const nodeName = "node"

// controllers are the controllers of kube-controller-manager that matter when an operator
// is installed or removed.
const controllers = "deployment-controller,replicaset-controller,disruption-controller,namespace-controller,garbage-collector-controller," +
	"serviceaccount-controller,serviceaccount-token-controller,clusterrole-aggregation-controller,node-lifecycle-controller," +
	"job-controller,cronjob-controller"

// startWorkloads starts the real controllers and scheduler, and kwok in place of a
// kubelet. Deployments then get pods that seem to run.
func (c *Cluster) startWorkloads(ctx context.Context, opts Options) error {
	config := filepath.Join(c.Dir, "stages.yaml")
	if err := os.WriteFile(config, stages, 0o600); err != nil {
		return err
	}
	for _, program := range []struct {
		name string
		args []string
	}{
		{"kube-controller-manager", []string{
			"--leader-elect=false", "--authentication-skip-lookup", "--controllers=" + controllers,
			"--service-account-private-key-file=" + filepath.Join(c.apiServerDir(), "service-accounts.key"),
			"--node-monitor-grace-period=1h", // a node that misses heartbeats on a busy machine does not become ready again
		}},
		{"kube-scheduler", []string{"--leader-elect=false", "--authentication-skip-lookup"}},
		{"kwok", []string{"--manage-all-nodes=true", "--config=" + config}},
	} {
		path, err := FindBinary(program.name)
		if err != nil {
			return err
		}
		address, err := FreeAddress()
		if err != nil {
			return err
		}
		p := &Process{Name: program.name, Path: path, Tee: opts.Tee, Args: append(program.args, "--kubeconfig="+c.Kubeconfig)}
		if program.name == "kwok" {
			p.Args, p.ReadyURL = append(p.Args, "--server-address="+address), "http://"+address+"/healthz"
		} else {
			p.Args = append(p.Args, "--bind-address=127.0.0.1", "--secure-port="+strings.TrimPrefix(address, "127.0.0.1:"), "--cert-dir="+filepath.Join(c.Dir, program.name))
			p.ReadyURL = "https://" + address + "/healthz"
		}
		if err := c.Run(ctx, p); err != nil {
			return err
		}
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{corev1.LabelHostname: nodeName}}}
	if err := c.Client.Create(ctx, node); err != nil {
		return fmt.Errorf("creating a node: %w", err)
	}
	return nil
}
