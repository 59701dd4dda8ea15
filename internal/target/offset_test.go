package target

import "testing"

func TestOffsetFindsTheProblem(t *testing.T) {
	for rawURL, want := range map[string]int{
		"https://h/a": 0, "h/a": 0, "https:///": 0,
		"https://h/*": 10, "https://h/ü b": 12, "https://h/a\u200bb": 11, "https://h/a\xffb": 11,
		`https://h/\`: 10, "https://h/?a&amp;b": 12, "https://h/%41%4": 13, "https://h/%41%zz": 13, "https://h/%": 10,
	} {
		if got := Offset(rawURL); got != want {
			t.Errorf("%q: %d, want %d", rawURL, got, want)
		}
	}
}

func FuzzOffset(f *testing.F) {
	for _, s := range urlSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if at := Offset(s); at < 0 || at > len(s) || Check(s) == "" && at != 0 {
			t.Errorf("%q: %d", s, at)
		}
	})
}
