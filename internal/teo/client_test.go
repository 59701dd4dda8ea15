package teo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

var testCreds = Credentials{SecretID: "AKIDtest", SecretKey: "keyofthetest", Token: "tokenofthetest"}

const accepted = `{"Response":{"JobId":"job-1","FailedList":null,"RequestId":"r-1"}}`

func testRequest() CreatePrefetchTaskRequest {
	return CreatePrefetchTaskRequest{Targets: []string{"https://h/a", "https://h/b"}, ZoneID: "zone-1"}
}

// roundTrip is a function that is a transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer reads the request to its end, as a server does, and returns a response.
func answer(req *http.Request, status int, body string) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}, Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

func answering(status int, body string) roundTrip {
	return func(req *http.Request) (*http.Response, error) { return answer(req, status, body) }
}

func clientOf(t testing.TB, o Options) *Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve starts a server and returns a client for it whose limiters do not delay calls.
func serve(t *testing.T, start func(*httptest.Server), h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = quietLog
	start(s)
	t.Cleanup(s.Close)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if s.TLS != nil {
		transport = s.Client().Transport.(*http.Transport)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return clientOf(t, Options{Endpoint: s.URL, Transport: transport, QPS: 1000})
}

func create(t *testing.T, c *Client) (CreateResponse, error) {
	t.Helper()
	return c.CreateTask(t.Context(), testCreds, c.ServerTime(), testRequest())
}

func TestTheRequestOnTheWire(t *testing.T) {
	signedAt := time.Now().Add(-time.Minute)
	yes := true
	for _, tt := range []struct {
		name, action, body string
		req                CreateRequest
	}{
		{"what is unset is not sent", "CreatePrefetchTask", `{"Targets":["https://h/a","https://h/b"],"ZoneId":"zone-1"}`, testRequest()},
		{"a purge of URLs", "CreatePurgeTask", `{"ZoneId":"zone-1","Type":"purge_url","Targets":["https://h/?a&b=<中>"]}`,
			CreatePurgeTaskRequest{ZoneID: "zone-1", Type: TypePurgeURL, Targets: []string{"https://h/?a&b=<中>"}}},
		{"a purge with all parameters", "CreatePurgeTask",
			`{"ZoneId":"*","Type":"purge_prefix","Method":"delete","Targets":["https://h/a/"],"EncodeUrl":true}`,
			CreatePurgeTaskRequest{ZoneID: "*", Type: TypePurgePrefix, Method: MethodDelete, Targets: []string{"https://h/a/"}, EncodeURL: &yes}},
		{"what is set is sent as it is", "CreatePrefetchTask",
			`{"Targets":["http://h/?a&b=<中>"],"ZoneId":"*","Mode":"edge","EncodeUrl":true,` +
				`"Headers":[{"Name":"X-A","Value":"b"}],"PrefetchMediaSegments":"on"}`,
			CreatePrefetchTaskRequest{Targets: []string{"http://h/?a&b=<中>"}, ZoneID: "*", Mode: "edge", EncodeURL: &yes,
				Headers: []Header{{"X-A", "b"}}, PrefetchMediaSegments: "on"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got *http.Request
			var body []byte
			c := serve(t, (*httptest.Server).Start, func(w http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
				_, _ = io.WriteString(w, accepted)
			})
			resp, err := c.CreateTask(t.Context(), testCreds, signedAt, tt.req)
			if err != nil || resp.JobID != "job-1" || resp.RequestID != "r-1" || len(resp.Failed) != 0 {
				t.Fatalf("%+v, %v", resp, err)
			}
			if string(body) != tt.body {
				t.Errorf("body\n%s, want\n%s", body, tt.body)
			}
			for name, want := range map[string]string{
				"Content-Type": contentType, "X-TC-Action": tt.action, "X-TC-Version": "2022-09-01", "X-TC-Language": "en-US",
				"X-TC-Timestamp": fmt.Sprint(signedAt.Unix()), "X-TC-Token": testCreds.Token, "User-Agent": "teo-prefetch-operator",
				"Idempotency-Key": "", "X-Idempotency-Key": "", "Content-Length": fmt.Sprint(len(body)),
				"Authorization": Authorization(testCreds, "teo", []SignedHeader{
					{"content-type", contentType}, {"host", got.Host}, {"x-tc-action", tt.action}}, body, signedAt),
			} {
				if got.Header.Get(name) != want {
					t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
				}
			}
			if got.Method != "POST" || got.RequestURI != "/" || got.Host != c.endpoint.Host {
				t.Errorf("%s %s of %s", got.Method, got.RequestURI, got.Host)
			}
		})
	}
}

func TestPermanentKeysSendNoToken(t *testing.T) {
	c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		if _, ok := req.Header["X-Tc-Token"]; ok {
			t.Error("an empty token was sent")
		}
		return answer(req, 200, accepted)
	})})
	if _, err := c.CreateTask(t.Context(), Credentials{SecretID: "a", SecretKey: "b"}, time.Now(), testRequest()); err != nil {
		t.Error(err)
	}
}

