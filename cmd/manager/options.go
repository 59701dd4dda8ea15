package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// options are the values of the flags, and of the command check.
type options struct {
	metricsAddress, probeAddress string
	metricsSecure, leaderElect   bool
	namespace                    string // the operator's own
	accounts                     bool   // whether EdgeOneAccounts are used
	leaderElectionNamespace      string
	leaderElectionID             string
	watchNamespaces              string
	credentialsDir, endpoint     string
	identity                     identityOptions
	checkZone                    string
	check, showVersion           bool
	controller                   controller.Options
	leaseDuration, renew, retry  time.Duration
	listingDelay                 time.Duration
	logging                      zap.Options
}

const usage = `Usage:
  manager [flags]        serve the PrefetchTasks of a cluster
  manager check [flags]  check whether a manager with these flags can work; changes nothing

Flags:
`

// parse reads the command line: flags, after the word check for the command that only
// checks whether a manager with these flags can work. The times depend on each other as
// follows; the defaults are in parentheses:
//
//	a call's tasks are claimed in   write-timeout (10s), and at most a quarter of
//	                                signature-validity
//	the call is sent within         signature-validity / 2 (2m30s) after it was signed
//	EdgeOne answers within          teo-timeout (10s); otherwise the answer counts as lost
//	nothing is executed after       signature-validity (5m), by EdgeOne's clock: the fence
//	the history shows a call        listing-delay (20s) after it was executed
//	the history is complete         settle-margin (listing-delay + 10s = 30s) after the
//	                                fence, because EdgeOne may accept a request at the
//	                                fence and execute it later
//	history proves nothing after    history-retention (72h); an older lost call needs a user
//	a purge has its outcome in      purge-deadline (30m); otherwise it counts as failed
//	what is purged is prefetched    purge-settle (0) after EdgeOne reported its success
//	a stopping process waits for    shutdown-grace (teo-timeout + write-timeout + 5s = 25s)
//	                                until calls are answered and recorded. It must be less
//	                                than the pod's terminationGracePeriodSeconds (60s)
//	a lost leader is replaced in    leader-election-lease-duration (15s). The signatures
//	                                fence the calls that it left in flight; the lease does
//	                                not
func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("teo-prefetch-operator", flag.ContinueOnError)
	f.Usage = func() {
		_, _ = fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	o.bindProcessFlags(f)
	o.bindElectionFlags(f)
	o.bindCallFlags(f)
	o.bindPurgeFlags(f)
	o.bindIdentityFlags(f)
	o.bindTimeFlags(f)
	o.logging.BindFlags(f)
	if len(args) > 0 && args[0] == "check" {
		o.check, args = true, args[1:]
		f.StringVar(&o.checkZone, "check-zone", "", "comma-separated `zones` whose quotas are read, to see that the credentials may use them")
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag; see --help", f.Arg(0))
	}
	if err := o.deriveTimes(f); err != nil {
		return nil, err
	}
	if o.namespace == "" {
		o.namespace = podNamespace(os.DirFS("/"))
	}
	o.deriveIdentity()
	return o, errors.Join(o.validate(), o.validatePurge(), o.validateIdentity())
}

// bindProcessFlags defines the flags for the cluster, the namespaces and the servers.
func (o *options) bindProcessFlags(f *flag.FlagSet) {
	f.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443", "`address` of the metrics endpoint; 0 turns it off")
	f.BoolVar(&o.metricsSecure, "metrics-secure", true, "serve metrics over TLS, only to clients that the API server authenticates and authorizes")
	f.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "`address` of /healthz and /readyz; 0 turns them off")
	f.StringVar(&o.namespace, "namespace", "", "the operator's own `namespace`, with the Secrets of EdgeOneAccounts and the Lease. "+
		"Default: the pod's own, else "+defaultNamespace)
	f.BoolVar(&o.accounts, "accounts", true, "use EdgeOneAccounts; without them, tasks that name one are not served")
	f.StringVar(&o.watchNamespaces, "watch-namespaces", "", "comma-separated `namespaces` to serve; default: all")
	f.BoolVar(&o.showVersion, "version", false, "print the version and exit")
	f.Func("kubeconfig", "path of the kubeconfig `file`; default: KUBECONFIG, the pod's own cluster, or ~/.kube/config", func(path string) error {
		// client-go ignores a KUBECONFIG without a file, and looks elsewhere.
		if _, err := os.Stat(path); err != nil {
			return err
		}
		return os.Setenv("KUBECONFIG", path)
	})
}

