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

// check prints whether a manager with these options can work. It changes nothing, and
// needs no permission that the manager does not need: every client may read the version
// and the resources of the API server, and review its own permissions.
type check struct {
	*options
	out    io.Writer
	failed int
}

// runCheck runs the command check. It prints the results, and returns whether all checks
// succeeded.
func runCheck(ctx context.Context, o *options, out io.Writer) bool {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c := &check{options: o, out: out}
	c.cluster(ctx)
	c.edgeOneAccepts(ctx)
	c.clusterAccounts(ctx)
	if c.failed > 0 {
		_, _ = fmt.Fprintf(out, "Not ready: see %d × FAILED above.\n", c.failed)
	} else {
		_, _ = fmt.Fprintln(out, "Ready.")
	}
	return c.failed == 0
}

// ok prints a success.
func (c *check) ok(format string, args ...any) { c.say("ok", format, args...) }

// unknown prints what the check cannot decide. It does not count as a failure.
func (c *check) unknown(format string, args ...any) { c.say("not checked", format, args...) }

// fail prints and counts a failure.
func (c *check) fail(format string, args ...any) {
	c.failed++
	c.say("FAILED", format, args...)
}

func (c *check) say(result, format string, args ...any) {
	_, _ = fmt.Fprintf(c.out, "%s: %s\n", result, fmt.Sprintf(format, args...))
}

// cluster checks the API server, the CRD and the permissions.
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

// servesTasks checks that the CRDs are installed, with the API version that the manager
// uses.
func (c *check) servesTasks(clients kubernetes.Interface) {
	group := v1alpha1.GroupVersion.String()
	list, err := clients.Discovery().ServerResourcesForGroupVersion(group)
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		c.fail("The API server does not say what it serves in %s: %v.", group, err)
	case err != nil || !isServed(list, "prefetchtasks"):
		c.fail("The API server does not serve prefetchtasks in %s. Install the CRD: with the chart's crds.enabled, or kubectl apply --server-side -k config/crd.", group)
	case c.accounts && !isServed(list, "edgeoneaccounts"):
		c.fail("The API server does not serve edgeoneaccounts in %s. Install the CRD: with the chart's crds.enabled, or kubectl apply --server-side -k config/crd. "+
			"Or run the operator without accounts (the chart's accounts.enabled, flag --accounts=false).", group)
	default:
		c.ok("The API server serves prefetchtasks in %s.", group)
	}
}

// isServed says whether a resource is in a list.
func isServed(list *metav1.APIResourceList, resource string) bool {
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource })
}

// permission is one rule of the roles in config/rbac; verbs are separated by spaces, and
// the name is empty if the rule is for all objects.
type permission struct{ group, resource, verbs, name string }

// byName says whether a user may grant the permission for some names only. This applies
// to the Secrets and ConfigMaps that tasks refer to.
func (p permission) byName() bool {
	return p.group == "" && (p.resource == "secrets" || p.resource == "configmaps")
}

var (
	// neededForTasks is what the manager needs in the namespaces of tasks.
	neededForTasks = []permission{
		{"", "configmaps", "get", ""},
		{"", "secrets", "get", ""},
		{"events.k8s.io", "events", "create patch", ""},
		{v1alpha1.GroupVersion.Group, "prefetchtasks", "delete get list watch", ""},
		{v1alpha1.GroupVersion.Group, "prefetchtasks/status", "update", ""},
	}
	// neededForAccounts is what the manager needs in the whole cluster, and neededForKeys
	// what it needs in its own namespace, for EdgeOneAccounts.
	neededForAccounts = []permission{
		{"", "namespaces", "list watch", ""},
		{v1alpha1.GroupVersion.Group, "edgeoneaccounts", "get list watch", ""},
		{v1alpha1.GroupVersion.Group, "edgeoneaccounts/status", "update", ""},
	}
	neededForKeys = []permission{{"", "secrets", "get", ""}}
	// neededForAccountEvents is needed in the namespace default, where Events about objects
	// without a namespace are.
	neededForAccountEvents = []permission{{"events.k8s.io", "events", "create patch", ""}}
	// neededForMetrics is what the metrics server needs to authenticate and authorize
	// clients.
	neededForMetrics = []permission{
		{"authentication.k8s.io", "tokenreviews", "create", ""},
		{"authorization.k8s.io", "subjectaccessreviews", "create", ""},
	}
)

// neededToLead is what leader election needs in the namespace of the Lease.
func neededToLead(lease string) []permission {
	return []permission{
		{"coordination.k8s.io", "leases", "create", ""},
		{"coordination.k8s.io", "leases", "get update", lease},
		{"", "events", "create patch", ""},
	}
}

// mayWork checks the permissions that the manager needs with its flags.
func (c *check) mayWork(ctx context.Context, clients kubernetes.Interface) {
	namespaces := c.namespaces()
	if len(namespaces) == 0 {
		namespaces = []string{""}
	}
	for _, namespace := range namespaces {
		c.may(ctx, clients, "serve the tasks "+in(namespace), namespace, neededForTasks)
	}
	if c.accounts {
		c.may(ctx, clients, "serve EdgeOneAccounts", "", neededForAccounts)
		c.may(ctx, clients, "read the Secrets of EdgeOneAccounts "+in(c.namespace), c.namespace, neededForKeys)
		c.may(ctx, clients, "report on EdgeOneAccounts "+in(metav1.NamespaceDefault), metav1.NamespaceDefault, neededForAccountEvents)
	}
	if c.leaderElect {
		c.may(ctx, clients, "elect a leader "+in(c.leaseNamespace()), c.leaseNamespace(), neededToLead(c.leaderElectionID))
	}
	if c.metricsAddress != "0" && c.metricsSecure {
		c.may(ctx, clients, "authenticate and authorize readers of its metrics", "", neededForMetrics)
	}
}

