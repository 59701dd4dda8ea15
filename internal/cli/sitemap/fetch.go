package sitemap

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

var (
	errTooLong  = refusal(fmt.Sprintf("is longer than %d MB uncompressed, the limit of the sitemaps protocol: split it", MaxBytes>>20))
	errTooMuch  = refusal(fmt.Sprintf("would be read, but more than %d MB were read before it: submit the sitemaps of the index one by one", MaxTotalBytes>>20))
	errTwice    = refusal("is compressed with gzip more than once: compress it once")
	errHTML     = refusal("is a web page (HTML), not a sitemap: give the address of the sitemap, which /robots.txt often names")
	errDocument = refusal("has a document type declaration (<!DOCTYPE …>), which is refused: a sitemap needs none")
)

// file is the content of a file, and what to close after it.
type file struct {
	io.Reader
	body io.Closer
}

func (f file) Close() error { return f.body.Close() }

// fetch asks for a file, and returns its content uncompressed.
func (r *Reader) fetch(ctx context.Context, address string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", r.UserAgent)
	request.Header.Set("Accept", "application/xml, text/xml, application/gzip;q=0.9, */*;q=0.1")
	response, err := r.client.Do(request)
	if err != nil {
		return nil, reasonOf(err)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("is not there: the server answers %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	}
	content, err := r.decompress(response.Body)
	if err != nil {
		_ = response.Body.Close()
		return nil, reasonOf(err)
	}
	return file{content, response.Body}, nil
}

// decompress removes gzip once, if it is there, and bounds the content before and after.
func (r *Reader) decompress(body io.Reader) (io.Reader, error) {
	content := bufio.NewReader(&limitedReader{body, MaxBytes, &r.rest})
	if !isGzip(content) {
		return withoutMark(content), nil
	}
	unzipped, err := gzip.NewReader(content)
	if err != nil {
		return nil, refusal("is not valid gzip")
	}
	content = bufio.NewReader(&limitedReader{unzipped, MaxBytes, &r.rest})
	if isGzip(content) {
		return nil, errTwice
	}
	return withoutMark(content), nil
}

// withoutMark leaves out a byte order mark at the beginning.
func withoutMark(content *bufio.Reader) *bufio.Reader {
	if start, _ := content.Peek(3); string(start) == "\xef\xbb\xbf" {
		_, _ = content.Discard(len(start))
	}
	return content
}

func isGzip(content *bufio.Reader) bool {
	start, _ := content.Peek(2)
	return string(start) == "\x1f\x8b"
}

// limitedReader reads at most rest bytes, and at most total bytes together with others. It fails if
// there are more.
type limitedReader struct {
	reader io.Reader
	rest   int
	total  *int
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.reader.Read(p[:min(len(p), l.rest+1)])
	if l.rest -= n; l.rest < 0 {
		return 0, errTooLong
	}
	if *l.total -= n; *l.total < 0 {
		return 0, errTooMuch
	}
	if err != nil && (errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)) {
		err = refusal("is damaged gzip: download it again")
	}
	return n, err
}