// bindElectionFlags defines the flags of leader election.
func (o *options) bindElectionFlags(f *flag.FlagSet) {
	f.BoolVar(&o.leaderElect, "leader-elect", false, "elect a leader, so that only one of several replicas works")
	f.StringVar(&o.leaderElectionNamespace, "leader-election-namespace", "", "`namespace` of the Lease; default: --namespace")
	f.StringVar(&o.leaderElectionID, "leader-election-id", "teo-prefetch-operator", "`name` of the Lease; replicas share it, and each operator in a namespace needs its own")
	f.DurationVar(&o.leaseDuration, "leader-election-lease-duration", 15*time.Second, "how long to wait before taking over an unrenewed lease")
	f.DurationVar(&o.renew, "leader-election-renew-deadline", 10*time.Second, "how long a leader tries to renew its lease before it stops")
	f.DurationVar(&o.retry, "leader-election-retry-period", 2*time.Second, "how often to try to acquire or renew the lease")
}

// bindCallFlags defines the flags for calls to EdgeOne: credentials, endpoint, rate and
// size.
func (o *options) bindCallFlags(f *flag.FlagSet) {
	c := &o.controller
	f.StringVar(&o.credentialsDir, "credentials-dir", "", "`directory` with the operator's own credentials: the files secretId, secretKey and, if needed, token. "+
		"Without it, TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY and TENCENTCLOUD_TOKEN are used. "+
		"Without either, only tasks that name a Secret are served")
	f.StringVar(&o.endpoint, "teo-endpoint", teo.DefaultEndpoint, "`URL` of the EdgeOne API; the China site is https://teo.tencentcloudapi.com")
	f.IntVar(&c.QPS, "teo-qps", 20, "calls per second for each action and account; EdgeOne allows 20. Set less if clusters or programs share an account")
	f.DurationVar(&c.CallTimeout, "teo-timeout", 10*time.Second, "how long to wait for EdgeOne's answer to a call")
	f.IntVar(&c.Batch, "batch", 500, "maximum number of `targets` in a call if the zone's own limit cannot be read")
	f.IntVar(&c.TasksPerCall, "max-tasks-per-call", 500, "maximum number of `tasks` in a call; 1 turns sharing off")
}

// bindPurgeFlags defines the flags for purges.
func (o *options) bindPurgeFlags(f *flag.FlagSet) {
	c := &o.controller
	c.AllowPurge = []v1alpha1.PurgeType{v1alpha1.PurgeURL}
	f.Func("allow-purge", "comma-separated `types` of purges that tasks without an EdgeOneAccount may use: URL, Prefix, Host, CacheTag (default URL); "+
		"empty: none. For tasks of accounts, spec.allow.purge says it", func(text string) (err error) {
		c.AllowPurge, err = parsePurgeTypes(text)
		return err
	})
	f.DurationVar(&c.PurgeDeadline, "purge-deadline", 30*time.Minute, "age of a purge at which a target without an outcome counts as failed")
	f.DurationVar(&c.PurgeSettle, "purge-settle", 0, "how long to wait after EdgeOne reports the success of a purge, before what it purged is prefetched")
}

