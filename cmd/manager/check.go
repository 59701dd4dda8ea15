package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// checkTimeout bounds the whole check.
const checkTimeout = time.Minute

// check tells in sentences whether a manager with these options can work. It
// changes nothing and needs no right that the manager does not have: everybody
// may ask for the API's version and kinds, and for their own permissions.
type check struct {
	*options
	out    io.Writer
	failed int
}

// runCheck is the command check. It prints what it finds and returns whether all is well.
func runCheck(ctx context.Context, o *options, out io.Writer) bool {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c := &check{options: o, out: out}
	c.cluster(ctx)
	c.edgeOneAccepts(ctx)
	if c.failed > 0 {
		_, _ = fmt.Fprintf(out, "Not ready: see %d × FAILED above.\n", c.failed)
	} else {
		_, _ = fmt.Fprintln(out, "Ready.")
	}
	return c.failed == 0
}

func (c *check) ok(format string, args ...any) { c.say("ok", format, args...) }

func (c *check) unknown(format string, args ...any) { c.say("not checked", format, args...) }

func (c *check) fail(format string, args ...any) {
	c.failed++
	c.say("FAILED", format, args...)
}

func (c *check) say(result, format string, args ...any) {
	_, _ = fmt.Fprintf(c.out, "%s: %s\n", result, fmt.Sprintf(format, args...))
}

// cluster checks what the manager needs of Kubernetes.
func (c *check) cluster(ctx context.Context) {
	config, err := ctrl.GetConfig()
	if err != nil {
		c.fail("Cannot load the cluster configuration: %v. Run this in a pod of the cluster, or pass --kubeconfig.", err)
		return
	}
	config.Timeout = checkTimeout / 4
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		c.fail("The configuration of the cluster is not usable: %v.", err)
		return
	}
	version, err := clients.Discovery().ServerVersion()
	if err != nil {
		c.fail("The Kubernetes API server %s does not answer: %v. See whether a NetworkPolicy or a proxy is in the way, and whether the token is valid.", config.Host, err)
		return
	}
	c.ok("The Kubernetes API server %s answers; it is %s.", config.Host, version.GitVersion)
	c.servesTasks(clients)
	c.mayWork(ctx, clients)
}

// servesTasks checks that the CRD is there, with the version that the manager uses.
func (c *check) servesTasks(clients kubernetes.Interface) {
	group := v1alpha1.GroupVersion.String()
	list, err := clients.Discovery().ServerResourcesForGroupVersion(group)
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		c.fail("The API server does not say what it serves in %s: %v.", group, err)
	case err != nil || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == "prefetchtasks" }):
		c.fail("The API server does not serve prefetchtasks in %s. Install the CRD: with the chart's crds.enabled, or kubectl apply --server-side -k config/crd.", group)
	default:
		c.ok("The API server serves prefetchtasks in %s.", group)
	}
}

// permission is one line of the roles in config/rbac.
type permission struct{ group, resource, verbs string }

// byName says whether roles of a user's own may give this for some names only: it is
// for what tasks name.
func (p permission) byName() bool {
	return p.group == "" && (p.resource == "secrets" || p.resource == "configmaps")
}

var (
	// neededForTasks is what the manager does in the namespaces of tasks.
	neededForTasks = []permission{
		{"", "configmaps", "get"},
		{"", "secrets", "get"},
		{"events.k8s.io", "events", "create patch"},
		{v1alpha1.GroupVersion.Group, "prefetchtasks", "delete get list watch"},
		{v1alpha1.GroupVersion.Group, "prefetchtasks/status", "update"},
	}
	// neededToLead is what leader election does in its own namespace.
	neededToLead = []permission{
		{"coordination.k8s.io", "leases", "create get update"},
		{"", "events", "create patch"},
	}
	// neededForMetrics is what it takes to know who reads the metrics.
	neededForMetrics = []permission{
		{"authentication.k8s.io", "tokenreviews", "create"},
		{"authorization.k8s.io", "subjectaccessreviews", "create"},
	}
)

// mayWork checks the permissions that the manager needs with its flags.
func (c *check) mayWork(ctx context.Context, clients kubernetes.Interface) {
	namespaces := c.namespaces()
	if len(namespaces) == 0 {
		namespaces = []string{""}
	}
	for _, namespace := range namespaces {
		c.may(ctx, clients, "serve the tasks", namespace, neededForTasks)
	}
	if c.leaderElect && c.leaderElectionNamespace != "" {
		c.may(ctx, clients, "elect a leader", c.leaderElectionNamespace, neededToLead)
	}
	if c.metricsAddress != "0" && c.metricsSecure {
		c.may(ctx, clients, "know who reads its metrics", "", neededForMetrics)
	}
}

func (c *check) may(ctx context.Context, clients kubernetes.Interface, what, namespace string, needed []permission) {
	where := "in all namespaces"
	if namespace != "" {
		where = fmt.Sprintf("in namespace %q", namespace)
	}
	var missing, named []string
	for _, p := range needed {
		resource, subresource, _ := strings.Cut(p.resource, "/")
		for _, verb := range strings.Fields(p.verbs) {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: namespace, Group: p.group, Resource: resource, Subresource: subresource, Verb: verb,
				},
			}}
			answer, err := clients.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			if err != nil {
				c.fail("The API server does not tell the permissions: %v.", err)
				return
			}
			if answer.Status.Allowed {
				continue
			}
			missing = append(missing, verb+" "+p.resource)
			if p.byName() {
				named = append(named, p.resource)
			}
		}
	}
	if len(missing) > len(named) {
		c.fail("The operator may not %s %s: it lacks %s. Grant it to its ServiceAccount (the chart's rbac.create, or config/rbac).",
			what, where, strings.Join(missing, ", "))
		return
	}
	c.ok("The operator may %s %s.", what, where)
	if len(named) > 0 {
		c.unknown("Which %s the operator may read %s: not all of them. Its roles have to name those that tasks name.", strings.Join(named, " and "), where)
	}
}

