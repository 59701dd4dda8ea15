package main

import (
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// Without this test, a mutation that no longer fits the code would silently be skipped.
func TestEveryMutationFitsTheCode(t *testing.T) {
	sources, err := readSources("../..")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range mutations {
		if names[m.name] || m.name == "" {
			t.Errorf("%q is there twice, or has no name", m.name)
		}
		names[m.name] = true
		at, err := m.locate(sources)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		switch changed, err := m.apply(at); {
		case err != nil:
			t.Errorf("%s: %v", m.name, err)
		case changed == at.text:
			t.Errorf("%s changes nothing", m.name)
		default:
			if _, err := parser.ParseFile(token.NewFileSet(), at.path, changed, parser.SkipObjectResolution); err != nil {
				t.Errorf("%s leaves no Go: %v", m.name, err)
			}
		}
		if len(m.suites) == 0 {
			t.Errorf("%s: no test is named that should notice", m.name)
		}
	}
	if len(mutations) < 30 {
		t.Errorf("only %d mutations", len(mutations))
	}
}

// A mutation still fits the code after a rename and a move, and then uses the new names.
func TestAMutationSurvivesARename(t *testing.T) {
	m := mutation{file: "internal/b.go", old: "if q.sealed { // so that nothing follows\n\treturn err\n}", new: "if q.sealed && len(q.rest) == 0 { return err }"}
	tests := []struct {
		name, code, want string
	}{
		{"as it was", "if q.sealed {\nreturn err\n}", "if q.sealed && len(q.rest) == 0 { return err }"},
		{"renamed", "if body.closed {\nreturn failure\n}", "if body.closed && len(body.rest) == 0 { return failure }"},
		{"in another package", "if teo.Sealed {\nreturn teo.Err\n}", ""},
		{"with another condition", "if !q.sealed {\nreturn err\n}", ""},
		{"with two names for one", "if q.sealed {\nreturn q\n}", ""},
		{"with one that Go declares", "if q.sealed {\nreturn nil\n}", ""},
		{"twice", "if a.b {\nreturn c\n}\nif d.e {\nreturn f\n}", ""},
		{"twice, once with more of the names", "if a.b {\nreturn err\n}\nif d.e {\nreturn f\n}", "if a.b && len(a.rest) == 0 { return err }\nif d.e {\nreturn f\n}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lexemes, err := scanTokens(tt.code)
			if err != nil {
				t.Fatal(err)
			}
			at, err := m.locate([]source{{"internal/a.go", tt.code, lexemes}})
			if tt.want == "" {
				if err == nil {
					t.Fatalf("fits %q", tt.code[at.start:at.end])
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := m.apply(at); err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// After a move, the things that a fragment uses may be in another package.
func TestAMutationSurvivesAMoveOfWhatItCalls(t *testing.T) {
	m := mutation{old: "if isOver(task) { return errStale }", new: "if isOver(task) && errStale == nil { return errStale }"}
	code := "if taskstate.IsOver(task) {\nreturn kube.ErrStale\n}"
	lexemes, err := scanTokens(code)
	if err != nil {
		t.Fatal(err)
	}
	at, err := m.locate([]source{{"internal/a.go", code, lexemes}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.apply(at); err != nil || got != "if taskstate.IsOver(task) && kube.ErrStale == nil { return kube.ErrStale }" {
		t.Errorf("got %q, %v", got, err)
	}
}

// The list is updated to the names in the current code.
func TestTheListFollowsTheCode(t *testing.T) {
	code := "if body.closed {\nreturn failure\n}"
	lexemes, err := scanTokens(code)
	if err != nil {
		t.Fatal(err)
	}
	list := "package p\nvar _ = []mutation{{name: \"n\", file: \"internal/a.go\",\nold: `if q.sealed { return err }`,\nnew: ``}}\n"
	got, err := updateText(list, []source{{"internal/b/c.go", code, lexemes}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`file: "internal/b/c.go"`, "`if body.closed { return failure }`", "new: ``"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}
