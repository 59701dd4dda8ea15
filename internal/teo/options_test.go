package teo

import (
	"strings"
	"testing"
	"time"
)

func TestEndpoints(t *testing.T) {
	for _, tt := range []struct{ endpoint, host, problem string }{
		{"", "teo.intl.tencentcloudapi.com", ""},
		{"https://teo.tencentcloudapi.com/", "teo.tencentcloudapi.com", ""},
		{"https://TEO.tencentcloudapi.com:443", "teo.tencentcloudapi.com", ""},
		{"https://proxy.example:8443", "proxy.example:8443", ""},
		{"https://[2001:db8::1]:444", "[2001:db8::1]:444", ""},
		{"http://127.0.0.1:8080", "127.0.0.1:8080", ""},
		{"http://127.8.9.1:80", "127.8.9.1", ""},
		{"http://[::1]:8080/", "[::1]:8080", ""},
		{"http://localhost", "localhost", ""},
		{"http://teo.tencentcloudapi.com", "", "plain http"},
		{"http://localhost.example.com", "", "plain http"},
		{"http://128.0.0.1", "", "plain http"},
		{"teo.tencentcloudapi.com", "", "https://"},
		{"teo.tencentcloudapi.com:443", "", "https://"},
		{"ftp://localhost", "", "https://"},
		{"https://", "", "host"},
		{"https://:443", "", "host"},
		{"https://é.example", "", "host"},
		{"http://[::1%25lo]", "", "host"},
		{"https://h/path", "", "without path"},
		{"https://h?q", "", "without path"},
		{"https://h?", "", "without path"},
		{"https://h/#f", "", "without path"},
		{"https://user:swordfish@h", "", "user or password"},
		{"https://user:swordfish@h:port", "", "not a URL"},
	} {
		t.Run(tt.endpoint, func(t *testing.T) {
			c, err := NewClient(Options{Endpoint: tt.endpoint})
			switch {
			case tt.problem == "" && err != nil:
				t.Error(err)
			case tt.problem == "" && c.endpoint.Host != tt.host:
				t.Errorf("host %q, want %q", c.endpoint.Host, tt.host)
			case tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem) || strings.Contains(err.Error(), "swordfish")):
				t.Errorf("got error %v, want one about %q", err, tt.problem)
			}
		})
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"too few calls a second":   {QPS: -1},
		"too many calls a second":  {QPS: 1001},
		"a negative timeout":       {Timeout: -time.Second},
		"a negative validity":      {SignatureValidity: -time.Second},
		"a line break in a header": {UserAgent: "a\r\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewClient(o); err == nil {
				t.Error("accepted")
			}
		})
	}
	if _, err := NewClient(Options{QPS: 1000}); err != nil {
		t.Error(err)
	}
}
