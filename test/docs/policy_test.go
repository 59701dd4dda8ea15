package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// schema is what the test reads of a schema of the CRD.
type schema struct {
	Description string            `json:"description"`
	Properties  map[string]schema `json:"properties"`
}

// statusFields returns the names of the fields of a kind's status. Former names are not for
// readers.
func statusFields(t *testing.T, plural string) (fields []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "config/crd/bases/teo.prefetch-operator.io_"+plural+".yaml"))
	must(t, err)
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema schema `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	must(t, yaml.Unmarshal(text, &crd))
	for name, field := range crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"].Properties {
		if !strings.Contains(field.Description, "is the former name of") {
			fields = append(fields, name)
		}
	}
	if len(fields) < 7 {
		t.Fatalf("the status of %s has the fields %q", plural, fields)
	}
	return fields
}

// The page on the API policy names each field of the status of a PrefetchTask with its level,
// as status.name, and no others.
func TestTheAPIPolicyNamesEachFieldOfTheStatus(t *testing.T) {
	fields := statusFields(t, "prefetchtasks")
	var named []string
	statusField := regexp.MustCompile(`^status\.(\w+)`)
	byPath(t)["docs/api-policy.md"].code(func(line int, code string) {
		m := statusField.FindStringSubmatch(code)
		if m == nil {
			return
		}
		named = append(named, m[1])
		if !slices.Contains(fields, m[1]) {
			t.Errorf("docs/api-policy.md:%d: there is no field %s", line, m[0])
		}
	})
	for _, field := range fields {
		if !slices.Contains(named, field) {
			t.Errorf("docs/api-policy.md does not say which level status.%s has", field)
		}
	}
}

// The row about the status of an EdgeOneAccount names each field, and no others.
func TestTheAPIPolicyNamesEachFieldOfTheStatusOfAccounts(t *testing.T) {
	_, section, _ := strings.Cut(byPath(t)["docs/api-policy.md"].prose, "## EdgeOneAccount\n")
	row := regexp.MustCompile(`(?m)^\| (.*) in the status \|`).FindStringSubmatch(section)
	if row == nil {
		t.Fatal("docs/api-policy.md has no row about the status of an EdgeOneAccount")
	}
	var named []string
	for _, code := range inlineCode.FindAllString(row[1], -1) {
		named = append(named, strings.Trim(code, "`"))
	}
	fields := statusFields(t, "edgeoneaccounts")
	slices.Sort(fields)
	slices.Sort(named)
	if !slices.Equal(fields, named) {
		t.Errorf("docs/api-policy.md names the fields %q, want %q", named, fields)
	}
}
