package teo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestPublishedSignatures(t *testing.T) {
	const body = `{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}`
	at := time.Unix(1551113065, 0)
	headers := []SignedHeader{
		{"content-type", contentType}, {"host", "cvm.tencentcloudapi.com"}, {"x-tc-action", "DescribeInstances"},
	}
	for _, tt := range []struct {
		name                         string
		creds                        Credentials
		headers                      []SignedHeader
		list, canonicalSum, expected string
	}{
		{
			"two headers",
			Credentials{SecretID: "AKIDz8krbsJ5yKBZQpn74WFkmLPx3*******", SecretKey: "Gu5t9xGARNpq86cd98joQYCN3*******"},
			headers[:2], "content-type;host",
			"5ffe6a04c0664d6b969fab9a13bdab201d63ee709638e2749d62a09ca18d7031",
			"2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c",
		},
		{
			"the action as well",
			Credentials{SecretID: "AKID" + strings.Repeat("*", 32), SecretKey: strings.Repeat("*", 32)},
			headers, "content-type;host;x-tc-action",
			"7019a55be8395899b900fb5564e4200d984910f34794a27cb3fb7d10ff6a1e84",
			"10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			canonical, _ := canonicalRequest(tt.headers, []byte(body))
			if got := hexSum([]byte(canonical)); got != tt.canonicalSum {
				t.Errorf("canonical request:\n%s\nhas sum %s", canonical, got)
			}
			want := "TC3-HMAC-SHA256 Credential=" + tt.creds.SecretID + "/2019-02-25/cvm/tc3_request, SignedHeaders=" +
				tt.list + ", Signature=" + tt.expected
			if got := Authorization(tt.creds, "cvm", tt.headers, []byte(body), at); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestTheScopeIsTheDayInUTC(t *testing.T) {
	at := time.Date(2026, 1, 1, 7, 0, 0, 0, time.FixedZone("", 8*3600))
	if got := scope("teo", at); got != "2025-12-31/teo/tc3_request" {
		t.Error(got)
	}
}

func TestCredentialsAreNeverPrinted(t *testing.T) {
	c := Credentials{SecretID: "AKIDsecretid", SecretKey: "secretkey", Token: "secrettoken"}
	holder := struct{ Creds Credentials }{c}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "creds", c, "pointer", &c, "holder", holder)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "creds", c, "pointer", &c, "holder", holder)
	encoded, err := json.Marshal([]any{c, &c, holder})
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{log.String(), string(encoded), c.String(), c.GoString()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		texts = append(texts, fmt.Sprintf(verb, c), fmt.Sprintf(verb, &c), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, []Credentials{c}))
	}
	for _, text := range texts {
		for _, secret := range []string{"AKID", "secret", fmt.Sprintf("%x", "secret"), fmt.Sprintf("%X", "secret")} {
			if strings.Contains(text, secret) {
				t.Errorf("%q contains %q", text, secret)
			}
		}
	}
	if c.Hash() == (Credentials{SecretID: "another"}).Hash() || len(c.Hash()) != 16 {
		t.Errorf("hash %q", c.Hash())
	}
	if c.Hash() != (Credentials{SecretID: c.SecretID, SecretKey: "rotated"}).Hash() {
		t.Error("the hash is of more than the SecretID")
	}
}

func BenchmarkSign(b *testing.B) {
	creds := Credentials{SecretID: "AKIDexample", SecretKey: "key"}
	headers := []SignedHeader{{"content-type", contentType}, {"host", "teo.intl.tencentcloudapi.com"}, {"x-tc-action", "CreatePrefetchTask"}}
	body := []byte(`{"Targets":["https://www.example.com/a.jpg"],"ZoneId":"zone-1"}`)
	at := time.Unix(1551113065, 0)
	b.ReportAllocs()
	for b.Loop() {
		Authorization(creds, service, headers, body, at)
	}
}
