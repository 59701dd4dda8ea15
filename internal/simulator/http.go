package simulator

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// maxBody is the maximum size of a request body that EdgeOne accepts, in bytes.
const maxBody = 10 << 20

// fate is what the network does with an answer.
type fate int

const (
	fateDeliver fate = iota
	fateClose
	fateReset
	fateTruncate
)

// answer is the response to the caller.
type answer struct {
	fate        fate
	status      int
	statusText  string // "" means the usual text
	contentType string
	location    string
	date        time.Time
	body        []byte
}

// newCall parses a request. Parts that are missing or malformed stay empty.
func newCall(r *http.Request, body []byte) *call {
	c := &call{method: r.Method, path: r.URL.Path, host: r.Host, header: r.Header, body: body}
	c.RequestID = newRequestID()
	c.Action = r.Header.Get("X-TC-Action")
	auth, _ := parseAuthorization(r.Header.Get("Authorization"))
	c.SecretID = auth.secretID
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if decoder.Decode(&c.params) != nil || decoder.More() {
		c.params = nil
	}
	c.ZoneID = c.text("ZoneId")
	c.targets = texts(c.params["Targets"])
	c.Type = c.text("Type")
	c.Targets, c.URLs = len(c.targets), c.targets
	if unix, err := strconv.ParseInt(r.Header.Get("X-TC-Timestamp"), 10, 64); err == nil {
		c.SignedAt = time.Unix(unix, 0)
	}
	return c
}

// answer returns the answer to a call with its result or failure. spoiler, if not nil,
// changes the answer.
func (s *Simulator) answer(c *call, spoiler *Effect, result map[string]any, failure *apiError) answer {
	var spoil Effect
	if spoiler != nil {
		spoil = *spoiler
	}
	if spoil.Code != "" {
		failure = fail(c.echo(spoil.Code), "%s", c.echo(spoil.Message))
	}
	response := c.respond(result, failure)
	if spoil.Answer != "" {
		c.Outcome = string(spoil.Answer)
	}
	spoil.spoilResponse(response)
	a := answer{status: http.StatusOK, statusText: c.echo(spoil.StatusText), contentType: "application/json"}
	a.body, _ = json.Marshal(map[string]any{"Response": response})
	spoil.spoilAnswer(&a)
	if spoil.Status != 0 {
		a.status = spoil.Status
	}
	if spoil.Body != "" {
		a.body = []byte(c.echo(spoil.Body))
	}
	if a.status != http.StatusOK && spoil.Answer == "" {
		c.Outcome = strconv.Itoa(a.status)
	}
	return a
}

// respond returns the fields of the response to a call, and sets the outcome of the call.
func (c *call) respond(result map[string]any, failure *apiError) map[string]any {
	response := map[string]any{"RequestId": c.RequestID}
	if failure != nil {
		c.Outcome = failure.code
		response["Error"] = map[string]string{"Code": failure.code, "Message": failure.message}
		return response
	}
	c.Outcome = "OK"
	maps.Copy(response, result)
	return response
}

// spoilResponse removes the field that the effect omits, and replaces the lists if
// Elements is set.
func (e Effect) spoilResponse(response map[string]any) {
	switch e.Answer {
	case NoRequestID:
		delete(response, "RequestId")
	case NoJobID:
		delete(response, "JobId")
	}
	if e.Elements > 0 {
		inflate(response, e.Elements)
	}
}

// spoilAnswer applies the effect's Answer to an answer.
func (e Effect) spoilAnswer(a *answer) {
	switch e.Answer {
	case ConnectionClosed:
		a.fate = fateClose
	case ConnectionReset:
		a.fate = fateReset
	case TruncatedBody:
		a.fate = fateTruncate
	case BadGateway:
		a.status, a.contentType = http.StatusBadGateway, "text/html"
		a.body = []byte("<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>")
	case Redirect:
		a.status, a.location, a.body = http.StatusFound, "/elsewhere", nil
		if e.Location != "" {
			a.location = e.Location
		}
	case EmptyBody:
		a.body = nil
	case EmptyObject, NullBody:
		a.body = []byte(e.Answer)
	}
}

// echo replaces the placeholders in a text with the secrets of the request; see [Effect].
func (c *call) echo(text string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	auth, _ := parseAuthorization(c.header.Get("Authorization"))
	return strings.NewReplacer(
		"{secretID}", auth.secretID,
		"{signature}", auth.signature,
		"{authorization}", c.header.Get("Authorization"),
		"{token}", c.header.Get("X-TC-Token"),
		"{proxyAuthorization}", c.header.Get("Proxy-Authorization"),
	).Replace(text)
}

// inflate replaces every list with a list of n empty objects.
func inflate(response map[string]any, n int) {
	list := json.RawMessage("[" + strings.Repeat("{},", n-1) + "{}]")
	for name, value := range response {
		if kind := reflect.ValueOf(value).Kind(); kind == reflect.Slice {
			response[name] = list
		}
	}
}

// newRequestID returns a version 4 UUID.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// header returns the headers of the answer.
func (a answer) header() http.Header {
	h := http.Header{
		"Date":           {a.date.UTC().Format(http.TimeFormat)},
		"Content-Type":   {a.contentType},
		"Content-Length": {strconv.Itoa(len(a.body))},
		"Server":         {"teo-simulator"},
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	return h
}

// ServeHTTP answers API calls over HTTP.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	auth, _ := parseAuthorization(r.Header.Get("Authorization"))
	readable := s.readable(r.Header.Get("X-TC-Action"), auth.secretID)
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(readable)+1))
	if err != nil || !s.begin() {
		panic(http.ErrAbortHandler) // closes the connection
	}
	a := s.handle(r, body)
	switch a.fate {
	case fateClose:
		panic(http.ErrAbortHandler)
	case fateReset:
		reset(w)
		panic(http.ErrAbortHandler)
	}
	if a.statusText != "" {
		a.writeTo(w)
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), a.header())
	w.WriteHeader(a.status)
	if a.fate == fateTruncate {
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(a.body) // EdgeOne ignores that a caller is gone
}

// writeTo writes the answer with its own status text, which http.ResponseWriter does not
// support, and closes the connection.
func (a answer) writeTo(w http.ResponseWriter) {
	conn, buffer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	header := a.header()
	header.Set("Connection", "close")
	_, _ = fmt.Fprintf(buffer, "HTTP/1.1 %d %s\r\n", a.status, a.statusText)
	_ = header.Write(buffer)
	_, _ = buffer.WriteString("\r\n")
	_, _ = buffer.Write(a.body)
	_ = buffer.Flush()
}

// reset closes a connection, with a TCP reset if it is a TCP connection.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
