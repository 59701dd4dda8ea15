// Command chaos injects all kinds of faults at once and then counts the damage. Two
// managers with leader election process thousands of tasks, on a real etcd and
// kube-apiserver and against a simulated EdgeOne. Processes are killed and paused,
// responses are lost, watches are cut, and keys are rotated, while users create, edit,
// suspend and delete tasks. At the end the faults stop, and the tasks must end. Then
// test/judge compares URL by URL what EdgeOne executed, what users requested, and what the
// statuses say. Any defect results in exit status 1.
//
//   - faults, schedule: the faults, and a schedule of them that is drawn from a seed
//   - releases: tasks that purge, and visitors of EdgeOne's cache
//   - users: what users do in the meantime, and how often they request each URL
//   - manager: the managers, which are restarted whenever they end
//   - seen: what an observer sees, for figures only
//   - report: the table, and the explanation of defects
//
// The command knows the operator only by its flags and statuses.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/judge"
)

// The times are short, so that many fences pass within minutes. They depend on each other
// like the manager's flags; see its --help.
const (
	validity      = 10 * time.Second // of a signature
	margin        = 3 * time.Second
	callTimeout   = 2 * time.Second
	writeTimeout  = 4 * time.Second
	leaseDuration = 8 * time.Second
	renewDeadline = 6 * time.Second

	listingDelay     = 300 * time.Millisecond
	slowListingDelay = 1500 * time.Millisecond
	listingStep      = 4 * time.Millisecond // a call of 250 URLs is listed within 1 s, which is less than margin

	createTimeSkew = 500 * time.Millisecond

	// backlog is how many tasks may wait before users stop creating more. It adapts the
	// load to the machine, whatever else runs there.
	backlog = 600

	// calm is the part of the duration that remains for the tasks to end after the last
	// fault. Tasks that have not ended after calmMost count as stuck.
	calm     = 45 * time.Second
	calmMost = 2 * time.Minute
)

var errDefects = errors.New("not all is well")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cluster.SilenceClients()
	c := &chaos{underWay: map[*injection]bool{}, blamed: map[int]*fault{}, out: os.Stdout}
	flag.DurationVar(&c.duration, "duration", 10*time.Minute, fmt.Sprintf("how long to go on; the last %s are calm", calm))
	flag.Uint64Var(&c.seed, "seed", 0, "of the schedule of faults; 0 draws one")
	flag.BoolVar(&c.verbose, "v", false, "print the schedule, and each fault's injections")
	flag.StringVar(&c.logs, "logs", "", "`directory` for the managers' logs and the calls; default: a temporary one, kept only after a failure")
	flag.Parse()
	if c.duration < calm+15*time.Second {
		fmt.Fprintf(os.Stderr, "chaos: -duration is %s; it must be at least %s\n", c.duration, calm+15*time.Second)
		os.Exit(2)
	}
	for c.seed == 0 {
		c.seed = uint64(rand.Uint32())
	}
	if err := c.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v; seed %d, logs in %s\n", err, c.seed, c.logs)
		stop()
		os.Exit(1)
	}
}

// chaos is a run of the command.
type chaos struct {
	duration time.Duration
	seed     uint64
	verbose  bool
	logs     string
	out      io.Writer

	cluster   *cluster.Cluster
	edgeOne   *simulator.Simulator
	url       string
	managers  [2]*manager
	users     *users
	seen      *seen
	teamKey   simulator.Key // only the faults of credentials use it
	started   time.Time
	group     sync.WaitGroup
	visits    sync.WaitGroup
	endVisits func()

	mu         sync.Mutex
	underWay   map[*injection]bool
	injections []*injection
	blamed     map[int]*fault // by the simulator's fault ID
	broken     error          // errors of the harness itself
}

