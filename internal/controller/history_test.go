package controller

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/follow"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "run the one history of this seed, and print its log if it fails")
	historiesFlag = flag.Int("histories", 500, "how many histories to run, of the seeds from -first on")
	firstFlag     = flag.Uint64("first", 1, "the seed of the first history")
	tasksFlag     = flag.Int("tasks", 0, "create at most so many tasks in a history, to reduce a failure")
	withoutFlag   = flag.String("without", "", "comma-separated kinds of faults to leave out, to reduce a failure: "+strings.Join(faultKinds, ", "))
	withFlag      = flag.String("with", "", "comma-separated kinds of faults that every history has")
	logFlag       = flag.Bool("log", false, "print the log of the history of -seed also if it does not fail, with what the managers say")
)

// faultKinds lists the kinds of faults. Each history has some of them.
var faultKinds = []string{
	"api-refuse", "api-lose", "api-late", "api-conflict", "watch", "outage",
	"crash", "stop", "pause", "rival-manager",
	"dial", "lose-request", "lose-answer", "late-request", "spoil", "throttle", "listing", "clock",
	"quota", "secrets", "lists", "bad-urls", "small-calls",
	"foreign-traffic", "duplicate-spellings", "capped-counts", "rejected-jobs", "skew", "future-windows",
	"body-limit", "unknown-codes", "squatters", "churn", "long-lists",
	"purges", "wide-purges", "fresh-since", "list-edits", "slow-purges", "purge-quota", "lost-quota", "denied-actions",
}

// plan is the outline of a history. It follows from the seed.
type plan struct {
	faults  map[string]float64 // kind -> intensity, 0 to 1; 0 if the history has none
	tasks   int
	actions int           // number of user actions
	storm   time.Duration // how long users act and faults occur
}

func newPlan(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := plan{faults: map[string]float64{}, tasks: 4 + r.IntN(12), storm: time.Duration(2+r.IntN(14)) * time.Minute}
	p.actions = p.tasks + r.IntN(2*p.tasks)
	if *tasksFlag > 0 {
		p.tasks = min(p.tasks, *tasksFlag)
	}
	without := strings.Split(*withoutFlag, ",")
	for _, kind := range faultKinds {
		if on, intensity := r.IntN(5) < 2, r.Float64(); on && !slices.Contains(without, kind) {
			p.faults[kind] = 0.1 + 0.9*intensity
		}
		if slices.Contains(strings.Split(*withFlag, ","), kind) {
			p.faults[kind] = max(p.faults[kind], 0.5)
		}
	}
	return p
}

// dice makes all random decisions. The n-th roll for a key depends only on the seed, however the
// goroutines of a history are scheduled.
type dice struct {
	seed uint64
	mu   sync.Mutex
	n    map[string]int
}

func (d *dice) roll(key string) *rand.Rand {
	d.mu.Lock()
	d.n[key]++
	n := d.n[key]
	d.mu.Unlock()
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s %d", key, n)
	return rand.New(rand.NewPCG(d.seed, h.Sum64()))
}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// simulation is one history: a run of the real controllers against a simulated EdgeOne and an
// API server in memory, with random users and faults.
type simulation struct {
	role      *sts.Provider // if not nil, the operator's own keys are those of a role
	roleUser  *teo.Client   // of the process that started last
	t         *testing.T
	plan      plan
	dice      *dice
	began     time.Time
	server    *apiServer
	edgeOne   *simulator.Simulator
	options   Options
	users     *users
	judge     *judge
	refreshes *refreshes
	strays    sync.WaitGroup // requests in transit

	zones   []simulator.Zone
	listing struct{ delay, step time.Duration }
	// ways holds the longest transit times without faults: of a request to the API
	// server or its response, of a watch event, and of a request to EdgeOne or its
	// response.
	ways   struct{ api, event, edgeOne time.Duration }
	events recorder.EventRecorder
	// purgeDuration is how long EdgeOne takes for a purge.
	purgeDuration time.Duration

	mu        sync.Mutex
	lines     []string
	counts    map[string]int
	calm      bool
	downUntil time.Time
	processes int
	running   []*process
}

func (h *simulation) logf(format string, args ...any) {
	line := fmt.Sprintf("%10.3f  ", time.Since(h.began).Seconds()) + fmt.Sprintf(format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, line)
}

