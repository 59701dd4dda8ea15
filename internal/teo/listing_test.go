package teo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// history answers DescribePrefetchTasks and DescribePurgeTasks from a list of records. A
// test can change the list between pages.
type history struct {
	records  []map[string]string
	cap      int // maximum number of records in a page; 0 means pageSize
	extra    int // by how much TotalCount is too high
	requests []listRequest
	actions  []string // of the requests
	before   func(h *history, request int)
}

func records(n int) []map[string]string {
	var list []map[string]string
	for i := range n {
		list = append(list, map[string]string{"JobId": "job-1", "Target": fmt.Sprintf("http://h/%d", i), "Status": StatusSuccess,
			"CreateTime": "2026-01-02T03:04:05+08:00", "UpdateTime": "never"})
	}
	return list
}

func (h *history) RoundTrip(req *http.Request) (*http.Response, error) {
	var in listRequest
	if err := json.NewDecoder(req.Body).Decode(&in); err != nil {
		return nil, err
	}
	h.requests, h.actions = append(h.requests, in), append(h.actions, req.Header.Get("X-TC-Action"))
	if h.before != nil {
		h.before(h, len(h.requests))
	}
	limit := in.Limit
	if h.cap > 0 {
		limit = min(limit, h.cap)
	}
	from := min(in.Offset, len(h.records))
	out, err := json.Marshal(map[string]any{"Response": map[string]any{
		"RequestId": "r", "TotalCount": len(h.records) + h.extra, "Tasks": h.records[from:min(from+limit, len(h.records))]}})
	if err != nil {
		return nil, err
	}
	return answer(req, 200, string(out))
}

