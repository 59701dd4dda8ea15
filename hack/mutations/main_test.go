package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A mutation that no longer fits the code would silently stop being tried.
func TestEveryMutationFitsTheCode(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutations {
		if names[m.name] || m.name == "" {
			t.Errorf("%q is there twice, or has no name", m.name)
		}
		names[m.name] = true
		text, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Error(err)
			continue
		}
		switch changed, err := m.apply(string(text)); {
		case err != nil:
			t.Errorf("%s: %v", m.name, err)
		case changed == string(text):
			t.Errorf("%s changes nothing", m.name)
		}
		if len(m.suites) == 0 {
			t.Errorf("%s: no test is named that should notice", m.name)
		}
	}
	if len(mutations) < 30 {
		t.Errorf("only %d mutations", len(mutations))
	}
}
