package main

import (
	"errors"
	"fmt"
	"go/scanner"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lexeme is a token of Go code, with its position in the text.
type lexeme struct {
	token      token.Token
	text       string
	start, end int
	// qualifier is the package before a name, with its dot. The same code may have one or
	// not, depending on its package.
	qualifier string
	// isMember means that the name follows a dot, so it is a field or a method.
	isMember bool
}

// packages are the package names that count as qualifiers.
var packages = []string{"queue", "taskstate", "schedule", "kube", "teo", "target", "metrics", "submit", "follow", "ttl"}

// scanTokens returns the tokens of code, without comments and line breaks.
func scanTokens(code string) ([]lexeme, error) {
	var s scanner.Scanner
	var failed scanner.ErrorList
	file := token.NewFileSet().AddFile("", -1, len(code))
	s.Init(file, []byte(code), failed.Add, 0)
	var lexemes []lexeme
	for {
		pos, tok, text := s.Scan()
		switch {
		case tok == token.EOF:
			return lexemes, failed.Err()
		case tok == token.SEMICOLON && text == "\n":
			continue
		case text == "":
			text = tok.String()
		}
		start := file.Offset(pos)
		l := lexeme{token: tok, text: text, start: start, end: start + len(text)}
		if n := len(lexemes); n > 0 && lexemes[n-1].token == token.PERIOD {
			l.isMember = true
			if n > 1 && token.IsExported(text) && slices.Contains(packages, lexemes[n-2].text) && !lexemes[n-2].isMember {
				l.isMember, l.qualifier, l.start = false, lexemes[n-2].text+".", lexemes[n-2].start
				lexemes = lexemes[:n-2]
			}
		}
		lexemes = append(lexemes, l)
	}
}

// match is a place where a fragment fits the code, whatever the names in the code are.
type match struct {
	start, end int
	names      map[string]string // key of a name in the fragment -> name in the code
	same       int               // how many names are the same
}

// findMatches returns the places where a fragment fits. Everything except names must be
// equal. Names may differ, if each name in the fragment corresponds to exactly one name in
// the code, and vice versa. For fields and methods even this is not necessary. Predeclared
// names of Go never differ.
func findMatches(fragment, code []lexeme) []match {
	var matches []match
	for at := 0; at+len(fragment) <= len(code); at++ {
		if m, ok := matchTokens(fragment, code[at:at+len(fragment)]); ok {
			matches = append(matches, m)
		}
	}
	return matches
}

func matchTokens(fragment, code []lexeme) (match, bool) {
	m := match{start: code[0].start, end: code[len(code)-1].end, names: map[string]string{}}
	back := map[string]string{}
	for i, want := range fragment {
		have := code[i]
		if want.token != have.token || want.token != token.IDENT && want.text != have.text {
			return m, false
		}
		if want.token != token.IDENT {
			continue
		}
		if want.text == have.text {
			m.same++
		} else if isPredeclared(want.text) || isPredeclared(have.text) || want.isMember != have.isMember {
			return m, false
		}
		key, name := want.key(), have.qualifier+have.text
		if want.isMember { // fields and methods of several types may have had the same name
			if _, ok := m.names[key]; !ok {
				m.names[key] = name
			}
			continue
		}
		if known, ok := m.names[key]; ok && known != name {
			return m, false
		}
		if known, ok := back[name]; ok && known != key {
			return m, false
		}
		m.names[key], back[name] = name, key
	}
	return m, true
}

// key distinguishes a field or a method from other things with the same name.
func (l lexeme) key() string {
	if l.isMember {
		return "." + l.text
	}
	return l.text
}

func isPredeclared(name string) bool { return types.Universe.Lookup(name) != nil || name == "_" }

var errAmbiguous = errors.New("the old text fits in several places")

// chooseBest returns the place that has most of the fragment's names. It fails if two
// places have the same number.
func chooseBest(places []place) (place, error) {
	var found place
	n := 0
	for _, p := range places {
		switch {
		case n == 0 || p.same > found.same:
			found, n = p, 1
		case p.same == found.same:
			n++
		}
	}
	switch n {
	case 0:
		return found, errors.New("the old text fits nowhere")
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("%w: %d", errAmbiguous, n)
}

// renameCode returns code with the names that the matched code uses.
func (m match) renameCode(code string) (string, error) {
	lexemes, err := scanTokens(code)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	end := 0
	for _, l := range lexemes {
		name, ok := m.names[l.key()]
		if l.token != token.IDENT || !ok {
			continue
		}
		b.WriteString(code[end:l.start] + name)
		end = l.end
	}
	return b.String() + code[end:], nil
}

// source is a file of the shipped code.
type source struct {
	path    string // from the repository's root
	text    string
	lexemes []lexeme
}

// readSources reads the shipped code: everything in internal and cmd, except tests.
func readSources(root string) ([]source, error) {
	var sources []source
	for _, dir := range []string{"cmd", "internal"} {
		err := fs.WalkDir(os.DirFS(root), dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				return err
			}
			lexemes, err := scanTokens(string(text))
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			sources = append(sources, source{path, string(text), lexemes})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// place is a place in a file where a mutation fits.
type place struct {
	source
	match
}

// locate finds the place where the mutation fits best: in its file, or else in any file.
func (m mutation) locate(sources []source) (place, error) {
	fragment, err := scanTokens(m.old)
	if err != nil {
		return place{}, err
	}
	var here, all []place
	for _, s := range sources {
		for _, found := range findMatches(fragment, s.lexemes) {
			all = append(all, place{s, found})
			if s.path == m.file {
				here = append(here, place{s, found})
			}
		}
	}
	at, err := chooseBest(all)
	if errors.Is(err, errAmbiguous) {
		if in, errHere := chooseBest(here); errHere == nil && in.same == at.same {
			return in, nil
		}
	}
	return at, err
}

// apply returns the text of the file with the safeguard removed.
func (m mutation) apply(at place) (string, error) {
	broken, err := at.renameCode(strings.TrimSpace(m.new))
	if err != nil {
		return "", err
	}
	return at.text[:at.start] + broken + at.text[at.end:], nil
}
