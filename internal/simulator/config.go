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

// Config describes an EdgeOne. Every zero value is a sensible one.
type Config struct {
	Zones []Zone `json:"zones,omitempty"`
	Keys  []Key  `json:"keys,omitempty"`
	// Rules say what becomes of a URL; the first that matches decides. A URL
	// that none matches succeeds after JobDuration.
	Rules []Rule `json:"rules,omitempty"`

	// SignatureValidity is how far a signature's time may be from EdgeOne's
	// clock, either way. Default: 5 minutes.
	SignatureValidity time.Duration `json:"signatureValidity,omitempty"`
	// ClockOffset is how far EdgeOne's clock is ahead of ours.
	ClockOffset time.Duration `json:"clockOffset,omitempty"`

	// Rate is how many calls of one action an account may make per second.
	// Default: 20; negative: unlimited.
	Rate int `json:"rate,omitempty"`
	// RateWindow is how they are counted. Default: SlidingWindow.
	RateWindow RateWindow `json:"rateWindow,omitempty"`
	// Rivals are other programs on an account: how many calls of each action
	// per second they use up, by account.
	Rivals map[string]int `json:"rivals,omitempty"`

	// JobDuration is how long a target is processing. Default: 2 s;
	// negative: it is finished at once.
	JobDuration time.Duration `json:"jobDuration,omitempty"`
	// ListingDelay is how long after the call a job's records appear in
	// DescribePrefetchTasks. ListingStep is how much later each further URL
	// of the job does.
	ListingDelay time.Duration `json:"listingDelay,omitempty"`
	ListingStep  time.Duration `json:"listingStep,omitempty"`
	// MaxWindow is the longest time range DescribePrefetchTasks accepts.
	// Default: any.
	MaxWindow time.Duration `json:"maxWindow,omitempty"`
	// WildcardLookups lets DescribePrefetchTasks accept ZoneId "*".
	WildcardLookups bool `json:"wildcardLookups,omitempty"`
	// NoFutureWindows makes DescribePrefetchTasks refuse a window that ends
	// after EdgeOne's time.
	NoFutureWindows bool `json:"noFutureWindows,omitempty"`
	// MaxTotalCount caps the TotalCount that DescribePrefetchTasks answers.
	// Pages beyond it still hold their records. Default: no cap.
	MaxTotalCount int `json:"maxTotalCount,omitempty"`
	// RejectedJobIDs is a regular expression. DescribePrefetchTasks refuses the
	// filter job-id for IDs that it matches. Default: none.
	RejectedJobIDs string `json:"rejectedJobIDs,omitempty"`

	// DateSkew is how far the Date header is ahead of the clock by which EdgeOne
	// checks signatures and executes. CreateTimeSkew is how far a job's
	// CreateTime may be off that clock, either way; each job has its own error.
	DateSkew       time.Duration `json:"dateSkew,omitempty"`
	CreateTimeSkew time.Duration `json:"createTimeSkew,omitempty"`

	// Traffic is what other programs submit.
	Traffic []Traffic `json:"traffic,omitempty"`

	// QuotaResetAt is the time of day in UTC ("16:00") at which the daily
	// quotas return. Default: only when ResetQuota is called.
	QuotaResetAt string `json:"quotaResetAt,omitempty"`
	// NoJobIDWhenAllRefused leaves JobId empty when FailedList holds every
	// target of a call.
	NoJobIDWhenAllRefused bool `json:"noJobIDWhenAllRefused,omitempty"`

	// OnCall is called with every finished call, from the goroutine that
	// serves it.
	OnCall func(Call) `json:"-"`
}

// Zone is a site of an account.
type Zone struct {
	ID      string `json:"id"`
	Account string `json:"account"`
	// Domains are the hosts it serves; "*.example.com" covers every host
	// below example.com, not example.com itself.
	Domains []string `json:"domains"`

	// Batch is how many targets a call may carry (default 2000), Daily how
	// many URLs a day (default 10000), EdgeDaily how many of them to the edge
	// (default 1000, counted on its own). Negative: none.
	Batch     int `json:"batch,omitempty"`
	Daily     int `json:"daily,omitempty"`
	EdgeDaily int `json:"edgeDaily,omitempty"`
	// NullQuota makes DescribeContentQuota answer null for this zone.
	NullQuota bool `json:"nullQuota,omitempty"`

	// EdgeMode and MediaSegments allow what Tencent enables per customer.
	EdgeMode      bool `json:"edgeMode,omitempty"`
	MediaSegments bool `json:"mediaSegments,omitempty"`
}

