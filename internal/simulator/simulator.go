// Package simulator is Tencent EdgeOne's prefetch and purge API (TEO, version 2022-09-01) as a
// server. It verifies TC3 signatures, meters rates and quotas, and runs jobs through
// their states. Faults make it misbehave in the ways that networks and gateways do. Its
// [Ledger] lists what EdgeOne executed, regardless of the answers that the callers got.
//
// It shares no code with the operator's own client; otherwise, both could have the same
// error and agree. Behaviour that Tencent does not document is configurable.
//
// A Simulator is an [http.Handler]. [Simulator.Start] serves it on a loopback port,
// together with the control endpoints under /_simulator/. [Simulator.RoundTripper]
// reaches it in memory. Inside a testing/synctest bubble, call [New] and use the round
// tripper: time.Now and timers are the only clocks.
//
//   - simulator.go: the simulator, and the way of a call through it.
//   - config.go: the configuration. control.go: the control endpoints, and a client for
//     them.
//   - http.go and transport.go: how calls arrive and answers return. faults.go and
//     held.go: what goes wrong with them.
//   - auth.go, rate.go and params.go: the checks of a call.
//   - submission.go, with prefetch.go and purge.go, lookup.go and quota.go: the actions.
//     sts.go and jwt.go: the Security Token Service. actions.go lists all actions.
//   - zones.go: whose zones and hosts.
//   - jobs.go: jobs and their states. traffic.go: the jobs of other programs.
//   - cache.go: the cache and the origin. cache_jobs.go: what jobs do to the cache.
//     visits.go: what visitors see. journal.go: what happened to the cache.
//   - ledger.go: what happened. url.go: which URLs are the same.
package simulator

import (
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Simulator is one EdgeOne. Its methods are safe for concurrent use, also while it serves
// calls.
type Simulator struct {
	config Config
	closed chan struct{}  // closed by Close, which ends all held and delayed calls
	calls  sync.WaitGroup // calls in progress
	server *http.Server
	served chan struct{} // closed when server has stopped accepting

	mu          sync.Mutex
	closing     bool
	clockOffset time.Duration
	keys        map[string]Key
	roles       map[string]Role
	providers   map[string]IdentityProvider
	zones       map[string]*zone
	rules       []Rule
	jobs        map[string]*job
	histories   map[string][]*job // all jobs by the action that creates them, oldest first
	meters      map[meterKey]*meter
	rivals      map[string]int
	faults      []*fault
	faultID     int
	quotaDay    time.Time
	rejectedIDs *regexp.Regexp // the job IDs that lookups reject; nil means none
	traffic     []*traffic
	cache       cache
	ledger      Ledger
	log         []Call
}

// New returns a simulator with the configuration c. It panics if c is not valid; see
// [Config.Validate].
func New(c Config) *Simulator {
	if err := c.Validate(); err != nil {
		panic("simulator: " + err.Error())
	}
	c.setDefaults()
	s := &Simulator{
		config:      c,
		closed:      make(chan struct{}),
		clockOffset: c.ClockOffset,
		keys:        map[string]Key{},
		roles:       map[string]Role{},
		providers:   map[string]IdentityProvider{},
		zones:       map[string]*zone{},
		rules:       append([]Rule(nil), c.Rules...),
		jobs:        map[string]*job{},
		histories:   map[string][]*job{},
		cache:       cache{entries: map[string]*entry{}},
		meters:      map[meterKey]*meter{},
		rivals:      map[string]int{},
	}
	s.quotaDay = s.lastQuotaReset(s.now())
	for _, k := range c.Keys {
		s.keys[k.SecretID] = k
	}
	for _, r := range c.Roles {
		s.roles[r.ARN] = r
	}
	for _, p := range c.IdentityProviders {
		s.providers[p.ID] = p
	}
	for _, z := range c.Zones {
		s.setZone(z)
	}
	for account, calls := range c.Rivals {
		s.rivals[account] = calls
	}
	if c.RejectedJobIDs != "" {
		s.rejectedIDs = regexp.MustCompile(c.RejectedJobIDs)
	}
	s.setTraffic(c.Traffic)
	return s
}

// Start serves the simulator and its control endpoints on a free loopback port. It
// returns the base URL, without a slash at its end. It panics if it cannot listen. Call
// it once; [Simulator.Close] stops the server.
func (s *Simulator) Start() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("simulator: " + err.Error())
	}
	s.server = &http.Server{Handler: s.WithControl(), ReadHeaderTimeout: time.Minute}
	s.served = make(chan struct{})
	go func() {
		defer close(s.served)
		_ = s.server.Serve(listener) // always ErrServerClosed, because only Close stops it
	}()
	return "http://" + listener.Addr().String()
}

// Close stops the server that Start started, drops held and delayed calls, and returns
// when no call is in progress. The ledger and the statistics remain readable. Further
// calls of Close have no effect.
func (s *Simulator) Close() {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	s.mu.Unlock()
	if first {
		close(s.closed)
	}
	if s.server != nil {
		_ = s.server.Close()
		<-s.served
	}
	s.calls.Wait()
}

// Now returns the time on EdgeOne's clock: the local time plus the configured offset.
func (s *Simulator) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

// now is Now for callers that hold s.mu.
func (s *Simulator) now() time.Time { return time.Now().Add(s.clockOffset) }

// SetClockOffset sets how far EdgeOne's clock is ahead of the local clock. The Date
// header, the age of signatures, CreateTime and the reset of quotas follow EdgeOne's
// clock. Rates and the duration of jobs do not.
func (s *Simulator) SetClockOffset(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clockOffset = d
}

