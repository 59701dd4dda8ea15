package teo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// maxText is the maximum length of a Message: maxMessage and an ellipsis.
const maxText = maxMessage + len("…")

// unhurried returns a client whose limiters do not delay calls: they do not assume that
// an earlier process has just made calls.
func unhurried(t testing.TB, transport http.RoundTripper) *Client {
	t.Helper()
	c := clientOf(t, Options{Transport: transport, QPS: 1000})
	for _, action := range actions {
		c.Limiter(testCreds, action).cooling = nil
	}
	return c
}

// raw answers with the bytes of a whole HTTP response. It parses them like a client that
// reads them from a connection.
type raw struct {
	answer string
	sent   bool // whether the request was sent completely
}

func (r *raw) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return nil, err
	}
	r.sent = true
	return http.ReadResponse(bufio.NewReader(strings.NewReader(r.answer)), req)
}

// FuzzAnswer gives the client arbitrary answers to a call. If the headers have no
// Content-Length, the body ends with the connection.
func FuzzAnswer(f *testing.F) {
	const date = "Date: Thu, 02 Jan 2026 03:04:05 GMT\r\n"
	for _, body := range []string{
		accepted, "", "null", "{}", "[]", `{"Response":null}`, `{"Response":{}}`, `{"Response":{"RequestId":"r"}}`, `{"Response":{"JobId":"j"}}`,
		`{"Response":{"JobId":"","FailedList":[{"Reason":"x","Targets":["https://h/a","HTTPS://H:443/b"]}],"RequestId":"r"}}`,
		`{"Response":{"JobId":"","FailedList":[{"Reason":"x","Targets":["https://h/a"]}],"RequestId":"r"}}`,
		`{"Response":{"JobId":"","FailedList":[{"Targets":null}],"RequestId":"r"}}`,
		`{"Response":{"JobId":5,"RequestId":"r"}}`, `{"Response":{"Error":{"Code":"InternalError","Message":"m"},"RequestId":"r"}}`,
		`{"Response":{"Error":{"Code":"RequestLimitExceeded","Message":"no"},"JobId":"job-1","RequestId":"r"}}`,
		`{"Response":{"Error":{"Code":"AuthFailure.SecretIdNotFound","Message":"The SecretId AKIDtest is not found"},"RequestId":"AKIDtest"}}`,
		`{"Response":{"Error":{"Code":"` + strings.Repeat("C", 2000) + `","Message":"\ud800"},"RequestId":"r"}}`,
		`{"Response":{"Error":{"Code":"","Message":"m"},"RequestId":"r"}}`, `{"Response":{"Error":{},"RequestId":"r"}}`,
		`{"Response":{"TotalCount":1,"Tasks":[{"JobId":"j","Target":"https://h/a","Status":"success","CreateTime":"2026-01-02T03:04:05Z"}],"RequestId":"r"}}`,
		`{"Response":{"TotalCount":1,"Tasks":[{"JobId":"j","CreateTime":"x"}],"RequestId":"r"}}`,
		`{"Response":{"TotalCount":-1,"Tasks":null,"RequestId":"r"}}`, `{"Response":{"TotalCount":5000,"Tasks":[{"JobId":"j"}],"RequestId":"r"}}`,
		`{"Response":{"PrefetchQuota":[{"Type":"prefetch_url","Batch":2000,"Daily":10000,"DailyAvailable":-7}],"RequestId":"r"}}`,
		`{"Response":{"PrefetchQuota":null,"RequestId":"r"}}`, `{"Response":{"PrefetchQuota":[null],"RequestId":"r"}}`,
		`{"Response":{"Error":{"Code":"keyofthetest","Message":"tokenofthetest\nhttp://me:secret@h"},"RequestId":"r"}}`,
		`{"Response":{"JobId":"j","FailedList":[{"Reason":"AKIDtest","Targets":["https://h/a"]}],"RequestId":"r"}}`,
		`{"Response":{"JobId":"job of AKIDtest","RequestId":"r"}}`,
		`{"Response":{"TotalCount":1,"Tasks":[{"JobId":"j","Target":"https://h/a","Status":"AKIDtest","FailType":"keyofthetest","FailMessage":"tokenofthetest"}],"RequestId":"r"}}`,
		`{"Response":{"TotalCount":1,"Tasks":[{"JobId":"AKIDtest","Target":"https://h/a"}],"RequestId":"r"}}`,
		`{"Response":{"FailedList":[{},{},{},{},{},{}],"Tasks":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]],"RequestId":"r"}}`,
		`{"Response":{"RequestId":"r","JobId":"j","New":{"a":[1,{"b":null}],"c":"}]\"\\"}}}`, `{"Response":{"RequestId":"r"},"Response":{"JobId":"j"}}`,
		`{"Response":{"Error":null,"JobId":"j","RequestId":"r"}}`, `{"Response":{"TotalCount":1e3,"Tasks":{},"RequestId":"r"}}`,
		`{"Response":{"JobId":"","FailedList":[{"Reason":"x","Targets":["WWW.例え.jp","xn--r8jz45g.jp"]}],"RequestId":"r"}}`,
		`{"Response":{"JobId":"","FailedList":[{"Reason":"x","Targets":["a#b"]},{"Targets":["c%2f"]}],"RequestId":"r"}}`,
		`{"Response":{"JobId":"","FailedList":[{"Reason":"x","Targets":["a","c%2F"]}],"RequestId":"r"}}`,
		`{"Response":{"TotalCount":2,"Tasks":[{"JobId":"j","Target":"h","Type":"purge_host","Method":"delete","Status":"timeout"},` +
			`{"JobId":"j","Target":"a#b","Type":"AKIDtest","Method":"keyofthetest"}],"RequestId":"r"}}`,
		`{"Response":{"PrefetchQuota":[{"Type":"prefetch_url","Batch":1,"Daily":1,"DailyAvailable":1}],` +
			`"PurgeQuota":[{"Type":"purge_all"},{"Type":"purge_host","Batch":-1,"Daily":0,"DailyAvailable":-7},{"Type":"purge_url"},null,{"Type":5}],"RequestId":"r"}}`,
		`{"Response":{"Error":{"Code":"LimitExceeded.PackNotAllow","Message":"m"},"RequestId":"r"}}`,
		`{"Response":{"Error":{"Code":"OperationDenied","Message":"m"},"RequestId":"r"}}`,
		"<html><body>502 Bad Gateway</body></html>", accepted + accepted, accepted[:40], "\xff\xfe",
	} {
		f.Add("200 OK", date, body)
	}
	for _, status := range []string{"502 Bad Gateway", "302 Found", "307 Temporary Redirect", "204 No Content", "100 Continue", "429 Too Many Requests", "999 x", ""} {
		f.Add(status, date+"Location: https://other/\r\n", accepted)
	}
	f.Add("301 Moved", "Location: %zz\r\n", "")
	f.Add("200 OK", "Content-Length: 1000\r\n", accepted)
	f.Add("200 OK", "Transfer-Encoding: chunked\r\n", "5\r\n{\"Res")
	f.Add("200 OK", "Date: Mon, 01 Jan 0001 00:00:00 GMT\r\n", accepted)
	f.Add("200 OK", "no header\r\n", accepted)
	f.Add("200 OK", "AKIDtest is where a header should be\r\n", accepted)
	f.Add("200 OK", "keyofthetest tokenofthetest http://me:secret@h\r\n", accepted)
	f.Fuzz(func(t *testing.T, status, headers, body string) {
		answer := "HTTP/1.1 " + status + "\r\n" + headers + "\r\n" + body
		for _, req := range []CreateRequest{
			testRequest(),
			CreatePurgeTaskRequest{Type: TypePurgeURL, Targets: testRequest().Targets},
			CreatePurgeTaskRequest{Type: TypePurgeHost, Targets: []string{"www.例え.jp", "例え.jp"}},
			CreatePurgeTaskRequest{Type: TypePurgeCacheTag, Targets: []string{"a#b", "c%2f"}},
		} {
			checkCreate(t, answer, req)
		}
		checkLookUps(t, answer)
	})
}