func TestAnswersOfCreatePrefetchTask(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		kind   Kind // "" for success
		code   string
	}{
		{"accepted", 200, accepted, "", ""},
		{"accepted in part", 200, `{"Response":{"JobId":"j","FailedList":[{"Reason":"x","Targets":["https://h/a"]}],"RequestId":"r"}}`, "", ""},
		{"refused for every target, with a job", 200,
			`{"Response":{"JobId":"j","FailedList":[{"Reason":"x","Targets":["https://h/a","https://h/b"]}],"RequestId":"r"}}`, "", ""},
		{"refused for every target, without a job", 200,
			`{"Response":{"FailedList":[{"Reason":"x","Targets":["https://h/b"]},` +
				`{"Reason":"y","Targets":["https://H/a"]}],"RequestId":"r"}}`, "", ""},
		{"no job and one target unaccounted for", 200,
			`{"Response":{"FailedList":[{"Reason":"x","Targets":["https://h/a"]}],"RequestId":"r"}}`, Ambiguous, ""},
		{"no job and no failures", 200, `{"Response":{"RequestId":"r"}}`, Ambiguous, ""},
		{"an empty job", 200, `{"Response":{"JobId":"","RequestId":"r"}}`, Ambiguous, ""},
		{"a job that is not a string", 200, `{"Response":{"JobId":1,"RequestId":"r"}}`, Ambiguous, ""},
		{"no request ID", 200, `{"Response":{"JobId":"j"}}`, Ambiguous, ""},
		{"an error without a request ID", 200, `{"Response":{"Error":{"Code":"RequestLimitExceeded","Message":"m"}}}`, Ambiguous, ""},
		{"an error without a code", 200, `{"Response":{"Error":{"Message":"m"},"RequestId":"r"}}`, Ambiguous, ""},
		{"an error that is not an object", 200, `{"Response":{"Error":"no","RequestId":"r"}}`, Ambiguous, ""},
		{"an error", 200, `{"Response":{"Error":{"Code":"InvalidParameter.Target","Message":"m"},"RequestId":"r"}}`, Rejected,
			"InvalidParameter.Target"},
		{"an error with another HTTP status", 500,
			`{"Response":{"Error":{"Code":"RequestLimitExceeded","Message":"m"},"RequestId":"r"}}`, Throttled, "RequestLimitExceeded"},
		{"an unknown error", 200, `{"Response":{"Error":{"Code":"FailedOperation.New","Message":"m"},"RequestId":"r"}}`, Ambiguous,
			"FailedOperation.New"},
		{"a success with another HTTP status", 500, accepted, Ambiguous, ""},
		{"an empty object", 200, `{}`, Ambiguous, ""},
		{"null", 200, `null`, Ambiguous, ""},
		{"a null response", 200, `{"Response":null}`, Ambiguous, ""},
		{"nothing", 200, ``, Ambiguous, ""},
		{"HTML", 502, `<html>Bad gateway</html>`, Ambiguous, ""},
		{"HTML with status 200", 200, `<html>Log in</html>`, Ambiguous, ""},
		{"a truncated body", 200, accepted[:40], Ambiguous, ""},
		{"two bodies", 200, accepted + accepted, Ambiguous, ""},
		{"a gateway's 429", 429, `slow down`, Ambiguous, ""},
		{"a redirect", 307, ``, Ambiguous, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls []Call
			c := clientOf(t, Options{Transport: answering(tt.status, tt.body), Observe: func(call Call) { calls = append(calls, call) }})
			_, err := create(t, c)
			if KindOf(err) != tt.kind || Code(err) != tt.code {
				t.Errorf("%s, %s: %v", KindOf(err), Code(err), err)
			}
			if len(calls) != 1 || calls[0].Action != "CreatePrefetchTask" || calls[0].Kind != tt.kind || calls[0].Code != tt.code {
				t.Errorf("observed %+v", calls)
			}
			if err != nil && (Message(err) == "" || !strings.Contains(err.Error(), "CreatePrefetchTask: ")) {
				t.Errorf("message %q, error %q", Message(err), err)
			}
		})
	}
}

