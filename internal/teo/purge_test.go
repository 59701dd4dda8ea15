package teo

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

func purge(t *testing.T, c *Client, jobType string, targets ...string) (CreateResponse, error) {
	t.Helper()
	return c.CreateTask(t.Context(), testCreds, c.ServerTime(), CreatePurgeTaskRequest{ZoneID: "zone-1", Type: jobType, Targets: targets})
}

// An answer without a job is complete only if EdgeOne refused every target that was sent,
// whatever spelling of it the answer has.
func TestAPurgeWithoutAJobNeedsEveryTargetRefused(t *testing.T) {
	for _, tt := range []struct {
		jobType, sent, listed string
		same                  bool
	}{
		{TypePurgeURL, "https://H:443/ü?x", "https://h/%C3%BC?x", true},
		{TypePurgeURL, "https://h/a", "https://h/A", false},
		{TypePurgePrefix, "https://h/a%2fb/", "HTTPS://h/a%2Fb/", true},
		{TypePurgePrefix, "https://h/a/", "https://h/a", false},
		{TypePurgeHost, "www.Example.com", "WWW.example.com", true},
		{TypePurgeHost, "例え.jp", "xn--r8jz45g.jp", true},
		{TypePurgeHost, "example.com", "www.example.com", false},
		{TypePurgeHost, "example.com", "https://example.com/", false},
		{TypePurgeCacheTag, "a#b%2f", "a#b%2f", true},
		{TypePurgeCacheTag, "a#b", "a", false},
		{TypePurgeCacheTag, "a%2f", "a%2F", false},
		{TypePurgeCacheTag, "News", "news", false},
	} {
		t.Run(fmt.Sprintf("%s of %s, and %s is refused", tt.jobType, tt.sent, tt.listed), func(t *testing.T) {
			body, err := encode(map[string]any{"Response": map[string]any{
				"RequestId": "r", "FailedList": []map[string]any{{"Reason": "no", "Targets": []string{tt.listed}}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := purge(t, clientOf(t, Options{Transport: answering(200, string(body))}), tt.jobType, tt.sent)
			if tt.same && (err != nil || len(got.Failed) != 1) || !tt.same && KindOf(err) != Ambiguous {
				t.Errorf("%+v, %v", got, err)
			}
			if record := (Record{Type: tt.jobType, Target: tt.listed}); tt.same != (record.Identity() == Record{Type: tt.jobType, Target: tt.sent}.Identity()) {
				t.Errorf("records differ: %q", record.Identity())
			}
		})
	}
}

func TestAWholeZoneIsNeverPurged(t *testing.T) {
	for _, jobType := range []string{"purge_all", "", "purge_URL", TypePrefetchURL} {
		c := clientOf(t, Options{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			t.Errorf("a purge of type %q was sent", jobType)
			return nil, io.EOF
		})})
		if _, err := purge(t, c, jobType, "https://h/a"); KindOf(err) != Rejected || Code(err) != "" {
			t.Errorf("%q: %v", jobType, err)
		}
	}
}

// What applies to calls of prefetches applies to those of purges.
func TestAPurgeIsSentOnceAndItsOutcomeMayBeUnknown(t *testing.T) {
	t.Run("a lost answer", func(t *testing.T) {
		var calls []Call
		c := clientOf(t, Options{Observe: func(call Call) { calls = append(calls, call) }, Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, req.Body)
			return nil, io.EOF
		})})
		if _, err := purge(t, c, TypePurgeURL, "https://h/a"); KindOf(err) != Ambiguous || len(calls) != 1 || calls[0].Action != "CreatePurgeTask" {
			t.Errorf("%v, %+v", err, calls)
		}
	})
	t.Run("trouble behind the gateway", func(t *testing.T) {
		c := clientOf(t, Options{Transport: answering(200, `{"Response":{"Error":{"Code":"InternalError.ProxyServer","Message":"m"},"RequestId":"r"}}`)})
		if _, err := purge(t, c, TypePurgeURL, "https://h/a"); KindOf(err) != Ambiguous {
			t.Error(err)
		}
	})
	t.Run("a plan that lacks the type", func(t *testing.T) {
		c := clientOf(t, Options{Transport: answering(200, `{"Response":{"Error":{"Code":"LimitExceeded.PackNotAllow","Message":"m"},"RequestId":"r"}}`)})
		if _, err := purge(t, c, TypePurgeHost, "h"); KindOf(err) != Denied || !IsPlanLacking(err) || DeniedAccount(err) || IsBatchQuota(err) {
			t.Error(err)
		}
	})
	t.Run("an old signature", func(t *testing.T) {
		c := clientOf(t, Options{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			t.Error("sent")
			return nil, io.EOF
		})})
		_, err := c.CreateTask(t.Context(), testCreds, time.Now().Add(-time.Hour), CreatePurgeTaskRequest{ZoneID: "zone-1", Type: TypePurgeURL})
		if e := (*Error)(nil); !errors.Is(err, ErrTooOld) || !errors.As(err, &e) || e.Action != ActionCreatePurgeTask {
			t.Error(err)
		}
	})
}

