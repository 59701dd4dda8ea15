package teo

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// filled is an answer of a given size: begin, then again repeated, then end.
type filled struct {
	begin, again, end string
	bytes             int
}

func (f filled) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := answer(req, 200, "")
	if err != nil {
		return nil, err
	}
	times := (f.bytes - len(f.begin) - len(f.end)) / len(f.again)
	resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(f.begin),
		&repeated{text: f.again, left: times * len(f.again)}, strings.NewReader(f.end)))
	return resp, nil
}

type repeated struct {
	text string
	at   int
	left int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := 0
	for n < min(len(p), r.left) {
		c := copy(p[n:min(len(p), r.left)], r.text[r.at:])
		n, r.at = n+c, (r.at+c)%len(r.text)
	}
	r.left -= n
	return n, nil
}

// Answers of any size and content are useless here, and the client must not allocate more
// for them than it could use. The client reads and discards the values that it skips; see
// maxTokens.
func TestNoAnswerTakesMoreMemoryThanItsBounds(t *testing.T) {
	const end = `],"TotalCount":1,"RequestId":"r"}}`
	create := func(c *Client) error {
		_, err := c.CreateTask(t.Context(), testCreds, c.ServerTime(), testRequest())
		return err
	}
	list := func(c *Client) error {
		_, err := c.FirstRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1"})
		return err
	}
	quota := func(c *Client) error {
		_, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1")
		return err
	}
	const size = 31 << 20
	for _, tt := range []struct {
		name   string
		call   func(*Client) error
		answer filled
		most   uint64 // bytes allocated in total
	}{
		{"empty records", list, filled{`{"Response":{"Tasks":[{}`, ",{}", end, size}, 1 << 20},
		{"records", list, filled{`{"Response":{"Tasks":[{"JobId":"j","Target":"t"}`, `,{"JobId":"j","Target":"t"}`, end, size}, 2 << 20},
		{"lists of records", list, filled{`{"Response":{"Tasks":[]`, `,"Tasks":[{"JobId":"j","Target":"t"}]`, "}}", size}, 2 << 20},
		{"long records", list, filled{`{"Response":{"Tasks":[{"JobId":"j","Target":"t"}`, `,{"JobId":"j","Target":"` + strings.Repeat("u", 2000) +
			`","FailMessage":"` + strings.Repeat("m", 10_000) + `"}`, end, size}, 64 << 20},
		{"lists in lists of records", list, filled{`{"Response":{"Tasks":`, `[`, end, size}, 1 << 20},
		{"one number", list, filled{`{"Response":{"TotalCount":`, `1`, `}}`, size}, 1 << 20},
		{"failures", create, filled{`{"Response":{"JobId":"j","FailedList":[{}`, ",{}", end, size}, 1 << 20},
		{"failures of no targets", create, filled{`{"Response":{"JobId":"j","FailedList":[{"Reason":"x"}`, `,{"Targets":[]}`, end, size}, 1 << 20},
		{"failed targets", create, filled{`{"Response":{"JobId":"j","FailedList":[{"Targets":["x"`, `,"x"`, "]}" + end, size}, 1 << 20},
		{"lists of failed targets", create, filled{`{"Response":{"JobId":"j","FailedList":[{"Targets":[]`, `,"Targets":["x"]`, "]}" + end, size}, 1 << 20},
		{"quotas", quota, filled{`{"Response":{"PrefetchQuota":[{}`, ",{}", end, size}, 1 << 20},
		{"one word", quota, filled{`{"Response":{"RequestId":"`, `r`, `"}}`, size}, 1 << 20},
		{"one name", quota, filled{`{"Response":{"`, `\"`, `":1}}`, size}, 1 << 20},
		{"lists in lists", quota, filled{`{"Response":{"New":`, `[`, end, size}, 1 << 20},
		{"fields that nobody knows", quota, filled{`{"Response":{"New":0`, `,"New":0`, "}}", size}, 160 << 20}, // a million tokens, one after the other
		{"nothing but space", quota, filled{` `, ` `, `{}`, size}, 1 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := unhurried(t, tt.answer)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := tt.call(c)
			runtime.ReadMemStats(&after)
			if KindOf(err) != Unavailable && KindOf(err) != Ambiguous {
				t.Errorf("%s, %v", KindOf(err), err)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > tt.most {
				t.Errorf("%d KiB were allocated", grown>>10)
			}
		})
	}
}

