package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	version = "v1.37.2"
	archive = "/envtest.tar.gz"
	ample   = time.Minute // for steps that must not fail on a slow machine
	short   = 50 * time.Millisecond
)

// release is an index with one archive, as a server provides them. Each test breaks
// something.
type release struct {
	version  string
	files    map[string]string
	sum      string // of the archive; computed if empty
	index    http.HandlerFunc
	archive  http.HandlerFunc
	lookUp   time.Duration
	download time.Duration
}

func good() *release {
	return &release{
		version: version,
		files: map[string]string{
			"etcd":           "#!/bin/sh\necho etcd\n",
			"kube-apiserver": "#!/bin/sh\necho Kubernetes v1.37.2\n",
			"kubectl":        "#!/bin/sh\necho kubectl\n",
		},
		lookUp:   ample,
		download: ample,
	}
}

// serve returns the URL of the index.
func (r *release) serve(t *testing.T) string {
	t.Helper()
	packed := pack(t, r.files)
	sum := r.sum
	if sum == "" {
		sum = fmt.Sprintf("%x", sha512.Sum512(packed))
	}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	if r.index == nil {
		r.index = func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, "releases:\n  %[1]s:\n    envtest-%[1]s-%[2]s-%[3]s.tar.gz:\n      hash: %[4]s\n      selfLink: %[5]s\n",
				r.version, runtime.GOOS, runtime.GOARCH, sum, server.URL+archive)
		}
	}
	if r.archive == nil {
		r.archive = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(packed) }
	}
	mux.HandleFunc("/index.yaml", r.index)
	mux.HandleFunc(archive, r.archive)
	return server.URL + "/index.yaml"
}

// pack packs files in the same way as the releases of controller-tools.
func pack(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for name, content := range files {
		must(t, w.WriteHeader(&tar.Header{Name: "controller-tools/envtest/" + name, Mode: 0o755, Size: int64(len(content))}))
		_, err := w.Write([]byte(content))
		must(t, err)
	}
	must(t, w.Close())
	must(t, zip.Close())
	return b.Bytes()
}

func TestPrebuiltProgramsAreInstalled(t *testing.T) {
	skipShort(t)
	r := good()
	in, pin := r.installer(t, r.serve(t))
	// An older etcd is replaced.
	old := filepath.Join(in.to, "etcd")
	must(t, os.MkdirAll(in.to, 0o755))
	must(t, os.WriteFile(old, []byte("old"), 0o755))
	must(t, os.Chtimes(old, time.Time{}, pin.Add(-time.Hour)))

	said := in.says(t)

	if want := "Using prebuilt etcd, kube-apiserver and kubectl v1.37.2 of " + in.index + ".\n"; !strings.HasSuffix(said, want) {
		t.Errorf("it says %q, want %q at the end", said, want)
	}
	for name, want := range r.files {
		path := filepath.Join(in.to, name)
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s cannot be run: %v, %v", name, info, err)
		}
	}
	if got := in.installed(t); len(got) != len(programs) {
		t.Errorf("the folder has %v", got)
	}

	in.index = ""
	if said := in.says(t); said != "" {
		t.Errorf("of programs that are up to date, it says %q", said)
	}
	later := time.Now().Add(time.Hour)
	must(t, os.Chtimes(in.pins[0], later, later))
	if said := in.says(t); !strings.HasPrefix(said, "Building ") {
		t.Errorf("of programs that are older than their pin, it says %q", said)
	}
}

