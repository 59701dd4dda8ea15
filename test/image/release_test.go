package image

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// copyTree copies files that git tracks or would add, without the folder .git: all of
// them, or those below the given paths.
func copyTree(t *testing.T, paths ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"}, paths...)...)
	cmd.Dir = shared.root
	names, err := cmd.Output()
	must(t, err)
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join(shared.root, name))
		if os.IsNotExist(err) {
			continue // deleted, but not committed yet
		}
		must(t, err)
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, file(t, shared.root, name), info.Mode()))
		// The time differs from the original's, and is older than the tools.
		must(t, os.Chtimes(path, time.Time{}, time.Unix(1, 0)))
	}
	return dir
}

// The copy shares the build cache with the original. The test proves that the result
// depends on neither the folder, Git nor the times of files. docs/release.md describes how
// to do the same with a separate cache.
func TestTwoReleasesFromDifferentFoldersAreTheSame(t *testing.T) {
	dir := copyTree(t)
	must(t, os.Symlink(filepath.Join(shared.root, "bin"), filepath.Join(dir, "bin")))
	_, err := cluster.RunMake(t.Context(), dir, release()...)
	must(t, err)
	sums := string(file(t, shared.dist, "SHA256SUMS"))
	if again := string(file(t, dir, "dist/SHA256SUMS")); again != sums {
		t.Errorf("once\n%s\nand again\n%s", sums, again)
	}
	var listed []string
	for line := range strings.Lines(sums) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed = append(listed, name)
		if "sha256:"+sum != digest(file(t, shared.dist, name)) {
			t.Errorf("the checksum of %s is wrong", name)
		}
	}
	want := []string{"crd.yaml", "image.tar", "install.yaml", "teo-prefetch-operator-0.0.0-test.tgz", "teo-prefetch.yaml"}
	for _, platform := range strings.Fields(*pluginPlatforms) {
		want = append(want, nameArchive(platform))
	}
	for _, arch := range architectures() {
		want = append(want, "sbom-linux-"+arch+".spdx.json")
	}
	slices.Sort(want)
	if slices.Sort(listed); !slices.Equal(listed, want) {
		t.Errorf("the release has %q, want %q", listed, want)
	}
}

func TestTheArchiveOfTheImageHasWhatTheFolderHas(t *testing.T) {
	unpacked := t.TempDir()
	untar(t, file(t, shared.dist, "image.tar"), unpacked)
	if a, b := sums(t, filepath.Join(shared.dist, "image")), sums(t, unpacked); !maps.Equal(a, b) {
		t.Errorf("the folder has\n%v\nand the archive\n%v", a, b)
	}
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			all[path] = digest(file(t, dir, path))
		}
		return err
	}))
	return all
}

