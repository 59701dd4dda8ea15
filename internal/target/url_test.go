package target

import "testing"

func TestEncode(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"a plain URL stays", "https://www.example.com/a/b.jpg?x=1&y=a+b;c#f", "https://www.example.com/a/b.jpg?x=1&y=a+b;c#f"},
		{"non-ASCII is encoded", "http://h/中?q=é", "http://h/%E4%B8%AD?q=%C3%A9"},
		{"spaces and quotes are encoded", "http://h/a b\"<>\\^`{|}", "http://h/a%20b%22%3C%3E%5C%5E%60%7B%7C%7D"},
		{"control characters are encoded", "http://h/\x00\n\x7f", "http://h/%00%0A%7F"},
		{"bytes that are not UTF-8 are encoded", "http://h/\xff", "http://h/%FF"},
		{"escapes stay", "http://h/%e4%B8?%2f", "http://h/%e4%B8?%2f"},
		{"a lone percent sign is encoded", "http://h/100%?%4&%zz%", "http://h/100%25?%254&%25zz%25"},
		{"reserved characters stay", "http://h/:@!$&'()*+,;=[]-._~", "http://h/:@!$&'()*+,;=[]-._~"},
		{"a non-ASCII host stays", "http://例え.jp/例", "http://例え.jp/%E4%BE%8B"},
		{"a non-ASCII host stays without a path", "http://例え.jp?例", "http://例え.jp?%E4%BE%8B"},
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

func TestNormalize(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"scheme and host are lower-cased, the rest is not", "HTTPS://WWW.Example.COM/A?B", "https://www.example.com/A?B"},
		{"the default port of https goes", "https://h:443/a", "https://h/a"},
		{"the default port of http goes", "http://h:80", "http://h/"},
		{"another port stays", "http://h:443/a", "http://h:443/a"},
		{"an empty port goes", "http://h:/a", "http://h/a"},
		{"an empty path is /", "http://h?q", "http://h/?q"},
		{"the fragment goes", "http://h/a?b#c?d", "http://h/a?b"},
		{"an empty query is something else than none", "http://h/a?", "http://h/a?"},
		{"escapes are upper-cased", "http://h/%e4%b8%ad", "http://h/%E4%B8%AD"},
		{"unencoded is the same as encoded", "http://h/中", "http://h/%E4%B8%AD"},
		{"a user keeps its case", "http://User@H/", "http://User@h/"},
		{"an address in brackets", "http://[2001:DB8::1]:80/", "http://[2001:db8::1]/"},
		{"what is not a URL is only encoded", "a b#c", "a%20b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Identity(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func BenchmarkNormalize(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Identity("https://www.Example.com:443/some/path/to/a/file.jpg?version=1")
	}
}
