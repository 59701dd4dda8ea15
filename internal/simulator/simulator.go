// Package simulator is Tencent EdgeOne's prefetch API (TEO, version
// 2022-09-01) as a server that behaves: it verifies TC3 signatures, meters
// rates and quotas, runs jobs through their states, and can be told to
// misbehave in the ways networks and gateways do. Its [Ledger] says what
// EdgeOne executed, whatever the caller was told.
//
// It shares no code with the operator's own client, so that an agreement of
// the two means something. What Tencent does not document is configurable.
//
// A Simulator is an [http.Handler]. [Simulator.Start] serves it on a loopback
// port together with the control endpoints under /_simulator/;
// [Simulator.RoundTripper] reaches it in memory. Inside a testing/synctest
// bubble call [New] and use the round tripper: time.Now and timers are the
// only clocks.
package simulator

import (
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Simulator is one EdgeOne. Its methods may be called from any goroutine and
// at any time, also while calls are under way.
type Simulator struct {
	config Config
	closed chan struct{}  // closed by Close: releases every held and delayed call
	calls  sync.WaitGroup // calls under way
	server *http.Server
	served chan struct{} // closed when server has stopped accepting

	mu          sync.Mutex
	closing     bool
	clockOffset time.Duration
	keys        map[string]Key
	zones       map[string]*zone
	rules       []Rule
	jobs        map[string]*job
	history     []*job // all jobs, oldest first
	meters      map[meterKey]*meter
	rivals      map[string]int
	faults      []*fault
	faultID     int
	quotaDay    time.Time
	rejectedIDs *regexp.Regexp // of jobs; nil: none
	traffic     []*traffic
	ledger      Ledger
	log         []Call
}

// New returns a simulator of the zones, keys and habits that c describes. It
// panics if c is not valid: see [Config.Validate].
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
		zones:       map[string]*zone{},
		rules:       append([]Rule(nil), c.Rules...),
		jobs:        map[string]*job{},
		meters:      map[meterKey]*meter{},
		rivals:      map[string]int{},
	}
	s.quotaDay = s.lastQuotaReset(s.now())
	for _, k := range c.Keys {
		s.keys[k.SecretID] = k
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

// Start serves the simulator and its control endpoints on a free loopback
// port and returns the base URL, without a slash at its end. It panics if
// there is no port to be had. Call it once; [Simulator.Close] ends it.
func (s *Simulator) Start() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("simulator: " + err.Error())
	}
	s.server = &http.Server{Handler: s.WithControl(), ReadHeaderTimeout: time.Minute}
	s.served = make(chan struct{})
	go func() {
		defer close(s.served)
		_ = s.server.Serve(listener) // always ErrServerClosed: Close is the only end
	}()
	return "http://" + listener.Addr().String()
}

// Close ends the server that Start started, drops calls that are held or
// delayed, and returns when no call is under way any more. The ledger and the
// statistics remain readable.
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

// Now returns the time on EdgeOne's clock: ours plus the configured offset.
func (s *Simulator) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

func (s *Simulator) now() time.Time { return time.Now().Add(s.clockOffset) }

// SetClockOffset moves EdgeOne's clock: the Date header, the age of
// signatures, CreateTime and the reset of quotas follow it. Rates and the
// duration of jobs do not.
func (s *Simulator) SetClockOffset(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clockOffset = d
}

// SetKey adds a key or replaces the one of the same SecretId.
func (s *Simulator) SetKey(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.SecretID] = k
}

// RemoveKey forgets a key: calls it signs end in AuthFailure.SecretIdNotFound.
func (s *Simulator) RemoveKey(secretID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, secretID)
}

// SetRules replaces the rules that decide what becomes of a URL. Targets that
// were accepted before keep the outcome they were given then.
func (s *Simulator) SetRules(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append([]Rule(nil), rules...)
}

// call is one request on its way through the simulator.
type call struct {
	Call
	method, path, host string
	header             http.Header
	body               []byte
	params             map[string]any // nil if the body is not a JSON object
	targets            []string       // of CreatePrefetchTask, as far as they are strings
	key                Key            // once the signature is verified
	signedAt           time.Time
}

// begin counts a call as under way. It fails once the simulator is closed.
func (s *Simulator) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.calls.Add(1)
	return true
}

// handle takes a request through its whole life: the way in, the checks, the
// execution, the way back. It is the same for HTTP and for the round tripper;
// what they do with the answer differs. The caller must have called begin.
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

// process is what EdgeOne itself does with a request that reached it.
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

// admit holds what is checked before a request may execute.
func (s *Simulator) admit(c *call) *apiError {
	if err := c.wellFormed(); err != nil {
		return err
	}
	if err := s.authenticate(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.meter(c).admit(time.Now(), s.rivals[c.Account]) {
		return fail("RequestLimitExceeded", "The request rate of %s exceeds the limit of %d a second.", c.Action, s.config.Rate)
	}
	if !c.key.mayCall(c.Action) {
		return fail("UnauthorizedOperation.CamUnauthorized", "The key may not call teo:%s.", c.Action)
	}
	if c.params == nil {
		return fail("InvalidParameter", "The body is not a JSON object.")
	}
	return actions[c.Action].params.check("", c.params)
}

// arrive notes that a request reached EdgeOne, now.
func (s *Simulator) arrive(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Time = s.now()
	c.Account = s.keys[c.SecretID].Account
	s.meter(c).arrived(time.Now())
}

// finish completes the answer and writes the call's line in the log.
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

// actions are the API's operations with the parameters they define.
var actions = map[string]struct {
	params object
	run    func(*Simulator, *call) (map[string]any, *apiError)
}{
	"CreatePrefetchTask":    {createParams, (*Simulator).createPrefetchTask},
	"DescribePrefetchTasks": {describeParams, (*Simulator).describePrefetchTasks},
	"DescribeContentQuota":  {quotaParams, (*Simulator).describeContentQuota},
}

// wellFormed checks what comes before the signature.
func (c *call) wellFormed() *apiError {
	if c.method != http.MethodPost {
		return fail("UnsupportedProtocol", "Only POST is simulated.")
	}
	for _, name := range []string{"X-TC-Action", "X-TC-Version", "X-TC-Timestamp", "Authorization", "Content-Type"} {
		if c.header.Get(name) == "" {
			return fail("MissingParameter", "The header %s is missing.", name)
		}
	}
	if v := c.header.Get("X-TC-Version"); v != "2022-09-01" {
		return fail("NoSuchVersion", "The version %q does not exist.", v)
	}
	if _, ok := actions[c.Action]; !ok {
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
