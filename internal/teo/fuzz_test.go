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

// maxText is what a Message may have: maxMessage and an ellipsis.
const maxText = maxMessage + len("…")

// unhurried returns a client whose limiters are not in the way: no second has
// been used before it.
func unhurried(t testing.TB, transport http.RoundTripper) *Client {
	t.Helper()
	c := clientOf(t, Options{Transport: transport, QPS: 1000})
	for _, action := range actions {
		c.Limiter(testCreds, action).cooling = nil
	}
	return c
}

// raw answers with the bytes of a whole HTTP answer, read as a client reads
// them off a connection.
type raw struct {
	answer string
	sent   bool // whether the request went out whole
}

func (r *raw) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return nil, err
	}
	r.sent = true
	return http.ReadResponse(bufio.NewReader(strings.NewReader(r.answer)), req)
}

// FuzzAnswer gives the client whatever may come back for a call. Without a
// Content-Length among the headers the body ends with the connection.
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
		checkCreate(t, answer)
		checkLookUps(t, answer)
	})
}

func checkCreate(t *testing.T, answer string) {
	transport := &raw{answer: answer}
	c := unhurried(t, transport)
	req := testRequest()
	resp, err := c.CreatePrefetchTask(t.Context(), testCreds, c.ServerTime(), req)
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
				refused[target.Identity(u)] = true
			}
		}
		every := refused[target.Identity(req.Targets[0])] && refused[target.Identity(req.Targets[1])]
		if resp.RequestID == "" || resp.JobID == "" && !every || len(resp.JobID) > maxJobID {
			t.Errorf("taken for a success: %+v", resp)
		}
		if parsed, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil); err != nil || parsed.StatusCode != http.StatusOK {
			t.Errorf("taken for a success: %q", answer)
		}
		return
	}
	// Whatever EdgeOne's code does not say for certain may have been executed.
	if known, _ := lookUpCode(Code(err)); KindOf(err) != Ambiguous && (Code(err) == "" || KindOf(err) != known) {
		t.Errorf("%v is %s", err, KindOf(err))
	}
	if KindOf(err) != Ambiguous && strings.Contains(answer, `"JobId":"job`) {
		t.Errorf("there is a job, and yet %v is %s", err, KindOf(err))
	}
}

func checkLookUps(t *testing.T, answer string) {
	c := unhurried(t, &raw{answer: answer})
	tasks, err := c.DescribePrefetchTasks(t.Context(), testCreds, DescribePrefetchTasksRequest{ZoneID: "zone-1"})
	checkLookUp(t, err)
	page, err := c.FirstPrefetchTasks(t.Context(), testCreds, DescribePrefetchTasksRequest{ZoneID: "zone-1"})
	checkLookUp(t, err)
	if page.TotalCount < 0 {
		t.Errorf("%d tasks", page.TotalCount)
	}
	for _, task := range append(tasks, page.Tasks...) {
		checkWords(t, maxWord, task.Status, task.FailType, task.JobID)
		checkWords(t, maxMessage, task.FailMessage)
		if task.JobID == "" || len(task.JobID) > maxJobID || task.Target == "" {
			t.Errorf("a task of no job: %+v", task)
		}
	}
	quota, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1")
	checkLookUp(t, err)
	if err == nil && (quota.Batch < 1 || quota.Daily < 1 || quota.DailyAvailable < 0) {
		t.Errorf("%+v", quota)
	}
}

// checkWords holds what EdgeOne said to what may be shown.
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

// checkError holds an error to what a status may say.
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

// FuzzListing reads a listing while records are added to it. script says, a
// byte for each request, where one is added before the answer; 255 adds none.
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
		tasks, err := unhurried(t, &h).DescribePrefetchTasks(t.Context(), testCreds, DescribePrefetchTasksRequest{ZoneID: "zone-1"})
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
		code, message = strings.ToValidUTF8(code, "�"), strings.ToValidUTF8(message, "�") // as from JSON
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

// FuzzTargets sends what the API server lets a task have, as the controller
// does: EdgeOne must take the call, and what it lists must be found again.
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
		req := CreatePrefetchTaskRequest{Targets: []string{target.Encode(s)}, ZoneID: "zone-1"}
		resp, err := c.CreatePrefetchTask(t.Context(), testCreds, c.ServerTime(), req)
		if err != nil || len(resp.Failed) > 0 {
			t.Fatalf("%q: %+v, %v", s, resp, err)
		}
		tasks, err := c.DescribePrefetchTasks(t.Context(), testCreds, DescribePrefetchTasksRequest{ZoneID: "zone-1", JobID: resp.JobID})
		if err != nil || len(tasks) != 1 || target.Identity(tasks[0].Target) != target.Identity(s) {
			t.Errorf("%q is listed as %+v, %v", s, tasks, err)
		}
	})
}
