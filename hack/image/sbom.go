package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime/debug"
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

// sbom lists what is linked into a binary, according to the binary's build information:
// the program, Go's standard library and the modules. It contains known facts only.
func (o *options) sbom(info *buildinfo.BuildInfo, binary []byte, platform v1.Platform) ([]byte, error) {
	const documentID = "SPDXRef-DOCUMENT"
	sum := sha256.Sum256(binary)
	digest := hex.EncodeToString(sum[:])
	doc := document{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: documentID,
		Name:      fmt.Sprintf("%s %s for %s", info.Main.Path, o.version, platform),
		Namespace: fmt.Sprintf("https://%s/sbom/%s", info.Main.Path, digest),
		Creation:  creation{Created: o.created.Format(time.RFC3339), Creators: []string{"Tool: " + info.Main.Path + "/hack/image"}},
	}
	main := goModule("SPDXRef-main", info.Main.Path, o.version)
	main.FileName, main.LicenseDeclared = "/"+program, "Apache-2.0"
	main.Checksums = []checksum{{"SHA256", digest}}
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	doc.Packages = []spdxPackage{main, goModule("SPDXRef-stdlib", "stdlib", goVersion)}
	for i, module := range info.Deps {
		doc.Packages = append(doc.Packages, goModule(fmt.Sprintf("SPDXRef-module-%d", i+1), replaced(module).Path, replaced(module).Version))
	}
	doc.Relationships = []relationship{{documentID, "DESCRIBES", main.ID}}
	for _, p := range doc.Packages[1:] {
		doc.Relationships = append(doc.Relationships, relationship{main.ID, "DEPENDS_ON", p.ID})
	}
	return json.MarshalIndent(doc, "", "  ")
}

func replaced(module *debug.Module) *debug.Module {
	if module.Replace != nil {
		return module.Replace
	}
	return module
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