func TestListings(t *testing.T) {
	twice := func(n int) []map[string]string { // the last record repeats the first one
		list := records(n - 1)
		return append(list, list[0])
	}
	for _, tt := range []struct {
		name     string
		history  history
		maxPages int
		want     int // records
		requests int
		err      error
	}{
		{name: "an empty one", requests: 1},
		{name: "one page", history: history{records: records(999)}, want: 999, requests: 1},
		{name: "one full page, behind which there is nothing", history: history{records: records(1000)}, want: 1000, requests: 2},
		{name: "several pages", history: history{records: records(2500)}, want: 2500, requests: 3},
		{name: "several full pages, behind which there is nothing", history: history{records: records(3000)}, want: 3000, requests: 4},
		{name: "shorter pages than asked for", history: history{records: records(250), cap: 100}, want: 250, requests: 3},
		{name: "as many pages as allowed", history: history{records: records(2000)}, maxPages: 2, want: 2000, requests: 3},
		{name: "more pages than allowed", history: history{records: records(2001)}, maxPages: 2, requests: 1, err: ErrTooManyPages},
		{name: "more pages than allowed, which the count hides", history: history{records: records(2001), extra: -1001}, maxPages: 2,
			requests: 3, err: ErrTooManyPages},
		{name: "more records than anybody keeps", history: history{records: records(10), extra: maxRecords}, requests: 1, err: ErrTooManyPages},
		{name: "one that grows once", want: 1501, requests: 4, history: history{records: records(1500), before: func(h *history, request int) {
			if request == 2 {
				h.records = records(1501)
			}
		}}},
		{name: "one that shrinks once", want: 900, requests: 3, history: history{records: records(1500), before: func(h *history, request int) {
			if request == 2 {
				h.records = records(900)
			}
		}}},
		{name: "one whose records change places", want: 1500, requests: 4, history: history{records: records(1500),
			before: func(h *history, request int) {
				if request == 2 { // an update moves the last record of the first page to the end
					moved := h.records[999]
					h.records = append(slices.Delete(slices.Clone(h.records), 999, 1000), moved)
					h.records[0], h.records[1200] = h.records[1200], h.records[0]
				}
			}}},
		{name: "one that never holds still", requests: 2 * readings, err: errTorn, history: history{records: records(1500),
			before: func(h *history, request int) {
				h.records = records(1500 + request)
			}}},
		{name: "one with a record on two pages that never holds still", requests: 2 * readings, err: errTorn,
			history: history{records: twice(1500), before: func(h *history, request int) {
				h.records[700] = map[string]string{"JobId": "job-2", "Target": fmt.Sprint("http://h/", request)}
			}}},
		{name: "one whose count differs from page to page", want: 1500, requests: 4, history: history{records: records(1500),
			before: func(h *history, request int) {
				h.extra = map[int]int{2: 1}[request]
			}}},
		{name: "a URL twice in a job", want: 4, requests: 1, history: history{records: append(records(2), records(2)...)}},
		{name: "a URL twice in a job, on two pages", want: 1500, requests: 4, history: history{records: twice(1500)}},
		{name: "a URL twice in a job, on two pages, while others end", want: 1500, requests: 4, history: history{records: twice(1500),
			before: func(h *history, request int) {
				h.records = slices.Clone(h.records)
				h.records[request] = maps.Clone(h.records[request])
				h.records[request]["Status"] = StatusFailed
			}}},
		{name: "a count that ends at a cap", want: 4500, requests: 2 * 5, history: history{records: records(4500), extra: -2500}},
		{name: "a count that ends at a cap, at the end of a page", want: 3000, requests: 2 * 4, history: history{records: records(3000), extra: -1000}},
		{name: "a count that ends at a cap of what is a page", want: 1700, requests: 2 * 2, history: history{records: records(1700), extra: -700}},
		{name: "a count that ends at a cap, with shorter pages than asked for", want: 250, requests: 2 * 3,
			history: history{records: records(250), cap: 100, extra: -50}},
		{name: "a count of more than there are, each time", want: 10, requests: 2 * 2, history: history{records: records(10), extra: 2}},
		{name: "a count of more than there are, until they appear", want: 12, requests: 3, history: history{records: records(10), extra: 2,
			before: func(h *history, request int) {
				if request == 3 {
					h.records, h.extra = records(12), 0
				}
			}}},
		{name: "a count of fewer than there are, each time", want: 10, requests: 2, history: history{records: records(10), extra: -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := tt.history
				c := clientOf(t, Options{Transport: &h})
				tasks, err := c.ListRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1", MaxPages: tt.maxPages})
				if len(tasks) != tt.want || len(h.requests) != tt.requests || !errors.Is(err, tt.err) || (err != nil && KindOf(err) != Unavailable) {
					t.Fatalf("%d records with %d requests, %v", len(tasks), len(h.requests), err)
				}
				seen := map[string]bool{}
				for _, task := range tasks {
					seen[task.Target] = true
				}
				for _, r := range h.records {
					if err == nil && !seen[r["Target"]] {
						t.Fatalf("%s is missing", r["Target"])
					}
				}
			})
		})
	}
}

// Search engines return only the first 10,000 records.
func TestAListingThatEdgeOneDoesNotGiveToItsEndIsTooLong(t *testing.T) {
	for _, code := range []string{"InvalidParameter.ParameterError", "InvalidParameter"} {
		h := history{records: records(3000)}
		c := unhurried(t, roundTrip(func(req *http.Request) (*http.Response, error) {
			if len(h.requests) == 2 {
				return answer(req, 200, `{"Response":{"Error":{"Code":"`+code+`","Message":"Offset"},"RequestId":"r"}}`)
			}
			return h.RoundTrip(req)
		}))
		tasks, err := c.ListRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1"})
		if KindOf(err) != Unavailable || !errors.Is(err, ErrTooManyPages) || Code(err) != code || len(tasks) > 0 {
			t.Errorf("%d records, %v", len(tasks), err)
		}
	}
}