// unknownZone is one that no account has. EdgeOne checks the signature first, so
// that its answer tells whether it knows the keys.
const unknownZone = "zone-000000000000"

// edgeOneAccepts checks the operator's own credentials by reading a quota, which
// changes nothing and is one of the three actions that the operator needs anyway.
func (c *check) edgeOneAccepts(ctx context.Context) {
	creds, ok := c.readOwnCredentials()
	if !ok {
		return
	}
	client, err := c.edgeOne()
	if err != nil {
		c.fail("%s.", upper(err.Error()))
		return
	}
	zone := c.checkZone
	if zone == "" {
		zone = unknownZone
	}
	quota, err := client.DescribeContentQuota(ctx, creds, zone)
	switch {
	case c.checkZone == "" && isKeyKnown(err):
		c.ok("EdgeOne at %s knows the operator's keys.", c.endpoint)
		c.unknown("Whether the keys may prefetch in a zone of yours: name one with --check-zone (the chart's check.zone).")
	case errors.Is(err, teo.ErrNoPrefetchQuota):
		c.fail("EdgeOne accepts the credentials, but the plan of zone %s has no quota for prefetching URLs. Choose a plan that has one.", zone)
	case err != nil:
		c.fail("EdgeOne at %s does not accept a read of the quota: %s. %s", c.endpoint, strings.TrimSuffix(teo.Message(err), "."), advice(err))
	default:
		c.ok("EdgeOne at %s accepts the operator's keys: zone %s may prefetch %d URLs a day, of which %d are left today, and %d in a call.",
			c.endpoint, zone, quota.Daily, quota.DailyAvailable, quota.Batch)
	}
}

// isKeyKnown says whether EdgeOne knows the key of a call that ended with err. A
// refusal of the call or of its zone comes after the check of the signature.
func isKeyKnown(err error) bool {
	kind := teo.KindOf(err)
	return err == nil || kind == teo.Rejected || kind == teo.Denied && !teo.DeniedAccount(err)
}

// readOwnCredentials reads the operator's own credentials. If there are none, or they
// cannot be read, it reports that and returns false.
func (c *check) readOwnCredentials() (teo.Credentials, bool) {
	creds, err := credentials.OwnCredentials(c.credentialsDir)()
	switch {
	case errors.Is(err, credentials.ErrNoOwnCredentials) && c.credentialsDir != "":
		c.fail("The operator has no credentials of its own: %s has no files. Create the Secret (the chart's credentials.existingSecret) in the operator's namespace, "+
			"with the keys secretId and secretKey; it is mounted within two minutes. If every task is to name a Secret, leave --credentials-dir out "+
			"(the chart: set credentials.existingSecret to \"\").", c.credentialsDir)
		return teo.Credentials{}, false
	case errors.Is(err, credentials.ErrNoOwnCredentials) && c.checkZone != "":
		c.fail("The operator has no credentials of its own to read the quota of zone %s with. Give it some, with --credentials-dir or TENCENTCLOUD_SECRET_ID and "+
			"TENCENTCLOUD_SECRET_KEY (the chart's credentials), or leave --check-zone out.", c.checkZone)
		return teo.Credentials{}, false
	case errors.Is(err, credentials.ErrNoOwnCredentials):
		c.unknown("The operator has no credentials of its own, so every task has to name a Secret in spec.credentialsSecretRef.")
		return teo.Credentials{}, false
	case err != nil:
		c.fail("%s. The operator's log and this check alone say what there is: %s.", upper(err.Error()), credentials.OwnFiles(c.credentialsDir))
		return teo.Credentials{}, false
	}
	return creds, true
}

// advice says what a person can do about an answer of EdgeOne.
func advice(err error) string {
	code := teo.Code(err)
	switch {
	case code == "AuthFailure.SecretIdNotFound":
		return "The SecretId does not exist, is disabled, or belongs to the other site (international and China accounts are separate): " +
			"correct secretId in the operator's Secret, or the endpoint."
	case code == "AuthFailure.TokenFailure":
		return "The token of temporary keys is wrong or expired: renew it in the operator's Secret."
	case teo.IsSignatureExpire(err):
		return "The clock of this node is wrong: set it."
	case code == "AuthFailure.UnauthorizedOperation" || strings.HasPrefix(code, "UnauthorizedOperation"):
		return "Let the sub-account's policy allow teo:CreatePrefetchTask, teo:DescribePrefetchTasks and teo:DescribeContentQuota for this zone."
	case strings.HasPrefix(code, "AuthFailure"):
		return "The SecretKey is not the one of this SecretId: correct secretKey in the operator's Secret."
	}
	switch teo.KindOf(err) {
	case teo.Denied:
		return "See that the zone exists and belongs to the account of these keys."
	case teo.Throttled:
		return "Other programs use up the account's calls: try again, and give the operator less with --teo-qps."
	case teo.Unavailable:
		if code != "" {
			break
		}
		return "See whether a NetworkPolicy, a proxy or DNS is in the way, and try again."
	}
	return "Try again; if it stays so, look the code up in EdgeOne's API reference."
}

func upper(sentence string) string { return strings.ToUpper(sentence[:1]) + sentence[1:] }
