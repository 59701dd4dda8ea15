package simulator

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPublishedSignatures(t *testing.T) {
	body := []byte(`{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}`)
	expect(t, "hash of the body", hexSHA256(body), "35e9c5b0e3ae67532d3c9f17ead6c90222632e5b1ff7f6e89887f1398934f064")
	for _, tt := range []struct {
		secretKey, headers, canonical, signature string
	}{
		{
			"Gu5t9xGARNpq86cd98joQYCN3*******", "content-type;host",
			"5ffe6a04c0664d6b969fab9a13bdab201d63ee709638e2749d62a09ca18d7031",
			"2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c",
		},
		{
			strings.Repeat("*", 32), "content-type;host;x-tc-action",
			"7019a55be8395899b900fb5564e4200d984910f34794a27cb3fb7d10ff6a1e84",
			"10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
		},
	} {
		t.Run("signing "+tt.headers, func(t *testing.T) {
			c := &call{method: "POST", path: "/", body: body, header: http.Header{
				"Content-Type": {"application/json; charset=utf-8"}, "X-Tc-Action": {"DescribeInstances"},
			}}
			canonical := c.canonicalRequest(strings.Split(tt.headers, ";"), "cvm.tencentcloudapi.com")
			expect(t, "canonical request", hexSHA256([]byte(canonical)), tt.canonical)
			auth := authorization{date: "2019-02-25", service: "cvm"}
			expect(t, "signature", auth.sign(tt.secretKey, 1551113065, canonical), tt.signature)
		})
	}
}

// The requests were recorded from the vendor's Node SDK; see test/node.
func TestRequestsOfTheVendorsSDK(t *testing.T) {
	data, err := os.ReadFile("testdata/node-sdk.json")
	if err != nil {
		t.Fatal(err)
	}
	var requests []struct {
		Headers map[string]string
		Body    string
	}
	if err := json.Unmarshal(data, &requests); err != nil {
		t.Fatal(err)
	}
	expect(t, "recorded requests", len(requests), 5)
	for i, recorded := range requests {
		replay := func(body string, late time.Duration) string {
			unix, _ := strconv.ParseInt(recorded.Headers["X-TC-Timestamp"], 10, 64)
			config := Demo()
			config.ClockOffset = time.Until(time.Unix(unix, 0)) + late
			config.Keys = append(config.Keys, Key{SecretID: "AKIDtemporary", SecretKey: "temporary-secret-key", Token: "a-session-token", Account: "demo"})
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			for name, value := range recorded.Headers {
				r.Header.Set(name, value)
			}
			r.Host = recorded.Headers["Host"]
			s := New(config)
			s.ServeHTTP(httptest.NewRecorder(), r)
			return s.Calls()[0].Outcome
		}
		t.Run(strconv.Itoa(i)+" "+recorded.Headers["X-TC-Action"], func(t *testing.T) {
			expect(t, "as recorded", replay(recorded.Body, 0), "OK")
			expect(t, "with another byte", replay(recorded.Body+" ", 0), "AuthFailure.SignatureFailure")
			expect(t, "six minutes later", replay(recorded.Body, 6*time.Minute), "AuthFailure.SignatureExpire")
			expect(t, "six minutes earlier", replay(recorded.Body, -6*time.Minute), "AuthFailure.SignatureExpire")
		})
	}
}