func checkCreate(t *testing.T, answer string, req CreateRequest) {
	transport := &raw{answer: answer}
	c := unhurried(t, transport)
	resp, err := c.CreateTask(t.Context(), testCreds, c.ServerTime(), req)
	checkError(t, err)
	if !transport.sent {
		t.Fatal("the request did not go out")
	}
	if err == nil {
		refused := map[string]bool{}
		checkWords(t, maxJobID, resp.JobID, resp.RequestID)
		for _, failed := range resp.Failed {
			checkWords(t, maxMessage, failed.Reason)
			for _, u := range failed.Targets {
				refused[req.Identity(u)] = true
			}
		}
		every := refused[req.Identity(req.sentTargets()[0])] && refused[req.Identity(req.sentTargets()[1])]
		if resp.RequestID == "" || resp.JobID == "" && !every || len(resp.JobID) > maxJobID {
			t.Errorf("taken for a success: %+v", resp)
		}
		if parsed, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil); err != nil || parsed.StatusCode != http.StatusOK {
			t.Errorf("taken for a success: %q", answer)
		}
		return
	}
	// The call may have been executed unless EdgeOne's code excludes it.
	if known, _ := lookUpCode(Code(err)); KindOf(err) != Ambiguous && (Code(err) == "" || KindOf(err) != known) {
		t.Errorf("%v is %s", err, KindOf(err))
	}
	if KindOf(err) != Ambiguous && strings.Contains(answer, `"JobId":"job`) {
		t.Errorf("there is a job, and yet %v is %s", err, KindOf(err))
	}
}

