package simulator

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config describes an EdgeOne. The zero value of each field is a sensible default.
type Config struct {
	Zones []Zone `json:"zones,omitempty"`
	Keys  []Key  `json:"keys,omitempty"`
	// Roles and IdentityProviders are what STS knows.
	Roles             []Role             `json:"roles,omitempty"`
	IdentityProviders []IdentityProvider `json:"identityProviders,omitempty"`
	// Rules decide the outcome of each URL; the first match counts. A URL that no rule
	// matches succeeds after JobDuration.
	Rules []Rule `json:"rules,omitempty"`

	// SignatureValidity is the maximum difference between the time of a signature and
	// EdgeOne's clock, in both directions. Default: 5 minutes.
	SignatureValidity time.Duration `json:"signatureValidity,omitempty"`
	// ClockOffset is how far EdgeOne's clock is ahead of the local clock.
	ClockOffset time.Duration `json:"clockOffset,omitempty"`

	// Rate is how many calls of one action an account may make per second.
	// Default: 20; negative: unlimited.
	Rate int `json:"rate,omitempty"`
	// RateWindow is how calls per second are counted. Default: SlidingWindow.
	RateWindow RateWindow `json:"rateWindow,omitempty"`
	// Rivals are other programs that use up the rate of an account: how many calls per
	// second, of each action, by account.
	Rivals map[string]int `json:"rivals,omitempty"`

	// JobDuration is how long a target is processing. Default: 2 s. A negative value
	// finishes it at once. PurgeDuration is the same for targets of purges. Default:
	// JobDuration.
	JobDuration   time.Duration `json:"jobDuration,omitempty"`
	PurgeDuration time.Duration `json:"purgeDuration,omitempty"`
	// ListingDelay is the time from a call until DescribePrefetchTasks or
	// DescribePurgeTasks lists the first target of its job. Each further target of the
	// job appears ListingStep later.
	ListingDelay time.Duration `json:"listingDelay,omitempty"`
	ListingStep  time.Duration `json:"listingStep,omitempty"`
	// MaxWindow is the longest time range that DescribePrefetchTasks accepts. Default:
	// any. This and the next fields hold for DescribePurgeTasks too.
	MaxWindow time.Duration `json:"maxWindow,omitempty"`
	// WildcardLookups lets DescribePrefetchTasks accept ZoneId "*".
	WildcardLookups bool `json:"wildcardLookups,omitempty"`
	// NoFutureWindows makes DescribePrefetchTasks refuse a window that ends after
	// EdgeOne's current time.
	NoFutureWindows bool `json:"noFutureWindows,omitempty"`
	// MaxTotalCount caps the TotalCount that DescribePrefetchTasks returns. Pages beyond
	// it still contain their records. Default: no cap.
	MaxTotalCount int `json:"maxTotalCount,omitempty"`
	// RejectedJobIDs is a regular expression. DescribePrefetchTasks refuses the filter
	// job-id with an ID that it matches. Default: none.
	RejectedJobIDs string `json:"rejectedJobIDs,omitempty"`

	// DateSkew is how far the Date header is ahead of the clock that EdgeOne uses for
	// signatures and executions. CreateTimeSkew is the maximum error of a job's
	// CreateTime against that clock, in both directions; each job has its own error.
	DateSkew       time.Duration `json:"dateSkew,omitempty"`
	CreateTimeSkew time.Duration `json:"createTimeSkew,omitempty"`

	// Traffic are other programs that submit jobs.
	Traffic []Traffic `json:"traffic,omitempty"`

	// QuotaResetAt is the time of day in UTC ("16:00") at which the daily
	// quotas return. Default: only when ResetQuota is called.
	QuotaResetAt string `json:"quotaResetAt,omitempty"`
	// PrefetchKeepsExpired makes prefetches leave copies as they are that have expired. By
	// default, they replace them, as the next visitor does.
	PrefetchKeepsExpired bool `json:"prefetchKeepsExpired,omitempty"`
	// JournalSize is how many events of the cache the Journal holds. Default: 500,000.
	JournalSize int `json:"journalSize,omitempty"`
	// RequireCacheTag makes purges by tag fail without the parameter CacheTag.
	RequireCacheTag bool `json:"requireCacheTag,omitempty"`
	// NoJobIDWhenAllRefused leaves JobId empty if FailedList contains all targets of a
	// call.
	NoJobIDWhenAllRefused bool `json:"noJobIDWhenAllRefused,omitempty"`

	// OnCall is called with each finished call, from the goroutine that serves it.
	OnCall func(Call) `json:"-"`
}

