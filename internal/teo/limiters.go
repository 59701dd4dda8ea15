package teo

import (
	"crypto/sha256"
	"maps"
	"strings"
	"sync"
	"time"
)

const (
	// forgetAfter is how long the limiters of an unused key are kept.
	forgetAfter = 10 * time.Minute
	// maxUnproved is how many keys that EdgeOne has never accepted may have limiters at
	// the same time, apart from keys in use. Any user can write keys into a Secret, so
	// their number needs a bound.
	maxUnproved = 1000
)

// limiters holds the limiters of all keys that were recently in use.
//
// EdgeOne meters calls by account, and a SecretId identifies an account. But a user can
// write the SecretId of another account into a Secret. At first, limiters are therefore
// shared only by users with the same SecretId and SecretKey. Once EdgeOne has accepted
// several such pairs of one SecretId, these pairs share their limiters as well.
//
// The keys of a role come from STS and not from a user, so all keys of one role share
// their limiters from the start. A refresh keeps them.
type limiters struct {
	limit   int
	observe func(action string, wait time.Duration)

	mu     sync.Mutex
	pairs  map[pair]*accountLimits
	proved map[string]*accountLimits // by principal, of pairs that EdgeOne has accepted
	swept  time.Time                 // when sweep last ran
}

// pair is the hash of a SecretId and a SecretKey, or of the principal of a role's keys.
type pair [sha256.Size]byte

// pairOf returns the hash of both, separated by a zero byte, which no valid key contains.
// A principal follows two of them, so it differs from every pair.
func pairOf(creds Credentials) pair {
	if creds.Principal != "" {
		return sha256.Sum256(append([]byte{0, 0}, creds.Principal...))
	}
	text := append(make([]byte, 0, 2*maxKey+1), creds.SecretID...)
	text = append(text, 0)
	return sha256.Sum256(append(text, creds.SecretKey...))
}

// accountLimits holds the limiters of the keys that count as one account.
type accountLimits struct {
	// since is when the account was first seen. All of its limiters start then, so that
	// the first call waits one second in total and not one second for each action.
	since    time.Time
	used     time.Time // when a limiter was last requested
	byAction map[string]*Limiter
}

// get returns the limiter of keys and an action. A limiter that was forgotten starts like
// a new one.
func (s *limiters) get(creds Credentials, action string) *Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, p := time.Now(), pairOf(creds)
	s.sweep(now)
	account := s.pairs[p]
	if account == nil {
		account = &accountLimits{since: now, byAction: map[string]*Limiter{}}
		s.pairs[p] = account
	}
	account.used = now
	limiter := account.byAction[action]
	if limiter == nil {
		limiter = newLimiter(&s.mu, action, s.limit, account.since)
		limiter.observe = s.observe
		account.byAction[action] = limiter
	}
	return limiter
}

// learn records what an answer of the API shows about the keys of its call. A proved pair
// merges its limiters with those of the other proved pairs of its SecretId.
func (s *limiters) learn(creds Credentials, answer error) {
	if !provesKeys(answer) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := pairOf(creds)
	account, known := s.pairs[p], s.proved[creds.PrincipalName()]
	switch {
	case account == nil || account == known:
	case known == nil:
		s.proved[creds.PrincipalName()] = account
	default:
		for action, limiter := range account.byAction {
			if into := known.byAction[action]; into != nil {
				limiter.merge(into)
			} else {
				known.byAction[action] = limiter
			}
		}
		s.pairs[p] = known
	}
}

// provesKeys says whether an answer of the API comes from behind the gateway, which
// checks signatures. A success does. A refusal does if EdgeOne itself refuses the call,
// or if a permission is missing. Other answers of the gateway, such as throttling, prove
// nothing, because any caller may get them.
func provesKeys(answer error) bool {
	if answer == nil {
		return true
	}
	code := Code(answer)
	kind, zone := lookUpCode(code)
	switch {
	case code == "" || code == codeRequestSize || strings.HasPrefix(code, "AuthFailure"):
		return false
	}
	return kind == Exhausted || kind == Rejected || kind == Denied && zone
}

// sweep removes the limiters that have not been used for a while. A limiter that is idle,
// and was not used for a second, has no state to lose.
func (s *limiters) sweep(now time.Time) {
	crowded := len(s.pairs)-len(s.proved) > maxUnproved
	if now.Sub(s.swept) < forgetAfter/10 && !(crowded && now.Sub(s.swept) >= window) {
		return
	}
	s.swept = now
	proved := make(map[*accountLimits]bool, len(s.proved))
	for _, account := range s.proved {
		proved[account] = true
	}
	forgotten := func(account *accountLimits) bool {
		keep := forgetAfter
		if crowded && !proved[account] {
			keep = 2 * window
		}
		return now.Sub(account.used) >= keep && account.idle(now)
	}
	maps.DeleteFunc(s.pairs, func(_ pair, account *accountLimits) bool { return forgotten(account) })
	maps.DeleteFunc(s.proved, func(_ string, account *accountLimits) bool { return forgotten(account) })
}

// idle says whether all limiters of the account are idle.
func (a *accountLimits) idle(now time.Time) bool {
	for _, limiter := range a.byAction {
		if !limiter.idle(now) {
			return false
		}
	}
	return true
}