// SetKey adds a key, or replaces the key with the same SecretId.
func (s *Simulator) SetKey(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.SecretID] = k
}

// RemoveKey removes a key. Calls that it signs fail with AuthFailure.SecretIdNotFound.
func (s *Simulator) RemoveKey(secretID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, secretID)
}

// call is one request while the simulator handles it.
type call struct {
	Call
	method, path, host string
	header             http.Header
	body               []byte
	params             map[string]any // nil if the body is not a JSON object
	targets            []string       // of a job, without those that are not strings
	key                Key            // set after the signature is verified
	signedAt           time.Time
}

// begin counts a call as in progress. It returns false if the simulator is closed.
func (s *Simulator) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.calls.Add(1)
	return true
}

// handle takes a request through all of its stages: arrival, checks, execution and
// answer. HTTP and the round tripper share it, and differ only in how they deliver the
// answer. The caller must have called begin.
func (s *Simulator) handle(r *http.Request, body []byte) answer {
	defer s.calls.Done()
	c := newCall(r, body)
	fired := s.fire(c)
	for _, f := range fired {
		c.Faults = append(c.Faults, f.id)
	}

	if fired.cut() {
		c.Outcome = string(ConnectionReset)
		return s.finish(c, answer{fate: fateReset})
	}
	if !s.pass(fired, atRequest) {
		c.Outcome = string(ConnectionClosed)
		return s.finish(c, answer{fate: fateClose})
	}
	s.arrive(c)
	spoiler := fired.spoiler()
	var result map[string]any
	var failure *apiError
	if spoiler == nil || spoiler.executes() {
		result, failure = s.process(c, fired)
	}
	if failure == dropped || !s.pass(fired, atAnswer) {
		c.Outcome = string(ConnectionClosed)
		return s.finish(c, answer{fate: fateClose})
	}
	if c.path != "/" {
		c.Outcome = "404"
		return s.finish(c, answer{status: http.StatusNotFound, contentType: "text/html", body: []byte("<html><body>404 Not Found</body></html>")})
	}
	return s.finish(c, s.answer(c, spoiler, result, failure))
}

// process is what EdgeOne itself does with a request that has arrived.
func (s *Simulator) process(c *call, fired effects) (map[string]any, *apiError) {
	if c.path != "/" {
		return nil, nil
	}
	if err := s.admit(c); err != nil {
		return nil, err
	}
	if !s.pass(fired, atExecution) {
		return nil, dropped
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addTraffic(time.Now())
	result, err := actions[c.Action].run(s, c)
	c.Executed = c.Executed || err == nil
	return result, err
}

// admit runs the checks that a request must pass before it is executed.
func (s *Simulator) admit(c *call) *apiError {
	if err := c.wellFormed(); err != nil {
		return err
	}
	authenticate := s.authenticate
	if actions[c.Action].isUnsigned {
		authenticate = (*call).authenticateUnsigned
	}
	if err := authenticate(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.meter(c).admit(time.Now(), s.rivals[c.Account]) {
		return fail("RequestLimitExceeded", "The request rate of %s exceeds the limit of %d a second.", c.Action, s.config.Rate)
	}
	if !c.key.mayCall(c.Action) {
		return fail("UnauthorizedOperation.CamUnauthorized", "The key may not call %s:%s.", actions[c.Action].service, c.Action)
	}
	if c.params == nil {
		return fail("InvalidParameter", "The body is not a JSON object.")
	}
	return actions[c.Action].params.check("", c.params)
}

// arrive records that a request reaches EdgeOne now.
func (s *Simulator) arrive(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Time = s.now()
	c.Account = s.keys[c.SecretID].Account
	if actions[c.Action].isUnsigned {
		c.Account = s.roles[c.text("RoleArn")].Account
	}
	s.meter(c).arrived(time.Now())
}

// finish completes the answer and adds the call to the log.
func (s *Simulator) finish(c *call, a answer) answer {
	s.mu.Lock()
	if c.Time.IsZero() { // it never arrived
		c.Time = s.now()
	}
	if c.Outcome == "RequestLimitExceeded" {
		s.meter(c).throttled++
	}
	a.date = s.now().Add(s.config.DateSkew)
	s.log = append(s.log, c.Call)
	s.mu.Unlock()
	if s.config.OnCall != nil {
		s.config.OnCall(c.Call)
	}
	return a
}

// wellFormed runs the checks that come before the check of the signature.
func (c *call) wellFormed() *apiError {
	if c.method != http.MethodPost {
		return fail("UnsupportedProtocol", "Only POST is simulated.")
	}
	for _, name := range []string{"X-TC-Action", "X-TC-Version", "X-TC-Timestamp", "Authorization", "Content-Type"} {
		if c.header.Get(name) == "" {
			return fail("MissingParameter", "The header %s is missing.", name)
		}
	}
	version := c.header.Get("X-TC-Version")
	if version != teoVersion && version != stsVersion {
		return fail("NoSuchVersion", "The version %q does not exist.", version)
	}
	if a, ok := actions[c.Action]; !ok || a.version != version {
		return fail("InvalidAction", "The action %q does not exist.", c.Action)
	}
	if media, _, _ := strings.Cut(c.header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(media), "application/json") {
		return fail("InvalidParameter", "The content type %q is not application/json.", media)
	}
	if len(c.body) > maxBody {
		return fail("RequestSizeLimitExceeded", "The body exceeds 10 MB.")
	}
	return nil
}
