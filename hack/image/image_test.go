package main

import (
	"archive/tar"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var here = v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// binary returns the path of a Go program for this platform: the test itself.
func binary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

func newOptions(t *testing.T) *options {
	t.Helper()
	return &options{
		name: "registry.example/team/operator", version: "v1.2.3", revision: "abc", created: time.Unix(1700000000, 0).UTC(),
		base: scratch, out: filepath.Join(t.TempDir(), "dist"),
	}
}

// newRegistry starts a registry on this machine and returns a repository in it.
func newRegistry(t *testing.T) (repository string) {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://") + "/team/operator"
}

func pull(t *testing.T, ref string) v1.ImageIndex {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	must(t, err)
	index, err := remote.Index(parsed)
	must(t, err)
	return index
}

func digestOf(t *testing.T, of interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	digest, err := of.Digest()
	must(t, err)
	return digest.String()
}

func TestWhatIsPushedIsWhatIsWritten(t *testing.T) {
	o := newOptions(t)
	o.push = newRegistry(t)
	said := &strings.Builder{}
	must(t, o.run(t.Context(), []string{binary(t)}, said))
	pushed := pull(t, o.push+":v1.2.3")
	if err := validate.Index(pushed); err != nil { // as `crane validate` does
		t.Error(err)
	}
	top, err := layout.ImageIndexFromPath(filepath.Join(o.out, "image"))
	must(t, err)
	manifest, err := top.IndexManifest()
	must(t, err)
	if written := manifest.Manifests[0].Digest.String(); written != digestOf(t, pushed) || !strings.Contains(said.String(), o.push+":v1.2.3@"+written) {
		t.Errorf("%s was written, %s pushed, and it said\n%s", written, digestOf(t, pushed), said)
	}
	image, err := pick(pushed, here)
	must(t, err)
	layers, err := image.Layers()
	must(t, err)
	if len(layers) != 1 {
		t.Errorf("%d layers upon scratch, want 1", len(layers))
	}
}

func TestTheProgramIsPutUponTheBase(t *testing.T) {
	newBase := func(format types.MediaType, platform v1.Platform) v1.Image {
		image, err := random.Image(100, 2)
		must(t, err)
		config, err := image.ConfigFile()
		must(t, err)
		config = config.DeepCopy()
		config.OS, config.Architecture = platform.OS, platform.Architecture
		config.Config = v1.Config{Env: []string{"SSL_CERT_FILE=/roots"}, Cmd: []string{"sh"}, User: "root", Labels: map[string]string{"of": "base"}}
		image, err = mutate.ConfigFile(image, config)
		must(t, err)
		return mutate.MediaType(image, format)
	}
	other := v1.Platform{OS: here.OS, Architecture: "riscv64"}
	for _, format := range []types.MediaType{types.OCIManifestSchema1, types.DockerManifestSchema2} {
		base := newBase(format, here)
		index := mutate.AppendManifests(empty.Index,
			mutate.IndexAddendum{Add: newBase(format, other), Descriptor: v1.Descriptor{Platform: &other}},
			mutate.IndexAddendum{Add: base, Descriptor: v1.Descriptor{Platform: &here}})
		repository := newRegistry(t)
		tag, err := name.NewTag(repository + ":base")
		must(t, err)
		must(t, remote.WriteIndex(tag, index))
		flat, nested := t.TempDir(), t.TempDir()
		_, err = layout.Write(flat, index)
		must(t, err)
		path, err := layout.Write(nested, empty.Index)
		must(t, err)
		must(t, path.AppendIndex(index))

		for from, baseName := range map[string]string{flat: "", nested: "", repository + ":base": repository + ":base"} {
			o := newOptions(t)
			o.base = from
			o.out = t.TempDir()
			built, err := o.index(t.Context(), []string{binary(t)})
			must(t, err)
			image, err := pick(built, here)
			must(t, err)
			layers, err := image.Layers()
			must(t, err)
			baseLayers, err := base.Layers()
			must(t, err)
			if len(layers) != 3 || digestOf(t, layers[0]) != digestOf(t, baseLayers[0]) || digestOf(t, layers[1]) != digestOf(t, baseLayers[1]) {
				t.Errorf("%s from %s: %d layers", format, from, len(layers))
			}
			config, err := image.ConfigFile()
			must(t, err)
			c := config.Config
			if len(c.Env) != 1 || len(c.Cmd) > 0 || c.User != nobody || len(c.Entrypoint) != 1 || c.Labels["of"] != "base" {
				t.Errorf("%s from %s: %+v", format, from, c)
			}
			if c.Labels["org.opencontainers.image.base.digest"] != digestOf(t, base) || c.Labels["org.opencontainers.image.base.name"] != baseName {
				t.Errorf("%s from %s: %v", format, from, c.Labels)
			}
		}
	}
}

func TestWhatCannotBeBuiltIsSaid(t *testing.T) {
	noGo := filepath.Join(t.TempDir(), "program")
	must(t, os.WriteFile(noGo, []byte("#!/bin/sh\n"), 0o755))
	otherPlatform := t.TempDir()
	_, err := layout.Write(otherPlatform, empty.Index)
	must(t, err)
	none := newRegistry(t)
	for _, tt := range []struct {
		name   string
		change func(*options)
		binary string
		want   string
	}{
		{"a version that is no tag", func(o *options) { o.version = "v1.2.3+4" }, "", "v1.2.3+4"},
		{"a name without a registry", func(o *options) { o.name = "operator" }, "", "name operator and"},
		{"no Go program", func(*options) {}, noGo, noGo},
		{"no program", func(*options) {}, "nowhere", "nowhere"},
		{"a base for other platforms", func(o *options) { o.base = otherPlatform }, "", "for " + here.String() + ": there is no image for this platform"},
		{"a base that is not there", func(o *options) { o.base = none + ":missing" }, "", "base " + none + ":missing"},
		{"a folder that is no base", func(o *options) { o.base = filepath.Dir(noGo) }, "", "index.json"},
		{"a registry that does not answer", func(o *options) { o.push = "127.0.0.1:1/operator" }, "", "pushing to 127.0.0.1:1/operator:v1.2.3"},
		{"a tag where the version's belongs", func(o *options) { o.push = none + ":latest" }, "", "cannot push to " + none + ":latest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOptions(t)
			tt.change(o)
			if tt.binary == "" {
				tt.binary = binary(t)
			}
			if err := o.run(t.Context(), []string{tt.binary}, io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it says %v, want %q", err, tt.want)
			}
		})
	}
	if err := newOptions(t).run(t.Context(), nil, io.Discard); err == nil {
		t.Error("an image without a program")
	}
}