func (c *chaos) run(ctx context.Context) (err error) {
	temporary := c.logs == ""
	if temporary {
		if c.logs, err = os.MkdirTemp("", "chaos-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(c.logs, 0o755); err != nil {
		return err
	}
	length := c.duration - calm
	schedule := draw(c.seed, length, groups)
	c.say("Seed %d: %d faults in %s, then calm; EdgeOne's clock is off by %s. `make chaos CHAOS_SEED=%d CHAOS_DURATION=%s` draws the same.",
		c.seed, len(schedule), length, c.clockOffset(), c.seed, c.duration)
	if c.verbose {
		for _, e := range schedule {
			c.say("%s", e)
		}
	}
	defer func() {
		if stopErr := c.stop(); err == nil {
			err = stopErr
		}
		if err == nil && temporary {
			_ = os.RemoveAll(c.logs)
		}
	}()
	if err := c.start(ctx); err != nil {
		return err
	}
	if err := c.rage(ctx, schedule, length); err != nil {
		return err
	}
	return c.report(c.settleDown(ctx))
}

func (c *chaos) say(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format+"\n", args...) }

// clockOffset returns how far EdgeOne's clock is ahead, drawn from the seed.
func (c *chaos) clockOffset() time.Duration {
	return time.Duration(rand.New(rand.NewPCG(c.seed, 3)).IntN(5)-2) * time.Second
}

// dateSkew returns how far the Date header is ahead of EdgeOne's other times.
func (c *chaos) dateSkew() time.Duration {
	return time.Duration(rand.New(rand.NewPCG(c.seed, 4)).IntN(1001)-500) * time.Millisecond
}

var (
	ownKey    = newKey("own", 1)
	tenantKey = simulator.Key{SecretID: "AKIDtenant1", SecretKey: "secret-tenant", Account: "tenant"}
)

// newKey returns a key of the main account.
func newKey(name string, n uint64) simulator.Key {
	return simulator.Key{SecretID: fmt.Sprintf("AKID%s%d", name, n), SecretKey: "secret-" + name, Account: "main"}
}

// start starts everything. Only stop ends it, even after an error.
func (c *chaos) start(ctx context.Context) error {
	path, err := cluster.BuildManager(ctx)
	if err != nil {
		return err
	}
	if c.cluster, err = cluster.Start(ctx, cluster.Options{}); err != nil {
		return err
	}
	c.startEdgeOne()
	for _, ns := range namespaces {
		if err := c.cluster.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns.name}}); err != nil {
			return err
		}
		key := c.teamKey
		if ns.secret == "tenant-key" {
			key = tenantKey
		}
		if ns.secret != "" && !c.writeSecret(ctx, ns.name, ns.secret, key) {
			return ctx.Err()
		}
	}
	if c.seen, err = watchTasks(ctx, c.cluster, c.edgeOne.Now, c.clockOffset()); err != nil {
		return err
	}
	c.users = newUsers(c.cluster.Client, c.edgeOne, c.seed)
	for i := range c.managers {
		if c.managers[i], err = c.startManager(ctx, path, fmt.Sprintf("manager-%d", i+1)); err != nil {
			return err
		}
	}
	return nil
}

func (c *chaos) startEdgeOne() {
	c.teamKey = newKey("team", 1)
	config := simulator.Config{
		Keys: []simulator.Key{ownKey, c.teamKey, tenantKey}, Rules: rules(listingDelay),
		SignatureValidity: validity, ClockOffset: c.clockOffset(), JobDuration: time.Second, PurgeDuration: time.Second, ListingDelay: listingDelay, ListingStep: listingStep,
		// A real EdgeOne may do these things at any time.
		DateSkew: c.dateSkew(), CreateTimeSkew: createTimeSkew, NoFutureWindows: true, MaxTotalCount: 1000, RejectedJobIDs: "^[ab]", JournalSize: 1 << 22,
		Traffic: []simulator.Traffic{
			{ZoneID: zones[0].id, Every: 330 * time.Millisecond},
			{ZoneID: zones[1].id, Every: 5 * time.Second, Targets: []string{"https://media.example.com/others/中", "https://media.example.com/others/%E4%B8%AD"}},
		},
	}
	for _, z := range zones {
		account := "main"
		if z.tenant {
			account = "tenant"
		}
		const plenty = 1 << 30
		site := simulator.Zone{ID: z.id, Account: account, Domains: []string{z.host}, EdgeMode: z.edge, Batch: 250, Daily: plenty, EdgeDaily: plenty}
		if z.host == "small.example.com" {
			site.Batch = smallBatch
		}
		if z == refreshZone {
			site.Batch, site.Purge = smallBatch, map[string]simulator.Limits{"purge_url": {Batch: smallBatch, Daily: plenty}, "purge_prefix": {Batch: smallBatch, Daily: plenty}}
		}
		config.Zones = append(config.Zones, site)
	}
	c.edgeOne = simulator.New(config)
	c.url = c.edgeOne.Start()
}

