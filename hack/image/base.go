package main

import (
	"context"
	"errors"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// baseFor returns the base image for a platform.
func (o *options) baseFor(ctx context.Context, platform v1.Platform) (v1.Image, error) {
	if o.base == scratch {
		return mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), nil
	}
	if info, err := os.Stat(o.base); err == nil && info.IsDir() {
		index, err := layout.ImageIndexFromPath(o.base)
		if err != nil {
			return nil, err
		}
		return pick(index, platform)
	}
	ref, err := name.ParseReference(o.base)
	if err != nil {
		return nil, err
	}
	base, err := remote.Image(ref, remote.WithContext(ctx), remote.WithPlatform(platform), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return nil, err
	}
	fits, err := isFor(base, platform)
	if err == nil && !fits {
		err = errors.New("the image is for another platform")
	}
	return base, err
}

// pick finds the image for a platform in an index, or in an index that it contains.
func pick(index v1.ImageIndex, platform v1.Platform) (v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range manifest.Manifests {
		switch {
		case d.MediaType.IsIndex():
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			if image, err := pick(inner, platform); err == nil {
				return image, nil
			}
		case d.MediaType.IsImage():
			image, err := index.Image(d.Digest)
			if err != nil {
				return nil, err
			}
			if fits, err := isFor(image, platform); err != nil || fits {
				return image, err
			}
		}
	}
	return nil, errors.New("there is no image for this platform in it")
}

func isFor(image v1.Image, platform v1.Platform) (bool, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return false, err
	}
	return config.OS == platform.OS && config.Architecture == platform.Architecture, nil
}
