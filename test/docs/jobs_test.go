package docs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

const (
	pluginInImage = "/kubectl-teo_prefetch"
	jobNameLabel  = "batch.kubernetes.io/job-name"
)

// jobPods runs the pods of Jobs in place of a kubelet. All of them run the plugin, with the
// arguments of the pod and the permissions of its ServiceAccount.
type jobPods struct {
	*desk
	started map[types.UID]bool
	running errgroup.Group
}

// startNew starts the pods that a node has got since the last call.
func (j *jobPods) startNew(ctx context.Context) error {
	var pods corev1.PodList
	if err := j.cluster.Client.List(ctx, &pods, client.HasLabels{jobNameLabel}); err != nil {
		return err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodPending || pod.Spec.NodeName == "" || j.started[pod.UID] {
			continue
		}
		j.started[pod.UID] = true
		j.running.Go(func() error { return j.run(ctx, pod) })
	}
	return nil
}

// run runs the only container of a pod, and reports its end as a kubelet does.
func (j *jobPods) run(ctx context.Context, pod *corev1.Pod) error {
	container := &pod.Spec.Containers[0]
	command, err := j.command(ctx, pod, container)
	if err != nil {
		return fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	out, err := command.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return err
	}
	if ctx.Err() != nil { // killed, because the test ends
		return nil
	}
	end := &corev1.ContainerStateTerminated{ExitCode: int32(command.ProcessState.ExitCode()), Message: string(out[max(0, len(out)-2000):])}
	pod.Status.Phase = corev1.PodSucceeded
	if end.ExitCode != 0 {
		pod.Status.Phase = corev1.PodFailed
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: container.Name, Image: container.Image, State: corev1.ContainerState{Terminated: end},
	}}
	return client.IgnoreNotFound(j.cluster.Client.Status().Update(ctx, pod))
}

// command returns the command of a container.
func (j *jobPods) command(ctx context.Context, pod *corev1.Pod, container *corev1.Container) (*exec.Cmd, error) {
	if len(container.Command) != 1 || container.Command[0] != pluginInImage {
		return nil, fmt.Errorf("its command is %q, and the image has %s", container.Command, pluginInImage)
	}
	dir, err := os.MkdirTemp(j.dir, "pod-")
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := j.writeKubeconfig(ctx, kubeconfig, pod); err != nil {
		return nil, err
	}
	args, err := j.expand(ctx, dir, pod, container)
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, j.plugin, args...)
	command.Env = append(append(os.Environ(), j.env...), "KUBECONFIG="+kubeconfig)
	return command, nil
}

// writeKubeconfig writes what a pod finds in its environment: its namespace, and the token of
// its ServiceAccount if the pod asks for it.
func (j *jobPods) writeKubeconfig(ctx context.Context, path string, pod *corev1.Pod) error {
	if mount := pod.Spec.AutomountServiceAccountToken; mount == nil || !*mount {
		return errors.New("it has no token: set automountServiceAccountToken")
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}}
	request := &authenticationv1.TokenRequest{}
	if err := j.cluster.Client.SubResource("token").Create(ctx, account, request); err != nil {
		return err
	}
	config := rest.AnonymousClientConfig(j.cluster.Admin)
	config.BearerToken = request.Status.Token
	return cluster.WriteKubeconfig(path, config, pod.Namespace)
}

// expand returns the arguments of a container with the values of its variables, and with the
// files below dir that have the ConfigMaps that it mounts.
func (j *jobPods) expand(ctx context.Context, dir string, pod *corev1.Pod, container *corev1.Container) ([]string, error) {
	var replace []string
	for _, env := range container.Env {
		value := env.Value
		if env.ValueFrom != nil && env.ValueFrom.FieldRef != nil {
			label := strings.TrimSuffix(strings.TrimPrefix(env.ValueFrom.FieldRef.FieldPath, "metadata.labels['"), "']")
			value = pod.Labels[label]
		}
		if value == "" {
			return nil, fmt.Errorf("its variable %s is neither a text nor a label that it has", env.Name)
		}
		replace = append(replace, "$("+env.Name+")", value)
	}
	for _, mount := range container.VolumeMounts {
		if err := j.writeConfigMap(ctx, dir, pod, mount.Name); err != nil {
			return nil, err
		}
		replace = append(replace, mount.MountPath+"/", dir+"/")
	}
	args := make([]string, 0, len(container.Args))
	for _, arg := range container.Args {
		args = append(args, strings.NewReplacer(replace...).Replace(arg))
	}
	return args, nil
}

// writeConfigMap writes the ConfigMap of a volume as files below dir.
func (j *jobPods) writeConfigMap(ctx context.Context, dir string, pod *corev1.Pod, volume string) error {
	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume && v.ConfigMap != nil })
	if i < 0 {
		return fmt.Errorf("its volume %s is no ConfigMap", volume)
	}
	var list corev1.ConfigMap
	if err := j.cluster.Client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: pod.Spec.Volumes[i].ConfigMap.Name}, &list); err != nil {
		return err
	}
	for name, text := range list.Data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
