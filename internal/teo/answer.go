package teo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// The bounds of an answer. They are far above what EdgeOne sends. They are also low
// enough that no answer, from any sender, makes the client keep or build more than it can
// use.
const (
	// maxAnswer bounds the bytes of an answer. The largest possible answer lists the URLs
	// of the largest request, or 1,000 URLs of 2 KiB.
	maxAnswer = 32 << 20
	// maxString bounds the bytes of a string or number on the wire. An escaped URL of 2
	// KiB has 12 KiB.
	maxString = 128 << 10
	maxDepth  = 32      // nested objects and arrays
	maxTokens = 1 << 20 // names, values and delimiters
)

// errTooMuch is in the error chain when an answer exceeds a bound.
var errTooMuch = errors.New("the answer is larger than any expected one")

// response holds the fields that every answer has.
type response struct {
	requestID string
	jobID     string
	failure   *refused
}

// refused is the Error field of an answer.
type refused struct{ code, message string }

// content is the part of an answer that depends on the action.
type content interface {
	// read reads the value of a field of the answer, or skips it.
	read(field string, from *jsonReader)
	// problem returns what is missing from a complete answer, or nil.
	problem(response) error
}

// readAnswer reads one complete answer, with nothing after it. An answer without a
// request ID does not come from the API. From a malformed answer, it returns only the
// request ID.
func readAnswer(from *jsonReader, into content) (response, error) {
	var answer response
	from.object(func(field string) {
		if field != "Response" {
			from.skip()
			return
		}
		from.object(func(field string) {
			switch field {
			case "RequestId":
				answer.requestID = from.words(maxWord)
			case "JobId":
				answer.jobID = from.jobID()
			case "Error":
				answer.failure = readRefusal(from)
			default:
				into.read(field, from)
			}
		})
	})
	err := from.end()
	switch {
	case err != nil && !errors.Is(err, errMalformed):
		return response{}, err
	case err != nil:
		return response{requestID: answer.requestID}, err
	case answer.failure != nil && (answer.failure.code == "" || answer.jobID != ""):
		// A refusal without a code says nothing, and one with a job contradicts itself.
		return response{}, errors.New("a refusal that is none")
	}
	return answer, nil
}

// readRefusal reads an Error field. It returns nil for null and for an empty object.
func readRefusal(from *jsonReader) (failure *refused) {
	from.object(func(field string) {
		if failure == nil {
			failure = &refused{}
		}
		switch field {
		case "Code":
			failure.code = from.words(maxWord)
		case "Message":
			failure.message = from.words(maxWords)
		default:
			from.skip()
		}
	})
	return failure
}

// errMalformed is in the error chain when an answer is JSON, but not of the expected
// shape.
var errMalformed = errors.New("malformed")

// jsonReader reads a JSON text as a stream, value by value. It never keeps the values
// that it skips. It skips a value of an unexpected type and records it in odd. Any worse
// error ends the reading, and no more values follow.
type jsonReader struct {
	dec     *json.Decoder
	bytes   boundedReader
	redact  redactor
	tokens  int
	failure error // ended the reading
	odd     error // the first value of an unexpected shape
}

func newJSONReader(body io.Reader, redact redactor) *jsonReader {
	r := &jsonReader{bytes: boundedReader{from: body}, redact: redact}
	r.dec = json.NewDecoder(&r.bytes)
	r.dec.UseNumber()
	return r
}

// end checks that only white space follows the value, and returns the first error.
func (r *jsonReader) end() error {
	if r.failure == nil {
		if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
			r.fail(errors.New("more than one value"))
		}
	}
	if r.failure != nil {
		return r.failure
	}
	return r.odd
}

// fail ends the reading with an error, unless it has already ended.
func (r *jsonReader) fail(err error) {
	if r.failure == nil {
		r.failure = err
	}
}

// malformed records that a value does not have the expected shape. The value has been
// read.
func (r *jsonReader) malformed(what string) {
	if r.odd == nil {
		r.odd = fmt.Errorf("%w: %s", errMalformed, what)
	}
}

// token returns the next token, or false if there is none.
func (r *jsonReader) token() (json.Token, bool) {
	if r.failure != nil {
		return nil, false
	}
	token, err := r.dec.Token()
	if err != nil {
		r.fail(err)
		return nil, false
	}
	if r.tokens++; r.tokens > maxTokens {
		r.fail(errTooMuch)
		return nil, false
	}
	return token, true
}

