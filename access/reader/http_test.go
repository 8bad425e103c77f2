package reader_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/access/reader"
)

// raw sends a request as it is written and reads the answer.
func (s *site) raw(text string) *http.Response {
	s.t.Helper()
	address, err := url.Parse(s.url)
	must(s.t, err)
	conn, err := net.Dial("tcp", address.Host)
	must(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	must(s.t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	go io.WriteString(conn, text) // the server may answer before it has read everything
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(s.t, err)
	return response
}

// isProblem checks that an answer is an RFC 9457 document of that status.
func isProblem(t *testing.T, name string, r reply, status int) {
	t.Helper()
	var document struct {
		Status        int
		Title, Detail string
	}
	if err := json.Unmarshal([]byte(r.body), &document); err != nil {
		t.Errorf("%s: the answer %q is no JSON: %v", name, r.body, err)
	}
	if r.status != status || document.Status != status || document.Title != http.StatusText(status) || document.Detail == "" ||
		r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: answer %d %s %s, want a problem %d", name, r.status, r.header.Get("Content-Type"), r.body, status)
	}
}

func TestABodyThatIsNoUploadIsRefusedWithThePathOfTheMistake(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	good := pass(1, 1, "in", morning)
	for _, test := range []struct{ name, body, path string }{
		{"nothing", ``, "body"},
		{"no JSON", `hello`, "body"},
		{"a string", `"hello"`, "body"},
		{"an array", `[]`, "body"},
		{"two documents", `{"events":[]}{"events":[]}`, "body"},
		{"no events", `{}`, "body.events"},
		{"events that are null", `{"events":null}`, "body.events"},
		{"events that are no array", `{"events":{}}`, "body.events"},
		{"events that break off", `{"events":[` + good + `,{"seq":2,"type":"pa`, "body.events[1].type"},
		{"a broken value", `{"events":[{"seq":1,"card":tru}]}`, "body.events[0].card"},
		{"an event that is no object", `{"events":[` + good + `,7]}`, "body.events[1]"},
		{"an event that is null", `{"events":[null]}`, "body.events[0]"},
		{"no number", `{"events":[{"type":"pass"}]}`, "body.events[0].seq"},
		{"a number that is a string", `{"events":[{"seq":"1","type":"pass"}]}`, "body.events[0].seq"},
		{"a number below zero", `{"events":[{"seq":-1,"type":"pass"}]}`, "body.events[0].seq"},
		{"a number with a fraction", `{"events":[{"seq":1.5,"type":"pass"}]}`, "body.events[0].seq"},
		{"a number that no number holds", `{"events":[{"seq":99999999999999999999,"type":"pass"}]}`, "body.events[0].seq"},
		{"a number that loses digits in other languages", `{"events":[{"seq":9007199254740993,"type":"pass"}]}`, "body.events[0].seq"},
		{"a card that is a number", `{"events":[{"seq":1,"type":"pass","card":5}]}`, "body.events[0].card"},
		{"a total that is a number", `{"events":[{"seq":1,"type":"sale","total":70.00}]}`, "body.events[0].total"},
		{"a quantity that is a string", `{"events":[{"seq":1,"items":[{"quantity":"two"}]}]}`, "body.events[0].items.quantity"},
		{"a time of sending that is none", `{"sent_at":"now","events":[]}`, "body.sent_at"},
		{"a time of sending that is a number", `{"sent_at":5,"events":[]}`, "body.sent_at"},
		{"octets that are no text", "{\"events\":[{\"seq\":1,\"type\":\"\xff\"}]}", "body"},
		{"a thousand brackets", strings.Repeat("[", 1000), "body"},
	} {
		r := s.door.send("/api/v1/events", test.body)
		isProblem(t, test.name, r, http.StatusUnprocessableEntity)
		if len(r.Errors) != 1 || !strings.HasPrefix(r.Errors[0].Location, test.path) ||
			test.path != "body" && r.Errors[0].Location != test.path {
			t.Errorf("%s: the path is %+v, want %s", test.name, r.Errors, test.path)
		}
	}
	if n := s.count(`SELECT count(*) FROM reader.event`); n != 0 {
		t.Errorf("%d events of refused uploads are stored", n)
	}
}

// Fault row 26.
func TestDeepJSONIsRefusedAndTheProcessLives(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	for _, body := range []string{
		strings.Repeat(`{"events":[`, 40_000),
		`{"events":[{"seq":1,"items":` + strings.Repeat("[", 500_000),
	} {
		isProblem(t, "deep JSON", s.door.send("/api/v1/events", body), http.StatusUnprocessableEntity)
	}
	if r := s.door.upload(pass(1, 1, "in", morning)); r.status != http.StatusOK {
		t.Errorf("afterwards: %s", r.body)
	}
}

// Fault row 26: limits before the key, and before anything is read.
func TestALargeBodyIsRefusedBeforeItIsRead(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	response := s.raw("POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n")
	if response.StatusCode != http.StatusRequestEntityTooLarge || !response.Close {
		t.Errorf("a declared 10 MB: %s, close %v", response.Status, response.Close)
	}
	big := bytes.Repeat([]byte("x"), 1<<20+1)
	response = s.raw("POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + s.door.key +
		"\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(big), big))
	if response.StatusCode != http.StatusRequestEntityTooLarge || !response.Close {
		t.Errorf("1 MiB and an octet in chunks: %s, close %v", response.Status, response.Close)
	}
}

func TestAnUploadOfExactlyTheLimitsIsTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	body := document(morning, pass(1, 1, "in", morning))
	if r := s.door.send("/api/v1/events", body+strings.Repeat(" ", 1<<20-len(body))); r.status != http.StatusOK {
		t.Errorf("1 MiB: %d %s", r.status, r.body)
	}
	event := func(seq int) string {
		return fmt.Sprintf(`{"seq":%d,"type":"denied","at":"2026-11-23T08:00:00Z"}`, seq)
	}
	var events []string
	for seq := range 1001 {
		events = append(events, event(seq+10))
	}
	if r := s.door.upload(events[:1000]...); r.status != http.StatusOK || len(r.Acknowledged) != 1000 {
		t.Errorf("1,000 events: %d, %d acknowledged", r.status, len(r.Acknowledged))
	}
	isProblem(t, "1,001 events", s.door.upload(events...), http.StatusRequestEntityTooLarge)
}

// Fault row 26: a gzip bomb is not unpacked.
func TestACompressedBodyIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/v1/events", strings.NewReader("x"))
	must(t, err)
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("Authorization", "Bearer "+s.door.key)
	r, err := ask(request)
	must(t, err)
	isProblem(t, "gzip", r, http.StatusUnsupportedMediaType)
}

