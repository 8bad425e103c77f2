package reader_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"zvonok/access/reader"
)

// sigur is a Sigur server of the site: access point 1 is the door, 2 a reader
// that reports Wiegand-26.
type sigur struct {
	*site
	url string
	w26 device
}

func newSigur(t *testing.T) sigur {
	t.Helper()
	s := newSite(t, 3)
	w26 := s.device("door 2", reader.Door, "o-1-b")
	s.exec(`UPDATE reader.device SET profile = 'w26' WHERE id = $1`, w26.id)
	mux := http.NewServeMux()
	s.intake.Sigur([]reader.SigurSite{{Points: map[int64]reader.DeviceID{1: s.door.id, 2: w26.id}, In: 2, Out: 1}}).Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return sigur{s, server.URL, w26}
}

func (s sigur) post(path, key, body string) reply {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+path, strings.NewReader(body))
	must(s.t, err)
	request.SetBasicAuth("sigur", key)
	r, err := ask(request)
	must(s.t, err)
	return r
}

func (s sigur) log(id int, point, direction int, key string) string {
	return fmt.Sprintf(`{"logId":%d,"time":%d,"empId":"","internalEmpId":%d,"accessPoint":%d,"direction":%d,"keyHex":%q}`,
		id, morning.Unix()-60+int64(id), id, point, direction, key)
}