func TestEachHistoryIsReadByItsAction(t *testing.T) {
	for history, action := range map[History]string{PrefetchHistory: "DescribePrefetchTasks", PurgeHistory: "DescribePurgeTasks"} {
		t.Run(action, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := recordedPurges()
				waits := map[string]int{}
				c := clientOf(t, Options{Transport: h, QPS: 1, ObserveWait: func(action string, _ time.Duration) { waits[action]++ }})
				req := ListRequest{History: history, ZoneID: "zone-1", JobID: "job-1"}
				list, err := c.ListRecords(t.Context(), testCreds, req)
				if err != nil || len(list) != 1002 || list[1001] != (Record{JobID: "job-1", Type: TypePurgeHost, Method: MethodDelete, Target: "h",
					Status: StatusTimeout, CreateTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}) {
					t.Fatal(len(list), err)
				}
				if page, err := c.FirstRecords(t.Context(), testCreds, req); err != nil || page.TotalCount != 1002 {
					t.Error(page.TotalCount, err)
				}
				if want := []string{action, action, action}; !slices.Equal(h.actions, want) || waits[action] != 3 || len(waits) != 1 {
					t.Errorf("called %v, and waited for %v", h.actions, waits)
				}
				if got := h.requests[1]; got.ZoneID != "zone-1" || got.Offset != 1000 || got.Filters[0].Values[0] != "job-1" {
					t.Errorf("asked for %+v", got)
				}
				req.MaxPages = 1
				_, err = c.ListRecords(t.Context(), testCreds, req)
				if e := (*Error)(nil); !errors.Is(err, ErrTooManyPages) || !errors.As(err, &e) || e.Action != action {
					t.Error(err)
				}
			})
		})
	}
}

// recordedPurges is a history with one record behind those that records returns.
func recordedPurges() *history {
	return &history{records: append(records(1001), map[string]string{
		"JobId": "job-1", "Type": "purge_host", "Method": "delete", "Target": "h", "Status": "timeout", "CreateTime": "2026-01-02T03:04:05Z",
	})}
}

func TestARefusedReadOfTheHistoryOfPurgesConcernsTheZone(t *testing.T) {
	c := unhurried(t, answering(200, `{"Response":{"Error":{"Code":"OperationDenied","Message":"m"},"RequestId":"r"}}`))
	if _, err := c.ListRecords(t.Context(), testCreds, ListRequest{History: PurgeHistory, ZoneID: "zone-1"}); !IsReadRefused(err) || DeniedAccount(err) {
		t.Error(err)
	}
}