func TestABodyThatBreaksOffIsNotStored(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	body := document(morning, pass(1, 1, "in", morning))
	address, err := url.Parse(s.url)
	must(t, err)
	conn, err := net.Dial("tcp", address.Host)
	must(t, err)
	_, err = fmt.Fprintf(conn, "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		s.door.key, len(body)+1, body)
	must(t, err)
	must(t, conn.(*net.TCPConn).CloseWrite())
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("answer %s", response.Status)
	}
	if n := s.count(`SELECT count(*) FROM reader.event`); n != 0 {
		t.Errorf("%d events are stored", n)
	}
}

// Fault row 26: a body of an octet a second does not hold a place for ever.
func TestASlowBodyIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.intake.SetBodyTime(50 * time.Millisecond)
	response := s.raw("POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + s.door.key +
		"\r\nContent-Length: 100\r\n\r\n{")
	if response.StatusCode != http.StatusRequestTimeout || !response.Close {
		t.Errorf("answer %s, close %v", response.Status, response.Close)
	}
}

func TestTheFiguresAreWellNamed(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	reader.NewMetrics(registry)
	problems, err := testutil.GatherAndLint(registry)
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestOnlyAValidKeyIsServed(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	other := s.device("door 2", reader.Door, "o-1-b")
	for name, authorization := range map[string]string{
		"no key":                "",
		"an unknown key":        "Bearer zvk_" + strings.Repeat("A", 43),
		"another scheme":        "Basic " + s.door.key,
		"the scheme only":       "Bearer ",
		"a part of a key":       "Bearer " + s.door.key[:len(s.door.key)-1],
		"a key with more to it": "Bearer " + s.door.key + "A",
		"a very long key":       "Bearer " + strings.Repeat("A", 10_000),
		"quotes":                "Bearer ' OR 1=1 --",
	} {
		for _, route := range []struct{ method, path string }{
			{http.MethodPost, "/api/v1/events"}, {http.MethodPost, "/api/v1/authorize"}, {http.MethodGet, "/api/v1/lists"},
		} {
			request, err := http.NewRequestWithContext(t.Context(), route.method, s.url+route.path, strings.NewReader("{}"))
			must(t, err)
			if authorization != "" {
				request.Header.Set("Authorization", authorization)
			}
			r, err := ask(request)
			must(t, err)
			isProblem(t, name+" "+route.path, r, http.StatusUnauthorized)
			if r.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s: WWW-Authenticate is %q", name, r.header.Get("WWW-Authenticate"))
			}
		}
	}
	if r := other.upload(pass(1, 1, "in", morning)); r.status != http.StatusOK {
		t.Errorf("the key of another door: %s", r.body)
	}
}

