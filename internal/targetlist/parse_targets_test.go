package targetlist

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestAListHasOneURLALine(t *testing.T) {
	const a, b = "https://h/a", "http://h/b?c=1#d"
	tests := []struct {
		name, text string
		want       []v1alpha1.Target
		problem    string
	}{
		{"two lines", a + "\n" + b + "\n", []v1alpha1.Target{a, b}, ""},
		{"no line break at the end", a + "\n" + b, []v1alpha1.Target{a, b}, ""},
		{"Windows' line breaks", a + "\r\n\r\n" + b + "\r\n", []v1alpha1.Target{a, b}, ""},
		{"Windows' byte order mark", "\ufeff" + a, []v1alpha1.Target{a}, ""},
		{"blank lines and comments", "# x\n\n" + a + "\n \t\n  # y\n" + b, []v1alpha1.Target{a, b}, ""},
		{"space around a URL", "  " + a + "\t\n", []v1alpha1.Target{a}, ""},
		{"a URL twice", a + "\n" + b + "\n" + a, []v1alpha1.Target{a, b}, ""},
		{"nothing", "", nil, "it has no URLs"},
		{"only comments", "# x\n", nil, "it has no URLs"},
		{"no scheme", a + "\n\nh/a", nil, `line 3, "h/a": must be a full URL that starts with http:// or https://`},
		{"a comment behind a URL", a + " # x", nil, `line 1, "https://h/a # x": must not have spaces`},
		{"a wildcard", "https://h/*", nil, "must not have a wildcard"},
		{"no host", "https:///a", nil, "must be a valid URL: a host name"},
		{"a bad escape", "https://h/%zz", nil, "write a literal % as %25"},
		{"a character that cannot be seen", a + "\u200b", nil, `line 1, "https://h/a\u200b": must not have control, zero-width or other invisible characters`},
		{"a no-break space at the end", a + "\u00a0", nil, `line 1, "https://h/a\u00a0": must not have spaces, no-break or others`},
		{"a line that is too long", "https://h/" + strings.Repeat("x", 2048), nil, `x…": must not be longer than 2048 characters`},
		{"as long as it may be", "https://h/" + strings.Repeat("ü", 2038), []v1alpha1.Target{v1alpha1.Target("https://h/" + strings.Repeat("ü", 2038))}, ""},
		{"too many", manyLines(taskstate.MaxTargets + 1), nil, "line 10001: a task has at most 10000 URLs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseTargets(tt.text)
			if tt.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tt.problem) {
					t.Errorf("%v, want %q in it", err, tt.problem)
				}
			} else if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if got, err := ParseTargets(manyLines(taskstate.MaxTargets)); err != nil || len(got) != taskstate.MaxTargets {
		t.Errorf("%d of as many as there may be, %v", len(got), err)
	}
}

func manyLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "https://h/%d\n", i)
	}
	return b.String()
}