func TestALookUpIsNeverAmbiguous(t *testing.T) {
	for _, body := range []string{`{}`, `<html>`, `{"Response":{"RequestId":"r"`,
		`{"Response":{"Error":{"Code":"InternalError","Message":""},"RequestId":"r"}}`} {
		c := clientOf(t, Options{Transport: answering(200, body), QPS: 1000})
		synctest.Test(t, func(t *testing.T) {
			if _, err := c.ListRecords(t.Context(), testCreds, ListRequest{}); KindOf(err) != Unavailable {
				t.Errorf("%s: %v", body, err)
			}
			if _, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1"); KindOf(err) != Unavailable {
				t.Errorf("%s: %v", body, err)
			}
		})
	}
}

func TestWhatWasNotSentWholeWasNotExecuted(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		read func(body io.Reader)
		kind Kind
		cut  bool
	}{
		{"nothing was read", func(io.Reader) {}, Unavailable, false},
		{"the first byte of the body was read", func(r io.Reader) { _, _ = io.CopyN(io.Discard, r, 1) }, Unavailable, true},
		{"the body was read but for its last byte", func(r io.Reader) {
			_, _ = io.CopyN(io.Discard, r, int64(len(`{"Targets":["https://h/a","https://h/b"],"ZoneId":"zone-1"}`)-1))
		}, Unavailable, true},
		{"the body was read", func(r io.Reader) { _, _ = io.Copy(io.Discard, r) }, Ambiguous, false},
	} {
		for _, fail := range []struct {
			name string
			with func(*http.Request) (*http.Response, error)
		}{
			{"failed", func(*http.Request) (*http.Response, error) { return nil, broken }},
			{"answered with nonsense", func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 502, Body: io.NopCloser(strings.NewReader("bad")), Request: req}, nil
			}},
			{"answered in part", func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Body: io.NopCloser(iotest.ErrReader(broken)), Request: req}, nil
			}},
		} {
			t.Run(tt.name+" and "+fail.name, func(t *testing.T) {
				var late io.Reader
				c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
					tt.read(req.Body)
					late = req.Body
					return fail.with(req)
				})})
				_, err := create(t, c)
				if KindOf(err) != tt.kind || errors.Is(err, ErrCutOff) != tt.cut {
					t.Errorf("%s, cut off %v: %v", KindOf(err), errors.Is(err, ErrCutOff), err)
				}
				if fail.name == "failed" && !errors.Is(err, broken) {
					t.Errorf("the cause is lost: %v", err)
				}
				if n, err := late.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errSealed) {
					t.Errorf("a transport that comes late reads %d bytes, %v", n, err)
				}
			})
		}
	}
}

// hangUp starts a server that answers the first requests of each connection. It reads the
// next request and then closes the connection, like a server that is about to restart.
func hangUp(t *testing.T, answers int) (endpoint string, requests *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	requests = new(atomic.Int32)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				for i := range answers + 1 {
					if err := readRequest(conn); err != nil {
						return
					}
					requests.Add(1)
					if i < answers {
						_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(accepted), accepted)
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String(), requests
}

// readRequest reads one whole request. Clients in these tests do not pipeline requests.
func readRequest(conn net.Conn) error {
	var got bytes.Buffer
	for buf := make([]byte, 4096); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		got.Write(buf[:n])
		if head, body, ok := strings.Cut(got.String(), "\r\n\r\n"); ok {
			length := 0
			if _, after, ok := strings.Cut(head, "Content-Length: "); ok {
				_, _ = fmt.Sscan(after, &length)
			}
			if len(body) >= length {
				return nil
			}
		}
	}
}

