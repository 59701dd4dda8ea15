// Package image tests the results of `make image` and `make release`. It unpacks the image
// as a container engine does, using only the OCI specification, and runs the programs in
// the image.
//
//   - image: the image, its SBOMs, and the programs in it
//   - plugin: the archives of the plugin, and krew with them
//   - release: the release, and that the same source gives the same bytes
//
// Of this repository's Go code, the package imports only test/cluster, to find files and
// run make.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

const (
	version  = "v0.0.0-test"
	revision = "0123456789abcdef0123456789abcdef01234567"
	created  = "2023-11-14T22:13:20Z" // 1700000000
	user     = 65532
)

// programs are the programs of the image. The first one is the entrypoint.
var programs = []string{"manager", "kubectl-teo_prefetch"}

// The first build for a platform takes minutes. Therefore only releases and `go test
// ./test/image -args -platforms="linux-amd64 linux-arm64"` build more than one.
var platforms = flag.String("platforms", "linux-"+runtime.GOARCH, "platforms to build the image for")

// Windows has another format of archives, and code of its own in the plugin.
var pluginPlatforms = flag.String("plugin-platforms", thisPlatform+" windows-amd64", "platforms to build the plugin for")

const thisPlatform = runtime.GOOS + "-" + runtime.GOARCH

var shared struct{ root, dist string }

// release returns the arguments of make for the release under test.
func release() []string {
	return []string{"release", "VERSION=" + version, "REVISION=" + revision, "SOURCE_DATE_EPOCH=1700000000", "PLATFORMS=" + *platforms, "PLUGIN_PLATFORMS=" + *pluginPlatforms}
}