// parsePurgeTypes reads the value of --allow-purge.
func parsePurgeTypes(text string) ([]v1alpha1.PurgeType, error) {
	if text == "" {
		return nil, nil
	}
	known := []v1alpha1.PurgeType{v1alpha1.PurgeURL, v1alpha1.PurgePrefix, v1alpha1.PurgeHost, v1alpha1.PurgeCacheTag}
	var types []v1alpha1.PurgeType
	for name := range strings.SplitSeq(text, ",") {
		switch purge := v1alpha1.PurgeType(name); {
		case !slices.Contains(known, purge):
			return nil, fmt.Errorf("%q is not a type of purge: use URL, Prefix, Host or CacheTag, separated by commas", name)
		case slices.Contains(types, purge):
			return nil, fmt.Errorf("it names %s twice", purge)
		default:
			types = append(types, purge)
		}
	}
	return types, nil
}

// bindTimeFlags defines the flags for timeouts, delays and intervals.
func (o *options) bindTimeFlags(f *flag.FlagSet) {
	c := &o.controller
	f.DurationVar(&c.SignatureValidity, "signature-validity", 5*time.Minute, "how long EdgeOne accepts a signature")
	f.DurationVar(&o.listingDelay, "listing-delay", 20*time.Second, "longest time until EdgeOne's history shows a call that it executed")
	f.DurationVar(&c.SettleMargin, "settle-margin", 0, "time from the end of a signature until EdgeOne's history is complete (default listing-delay + 10s)")
	f.DurationVar(&c.HistoryRetention, "history-retention", 72*time.Hour,
		"how long EdgeOne's history shows a call; an older lost call never counts as not executed")
	f.DurationVar(&c.PollInterval, "poll-interval", 5*time.Second, "shortest interval between two reads of outcomes; jobs that take long are read up to 12 times less often")
	f.DurationVar(&c.QuotaInterval, "quota-interval", 10*time.Minute, "how often to read the quota of a zone that has used it up")
	c.QuotaReset = 16 * time.Hour
	f.Func("quota-reset", "`time` of day, UTC, at which the daily quota is expected to return; nextAttemptTime shows it, and quotas are read again then (default 16:00)",
		func(text string) error {
			at, err := time.Parse("15:04", text)
			c.QuotaReset = time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
			return err
		})
	f.DurationVar(&c.RecheckInterval, "recheck-interval", 30*time.Second,
		"how often to read credentials again and to recheck errors that need user action; a task is Stalled after two intervals")
	f.DurationVar(&c.JobDeadline, "job-deadline", 24*time.Hour, "age of a call at which a target without an outcome counts as failed")
	f.DurationVar(&c.WriteTimeout, "write-timeout", 10*time.Second, "how long a status write may take")
	f.DurationVar(&c.ShutdownGrace, "shutdown-grace", 0,
		"how long a stopping process waits until calls in flight are answered and recorded (default teo-timeout + write-timeout + 5s)")
}

// deriveTimes sets the times whose defaults depend on other flags.
func (o *options) deriveTimes(f *flag.FlagSet) error {
	c := &o.controller
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["settle-margin"] {
		c.SettleMargin = o.listingDelay + 10*time.Second
	}
	if !given["shutdown-grace"] {
		c.ShutdownGrace = c.CallTimeout + c.WriteTimeout + 5*time.Second
	}
	if given["settle-margin"] && given["listing-delay"] && c.SettleMargin <= o.listingDelay {
		return fmt.Errorf("--settle-margin is %s; it must be more than --listing-delay, which is %s", c.SettleMargin, o.listingDelay)
	}
	return nil
}

