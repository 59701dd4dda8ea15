package simulator

import "time"

// RateWindow is a way to count calls per second.
type RateWindow string

const (
	// SlidingWindow allows Rate calls in any second. It is the strictest way.
	SlidingWindow RateWindow = "sliding"
	// FixedWindow allows Rate calls in each second of the clock.
	FixedWindow RateWindow = "fixed"
	// TokenBucket allows Rate calls at once, and refills evenly at Rate calls per second.
	TokenBucket RateWindow = "bucket"
)

// meterKey is what EdgeOne meters calls by.
type meterKey struct{ account, action string }

// meter counts one account's calls of one action.
type meter struct {
	rate  int
	kind  RateWindow
	spent recent // admitted calls, for a sliding or fixed window

	tokens   float64 // for a token bucket
	refilled time.Time

	arrivals  recent // all calls, for the peak
	total     int
	throttled int
	peak      int
}

// meter returns the meter of the call's account and action. The caller holds s.mu.
func (s *Simulator) meter(c *call) *meter {
	key := meterKey{c.Account, c.Action}
	m := s.meters[key]
	if m == nil {
		rate := s.config.Rate
		if own := actions[c.Action].rate; own != 0 {
			rate = own
		}
		m = &meter{rate: rate, kind: s.config.RateWindow, tokens: float64(rate)}
		s.meters[key] = m
	}
	return m
}

// arrived counts a call, whether it is admitted or not.
func (m *meter) arrived(now time.Time) {
	m.total++
	m.arrivals.forget(now)
	m.arrivals.add(now)
	m.peak = max(m.peak, m.arrivals.len())
}

// admit says whether a call may execute now. Other programs use rivals calls per second
// of the rate. Only admitted calls count.
func (m *meter) admit(now time.Time, rivals int) bool {
	rate := m.rate - rivals
	if m.rate < 0 {
		return true
	}
	if m.kind == TokenBucket {
		if !m.refilled.IsZero() {
			m.tokens += now.Sub(m.refilled).Seconds() * float64(rate)
		}
		m.tokens, m.refilled = min(m.tokens, float64(rate)), now
		if m.tokens < 1 {
			return false
		}
		m.tokens--
		return true
	}
	if m.kind == FixedWindow {
		now = now.Truncate(time.Second) // calls count as made at the start of their second
	}
	m.spent.forget(now)
	if m.spent.len() >= rate {
		return false
	}
	m.spent.add(now)
	return true
}

// recent holds the times of the last second, oldest first.
type recent struct{ times []time.Time }

func (r *recent) add(t time.Time) { r.times = append(r.times, t) }
func (r *recent) len() int        { return len(r.times) }

// forget removes the times that are a second old or older.
func (r *recent) forget(now time.Time) {
	old := 0
	for old < len(r.times) && now.Sub(r.times[old]) >= time.Second {
		old++
	}
	r.times = r.times[old:]
}

// SetRival sets how many calls per second, of each action, other programs use of an
// account's rate.
func (s *Simulator) SetRival(account string, callsPerSecond int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rivals[account] = callsPerSecond
}