func TestWhatCannotBeHadIsBuilt(t *testing.T) {
	skipShort(t)
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	tests := []struct {
		name  string
		spoil func(*release)
		says  string
	}{
		{"the archive has another checksum", func(r *release) { r.sum = strings.Repeat("0", 128) },
			"the archive's checksum is not the one in the index"},
		{"the index has no checksum", func(r *release) { r.sum = `""` },
			"the archive's checksum is not the one in the index"},
		{"the index has another version", func(r *release) { r.version = "v1.37.1" },
			"the index has none for " + runtime.GOOS + "/" + runtime.GOARCH},
		{"the index is empty", func(r *release) { r.index = func(http.ResponseWriter, *http.Request) {} },
			"the index has none for"},
		{"the index is a page", func(r *release) {
			r.index = func(w http.ResponseWriter, _ *http.Request) {
				_, _ = fmt.Fprint(w, "<!DOCTYPE html>\n<html>\n<p>Sign in: here\n")
			}
		}, "the index is not YAML"},
		{"there is no index", func(r *release) { r.index = http.NotFound }, `got status "404 Not Found"`},
		{"there is no archive", func(r *release) { r.archive = http.NotFound }, `got status "404 Not Found"`},
		{"the index never comes", func(r *release) { r.index, r.lookUp = hang, short }, "no answer within 50ms"},
		{"the archive never comes", func(r *release) { r.archive, r.download = hang, short }, "no answer within 50ms"},
		{"the archive is no archive", func(r *release) {
			r.sum = fmt.Sprintf("%x", sha512.Sum512([]byte("no archive")))
			r.archive = func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "no archive") }
		}, "un-gz-ing"},
		{"the archive lacks a program", func(r *release) { delete(r.files, "kubectl") }, "the archive has no kubectl"},
		{"the archive has another version", func(r *release) { r.files["kube-apiserver"] = "#!/bin/sh\necho Kubernetes v1.37.1\n" },
			`the archive has "Kubernetes v1.37.1"`},
		{"the archive is for another machine", func(r *release) { r.files["kube-apiserver"] = "\x7fELF" }, "its kube-apiserver does not run here: exec format error"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := good()
			test.spoil(r)
			in, _ := r.installer(t, r.serve(t))
			in.saysThatItBuilds(t, test.says)
		})
	}

	t.Run("nobody listens", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		must(t, listener.Close())
		in, _ := good().installer(t, "http://"+listener.Addr().String())
		in.saysThatItBuilds(t, "connection refused")
	})
	t.Run("setup-envtest is not pinned", func(t *testing.T) {
		in, _ := good().installer(t, "http://nobody-asks.invalid")
		in.tools = "../../go.mod"
		in.saysThatItBuilds(t, "cannot build setup-envtest: ")
	})
}

func TestWithoutAnIndexAllIsBuilt(t *testing.T) {
	in, _ := good().installer(t, "")
	want := "Building etcd, kube-apiserver and kubectl v1.37.2 from source, which takes about 12 minutes the first time.\n"
	if said := in.says(t); said != want {
		t.Errorf("it says %q, want %q", said, want)
	}
}

// installer returns an installer for an empty folder, and the time of its only pin.
func (r *release) installer(t *testing.T, index string) (*installer, time.Time) {
	t.Helper()
	dir := t.TempDir()
	pin := filepath.Join(dir, "go.mod")
	must(t, os.WriteFile(pin, nil, 0o600))
	at := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(pin, at, at))
	return &installer{
		version: version, to: filepath.Join(dir, "bin", "k8s"), pins: []string{pin}, index: index,
		tools: "../tools/go.mod", lookUp: r.lookUp, download: r.download,
	}, at
}

func (in *installer) says(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	must(t, in.run(t.Context(), &out))
	return out.String()
}

// saysThatItBuilds fails unless the output is one line that announces a build, with a
// reason that contains the given text, and the folder is empty.
func (in *installer) saysThatItBuilds(t *testing.T, reason string) {
	t.Helper()
	said := in.says(t)
	line, ok := strings.CutPrefix(said, "Looking for prebuilt etcd, kube-apiserver and kubectl v1.37.2…\n")
	because, ok2 := strings.CutPrefix(line, "Prebuilt etcd, kube-apiserver and kubectl v1.37.2 are not available (")
	because, ok3 := strings.CutSuffix(because, "): building them from source, which takes about 12 minutes the first time.\n")
	if !ok || !ok2 || !ok3 || !strings.Contains(because, reason) || strings.Contains(because, "\n") {
		t.Errorf("it says %q, want the reason %q", said, reason)
	}
	if got := in.installed(t); len(got) > 0 {
		t.Errorf("the folder has %v", got)
	}
}

func (in *installer) installed(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(in.to)
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles setup-envtest")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