// fault counts and logs a fault that happens now.
func (h *simulation) fault(kind, format string, args ...any) {
	h.logf("FAULT %s "+format, append([]any{kind}, args...)...)
	h.judge.disturb(0)
	h.refreshes.disturb(kind)
	h.count(kind)
}

func (h *simulation) count(kind string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[kind]++
}

// manyManagers reports whether two managers may have worked at once.
func (h *simulation) manyManagers() bool {
	return h.plan.faults["rival-manager"] > 0 || h.plan.faults["pause"] > 0
}

// chance decides whether a fault of this kind happens. After becomeCalm, none does.
func (h *simulation) chance(r *rand.Rand, kind string, probability float64) bool {
	hit := r.Float64() < probability*h.plan.faults[kind]
	h.mu.Lock()
	defer h.mu.Unlock()
	return hit && !h.calm
}

func (h *simulation) down() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.downUntil)
}

func (h *simulation) request(verb string, key client.ObjectKey) (f apiFault) {
	r := h.dice.roll("api " + verb + " " + key.String())
	f.there, f.back = between(r, 300*time.Microsecond, h.ways.api), between(r, 300*time.Microsecond, h.ways.api)
	switch {
	case h.chance(r, "api-refuse", 0.3):
		f.refuse = [...]error{
			apierrors.NewTooManyRequests("the server is busy", 1), apierrors.NewTooManyRequests("the server is busy", 0),
			apierrors.NewInternalError(errors.New("etcdserver: request timed out")), apierrors.NewTimeoutError("request timed out", 0),
			apierrors.NewServiceUnavailable("not ready"),
		}[r.IntN(5)]
		h.fault("api-refuse", "%s %s: %v", verb, key, f.refuse)
	case h.chance(r, "api-lose", 0.2):
		f.lose = true
		h.fault("api-lose", "%s %s: answer lost", verb, key)
	case verb == "PUT" && h.chance(r, "api-conflict", 0.2):
		h.server.touch(key) // another write came first
		h.fault("api-conflict", "%s %s", verb, key)
	}
	if verb != "LIST" && verb != "WATCH" && h.chance(r, "api-late", 0.15) {
		f.there = between(r, 0, 25*time.Second)
		h.fault("api-late", "%s %s: request late by %s", verb, key, f.there)
	}
	if h.chance(r, "api-late", 0.1) {
		f.back = between(r, 0, 12*time.Second)
		h.fault("api-late", "%s %s: answer late by %s", verb, key, f.back)
	}
	return f
}

func (h *simulation) secret(key client.ObjectKey) error {
	r := h.dice.roll("secret " + key.String())
	if h.chance(r, "api-refuse", 0.2) {
		h.fault("api-refuse", "GET Secret %s", key)
		return apierrors.NewTimeoutError("request timed out", 0)
	}
	return nil
}

func (h *simulation) event(process string) (late time.Duration, end error) {
	r := h.dice.roll("event " + process)
	late = between(r, 0, h.ways.event)
	if h.chance(r, "watch", 0.15) {
		late = between(r, 0, 25*time.Second)
		h.fault("watch", "%s: event late by %s", process, late)
	}
	switch {
	case h.chance(r, "watch", 0.05):
		h.fault("watch", "%s: connection closed", process)
		return late, io.EOF
	case h.chance(r, "watch", 0.05):
		h.fault("watch", "%s: expired, listed again", process)
		return late, errExpired
	}
	return late, nil
}

// edgeConnection connects a process to EdgeOne.
type edgeConnection struct {
	*link
	h       *simulation
	inner   http.RoundTripper
	process string
}