func TestWhatIsAskedFor(t *testing.T) {
	start := time.Date(2026, 1, 2, 8, 0, 0, 999, time.FixedZone("", 8*3600))
	for _, tt := range []struct {
		name string
		req  ListRequest
		want string
	}{
		{"a job", ListRequest{ZoneID: "zone-1", JobID: "job-1"},
			`{"ZoneId":"zone-1","Limit":1000,"Filters":[{"Name":"job-id","Values":["job-1"]}]}`},
		{"a window, widened to whole seconds in UTC", ListRequest{ZoneID: "zone-1", StartTime: start,
			EndTime: start.Add(time.Minute)},
			`{"ZoneId":"zone-1","StartTime":"2026-01-02T00:00:00Z","EndTime":"2026-01-02T00:01:01Z","Limit":1000}`},
		{"a window of whole seconds as it is", ListRequest{ZoneID: "*", StartTime: time.Unix(0, 0), EndTime: time.Unix(60, 0)},
			`{"ZoneId":"*","StartTime":"1970-01-01T00:00:00Z","EndTime":"1970-01-01T00:01:00Z","Limit":1000}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := history{records: records(3)}
				c := clientOf(t, Options{Transport: &h})
				page, err := c.FirstRecords(t.Context(), testCreds, tt.req)
				if err != nil || len(page.Records) != 3 || page.TotalCount != 3 {
					t.Fatal(page, err)
				}
				got, err := encode(h.requests[0])
				if err != nil || string(got) != tt.want {
					t.Errorf("asked\n%s, want\n%s", got, tt.want)
				}
				created := time.Date(2026, 1, 1, 19, 4, 5, 0, time.UTC)
				if task := page.Records[0]; !task.CreateTime.Equal(created) || !task.UpdateTime.IsZero() || task.JobID != "job-1" ||
					task.Status != "success" {
					t.Errorf("%+v", task)
				}
			})
		})
	}
}

func TestTheFirstPageTellsHowManyThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := history{records: records(4321)}
		page, err := clientOf(t, Options{Transport: &h}).FirstRecords(t.Context(), testCreds, ListRequest{})
		if err != nil || len(page.Records) != 1000 || page.TotalCount != 4321 || len(h.requests) != 1 {
			t.Errorf("%d of %d with %d requests, %v", len(page.Records), page.TotalCount, len(h.requests), err)
		}
	})
}

func TestAListingWithoutACountIsNoListing(t *testing.T) {
	for _, response := range []string{`"Tasks":[]`, `"TotalCount":null`, `"TotalCount":-1`, `"TotalCount":"1"`, `"TotalCount":1.5`} {
		c := unhurried(t, answering(200, `{"Response":{`+response+`,"RequestId":"r"}}`))
		page, err := c.FirstRecords(t.Context(), testCreds, ListRequest{})
		if KindOf(err) != Unavailable || Message(err) != "the answer is not complete" {
			t.Errorf("%s: %+v, %v", response, page, err)
		}
	}
}

func TestEachPageTakesASlotAndThrottledPagesAreAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := history{records: records(2500)}
		calls := 0
		c := clientOf(t, Options{QPS: 1, Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			if calls++; calls == 2 || calls == 3 {
				return answer(req, 200, `{"Response":{"Error":{"Code":"RequestLimitExceeded","Message":"m"},"RequestId":"r"}}`)
			}
			return h.RoundTrip(req)
		})})
		start := time.Now()
		tasks, err := c.ListRecords(t.Context(), testCreds, ListRequest{})
		if err != nil || len(tasks) != 2500 || calls != 5 || time.Since(start) != 5*time.Second {
			t.Errorf("%d records with %d calls in %v, %v", len(tasks), calls, time.Since(start), err)
		}
	})
}

func TestThrottlingThatDoesNotEndIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			calls++
			return answer(req, 200, `{"Response":{"Error":{"Code":"RequestLimitExceeded","Message":"m"},"RequestId":"r"}}`)
		})})
		if _, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1"); KindOf(err) != Throttled || calls != throttledAttempts {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}

func TestALookUpWithoutTimeForASlotIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		c := clientOf(t, Options{Transport: &history{}})
		if _, err := c.ListRecords(ctx, testCreds, ListRequest{}); KindOf(err) != Unavailable {
			t.Error(err)
		}
	})
}

func TestEndStates(t *testing.T) {
	for status, want := range map[string]bool{"processing": false, "success": true, "failed": true, "timeout": true, "canceled": true,
		"invalid": true, "": false, "Success": false, "paused": false} {
		if got := (Record{Status: status}).Ended(); got != want {
			t.Errorf("%q ended: %v", status, got)
		}
	}
}
