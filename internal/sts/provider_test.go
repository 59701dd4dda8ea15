package sts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// source issues keys with a lifetime. It takes a time for each call, and fails with err if
// it is not nil.
type source struct {
	mu       sync.Mutex
	calls    []time.Time
	lifetime time.Duration
	takes    time.Duration
	err      error
}

func (s *source) fetch(context.Context) (Keys, error) {
	s.mu.Lock()
	s.calls = append(s.calls, time.Now())
	n, takes, lifetime, err := len(s.calls), s.takes, s.lifetime, s.err
	s.mu.Unlock()
	time.Sleep(takes)
	if err != nil {
		return Keys{}, err
	}
	return Keys{teo.Credentials{SecretID: fmt.Sprint("AKID", n), SecretKey: "key", Token: "t", Principal: "role"}, time.Now().Add(lifetime)}, nil
}

func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// providerOf returns a provider of the source, whose timers end with the test.
func providerOf(t *testing.T, s *source) *Provider {
	return NewProvider(t.Context(), s.fetch, func(time.Time, error) {})
}

// mustGet returns the SecretId of the keys. It fails if there are none, or if Get waits.
func mustGet(t *testing.T, p *Provider) string {
	t.Helper()
	start := time.Now()
	keys, err := p.Get(t.Context())
	if err != nil || time.Since(start) > 0 {
		t.Fatalf("after %s: %v", time.Since(start), err)
	}
	return keys.SecretID
}

var errDown = unavailable(ActionAssumeRole, "STS did not answer AssumeRole: timed out", "", nil)

func TestKeysAreRefreshedLongBeforeTheyExpire(t *testing.T) {
	for lifetime, want := range map[time.Duration]time.Duration{
		12 * time.Hour: 576 * time.Minute, 2 * time.Hour: 96 * time.Minute, 50 * time.Minute: 40 * time.Minute,
		30 * time.Minute: 20 * time.Minute, 15 * time.Minute: 450 * time.Second, 4 * time.Minute: 2 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &source{lifetime: lifetime}
			p := providerOf(t, s)
			if id := mustGet(t, p); id != "AKID1" {
				t.Fatal(id)
			}
			s.takes = time.Second
			time.Sleep(want - time.Millisecond)
			if synctest.Wait(); s.count() != 1 {
				t.Fatalf("%s: refreshed before %s", lifetime, want)
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			if id := mustGet(t, p); id != "AKID1" || s.count() != 2 {
				t.Errorf("%s: %s is in use during refresh %d", lifetime, id, s.count())
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if id := mustGet(t, p); id != "AKID2" {
				t.Errorf("%s: %s is in use after the refresh", lifetime, id)
			}
		})
	}
}

func TestAllCallersShareARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: time.Hour, takes: 3 * time.Second}
		p := providerOf(t, s)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if keys, err := p.Get(t.Context()); err != nil || keys.SecretID != "AKID1" {
					t.Errorf("%v", err)
				}
			})
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := p.Get(impatient); teo.KindOf(err) != teo.Unavailable || time.Since(start) != time.Second {
			t.Errorf("a caller with a second of time waited %s: %v", time.Since(start), err)
		}
		wg.Wait()
		if s.count() != 1 {
			t.Errorf("%d refreshes", s.count())
		}
	})
}

func TestARefusalIsRememberedFor30Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: time.Hour, err: &teo.Error{Action: ActionAssumeRole, Kind: teo.Denied, Message: "no", Err: ErrRole}}
		p := providerOf(t, s)
		for range 29 {
			if _, err := p.Get(t.Context()); !teo.DeniedAccount(err) || !errors.Is(err, ErrRole) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if synctest.Wait(); s.count() != 1 {
			t.Errorf("%d calls in 29 s", s.count())
		}
		s.fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if id := mustGet(t, p); id != "AKID2" {
			t.Errorf("%s", id)
		}
	})
}

func TestKeysThatCannotBeRefreshedAreUsedUntilTheyExpireAndNotLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: 30 * time.Minute}
		p := providerOf(t, s)
		mustGet(t, p)
		s.fail(errDown)
		time.Sleep(30*time.Minute - time.Second)
		if id := mustGet(t, p); id != "AKID1" {
			t.Error(id)
		}
		if n := s.count(); n < 60 || n > 125 {
			t.Errorf("%d attempts in the last ten minutes", n)
		}
		time.Sleep(time.Second)
		_, err := p.Get(t.Context())
		if !teo.DeniedAccount(err) || !strings.Contains(teo.Message(err), "expired") || !strings.Contains(teo.Message(err), "timed out") {
			t.Errorf("with expired keys: %v", err)
		}
		s.fail(nil)
		time.Sleep(failureMemory)
		synctest.Wait()
		if id := mustGet(t, p); id == "AKID1" {
			t.Error("the expired keys are in use again")
		}
	})
}

// If STS has never answered, nothing has been refused.
func TestNoAnswerIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := providerOf(t, &source{err: errDown})
		if _, err := p.Get(t.Context()); teo.KindOf(err) != teo.Unavailable {
			t.Error(err)
		}
	})
}

func TestKeysThatEdgeOneRefusesAreRefreshedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: time.Hour}
		p := providerOf(t, s)
		mustGet(t, p)
		s.takes = time.Second
		p.Refuse("AKIDofanother")
		if synctest.Wait(); s.count() != 1 {
			t.Fatal("refreshed because of a key that is not in use")
		}
		for range 20 {
			p.Refuse("AKID1")
		}
		start := time.Now()
		if keys, err := p.Get(t.Context()); err != nil || keys.SecretID != "AKID2" || time.Since(start) != time.Second {
			t.Errorf("%s after %s: %v", keys.SecretID, time.Since(start), err)
		}
		p.Refuse("AKID2")
		if synctest.Wait(); s.count() != 2 {
			t.Error("refreshed again at once")
		}
		time.Sleep(forceInterval)
		s.fail(errDown)
		p.Refuse("AKID2")
		if keys, err := p.Get(t.Context()); err != nil || keys.SecretID != "AKID2" || s.count() != 3 {
			t.Errorf("after a refresh that failed: %s, %v", keys.SecretID, err)
		}
	})
}

func TestTheEndOfTheProcessEndsRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &source{lifetime: time.Hour}
		p := NewProvider(ctx, s.fetch, func(time.Time, error) {})
		mustGet(t, p)
		cancel()
		time.Sleep(50 * time.Minute)
		if id := mustGet(t, p); id != "AKID1" || s.count() != 1 {
			t.Errorf("%s after %d calls", id, s.count())
		}
	})
}

// While STS does not answer, the callers of many roles must not wait, and a status must not
// change its words all the time.
func TestWhileSTSDoesNotAnswerGetSaysSoSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: 2 * time.Hour, takes: 10 * time.Second, err: errDown}
		p := providerOf(t, s)
		firstCall := time.Now()
		for i := range 10 {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := p.Get(ctx)
			cancel()
			took := time.Since(start)
			switch {
			case start.Sub(firstCall) < 10*time.Second:
				if took != 5*time.Second {
					t.Errorf("the first time, it took %s", took)
				}
			case took > time.Second || teo.Message(err) != teo.Message(errDown):
				t.Errorf("%d: after %s, %v", i, took, err)
			}
			time.Sleep(5 * time.Second)
		}
		s.fail(nil)
		time.Sleep(30 * time.Second)
		mustGet(t, p)
	})
}