// There is no container engine here. The test runs only the build step of the Dockerfile,
// with the files that .dockerignore lets through.
func TestTheDockerfileBuildsTheProgramsOfTheImage(t *testing.T) {
	dockerfile := string(file(t, shared.root, "Dockerfile"))
	arguments := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ARG (\w+)=(.*)$`).FindAllStringSubmatch(dockerfile, -1) {
		arguments[m[1]] = m[2]
	}
	goMod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(file(t, shared.root, "go.mod")))
	if arguments["GO_VERSION"] != goMod[1] {
		t.Errorf("it builds with Go %s, and go.mod asks for %s", arguments["GO_VERSION"], goMod[1])
	}
	step := regexp.MustCompile(`(?m)^RUN make (.*) \\\n && mv (\S+) /programs$`).FindStringSubmatch(dockerfile)
	if step == nil {
		t.Fatal("it does not build with make")
	}
	for _, want := range []string{"ARG GOPROXY\nRUN go mod download", "USER 65532:65532", `ENTRYPOINT ["/manager"]`, "COPY --from=build /programs /"} {
		if !strings.Contains(dockerfile, "\n"+want+"\n") {
			t.Errorf("it has no %s", want)
		}
	}

	var context []string
	for line := range strings.Lines(string(file(t, shared.root, ".dockerignore"))) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			context = append(context, path)
		}
	}
	dir := copyTree(t, context...)
	arguments = map[string]string{"TARGETOS": "linux", "TARGETARCH": runtime.GOARCH, "VERSION": version}
	expand := func(s string) string { return os.Expand(s, func(name string) string { return arguments[name] }) }
	_, err := cluster.RunMake(t.Context(), dir, strings.Fields(expand(step[1]))...)
	must(t, err)
	if built, want := sums(t, filepath.Join(dir, expand(step[2]))), sums(t, unpack(t, runtime.GOARCH)); !maps.Equal(built, want) {
		t.Errorf("it builds\n%v\nand make image\n%v", built, want)
	}
}

// A release has one version everywhere. The version in Git is that of the latest release,
// or of the next one.
func TestTheChartAndTheManifestsTellTheSameVersion(t *testing.T) {
	unpacked := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "tar", "-xzf", filepath.Join(shared.dist, "teo-prefetch-operator-0.0.0-test.tgz"), "-C", unpacked).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct{ name, chart, manifests, version string }{
		{"in Git", filepath.Join(shared.root, "charts/teo-prefetch-operator"), filepath.Join(shared.root, "config/manager/manager.yaml"), ""},
		{"of the release", filepath.Join(unpacked, "teo-prefetch-operator"), filepath.Join(shared.dist, "install.yaml"), version},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chart := struct {
				Version     string            `json:"version"`
				AppVersion  string            `json:"appVersion"`
				Annotations map[string]string `json:"annotations"`
			}{}
			must(t, yaml.Unmarshal(file(t, tt.chart, "Chart.yaml"), &chart))
			if "v"+chart.Version != chart.AppVersion || tt.version != "" && chart.AppVersion != tt.version {
				t.Errorf("version %s of the chart installs %s, want %s", chart.Version, chart.AppVersion, tt.version)
			}
			values := struct {
				Image struct{ Repository, Tag, Digest string } `json:"image"`
			}{}
			must(t, yaml.Unmarshal(file(t, tt.chart, "values.yaml"), &values))
			if values.Image.Tag != "" || values.Image.Digest != "" {
				t.Errorf("values.yaml does not leave the tag to appVersion: %+v", values.Image)
			}
			if tt.version == "" && values.Image.Repository != "" {
				t.Errorf("values.yaml in Git names the image %s, which is not published", values.Image.Repository)
			} else if tt.version == "" {
				values.Image.Repository = "ghcr.io/prefetch-operator/teo-prefetch-operator"
			}
			want := "image: " + values.Image.Repository + ":" + chart.AppVersion
			if !strings.Contains(chart.Annotations["artifacthub.io/images"], want+"\n") {
				t.Errorf("the annotation artifacthub.io/images has no %s", want)
			}
			if !strings.Contains(string(file(t, tt.manifests, "")), want+"\n") {
				t.Errorf("%s has no %s", tt.manifests, want)
			}
			if !strings.Contains(string(file(t, tt.chart, "README.md")), chart.AppVersion+" of the operator") {
				t.Error("the chart's README tells another version")
			}
		})
	}
}

func TestAReleaseOfAnotherVersionThanTheChartsIsRefused(t *testing.T) {
	_, err := cluster.RunMake(t.Context(), shared.root, "verify-version", "VERSION=v98.76.54")
	if err == nil || !strings.Contains(err.Error(), "charts/teo-prefetch-operator/Chart.yaml has another") {
		t.Error(err)
	}
}

func TestAReleaseNeedsAVersion(t *testing.T) {
	for version, isTaken := range map[string]bool{"0.2.0": false, "v0.2": false, "v0.2.0+build": false, "v0.2.0-rc.1": true, "v0.2.0-5-gabcdef0-dirty": true} {
		_, err := cluster.RunMake(t.Context(), shared.root, "verify-version", "VERSION="+version)
		if isTaken && err != nil || !isTaken && (err == nil || !strings.Contains(err.Error(), "use a version such as v0.2.0")) {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func TestAReleaseWithoutAnEntryInTheChangelogIsRefused(t *testing.T) {
	dir := copyTree(t, "Makefile", "charts", "hack")
	version := regexp.MustCompile(`(?m)^appVersion: v(\S+)$`).FindSubmatch(file(t, dir, "charts/teo-prefetch-operator/Chart.yaml"))
	for heading, isTaken := range map[string]bool{"Unreleased": false, string(version[1]) + " - 2026-11-29": true} {
		must(t, os.WriteFile(filepath.Join(dir, "CHANGELOG.md"), []byte("# Changelog\n\n## "+heading+"\n"), 0o600))
		_, err := cluster.RunMake(t.Context(), dir, "verify-version", "VERSION=v"+string(version[1]))
		if isTaken && err != nil || !isTaken && (err == nil || !strings.Contains(err.Error(), "CHANGELOG.md has no entry for v"+string(version[1]))) {
			t.Errorf("## %s: %v", heading, err)
		}
	}
}
