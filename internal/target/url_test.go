package target

import (
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"a plain URL stays", "https://www.example.com/a/b.jpg?x=1&y=a+b;c", "https://www.example.com/a/b.jpg?x=1&y=a+b;c"},
		{"non-ASCII is encoded", "http://h/中?q=é", "http://h/%E4%B8%AD?q=%C3%A9"},
		{"spaces and quotes are encoded", "http://h/a b\"<>\\^`{|}", "http://h/a%20b%22%3C%3E%5C%5E%60%7B%7C%7D"},
		{"control characters are encoded", "http://h/\x00\n\x7f", "http://h/%00%0A%7F"},
		{"bytes that are not UTF-8 are encoded", "http://h/\xff", "http://h/%FF"},
		{"escapes stay", "http://h/%e4%B8?%2f", "http://h/%e4%B8?%2f"},
		{"a lone percent sign is encoded", "http://h/100%?%4&%zz%", "http://h/100%25?%254&%25zz%25"},
		{"reserved characters stay", "http://h/:@!$&'()*+,;=[]-._~", "http://h/:@!$&'()*+,;=[]-._~"},
		{"case and port stay", "HTTP://WWW.Example.com:80", "HTTP://WWW.Example.com:80"},
		{"the fragment is not sent", "http://h/a#b?c#d", "http://h/a"},
		{"an international host is sent in ASCII", "http://例え.jp:8080/例#f", "http://xn--r8jz45g.jp:8080/%E4%BE%8B"},
		{"an international host without a path", "http://例え.jp?例", "http://xn--r8jz45g.jp?%E4%BE%8B"},
		{"a host that has no ASCII form stays", "http://例：80/例", "http://例：80/%E4%BE%8B"},
		{"what is not a URL is encoded throughout", "é/x?u=http://é", "%C3%A9/x?u=http://%C3%A9"},
		{"nothing stays nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Encode(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLiteral(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"path and query stay as they were written", "http://h/中 %4%e4?q=é&b=\"", "http://h/中 %4%e4?q=é&b=\""},
		{"the fragment is not sent", "http://h/中#b", "http://h/中"},
		{"an international host is sent in ASCII", "http://user@例え.jp:80/例", "http://user@xn--r8jz45g.jp:80/例"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Literal(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The cases are the rows of the table in docs/urls.md.
func TestSpellingsOfOneURLHaveOneIdentity(t *testing.T) {
	for _, tt := range []struct {
		name      string
		spellings []string
	}{
		{"scheme and host in any case", []string{"https://www.example.com/A", "HTTPS://WWW.Example.COM/A"}},
		{"the default port", []string{"https://h/a", "https://h:443/a", "https://h:/a"}},
		{"the default port of http", []string{"http://h/", "http://h:80"}},
		{"an empty path", []string{"http://h/?q", "http://h?q"}},
		{"any fragment", []string{"http://h/a?b", "http://h/a?b#c?d", "http://h/a?b#", "http://h/a?b#caf%C3%A9"}},
		{"a fragment behind the host", []string{"http://h/", "http://h#top"}},
		{"encoded and not", []string{"http://h/%E4%B8%AD?%20", "http://h/中? "}},
		{"escapes in any case", []string{"http://h/%E4%B8%AD", "http://h/%e4%b8%ad", "http://h/%E4%b8%Ad"}},
		{"a percent sign", []string{"http://h/100%25", "http://h/100%"}},
		{"an international host", []string{"https://xn--r8jz45g.jp/", "https://例え.jp/", "https://例え。JP:443", "https://XN--R8JZ45G.JP/"}},
		{"an international host in any case", []string{"https://xn--bcher-kva.example/", "https://Bücher.example/", "https://BÜCHER.example/"}},
		{"an international host with an underscore", []string{"https://a_b.xn--r8jz45g.jp/", "https://A_b.例え.jp/"}},
		{"an address in brackets", []string{"http://[2001:db8::1]/", "http://[2001:DB8::1]:80/"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, u := range tt.spellings {
				if got, want := Identity(u), tt.spellings[0]; got != want {
					t.Errorf("%s is %s, want %s", u, got, want)
				}
			}
		})
	}
}

// A cache may store these URLs separately, so they are different targets.
func TestURLsThatACacheMayKeepApartHaveTwoIdentities(t *testing.T) {
	for _, tt := range []struct{ name, a, b string }{
		{"another scheme", "http://h/", "https://h/"},
		{"another port", "http://h:443/a", "http://h/a"},
		{"the case of a path", "http://h/a", "http://h/A"},
		{"dot segments", "http://h/a/../b", "http://h/b"},
		{"an empty query", "http://h/a?", "http://h/a"},
		{"a slash at the end", "http://h/a/", "http://h/a"},
		{"two slashes", "http://h//a", "http://h/a"},
		{"an escape that need not be", "http://h/%61", "http://h/a"},
		{"an escape of a character that divides", "http://h/a%2Fb", "http://h/a/b"},
		{"plus and space", "http://h/?a+b", "http://h/?a%20b"},
		{"the dot at the end of a host name", "http://h./", "http://h/"},
		{"the order of parameters", "http://h/?a&b", "http://h/?b&a"},
		{"composed and decomposed", "http://h/\u00e9", "http://h/e\u0301"},
		{"a user", "http://User@h/", "http://user@h/"},
		{"a full-width colon", "http://é：80/", "http://é/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if a, b := Identity(tt.a), Identity(tt.b); a == b {
				t.Errorf("%s and %s are both %s", tt.a, tt.b, a)
			}
		})
	}
}

func TestAnOrdinaryURLCostsNoAllocation(t *testing.T) {
	u := "https://www.example.com/some/path/%E4%B8%AD.jpg?version=1&a=b"
	if n := testing.AllocsPerRun(100, func() {
		if Identity(u) != u {
			t.Fatal("it is changed")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkIdentity(b *testing.B) {
	for name, u := range map[string]string{
		"canonical":     "https://www.example.com/some/path/to/a/file.jpg?version=1",
		"ASCII":         "https://www.Example.com:443/some/path/to/a/file.jpg?version=1",
		"encoded":       "https://www.example.com/" + strings.Repeat("页", 50),
		"international": "https://例え.jp/some/path/to/a/file.jpg?version=1",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Identity(u)
			}
		})
	}
}