func (c *edgeConnection) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := c.pass(); err != nil {
		return nil, err
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	h, action := c.h, req.Header.Get("X-TC-Action")
	r := h.dice.roll(c.process + " " + action)
	share := 1.0
	if !creates(action) {
		share = 0.3
	}
	if h.chance(r, "dial", 0.2*share) {
		h.fault("dial", "%s %s", c.process, action)
		return nil, refused()
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	there, back := between(r, 5*time.Millisecond, h.ways.edgeOne), between(r, 5*time.Millisecond, h.ways.edgeOne)
	loseRequest, loseAnswer := h.chance(r, "lose-request", 0.3*share), h.chance(r, "lose-answer", 0.3*share)
	quickly := r.IntN(2) == 0 // the caller gets an error at once, and otherwise after a minute
	switch {
	case loseRequest:
		h.countPurge(action, "request lost")
		h.fault("lose-request", "%s %s noticed=%v", c.process, action, quickly)
	case loseAnswer:
		h.countPurge(action, "answer lost")
		h.fault("lose-answer", "%s %s noticed=%v", c.process, action, quickly)
	}
	if h.chance(r, "late-request", 0.2*share) {
		there = between(r, 0, 20*time.Second)
		if r.IntN(2) == 0 {
			there = between(r, 0, 6*time.Minute)
		}
		h.countPurge(action, "request late")
		h.fault("late-request", "%s %s: late by %s", c.process, action, there)
	}
	if creates(action) {
		h.judge.sent(c.process, req, body, loseRequest)
	}
	return c.await(req.Context(), func() (*http.Response, error) {
		time.Sleep(there)
		if loseRequest {
			if !quickly {
				time.Sleep(time.Minute)
			}
			return nil, reset()
		}
		if c.gone() || req.Context().Err() != nil {
			h.judge.stray()
		}
		arrived := req.Clone(context.Background())
		arrived.Body = io.NopCloser(bytes.NewReader(body))
		response, err := c.inner.RoundTrip(arrived)
		time.Sleep(back)
		if loseAnswer {
			if err == nil {
				unheard, _ := io.ReadAll(response.Body)
				h.judge.unheardAnswer(unheard)
			}
			if !quickly {
				time.Sleep(time.Minute)
			}
			return nil, reset()
		}
		return response, err
	})
}

// creates reports whether an action creates a job.
func creates(action string) bool {
	return action == teo.ActionCreatePrefetchTask || action == teo.ActionCreatePurgeTask
}

// process is one manager with the real controllers.
type process struct {
	*link
	name   string
	cancel context.CancelFunc
	die    sync.Once
	done   chan struct{}
}

// quiet is a real manager without features that histories do not need. Events go only to the
// recorder of the test. The controllers have no warm-up: it would wait with a mutex held, and the
// time of the bubble would stop.
type quiet struct {
	manager.Manager
	events recorder.EventRecorder
}

func (q quiet) GetEventRecorder(string) recorder.EventRecorder { return q.events }

func (q quiet) Add(r manager.Runnable) error {
	if elected, ok := r.(interface {
		manager.Runnable
		manager.LeaderElectionRunnable
	}); ok {
		r = struct {
			manager.Runnable
			manager.LeaderElectionRunnable
		}{elected, elected}
	}
	return q.Manager.Add(r)
}

type nowhere struct{ recorder.EventRecorder }

func (nowhere) Eventf(kruntime.Object, kruntime.Object, string, string, string, string, ...any) {}

// scheme and mapper are shared by all histories: they contain nothing that belongs to a bubble.
var scheme = func() *kruntime.Scheme {
	s := kruntime.NewScheme()
	_ = clientgoscheme.AddToScheme(s)
	_ = v1alpha1.AddToScheme(s)
	return s
}()

func mapper(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	m := meta.NewDefaultRESTMapper(nil)
	m.Add(v1alpha1.GroupVersion.WithKind("PrefetchTask"), meta.RESTScopeNamespace)
	m.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	m.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	return m, nil
}

// start starts a manager.
func (h *simulation) start() *process {
	h.mu.Lock()
	h.processes++
	p := &process{link: newLink(&h.strays), name: fmt.Sprintf("manager-%d", h.processes), done: make(chan struct{})}
	h.running = append(h.running, p)
	h.mu.Unlock()
	h.logf("START %s", p.name)
	logger := logr.Discard()
	if *logFlag {
		logger = funcr.New(func(prefix, args string) { h.logf("      %s: %s %s", p.name, prefix, args) }, funcr.Options{Verbosity: 1})
	}
	jobs := follow.NewRecordedJobs()
	mgr, err := manager.New(&rest.Config{
		Host: "http://apiserver", QPS: -1,
		Transport:     &apiConnection{link: p.link, server: h.server, faults: h, process: p.name},
		ContentConfig: rest.ContentConfig{ContentType: kruntime.ContentTypeJSON, AcceptContentTypes: kruntime.ContentTypeJSON},
	}, manager.Options{
		Scheme: scheme, MapperProvider: mapper, Logger: logger,
		Cache:                   kube.CacheOptions(jobs),
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Controller:              config.Controller{SkipNameValidation: ptr.To(true), RecoverPanic: ptr.To(false)},
		GracefulShutdownTimeout: ptr.To(h.options.ShutdownGrace + 5*time.Second),
	})
	h.must(err)
	edgeOne, err := teo.NewClient(teo.Options{
		QPS: h.options.QPS, Timeout: h.options.CallTimeout, SignatureValidity: h.options.SignatureValidity,
		Transport: &edgeConnection{link: p.link, h: h, inner: h.edgeOne.RoundTripper(), process: p.name},
		KeyRefused: func(creds teo.Credentials) {
			if h.role != nil {
				h.role.Refuse(creds.SecretID)
			}
		},
	})
	h.must(err)
	own := func() (teo.Credentials, error) {
		return teo.Credentials{SecretID: keys["own"][0].SecretID, SecretKey: keys["own"][0].SecretKey}, nil
	}
	ctx, cancel := context.WithCancel(logr.NewContext(context.Background(), logger))
	p.cancel = cancel
	reader := &credentials.Reader{Live: mgr.GetAPIReader(), Own: own, MaxAge: h.options.RecheckInterval}
	if h.role != nil {
		reader.Role, h.roleUser = credentials.RoleCredentials(h.role), edgeOne
	}
	h.must(Setup(ctx, quiet{mgr, h.events}, Services{EdgeOne: edgeOne, Credentials: reader, Jobs: jobs}, h.options))
	h.must(mgr.Add(manager.RunnableFunc(func(context.Context) error {
		close(p.started)
		return nil
	})))
	go func() {
		defer close(p.done)
		if err := mgr.Start(ctx); err != nil && !p.gone() && ctx.Err() == nil {
			h.logf("%s ended: %v", p.name, err)
			h.exited(p)
			h.start() // Kubernetes restarts it
		}
	}()
	return p
}

func (h *simulation) must(err error) {
	if err != nil {
		panic(err)
	}
}

// exited removes a process from the list of running processes.
func (h *simulation) exited(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = slices.DeleteFunc(h.running, func(q *process) bool { return p == q })
}

// kill ends a process at once. Nothing that it does afterwards has an effect.
func (h *simulation) kill(p *process) {
	p.die.Do(func() {
		h.exited(p)
		close(p.cut)
		go func() {
			<-p.started // a manager that is stopped earlier never ends
			p.cancel()
		}()
	})
}

// stop ends a process as a signal does. It returns when the process is gone.
func (h *simulation) stop(p *process) {
	h.exited(p)
	p.resume()
	select {
	case <-p.started:
		p.cancel()
	default:
		h.kill(p)
	}
	<-p.done
}

func (h *simulation) anyProcess(r *rand.Rand) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.running) == 0 {
		return nil
	}
	return h.running[r.IntN(len(h.running))]
}

