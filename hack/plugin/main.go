// Command plugin packs the plugin of kubectl for a release: an archive for each platform,
// and the manifest with which krew installs them. The same programs, flags and LICENSE give
// the same bytes.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// name is the name of the program and the beginning of the names of its archives.
const name = "kubectl-teo_prefetch"

//go:embed manifest.yaml
var manifestText string

var manifestTemplate = template.Must(template.New("manifest.yaml").Parse(manifestText))

// options configures the archives. Their only other inputs are the programs.
type options struct {
	version string    // of the programs, such as v0.1.0
	created time.Time // of all files in the archives
	license string    // path of the file LICENSE
	out     string    // folder for the archives and the manifest
}

// manifest is what the template of the krew manifest needs.
type manifest struct {
	Version string
	// Homepage is the repository with the releases, according to the programs' module.
	Homepage string
	Archives []archive
}

// archive describes the archive for one platform.
type archive struct {
	OS, Arch string
	Name     string // of the archive
	Program  string // its path in the archive
	SHA256   string // of the archive, in hexadecimal
}

func main() {
	o := options{}
	flag.StringVar(&o.version, "version", "", "`version` of the programs, such as v0.1.0")
	created := flag.Int64("created", 0, "time of all files in the archives, in `seconds` since 1970")
	flag.StringVar(&o.license, "license", "LICENSE", "`file` to add to each archive as LICENSE")
	flag.StringVar(&o.out, "out", "dist", "`folder` to write the archives and the krew manifest to")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: plugin [flags] PROGRAM… (one for each platform)")
		flag.PrintDefaults()
	}
	flag.Parse()
	o.created = time.Unix(*created, 0).UTC()
	if err := o.run(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		os.Exit(1)
	}
}

// run writes an archive for each of the programs, and the manifest of all archives.
func (o options) run(programs []string) error {
	if len(programs) == 0 {
		return errors.New("no programs to pack: name one for each platform")
	}
	license, err := os.ReadFile(o.license)
	if err != nil {
		return err
	}
	m := manifest{Version: o.version}
	for _, path := range programs {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return err
		}
		program, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		a := o.describeArchive(info)
		packed, err := o.pack(a, license, program)
		if err != nil {
			return fmt.Errorf("%s: %w", a.Name, err)
		}
		if err := os.WriteFile(filepath.Join(o.out, a.Name), packed, 0o644); err != nil {
			return err
		}
		a.SHA256 = fmt.Sprintf("%x", sha256.Sum256(packed))
		m.Homepage = "https://" + info.Main.Path
		m.Archives = append(m.Archives, a)
	}
	text := &bytes.Buffer{}
	if err := manifestTemplate.Execute(text, m); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "teo-prefetch.yaml"), text.Bytes(), 0o644)
}

// describeArchive returns the archive for the platform of a program, without its checksum.
func (o options) describeArchive(info *buildinfo.BuildInfo) archive {
	a := archive{Program: name}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "GOOS":
			a.OS = setting.Value
		case "GOARCH":
			a.Arch = setting.Value
		}
	}
	extension := ".tar.gz"
	if a.OS == "windows" {
		a.Program += ".exe"
		extension = ".zip"
	}
	a.Name = fmt.Sprintf("%s_%s_%s_%s%s", name, o.version, a.OS, a.Arch, extension)
	return a
}

// file is a file in an archive.
type file struct {
	name    string
	mode    os.FileMode
	content []byte
}

// pack returns the bytes of an archive.
func (o options) pack(a archive, license, program []byte) ([]byte, error) {
	files := []file{{"LICENSE", 0o644, license}, {a.Program, 0o755, program}}
	if a.OS == "windows" {
		return o.packZip(files)
	}
	return o.packTar(files)
}

func (o options) packTar(files []file) ([]byte, error) {
	packed := &bytes.Buffer{}
	compressed := gzip.NewWriter(packed)
	w := tar.NewWriter(compressed)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.content)), Mode: int64(f.mode), ModTime: o.created, Format: tar.FormatUSTAR,
		}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	err := errors.Join(w.Close(), compressed.Close())
	return packed.Bytes(), err
}

func (o options) packZip(files []file) ([]byte, error) {
	packed := &bytes.Buffer{}
	w := zip.NewWriter(packed)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: o.created}
		header.SetMode(f.mode)
		entry, err := w.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := entry.Write(f.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return packed.Bytes(), err
}
