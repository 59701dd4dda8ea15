// Command image builds the operator's container image without a container engine. For each
// platform it puts the programs on top of a base, with an SBOM that lists the modules in
// them. It writes the image as an OCI layout and can push it to a registry. The same
// programs, flags and base give the same digest.
package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// scratch is the empty base.
	scratch = "scratch"
	// nobody is the user that distroless images call nonroot. It is a number, because
	// Kubernetes cannot verify that a user name is not root.
	nobody = "65532:65532"
)

// options configures the image. Its only other inputs are the programs and the base.
type options struct {
	name, version, revision string
	created                 time.Time
	base, out, push         string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	o := &options{}
	flag.StringVar(&o.name, "name", "", "`registry/repository` that the image is known by")
	flag.StringVar(&o.version, "version", "", "version of the programs, and the image's `tag`")
	flag.StringVar(&o.revision, "revision", "", "`commit` that the programs were built from")
	created := flag.Int64("created", 0, "time of all that is in the image, in `seconds` since 1970")
	flag.StringVar(&o.base, "base", scratch, "`image` to build upon: scratch, a folder with an OCI layout, or a reference like gcr.io/distroless/static:nonroot")
	flag.StringVar(&o.out, "out", "dist", "`folder` to write image/ (an OCI layout), image.tar (the same in one file) and the SBOMs to")
	flag.StringVar(&o.push, "push", "", "`registry/repository` to push the image to")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: image [flags] PROGRAM… (the first of each platform is the entrypoint)")
		flag.PrintDefaults()
	}
	flag.Parse()
	o.created = time.Unix(*created, 0).UTC()
	if err := o.run(ctx, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		stop()
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context, paths []string, say io.Writer) error {
	tag, err := name.NewTag(o.name+":"+o.version, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("name %s and version %s: %w", o.name, o.version, err)
	}
	var to name.Tag
	if o.push != "" {
		if to, err = name.NewTag(o.push + ":" + o.version); err != nil {
			return fmt.Errorf("cannot push to %s: %w", o.push, err)
		}
	}
	if len(paths) == 0 {
		return errors.New("no programs to put into the image")
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	index, err := o.index(ctx, paths)
	if err != nil {
		return err
	}
	if err := o.write(index, tag); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(say, "%s@%s\nis in %s, and in one file in %s.\n", tag, digest, filepath.Join(o.out, "image"), filepath.Join(o.out, "image.tar"))
	if o.push == "" {
		return nil
	}
	if err := remote.WriteIndex(to, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("pushing to %s: %w", to, err)
	}
	_, _ = fmt.Fprintf(say, "Pushed to %s@%s.\n", to, digest)
	return nil
}

// index returns the image index: for each platform, the image and an attestation of its
// content.
func (o *options) index(ctx context.Context, paths []string) (v1.ImageIndex, error) {
	platforms, err := readPrograms(paths)
	if err != nil {
		return nil, err
	}
	var images, attestations []mutate.IndexAddendum
	for _, c := range platforms {
		base, err := o.baseFor(ctx, c.platform)
		if err != nil {
			return nil, fmt.Errorf("base %s for %s: %w", o.base, c.platform, err)
		}
		image, err := o.image(base, c)
		if err != nil {
			return nil, err
		}
		sbom, err := o.sbom(c)
		if err != nil {
			return nil, err
		}
		file := fmt.Sprintf("sbom-%s-%s.spdx.json", c.platform.OS, c.platform.Architecture)
		if err := os.WriteFile(filepath.Join(o.out, file), sbom, 0o644); err != nil {
			return nil, err
		}
		attestation, err := attest(image, sbom, o.name)
		if err != nil {
			return nil, err
		}
		images = append(images, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &c.platform}})
		attestations = append(attestations, attestation)
	}
	index := mutate.AppendManifests(empty.Index, append(images, attestations...)...)
	return mutate.Annotations(index, o.labels()).(v1.ImageIndex), nil
}

// image returns the base with the programs on top. It starts the first one as nobody.
func (o *options) image(base v1.Image, c platformContent) (v1.Image, error) {
	mediaType := types.OCILayer
	if like, err := base.MediaType(); err != nil {
		return nil, err
	} else if like == types.DockerManifestSchema2 {
		mediaType = types.DockerLayer
	}
	layer, err := o.layer(c.programs, mediaType)
	if err != nil {
		return nil, err
	}
	history := v1.History{Created: v1.Time{Time: o.created}, CreatedBy: "make image"}
	image, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: history, MediaType: mediaType})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	labels := o.labels()
	if o.base != scratch {
		digest, err := base.Digest()
		if err != nil {
			return nil, err
		}
		labels["org.opencontainers.image.base.digest"] = digest.String()
		if info, err := os.Stat(o.base); err != nil || !info.IsDir() {
			labels["org.opencontainers.image.base.name"] = o.base
		}
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = c.platform.OS, c.platform.Architecture
	config.Created = v1.Time{Time: o.created}
	config.Config.Entrypoint, config.Config.Cmd = []string{"/" + c.programs[0].name}, nil
	config.Config.User, config.Config.WorkingDir = nobody, "/"
	if config.Config.Labels == nil {
		config.Config.Labels = map[string]string{}
	}
	maps.Copy(config.Config.Labels, labels)
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(image, labels).(v1.Image), nil
}

// labels returns what the OCI image specification calls pre-defined annotations.
func (o *options) labels() map[string]string {
	const source = "https://github.com/prefetch-operator/teo-prefetch-operator"
	labels := map[string]string{
		"title":         "teo-prefetch-operator",
		"description":   "Puts URLs into the caches of Tencent EdgeOne (TEO)",
		"url":           source,
		"source":        source,
		"documentation": source + "/tree/main/docs",
		"licenses":      "Apache-2.0",
		"version":       o.version,
		"revision":      cmp.Or(o.revision, "unknown"),
		"created":       o.created.Format(time.RFC3339),
	}
	all := map[string]string{}
	for key, value := range labels {
		all["org.opencontainers.image."+key] = value
	}
	return all
}

// layer returns a layer with the programs only.
func (o *options) layer(programs []program, mediaType types.MediaType) (v1.Layer, error) {
	files := &bytes.Buffer{}
	w := tar.NewWriter(files)
	for _, p := range programs {
		if err := w.WriteHeader(o.header(p.name, int64(len(p.binary)), 0o755)); err != nil {
			return nil, err
		}
		if _, err := w.Write(p.binary); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(mediaType), tarball.WithCompressionLevel(gzip.DefaultCompression),
		tarball.WithCompressedCaching)
}

// header returns the tar header of a file. It does not depend on who builds the image, or
// when.
func (o *options) header(name string, size, mode int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode, ModTime: o.created, Format: tar.FormatUSTAR}
}

// write writes the layout, as a folder and as a file. `ctr image import` and other tools
// read the image's name from its annotations.
func (o *options) write(index v1.ImageIndex, tag name.Tag) error {
	dir := filepath.Join(o.out, "image")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          tag.String(),
		"org.opencontainers.image.ref.name": tag.TagStr(),
	})); err != nil {
		return err
	}
	return o.archive(dir, filepath.Join(o.out, "image.tar"))
}

// archive packs the files of a folder into one tar file.
func (o *options) archive(dir, path string) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(o.header(filepath.ToSlash(name), int64(len(content)), 0o644)); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	return errors.Join(err, w.Close())
}
