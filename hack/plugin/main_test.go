package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

const repository = "github.com/example/plugin"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newOptions returns options that write to a new folder.
func newOptions(t *testing.T) options {
	t.Helper()
	license := filepath.Join(t.TempDir(), "COPYING")
	must(t, os.WriteFile(license, []byte("Do what you like.\n"), 0o600))
	return options{version: "v1.2.3", created: time.Unix(1700000000, 0).UTC(), license: license, out: t.TempDir()}
}

// buildPrograms compiles a program that does nothing for each platform.
func buildPrograms(t *testing.T, platforms ...string) (paths []string) {
	t.Helper()
	source := t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "go.mod"), []byte("module "+repository+"\n\ngo 1.26\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(source, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o600))
	for _, platform := range platforms {
		goos, goarch, _ := strings.Cut(platform, "/")
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(goos+"-"+goarch, "program"), ".")
		cmd.Dir, cmd.Env = source, append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		paths = append(paths, filepath.Join(source, goos+"-"+goarch, "program"))
	}
	return paths
}

// entry is a file in an archive, as a user gets it.
type entry struct {
	name    string
	mode    os.FileMode
	time    time.Time
	owner   string // empty in a zip file, which has none
	content string
}

func listTar(t *testing.T, packed []byte) (entries []entry) {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(packed))
	must(t, err)
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		entries = append(entries, entry{h.Name, h.FileInfo().Mode(), h.ModTime.UTC(), fmt.Sprintf("%d:%d%s%s", h.Uid, h.Gid, h.Uname, h.Gname), string(content)})
	}
}

func listZip(t *testing.T, packed []byte) (entries []entry) {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	must(t, err)
	for _, f := range r.File {
		opened, err := f.Open()
		must(t, err)
		content, err := io.ReadAll(opened)
		must(t, err)
		entries = append(entries, entry{f.Name, f.Mode(), f.Modified.UTC(), "", string(content)})
	}
	return entries
}

func TestTheManifestHasAnArchiveForEachPlatform(t *testing.T) {
	platforms := []string{"linux/amd64", "linux/arm64", "windows/amd64"} // those that other tests compile too
	programs := buildPrograms(t, platforms...)
	o := newOptions(t)
	must(t, o.run(programs))

	text, err := os.ReadFile(filepath.Join(o.out, "teo-prefetch.yaml"))
	must(t, err)
	var m struct {
		Spec struct {
			Version, Homepage string
			Platforms         []struct {
				Selector         struct{ MatchLabels map[string]string }
				URI, SHA256, Bin string
			}
		}
	}
	must(t, yaml.Unmarshal(text, &m))
	if m.Spec.Version != "v1.2.3" || m.Spec.Homepage != "https://"+repository || len(m.Spec.Platforms) != len(platforms) {
		t.Fatalf("the manifest is\n%s", text)
	}
	for i, p := range m.Spec.Platforms {
		goos, goarch := p.Selector.MatchLabels["os"], p.Selector.MatchLabels["arch"]
		if goos+"/"+goarch != platforms[i] {
			t.Errorf("platform %d is %s/%s, want %s", i, goos, goarch, platforms[i])
		}
		want := fmt.Sprintf("kubectl-teo_prefetch_v1.2.3_%s_%s.tar.gz", goos, goarch)
		bin, list, owner := "kubectl-teo_prefetch", listTar, "0:0"
		if goos == "windows" {
			want, bin, list, owner = strings.Replace(want, ".tar.gz", ".zip", 1), bin+".exe", listZip, ""
		}
		if p.URI != "https://"+repository+"/releases/download/v1.2.3/"+want || p.Bin != bin {
			t.Errorf("the archive for %s is at %s, with the program %s", platforms[i], p.URI, p.Bin)
		}
		packed, err := os.ReadFile(filepath.Join(o.out, want))
		must(t, err)
		if sum := fmt.Sprintf("%x", sha256.Sum256(packed)); sum != p.SHA256 {
			t.Errorf("the checksum of %s is %s, want %s", want, p.SHA256, sum)
		}
		program, err := os.ReadFile(programs[i])
		must(t, err)
		if got := list(t, packed); !slices.Equal(got, []entry{
			{"LICENSE", 0o644, o.created, owner, "Do what you like.\n"}, {bin, 0o755, o.created, owner, string(program)},
		}) {
			for j := range got {
				got[j].content = fmt.Sprintf("(%d bytes)", len(got[j].content))
			}
			t.Errorf("%s has %+v", want, got)
		}
	}
}

func TestWhatCannotBePackedIsSaid(t *testing.T) {
	for _, tt := range []struct {
		name     string
		change   func(*options)
		programs []string
		want     string
	}{
		{"no program", func(*options) {}, nil, "name one for each platform"},
		{"a program that is missing", func(*options) {}, []string{"nowhere"}, "nowhere"},
		{"a file that is no Go program", func(*options) {}, []string{"manifest.yaml"}, "manifest.yaml"},
		{"no license", func(o *options) { o.license = "nowhere" }, []string{"manifest.yaml"}, "nowhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOptions(t)
			tt.change(&o)
			if err := o.run(tt.programs); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it says %v, want %q", err, tt.want)
			}
		})
	}
}
