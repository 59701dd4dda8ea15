package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const predicateType = "https://spdx.dev/Document"

// The parts of SPDX 2.3 that describe a list of Go modules.
type (
	document struct {
		Version       string         `json:"spdxVersion"`
		DataLicense   string         `json:"dataLicense"`
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Namespace     string         `json:"documentNamespace"`
		Creation      creation       `json:"creationInfo"`
		Packages      []spdxPackage  `json:"packages"`
		Relationships []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID               string        `json:"SPDXID"`
		Name             string        `json:"name"`
		Version          string        `json:"versionInfo"`
		FileName         string        `json:"packageFileName,omitempty"`
		DownloadLocation string        `json:"downloadLocation"`
		FilesAnalyzed    bool          `json:"filesAnalyzed"`
		LicenseConcluded string        `json:"licenseConcluded"`
		LicenseDeclared  string        `json:"licenseDeclared"`
		Copyright        string        `json:"copyrightText"`
		Checksums        []checksum    `json:"checksums,omitempty"`
		References       []externalRef `json:"externalRefs"`
	}
	checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	externalRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

// sbom lists the programs of a platform and what is linked into them, according to their
// build information: Go's standard library and the modules. It contains known facts only.
func (o *options) sbom(c platformContent) ([]byte, error) {
	const documentID = "SPDXRef-DOCUMENT"
	module := c.programs[0].info.Main.Path
	digest := sha256.New()
	for _, p := range c.programs {
		_, _ = digest.Write(p.binary)
	}
	doc := document{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: documentID,
		Name:      fmt.Sprintf("%s %s for %s", module, o.version, c.platform),
		Namespace: fmt.Sprintf("https://%s/sbom/%x", module, digest.Sum(nil)),
		Creation:  creation{Created: o.created.Format(time.RFC3339), Creators: []string{"Tool: " + module + "/hack/image"}},
	}
	var components []spdxPackage // each once, although several programs contain it
	for i, p := range c.programs {
		main := o.describeProgram(fmt.Sprintf("SPDXRef-program-%d", i+1), p)
		doc.Packages = append(doc.Packages, main)
		doc.Relationships = append(doc.Relationships, relationship{documentID, "DESCRIBES", main.ID})
		for _, m := range linkedModules(p.info) {
			at := slices.IndexFunc(components, func(c spdxPackage) bool { return c.Name == m.Path && c.Version == m.Version })
			if at < 0 {
				at = len(components)
				components = append(components, goModule(fmt.Sprintf("SPDXRef-module-%d", at+1), m.Path, m.Version))
			}
			doc.Relationships = append(doc.Relationships, relationship{main.ID, "DEPENDS_ON", components[at].ID})
		}
	}
	doc.Packages = append(doc.Packages, components...)
	return json.MarshalIndent(doc, "", "  ")
}

// describeProgram returns the package of a program. Its name is that of the Go package, to
// tell programs of one module apart.
func (o *options) describeProgram(id string, p program) spdxPackage {
	described := goModule(id, p.info.Main.Path, o.version)
	if subpath, ok := strings.CutPrefix(p.info.Path, p.info.Main.Path+"/"); ok {
		described.Name = p.info.Path
		described.References[0].Locator += "#" + subpath
	}
	described.FileName, described.LicenseDeclared = "/"+p.name, "Apache-2.0"
	described.Checksums = []checksum{{"SHA256", fmt.Sprintf("%x", sha256.Sum256(p.binary))}}
	return described
}

// linkedModules returns the standard library and the modules in a program, with replaced
// ones as what they are replaced by.
func linkedModules(info *buildinfo.BuildInfo) []debug.Module {
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	modules := []debug.Module{{Path: "stdlib", Version: goVersion}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, *m)
	}
	return modules
}

func goModule(id, path, version string) spdxPackage {
	const unknown = "NOASSERTION"
	return spdxPackage{
		ID: id, Name: path, Version: version,
		DownloadLocation: unknown, LicenseConcluded: unknown, LicenseDeclared: unknown, Copyright: unknown,
		References: []externalRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")}},
	}
}

// attest wraps the SBOM of an image in an attestation manifest like BuildKit's: an in-toto
// statement about the image's digest. The manifest is part of the index, so it is copied
// together with the image. Its platform is unknown, so nothing runs it.
func attest(image v1.Image, sbom []byte, name string) (mutate.IndexAddendum, error) {
	const mediaType types.MediaType = "application/vnd.in-toto+json"
	digest, err := image.Digest()
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	statement, err := json.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v0.1",
		"predicateType": predicateType,
		"subject":       []any{map[string]any{"name": name, "digest": map[string]string{digest.Algorithm: digest.Hex}}},
		"predicate":     json.RawMessage(sbom),
	})
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	none := v1.Platform{OS: "unknown", Architecture: "unknown"}
	attestation := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	attestation, err = mutate.Append(attestation, mutate.Addendum{
		Layer: static.NewLayer(statement, mediaType), MediaType: mediaType,
		Annotations: map[string]string{"in-toto.io/predicate-type": predicateType},
	})
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	config, err := attestation.ConfigFile()
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = none.OS, none.Architecture
	config.RootFS.DiffIDs, config.History = []v1.Hash{}, nil // a statement is not a layer of a file system
	attestation, err = mutate.ConfigFile(attestation, config)
	return mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{
		Platform: &none,
		Annotations: map[string]string{
			"vnd.docker.reference.type":   "attestation-manifest",
			"vnd.docker.reference.digest": digest.String(),
		},
	}}, err
}