func architectures() (all []string) {
	for _, name := range strings.Fields(*platforms) {
		all = append(all, strings.TrimPrefix(name, "linux-"))
	}
	return all
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if testing.Short() {
		fmt.Println("skipping the tests that build the image: -short")
		return 0
	}
	dir, err := os.MkdirTemp("", "image-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		shared.dist = filepath.Join(dir, "dist")
		shared.root, err = cluster.FindRoot()
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		_, err = cluster.RunMake(ctx, shared.root, append(release(), "DIST="+shared.dist)...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		return 1
	}
	return m.Run()
}

// The parts of the OCI documents that the tests read.
type (
	descriptor struct {
		MediaType, Digest string
		Size              int64
		Platform          struct{ OS, Architecture string }
		Annotations       map[string]string
	}
	index struct {
		Manifests   []descriptor
		Annotations map[string]string
	}
	manifest struct {
		Config      descriptor
		Layers      []descriptor
		Annotations map[string]string
	}
	imageConfig struct {
		OS, Architecture, Created string
		Config                    struct {
			User, WorkingDir string
			Entrypoint, Cmd  []string
			Labels           map[string]string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
)

// file reads a file of a layout.
func file(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	return data
}

// blob reads the content of a descriptor, and checks its digest and size.
func blob(t *testing.T, dir string, d descriptor) []byte {
	t.Helper()
	data := file(t, dir, filepath.Join("blobs", strings.Replace(d.Digest, ":", "/", 1)))
	if digest(data) != d.Digest || int64(len(data)) != d.Size {
		t.Fatalf("what is stored as %s of %d bytes is %s of %d", d.Digest, d.Size, digest(data), len(data))
	}
	return data
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func parse[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	must(t, json.Unmarshal(data, &v))
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image returns the layout's index for all platforms. It uses only the name to find the
// index, as tools do that take a single image from a layout.
func image(t *testing.T, dir string) index {
	t.Helper()
	top := parse[index](t, file(t, dir, "index.json"))
	if len(top.Manifests) != 1 {
		t.Fatalf("the layout has %d images, want 1", len(top.Manifests))
	}
	d := top.Manifests[0]
	if got := d.Annotations["io.containerd.image.name"]; got != "ghcr.io/prefetch-operator/teo-prefetch-operator:"+version {
		t.Errorf("the image's name is %q", got)
	}
	if got := d.Annotations["org.opencontainers.image.ref.name"]; got != version {
		t.Errorf("the image's reference is %q", got)
	}
	return parse[index](t, blob(t, dir, d))
}

// platform returns the image for a platform.
func platform(t *testing.T, arch string) (descriptor, manifest) {
	t.Helper()
	dir := filepath.Join(shared.dist, "image")
	for _, d := range image(t, dir).Manifests {
		if d.Platform.OS == "linux" && d.Platform.Architecture == arch {
			return d, parse[manifest](t, blob(t, dir, d))
		}
	}
	t.Fatalf("no image for linux/%s", arch)
	return descriptor{}, manifest{}
}

// unpack extracts a platform's files into a folder and returns the folder.
func unpack(t *testing.T, arch string) string {
	t.Helper()
	_, m := platform(t, arch)
	dir := filepath.Join(shared.dist, "image")
	config := parse[imageConfig](t, blob(t, dir, m.Config))
	root := t.TempDir()
	for i, layer := range m.Layers {
		zipped, err := gzip.NewReader(bytes.NewReader(blob(t, dir, layer)))
		must(t, err)
		files, err := io.ReadAll(zipped)
		must(t, err)
		if digest(files) != config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d is not what the configuration says", i)
		}
		untar(t, files, root)
	}
	return root
}

func untar(t *testing.T, files []byte, dir string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(files)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		if h.Typeflag != tar.TypeReg || h.Uid != 0 || h.Gid != 0 || !filepath.IsLocal(h.Name) {
			t.Fatalf("the file %+v", h)
		}
		content, err := io.ReadAll(r)
		must(t, err)
		path := filepath.Join(dir, h.Name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, content, h.FileInfo().Mode()))
	}
}

func TestTheImageOfEachPlatformRunsTheManagerAsNobody(t *testing.T) {
	for _, arch := range architectures() {
		t.Run(arch, func(t *testing.T) {
			_, m := platform(t, arch)
			config := parse[imageConfig](t, blob(t, filepath.Join(shared.dist, "image"), m.Config))
			c := config.Config
			if config.OS != "linux" || config.Architecture != arch || config.Created != created {
				t.Errorf("it is for %s/%s, of %s", config.OS, config.Architecture, config.Created)
			}
			if c.User != fmt.Sprintf("%d:%[1]d", user) || !slices.Equal(c.Entrypoint, []string{"/manager"}) || len(c.Cmd) > 0 {
				t.Errorf("it runs %v %v as %s", c.Entrypoint, c.Cmd, c.User)
			}
			for _, labels := range []map[string]string{c.Labels, m.Annotations, image(t, filepath.Join(shared.dist, "image")).Annotations} {
				for key, want := range map[string]string{
					"title": "teo-prefetch-operator", "version": version, "revision": revision, "created": created, "licenses": "Apache-2.0",
					"source": "https://github.com/prefetch-operator/teo-prefetch-operator",
				} {
					if got := labels["org.opencontainers.image."+key]; got != want {
						t.Errorf("its %s is %q, want %q", key, got, want)
					}
				}
			}
			files := slices.Sorted(maps.Keys(sums(t, unpack(t, arch))))
			if want := slices.Sorted(slices.Values(programs)); !slices.Equal(files, want) {
				t.Errorf("it has %v, want %v", files, want)
			}
			for _, name := range programs {
				program, err := elf.Open(filepath.Join(unpack(t, arch), name))
				must(t, err)
				defer func() { _ = program.Close() }()
				libraries, err := program.ImportedLibraries()
				must(t, err)
				if program.Machine != map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch] || len(libraries) > 0 {
					t.Errorf("%s is for %s and needs %v", name, program.Machine, libraries)
				}
			}
		})
	}
}

// Where the test has the permissions, the programs run without access to this machine: no
// libraries, no certificates, no /etc.
func TestTheProgramsInTheImageRunWithNothingElse(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the image is for Linux")
	}
	root := unpack(t, runtime.GOARCH)
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // the connection must be rejected
	untrusted.StartTLS()
	defer untrusted.Close()
	kubeconfig := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n"+
		"clusters: [{name: a, cluster: {server: %q}}]\n", untrusted.URL)
	must(t, os.WriteFile(filepath.Join(root, "kubeconfig"), []byte(kubeconfig), 0o644))
	for _, tt := range []struct {
		name, command string
		code          int
		want          []string
	}{
		{"its version", "manager --version", 0, []string{"teo-prefetch-operator " + version}},
		{"a wrong flag", "manager --teo-qps=0", 2, []string{"--teo-qps is 0; it must be at least 1"}},
		{"no cluster", "manager --metrics-bind-address=0", 1, []string{"cannot load the cluster configuration"}},
		// Without trusted roots, the message would be that they could not be loaded.
		{"a server that nobody knows", "manager check --kubeconfig=kubeconfig --teo-endpoint=" + untrusted.URL, 1,
			[]string{"certificate signed by unknown authority", "the server's certificate is not accepted", "Not ready"}},
		{"the plugin's version", "kubectl-teo_prefetch version --client", 0, []string{version}},
		{"the plugin and a server that nobody knows", "kubectl-teo_prefetch wait a --kubeconfig=kubeconfig", 1,
			[]string{"certificate signed by unknown authority"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name, args, _ := strings.Cut(tt.command, " ")
			cmd := exec.CommandContext(t.Context(), filepath.Join(root, name), strings.Fields(args)...)
			cmd.Dir = root
			if os.Getuid() == 0 {
				must(t, os.Chmod(root, 0o755))
				cmd.Path, cmd.Dir = "/"+name, "/"
				cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}}
			}
			cmd.Env = []string{
				"TENCENTCLOUD_SECRET_ID=AKIDdemo", "TENCENTCLOUD_SECRET_KEY=key", "HOME=/nonexistent",
				"SSL_CERT_FILE=/", "SSL_CERT_DIR=/nonexistent", // there are no roots, and a search for them fails
			}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}

