package main

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// platformContent is what the image of one platform has in addition to its base.
type platformContent struct {
	platform v1.Platform
	programs []program // at least one; the first is the entrypoint
}

// program is a Go program. Its path in the image is / and its name.
type program struct {
	name   string
	binary []byte
	info   *buildinfo.BuildInfo
}

// readPrograms reads Go programs and groups them by platform. The order stays the same.
func readPrograms(paths []string) (all []platformContent, err error) {
	for _, path := range paths {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, err
		}
		binary, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		platform := platformOf(info)
		at := slices.IndexFunc(all, func(c platformContent) bool { return c.platform.Equals(platform) })
		if at < 0 {
			at = len(all)
			all = append(all, platformContent{platform: platform})
		}
		all[at].programs = append(all[at].programs, program{name: filepath.Base(path), binary: binary, info: info})
	}
	return all, nil
}

func platformOf(info *buildinfo.BuildInfo) v1.Platform {
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	return v1.Platform{OS: settings["GOOS"], Architecture: settings["GOARCH"]}
}
