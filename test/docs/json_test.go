package docs

import (
	"encoding/json"
	"strings"
	"testing"
)

// Readers copy policies and configurations as they are.
func TestBlocksOfJSONAreJSON(t *testing.T) {
	found := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language != "json" || strings.Contains(b.text(), "…") {
				continue
			}
			found++
			if !json.Valid([]byte(b.text())) {
				t.Errorf("%s:%d: this is not JSON", p.path, b.line)
			}
		}
	}
	if found == 0 {
		t.Error("no page has a block of JSON")
	}
}
