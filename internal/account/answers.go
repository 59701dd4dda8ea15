package account

import (
	"sync"
	"time"
)

// Answers holds the last thing that EdgeOne or STS said about the credentials of each
// account. It is safe for concurrent use.
type Answers struct {
	mu      sync.Mutex
	last    map[string]Answer
	changed []func(account string) // called without mu
}

// Answer is what EdgeOne or STS said about credentials.
type Answer struct {
	Principal string // who EdgeOne meters
	Err       error  // nil: EdgeOne accepted the credentials
	At        time.Time
}

// NewAnswers returns an Answers that knows nothing.
func NewAnswers() *Answers { return &Answers{last: map[string]Answer{}} }

// Subscribe calls f when an answer is another one than before. Call Subscribe before the
// first RecordAnswer.
func (a *Answers) Subscribe(f func(account string)) { a.changed = append(a.changed, f) }

// RecordAnswer takes an answer about the credentials of an account. Answers that say nothing about
// them must not be recorded.
func (a *Answers) RecordAnswer(account, principal string, err error) {
	a.mu.Lock()
	known, ok := a.last[account]
	a.last[account] = Answer{principal, err, time.Now()}
	a.mu.Unlock()
	if ok && known.Principal == principal && (known.Err == nil) == (err == nil) && (err == nil || known.Err.Error() == err.Error()) {
		return
	}
	for _, f := range a.changed {
		f(account)
	}
}

// LastAnswer returns the last answer about an account.
func (a *Answers) LastAnswer(account string) (answer Answer, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer, ok = a.last[account]
	return answer, ok
}

// ForgetAnswer forgets what is known of an account, because its credentials changed or it is gone.
func (a *Answers) ForgetAnswer(account string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.last, account)
}
