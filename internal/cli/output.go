package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// OutputVersion is the apiVersion of everything that -o json and -o yaml print. Fields are
// added under it; none is renamed or removed, and none changes its meaning.
const OutputVersion = "cli.teo.prefetch-operator.io/v1"

// OutputHeader begins each document that -o json and -o yaml print.
type OutputHeader struct {
	// APIVersion is OutputVersion.
	APIVersion string `json:"apiVersion"`
	// Kind says which type the document is, for example WaitResult.
	Kind string `json:"kind"`
}

// newOutputHeader returns the header of a document.
func newOutputHeader(kind string) OutputHeader {
	return OutputHeader{APIVersion: OutputVersion, Kind: kind}
}

// outputFlag is the flag -o. Its zero value prints for people.
type outputFlag struct {
	format  string
	formats []string
}

// addTo adds -o to a command, with json, yaml and further formats.
func (o *outputFlag) addTo(cmd *cobra.Command, further ...string) {
	o.formats = append([]string{"json", "yaml"}, further...)
	cmd.Flags().StringVarP(&o.format, "output", "o", "", "Output format: "+strings.Join(o.formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.formats, cobra.ShellCompDirectiveNoFileComp))
}

// validate refuses a format that the command does not have.
func (o *outputFlag) validate() error {
	if o.format != "" && !slices.Contains(o.formats, o.format) {
		return fmt.Errorf("unknown output format %q: use one of %s", o.format, strings.Join(o.formats, ", "))
	}
	return nil
}

// isStructured reports whether the output is for programs: JSON or YAML.
func (o *outputFlag) isStructured() bool { return o.format == "json" || o.format == "yaml" }

// print writes a document as JSON or YAML.
func (o *outputFlag) print(w io.Writer, document any) error {
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if o.format == "yaml" {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
	}
	_, err = w.Write(text)
	return err
}
