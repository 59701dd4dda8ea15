package teo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// The bounds of an answer. They are far above what EdgeOne sends, and low enough
// that no answer, whoever sends it, makes the client keep or even build more than it
// can use.
const (
	// maxAnswer is more bytes than any answer here can have: the largest lists the
	// URLs of the largest request, or 1,000 URLs of 2 KiB.
	maxAnswer = 32 << 20
	// maxToken bounds the bytes of a string or number on the wire. An escaped URL
	// of 2 KiB has 12.
	maxString = 128 << 10
	maxDepth  = 32
	maxTokens = 1 << 20
)

// errTooMuch is in the chain when an answer exceeds a bound.
var errTooMuch = errors.New("the answer is larger than any expected one")

// response is what every answer has.
type response struct {
	requestID string
	jobID     string
	failure   *refused
}

// refused is the Error of an answer.
type refused struct{ code, message string }

// content is what an action's answer has besides.
type content interface {
	// read reads the value of a field of the answer, or skips it.
	read(field string, from *jsonReader)
	// problem says what is missing of an answer that was read to its end.
	problem(response) error
}

// readAnswer reads an answer to its end, and nothing behind it. An answer without a
// request ID is not one of the API; of one that is malformed nothing counts, but that
// it has a request ID.
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

// errMalformed is in the chain when an answer is JSON, and not what it should be.
var errMalformed = errors.New("malformed")

// jsonReader reads a JSON text value by value, as a stream: what is skipped is never
// kept. Values of another type than the wanted one are skipped and noted; anything
// worse ends the reading, and then there are no more values.
type jsonReader struct {
	dec     *json.Decoder
	bytes   boundedReader
	redact  redactor
	tokens  int
	failure error // ended the reading
	odd     error // the first value that is not what it should be
}

func newJSONReader(body io.Reader, redact redactor) *jsonReader {
	r := &jsonReader{bytes: boundedReader{from: body}, redact: redact}
	r.dec = json.NewDecoder(&r.bytes)
	r.dec.UseNumber()
	return r
}

// end returns the first error. Behind the value there may be white space only.
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

func (r *jsonReader) fail(err error) {
	if r.failure == nil {
		r.failure = err
	}
}

// malformed notes that a value, which has been read, is not what it should be.
func (r *jsonReader) malformed(what string) {
	if r.odd == nil {
		r.odd = fmt.Errorf("%w: %s", errMalformed, what)
	}
}

// token returns the next one; false means that there is none.
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

// more says whether the array or object that is being read goes on.
func (r *jsonReader) more() bool { return r.failure == nil && r.dec.More() }

// object calls field for each name, which reads or skips its value. null is an
// object of none.
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

// array calls element for each element, which reads or skips it. More than limit end
// the reading. null is an array of none.
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

// text returns a string as it is; null is "".
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

// words returns a string that is for people, without secrets and with at most limit
// bytes.
func (r *jsonReader) words(limit int) string { return r.redact.words(r.text(), limit) }

// jobID returns a string that is a JobId.
func (r *jsonReader) jobID() string {
	id := r.text()
	if id != r.redact.words(id, maxJobID) {
		r.malformed("a JobId that cannot be one")
	}
	return id
}

// number returns an integer; nil for null.
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

// time returns a time; zero for what is none.
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

// wrong notes that the value that begins with a token is not of its type, and skips it.
func (r *jsonReader) wrong(token json.Token, what string) {
	r.malformed(what)
	r.skipRest(token)
}

// skipRest reads what belongs to a token that is the beginning of a value.
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

// boundedReader hands on a JSON text up to where it exceeds a bound: in all, in
// depth, or in what is between two structural characters, which a decoder would have
// to keep as a whole.
type boundedReader struct {
	from     io.Reader
	all      int
	token    int
	depth    int
	inString bool
	escaped  bool
	failure  error // of from
}

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