func TestAnAnswerOfTooMuchSaysSo(t *testing.T) {
	c := unhurried(t, filled{`{"Response":{"Tasks":[{}`, ",{}", `]}}`, 1 << 20})
	_, err := c.FirstRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1"})
	if Message(err) != "the answer is larger than any expected one" || !strings.Contains(err.Error(), "more than 1000 elements") {
		t.Errorf("%q: %v", Message(err), err)
	}
}

func TestAnswersWithinTheirBoundsAreRead(t *testing.T) {
	t.Run("as many failed targets as were sent, each for a reason of its own", func(t *testing.T) {
		req := CreatePrefetchTaskRequest{ZoneID: "zone-1"}
		var failed []string
		for i := range 5000 {
			u := fmt.Sprintf("https://h/%d/%s", i, strings.Repeat("a", 1900))
			req.Targets = append(req.Targets, u)
			failed = append(failed, `{"Targets":["`+u+`"],"Reason":"no","Extra":[{"a":null}]}`)
		}
		c := unhurried(t, answering(200, `{"Response":{"FailedList":[`+strings.Join(failed, ",")+`],"RequestId":"r"}}`))
		resp, err := c.CreateTask(t.Context(), testCreds, c.ServerTime(), req)
		if err != nil || len(resp.Failed) != len(req.Targets) {
			t.Errorf("%d failed, %v", len(resp.Failed), err)
		}
	})
	t.Run("a page of the longest URLs, in escapes", func(t *testing.T) {
		task := `{"JobId":"j","Target":"https://h/` + strings.Repeat(`\u4e2d`, 2000) + `","Status":"success"}`
		c := unhurried(t, answering(200, `{"Response":{"TotalCount":1000,"Tasks":[`+strings.Repeat(task+",", 999)+task+`],"RequestId":"r"}}`))
		page, err := c.FirstRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1"})
		if err != nil || len(page.Records) != 1000 || len(page.Records[999].Target) != len("https://h/")+3*2000 {
			t.Errorf("%d records, %v", len(page.Records), err)
		}
	})
}

func TestHeadersWithoutEndAreNotReadToTheEnd(t *testing.T) {
	written := make(chan int, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		if readRequest(conn) != nil {
			return
		}
		n, _ := io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for err == nil && n < 64<<20 {
			var more int
			more, err = io.WriteString(conn, "X-Header: "+strings.Repeat("a", 4<<10)+"\r\n")
			n += more
		}
		written <- n
	}()
	c := clientOf(t, Options{Endpoint: "http://" + listener.Addr().String(), QPS: 1000})
	if _, err := create(t, c); KindOf(err) != Ambiguous {
		t.Error(err)
	}
	if n := <-written; n > 16<<20 {
		t.Errorf("%d bytes of headers were taken", n)
	}
}

// told returns all texts of an error that can be shown.
func told(err error) string {
	texts := []string{err.Error(), Message(err), Code(err), fmt.Sprintf("%+v %#v", err, err)}
	for e := err; e != nil; e = errors.Unwrap(e) {
		texts = append(texts, e.Error())
	}
	return strings.Join(texts, "\n")
}

// secretCreds and authorized are the secrets of a call. Their special characters make the
// spellings differ.
var (
	secretCreds = Credentials{SecretID: "AKIDwhisper/ing+id", SecretKey: "whisper=ing key"[:11] + "&key", Token: `whisper"ing\token`}
	authorized  = "TC3-HMAC-SHA256 Credential=AKIDwhisper/ing+id/2026-01-02/teo/tc3_request, SignedHeaders=host, Signature=" + strings.Repeat("5ec4e7", 10)
)

// spellings returns the secrets in all spellings in which they may come back.
func spellings() map[string]string {
	texts := map[string]string{"the signature": strings.Repeat("5ec4e7", 10), "the Authorization header": authorized}
	for name, secret := range map[string]string{"the SecretId": secretCreds.SecretID, "the SecretKey": secretCreds.SecretKey, "the token": secretCreds.Token} {
		texts[name] = secret
		texts[name+" in a query"] = url.QueryEscape(secret)
		texts[name+" in a path"] = url.PathEscape(secret)
		texts[name+" in quotes"] = strings.Trim(fmt.Sprintf("%q", secret), `"`)
	}
	return texts
}

