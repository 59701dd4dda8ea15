package controller

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestFromKeys(t *testing.T) {
	type keys = map[string]string
	for _, c := range []struct {
		name string
		keys keys
		want teo.Credentials
		err  string
	}{
		{"complete", keys{"secretId": "id", "secretKey": "key", "token": "t"}, teo.Credentials{SecretID: "id", SecretKey: "key", Token: "t"}, ""},
		{"line breaks are trimmed", keys{"secretId": "id\n", "secretKey": " key\r\n"}, teo.Credentials{SecretID: "id", SecretKey: "key"}, ""},
		{"missing", keys{"secretId": "id"}, teo.Credentials{}, "credentials missing: Secret has no key secretKey, or it is empty"},
		{"empty", keys{"secretId": " ", "secretKey": "key"}, teo.Credentials{}, "credentials missing: Secret has no key secretId, or it is empty"},
		{"both missing is told in the same words each time", nil, teo.Credentials{}, "credentials missing: Secret has no key secretId, or it is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 20 {
				got, err := fromKeys("Secret", func(key string) (string, error) { return c.keys[key], nil })
				if c.err == "" && (err != nil || got != c.want) || c.err != "" && (!errors.Is(err, errMissing) || err.Error() != c.err) {
					t.Fatalf("%v", err)
				}
			}
		})
	}
}

func TestOwnCredentials(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when, id string) {
		t.Helper()
		got, err := OwnCredentials(dir)()
		if (err == nil) != (id != "") || got.SecretID != id || err != nil && !errors.Is(err, errMissing) {
			t.Errorf("%s: %v", when, err)
		}
	}
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	expect("none at all", "")
	t.Setenv("TENCENTCLOUD_SECRET_ID", "env")
	expect("half of the environment", "")
	t.Setenv("TENCENTCLOUD_SECRET_KEY", "key")
	expect("the environment", "env")
	put("..data", "")
	expect("a mounted Secret without keys, and the environment", "env")
	put("secretId", "file\n")
	expect("half a directory wins, and is not mixed with the environment", "")
	put("secretKey", "key\n")
	expect("the directory wins", "file")
	put("secretId", "rotated")
	expect("files are read again", "rotated")
}

func TestWhatIsWrongWithTheFilesOfTheOperatorsKeyIsTold(t *testing.T) {
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	for _, tt := range []struct {
		name   string
		files  map[string]string
		folder string // instead of a file
		want   string
	}{
		{"none", nil, "", ErrNoOwnCredentials.Error()},
		{"other spellings", map[string]string{"SecretId": "AKID", "SecretKey": "hidden"}, "", "has no key secretId, or it is empty; it has SecretId, SecretKey"},
		{"half of them", map[string]string{"secretId": "AKID"}, "", "has no key secretKey, or it is empty; it has secretId"},
		{"an empty one", map[string]string{"secretId": "\n", "secretKey": "hidden"}, "", "has no key secretId, or it is empty; it has secretId, secretKey"},
		{"one that cannot be read", map[string]string{"secretKey": "hidden"}, "secretId", "secretId: is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.folder != "" {
				if err := os.Mkdir(filepath.Join(dir, tt.folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			_, err := OwnCredentials(dir)()
			if !errors.Is(err, errMissing) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("it says %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := OwnCredentials(filepath.Join(t.TempDir(), "nowhere"))(); !errors.Is(err, errMissing) || errors.Is(err, ErrNoOwnCredentials) {
		t.Errorf("of a directory that is not there it says %v", err)
	}
}
