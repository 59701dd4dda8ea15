package teo

import (
	"crypto/sha256"
	"maps"
	"strings"
	"sync"
	"time"
)

const (
	// forgetAfter is how long a key's limiters are kept while nobody uses them.
	forgetAfter = 10 * time.Minute
	// maxUnproved is how many keys that EdgeOne has never accepted have limiters
	// at a time, apart from those that are in use: anybody can write keys into a
	// Secret.
	maxUnproved = 1000
)

// limiters are the limiters of all keys that have been in use lately.
//
// EdgeOne meters calls by account, and a SecretId names one. But anybody can write
// another's SecretId into a Secret. So what shares limiters is at first a SecretId
// together with its key, and then all such pairs of one SecretId that EdgeOne has
// accepted.
type limiters struct {
	limit   int
	observe func(action string, wait time.Duration)

	mu     sync.Mutex
	pairs  map[pair]*accountLimits
	proved map[string]*accountLimits // by SecretId, of pairs that EdgeOne has accepted
	swept  time.Time
}

// pair is the hash of a SecretId and a SecretKey.
type pair [sha256.Size]byte

func pairOf(creds Credentials) pair {
	text := append(make([]byte, 0, 2*maxKey+1), creds.SecretID...)
	text = append(text, 0)
	return sha256.Sum256(append(text, creds.SecretKey...))
}

// accountLimits are the limiters of what counts as one account.
type accountLimits struct {
	// since is when the account was first seen. All of its limiters begin then, so
	// that the first call waits one second for them and not one for each action.
	since    time.Time
	used     time.Time
	byAction map[string]*Limiter
}

// get returns the limiter of keys and an action. One that was forgotten begins
// like a new one.
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

// learn notes what an answer of the API says about the keys of its call.
func (s *limiters) learn(creds Credentials, answer error) {
	if !provesKeys(answer) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := pairOf(creds)
	account, known := s.pairs[p], s.proved[creds.SecretID]
	switch {
	case account == nil || account == known:
	case known == nil:
		s.proved[creds.SecretID] = account
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

// provesKeys says whether an answer of the API comes from behind the gateway that
// checks signatures: a success does, and so does a refusal in the words of EdgeOne
// itself or for a lack of permission. What the gateway says, that there are too many
// calls, say, it may say to anybody.
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

// sweep forgets what nobody has used for a while. What was not used for a second, and
// is not in use, has nothing to remember.
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

func (a *accountLimits) idle(now time.Time) bool {
	for _, limiter := range a.byAction {
		if !limiter.idle(now) {
			return false
		}
	}
	return true
}
