package cli

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// faulty is standard output that cannot be written to, because of a fault.
type faulty struct{}

func (faulty) Write([]byte) (int, error) { panic("out of range") }

func TestAFaultOfTheProgramIsNoFailedTarget(t *testing.T) {
	stderr := &bytes.Buffer{}
	code := Main(t.Context(), []string{"version", "--client"}, genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: faulty{}, ErrOut: stderr}, "v1")
	if code != ExitError || !strings.HasPrefix(stderr.String(), "Error: a fault of this program, please report it: out of range\n") {
		t.Errorf("%d: %s", code, stderr)
	}
}
