package cli

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestThePageOfTheOutputHasEveryField(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli/output.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for section := range strings.SplitSeq(string(text), "\n## ") {
		name, rest, _ := strings.Cut(section, "\n")
		sections[name] = rest
	}
	for _, document := range []any{WaitResult{}, PlanResult{}, WhyResult{}, FailedResult{}, ActResult{}, QuotaResult{}, VerifyResult{}, VersionResult{}} {
		of := reflect.TypeOf(document)
		for _, field := range fieldNames(of) {
			if !regexp.MustCompile("[.`]" + field + "\\b").MatchString(sections[of.Name()]) {
				t.Errorf("%s: the page does not have the field %s", of.Name(), field)
			}
		}
	}
}

// fieldNames returns the names of all fields in the JSON of a type, but for its header.
func fieldNames(of reflect.Type) (names []string) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of == reflect.TypeFor[OutputHeader]() || of.PkgPath() == "time" {
		return nil
	}
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" {
			names = append(names, name)
		}
		names = append(names, fieldNames(field.Type)...)
	}
	return names
}

func TestTablesAreAligned(t *testing.T) {
	var b strings.Builder
	of := table{header: []string{"A", "LONG"}, rows: [][]cell{{{text: "é"}, {text: "x", color: colorRed}}, {{}, {text: "y"}}}}
	if err := of.print(&b, painter{isOn: true}); err != nil {
		t.Fatal(err)
	}
	if want := "A        LONG\né        \x1b[31mx\x1b[0m\n<none>   y\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
