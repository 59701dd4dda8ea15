package simulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const exampleZone = "zone-2x9examplea"

// caller is a client written from the description of the API, and not from the
// simulator's code. Its fields can be changed to make wrong requests.
type caller struct {
	t                    *testing.T
	http                 *http.Client
	url                  string
	secretID, key, token string
	version, scope       string
	contentType          string
	signed               []string // header names
	signedAt             func() time.Time
	tamper               func(*http.Request)
}

// inMemory returns a caller of the demo account that reaches the simulator in memory.
func inMemory(t *testing.T, s *Simulator) caller {
	return caller{
		t: t, http: &http.Client{Transport: s.RoundTripper()}, url: "http://teo.intl.tencentcloudapi.com/",
		secretID: "AKIDdemo", key: "demo-secret-key", version: "2022-09-01", scope: "teo",
		contentType: "application/json; charset=utf-8", signed: []string{"content-type", "host", "x-tc-action"},
		signedAt: time.Now, tamper: func(*http.Request) {},
	}
}

// overHTTP returns a caller of the demo account that uses a real connection for each
// call.
func overHTTP(t *testing.T, url string) caller {
	c := inMemory(t, nil)
	c.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	c.url = url + "/"
	return c
}

// reply is the result of a call: err, or an HTTP answer.
type reply struct {
	err    error
	status int
	line   string // the status with its text
	header http.Header
	body   string
	code   string // of the Error in the answer
	JobID  string `json:"JobId"`

	FailedList    []failReason
	TotalCount    int
	Tasks         []task
	PurgeQuota    []quota
	PrefetchQuota []quota
	RequestID     string `json:"RequestId"`
}

type params map[string]any

func (c caller) call(action string, in any) reply {
	return c.callWith(context.Background(), action, in)
}

func (c caller) callWith(ctx context.Context, action string, in any) reply {
	c.t.Helper()
	body, isRaw := in.(string)
	if !isRaw {
		encoded, err := json.Marshal(in)
		if err != nil {
			c.t.Fatal(err)
		}
		body = string(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	at := c.signedAt()
	req.Header.Set("Content-Type", c.contentType)
	req.Header.Set("X-TC-Action", action)
	req.Header.Set("X-TC-Version", c.version)
	req.Header.Set("X-TC-Timestamp", fmt.Sprint(at.Unix()))
	if c.token != "" {
		req.Header.Set("X-TC-Token", c.token)
	}
	req.Header.Set("Authorization", c.authorization(req, body, at))
	c.tamper(req)
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{err: err}
	}
	r := reply{status: resp.StatusCode, line: resp.Status, header: resp.Header, body: string(raw)}
	envelope := struct {
		Response struct {
			Error struct{ Code string }
			*reply
		}
	}{}
	envelope.Response.reply = &r
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&envelope); err == nil {
		r.code = envelope.Response.Error.Code
	}
	return r
}

// authorization follows https://cloud.tencent.com/document/api/1552/80706.
func (c caller) authorization(req *http.Request, body string, at time.Time) string {
	hash := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	mac := func(key, text string) string {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(text))
		return string(h.Sum(nil))
	}
	canonical := "POST\n/\n\n"
	for _, name := range c.signed {
		value := req.Header.Get(name)
		if name == "host" {
			value = req.Host
		}
		canonical += name + ":" + strings.ToLower(value) + "\n"
	}
	names := strings.Join(c.signed, ";")
	canonical += "\n" + names + "\n" + hash(body)
	day := at.UTC().Format("2006-01-02")
	scope := day + "/" + c.scope + "/tc3_request"
	toSign := fmt.Sprintf("TC3-HMAC-SHA256\n%d\n%s\n%s", at.Unix(), scope, hash(canonical))
	key := mac(mac(mac("TC3"+c.key, day), c.scope), "tc3_request")
	return fmt.Sprintf("TC3-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		c.secretID, scope, names, hex.EncodeToString([]byte(mac(key, toSign))))
}

// create submits URLs of the example zone.
func (c caller) create(paths ...string) reply {
	return c.call("CreatePrefetchTask", params{"ZoneId": exampleZone, "Targets": example(paths...)})
}

// hand hands over URLs of the example zone with an action that creates a job.
func (c caller) hand(ctx context.Context, action string, paths ...string) reply {
	in := params{"ZoneId": exampleZone, "Targets": example(paths...)}
	if action == createPurge {
		in["Type"] = purgeURL
	}
	return c.callWith(ctx, action, in)
}

// executed returns how often an action was executed for a URL of the example zone.
func executed(s *Simulator, action, path string) int {
	url := example(path)[0]
	if action == createPurge {
		return s.Purged(url)
	}
	return s.Executed(url)
}

// forBothActions runs a test for the two actions that create jobs.
func forBothActions(t *testing.T, test func(t *testing.T, action string)) {
	for _, action := range []string{createPrefetch, createPurge} {
		t.Run(action, func(t *testing.T) { test(t, action) })
	}
}

// job looks up a prefetch of the example zone.
func (c caller) job(id string) reply { return c.jobOf(createPrefetch, id) }

// jobOf looks up a job of the example zone in the history of an action.
func (c caller) jobOf(action, id string) reply {
	describe := map[string]string{createPrefetch: "DescribePrefetchTasks", createPurge: "DescribePurgeTasks"}[action]
	return c.call(describe, params{
		"ZoneId": exampleZone, "Limit": 1000,
		"Filters": []params{{"Name": "job-id", "Values": []string{id}}},
	})
}

// quota returns what is left of a zone's daily quota.
func (c caller) quota(zone string) int {
	r := c.call("DescribeContentQuota", params{"ZoneId": zone})
	if len(r.PrefetchQuota) != 1 {
		c.t.Fatalf("DescribeContentQuota says %s", r.body)
	}
	return r.PrefetchQuota[0].DailyAvailable
}

func example(paths ...string) []string {
	urls := make([]string, 0, len(paths))
	for _, p := range paths {
		urls = append(urls, "https://www.example.com/"+p)
	}
	return urls
}

// paths returns n different paths.
func paths(n int) []string {
	out := make([]string, 0, n)
	for i := range n {
		out = append(out, fmt.Sprintf("%05d", i))
	}
	return out
}

// expect fails the test if got is not want; what describes the value.
func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