// more says whether the current array or object has another element.
func (r *jsonReader) more() bool { return r.failure == nil && r.dec.More() }

// object reads an object and calls field with each name; field reads or skips the value.
// It reads null as an empty object.
func (r *jsonReader) object(field func(name string)) {
	token, ok := r.token()
	if !ok || token == nil {
		return
	}
	if token != json.Delim('{') {
		r.wrong(token, "no object")
		return
	}
	for r.more() {
		if name, ok := r.token(); ok {
			field(name.(string))
		}
	}
	r.token()
}

// array reads an array and calls element for each element; element reads or skips it.
// More than limit elements end the reading. It reads null as an empty array.
func (r *jsonReader) array(limit int, element func()) {
	token, ok := r.token()
	if !ok || token == nil {
		return
	}
	if token != json.Delim('[') {
		r.wrong(token, "no array")
		return
	}
	for n := 0; r.more(); n++ {
		if n == limit {
			r.fail(fmt.Errorf("%w: more than %d elements", errTooMuch, limit))
			return
		}
		element()
	}
	r.token()
}

// text returns a string unchanged, or "" for null.
func (r *jsonReader) text() string {
	token, ok := r.token()
	if !ok || token == nil {
		return ""
	}
	text, isText := token.(string)
	if !isText {
		r.wrong(token, "no string")
	}
	return text
}

// words returns a string for people, without secrets and with at most limit bytes.
func (r *jsonReader) words(limit int) string { return r.redact.words(r.text(), limit) }

// jobID returns a JobId. A text that is too long or not safe to show is malformed.
func (r *jsonReader) jobID() string {
	id := r.text()
	if id != r.redact.words(id, maxJobID) {
		r.malformed("a JobId that cannot be one")
	}
	return id
}

// number returns an integer, or nil for null.
func (r *jsonReader) number() *int {
	token, ok := r.token()
	if !ok || token == nil {
		return nil
	}
	number, isNumber := token.(json.Number)
	if !isNumber {
		r.wrong(token, "no number")
		return nil
	}
	n, err := strconv.Atoi(number.String())
	if err != nil {
		r.malformed("no whole number")
		return nil
	}
	return &n
}

// time returns a time in UTC, or zero for a text that is not a time.
func (r *jsonReader) time() time.Time {
	t, _ := time.Parse(time.RFC3339, r.text())
	return t.UTC()
}

// skip reads a value of any type.
func (r *jsonReader) skip() {
	if token, ok := r.token(); ok {
		r.skipRest(token)
	}
}

// wrong records that the value that starts with token has the wrong type, and skips it.
func (r *jsonReader) wrong(token json.Token, what string) {
	r.malformed(what)
	r.skipRest(token)
}

// skipRest reads the rest of the value that starts with token.
func (r *jsonReader) skipRest(token json.Token) {
	depth := 0
	for ok := true; ok; token, ok = r.token() {
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth <= 0 {
			return
		}
	}
}

// boundedReader passes on a JSON text until it exceeds a bound: on its size, on its
// depth, or on the bytes between two structural characters. A decoder would have to keep
// these bytes in memory as a whole.
type boundedReader struct {
	from     io.Reader
	all      int
	token    int // bytes since the last structural character
	depth    int
	inString bool
	escaped  bool
	failure  error // the error of from, other than io.EOF
}

// Read implements io.Reader. It passes on nothing from a chunk that exceeds a bound.
func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.failure = err
	}
	if b.all += n; b.all > maxAnswer {
		return 0, errTooMuch
	}
	for _, c := range p[:n] {
		b.see(c)
		if b.token > maxString || b.depth > maxDepth {
			return 0, errTooMuch
		}
	}
	return n, err
}

// see counts the next byte. Structural characters within strings do not count as such.
func (b *boundedReader) see(c byte) {
	b.token++
	switch {
	case b.escaped:
		b.escaped = false
	case b.inString:
		b.escaped = c == '\\'
		b.inString = c != '"'
	default:
		switch c {
		case '"':
			b.inString = true
		case '{', '[':
			b.depth++
			b.token = 0
		case '}', ']':
			b.depth--
			b.token = 0
		case ',', ':':
			b.token = 0
		}
	}
}