// The content of an SBOM is compared with what Go reports about the programs. The SBOM is
// stored next to the image, and in the image as the attestation that container tools read.
func TestTheSBOMsListWhatIsLinkedIn(t *testing.T) {
	type sbom struct {
		SPDXVersion       string
		DocumentNamespace string
		Packages          []struct {
			Name, VersionInfo, PackageFileName string
			Checksums                          []struct{ ChecksumValue string }
		}
		Relationships []struct{ RelationshipType string }
	}
	dir := filepath.Join(shared.dist, "image")
	for _, arch := range architectures() {
		t.Run(arch, func(t *testing.T) {
			d, _ := platform(t, arch)
			data := file(t, shared.dist, "sbom-linux-"+arch+".spdx.json")
			doc := parse[sbom](t, data)
			root := unpack(t, arch)
			var want, modules []string
			dependencies := 0
			for i, name := range programs {
				path := filepath.Join(root, name)
				info, err := buildinfo.ReadFile(path)
				must(t, err)
				want = append(want, info.Path+" "+version)
				modules = append(modules, "stdlib "+strings.TrimPrefix(info.GoVersion, "go"))
				for _, module := range info.Deps {
					modules = append(modules, module.Path+" "+module.Version)
				}
				dependencies += 1 + len(info.Deps)
				if sum := doc.Packages[i].Checksums[0].ChecksumValue; doc.Packages[i].PackageFileName != "/"+name || "sha256:"+sum != digest(file(t, path, "")) {
					t.Errorf("package %d is %s with the checksum %s, want /%s", i, doc.Packages[i].PackageFileName, sum, name)
				}
			}
			slices.Sort(modules)
			want = append(want, slices.Compact(modules)...)
			var got []string
			for _, p := range doc.Packages {
				got = append(got, p.Name+" "+p.VersionInfo)
			}
			slices.Sort(got[len(programs):])
			if !slices.Equal(got, want) || len(doc.Relationships) != len(programs)+dependencies || doc.SPDXVersion != "SPDX-2.3" {
				t.Errorf("it lists\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}

			type statement struct {
				PredicateType string
				Subject       []struct{ Digest map[string]string }
				Predicate     json.RawMessage
			}
			for _, a := range image(t, dir).Manifests {
				if a.Annotations["vnd.docker.reference.digest"] != d.Digest {
					continue
				}
				s := parse[statement](t, blob(t, dir, parse[manifest](t, blob(t, dir, a)).Layers[0]))
				var attested bytes.Buffer
				must(t, json.Indent(&attested, s.Predicate, "", "  "))
				if "sha256:"+s.Subject[0].Digest["sha256"] != d.Digest || s.PredicateType != "https://spdx.dev/Document" || attested.String() != string(data) {
					t.Errorf("the attestation is about %v, and says\n%s", s.Subject, attested.String())
				}
				return
			}
			t.Error("no attestation goes with the image")
		})
	}
}