// Key is an API key. Several keys may belong to one account, which is what
// rates are metered by and zones belong to.
type Key struct {
	SecretID  string `json:"secretID"`
	SecretKey string `json:"secretKey"`
	// Token is the session token that calls with a temporary key must carry.
	Token    string `json:"token,omitempty"`
	Account  string `json:"account"`
	Disabled bool   `json:"disabled,omitempty"`
	// Actions, Zones and Modes are what the key may call, touch and submit;
	// nil: all of its account.
	Actions []string `json:"actions,omitempty"`
	Zones   []string `json:"zones,omitempty"`
	Modes   []string `json:"modes,omitempty"`
}

func (k Key) mayCall(action string) bool {
	return k.Actions == nil || slices.Contains(k.Actions, action)
}
func (k Key) mayUse(zone string) bool  { return k.Zones == nil || slices.Contains(k.Zones, zone) }
func (k Key) maySend(mode string) bool { return k.Modes == nil || slices.Contains(k.Modes, mode) }

// Never as the status of a Rule keeps a target processing for ever.
const Never = "never"

// Rule says what becomes of the URLs that contain a text. Message, Refuse and
// FailMessage may echo the call's secrets: see [Effect].
type Rule struct {
	// URL is the text; empty: every URL.
	URL string `json:"url,omitempty"`
	// Code and Message are an error that answers every call with the URL, and
	// Executed says that EdgeOne executes the call all the same.
	Code     string `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
	Executed bool   `json:"executed,omitempty"`
	// Refuse is the reason for which the URL goes into FailedList instead of
	// the job.
	Refuse string `json:"refuse,omitempty"`
	// Status is how it ends (default: success). Never: it does not. EdgeOne's
	// own are success, failed, timeout, canceled and invalid.
	Status      string `json:"status,omitempty"`
	FailType    string `json:"failType,omitempty"`
	FailMessage string `json:"failMessage,omitempty"`
	// Duration and ListingDelay override those of the Config.
	Duration     time.Duration `json:"duration,omitempty"`
	ListingDelay time.Duration `json:"listingDelay,omitempty"`
	// Segments is how many media segments the URL, a manifest, lists. They
	// use up daily quota when a call asks for them, as far as there is any.
	Segments int `json:"segments,omitempty"`
}

func (c *Config) setDefaults() {
	setDefault(&c.SignatureValidity, 5*time.Minute)
	setDefault(&c.JobDuration, 2*time.Second)
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

// Validate says what is wrong with c, if anything.
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
	switch c.RateWindow {
	case "", SlidingWindow, FixedWindow, TokenBucket:
	default:
		complain("rateWindow is %q, not one of %s, %s, %s", c.RateWindow, SlidingWindow, FixedWindow, TokenBucket)
	}
	return errors.Join(wrong...)
}

func (z Zone) validate() error {
	if z.ID == "" || z.ID == "*" || z.Account == "" {
		return fmt.Errorf("a zone needs an id and an account: %+v", z)
	}
	return nil
}

func (k Key) validate() error {
	if k.SecretID == "" || k.SecretKey == "" || k.Account == "" {
		return fmt.Errorf("the key %q needs a secretID, a secretKey and an account", k.SecretID)
	}
	return nil
}

// DemoConfig is the configuration that the simulator command has built in, as
// JSON.
//
//go:embed demo.json
var DemoConfig []byte

// Demo returns the configuration that the simulator command has built in.
func Demo() Config {
	c, err := ReadConfig(bytes.NewReader(DemoConfig))
	if err != nil {
		panic("simulator: demo.json: " + err.Error())
	}
	return c
}

// ReadConfig reads a Config from JSON. Durations are texts such as "2s";
// fields that it does not know are an error.
func ReadConfig(r io.Reader) (Config, error) {
	var c Config
	if err := readJSON(r, &c); err != nil {
		return Config{}, err
	}
	return c, c.Validate()
}

// durations are the fields that hold a time.Duration, wherever they occur.
var durations = []string{
	"signatureValidity", "clockOffset", "jobDuration", "listingDelay", "listingStep",
	"maxWindow", "duration", "delay", "serverDelay", "answerDelay",
	"dateSkew", "createTimeSkew", "every",
}

// readJSON reads one JSON value into v, strictly, with durations as texts.
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

// parseDurations replaces texts such as "2s" by their nanoseconds.
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