// stop ends everything.
func (c *chaos) stop() error {
	var errs []error
	for _, m := range c.managers {
		if m != nil {
			m.stop()
		}
	}
	if c.edgeOne != nil {
		c.edgeOne.Close()
	}
	if c.cluster != nil {
		errs = append(errs, c.cluster.Stop())
	}
	return errors.Join(errs...)
}

// rage lets users act and injects the faults, for the given time.
func (c *chaos) rage(ctx context.Context, schedule []event, length time.Duration) error {
	c.started = time.Now()
	visiting, endVisits := context.WithCancel(ctx)
	c.endVisits = endVisits
	raging, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	users := make(chan struct{})
	go func() {
		defer close(users)
		c.users.live(raging, ctx, func() bool { live, _, finished := c.seen.counts(); return live-finished > backlog })
	}()
	c.visits.Go(func() { c.users.visitReleases(visiting) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.inject(raging, schedule)
		<-users
	}()
	for ticker := time.NewTicker(10 * time.Second); ; {
		select {
		case <-ticker.C:
			c.progress()
		case <-done:
			ticker.Stop()
			return errors.Join(ctx.Err(), c.failure())
		}
	}
}

func (c *chaos) progress() {
	done, runs, _ := c.users.summary()
	tasks, open, finished := c.seen.counts()
	stats := c.edgeOne.Stats()
	c.say("%s  %d tasks created in %d runs, %d live, %d finished, %d with an open claim; EdgeOne got %d calls and executed %d URLs; at work: %s",
		time.Since(c.started).Round(time.Second), done["created"], runs, tasks, finished, open,
		stats.Calls("CreatePrefetchTask"), stats.Targets, c.faultsUnderWay())
}

// settleDown ends all faults and waits until the tasks have ended, or until calmMost has
// passed. It returns the tasks that exist then, and how long this took.
func (c *chaos) settleDown(ctx context.Context) (tasks []v1alpha1.PrefetchTask, took time.Duration, err error) {
	start := time.Now()
	c.edgeOne.ClearFaults()
	c.edgeOne.ResetQuota()
	for _, m := range c.managers {
		m.proxy.ClearFaults()
	}
	c.say("%s  calm: all faults are over, four of five suspended tasks are resumed", time.Since(c.started).Round(time.Second))
	c.users.resumeMost(ctx)
	for {
		var list v1alpha1.PrefetchTaskList
		if insist(ctx, func(ctx context.Context) error { return c.cluster.Client.List(ctx, &list) }); ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		open := 0
		for i := range list.Items {
			if judge.DescribeStuck(&list.Items[i]) != "" {
				open++
			}
		}
		took = time.Since(start)
		if open == 0 || took > calmMost {
			return list.Items, took, c.failure()
		}
		lasting(ctx, 2*time.Second)
	}
}

// fail records an error of the harness itself.
func (c *chaos) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = errors.Join(c.broken, err)
}

func (c *chaos) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

func (c *chaos) logFile(name string) string { return filepath.Join(c.logs, name) }