func TestACallIsNeverSentTwice(t *testing.T) {
	for _, answers := range []int{0, 1, 3} {
		t.Run(fmt.Sprintf("the connection closes after %d answers", answers), func(t *testing.T) {
			endpoint, requests := hangUp(t, answers)
			c := clientOf(t, Options{Endpoint: endpoint, Transport: defaultTransport()})
			for range answers {
				if _, err := create(t, c); err != nil {
					t.Fatal(err)
				}
			}
			_, err := create(t, c)
			if got := int(requests.Load()); KindOf(err) != Ambiguous || got != answers+1 {
				t.Errorf("%d requests for %d calls: %v", got, answers+1, err)
			}
		})
	}
	t.Run("though the transport would repeat a request it may repeat", func(t *testing.T) {
		endpoint, requests := hangUp(t, 1)
		client := http.Client{Transport: defaultTransport()}
		for range 2 {
			resp, err := client.Get(endpoint)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		if requests.Load() != 3 {
			t.Errorf("%d requests for 2 calls: this server does not provoke what the test is about", requests.Load())
		}
	})
	t.Run("nor by HTTP/2", func(t *testing.T) {
		var requests atomic.Int32
		c := serve(t, func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if r.ProtoMajor != 2 {
				t.Errorf("this is %s", r.Proto)
			}
			if requests.Add(1) == 1 {
				_, _ = io.WriteString(w, accepted)
				return
			}
			panic(http.ErrAbortHandler)
		})
		if _, err := create(t, c); err != nil {
			t.Fatal(err)
		}
		if _, err := create(t, c); KindOf(err) != Ambiguous || requests.Load() != 2 {
			t.Errorf("%d requests for 2 calls: %v", requests.Load(), err)
		}
	})
	t.Run("nor by a transport that tries to", func(t *testing.T) {
		c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, req.Body)
			if again, _ := io.ReadAll(req.Body); len(again) > 0 || req.GetBody != nil {
				t.Error("the body can be had again")
			}
			return nil, io.EOF
		})})
		if _, err := create(t, c); KindOf(err) != Ambiguous {
			t.Error(err)
		}
	})
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("followed") }))
			defer elsewhere.Close()
			c := serve(t, (*httptest.Server).Start, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", elsewhere.URL)
				w.WriteHeader(status)
			})
			_, err := create(t, c)
			var e *Error
			if !errors.As(err, &e) || e.Kind != Ambiguous || e.HTTPStatus != status {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestCertainlyNotSent(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	untrusted := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("sent") }))
	untrusted.Config.ErrorLog = quietLog
	untrusted.StartTLS()
	defer untrusted.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("sent") }))
	defer plain.Close()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer proxy.Close()
	proxyURL, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	noDNS := defaultTransport().(*http.Transport)
	noDNS.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "teo.example", Server: "10.0.0.1:53"}}
	}
	for _, tt := range []struct {
		name     string
		ctx      context.Context
		endpoint string
		rt       http.RoundTripper
		message  string
	}{
		{"the name is unknown", t.Context(), "https://teo.example", noDNS, "not sent: the host name cannot be resolved"},
		{"the connection is refused", t.Context(), closed.URL, nil, "not sent: connection refused"},
		{"the certificate is not trusted", t.Context(), untrusted.URL, nil, "not sent: the server's certificate is not accepted"},
		{"the server does not speak TLS", t.Context(), strings.Replace(plain.URL, "http:", "https:", 1), nil,
			"not sent: the connection failed"},
		{"the proxy refuses", t.Context(), "https://teo.example", &http.Transport{Proxy: http.ProxyURL(proxyURL)},
			"not sent: the connection failed"},
		{"the context was over", cancelled, plain.URL, nil, "not sent: cancelled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := clientOf(t, Options{Endpoint: tt.endpoint, Transport: tt.rt})
			_, err := c.CreateTask(tt.ctx, testCreds, time.Now(), testRequest())
			if KindOf(err) != Unavailable || Message(err) != tt.message || errors.Is(err, ErrCutOff) {
				t.Errorf("%s %q: %v", KindOf(err), Message(err), err)
			}
		})
	}
}

func TestACallTimesOut(t *testing.T) {
	for _, sent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
				if sent {
					_, _ = io.Copy(io.Discard, req.Body)
				}
				<-req.Context().Done()
				return nil, req.Context().Err()
			})})
			start := time.Now()
			_, err := create(t, c)
			want := map[bool]Kind{false: Unavailable, true: Ambiguous}[sent]
			if KindOf(err) != want || time.Since(start) != 10*time.Second || !strings.Contains(Message(err), "timed out") {
				t.Errorf("sent %v, after %v: %v", sent, time.Since(start), err)
			}
		})
	}
}

func TestTheWaitForEverySlotIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := map[string]time.Duration{}
		c := clientOf(t, Options{
			Transport:   answering(200, `{"Response":{"Tasks":[],"TotalCount":0,"RequestId":"r"}}`),
			ObserveWait: func(action string, wait time.Duration) { waits[action] += wait },
		})
		if _, err := c.ListRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1", JobID: "j"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		if _, err := c.Limiter(Credentials{SecretID: "another"}, ActionCreatePrefetchTask).Wait(ctx, Turn{}); err == nil {
			t.Fatal("a slot at once of a new limiter")
		}
		if wait, tried := waits[ActionCreatePrefetchTask]; !tried || wait > time.Millisecond || waits[ActionDescribePrefetchTasks] != time.Second {
			t.Errorf("observed %v; want the second that a new limiter waits, and that there was no slot in time", waits)
		}
	})
}

func TestATooOldSignatureIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent, observed int
		c := clientOf(t, Options{
			SignatureValidity: 10 * time.Second,
			Observe:           func(Call) { observed++ },
			Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
				sent++
				return answer(req, 200, accepted)
			}),
		})
		signedAt := time.Now()
		time.Sleep(5 * time.Second)
		if _, err := c.CreateTask(t.Context(), testCreds, signedAt, testRequest()); err != nil || sent != 1 {
			t.Errorf("at the last moment: %v", err)
		}
		time.Sleep(time.Second)
		_, err := c.CreateTask(t.Context(), testCreds, signedAt, testRequest())
		if !errors.Is(err, ErrTooOld) || KindOf(err) != Unavailable || sent != 1 || observed != 1 {
			t.Errorf("too late: %v, sent %d, observed %d", err, sent, observed)
		}
		if before := c.SendBefore(signedAt); !before.Equal(signedAt.Add(5 * time.Second)) {
			t.Errorf("send before %v", before)
		}
	})
}

func TestServerTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead = 3 * time.Hour // how far the server's clock is ahead of the local one
		var body string
		var delay time.Duration
		status := 200
		c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			resp, err := answer(req, status, body)
			resp.Header.Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			time.Sleep(delay)
			return resp, err
		})})
		if c.ServerTimeKnown() || !c.ServerTime().Equal(time.Now()) {
			t.Error("before any answer it is not the local clock")
		}
		for status, body = range map[int]string{200: `{}`, 201: `null`, 502: `<html>`, 503: `{"Response":{"JobId":"j"}}`} {
			_, _ = create(t, c)
			if c.ServerTimeKnown() {
				t.Errorf("learnt from %s", body)
			}
		}
		status, body, delay = 200, `{"Response":{"Error":{"Code":"AuthFailure.SignatureExpire","Message":""},"RequestId":"r"}}`,
			700*time.Millisecond
		time.Sleep(500 * time.Millisecond)
		if _, err := create(t, c); !IsSignatureExpire(err) || !c.ServerTimeKnown() {
			t.Fatalf("not learnt: %v", err)
		}
		for range 2 {
			if late := time.Now().Add(ahead).Sub(c.ServerTime()); late < delay || late > delay+time.Second {
				t.Errorf("the estimate is late by %v", late)
			}
			time.Sleep(time.Hour)
		}
		// The latest answer counts, even if it sets the clock back. An answer that arrived
		// earlier and is read now does not count.
		now := time.Now()
		c.clock.learn(now.UTC().Format(http.TimeFormat), now)
		c.clock.learn(now.Add(time.Hour).UTC().Format(http.TimeFormat), now.Add(-time.Second))
		c.clock.learn("no date", now.Add(time.Second))
		if off := now.Sub(c.ServerTime()); off < 0 || off > time.Second {
			t.Errorf("off by %v", off)
		}
	})
}

func TestALookUpIsSignedAtTheServersTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stamps []string
		c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			stamps = append(stamps, req.Header.Get("X-TC-Timestamp"))
			resp, err := answer(req, 200, `{"Response":{"TotalCount":0,"RequestId":"r"}}`)
			resp.Header.Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			return resp, err
		})})
		for range 2 {
			if _, err := c.ListRecords(t.Context(), testCreds, ListRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		if want := fmt.Sprint(time.Now().Add(time.Hour).Unix()); stamps[1] != want || stamps[0] == want {
			t.Errorf("signed at %v, want the second at %s", stamps, want)
		}
	})
}