func checkLookUps(t *testing.T, answer string) {
	c := unhurried(t, &raw{answer: answer})
	for _, history := range []History{PrefetchHistory, PurgeHistory} {
		records, err := c.ListRecords(t.Context(), testCreds, ListRequest{History: history, ZoneID: "zone-1"})
		checkLookUp(t, err)
		page, err := c.FirstRecords(t.Context(), testCreds, ListRequest{History: history, ZoneID: "zone-1"})
		checkLookUp(t, err)
		if page.TotalCount < 0 {
			t.Errorf("%d records", page.TotalCount)
		}
		for _, record := range append(records, page.Records...) {
			checkWords(t, maxWord, record.Type, record.Method, record.Status, record.FailType, record.JobID)
			checkWords(t, maxMessage, record.FailMessage)
			if record.JobID == "" || len(record.JobID) > maxJobID || record.Target == "" {
				t.Errorf("a record of no job: %+v", record)
			}
		}
	}
	quota, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1")
	checkLookUp(t, err)
	if err == nil && (quota.Prefetch.IsZero() || quota.Prefetch.DailyAvailable < 0) {
		t.Errorf("%+v", quota)
	}
	for jobType, q := range quota.Purge {
		if !isPurgeType(jobType) || q.DailyAvailable < 0 {
			t.Errorf("%s: %+v", jobType, quota)
		}
	}
}

// checkWords checks that texts from EdgeOne are safe to show.
func checkWords(t *testing.T, limit int, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if len(text) > max(limit, maxJobID)+len("…") || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%d bytes: %q", len(text), text)
		}
		for _, secret := range []string{testCreds.SecretID, testCreds.SecretKey, testCreds.Token} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %q", secret, text)
			}
		}
	}
}

func checkLookUp(t *testing.T, err error) {
	t.Helper()
	checkError(t, err)
	if KindOf(err) == Ambiguous {
		t.Errorf("a look-up is ambiguous: %v", err)
	}
}

// checkError checks that an error is suitable for a status.
func checkError(t *testing.T, err error) {
	t.Helper()
	message := Message(err)
	if len(message) > maxText || !utf8.ValidString(message) || err != nil && message == "" {
		t.Errorf("%d bytes: %q", len(message), message)
	}
	if err == nil {
		return
	}
	for _, secret := range []string{testCreds.SecretID, testCreds.SecretKey, testCreds.Token} {
		if strings.Contains(message, secret) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q is in %q", secret, err)
		}
	}
}