// Fault row 55: revoked at once, not when a cache forgets.
func TestARevokedKeyIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	event := pass(1, 1, "in", morning)
	if r := s.door.upload(event); r.status != http.StatusOK {
		t.Fatal(r.body)
	}
	must(t, reader.RevokeDevice(t.Context(), s.pool, s.door.id, s.now))
	isProblem(t, "a new event", s.door.upload(pass(2, 1, "out", morning)), http.StatusUnauthorized)
	isProblem(t, "a repeat", s.door.upload(event), http.StatusUnauthorized)
	isProblem(t, "a repeat with a new one", s.door.upload(event, pass(3, 1, "out", morning)), http.StatusUnauthorized)
	if n := s.count(`SELECT count(*) FROM reader.event`); n != 1 {
		t.Errorf("%d events are stored", n)
	}
	must(t, reader.RevokeDevice(t.Context(), s.pool, s.door.id, s.now.Add(time.Hour)))
	devices, err := reader.ListDevices(t.Context(), s.pool)
	must(t, err)
	if len(devices) != 1 || !devices[0].RevokedAt.Equal(s.now) {
		t.Errorf("devices %+v: want the first time of revoking", devices)
	}
	if err := reader.RevokeDevice(t.Context(), s.pool, 999, s.now); err != reader.ErrNoDevice {
		t.Errorf("revoking a device that is none: %v", err)
	}
}

// ASVS V11.4: secrets of devices cannot be read from the database.
func TestAKeyIsStoredHashedAndNeverPrinted(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	_, key, err := reader.AddDevice(t.Context(), s.pool, reader.NewDevice{Name: "till", Kind: reader.Till, Building: "o-1-b"}, s.now)
	must(t, err)
	if len(key.Reveal()) < 40 {
		t.Errorf("a key of %d characters", len(key.Reveal()))
	}
	for _, printed := range []string{fmt.Sprint(key), fmt.Sprintf("%s %v %q", key, key, key), asJSON(t, key)} {
		if strings.Contains(printed, key.Reveal()) {
			t.Errorf("it prints as %s", printed)
		}
	}
	if n := s.count(`SELECT count(*) FROM reader.device d WHERE d::text LIKE '%' || $1 || '%'`, key.Reveal()); n != 0 {
		t.Error("the key stands in the table")
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	document, err := json.Marshal(v)
	must(t, err)
	return string(document)
}

func TestADeviceThatCannotBeIsNotAdded(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	for name, device := range map[string]reader.NewDevice{
		"no name":                {Name: " ", Kind: reader.Door, Building: "o-1-b"},
		"a name of 65":           {Name: strings.Repeat("д", 65), Kind: reader.Door, Building: "o-1-b"},
		"a name that is no text": {Name: "a\x00b", Kind: reader.Door, Building: "o-1-b"},
		"a kind that is none":    {Name: "x", Kind: "window", Building: "o-1-b"},
		"a building of nobody":   {Name: "x", Kind: reader.Door, Building: "nowhere"},
	} {
		if _, _, err := reader.AddDevice(t.Context(), s.pool, device, s.now); err == nil {
			t.Errorf("%s: it is added", name)
		}
	}
}

// ASVS V4.1, V16.5: other methods and paths say nothing of the program.
func TestOtherMethodsAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, "TRACE"} {
		request, err := http.NewRequestWithContext(t.Context(), method, s.url+"/api/v1/events", nil)
		must(t, err)
		r, err := ask(request)
		must(t, err)
		if r.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, r.status)
		}
	}
}