func TestActionsHaveLimitersOfTheirOwn(t *testing.T) {
	c := clientOf(t, Options{})
	seen := map[*Limiter]string{}
	for _, action := range Actions() {
		limiter := c.Limiter(testCreds, action)
		if other, ok := seen[limiter]; ok {
			t.Errorf("%s and %s share a limiter", action, other)
		}
		seen[limiter] = action
	}
	for _, action := range []string{ActionCreatePurgeTask, ActionDescribePurgeTasks} {
		if !slices.Contains(Actions(), action) {
			t.Errorf("%s is missing", action)
		}
	}
}

// The simulator shares no code with the client.
func TestPurgesOfEveryType(t *testing.T) {
	edgeOne := simulator.New(simulator.Config{
		Keys: []simulator.Key{{SecretID: testCreds.SecretID, SecretKey: testCreds.SecretKey, Token: testCreds.Token, Account: "a"}},
		Zones: []simulator.Zone{
			{ID: "zone-1", Account: "a", Domains: []string{"*.example.com"}, Purge: map[string]simulator.Limits{TypePurgeHost: {Daily: 7}}},
			{ID: "zone-2", Account: "a", Domains: []string{"other.example"}, Purge: map[string]simulator.Limits{
				TypePurgeHost: {NotAllowed: true, Daily: -1}, TypePurgeCacheTag: {Unlisted: true},
			}},
		},
		Rate: -1, JobDuration: -1,
	})
	defer edgeOne.Close()
	c := unhurried(t, edgeOne.RoundTripper())
	for _, tt := range []struct{ jobType, method, target, listed string }{
		{TypePurgeURL, "", "https://www.example.com/a?b#c", MethodDelete},
		{TypePurgePrefix, MethodDelete, "https://www.example.com/a/", MethodDelete},
		{TypePurgePrefix, "", "https://www.example.com/a/", MethodInvalidate},
		{TypePurgeHost, MethodInvalidate, "WWW.example.com", MethodInvalidate},
		{TypePurgeCacheTag, "", "a#b%2f", MethodDelete},
	} {
		t.Run(tt.jobType+" "+tt.method, func(t *testing.T) {
			req := CreatePurgeTaskRequest{ZoneID: "zone-1", Type: tt.jobType, Method: tt.method, Targets: []string{tt.target}}
			resp, err := c.CreateTask(t.Context(), testCreds, c.ServerTime(), req)
			if err != nil || resp.JobID == "" || len(resp.Failed) > 0 {
				t.Fatalf("%+v, %v", resp, err)
			}
			list, err := c.ListRecords(t.Context(), testCreds, ListRequest{History: PurgeHistory, ZoneID: "zone-1", JobID: resp.JobID})
			if err != nil || len(list) != 1 || list[0].Type != tt.jobType || list[0].Method != tt.listed || list[0].Status != StatusSuccess ||
				list[0].Identity() != req.Identity(tt.target) {
				t.Errorf("%+v, %v", list, err)
			}
			list, err = c.ListRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1", JobID: resp.JobID})
			if err != nil || len(list) > 0 {
				t.Errorf("the history of prefetches has the purge: %+v, %v", list, err)
			}
		})
	}
	_, err := c.CreateTask(t.Context(), testCreds, c.ServerTime(), CreatePurgeTaskRequest{ZoneID: "zone-2", Type: TypePurgeHost, Targets: []string{"other.example"}})
	if !IsPlanLacking(err) {
		t.Errorf("a type that the plan lacks: %v", err)
	}
	one, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1")
	if host := one.Purge[TypePurgeHost]; err != nil || host.Daily != 7 || host.DailyAvailable != 6 || len(one.Purge) != 4 {
		t.Errorf("%+v, %v", one, err)
	}
	two, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-2")
	host, hasHost := two.Purge[TypePurgeHost]
	if _, hasTag := two.Purge[TypePurgeCacheTag]; err != nil || hasTag || !hasHost || !host.IsZero() {
		t.Errorf("%+v, %v", two, err)
	}
}