// may checks permissions in a namespace, or in all namespaces if it is "". what describes
// their purpose. Permissions that roles may grant by name are not failures, because the
// check does not know the names.
func (c *check) may(ctx context.Context, clients kubernetes.Interface, what, namespace string, needed []permission) {
	var missing, named []string
	for _, p := range needed {
		resource, subresource, _ := strings.Cut(p.resource, "/")
		for _, verb := range strings.Fields(p.verbs) {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: namespace, Group: p.group, Resource: resource, Subresource: subresource, Verb: verb, Name: p.name,
				},
			}}
			answer, err := clients.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			if err != nil {
				c.fail("Cannot read the permissions from the API server: %v.", err)
				return
			}
			if answer.Status.Allowed {
				continue
			}
			missing = append(missing, strings.TrimSpace(verb+" "+p.resource+" "+p.name))
			if p.byName() {
				named = append(named, p.resource)
			}
		}
	}
	if len(missing) > len(named) {
		c.fail("The operator may not %s: it lacks %s. Grant it to its ServiceAccount (the chart's rbac.create, or config/rbac).",
			what, strings.Join(missing, ", "))
		return
	}
	c.ok("The operator may %s.", what)
	if len(named) > 0 {
		c.unknown("Which %s the operator may read %s: not all of them. Its roles have to name those that tasks and EdgeOneAccounts name.",
			strings.Join(named, " and "), in(namespace))
	}
}

// in describes a namespace, or all namespaces if it is "".
func in(namespace string) string {
	if namespace == "" {
		return "in all namespaces"
	}
	return fmt.Sprintf("in namespace %q", namespace)
}

// unknownZone is the ID of a zone that no account has. EdgeOne checks the signature
// first, so its answer shows whether it knows the keys.
const unknownZone = "zone-000000000000"

// edgeOneAccepts checks the operator's own credentials by reading a quota. This changes
// nothing, and is one of the three actions that the operator needs anyway.
func (c *check) edgeOneAccepts(ctx context.Context) {
	readCredentials := c.readOwnCredentials
	if c.hasRole() {
		readCredentials = func() (teo.Credentials, bool) { return c.assumeOwnRole(ctx) }
	}
	creds, ok := readCredentials()
	if !ok {
		return
	}
	client, err := c.edgeOne(nil)
	if err != nil {
		c.fail("%s.", upper(err.Error()))
		return
	}
	if c.checkZone == "" {
		c.quotaIsReadable(ctx, client, creds, unknownZone)
		return
	}
	for zone := range strings.SplitSeq(c.checkZone, ",") {
		c.quotaIsReadable(ctx, client, creds, zone)
	}
}

// quotaIsReadable reads the quota of a zone, and reports what EdgeOne answers.
func (c *check) quotaIsReadable(ctx context.Context, client *teo.Client, creds teo.Credentials, zone string) {
	quota, err := client.DescribeContentQuota(ctx, creds, zone)
	switch {
	case zone == unknownZone && isKeyKnown(err):
		c.ok("EdgeOne at %s knows the operator's keys.", c.endpoint)
		c.unknown("Whether the keys may prefetch in a zone of yours: name one with --check-zone (the chart's check.zone).")
	case errors.Is(err, teo.ErrNoPrefetchQuota):
		c.fail("EdgeOne accepts the credentials, but the plan of zone %s has no quota for prefetching URLs. Choose a plan that has one.", zone)
	case err != nil:
		c.fail("EdgeOne at %s does not accept a read of the quota: %s. %s", c.endpoint, strings.TrimSuffix(teo.Message(err), "."), c.adviseOn(err))
	default:
		c.ok("EdgeOne at %s accepts the operator's keys: zone %s may prefetch %d URLs a day, of which %d are left today, and %d in a call.",
			c.endpoint, zone, quota.Prefetch.Daily, quota.Prefetch.DailyAvailable, quota.Prefetch.Batch)
		zoneCheck{c, client, creds, zone}.mayPurge(ctx, c.controller.AllowPurge, quota)
	}
}

// isKeyKnown says whether EdgeOne knows the key of a call that returned err. EdgeOne
// refuses a call or its zone only after it has checked the signature.
func isKeyKnown(err error) bool {
	kind := teo.KindOf(err)
	return err == nil || kind == teo.Rejected || kind == teo.Denied && !teo.DeniedAccount(err)
}

// readOwnCredentials reads the operator's own credentials. If there are none, or they
// cannot be read, it prints that and returns false.
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
			"TENCENTCLOUD_SECRET_KEY (the chart's credentials), or leave --check-zone out.", strings.ReplaceAll(c.checkZone, ",", ", "))
		return teo.Credentials{}, false
	case errors.Is(err, credentials.ErrNoOwnCredentials):
		c.unknown("The operator has no credentials of its own, so every task has to use an EdgeOneAccount or a Secret (spec.accountRef, spec.credentialsSecretRef).")
		return teo.Credentials{}, false
	case err != nil && c.credentialsDir == "":
		c.fail("%s.", upper(err.Error()))
		return teo.Credentials{}, false
	case err != nil:
		c.fail("%s. Only this check and the operator's log list the files: %s.", upper(err.Error()), credentials.OwnFiles(c.credentialsDir))
		return teo.Credentials{}, false
	}
	return creds, true
}

// advice returns what a user can do about an error of EdgeOne.
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

// upper returns a sentence with an upper-case first letter.
func upper(sentence string) string { return strings.ToUpper(sentence[:1]) + sentence[1:] }
