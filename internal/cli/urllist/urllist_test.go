package urllist

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
)

func read(text string) (List, error) {
	var list List
	err := Read(strings.NewReader(text), "urls.txt", list.Add)
	return list, err
}

func TestAListHasOneURLALine(t *testing.T) {
	list, err := read("\ufeff# x\n\n  https://h/a\t\r\nhttps://h/b\n #y\nhttps://h/a")
	if err != nil || !slices.Equal(list.URLs, []v1alpha1.Target{"https://h/a", "https://h/b"}) || list.Duplicates != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestAnErrorHasLineAndColumn(t *testing.T) {
	for text, want := range map[string]string{
		"https://h/\n\n  h/a":          `urls.txt:3:3: "h/a" must be a full URL`,
		"https://h/ü # x":              `urls.txt:1:12: "https://h/ü # x" must not have spaces`,
		"\ufeffhttps://h/*":            `urls.txt:1:11: "https://h/*" must not have a wildcard`,
		"https://h/%41%zz":             `urls.txt:1:14: "https://h/%41%zz" must have two hexadecimal digits`,
		strings.Repeat("x", maxLine+1): `urls.txt:1:1: the line is longer than 65536 bytes`,
	} {
		if _, err := read(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	err := Read(iotest.ErrReader(errors.New("broken")), "urls.txt", func(string) error { return nil })
	if err == nil || err.Error() != "urls.txt cannot be read: broken" {
		t.Error(err)
	}
}

func TestAnErrorNamesTheFirstWrongLines(t *testing.T) {
	for n, want := range map[int]string{
		2: `urls.txt:1:1: "bad0" must be a full URL that starts with http:// or https://; urls.txt:2:1: "bad1" must be a full URL that starts with http:// or https://`,
		6: `; and 1 more line`,
		9: `; and 4 more lines`,
	} {
		var text strings.Builder
		for i := range n {
			_, _ = fmt.Fprintf(&text, "bad%d\n", i)
		}
		list, err := read(text.String() + "https://h/")
		if err == nil || !strings.HasSuffix(err.Error(), want) || strings.Count(err.Error(), "urls.txt:") != min(n, maxWrongLines) || len(list.URLs) != 0 {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestASplitFillsTasksUpToTheirLimits(t *testing.T) {
	sizes := func(urls []v1alpha1.Target, reserved int) (sizes []int) {
		for _, part := range Split(urls, reserved) {
			sizes = append(sizes, len(part))
		}
		return sizes
	}
	short := make([]v1alpha1.Target, 2*MaxTargets+1)
	for i := range short {
		short[i] = v1alpha1.Target(fmt.Sprintf("https://h/%d", i))
	}
	if got := sizes(short, 0); !slices.Equal(got, []int{MaxTargets, MaxTargets, 1}) {
		t.Error(got)
	}
	if got := sizes(short[:MaxTargets], 0); !slices.Equal(got, []int{MaxTargets}) {
		t.Error(got)
	}
	long := slices.Repeat([]v1alpha1.Target{v1alpha1.Target(strings.Repeat("x", 1997))}, 775)
	if got := sizes(long, 0); !slices.Equal(got, []int{775}) {
		t.Error(got)
	}
	if got := sizes(long, 1); !slices.Equal(got, []int{774, 1}) {
		t.Error(got)
	}
	if got := sizes(nil, 0); got != nil {
		t.Error(got)
	}
}

// A list is accepted here if it is accepted in a ConfigMap, and has the same URLs there.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"", "https://h/a\nhttps://h/b", "\ufeff#\n\nh", "https://h/ \r\n", "https://h/\r\r\n", "https://h/%4\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := read(text)
		want, wantErr := targetlist.ParseTargets(text)
		if isEmpty := err == nil && len(list.URLs) == 0; (err != nil || isEmpty) != (wantErr != nil) || !slices.Equal(list.URLs, want) && err == nil {
			t.Errorf("%q, %v; in a ConfigMap %q, %v", list.URLs, err, want, wantErr)
		}
		for _, u := range list.URLs {
			if target.Check(string(u)) != "" {
				t.Errorf("%q is taken", u)
			}
		}
	})
}