// Zone is a site of an account.
type Zone struct {
	ID      string `json:"id"`
	Account string `json:"account"`
	// Domains are the hosts of the zone. "*.example.com" covers every host below
	// example.com, but not example.com itself.
	Domains []string `json:"domains"`

	// Batch is the maximum number of targets in a call (default 2000). Daily is the quota
	// of URLs per day (default 10000). EdgeDaily is the separate quota for mode edge
	// (default 1000). A negative value means a quota of 0.
	Batch     int `json:"batch,omitempty"`
	Daily     int `json:"daily,omitempty"`
	EdgeDaily int `json:"edgeDaily,omitempty"`
	// Purge are the limits for the types of purges: purge_url, purge_prefix, purge_host,
	// purge_all and purge_cache_tag.
	Purge map[string]Limits `json:"purge,omitempty"`
	// NullQuota makes DescribeContentQuota return null for this zone.
	NullQuota bool `json:"nullQuota,omitempty"`

	// EdgeMode and MediaSegments allow features that Tencent enables for individual
	// customers.
	EdgeMode      bool `json:"edgeMode,omitempty"`
	MediaSegments bool `json:"mediaSegments,omitempty"`
}

// Limits are the limits of a zone for one type of purge.
type Limits struct {
	// Batch is the maximum number of targets in a call. Daily is the quota of targets per
	// day. The defaults depend on the type: 2000 and 10000 for URLs, 200 and 1000 for
	// prefixes and hosts, 100 and 1000 for tags, 1 and 100 for purge_all. A negative value
	// means 0.
	Batch int `json:"batch,omitempty"`
	Daily int `json:"daily,omitempty"`
	// NotAllowed makes EdgeOne refuse the type, because the plan of the zone does not have
	// it. Unlisted leaves the type out of DescribeContentQuota.
	NotAllowed bool `json:"notAllowed,omitempty"`
	Unlisted   bool `json:"unlisted,omitempty"`
}