// strike causes faults of processes and servers at random times.
func (h *simulation) strike(stormy context.Context) {
	var wg sync.WaitGroup
	at := func(kind string, most int, do func(r *rand.Rand)) {
		if h.plan.faults[kind] == 0 {
			return
		}
		r := h.dice.roll("strike " + kind)
		for range 1 + r.IntN(most) {
			when, r := between(r, 0, h.plan.storm), h.dice.roll("strike "+kind)
			wg.Go(func() {
				if sleep(stormy, when) {
					do(r)
				}
			})
		}
	}
	at("outage", 4, func(r *rand.Rand) {
		d := between(r, time.Second, 30*time.Second)
		if r.IntN(3) == 0 {
			d = between(r, 0, 8*time.Minute)
		}
		h.fault("outage", "of the API server for %s", d)
		h.mu.Lock()
		h.downUntil = time.Now().Add(d)
		h.mu.Unlock()
		h.judge.disturb(d)
		h.refreshes.disturbFor(d)
	})
	at("crash", 6, func(r *rand.Rand) {
		h.awaitCold(stormy, r, "crash")
		if p := h.anyProcess(r); p != nil {
			h.fault("crash", "%s", p.name)
			h.kill(p)
			time.Sleep(between(r, 0, 20*time.Second))
			h.start()
		}
	})
	at("stop", 4, func(r *rand.Rand) {
		h.awaitCold(stormy, r, "stop")
		if p := h.anyProcess(r); p != nil {
			h.fault("stop", "%s", p.name)
			h.stop(p)
			h.start()
		}
	})
	at("pause", 3, func(r *rand.Rand) {
		p := h.anyProcess(r)
		if p == nil {
			return
		}
		d := between(r, time.Second, 8*time.Minute)
		h.fault("pause", "%s for %s", p.name, d)
		if r.IntN(3) > 0 {
			p.pauseAfterClaim()
			for range 40 { // the next claim may take a while
				if p.paused() || !sleep(stormy, 3*time.Second) {
					break
				}
			}
			h.logf("PAUSED %s after a claim: %v", p.name, p.paused())
		} else {
			h.awaitCold(stormy, r, "pause")
			p.pause()
		}
		h.judge.disturb(d)
		h.refreshes.disturbFor(d)
		if r.IntN(3) > 0 { // another process takes over
			sleep(stormy, min(d, 15*time.Second))
			rival := h.start()
			sleep(stormy, d)
			p.resume()
			sleep(stormy, between(r, 0, 10*time.Second))
			h.logf("STOP %s", rival.name)
			h.stop(rival)
			return
		}
		sleep(stormy, d)
		h.logf("RESUME %s", p.name)
		p.resume()
	})
	at("rival-manager", 2, func(r *rand.Rand) {
		h.fault("rival-manager", "")
		rival := h.start()
		sleep(stormy, between(r, time.Second, 10*time.Minute))
		h.logf("STOP %s", rival.name)
		h.stop(rival)
	})
	at("throttle", 3, func(r *rand.Rand) {
		account, n := accounts[r.IntN(len(accounts))], 5+r.IntN(16)
		h.fault("throttle", "account %s: others use %d calls a second", account, n)
		h.edgeOne.SetRival(account, n)
		sleep(stormy, between(r, time.Second, 3*time.Minute))
		h.edgeOne.SetRival(account, 0)
	})
	h.strikeRefreshes(stormy, at)
	wg.Wait()
}