func TestCredentialsThatCannotSignAreDenied(t *testing.T) {
	for name, creds := range map[string]Credentials{
		"none":                    {},
		"no key":                  {SecretID: "a"},
		"no ID":                   {SecretKey: "a"},
		"a line break at the end": {SecretID: "a", SecretKey: "b\n"},
		"a space in front":        {SecretID: " a", SecretKey: "b"},
		"a token of two lines":    {SecretID: "a", SecretKey: "b", Token: "c\nd"},
		"letters that no key has": {SecretID: "é", SecretKey: "b"},
		"an ID that is too long":  {SecretID: strings.Repeat("a", maxKey+1), SecretKey: "b"},
		"a key that is too long":  {SecretID: "a", SecretKey: strings.Repeat("b", maxKey+1)},
		"a token of a megabyte":   {SecretID: "a", SecretKey: "b", Token: strings.Repeat("c", 1<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			c := clientOf(t, Options{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				t.Error("sent")
				return nil, io.EOF
			})})
			_, err := c.CreateTask(t.Context(), creds, time.Now(), testRequest())
			if KindOf(err) != Denied || !DeniedAccount(err) || Message(err) == "" || len(Message(err)) > maxMessage {
				t.Error(err)
			}
			if invalid := creds.Validate(); KindOf(invalid) != Denied || Message(invalid) != Message(err) {
				t.Error(invalid)
			}
		})
	}
	longest := Credentials{SecretID: strings.Repeat("a", maxKey), SecretKey: strings.Repeat("b", maxKey), Token: strings.Repeat("c", maxToken)}
	if err := longest.Validate(); err != nil {
		t.Error(err)
	}
}

// A proxy with a size limit closes the connection while a larger request is still being
// sent.
func TestAServerThatClosesWhileTheRequestIsSentCutsItOff(t *testing.T) {
	c := serve(t, (*httptest.Server).Start, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<10)
		panic(http.ErrAbortHandler)
	})
	req := testRequest()
	req.Targets = []string{"https://h/" + strings.Repeat("a", maxRequest-1<<10)}
	if _, err := c.CreateTask(t.Context(), testCreds, c.ServerTime(), req); !errors.Is(err, ErrCutOff) || KindOf(err) != Unavailable ||
		!strings.HasPrefix(Message(err), "not sent completely: ") {
		t.Errorf("%q: %v", Message(err), err)
	}
}

func TestARequestThatIsTooLargeIsRejectedUnsent(t *testing.T) {
	c := clientOf(t, Options{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		t.Error("sent")
		return nil, io.EOF
	})})
	req := testRequest()
	req.Targets = []string{"https://h/" + strings.Repeat("a", maxRequest)}
	if _, err := c.CreateTask(t.Context(), testCreds, time.Now(), req); KindOf(err) != Rejected ||
		Code(err) != "RequestSizeLimitExceeded" {
		t.Error(err)
	}
}

type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestAnAnswerWithoutEndIsNotReadToTheEnd(t *testing.T) {
	var body endless
	c := clientOf(t, Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		resp, err := answer(req, 200, "")
		resp.Body = io.NopCloser(&body)
		return resp, err
	})})
	if _, err := create(t, c); KindOf(err) != Ambiguous || body.read > maxAnswer+1 {
		t.Errorf("%d bytes read, %v", body.read, err)
	}
}

func TestNoErrorHoldsCredentials(t *testing.T) {
	echo := fmt.Sprintf("%s %s", testCreds.SecretID, testCreds.Token)
	for _, body := range []string{
		`{"Response":{"Error":{"Code":"AuthFailure.TokenFailure","Message":"` + echo + `"},"RequestId":"r"}}`,
		`<html>` + echo, `{"Response":{"RequestId":"r","JobId":{"` + echo + `":1}}}`,
	} {
		c := clientOf(t, Options{Transport: answering(200, body)})
		_, err := create(t, c)
		for text := range map[string]bool{err.Error(): true, Message(err): true, fmt.Sprintf("%+v %#v", err, err): true} {
			if strings.Contains(text, testCreds.SecretID) || strings.Contains(text, testCreds.Token) || strings.Contains(text,
				testCreds.SecretKey) {
				t.Errorf("%s", text)
			}
		}
	}
}

func TestOneClientServesManyAtOnce(t *testing.T) {
	c := serve(t, (*httptest.Server).Start, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, accepted)
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.CreateTask(t.Context(), testCreds, time.Now(), testRequest()); err != nil {
				t.Error(err)
			}
			c.ServerTime()
		})
	}
	wg.Wait()
}
