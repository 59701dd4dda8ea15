package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// settings are what a run needs to know.
type settings struct {
	zone, url, endpoint string
	creds               teo.Credentials
	timeout             time.Duration

	// The values of the operator's flags with these names.
	signatureValidity, listingDelay, historyRetention time.Duration

	// The intervals between two reads: until the history shows the job, and until the job
	// ends.
	lookInterval, pollInterval time.Duration
}

var zoneID = regexp.MustCompile(`^zone-[0-9a-z]{1,59}$`)

// parseSettings reads the command line and the environment. Its error is a sentence for
// the user, without the full stop.
func parseSettings(args []string, getenv func(string) string, help io.Writer) (*settings, error) {
	s := &settings{}
	f := flag.NewFlagSet("smoke", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&s.zone, "zone", "", "`zone` of the URL, such as zone-ajj243dwrew")
	f.StringVar(&s.url, "url", "", "the `URL` to prefetch; it costs one URL of the zone's daily quota")
	f.StringVar(&s.endpoint, "endpoint", "", "`URL` of the EdgeOne API (default "+teo.DefaultEndpoint+"; the China site is https://teo.tencentcloudapi.com)")
	f.DurationVar(&s.timeout, "timeout", 10*time.Minute, "how long the whole run may take; EdgeOne may take 30m for one URL")
	f.DurationVar(&s.signatureValidity, "signature-validity", 5*time.Minute, "the operator's flag of this name")
	f.DurationVar(&s.listingDelay, "listing-delay", 20*time.Second, "the operator's flag of this name")
	f.DurationVar(&s.historyRetention, "history-retention", 72*time.Hour, "the operator's flag of this name")
	f.DurationVar(&s.lookInterval, "look-interval", time.Second, "interval between two reads until the history shows the call")
	f.DurationVar(&s.pollInterval, "poll-interval", 5*time.Second, "interval between two reads of the outcome")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(help)
			f.Usage()
		}
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag; see -help", f.Arg(0))
	}
	s.creds = teo.Credentials{
		SecretID: getenv("TENCENTCLOUD_SECRET_ID"), SecretKey: getenv("TENCENTCLOUD_SECRET_KEY"), Token: getenv("TENCENTCLOUD_TOKEN"),
	}
	return s, s.validate()
}

// validate returns what is wrong with the settings, if anything.
func (s *settings) validate() error {
	switch {
	case s.zone == "":
		return errors.New("no zone is set: run make smoke ZONE=zone-… URL=https://…")
	case !zoneID.MatchString(s.zone):
		return fmt.Errorf("the zone %q is not an EdgeOne zone ID such as zone-ajj243dwrew", s.zone)
	case s.url == "":
		return errors.New("no URL is set: run make smoke ZONE=zone-… URL=https://…")
	case target.Check(s.url) != "":
		return fmt.Errorf("the URL %s", target.Check(s.url)) // without the URL, which may contain anything
	case s.creds.SecretID == "" || s.creds.SecretKey == "":
		return errors.New("TENCENTCLOUD_SECRET_ID or TENCENTCLOUD_SECRET_KEY is not set: they are the credentials to call EdgeOne with")
	}
	if err := s.creds.Validate(); err != nil {
		return fmt.Errorf("the keys in TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY and TENCENTCLOUD_TOKEN cannot be used: %s", teo.Message(err))
	}
	for name, d := range map[string]time.Duration{
		"timeout": s.timeout, "signature-validity": s.signatureValidity, "listing-delay": s.listingDelay,
		"history-retention": s.historyRetention, "look-interval": s.lookInterval, "poll-interval": s.pollInterval,
	} {
		if d <= 0 {
			return fmt.Errorf("-%s is %s; it must be more than 0", name, d)
		}
	}
	return nil
}

// shownURL returns the URL without its query, which may have a signature or a token.
func (s *settings) shownURL() string {
	u, err := url.Parse(target.Encode(s.url))
	if err != nil {
		return "the URL"
	}
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	return u.String()
}
