// Package sdk compares internal/teo with Tencent's own Go SDK. The SDK is an oracle for
// tests only. It is a dependency of a separate module, so that no part of it can become
// part of the operator.
package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"
	sdk "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/teo/v20220901"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// wire is a transport that stores the last request and returns a fixed response.
type wire struct {
	answer string
	req    *http.Request
	body   []byte
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	w.req, w.body = req, body
	return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(w.answer))}, nil
}

func vendor(t testing.TB, w *wire, creds teo.Credentials, host string) *sdk.Client {
	t.Helper()
	p := profile.NewClientProfile()
	p.HttpProfile.Endpoint = host
	client, err := sdk.NewClient(common.NewTokenCredential(creds.SecretID, creds.SecretKey, creds.Token), "", p)
	if err != nil {
		t.Fatal(err)
	}
	client.WithHttpTransport(w)
	return client
}

func ours(t testing.TB, w *wire, host string) *teo.Client {
	t.Helper()
	client, err := teo.NewClient(teo.Options{Endpoint: "https://" + host, Transport: w, QPS: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

const (
	intl     = "teo.intl.tencentcloudapi.com"
	accepted = `{"Response":{"JobId":"job-1","FailedList":[{"Reason":"no","Targets":["https://h/b"]}],"RequestId":"r-1"}}`
)

// random makes random requests with unusual values.
type random struct{ *rand.Rand }

func (r random) pick(from ...string) string { return from[r.IntN(len(from))] }

func (r random) text(alphabet string, length int) string {
	letters := []rune(alphabet)
	var b strings.Builder
	for range length {
		b.WriteRune(letters[r.IntN(len(letters))])
	}
	return b.String()
}

func (r random) credentials() teo.Credentials {
	const letters = "abcXYZ0189*-_=+/."
	c := teo.Credentials{SecretID: "AKID" + r.text(letters, r.IntN(40)), SecretKey: r.text(letters, 1+r.IntN(90))}
	if r.IntN(2) == 0 {
		c.Token = r.text(letters, 1+r.IntN(900))
	}
	return c
}

func (r random) host() string {
	return r.pick(intl, "teo.tencentcloudapi.com", "teo.ap-guangzhou.tencentcloudapi.com", "10.1.2.3", "a_b.example", "x",
		"xn--fiqs8s.example", r.text("abc0-9", 1+r.IntN(30))+".example") + r.pick("", "", ":8443", ":80", ":1")
}

func (r random) request() teo.CreatePrefetchTaskRequest {
	req := teo.CreatePrefetchTaskRequest{ZoneID: r.pick("zone-1", "*", "zone-中"), Mode: r.pick("", "default", "edge"),
		PrefetchMediaSegments: r.pick("", "on", "off")}
	for range 1 + r.IntN(20) {
		req.Targets = append(req.Targets, "https://h/"+r.text("abc/?&=%<>\"\\'\u2028\t中é😀 ", r.IntN(80)))
	}
	if r.IntN(2) == 0 {
		yes := r.IntN(2) == 0
		req.EncodeURL = &yes
	}
	for range r.IntN(3) {
		req.Headers = append(req.Headers, teo.Header{Name: "X-" + r.text("AbC-", 5), Value: r.text("xyz 中\"", 9)})
	}
	return req
}

// purge returns a random request of a purge.
func (r random) purge() teo.CreatePurgeTaskRequest {
	req := teo.CreatePurgeTaskRequest{ZoneID: r.pick("zone-1", "*", "zone-中"), Method: r.pick("", teo.MethodDelete, teo.MethodInvalidate),
		Type: r.pick(teo.TypePurgeURL, teo.TypePurgePrefix, teo.TypePurgeHost, teo.TypePurgeCacheTag), Targets: r.request().Targets}
	if r.IntN(2) == 0 {
		yes := r.IntN(2) == 0
		req.EncodeURL = &yes
	}
	return req
}

// sender is a request of the vendor's SDK, and the method that sends it.
type sender struct {
	request interface{ FromJsonString(string) error }
	send    func(*sdk.Client) error
}

// senderFor returns a sender for the action of one of our requests.
func senderFor(req teo.CreateRequest) sender {
	if _, ok := req.(teo.CreatePurgeTaskRequest); ok {
		request := sdk.NewCreatePurgeTaskRequest()
		return sender{request, func(c *sdk.Client) error { _, err := c.CreatePurgeTask(request); return err }}
	}
	request := sdk.NewCreatePrefetchTaskRequest()
	return sender{request, func(c *sdk.Client) error { _, err := c.CreatePrefetchTask(request); return err }}
}

// toVendor reads the JSON of one of our requests into the SDK's struct. It fails unless
// the SDK knows every field, because EdgeOne rejects unknown fields.
func toVendor(t testing.TB, body []byte, req interface{ FromJsonString(string) error }) {
	t.Helper()
	if err := req.FromJsonString(string(body)); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	again, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	var before, after any
	if json.Unmarshal(body, &before) != nil || json.Unmarshal(again, &after) != nil || !reflect.DeepEqual(before, after) {
		t.Fatalf("we send\n%s, of which the SDK knows\n%s", body, again)
	}
}

func TestBothSignAlike(t *testing.T) {
	r := random{rand.New(rand.NewPCG(2026, 7))}
	for i := range 400 {
		creds, host := r.credentials(), r.host()
		var req teo.CreateRequest = r.request()
		if i%2 == 1 {
			req = r.purge()
		}
		name := fmt.Sprintf("request %d to %s", i, host)

		// What our client sends ...
		mine := &wire{answer: accepted}
		client := ours(t, mine, host)
		signedAt := time.Unix(r.Int64N(4e9), r.Int64N(1e9))
		if _, err := client.CreateTask(t.Context(), creds, time.Now(), req); err != nil {
			t.Fatal(name, err)
		}
		if mine.req.Host != host || mine.req.URL.Host != host {
			t.Errorf("%s: sent with host %q", name, mine.req.Host)
		}

		// ... the SDK sends as well, and signs as our signer does.
		theirs := &wire{answer: accepted}
		same := senderFor(req)
		toVendor(t, mine.body, same.request)
		if err := same.send(vendor(t, theirs, creds, host)); err != nil {
			t.Fatal(name, err)
		}
		var sent, resent any
		if json.Unmarshal(mine.body, &sent) != nil || json.Unmarshal(theirs.body, &resent) != nil || !reflect.DeepEqual(sent, resent) {
			t.Errorf("%s: we send\n%s, the SDK\n%s", name, mine.body, theirs.body)
		}
		stamp, err := strconv.ParseInt(theirs.req.Header.Get("X-TC-Timestamp"), 10, 64)
		if err != nil {
			t.Fatal(name, err)
		}
		got := teo.Authorization(creds, "teo", []teo.SignedHeader{
			{Name: "content-type", Value: theirs.req.Header.Get("Content-Type")}, {Name: "host", Value: theirs.req.Host},
		}, theirs.body, time.Unix(stamp, signedAt.UnixNano()%1e9))
		if want := theirs.req.Header.Get("Authorization"); got != want {
			t.Errorf("%s: we sign\n%s, the SDK\n%s", name, got, want)
		}
		for _, header := range []string{"X-TC-Action", "X-TC-Version", "X-TC-Token"} {
			if a, b := mine.req.Header.Get(header), theirs.req.Header.Get(header); a != b {
				t.Errorf("%s: %s is %q, the SDK's %q", name, header, a, b)
			}
		}
	}
}

func TestWhatWeSendTheSDKKnows(t *testing.T) {
	w := &wire{answer: `{"Response":{"TotalCount":0,"PrefetchQuota":[{"Type":"prefetch_url","Batch":1,"Daily":1,"DailyAvailable":1}],"RequestId":"r"}}`}
	client := ours(t, w, intl)
	creds := teo.Credentials{SecretID: "a", SecretKey: "b"}
	for name, req := range map[string]teo.ListRequest{
		"a job":    {ZoneID: "zone-1", JobID: "job-1"},
		"a window": {ZoneID: "zone-1", StartTime: time.Unix(0, 0), EndTime: time.Unix(60, 0)},
		"both":     {ZoneID: "*", JobID: "job-1", StartTime: time.Unix(0, 0), EndTime: time.Unix(60, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := client.ListRecords(t.Context(), creds, req); err != nil {
				t.Fatal(err)
			}
			toVendor(t, w.body, sdk.NewDescribePrefetchTasksRequest())
			req.History = teo.PurgeHistory
			if _, err := client.ListRecords(t.Context(), creds, req); err != nil {
				t.Fatal(err)
			}
			toVendor(t, w.body, sdk.NewDescribePurgeTasksRequest())
		})
	}
	if _, err := client.DescribeContentQuota(t.Context(), creds, "zone-1"); err != nil {
		t.Fatal(err)
	}
	toVendor(t, w.body, sdk.NewDescribeContentQuotaRequest())
}

func TestBothReadAnswersAlike(t *testing.T) {
	creds := teo.Credentials{SecretID: "a", SecretKey: "b"}
	t.Run("CreatePrefetchTask", func(t *testing.T) {
		w := &wire{answer: accepted}
		mine, err := ours(t, w, intl).CreateTask(t.Context(), creds, time.Now(),
			teo.CreatePrefetchTaskRequest{Targets: []string{"https://h/b"}})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := vendor(t, w, creds, intl).CreatePrefetchTask(sdk.NewCreatePrefetchTaskRequest())
		if err != nil {
			t.Fatal(err)
		}
		failed := theirs.Response.FailedList[0]
		if mine.JobID != *theirs.Response.JobId || mine.RequestID != *theirs.Response.RequestId || len(mine.Failed) != 1 ||
			mine.Failed[0].Reason != *failed.Reason || !reflect.DeepEqual(mine.Failed[0].Targets, common.StringValues(failed.Targets)) {
			t.Errorf("we read %+v, the SDK %s", mine, theirs.ToJsonString())
		}
	})
	t.Run("DescribePrefetchTasks", func(t *testing.T) {
		w := &wire{answer: `{"Response":{"TotalCount":2,"Tasks":[
			{"JobId":"j","Target":"http://h/中","Type":"prefetch_url","Method":"","Status":"failed","CreateTime":"2026-01-02T03:04:05Z",
			 "UpdateTime":"2026-01-02T03:04:06+08:00","FailType":"originPullFailed","FailMessage":"m"},
			{"JobId":"j2","Target":"http://h/2","Status":"success","CreateTime":"2026-01-02T03:04:05Z",
			 "UpdateTime":"2026-01-02T03:04:05Z"}],"RequestId":"r"}}`}
		mine, err := ours(t, w, intl).ListRecords(t.Context(), creds, teo.ListRequest{ZoneID: "zone-1"})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := vendor(t, w, creds, intl).DescribePrefetchTasks(sdk.NewDescribePrefetchTasksRequest())
		if err != nil {
			t.Fatal(err)
		}
		var want []teo.Record
		for _, task := range theirs.Response.Tasks {
			want = append(want, teo.Record{JobID: value(task.JobId), Type: value(task.Type), Method: value(task.Method),
				Target: value(task.Target), Status: value(task.Status),
				FailType: value(task.FailType), FailMessage: value(task.FailMessage), CreateTime: when(t, task.CreateTime),
				UpdateTime: when(t, task.UpdateTime)})
		}
		if len(mine) != int(*theirs.Response.TotalCount) || !reflect.DeepEqual(mine, want) {
			t.Errorf("we read\n%+v, the SDK\n%+v", mine, want)
		}
	})
	t.Run("CreatePurgeTask", func(t *testing.T) {
		w := &wire{answer: accepted}
		mine, err := ours(t, w, intl).CreateTask(t.Context(), creds, time.Now(),
			teo.CreatePurgeTaskRequest{Type: teo.TypePurgeURL, Targets: []string{"https://h/b"}})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := vendor(t, w, creds, intl).CreatePurgeTask(sdk.NewCreatePurgeTaskRequest())
		if err != nil {
			t.Fatal(err)
		}
		failed := theirs.Response.FailedList[0]
		if mine.JobID != *theirs.Response.JobId || mine.RequestID != *theirs.Response.RequestId || len(mine.Failed) != 1 ||
			mine.Failed[0].Reason != *failed.Reason || !reflect.DeepEqual(mine.Failed[0].Targets, common.StringValues(failed.Targets)) {
			t.Errorf("we read %+v, the SDK %s", mine, theirs.ToJsonString())
		}
	})
	t.Run("DescribePurgeTasks", func(t *testing.T) {
		w := &wire{answer: `{"Response":{"TotalCount":2,"Tasks":[
			{"JobId":"j","Target":"www.example.com","Type":"purge_host","Method":"delete","Status":"failed","CreateTime":"2026-01-02T03:04:05Z",
			 "UpdateTime":"2026-01-02T03:04:06+08:00","FailType":"taskFailed","FailMessage":"m"},
			{"JobId":"j2","Target":"a#b","Type":"purge_cache_tag","Status":"success","CreateTime":"2026-01-02T03:04:05Z",
			 "UpdateTime":"2026-01-02T03:04:05Z"}],"RequestId":"r"}}`}
		mine, err := ours(t, w, intl).ListRecords(t.Context(), creds, teo.ListRequest{History: teo.PurgeHistory, ZoneID: "zone-1"})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := vendor(t, w, creds, intl).DescribePurgeTasks(sdk.NewDescribePurgeTasksRequest())
		if err != nil {
			t.Fatal(err)
		}
		var want []teo.Record
		for _, task := range theirs.Response.Tasks {
			want = append(want, teo.Record{JobID: value(task.JobId), Type: value(task.Type), Method: value(task.Method), Target: value(task.Target),
				Status: value(task.Status), FailType: value(task.FailType), FailMessage: value(task.FailMessage),
				CreateTime: when(t, task.CreateTime), UpdateTime: when(t, task.UpdateTime)})
		}
		if len(mine) != int(*theirs.Response.TotalCount) || !reflect.DeepEqual(mine, want) {
			t.Errorf("we read\n%+v, the SDK\n%+v", mine, want)
		}
	})
	t.Run("DescribeContentQuota", func(t *testing.T) {
		w := &wire{answer: `{"Response":{"PurgeQuota":[{"Type":"purge_url","Batch":1,"Daily":2,"DailyAvailable":3}],
			"PrefetchQuota":[{"Type":"prefetch_url","Batch":2000,"Daily":10000,"DailyAvailable":9876}],"RequestId":"r"}}`}
		mine, err := ours(t, w, intl).DescribeContentQuota(t.Context(), creds, "zone-1")
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := vendor(t, w, creds, intl).DescribeContentQuota(sdk.NewDescribeContentQuotaRequest())
		if err != nil {
			t.Fatal(err)
		}
		quota := theirs.Response.PrefetchQuota[0]
		if want := (teo.Quota{Batch: int(*quota.Batch), Daily: int(*quota.Daily), DailyAvailable: int(*quota.DailyAvailable)}); mine.Prefetch != want {
			t.Errorf("we read %+v, the SDK %+v", mine, want)
		}
		quota = theirs.Response.PurgeQuota[0]
		if want := (teo.Quota{Batch: int(*quota.Batch), Daily: int(*quota.Daily), DailyAvailable: int(*quota.DailyAvailable)}); mine.Purge[*quota.Type] != want {
			t.Errorf("we read %+v, the SDK %+v", mine, want)
		}
	})
	t.Run("an error", func(t *testing.T) {
		w := &wire{answer: `{"Response":{"Error":{"Code":"InvalidParameter.Target","Message":"bad"},"RequestId":"r-9"}}`}
		_, mine := ours(t, w, intl).CreateTask(t.Context(), creds, time.Now(), teo.CreatePrefetchTaskRequest{})
		_, theirs := vendor(t, w, creds, intl).CreatePrefetchTask(sdk.NewCreatePrefetchTaskRequest())
		for _, part := range []string{"InvalidParameter.Target", "bad", "r-9"} {
			if theirs == nil || mine == nil || !strings.Contains(mine.Error(), part) || !strings.Contains(theirs.Error(), part) {
				t.Errorf("%q is missing: %v / %v", part, mine, theirs)
			}
		}
	})
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func when(t *testing.T, s *string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, value(s))
	if err != nil {
		t.Fatal(err)
	}
	return at.UTC()
}

// callers returns functions that make one call with many URLs, with our client and with
// the SDK, but without a network. The SDK cannot only sign.
func callers(t testing.TB, urls int) map[string]func() {
	creds := teo.Credentials{SecretID: "AKIDexample", SecretKey: "key"}
	req := teo.CreatePrefetchTaskRequest{ZoneID: "zone-1"}
	for i := range urls {
		req.Targets = append(req.Targets, fmt.Sprintf("https://www.example.com/some/path/to/file-%d.jpg", i))
	}
	client, theirs := ours(t, &wire{answer: accepted}, intl), vendor(t, &wire{answer: accepted}, creds, intl)
	request := sdk.NewCreatePrefetchTaskRequest()
	request.ZoneId, request.Targets = &req.ZoneID, common.StringPtrs(req.Targets)
	return map[string]func(){
		"ours": func() {
			if _, err := client.CreateTask(context.Background(), creds, time.Now(), req); err != nil {
				t.Fatal(err)
			}
		},
		"SDK": func() {
			if _, err := theirs.CreatePrefetchTask(request); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func TestASignedCallAllocatesLessThanTheSDKs(t *testing.T) {
	for _, urls := range []int{1, 500} {
		call := callers(t, urls)
		ours, theirs := testing.AllocsPerRun(100, call["ours"]), testing.AllocsPerRun(100, call["SDK"])
		t.Logf("a call of %d URLs: ours allocates %.0f times, the SDK's %.0f", urls, ours, theirs)
		if ours >= theirs {
			t.Errorf("a call of %d URLs allocates %.0f times, the SDK's %.0f times", urls, ours, theirs)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	for name, call := range callers(b, 100) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}
