package cli

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// VersionResult is what version -o json prints.
type VersionResult struct {
	OutputHeader `json:",inline"`
	// Client is the version of this program.
	Client string `json:"client"`
	// Operators are the operators that the cluster has.
	Operators []OperatorVersion `json:"operators,omitempty"`
	// Problem is why no operator was found.
	Problem string `json:"problem,omitempty"`
}

// OperatorVersion is the version of an operator.
type OperatorVersion struct {
	// Namespace and Name are those of its Deployment.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Version is that of its label app.kubernetes.io/version, or the tag of its image.
	Version string `json:"version"`
	Image   string `json:"image,omitempty"`
}

const (
	labelName    = "app.kubernetes.io/name"
	labelVersion = "app.kubernetes.io/version"
	// operatorName is the value of labelName of the operator's Deployment.
	operatorName = "teo-prefetch-operator"
	// versionTimeout is how long version looks for the operator.
	versionTimeout = 5 * time.Second
)

func newVersionCommand(env *environment) *cobra.Command {
	var output outputFlag
	var clientOnly bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of the operator in the cluster",
		Long: `Print the versions of this program and of the operator in the cluster. To find the operator, you need the
permission to list Deployments. Without it, or without a cluster, only the version of this program is
known, and the exit code is still 0.`,
		Example: `  kubectl teo-prefetch version

  # Without a cluster
  kubectl teo-prefetch version --client`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.validate(); err != nil {
				return err
			}
			result := VersionResult{OutputHeader: newOutputHeader("VersionResult"), Client: env.buildVersion()}
			if !clientOnly {
				var err error
				if result.Operators, err = env.findOperators(cmd.Context()); err != nil {
					result.Problem = explain(err).Error()
				}
			}
			if output.isStructured() {
				return output.print(env.Out, result)
			}
			return env.printVersions(result)
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "Do not ask the cluster")
	output.addTo(cmd)
	return cmd
}

// findOperators finds the Deployments of operators.
func (e *environment) findOperators(ctx context.Context) (operators []OperatorVersion, err error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	c, err := e.client()
	if err != nil {
		return nil, err
	}
	list := &appsv1.DeploymentList{}
	err = c.List(ctx, list, client.MatchingLabels{labelName: operatorName}, client.Limit(pageSize))
	if apierrors.IsForbidden(err) {
		return nil, errors.New("you may not list the Deployments of all namespaces; --client leaves out the operator")
	}
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		operators = append(operators, operatorVersion(&list.Items[i]))
	}
	if len(operators) == 0 {
		return nil, errors.New("no Deployment has the label " + labelName + "=" + operatorName)
	}
	return operators, nil
}

// operatorVersion returns the version of a Deployment.
func operatorVersion(d *appsv1.Deployment) OperatorVersion {
	v := OperatorVersion{Namespace: d.Namespace, Name: d.Name, Version: d.Labels[labelVersion]}
	if containers := d.Spec.Template.Spec.Containers; len(containers) > 0 {
		v.Image = containers[0].Image
	}
	if v.Version == "" {
		v.Version = imageTag(v.Image)
	}
	return v
}

// imageTag returns the tag of an image, or "unknown".
func imageTag(image string) string {
	name, _, _ := strings.Cut(image, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		return name[colon+1:]
	}
	return "unknown"
}

func (e *environment) printVersions(result VersionResult) error {
	if err := printLine(e.Out, "Client: %s", result.Client); err != nil {
		return err
	}
	for _, o := range result.Operators {
		if err := printLine(e.Out, "Operator: %s (Deployment %s in namespace %s)", o.Version, o.Name, o.Namespace); err != nil {
			return err
		}
	}
	if result.Problem != "" {
		_ = printLine(e.ErrOut, "The version of the operator is not known: %s", result.Problem)
	}
	return nil
}

// buildVersion returns the version that the build has set, or that of the main module.
func (e *environment) buildVersion() string {
	if e.version != "" {
		return e.version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