func TestTheDescriptionNamesEveryRouteCodeAndStatus(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/openapi.json", nil)
	must(t, err)
	r, err := ask(request)
	must(t, err)
	var description struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Description string
			Responses   map[string]any
			Security    []map[string][]string
		}
	}
	must(t, json.Unmarshal([]byte(r.body), &description))
	if !strings.HasPrefix(description.OpenAPI, "3.1") {
		t.Errorf("version %q", description.OpenAPI)
	}
	for path, method := range map[string]string{
		"/api/v1/events": "post", "/api/v1/authorize": "post", "/api/v1/lists": "get",
	} {
		operation := description.Paths[path][method]
		for _, status := range []string{"200", "401", "422", "429", "503"} {
			if operation.Responses[status] == nil {
				t.Errorf("%s does not describe %s", path, status)
			}
		}
		if len(operation.Security) == 0 {
			t.Errorf("%s asks for no key", path)
		}
	}
	for _, code := range []reader.Code{reader.UnknownCard, reader.Conflict, reader.BadTotal, reader.BadClock} {
		if !strings.Contains(description.Paths["/api/v1/events"]["post"].Description, string(code)) {
			t.Errorf("the code %s is not described", code)
		}
	}
}

// Contract, section 5: raw and corrected time; over 2 minutes is flagged, over 1 hour nobody is told.
func TestASkewedClockIsCorrectedAndFlagged(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		skew    time.Duration // how far the device's clock is behind
		flagged bool
		jobs    int
	}{
		{"a right clock", 0, false, 1},
		{"a minute behind", time.Minute, false, 1},
		{"three minutes behind", 3 * time.Minute, true, 1},
		{"three minutes ahead", -3 * time.Minute, true, 1},
		{"two hours behind: a wrong zone", 2 * time.Hour, true, 0},
		{"two hours ahead", -2 * time.Hour, true, 0},
		{"in the year 1970", morning.Sub(time.Unix(100, 0)), true, 0},
		{"in the year 2099", morning.Sub(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)), true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1)
			truly := morning.Add(-30 * time.Second)
			r := s.door.uploadAt(morning.Add(-test.skew), pass(1, 1, "in", truly.Add(-test.skew)))
			if !slices.Equal(r.Acknowledged, []int64{1}) {
				t.Fatalf("answer %s", r.body)
			}
			var at, rawAt time.Time
			must(t, s.pool.QueryRow(t.Context(), `SELECT at, coalesce(raw_at, at) FROM door.pass`).Scan(&at, &rawAt))
			if !at.Equal(truly) || !rawAt.Equal(truly.Add(-test.skew)) {
				t.Errorf("stored %v, by the device %v", at, rawAt)
			}
			if n := s.count(`SELECT count(*) FROM river.river_job`); n != test.jobs {
				t.Errorf("%d jobs, want %d", n, test.jobs)
			}
			s.intake.Close()
			devices, err := reader.ListDevices(t.Context(), s.pool)
			must(t, err)
			if d := devices[0]; !d.SeenAt.Equal(morning) || d.SkewedFrom.IsZero() == test.flagged || d.Skew != test.skew {
				t.Errorf("the device is shown as %+v", d)
			}
		})
	}
}

func TestAnUploadThatIsClosedAfterwardsIsAnsweredWith503(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.intake.Close()
	r := s.door.upload(pass(1, 1, "in", morning))
	isProblem(t, "after Close", r, http.StatusServiceUnavailable)
	if r.header.Get("Retry-After") == "" {
		t.Error("it does not say when to come again")
	}
}

func TestASaleByAClockThatIsWrongByHoursIsBookedAndToldToNobody(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		skew time.Duration // how far the device's clock is behind
		told int
	}{
		"a right clock":    {0, 1},
		"two hours behind": {2 * time.Hour, 0},
		"two hours ahead":  {-2 * time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1)
			s.wallet(s.people[0], 100_00)
			at := morning.Add(-30*time.Second - test.skew)
			r := s.door.uploadAt(morning.Add(-test.skew), fmt.Sprintf(
				`{"seq":1,"type":"sale","card":%q,"kind":"buffet","total":"35.00","at":%q}`, uid(1), at.Format(time.RFC3339)))
			if !slices.Equal(r.Acknowledged, []int64{1}) {
				t.Fatalf("answer %s", r.body)
			}
			if n := s.count(`SELECT count(*) FROM meal.sale`); n != 1 {
				t.Errorf("%d sales are booked, want 1: a sale is never lost", n)
			}
			if n := s.count(`SELECT count(*) FROM river.river_job WHERE kind = 'meal_sold'`); n != test.told {
				t.Errorf("%d jobs tell of it, want %d", n, test.told)
			}
		})
	}
}
