package target

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// test/e2e sends the same cases to the API server.
func TestCheck(t *testing.T) {
	text, err := os.ReadFile("testdata/check.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Problem string
		URLs          []string
	}
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	for _, tt := range cases {
		t.Run(tt.Name, func(t *testing.T) {
			for _, u := range tt.URLs {
				if got := Check(u); got != tt.Problem {
					t.Errorf("%q: %q, want %q", u, got, tt.Problem)
				}
			}
		})
	}
}

func TestALengthCountsCharacters(t *testing.T) {
	const h = "https://h/"
	if got := Check(h + strings.Repeat("ü", MaxLength-len(h))); got != "" {
		t.Errorf("as long as it may be: %s", got)
	}
	if got := Check(h + strings.Repeat("ü", MaxLength-len(h)+1)); got != "must not be longer than 2048 characters" {
		t.Errorf("too long: %q", got)
	}
}

func TestWhatIsNoTextIsNoTarget(t *testing.T) {
	for _, u := range []string{"", "https://h/\xff"} {
		if Check(u) == "" {
			t.Errorf("%q is taken", u)
		}
	}
}

// Check also accepts the encoded form of each URL that it accepts, unless that is too
// long.
func FuzzCheck(f *testing.F) {
	for _, s := range urlSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if Check(s) != "" {
			t.Skip()
		}
		if problem := Check(Encode(s)); problem != "" && len(Encode(s)) <= MaxLength {
			t.Errorf("%q is taken, and as sent, %q, it is not: %s", s, Encode(s), problem)
		}
	})
}