// sleep sleeps for d. It returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// limitBodies makes the path to EdgeOne refuse requests with more than a few URLs.
func (h *simulation) limitBodies() {
	if h.plan.faults["body-limit"] == 0 {
		return
	}
	r := h.dice.roll("body-limit")
	longest := 200 + r.IntN(800)
	effect := simulator.Effect{CutBody: longest}
	match := simulator.Matcher{Action: [...]string{teo.ActionCreatePrefetchTask, teo.ActionCreatePurgeTask}[r.IntN(2)]}
	if r.IntN(2) == 0 {
		match.BodyOver = longest
		effect = simulator.Effect{Status: http.StatusRequestEntityTooLarge, Body: "<html>413 Request Entity Too Large</html>"}
	}
	h.fault("body-limit", "of %d bytes", longest)
	h.edgeOne.AddFault(simulator.Fault{Match: match, Effect: effect})
}

// spoil makes EdgeOne return faulty responses.
func (h *simulation) spoil() {
	intensity := h.plan.faults["spoil"]
	if intensity == 0 {
		return
	}
	r := h.dice.roll("spoil")
	for _, effect := range []simulator.Effect{
		{Code: "InternalError.ProxyServer", Message: "proxy", Executed: true}, {Code: "InternalError.ProxyServer", Message: "proxy"},
		{Code: "InternalError", Message: "x", Executed: true}, {Code: "RequestLimitExceeded", Message: "too fast"},
		{Code: "UnheardOf.Code", Message: "what", Executed: true}, {Answer: simulator.BadGateway, Executed: true}, {Answer: simulator.BadGateway},
		{Answer: simulator.EmptyBody, Executed: true}, {Answer: simulator.NullBody, Executed: true}, {Answer: simulator.EmptyObject},
		{Answer: simulator.TruncatedBody, Executed: true}, {Answer: simulator.NoJobID}, {Answer: simulator.NoRequestID},
		{Answer: simulator.ConnectionReset}, {Answer: simulator.ConnectionClosed, Executed: true},
		{ServerDelay: 4 * time.Second}, {ServerDelay: 8 * time.Second, AnswerDelay: 4 * time.Second},
	} {
		if r.IntN(3) == 0 {
			p := 0.1 * intensity
			h.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionCreatePrefetchTask, Probability: p, Seed: r.Uint64()}, Effect: effect})
			h.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionDescribePrefetchTasks, Probability: p / 4, Seed: r.Uint64()}, Effect: effect})
			h.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionCreatePurgeTask, Probability: p, Seed: r.Uint64()}, Effect: effect})
			h.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionDescribePurgeTasks, Probability: p / 4, Seed: r.Uint64()}, Effect: effect})
			h.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionDescribeContentQuota, Probability: p / 4, Seed: r.Uint64()}, Effect: effect})
		}
	}
}

