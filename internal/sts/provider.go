package sts

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const (
	// refusalMemory is how long a refusal is remembered. STS allows 20 calls a second for a
	// whole account.
	refusalMemory = 30 * time.Second
	// failureMemory is how long any other failure is remembered.
	failureMemory = 5 * time.Second
	// refreshBefore is how long before their end keys are refreshed at the latest. It is
	// longer than EdgeOne accepts a signature.
	refreshBefore = 10 * time.Minute
	// forceInterval is the shortest time between two refreshes because EdgeOne refused the
	// keys. Keys that are refused again right after a refresh have another problem.
	forceInterval = time.Minute
	// fetchTimeout bounds one refresh with all of its steps.
	fetchTimeout = 30 * time.Second
	// failedWait is how long Get waits for a refresh if the one before has failed. If STS does
	// not answer at all, the callers of many roles would otherwise spend their time here.
	failedWait = time.Second
)

// Provider keeps the keys of a role. The first Get fetches them. From then on, a timer
// refreshes them in the background: after 80 % of their lifetime, and at the latest 10
// minutes before their end. If a refresh fails, the old keys stay in use until they
// expire; after that, Get returns an error. It is safe for concurrent use, and holds no
// lock during a call.
type Provider struct {
	ctx     context.Context // of refreshes
	cancel  context.CancelFunc
	fetch   func(context.Context) (Keys, error)
	observe func(expires time.Time, err error)

	mu        sync.Mutex
	keys      Keys
	isRefused bool    // EdgeOne refused the keys, and a refresh is in flight
	flight    *flight // the refresh in progress, if any
	failure   error   // of the last refresh, if it failed
	retryAt   time.Time
	forcedAt  time.Time
	timer     *time.Timer // starts the next refresh; nil before the first one
}

// flight is a refresh that all callers share. keys and err are set before done is closed.
type flight struct {
	done chan struct{}
	keys Keys
	err  error
}

// NewProvider returns a provider whose refreshes end with ctx, or with Stop. fetch gets new keys.
// observe is called after each refresh with the time at which the current keys expire
// (zero if there have never been any) and the error of the refresh.
func NewProvider(ctx context.Context, fetch func(context.Context) (Keys, error), observe func(expires time.Time, err error)) *Provider {
	ctx, cancel := context.WithCancel(ctx)
	return &Provider{ctx: ctx, cancel: cancel, fetch: fetch, observe: observe}
}

// Stop ends all refreshes. A refresh in flight fails. The keys stay valid until they expire.
func (p *Provider) Stop() {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
}

// Get returns the keys. It waits for a refresh only if there are no usable keys, and at
// most until ctx ends, or for failedWait if the last refresh has failed: then it returns
// that failure. The refresh continues.
func (p *Provider) Get(ctx context.Context) (Keys, error) {
	p.mu.Lock()
	now := time.Now()
	if !p.isRefused && p.areValid(now) {
		defer p.mu.Unlock()
		return p.keys, nil
	}
	if p.flight == nil {
		if p.failure != nil && now.Before(p.retryAt) {
			defer p.mu.Unlock()
			return p.result(now)
		}
		p.startRefresh()
	}
	flight, hasFailed := p.flight, p.failure != nil
	p.mu.Unlock()
	if hasFailed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, failedWait)
		defer cancel()
	}
	select {
	case <-flight.done:
		return flight.keys, flight.err
	case <-ctx.Done():
	}
	if !hasFailed {
		return Keys{}, unavailable("", "no answer from STS yet", "", nil)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.result(time.Now())
}

// Refuse reports that EdgeOne does not know a key or its token, although it should be
// valid. If it is the current one, it is refreshed at once, and Get waits for that. If the
// refresh fails, the keys are used again until they expire.
func (p *Provider) Refuse(secretID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.keys.SecretID != secretID || !p.forcedAt.IsZero() && now.Sub(p.forcedAt) < forceInterval {
		return
	}
	p.forcedAt, p.isRefused = now, true
	if p.flight == nil {
		p.startRefresh()
	}
}

// areValid says whether the keys have not expired.
func (p *Provider) areValid(now time.Time) bool { return now.Before(p.keys.Expires) }

// result returns the keys, or why there are none. p.mu is held.
func (p *Provider) result(now time.Time) (Keys, error) {
	var answer *teo.Error
	switch {
	case p.areValid(now):
		return p.keys, nil
	case p.keys.SecretID != "" && errors.As(p.failure, &answer) && answer.Kind != teo.Denied:
		return Keys{}, expired(answer)
	}
	return Keys{}, p.failure
}

// startRefresh starts a refresh. p.mu is held, and no other refresh is in flight.
func (p *Provider) startRefresh() {
	f := &flight{done: make(chan struct{})}
	p.flight = f
	go func() {
		ctx, cancel := context.WithTimeout(p.ctx, fetchTimeout)
		defer cancel()
		keys, err := p.fetch(ctx)
		p.mu.Lock()
		next := p.store(keys, err)
		f.keys, f.err = p.result(time.Now())
		p.flight, p.isRefused = nil, false
		expires := p.keys.Expires
		if p.timer != nil {
			p.timer.Stop()
		}
		if p.ctx.Err() == nil {
			p.timer = time.AfterFunc(next, p.refreshIfDue)
		}
		p.mu.Unlock()
		p.observe(expires, err)
		close(f.done)
	}()
}

// store keeps the result of a refresh, and returns the time until the next one. p.mu is
// held.
func (p *Provider) store(keys Keys, err error) time.Duration {
	now := time.Now()
	if p.failure = err; err == nil {
		p.keys = keys
		p.retryAt = now.Add(refreshAfter(keys.Expires.Sub(now)))
		return p.retryAt.Sub(now)
	}
	memory := failureMemory
	if teo.KindOf(err) != teo.Unavailable { // a refusal, or a token file that a user must correct
		memory = refusalMemory
	}
	p.retryAt = now.Add(memory)
	return memory
}

// refreshAfter returns the age at which keys are refreshed. The keys of a role that limits
// its sessions to some minutes are refreshed in the middle of their lifetime. A metadata
// service may answer with the same keys again, hence the lower bound.
func refreshAfter(lifetime time.Duration) time.Duration {
	return max(min(lifetime*8/10, lifetime-refreshBefore), lifetime/2, failureMemory)
}

// refreshIfDue starts a refresh unless a later one than that of the timer has taken place
// meanwhile, or is in flight.
func (p *Provider) refreshIfDue() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() == nil && p.flight == nil && !time.Now().Before(p.retryAt) {
		p.startRefresh()
	}
}