// FuzzListing reads a listing while records are added to it. script has one byte for each
// request: the position at which a record is added before the answer, or 255 for none.
func FuzzListing(f *testing.F) {
	f.Add(uint8(7), uint8(3), []byte{255, 255, 255})
	f.Add(uint8(7), uint8(3), []byte{255, 0, 255, 255, 255})
	f.Add(uint8(9), uint8(1), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add(uint8(0), uint8(1), []byte{0})
	f.Fuzz(func(t *testing.T, n, pageOf uint8, script []byte) {
		h := history{records: records(int(n % 40)), cap: 1 + int(pageOf%7)}
		before := len(h.records)
		h.before = func(h *history, request int) {
			if request > len(script) || script[request-1] == 255 {
				return
			}
			at := int(script[request-1]) % (len(h.records) + 1)
			added := map[string]string{"JobId": "job-2", "Target": fmt.Sprint("http://h/added/", request)}
			h.records = append(h.records[:at:at], append([]map[string]string{added}, h.records[at:]...)...)
		}
		tasks, err := unhurried(t, &h).ListRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1"})
		if err != nil {
			if !errors.Is(err, errTorn) {
				t.Error(err)
			}
			return
		}
		listed := map[string]int{}
		for _, task := range tasks {
			listed[task.Target]++
		}
		for i := range before {
			if u := fmt.Sprintf("http://h/%d", i); listed[u] != 1 {
				t.Errorf("%s is listed %d times", u, listed[u])
			}
		}
	})
}

func FuzzClassify(f *testing.F) {
	for _, row := range codes {
		f.Add(row.code, "message `1`")
	}
	f.Add("RequestLimitExceeded", "request {} at 2026-01-02T03:04:05Z from 10.0.0.1:80 exceeds `20`")
	f.Add(strings.Repeat("x", maxMessage), "[request id:{}]")
	f.Add("C", strings.Repeat("长", maxMessage))
	f.Add("\xef", "0")
	f.Fuzz(func(t *testing.T, code, message string) {
		code, message = strings.ToValidUTF8(code, "�"), strings.ToValidUTF8(message, "�") // as decoded from JSON
		var texts []string
		for _, id := range []string{"46eaa57d-0000-4e1b-9a3b-0d451b8b79c6", "ED93F3CB-F35E-473F-B9F3-0D451B8B79C7"} {
			err := refusal(ActionCreatePrefetchTask, code, strings.ReplaceAll(message, "{}", id), id, 200)
			switch err.Kind {
			case Throttled, Exhausted, Denied, Rejected, Ambiguous:
			default:
				t.Errorf("%q is %q", code, err.Kind)
			}
			if kind := refusal(ActionDescribePrefetchTasks, code, message, id, 200).Kind; kind == Ambiguous {
				t.Errorf("%q makes a look-up ambiguous", code)
			}
			texts = append(texts, Message(err))
			_ = err.Error()
		}
		if texts[0] != texts[1] {
			t.Errorf("the same failure is %q and %q", texts[0], texts[1])
		}
		if len(texts[0]) > maxText || !utf8.ValidString(texts[0]) {
			t.Errorf("%d bytes: %q", len(texts[0]), texts[0])
		}
	})
}

// FuzzTargets sends the URLs that the API server accepts in a task, in the way the
// controller sends them. EdgeOne must accept the call, and its listing must be
// recognized.
func FuzzTargets(f *testing.F) {
	for _, s := range []string{"http://h/%2f", "https://H:443?a|b", "https://h/ü?x=é", "https://h/a%2Fb?c=d;e#f", "https://例え.jp/例#x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if target.Check(s) != "" {
			t.Skip()
		}
		edgeOne := simulator.New(simulator.Config{
			Keys:  []simulator.Key{{SecretID: testCreds.SecretID, SecretKey: testCreds.SecretKey, Token: testCreds.Token, Account: "a"}},
			Zones: []simulator.Zone{{ID: "zone-1", Account: "a", Domains: []string{"*"}}},
			Rate:  -1, JobDuration: -1,
		})
		defer edgeOne.Close()
		c := unhurried(t, edgeOne.RoundTripper())
		for history, req := range map[History]CreateRequest{
			PrefetchHistory: CreatePrefetchTaskRequest{Targets: []string{target.Encode(s)}, ZoneID: "zone-1"},
			PurgeHistory:    CreatePurgeTaskRequest{Type: TypePurgeURL, Targets: []string{target.Encode(s)}, ZoneID: "zone-1"},
		} {
			resp, err := c.CreateTask(t.Context(), testCreds, c.ServerTime(), req)
			if err != nil || len(resp.Failed) > 0 {
				t.Fatalf("%q: %+v, %v", s, resp, err)
			}
			records, err := c.ListRecords(t.Context(), testCreds, ListRequest{History: history, ZoneID: "zone-1", JobID: resp.JobID})
			if err != nil || len(records) != 1 || records[0].Identity() != target.Identity(s) || req.Identity(s) != target.Identity(s) {
				t.Errorf("%q is listed as %+v, %v", s, records, err)
			}
		}
	})
}