var accounts = []string{"a", "b"}

// keys holds the keys by user. The first key of a user is in use at the start.
var keys = map[string][]simulator.Key{
	"own":    {{SecretID: "AKIDa1", SecretKey: "key-a1", Account: "a"}},
	"same":   {{SecretID: "AKIDa2", SecretKey: "key-a2", Account: "a"}, {SecretID: "AKIDa3", SecretKey: "key-a3", Account: "a"}},
	"tenant": {{SecretID: "AKIDb1", SecretKey: "key-b1", Account: "b"}, {SecretID: "AKIDb2", SecretKey: "key-b2", Account: "b"}},
}

// squatted holds the keys in a squatter's Secret: a SecretId of another tenant or of the
// operator, with a guessed SecretKey.
var squatted = []simulator.Key{{SecretID: "AKIDb1", SecretKey: "guessed"}, {SecretID: "AKIDa1", SecretKey: "guessed"}}

// rulesOfURLs define how EdgeOne handles URLs throughout a history.
var rulesOfURLs = []simulator.Rule{
	{URL: "/refuse/", Refuse: "The resource is not allowed to be prefetched."},
	{URL: "/fail/", Status: "failed", FailType: "originPullFailed", FailMessage: "The origin did not answer."},
	{URL: "/slow/", Duration: 10 * time.Minute},
}

// rulesOfTheStorm return error codes of unknown outcome, for URLs that EdgeOne accepts after the
// storm.
var rulesOfTheStorm = []simulator.Rule{
	{URL: "/config/", Code: "InternalError.DomainConfig", Message: "origin config unavailable"},
	{URL: "/backend/", Code: "InternalError.BackendError", Message: "try again", Executed: true},
}

func (h *simulation) simulator() simulator.Config {
	r := h.dice.roll("simulator")
	c := simulator.Config{
		Zones: []simulator.Zone{
			{ID: "zone-a1", Account: "a", Domains: []string{"a1.example.com"}, EdgeMode: true, MediaSegments: true},
			{ID: "zone-a2", Account: "a", Domains: []string{"a2.example.com"}},
			{ID: "zone-b1", Account: "b", Domains: []string{"b1.example.com"}, EdgeMode: true},
		},
		Rules:                 slices.Concat(rulesOfURLs, purgeRules, rulesOfTheStorm),
		QuotaResetAt:          fmt.Sprintf("00:%02d", 1+r.IntN(20)),
		NoJobIDWhenAllRefused: r.IntN(2) == 0,
		RateWindow:            [...]simulator.RateWindow{simulator.SlidingWindow, simulator.FixedWindow, simulator.TokenBucket}[r.IntN(3)],
		OnCall:                func(call simulator.Call) { h.judge.called(call) },
	}
	for _, pair := range keys {
		c.Keys = append(c.Keys, pair...)
	}
	if f := h.plan.faults["listing"]; f > 0 {
		c.ListingDelay = between(r, 0, time.Duration(15*f*float64(time.Second)))
		c.ListingStep = between(r, 0, 40*time.Millisecond)
		h.listing.delay, h.listing.step = c.ListingDelay, c.ListingStep
		h.counts["listing"]++
	}
	if f := h.plan.faults["clock"]; f > 0 {
		c.ClockOffset = between(r, -time.Duration(f*240*float64(time.Second)), time.Duration(f*240*float64(time.Second)))
		h.counts["clock"]++
	}
	h.habits(&c)
	if h.plan.faults["small-calls"] > 0 {
		for i := range c.Zones {
			c.Zones[i].Batch = 1 + r.IntN(6)
		}
	}
	if h.plan.faults["quota"] > 0 {
		for i := range c.Zones {
			c.Zones[i].Daily = 5 + r.IntN(60)
			c.Zones[i].NullQuota = r.IntN(8) == 0
		}
		h.counts["quota"]++
	}
	h.purgeSettings(&c)
	h.zones = c.Zones
	return c
}