func TestAnImageHasTheProgramsOfItsPlatform(t *testing.T) {
	source := t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "go.mod"), []byte("module example.com/nothing\n\ngo 1.26\n"), 0o644))
	for _, name := range []string{"first", "second"} {
		must(t, os.Mkdir(filepath.Join(source, name), 0o755))
		must(t, os.WriteFile(filepath.Join(source, name, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o644))
	}
	var programs []string
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", arch+"/", "./...")
		cmd.Dir, cmd.Env = source, append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		programs = append(programs, filepath.Join(source, arch, "second"), filepath.Join(source, arch, "first"))
	}
	o := newOptions(t)
	o.push = newRegistry(t)
	must(t, o.run(t.Context(), programs, io.Discard))
	index := pull(t, o.push+":v1.2.3")
	manifest, err := index.IndexManifest()
	must(t, err)
	var got []string
	for _, d := range manifest.Manifests {
		got = append(got, d.Platform.String())
	}
	if want := "linux/amd64 linux/arm64 unknown/unknown unknown/unknown"; strings.Join(got, " ") != want {
		t.Errorf("the image is for %v, want %s", got, want)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := pick(index, v1.Platform{OS: "linux", Architecture: arch})
		must(t, err)
		config, err := image.ConfigFile()
		must(t, err)
		if names := listFiles(t, image); strings.Join(names, " ") != "second first" || config.Config.Entrypoint[0] != "/second" {
			t.Errorf("it has %v and starts %v", names, config.Config.Entrypoint)
		}
		sbom, err := os.ReadFile(filepath.Join(o.out, "sbom-linux-"+arch+".spdx.json"))
		must(t, err)
		for text, times := range map[string]int{
			`"pkg:golang/example.com/nothing@v1.2.3#first"`: 1, `"pkg:golang/example.com/nothing@v1.2.3#second"`: 1,
			`"pkg:golang/stdlib@`: 1, `"DESCRIBES"`: 2, `"DEPENDS_ON"`: 2,
		} {
			if n := strings.Count(string(sbom), text); n != times {
				t.Errorf("%d times %s, want %d, in\n%s", n, text, times, sbom)
			}
		}
	}
}

// listFiles returns the names of the files in an image, in their order.
func listFiles(t *testing.T, image v1.Image) (names []string) {
	t.Helper()
	files := mutate.Extract(image)
	defer func() { _ = files.Close() }()
	for r := tar.NewReader(files); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		must(t, err)
		names = append(names, h.Name)
	}
}