func TestWordsHaveNoSecrets(t *testing.T) {
	proxy := url.UserPassword("us", "swor")
	redact := newRedactor(secretCreds, authorized, proxy)
	texts := spellings()
	texts["the proxy's password"] = "swor"
	texts["what the proxy is told"] = base64.StdEncoding.EncodeToString([]byte("us:swor"))
	texts["the address of a proxy"] = "http://me:hunter2@proxy.example:3128"
	for name, secret := range texts {
		t.Run(name, func(t *testing.T) {
			for _, text := range []string{secret, "it is " + secret + ", said twice: " + secret, strings.Repeat("x", 95) + secret} {
				got := redact.words(text, 100)
				for _, part := range []string{secret, "hunter2", "whisper", "5ec4e7", "swor"} {
					if strings.Contains(got, part) {
						t.Errorf("%q tells %q", got, part)
					}
				}
				if len(got) > 100+len("…") {
					t.Errorf("%d bytes", len(got))
				}
			}
			cause := fmt.Errorf("malformed header %s: %w", secret, context.DeadlineExceeded)
			if err := redact.err(cause); strings.Contains(told(err), secret) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
	}
	for text, want := range map[string]string{
		"a word\r\nand\x1b[31m another": "a word  and [31m another", "to the \u202eleft": "to the  left",
		"http://h/path@2x?a=b:c@d": "http://h/path@2x?a=b:c@d", "短い": "短い", "": "",
	} {
		if got := redact.words(text, 100); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// If EdgeOne repeats a secret, the client's output does not contain it.
func TestNothingThatEdgeOneSaysTellsASecret(t *testing.T) {
	for name, secret := range spellings() {
		if name == "the signature" || name == "the Authorization header" {
			continue // each call has its own; see below
		}
		inJSON := strings.Trim(fmt.Sprintf("%q", secret), `"`)
		t.Run(name, func(t *testing.T) {
			check := func(where string, texts ...string) {
				t.Helper()
				for _, text := range texts {
					if strings.Contains(text, secret) {
						t.Errorf("%s: %q", where, text)
					}
				}
			}
			for where, body := range map[string]string{
				"code":       `{"Response":{"Error":{"Code":"` + inJSON + `","Message":"m"},"RequestId":"r"}}`,
				"message":    `{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure","Message":"no: ` + inJSON + `"},"RequestId":"r"}}`,
				"request ID": `{"Response":{"Error":{"Code":"InternalError","Message":"m"},"RequestId":"` + inJSON + `"}}`,
				"JobId":      `{"Response":{"JobId":"` + inJSON + `","RequestId":"r"}}`,
				"no JSON":    inJSON,
			} {
				c := unhurried(t, answering(200, body))
				_, err := c.CreateTask(t.Context(), secretCreds, c.ServerTime(), testRequest())
				if err == nil {
					t.Errorf("%s: no error", where)
					continue
				}
				check(where, told(err))
			}
			c := unhurried(t, answering(200, `{"Response":{"JobId":"j","FailedList":[{"Reason":"`+inJSON+`","Targets":["https://h/a"]}],"RequestId":"`+inJSON+`"}}`))
			resp, err := c.CreateTask(t.Context(), secretCreds, c.ServerTime(), testRequest())
			if err != nil || len(resp.Failed) != 1 {
				t.Fatal(resp, err)
			}
			check("a reason", resp.Failed[0].Reason, resp.RequestID)
			c = clientOf(t, Options{QPS: 1000, Transport: answering(200, `{"Response":{"TotalCount":1,"Tasks":[{"JobId":"j","Target":"https://h/a","Status":"`+
				inJSON+`","FailType":"`+inJSON+`","FailMessage":"`+inJSON+`"}],"RequestId":"r"}}`)})
			synctest.Test(t, func(t *testing.T) {
				tasks, err := c.ListRecords(t.Context(), secretCreds, ListRequest{ZoneID: "zone-1"})
				if err != nil || len(tasks) != 1 {
					t.Fatal(tasks, err)
				}
				check("a record", tasks[0].Status, tasks[0].FailType, tasks[0].FailMessage)
			})
		})
	}
}

func TestTheSignatureOfACallIsNotTold(t *testing.T) {
	var signed string
	c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		signed = req.Header.Get("Authorization")
		return answer(req, 200, `{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure","Message":"got `+signed+`"},"RequestId":"r"}}`)
	})})
	_, err := create(t, c)
	if _, sum, ok := strings.Cut(signed, "Signature="); !ok || strings.Contains(told(err), sum) || !strings.Contains(err.Error(), "Signature="+redacted) {
		t.Errorf("%v", err)
	}
}