// habits configures behavior of EdgeOne that Tencent does not document.
func (h *simulation) habits(c *simulator.Config) {
	r := h.dice.roll("habits")
	on := func(kind string) bool {
		if h.plan.faults[kind] == 0 {
			return false
		}
		h.counts[kind]++
		return true
	}
	if on("foreign-traffic") {
		c.Traffic = []simulator.Traffic{
			{ZoneID: "zone-a1", Every: between(r, 500*time.Millisecond, 20*time.Second), URLs: 1 + r.IntN(4)},
			{ZoneID: "zone-b1", Every: between(r, time.Second, time.Minute), Targets: []string{"https://b1.example.com/others/中", "https://b1.example.com/others/%E4%B8%AD"}},
		}
	}
	if on("capped-counts") {
		c.MaxTotalCount = 1 + r.IntN(20)
	}
	if on("rejected-jobs") {
		c.RejectedJobIDs = "^[a-d]" // an eighth of all job IDs
	}
	if on("skew") {
		c.DateSkew = between(r, -time.Second, time.Second)
		c.CreateTimeSkew = between(r, 0, time.Second)
	}
	c.NoFutureWindows = on("future-windows")
}

// listed returns how long after its execution a job with n targets appears in the history.
func (h *simulation) listed(n int) time.Duration {
	return h.listing.delay + time.Duration(n-1)*h.listing.step
}

func (h *simulation) controllerOptions() Options {
	r := h.dice.roll("options")
	o := Options{
		Batch: 500, TasksPerCall: 500, QPS: 20,
		QuotaInterval: 10 * time.Minute, QuotaReset: 16 * time.Hour,
		PollInterval: 5 * time.Second, JobDeadline: 24 * time.Hour, RecheckInterval: 30 * time.Second,
		SignatureValidity: 5 * time.Minute, SettleMargin: 30 * time.Second, HistoryRetention: 72 * time.Hour,
		WriteTimeout: 10 * time.Second, CallTimeout: 10 * time.Second, ShutdownGrace: 25 * time.Second,
		AllowPurge: purgeTypes, PurgeDeadline: 30 * time.Minute,
	}
	if h.plan.faults["small-calls"] > 0 {
		o.Batch, o.TasksPerCall = 1+r.IntN(8), 1+r.IntN(4)
		h.counts["small-calls"]++
	}
	return o
}

// newSimulation returns a simulation in which nothing runs yet.
func newSimulation(t *testing.T, p plan, seed uint64) *simulation {
	h := &simulation{t: t, plan: p, dice: &dice{seed: seed, n: map[string]int{}}, counts: map[string]int{}, began: time.Now()}
	h.ways.api, h.ways.event, h.ways.edgeOne = 6*time.Millisecond, 10*time.Millisecond, 60*time.Millisecond
	h.events = nowhere{}
	h.server = newAPIServer()
	h.judge, h.refreshes = newJudge(h), newRefreshes(h)
	h.server.onStatus = h.judge.written
	h.options = h.controllerOptions()
	h.edgeOne = simulator.New(h.simulator())
	h.users = newUsers(h)
	return h
}

// end stops everything that still runs.
func (h *simulation) end() {
	h.mu.Lock()
	running := slices.Clone(h.running)
	h.mu.Unlock()
	for _, p := range running {
		h.stop(p)
	}
	h.strays.Wait()
	h.edgeOne.Close()
	time.Sleep(time.Second) // for all retry loops to notice the end
}

// run runs a history from start to end.
func (h *simulation) run() {
	stormy, storm := context.WithCancel(context.Background())
	h.spoil()
	h.limitBodies()
	h.start()

	var wg sync.WaitGroup
	wg.Go(func() { h.strike(stormy) })
	wg.Go(func() { h.users.act(h.plan.storm) })
	wg.Go(func() { h.refreshes.visit(stormy) })
	time.Sleep(h.plan.storm)
	storm()
	wg.Wait()
	h.becomeCalm()
	if h.plan.faults["quota"]+h.plan.faults["purge-quota"]+h.plan.faults["lost-quota"] > 0 { // after midnight, the zones get unlimited quota
		time.Sleep(time.Until(h.began.Add(22 * time.Minute)))
		for _, zone := range h.zones {
			zone.Daily, zone.Purge = 0, nil
			h.edgeOne.SetZone(zone)
		}
		h.edgeOne.ResetQuota()
	}
	h.judge.waitForEnds()
	h.judge.judge()
	h.refreshes.judge()
	h.end()
}

