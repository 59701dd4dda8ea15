package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

func TestCommandLine(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(config, []byte(`{"zonez":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"help is asked for", []string{"--help"}, 0, "Usage:", ""},
		{"the configuration is asked for", []string{"--print-config"}, 0, `"AKIDdemo"`, ""},
		{"an unknown flag", []string{"--fast"}, 2, "", "not defined: -fast. See simulator --help."},
		{"an argument", []string{"now"}, 2, "", `unexpected argument "now"`},
		{"a duration without a unit", []string{"--job-duration", "2"}, 2, "", "invalid value"},
		{"a wrong time of day", []string{"--quota-reset", "noon"}, 2, "", "not a time of day"},
		{"a configuration that is not there", []string{"--config", config + "x"}, 2, "", "no such file"},
		{"a configuration with a typo", []string{"--config", config}, 2, "", `unknown field "zonez"`},
		{"an address that cannot be served", []string{"--listen", "203.0.113.1:1"}, 1, "", "listen"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if code := run(t.Context(), tt.args, &stdout, &stderr); code != tt.code {
				t.Errorf("it exits with %d, not %d", code, tt.code)
			}
			if !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("it says %q and %q", stdout.String(), stderr.String())
			}
		})
	}
}

func TestFlagsGoOverTheConfiguration(t *testing.T) {
	o, err := parse([]string{"--qps", "5", "--signature-validity", "10s", "--qps-window", "bucket"})
	if err != nil {
		t.Fatal(err)
	}
	if c := o.config; c.Rate != 5 || c.SignatureValidity != 10*time.Second || c.RateWindow != simulator.TokenBucket || c.JobDuration != 2*time.Second {
		t.Errorf("the configuration is %+v", c)
	}
}

func TestItServesUntilItIsToldToStop(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	exit := make(chan int)
	go func() { exit <- run(ctx, []string{"--listen", "127.0.0.1:0"}, stdout, stdout) }()
	lines := bufio.NewScanner(out)
	lines.Scan()
	url := strings.Fields(lines.Text())[4]

	go func() { // the line that the simulator prints for it is read below
		resp, err := http.Post(url, "application/json", strings.NewReader(`{"ZoneId":"zone-x"}`))
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	lines.Scan()
	if !strings.Contains(lines.Text(), "zone-x") || !strings.HasSuffix(lines.Text(), "MissingParameter") {
		t.Errorf("a call is printed as %q", lines.Text())
	}
	resp, err := http.Get(url + "/_simulator/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	stop()
	if code := <-exit; code != 0 {
		t.Errorf("it exits with %d", code)
	}
}

func TestTheReadmeNamesEveryFieldOfTheConfiguration(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, described := range []any{simulator.Config{}, simulator.Zone{}, simulator.Limits{}, simulator.Key{}, simulator.Rule{}, simulator.Traffic{}} {
		fields := reflect.TypeOf(described)
		for i := range fields.NumField() {
			name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
			if name != "-" && !strings.Contains(string(readme), "`"+name+"`") {
				t.Errorf("%s.%s is not described", fields.Name(), name)
			}
		}
	}
}