// If a proxy refuses a CONNECT, its reason phrase is in the error. The proxy may quote
// the request in it.
func TestAProxysWordsAreCleaned(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			req, err := http.ReadRequest(bufio.NewReader(conn))
			if err == nil {
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 407 who is %s with swordfish at http://us:swordfish@p/\r\n\r\n", req.Header.Get("Proxy-Authorization"))
			}
			_ = conn.Close()
		}
	}()
	transport := defaultTransport().(*http.Transport)
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: listener.Addr().String(), User: url.UserPassword("us", "swordfish")})
	c := clientOf(t, Options{Endpoint: "https://teo.example", Transport: transport})
	_, err = create(t, c)
	if KindOf(err) != Unavailable || !strings.Contains(err.Error(), "who is Basic "+redacted) {
		t.Errorf("%v", err)
	}
	if text := told(err); strings.Contains(text, "swordfish") || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("us:swordfish"))) {
		t.Errorf("%s", text)
	}
}

func TestAProxyWithoutAValidAddressIsNotQuoted(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://us:sword%fish@proxy.example:3128")
	t.Setenv("NO_PROXY", "")
	// http.ProxyFromEnvironment reads the environment only once in a process, so its
	// result here depends on which test ran first.
	_, err := proxyFromEnvironment(httptest.NewRequest(http.MethodPost, "https://teo.example/", nil))
	if err != nil && strings.Contains(err.Error(), "sword") {
		t.Error(err)
	}
}

func TestLongWordsAreCut(t *testing.T) {
	long := strings.Repeat("长", 100_000/3)
	for where, body := range map[string]string{
		"code":       `{"Response":{"Error":{"Code":"` + long + `","Message":"m"},"RequestId":"r"}}`,
		"message":    `{"Response":{"Error":{"Code":"InternalError","Message":"` + long + `"},"RequestId":"r"}}`,
		"request ID": `{"Response":{"Error":{"Code":"InternalError","Message":"m"},"RequestId":"` + long + `"}}`,
		"all":        `{"Response":{"Error":{"Code":"` + long + `","Message":"` + long + `"},"RequestId":"` + long + `"}}`,
	} {
		_, err := create(t, clientOf(t, Options{Transport: answering(200, body)}))
		if len(Code(err)) > maxWord+len("…") || len(err.Error()) > 2*maxWord+maxWords+100 || len(Message(err)) > maxMessage+len("…") {
			t.Errorf("%s: a code of %d bytes, %d in all, %d in a message", where, len(Code(err)), len(err.Error()), len(Message(err)))
		}
	}
}

func TestOneRecordStandsForTwoOfAURL(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	record := func(status string, at time.Time) Record { return Record{Status: status, UpdateTime: at} }
	for _, tt := range []struct {
		name   string
		a, b   Record
		stands Record
	}{
		{"a success for a failure, whichever was last", record(StatusSuccess, early), record(StatusFailed, late), record(StatusSuccess, early)},
		{"a success for one that has not ended", record(StatusSuccess, early), record(StatusProcessing, late), record(StatusSuccess, early)},
		{"one that has not ended for a failure", record(StatusProcessing, early), record(StatusFailed, late), record(StatusProcessing, early)},
		{"a status that nobody knows for a failure", record("paused", early), record(StatusTimeout, late), record("paused", early)},
		{"the later of two failures", record(StatusFailed, early), record(StatusTimeout, late), record(StatusTimeout, late)},
		{"the later of two successes", record(StatusSuccess, early), record(StatusSuccess, late), record(StatusSuccess, late)},
		{"either of two that differ in words only", Record{FailMessage: "a"}, Record{FailMessage: "b"}, Record{FailMessage: "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.a.Merge(tt.b); got != tt.stands {
				t.Errorf("%+v", got)
			}
			if got := tt.b.Merge(tt.a); got != tt.stands {
				t.Errorf("the other way round: %+v", got)
			}
		})
	}
}

func TestAFullPageIsNeverTheWholeListing(t *testing.T) {
	for n, want := range map[int]bool{0: true, 1: true, 999: true, 1000: false} {
		if got := (RecordPage{Records: make([]Record, n), TotalCount: n}).IsWhole(); got != want {
			t.Errorf("%d records are the whole: %v", n, got)
		}
	}
	if (RecordPage{Records: make([]Record, 2), TotalCount: 3}).IsWhole() {
		t.Error("two of three are the whole")
	}
}