// validate returns an error that names the invalid flag.
func (o *options) validate() error {
	c := o.controller
	for name, n := range map[string]int{"teo-qps": c.QPS, "batch": c.Batch, "max-tasks-per-call": c.TasksPerCall} {
		if n < 1 {
			return fmt.Errorf("--%s is %d; it must be at least 1", name, n)
		}
	}
	for name, d := range map[string]time.Duration{
		"teo-timeout": c.CallTimeout, "signature-validity": c.SignatureValidity, "settle-margin": c.SettleMargin,
		"poll-interval": c.PollInterval, "quota-interval": c.QuotaInterval, "job-deadline": c.JobDeadline, "recheck-interval": c.RecheckInterval,
		"write-timeout": c.WriteTimeout, "shutdown-grace": c.ShutdownGrace, "listing-delay": o.listingDelay, "history-retention": c.HistoryRetention,
	} {
		if d <= 0 {
			return fmt.Errorf("--%s is %s; it must be more than 0", name, d)
		}
	}
	switch {
	case c.ShutdownGrace <= c.CallTimeout:
		return fmt.Errorf("--shutdown-grace is %s; it must be more than --teo-timeout, which is %s, or calls in flight are cut off", c.ShutdownGrace, c.CallTimeout)
	case c.HistoryRetention <= c.SignatureValidity+c.SettleMargin:
		return fmt.Errorf("--history-retention is %s; it must be more than --signature-validity + --settle-margin, which is %s, "+
			"or no lost call can be settled", c.HistoryRetention, c.SignatureValidity+c.SettleMargin)
	case o.renew >= o.leaseDuration || o.retry >= o.renew:
		return fmt.Errorf("the times of leader election must be lease-duration > renew-deadline > retry-period; they are %s, %s and %s", o.leaseDuration, o.renew, o.retry)
	}
	if problems := validation.IsDNS1123Subdomain(o.leaderElectionID); len(problems) > 0 {
		return fmt.Errorf("--leader-election-id: %q is not a name for a Lease: %s", o.leaderElectionID, problems[0])
	}
	for name, ns := range map[string]string{"namespace": o.namespace, "leader-election-namespace": cmp.Or(o.leaderElectionNamespace, defaultNamespace)} {
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			return fmt.Errorf("--%s: %q is not a namespace: %s", name, ns, problems[0])
		}
	}
	watched := map[string]bool{}
	for _, ns := range o.namespaces() {
		if watched[ns] {
			return fmt.Errorf("--watch-namespaces names %q twice", ns)
		}
		watched[ns] = true
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			return fmt.Errorf("--watch-namespaces: %q is not a namespace: %s", ns, problems[0])
		}
	}
	_, err := o.edgeOne(nil)
	return err
}

// validatePurge returns an error that names the invalid flag for purges.
func (o *options) validatePurge() error {
	c := o.controller
	switch {
	case c.PurgeDeadline <= 0:
		return fmt.Errorf("--purge-deadline is %s; it must be more than 0", c.PurgeDeadline)
	case c.PurgeSettle < 0:
		return fmt.Errorf("--purge-settle is %s; it must not be negative", c.PurgeSettle)
	}
	return nil
}

// readable returns an error if the files in credentials-dir cannot be read. Missing files
// are not an error: the Secret may be created later, and the tasks that need it report
// that it is missing. Files that cannot be read need user action.
func (o *options) readable() error {
	if o.credentialsDir == "" {
		return nil
	}
	if _, err := os.ReadDir(o.credentialsDir); err != nil {
		return fmt.Errorf("--credentials-dir cannot be read: %w", err)
	}
	for _, name := range []string{"secretId", "secretKey", "token"} {
		if _, err := os.ReadFile(filepath.Join(o.credentialsDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("--credentials-dir: %s cannot be read: %w", name, err)
		}
	}
	return nil
}

// edgeOne returns a client for EdgeOne with these options. keyRefused may be nil; see
// teo.Options.
func (o *options) edgeOne(keyRefused func(teo.Credentials)) (*teo.Client, error) {
	c, err := teo.NewClient(teo.Options{
		Endpoint: o.endpoint, QPS: o.controller.QPS, Timeout: o.controller.CallTimeout,
		SignatureValidity: o.controller.SignatureValidity, UserAgent: "teo-prefetch-operator/" + buildVersion(),
		Observe:     metrics.ObserveCall,
		ObserveWait: metrics.ObserveWait,
		KeyRefused:  keyRefused,
	})
	if err != nil {
		return nil, fmt.Errorf("--teo-endpoint, --teo-qps, --teo-timeout or --signature-validity: %w", err)
	}
	return c, nil
}

// namespaces returns the namespaces to watch; nil means all.
func (o *options) namespaces() []string {
	if o.watchNamespaces == "" {
		return nil
	}
	return strings.Split(o.watchNamespaces, ",")
}