// Key is an API key. Several keys may belong to one account. EdgeOne meters rates by
// account, and zones belong to accounts.
type Key struct {
	SecretID  string `json:"secretID"`
	SecretKey string `json:"secretKey"`
	// Token is the session token that calls with a temporary key must carry.
	Token    string `json:"token,omitempty"`
	Account  string `json:"account"`
	Disabled bool   `json:"disabled,omitempty"`
	// Actions, Zones and Modes are what the key may use. Default: all actions, zones and
	// modes of its account.
	Actions []string `json:"actions,omitempty"`
	Zones   []string `json:"zones,omitempty"`
	Modes   []string `json:"modes,omitempty"`
	// Role and Expires are set for keys that STS has issued.
	Role    string    `json:"role,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

func (k Key) mayCall(action string) bool {
	return k.Actions == nil || slices.Contains(k.Actions, action)
}
func (k Key) mayUse(zone string) bool  { return k.Zones == nil || slices.Contains(k.Zones, zone) }
func (k Key) maySend(mode string) bool { return k.Modes == nil || slices.Contains(k.Modes, mode) }

// setDefaults sets the defaults that are not zero values.
func (c *Config) setDefaults() {
	setDefault(&c.SignatureValidity, 5*time.Minute)
	setDefault(&c.JobDuration, 2*time.Second)
	setDefault(&c.PurgeDuration, c.JobDuration)
	setDefault(&c.JournalSize, 500_000)
	setDefault(&c.Rate, 20)
	setDefault(&c.RateWindow, SlidingWindow)
}

// setDefault replaces a zero value.
func setDefault[T comparable](value *T, byDefault T) {
	var zero T
	if *value == zero {
		*value = byDefault
	}
}

// Validate returns an error that says what is wrong with c, or nil.
func (c Config) Validate() error {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	seen := map[string]bool{}
	for _, z := range c.Zones {
		if err := z.validate(); err != nil {
			wrong = append(wrong, err)
		} else if seen[z.ID] {
			complain("the zone %s is there twice", z.ID)
		}
		seen[z.ID] = true
	}
	for _, k := range c.Keys {
		if err := k.validate(); err != nil {
			wrong = append(wrong, err)
		} else if seen[k.SecretID] {
			complain("the key %s is there twice", k.SecretID)
		}
		seen[k.SecretID] = true
	}
	if c.QuotaResetAt != "" {
		if _, err := time.Parse("15:04", c.QuotaResetAt); err != nil {
			complain("quotaResetAt is %q, not a time of day such as 16:00", c.QuotaResetAt)
		}
	}
	if _, err := regexp.Compile(c.RejectedJobIDs); err != nil {
		complain("rejectedJobIDs: %v", err)
	}
	for _, traffic := range c.Traffic {
		if err := traffic.validate(); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := validateRules(c.Rules); err != nil {
		wrong = append(wrong, err)
	}
	switch c.RateWindow {
	case "", SlidingWindow, FixedWindow, TokenBucket:
	default:
		complain("rateWindow is %q, not one of %s, %s, %s", c.RateWindow, SlidingWindow, FixedWindow, TokenBucket)
	}
	return errors.Join(append(wrong, c.validateRoles())...)
}

func (z Zone) validate() error {
	if z.ID == "" || z.ID == "*" || z.Account == "" {
		return fmt.Errorf("a zone needs an id and an account: %+v", z)
	}
	for purgeType := range z.Purge {
		if !slices.Contains(purgeTypes, purgeType) {
			return fmt.Errorf("the zone %s has limits for %q, not for one of %s", z.ID, purgeType, strings.Join(purgeTypes, ", "))
		}
	}
	return nil
}

func (k Key) validate() error {
	if k.SecretID == "" || k.SecretKey == "" || k.Account == "" {
		return fmt.Errorf("the key %q needs a secretID, a secretKey and an account", k.SecretID)
	}
	return nil
}

// DemoConfig is the built-in configuration of the simulator command, as JSON.
//
//go:embed demo.json
var DemoConfig []byte

// Demo returns the built-in configuration of the simulator command.
func Demo() Config {
	c, err := ReadConfig(bytes.NewReader(DemoConfig))
	if err != nil {
		panic("simulator: demo.json: " + err.Error())
	}
	return c
}

// ReadConfig reads and validates a Config from JSON. Durations are texts such as "2s".
// Unknown fields are an error.
func ReadConfig(r io.Reader) (Config, error) {
	var c Config
	if err := readJSON(r, &c); err != nil {
		return Config{}, err
	}
	return c, c.Validate()
}

// durations are the names of all JSON fields that hold a time.Duration.
var durations = []string{
	"signatureValidity", "clockOffset", "jobDuration", "purgeDuration", "listingDelay", "listingStep",
	"maxWindow", "duration", "delay", "serverDelay", "answerDelay",
	"cacheDelay", "dateSkew", "createTimeSkew", "every", "lifetime",
}

// readJSON reads exactly one JSON value into v, with durations as texts. Unknown fields
// are an error.
func readJSON(r io.Reader, v any) error {
	var raw any
	decoder := json.NewDecoder(r)
	decoder.UseNumber()
	if err := decoder.Decode(&raw); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("there is something after the end of the JSON value")
	}
	if err := parseDurations(raw); err != nil {
		return err
	}
	plain, err := json.Marshal(raw)
	if err != nil {
		return err
	}
	decoder = json.NewDecoder(bytes.NewReader(plain))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// parseDurations replaces the texts of duration fields with their nanoseconds.
func parseDurations(value any) error {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			if err := parseDurations(item); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			text, isText := value[name].(string)
			if !isText || !slices.Contains(durations, name) {
				if err := parseDurations(value[name]); err != nil {
					return err
				}
				continue
			}
			d, err := time.ParseDuration(text)
			if err != nil {
				return fmt.Errorf("%s is %q, not a duration such as 2s or 5m", name, text)
			}
			value[name] = d
		}
	}
	return nil
}
