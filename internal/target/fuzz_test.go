package target

import (
	"net/url"
	"strings"
	"testing"
)

var urlSeeds = []string{
	"", "http://", "https://h:443:443/", "http://h/%", "http://h/%%41", "http://h/%4%41", "://x", "a://b@c@d:80:/", "HTTP://É:80/é",
	"http://h#a#b", "http://h/\xff\xfe", "x+y.z-1://h", "1a://h", "http:///", "http://?", "http://:80", "https://u:p@H:443?x",
	"https://h/a%2Fb", "https://h/a+b?c=d;e", "https://[::1%25eth0]:443/", "https://h/\u2028", "https://h/?", "https://h./", "//\"0",
	"https://例え。JP/", "https://é：80/", "https://\u2100.example/", "https://xn--é/", "https://XN--A.é/", "https://ß.example/#é", "https://\u0627a.example/",
}

func FuzzEncode(f *testing.F) {
	for _, s := range urlSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Encode(s)
		if again := Encode(got); again != got {
			t.Errorf("Encode(%q) = %q, and of that %q", s, got, again)
		}
		_, rest := splitAuthority(got)
		for _, b := range []byte(rest) {
			if b <= ' ' || b > '~' {
				t.Errorf("Encode(%q) = %q", s, got)
			}
		}
		if strings.Contains(got, "#") {
			t.Errorf("Encode(%q) = %q: a fragment is sent", s, got)
		}
		if encoded := Encode(Literal(s)); encoded != got {
			t.Errorf("Encode(%q) = %q, and of the literal %q", s, got, encoded)
		}
		// To Go's parser, an encoded full URL is the same URL as before.
		if before, err := url.Parse(s); err == nil && before.Scheme != "" && before.Host != "" {
			after, err := url.Parse(got)
			if err != nil || after.Path != before.Path || after.Host != toASCII(before.Host) {
				t.Errorf("%q became %q: %v", s, got, err)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	for _, s := range urlSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Identity(s)
		if again := Identity(got); again != got {
			t.Errorf("Identity(%q) = %q, and of that %q", s, got, again)
		}
		for _, sent := range []string{Encode(s), Literal(s)} {
			if identity := Identity(sent); identity != got {
				t.Errorf("Identity(%q) = %q, but as sent, %q, it is %q", s, got, sent, identity)
			}
		}
		if strings.Contains(got, "#") {
			t.Errorf("Identity(%q) = %q", s, got)
		}
		// Different URLs have different keys: the decoded key has every byte of the
		// decoded path and query.
		bare, _, _ := strings.Cut(s, "#")
		head, rest := splitAuthority(bare)
		if head != "" && !strings.HasPrefix(rest, "/") {
			rest = "/" + rest
		}
		if _, key := splitAuthority(got); decoded(key) != decoded(rest) || strings.Count(key, "/") != strings.Count(rest, "/") {
			t.Errorf("Identity(%q) = %q: another path or query", s, got)
		}
	})
}

// decoded returns s with its escapes decoded.
func decoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c, err := url.PathUnescape(s[i:min(i+3, len(s))]); s[i] == '%' && err == nil {
			b.WriteString(c)
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
