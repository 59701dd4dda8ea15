package image

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// The platforms of a release. Tests build only some of them.
var releasePlatforms = []string{"linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64", "windows-amd64", "windows-arm64"}

// nameArchive returns the name of the plugin's archive for a platform.
func nameArchive(platform string) string {
	extension := ".tar.gz"
	if strings.HasPrefix(platform, "windows-") {
		extension = ".zip"
	}
	return "kubectl-teo_prefetch_" + version + "_" + strings.ReplaceAll(platform, "-", "_") + extension
}

// nameProgram returns the name of the plugin's program for a platform.
func nameProgram(platform string) string {
	if strings.HasPrefix(platform, "windows-") {
		return "kubectl-teo_prefetch.exe"
	}
	return "kubectl-teo_prefetch"
}

// unpackArchive extracts the plugin's archive for a platform into a folder, and returns the
// folder.
func unpackArchive(t *testing.T, platform string) string {
	t.Helper()
	dir := t.TempDir()
	packed := file(t, shared.dist, nameArchive(platform))
	if strings.HasSuffix(nameArchive(platform), ".zip") {
		files, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
		must(t, err)
		must(t, os.CopyFS(dir, files))
		return dir
	}
	zipped, err := gzip.NewReader(bytes.NewReader(packed))
	must(t, err)
	files, err := io.ReadAll(zipped)
	must(t, err)
	untar(t, files, dir)
	return dir
}

func TestTheArchivesOfThePluginHaveTheProgramAndTheLicense(t *testing.T) {
	for platform := range strings.FieldsSeq(*pluginPlatforms) {
		t.Run(platform, func(t *testing.T) {
			dir := unpackArchive(t, platform)
			program := nameProgram(platform)
			got := sums(t, dir)
			if len(got) != 2 || got["LICENSE"] != digest(file(t, shared.root, "LICENSE")) ||
				got[program] != digest(file(t, shared.dist, filepath.Join(platform, "kubectl-teo_prefetch"))) {
				t.Errorf("it has %v", got)
			}
			if platform != thisPlatform {
				return
			}
			out, err := exec.CommandContext(t.Context(), filepath.Join(dir, program), "version", "--client").CombinedOutput()
			if err != nil || string(out) != "Client: "+version+"\n" {
				t.Errorf("its version is %s (%v)", out, err)
			}
		})
	}
}

// krew checks the manifest as it does for its index, and installs each archive.
func TestKrewInstallsThePlugin(t *testing.T) {
	manifest := filepath.Join(shared.dist, "teo-prefetch.yaml")
	krew := map[string]string{}
	for _, name := range []string{"krew", "validate-krew-manifest"} {
		_, err := cluster.RunMake(t.Context(), shared.root, "bin/"+name)
		must(t, err)
		krew[name], err = cluster.FindBinary(name)
		must(t, err)
	}
	if out, err := exec.CommandContext(t.Context(), krew["validate-krew-manifest"], "-manifest", manifest, "-skip-install").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, file(t, manifest, ""))
	}
	for platform := range strings.FieldsSeq(*pluginPlatforms) {
		t.Run(platform, func(t *testing.T) {
			goos, goarch, _ := strings.Cut(platform, "-")
			root := t.TempDir()
			cmd := exec.CommandContext(t.Context(), krew["krew"], "install", "--manifest="+manifest, "--archive="+filepath.Join(shared.dist, nameArchive(platform)))
			cmd.Env = append(os.Environ(), "KREW_ROOT="+root, "KREW_OS="+goos, "KREW_ARCH="+goarch)
			if out, err := cmd.CombinedOutput(); err != nil { // krew compares the checksum, too
				t.Fatalf("%v\n%s", err, out)
			}
			installed := filepath.Join(root, "store", "teo-prefetch", version)
			if got := sums(t, installed); len(got) != 2 || got["LICENSE"] == "" || got[nameProgram(platform)] == "" {
				t.Errorf("it installs %v", got)
			}
			if platform != thisPlatform {
				return
			}
			out, err := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "kubectl-teo_prefetch"), "version", "--client").CombinedOutput()
			if err != nil || !strings.Contains(string(out), version) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestTheManifestOfKrewNamesTheFilesOfTheRelease(t *testing.T) {
	var chart struct{ Home string }
	must(t, yaml.Unmarshal(file(t, shared.root, "charts/teo-prefetch-operator/Chart.yaml"), &chart))
	var manifest struct {
		Spec struct {
			Version, Homepage string
			Platforms         []struct{ URI, SHA256 string }
		}
	}
	must(t, yaml.Unmarshal(file(t, shared.dist, "teo-prefetch.yaml"), &manifest))
	spec := manifest.Spec
	built := strings.Fields(*pluginPlatforms)
	if spec.Version != version || spec.Homepage != chart.Home || len(spec.Platforms) != len(built) {
		t.Fatalf("it is for version %s at %s, with %d platforms", spec.Version, spec.Homepage, len(spec.Platforms))
	}
	for i, platform := range built {
		p := spec.Platforms[i]
		if p.URI != chart.Home+"/releases/download/"+version+"/"+nameArchive(platform) || "sha256:"+p.SHA256 != digest(file(t, shared.dist, nameArchive(platform))) {
			t.Errorf("the archive for %s is %s with the checksum %s", platform, p.URI, p.SHA256)
		}
	}
}

func TestAReleaseHasThePluginForAllPlatforms(t *testing.T) {
	out, err := cluster.RunMake(t.Context(), shared.root, "release", "--dry-run", "DIST=dist")
	must(t, err)
	var want []string
	for _, platform := range releasePlatforms {
		want = append(want, "dist/"+platform+"/kubectl-teo_prefetch")
	}
	if packed := regexp.MustCompile(`go run ./hack/plugin .*`).FindString(out); !strings.HasSuffix(packed, " "+strings.Join(want, " ")) {
		t.Errorf("it packs %q, want %v", packed, want)
	}
}