// becomeCalm ends all faults.
func (h *simulation) becomeCalm() {
	h.logf("CALM")
	h.edgeOne.ClearFaults()
	h.edgeOne.SetRules(slices.Concat(rulesOfURLs, purgeRules)...)
	for _, account := range accounts {
		h.edgeOne.SetRival(account, 0)
	}
	h.mu.Lock()
	h.calm, h.downUntil = true, time.Time{}
	running := slices.Clone(h.running)
	h.mu.Unlock()
	for _, p := range running {
		p.resume()
	}
	if len(running) == 0 {
		h.start()
	} else {
		for _, p := range running[1:] {
			h.logf("STOP %s", p.name)
			h.stop(p)
		}
	}
	h.users.calm()
}

func TestHistories(t *testing.T) {
	forgetTimes()
	first, n := *firstFlag, *historiesFlag
	if testing.Short() || raceDetector() { // it is ten times slower; make test also runs all histories without it
		n = min(n, 40)
	}
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // trade memory for speed: histories are short
	var total totals
	var next atomic.Uint64
	next.Store(first)
	t.Run("histories", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1) - 1; seed < first+uint64(n); seed = next.Add(1) - 1 {
					if !runHistory(t, seed, &total) {
						next.Store(first + uint64(n)) // stop after the first failure
					}
				}
			})
		}
	})
	t.Log(total.String())
}

// forgetTimes resets the only process-wide state that keeps times, which would belong to an
// earlier bubble: the error handlers of apimachinery and the logger of klog.
func forgetTimes() {
	utilruntime.ErrorHandlers = nil
	klog.SetLogger(logr.Discard())
}

func runHistory(t *testing.T, seed uint64, total *totals) bool {
	return t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
		began := time.Now()
		var virtual time.Duration
		var writes, calls int
		synctest.Test(t, func(t *testing.T) {
			h := newSimulation(t, newPlan(seed), seed)
			h.run()
			total.add(h)
			virtual, writes, calls = time.Since(h.began), len(h.server.events), len(h.edgeOne.Calls())
			if t.Failed() || *logFlag {
				t.Logf("history of seed %d, faults %v:\n%s", seed, h.plan.faults, strings.Join(h.lines, "\n"))
				t.Logf("again: go test ./internal/controller -run TestHistories -args -seed=%d", seed)
			}
		})
		if d := time.Since(began); d > 5*time.Second {
			t.Logf("seed %d took %s; virtual %s, status writes %d, calls %d", seed, d, virtual, writes, calls)
		}
	})
}

func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// totals adds up the figures of many histories.
type totals struct {
	mu                                           sync.Mutex
	histories, tasks, runs, calls, targets, jobs int
	virtual                                      time.Duration
	faults                                       map[string]int
	adopted, again                               []time.Duration
}

func (s *totals) add(h *simulation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults == nil {
		s.faults = map[string]int{}
	}
	s.histories++
	s.tasks += len(h.users.all)
	for _, task := range h.users.all {
		s.runs += len(task.runs)
	}
	stats := h.edgeOne.Stats()
	s.calls += stats.Calls(teo.ActionCreatePrefetchTask)
	s.jobs += stats.Jobs
	s.targets += stats.Targets
	s.virtual += time.Since(h.began)
	for kind, n := range h.counts {
		s.faults[kind] += n
	}
	for outcome, n := range stats.Outcomes {
		if outcome != "OK" {
			s.faults["answer "+outcome] += n
		}
	}
	s.adopted = append(s.adopted, h.judge.adopted...)
	s.again = append(s.again, h.judge.again...)
}

func (s *totals) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d histories, %s of virtual time: %d tasks, %d runs, %d calls, %d jobs, %d URLs executed\n",
		s.histories, s.virtual.Round(time.Minute), s.tasks, s.runs, s.calls, s.jobs, s.targets)
	spread := func(what string, d []time.Duration) {
		if len(d) > 0 {
			slices.Sort(d)
			fmt.Fprintf(&b, "%s: %d times, median %s, worst %s\n", what, len(d), d[len(d)/2].Round(time.Millisecond), d[len(d)-1].Round(time.Millisecond))
		}
	}
	spread("executed call whose answer was lost, recorded after it was listed", s.adopted)
	spread("call that was lost, sent again after fence and margin", s.again)
	for _, kind := range slices.Sorted(maps.Keys(s.faults)) {
		fmt.Fprintf(&b, "%7d %s\n", s.faults[kind], kind)
	}
	return b.String()
}