// Issue 6, item 2: at least once, acknowledged as far as it is committed.
func TestASigurServerPushesUntilItIsConfirmed(t *testing.T) {
	t.Parallel()
	s := newSigur(t)
	push := `{"logs":[` + strings.Join([]string{
		s.log(12, 2, 2, "0000003F0002"), // the second person, as the shortened key 3F0002
		s.log(11, 1, 2, uid(1)),
		s.log(13, 1, 7, uid(3)),     // a direction that the site does not use
		s.log(14, 1, 1, "FFFFFFFF"), // nobody's card: to quarantine
		s.log(15, 9, 1, uid(1)),     // a door that is none of ours
		s.log(16, 1, 1, ""),         // opened by its button
		`{"logId":17,"time":1795410905,"empId":"o-1-p1","accessPoint":1,"direction":1}`, // by the guard for somebody
	}, ",") + `]}`
	for n := range 3 { // the answer is lost twice
		if r := s.post(reader.SigurEvents, s.door.key, push); r.status != http.StatusOK || r.body != `{"confirmedLogId":17}` {
			t.Fatalf("push %d: %d %s", n, r.status, r.body)
		}
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 4 {
		t.Errorf("%d passes", n)
	}
	if n := s.count(`SELECT count(*) FROM door.pass WHERE person_id = $1 AND direction = 1 AND device_id = $2`, s.people[1], s.w26.id); n != 1 {
		t.Error("the shortened key is not the second person's entry")
	}
	if n := s.count(`SELECT count(*) FROM door.pass WHERE inferred`); n != 1 {
		t.Errorf("%d directions are inferred", n)
	}
	if n := s.count(`SELECT count(*) FROM door.pass WHERE kind = 3 AND direction = 2`); n != 1 {
		t.Errorf("%d were let through by staff", n)
	}
	if n := s.count(`SELECT count(*) FROM reader.quarantine WHERE code = 'unknown_card'`); n != 1 {
		t.Errorf("%d in quarantine", n)
	}
	// The server counts the events of all its doors together: what is no gap is not called one.
	sequences, err := reader.Sequences(t.Context(), s.pool)
	must(t, err)
	gaps, err := reader.Gaps(t.Context(), s.pool, s.door.id, 10)
	must(t, err)
	if len(sequences) != 0 || len(gaps) != 0 {
		t.Errorf("missing numbers %+v, gaps %+v", sequences, gaps)
	}
}

func TestASigurServerIsConfirmedNothingThatIsNotCommitted(t *testing.T) {
	t.Parallel()
	s := newSigur(t)
	for name, test := range map[string]struct {
		key, body string
		status    int
	}{
		"no key":         {"zvk_none", `{"logs":[]}`, 401},
		"another device": {s.device("till", reader.Till, "o-1-b").key, `{"logs":[]}`, 401},
		"no logs":        {s.door.key, `{}`, 422},
		"no number":      {s.door.key, `{"logs":[{"time":1}]}`, 422},
		"not JSON":       {s.door.key, `{"logs":[`, 422},
		"nothing":        {s.w26.key, `{"logs":[]}`, 200},
	} {
		if r := s.post(reader.SigurEvents, test.key, test.body); r.status != test.status || strings.Contains(r.body, `"confirmedLogId":1`) {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	s.exec(`UPDATE reader.device SET revoked_at = now() WHERE id = $1`, s.door.id)
	if r := s.post(reader.SigurEvents, s.w26.key, `{"logs":[`+s.log(21, 2, 2, "3F0001")+`]}`); r.status != 200 {
		t.Errorf("the other device of the site: %d %s", r.status, r.body)
	}
	s.intake.Close()
	if r := s.post(reader.SigurEvents, s.w26.key, `{"logs":[`+s.log(22, 2, 2, "3F0001")+`]}`); strings.Contains(r.body, `:22`) && s.count(`SELECT count(*) FROM door.pass`) != 2 {
		t.Errorf("confirmed and not stored: %s", r.body)
	}
}

// What is confirmed is never sent again: an entry of an access point whose device is revoked is kept for staff, and holds
// up no other door.
func TestASigurEntryOfARevokedAccessPointIsKept(t *testing.T) {
	t.Parallel()
	s := newSigur(t)
	before := `{"logs":[` + s.log(21, 2, 2, "0000003F0002") + `]}`
	if r := s.post(reader.SigurEvents, s.door.key, before); r.body != `{"confirmedLogId":21}` {
		t.Fatalf("%d %s", r.status, r.body)
	}
	must(t, reader.RevokeDevice(t.Context(), s.pool, s.w26.id, morning))
	push := `{"logs":[` + strings.Join([]string{
		s.log(21, 2, 2, "0000003F0002"), // was taken before
		s.log(22, 2, 1, "0000003F0002"),
		s.log(23, 1, 2, uid(1)),
	}, ",") + `]}`
	for n := range 2 {
		if r := s.post(reader.SigurEvents, s.door.key, push); r.status != http.StatusOK || r.body != `{"confirmedLogId":23}` {
			t.Fatalf("push %d: %d %s", n, r.status, r.body)
		}
	}
	if n := s.count(`SELECT count(*) FROM reader.quarantine WHERE device_id = $1 AND seq = 22 AND code = 'device_revoked' AND body::text LIKE '%3F0002%'`, s.w26.id); n != 1 {
		t.Errorf("%d of the entries of the revoked access point are kept", n)
	}
	if n := s.count(`SELECT count(*) FROM reader.quarantine`); n != 1 {
		t.Errorf("%d in quarantine", n)
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 2 {
		t.Errorf("%d passes", n)
	}
	if r := s.post(reader.SigurAccess, s.door.key, `{"keyHex":"0000003F0002","accessPoint":2,"direction":2}`); r.status != http.StatusUnprocessableEntity && r.status != http.StatusBadRequest {
		t.Errorf("a revoked access point is answered %d %s", r.status, r.body)
	}
	if r := s.post(reader.SigurEvents, s.w26.key, push); r.status != http.StatusUnauthorized {
		t.Errorf("a revoked key pushes: %d %s", r.status, r.body)
	}
}

func TestASigurControllerAsksWhetherToOpen(t *testing.T) {
	t.Parallel()
	s := newSigur(t)
	question := func(point, direction int, key string) string {
		return s.post(reader.SigurAccess, s.door.key, fmt.Sprintf(`{"keyHex":%q,"accessPoint":%d,"direction":%d}`, key, point, direction)).body
	}
	if got := question(1, 2, uid(1)); got != `{"allow":true,"message":"Петрова М."}` {
		t.Error(got)
	}
	if got := question(2, 2, "3F0001"); got != `{"allow":true,"message":"Петрова М."}` {
		t.Error(got)
	}
	if got := question(1, 2, "FFFFFFFF"); got != `{"allow":false,"message":"Карта неизвестна"}` {
		t.Error(got)
	}
	s.exec(`UPDATE access.card SET state = 'blocked_lost', blocked_at = issued_at WHERE uid = $1`, uid(1))
	if got := question(1, 2, uid(1)); got != `{"allow":false,"message":"Карта заблокирована"}` {
		t.Error(got)
	}
	if got := question(9, 2, uid(1)); !strings.Contains(got, "accessPoint") {
		t.Error(got)
	}
}
