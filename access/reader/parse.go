package reader

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// upload is an upload that has been read.
type upload struct {
	device *Device
	clock  clock
	facts  []*fact
}

// mistake is where and how a body is not the document it should be.
type mistake struct {
	path    string // such as body.events[3].seq
	message string
}

// Error names the place and the mistake.
func (m *mistake) Error() string { return m.path + ": " + m.message }

// errTooMany is an upload of more than maxEvents events.
var errTooMany = fmt.Errorf("more than %d events", maxEvents)

// parseUpload reads the body of an upload. It returns errTooMany or a *mistake
// when the body is not an upload; mistakes in what an event says end in that
// event's rejection instead, so that one event never holds up the others.
func parseUpload(body []byte, device *Device, receivedAt time.Time) (*upload, error) {
	if !utf8.Valid(body) {
		return nil, &mistake{"body", "not UTF-8"}
	}
	var document struct {
		SentAt *string           `json:"sent_at"`
		Events []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, locate(err, body, "body")
	}
	if document.Events == nil {
		return nil, &mistake{"body.events", "required"}
	}
	if len(document.Events) > maxEvents {
		return nil, errTooMany
	}
	var sentAt time.Time
	if document.SentAt != nil {
		var err error
		if sentAt, err = time.Parse(time.RFC3339, *document.SentAt); err != nil {
			return nil, &mistake{"body.sent_at", "want a time such as 2026-11-22T08:15:04+03:00"}
		}
	}
	u := &upload{device: device, clock: measure(sentAt, receivedAt), facts: make([]*fact, len(document.Events))}
	for i, raw := range document.Events {
		path := func() string { return fmt.Sprintf("body.events[%d]", i) }
		if raw[0] != '{' {
			return nil, &mistake{path(), "want an object"}
		}
		var e DeviceEvent
		if err := json.Unmarshal(raw, &e); err != nil {
			return nil, locate(err, raw, path())
		}
		if e.Seq == nil {
			return nil, &mistake{path() + ".seq", "required"}
		}
		if *e.Seq < 0 || *e.Seq > maxSeq {
			return nil, &mistake{path() + ".seq", "want a number from 0 to 2^53"}
		}
		u.facts[i] = read(&e, keepable(raw), device, u.clock)
	}
	return u, nil
}

// keepable returns what is kept of an event in quarantine: the event itself, or
// its beginning when it is so large or so deep that it was made to do harm.
func keepable(raw []byte) []byte {
	depth, text := 0, false
	for i := 0; i < len(raw) && len(raw) <= maxKept && depth <= maxDepth; i++ {
		switch c := raw[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{', c == '[':
			depth++
		case c == '}', c == ']':
			depth--
		}
	}
	if len(raw) <= maxKept && depth <= maxDepth {
		return raw
	}
	beginning, err := json.Marshal(map[string]string{"beginning": string(raw[:min(len(raw), 1024)])})
	if err != nil { // it is a string
		panic(err)
	}
	return beginning
}

// locate turns an error of encoding/json into a mistake below path.
func locate(err error, data []byte, path string) *mistake {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		if wrongType.Field != "" {
			path += "." + wrongType.Field
		}
		return &mistake{path, fmt.Sprintf("want %s, got %s", jsonKind(wrongType.Type.String()), wrongType.Value)}
	}
	return &mistake{path + brokenAt(data), strings.TrimPrefix(err.Error(), "json: ")}
}

// jsonKind names a Go type as a writer of JSON knows it.
func jsonKind(goType string) string {
	switch {
	case strings.HasPrefix(goType, "int"):
		return "a whole number"
	case goType == "string":
		return "a string"
	case strings.HasPrefix(goType, "[]"):
		return "an array"
	default:
		return "an object"
	}
}

// brokenAt walks through a document that is not JSON and returns the path of the
// value in which it breaks.
func brokenAt(data []byte) string {
	type level struct {
		array bool
		index int
		key   string
		inKey bool // the next token of an object is a key
	}
	var (
		levels  []level
		decoder = json.NewDecoder(bytes.NewReader(data))
	)
	decoder.UseNumber()
	step := func() { // a value has ended
		if len(levels) == 0 {
			return
		}
		top := &levels[len(levels)-1]
		if top.array {
			top.index++
		} else {
			top.inKey = true
		}
	}
	for {
		token, err := decoder.Token()
		if err != nil {
			break
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{inKey: true})
			continue
		case json.Delim('['):
			levels = append(levels, level{array: true})
			continue
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
			step()
			continue
		}
		if len(levels) > 0 {
			if top := &levels[len(levels)-1]; !top.array && top.inKey {
				top.key, top.inKey = fmt.Sprint(token), false
				continue
			}
		}
		step()
	}
	var path strings.Builder
	for _, l := range levels {
		switch {
		case l.array:
			fmt.Fprintf(&path, "[%d]", l.index)
		case l.inKey:
			// between two members
		default:
			path.WriteString("." + clean(l.key))
		}
		if path.Len() > 256 {
			break
		}
	}
	return path.String()
}

// readAll reads a body of at most limit octets.
func readAll(body io.Reader, declared int64) ([]byte, error) {
	buffer := bytes.NewBuffer(make([]byte, 0, min(max(declared, 0)+bytes.MinRead, maxBody+bytes.MinRead)))
	_, err := buffer.ReadFrom(body)
	return buffer.Bytes(), err
}