func TestAuthentication(t *testing.T) {
	after := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	for _, tt := range []struct {
		name string
		bend func(*Simulator, *caller)
		code string
	}{
		{"a good signature is accepted", func(*Simulator, *caller) {}, ""},
		{"a signature of the host without its port is accepted", func(_ *Simulator, c *caller) {
			c.tamper = func(r *http.Request) { r.Host += ":8443" }
		}, ""},
		{"another host is not", func(_ *Simulator, c *caller) {
			c.tamper = func(r *http.Request) { r.Host = "teo.tencentcloudapi.com" }
		}, "AuthFailure.SignatureFailure"},
		{"a wrong secret key is refused", func(_ *Simulator, c *caller) { c.key = "guess" }, "AuthFailure.SignatureFailure"},
		{"an unknown key is refused", func(_ *Simulator, c *caller) { c.secretID = "AKIDnobody" }, "AuthFailure.SecretIdNotFound"},
		{"a disabled key is refused", func(s *Simulator, _ *caller) {
			s.SetKey(Key{SecretID: "AKIDdemo", SecretKey: "demo-secret-key", Account: "demo", Disabled: true})
		}, "AuthFailure.SecretIdNotFound"},
		{"a removed key is refused", func(s *Simulator, _ *caller) { s.RemoveKey("AKIDdemo") }, "AuthFailure.SecretIdNotFound"},
		{"a signature for another service is refused", func(_ *Simulator, c *caller) { c.scope = "cvm" }, "AuthFailure.SignatureFailure"},
		{"a signature without the host is refused", func(_ *Simulator, c *caller) { c.signed = []string{"content-type"} }, "AuthFailure.SignatureFailure"},
		{"a content type other than the signed one is refused", func(_ *Simulator, c *caller) {
			c.tamper = func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }
		}, "AuthFailure.SignatureFailure"},
		{"an action other than the signed one is refused", func(_ *Simulator, c *caller) {
			c.tamper = func(r *http.Request) { r.Header.Set("X-TC-Action", "DescribePrefetchTasks") }
		}, "AuthFailure.SignatureFailure"},
		{"a timestamp other than the signed one is refused", func(_ *Simulator, c *caller) {
			c.tamper = func(r *http.Request) { r.Header.Set("X-TC-Timestamp", strconv.FormatInt(time.Now().Unix()+1, 10)) }
		}, "AuthFailure.SignatureFailure"},
		{"a signature of five minutes is accepted", func(_ *Simulator, c *caller) { c.signedAt = after(-5 * time.Minute) }, ""},
		{"an older one is refused", func(_ *Simulator, c *caller) { c.signedAt = after(-301 * time.Second) }, "AuthFailure.SignatureExpire"},
		{"a later one is refused", func(_ *Simulator, c *caller) { c.signedAt = after(301 * time.Second) }, "AuthFailure.SignatureExpire"},
		{"the age counts on EdgeOne's clock", func(s *Simulator, _ *caller) { s.SetClockOffset(time.Hour) }, "AuthFailure.SignatureExpire"},
		{"a token that nobody asked for is refused", func(_ *Simulator, c *caller) { c.token = "a" }, "AuthFailure.TokenFailure"},
		{"a missing token is refused", func(s *Simulator, _ *caller) {
			s.SetKey(Key{SecretID: "AKIDdemo", SecretKey: "demo-secret-key", Account: "demo", Token: "a"})
		}, "AuthFailure.TokenFailure"},
		{"the right token is accepted", func(s *Simulator, c *caller) {
			s.SetKey(Key{SecretID: "AKIDdemo", SecretKey: "demo-secret-key", Account: "demo", Token: "a"})
			c.token = "a"
		}, ""},
		{"no Authorization is refused", func(_ *Simulator, c *caller) {
			c.tamper = func(r *http.Request) { r.Header.Del("Authorization") }
		}, "MissingParameter"},
		{"an Authorization of another kind is refused", func(_ *Simulator, c *caller) {
			c.tamper = func(r *http.Request) { r.Header.Set("Authorization", "Basic Zm9vOmJhcg==") }
		}, "AuthFailure.InvalidAuthorization"},
		{"another version is refused", func(_ *Simulator, c *caller) { c.version = "2022-01-06" }, "NoSuchVersion"},
		{"a form is refused", func(_ *Simulator, c *caller) { c.contentType = "application/x-www-form-urlencoded" }, "InvalidParameter"},
		{"a key that may not call the action is refused", func(s *Simulator, _ *caller) {
			s.SetKey(Key{SecretID: "AKIDdemo", SecretKey: "demo-secret-key", Account: "demo", Actions: []string{"DescribePrefetchTasks"}})
		}, "UnauthorizedOperation.CamUnauthorized"},
		{"a key that may not use the zone is refused", func(s *Simulator, _ *caller) {
			s.SetKey(Key{SecretID: "AKIDdemo", SecretKey: "demo-secret-key", Account: "demo", Zones: []string{"zone-ajj243dwrew"}})
		}, "UnauthorizedOperation.NoPermission"},
		{"a zone of another account is not found", func(_ *Simulator, c *caller) {
			c.secretID, c.key = "AKIDtenant", "tenant-secret-key"
		}, "InvalidParameter.ZoneNotFound"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Demo())
				defer s.Close()
				c := inMemory(t, s)
				tt.bend(s, &c)
				r := c.create("a")
				if r.err != nil || r.status != http.StatusOK || r.RequestID == "" {
					t.Fatalf("got %d %s, %v", r.status, r.body, r.err)
				}
				expect(t, "code", r.code, tt.code)
				executed := 0
				if tt.code == "" {
					executed = 1
				}
				expect(t, "executed", s.Executed("https://www.example.com/a"), executed)
			})
		})
	}
}

func TestUnknownActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		expect(t, "code", inMemory(t, s).call("CreateZone", params{}).code, "InvalidAction")
	})
}
