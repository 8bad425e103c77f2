package reader_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zvonok/access"
	"zvonok/access/reader"
)

func TestAnAcknowledgedPassIsStoredTogetherWithItsNotification(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	r := s.door.upload(pass(101, 1, "in", morning.Add(-time.Second)))
	if r.status != http.StatusOK || !slices.Equal(r.Acknowledged, []int64{101}) || len(r.Rejected) != 0 {
		t.Fatalf("answer %d %s", r.status, r.body)
	}
	if !strings.Contains(r.body, `"rejected":[]`) || !strings.Contains(r.body, `"server_time":"2026-11-23T08:15:04+03:00"`) {
		t.Errorf("the answer lacks what the contract names: %s", r.body)
	}
	if n := s.count(`SELECT count(*) FROM door.pass WHERE person_id = $1 AND at = $2`, s.people[0], morning.Add(-time.Second)); n != 1 {
		t.Errorf("%d passes", n)
	}
	if n := s.count(`SELECT count(*) FROM river.river_job WHERE kind = 'door_passed'`); n != 1 {
		t.Errorf("%d jobs", n)
	}
}

// Fault rows 2 and 34.
func TestARepeatOfAnAcknowledgedEventChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	event := pass(101, 1, "in", morning)
	first := s.door.upload(event)
	for range 3 {
		// The same content, written differently: other order, spaces, zone of time.
		again := s.door.upload(fmt.Sprintf(` {"at": %q, "direction":"in","card":"%s","seq":101,"type":"pass"}`,
			morning.UTC().Format(time.RFC3339), uid(1)))
		if !slices.Equal(again.Acknowledged, first.Acknowledged) || len(again.Rejected) != 0 {
			t.Fatalf("the repeat is answered %s", again.body)
		}
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 1 {
		t.Errorf("%d passes", n)
	}
	if n := s.count(`SELECT count(*) FROM river.river_job`); n != 1 {
		t.Errorf("%d jobs", n)
	}
	if n := s.metric("zvonok_reader_events_total", "type", "pass", "result", "repeated"); n != 3 {
		t.Errorf("%v repeats counted", n)
	}
}

// Fault row 34: the same number with another content.
func TestTheSameNumberWithAnotherContentIsAConflictAndOverwritesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.door.upload(pass(7, 1, "in", morning))
	for range 2 {
		r := s.door.upload(pass(7, 2, "in", morning), pass(8, 2, "in", morning))
		if r.code(7) != reader.Conflict {
			t.Fatalf("answer %s", r.body)
		}
		if !slices.Equal(r.Acknowledged, []int64{8}) {
			t.Errorf("its neighbour: %s", r.body)
		}
	}
	if n := s.count(`SELECT count(*) FROM door.pass WHERE person_id = $1`, s.people[0]); n != 1 {
		t.Errorf("the first content has %d passes", n)
	}
	if n := s.count(`SELECT count(*) FROM reader.conflict WHERE seq = 7`); n != 1 {
		t.Errorf("the other content is kept %d times", n)
	}
	if r := s.door.upload(pass(7, 1, "in", morning)); !slices.Equal(r.Acknowledged, []int64{7}) {
		t.Errorf("the first content is answered %s", r.body)
	}
}

func TestTheSameNumberTwiceInOneUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	event := pass(1, 1, "in", morning)
	r := s.door.upload(event, event, pass(1, 2, "in", morning))
	if !slices.Equal(r.Acknowledged, []int64{1}) || len(r.Rejected) != 1 || r.code(1) != reader.Conflict {
		t.Errorf("answer %s", r.body)
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 1 {
		t.Errorf("%d passes", n)
	}
}

func TestTheSameEventFromManyConnectionsAtOnceHappensOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			r, err := s.door.post("/api/v1/events", []byte(document(morning,
				pass(1, 1, "in", morning), pass(2, 2, "in", morning), pass(3, 3, "in", morning))))
			if err != nil || !slices.Equal(r.Acknowledged, []int64{1, 2, 3}) {
				t.Errorf("answer %s, %v", r.body, err)
			}
		})
	}
	all.Wait()
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 3 {
		t.Errorf("%d passes", n)
	}
}

// Issue 2 and 6, bad input.
func TestARejectedEventIsKeptWithItsReasonAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.oddCards()
	at := morning.Format(time.RFC3339)
	for row, test := range []struct {
		name  string
		event string
		code  reader.Code
	}{
		{"a card of nobody", `"type":"pass","card":"FFFFFFFF","direction":"in","at":"` + at + `"}`, reader.UnknownCard},
		{"a card that cannot be", `"type":"pass","card":"9A3","direction":"in","at":"` + at + `"}`, reader.UnknownCard},
		{"no card", `"type":"pass","direction":"in","at":"` + at + `"}`, reader.UnknownCard},
		{"a card of another organisation", `"type":"pass","card":"` + uid(300) + `","direction":"in","at":"` + at + `"}`, reader.UnknownCard},
		{"a lost card", `"type":"pass","card":"` + uid(100) + `","direction":"in","at":"` + at + `"}`, reader.CardBlocked},
		{"a card that was not handed over", `"type":"pass","card":"` + uid(101) + `","direction":"in","at":"` + at + `"}`, reader.CardInactive},
		{"a card whose time is over", `"type":"pass","card":"` + uid(102) + `","direction":"in","at":"` + at + `"}`, reader.CardExpired},
		{"a returned card", `"type":"pass","card":"` + uid(103) + `","direction":"in","at":"` + at + `"}`, reader.CardExpired},
		{"a companion alone", `"type":"pass","card":"` + uid(200) + `","direction":"in","at":"` + at + `"}`, reader.CompanionAlone},
		{"a direction that is none", `"type":"pass","card":"` + uid(1) + `","direction":"up","at":"` + at + `"}`, reader.BadEvent},
		{"a type that is none", `"type":"party","at":"` + at + `"}`, reader.BadEvent},
		{"no time", `"type":"pass","card":"` + uid(1) + `","direction":"in"}`, reader.BadEvent},
		{"a time that is none", `"type":"pass","card":"` + uid(1) + `","direction":"in","at":"yesterday"}`, reader.BadEvent},
		{"the year 1970", `"type":"pass","card":"` + uid(1) + `","direction":"in","at":"1970-01-01T00:00:05Z"}`, reader.BadClock},
		{"the year 2099", `"type":"pass","card":"` + uid(1) + `","direction":"in","at":"2099-01-01T00:00:05Z"}`, reader.BadClock},
		{"nobody let in", `"type":"admitted","direction":"in","at":"` + at + `"}`, reader.BadEvent},
		{"somebody unknown let in", `"type":"admitted","person":"p-0","direction":"in","at":"` + at + `"}`, reader.UnknownPerson},
		{"somebody of another organisation let in", `"type":"admitted","person":"o-2-p1","direction":"in","at":"` + at + `"}`, reader.UnknownPerson},
		{"a text that PostgreSQL cannot hold", `"type":"party\u0000\ud800","at":"1e999999"}`, reader.BadEvent},
		{"a thousand brackets", `"type":"party","x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, reader.BadEvent},
		{"an event of half a megabyte", `"type":"party","x":"` + strings.Repeat("x", 500_000) + `"}`, reader.BadEvent},
		{"a sale of a negative sum", `"type":"sale","card":"` + uid(1) + `","kind":"buffet","total":"-5.00","at":"` + at + `"}`, reader.BadTotal},
		{"a sale of nothing", `"type":"sale","card":"` + uid(1) + `","kind":"buffet","total":"0.00","at":"` + at + `"}`, reader.BadTotal},
		{"a total that is no money", `"type":"sale","card":"` + uid(1) + `","kind":"buffet","total":"1e3","at":"` + at + `"}`, reader.BadTotal},
		{"a total of millions", `"type":"sale","card":"` + uid(1) + `","kind":"buffet","total":"9999999.00","at":"` + at + `"}`, reader.BadTotal},
		{"a total that is not the sum", `"type":"sale","card":"` + uid(1) + `","kind":"buffet","total":"70.00","items":[{"code":"b","name":"Булочка","quantity":1,"price":"35.00"}],"at":"` + at + `"}`, reader.BadTotal},
		{"a quantity below one", `"type":"sale","card":"` + uid(1) + `","kind":"buffet","total":"35.00","items":[{"code":"b","name":"Булочка","quantity":-1,"price":"-35.00"}],"at":"` + at + `"}`, reader.BadTotal},
		{"a kind of sale that is none", `"type":"sale","card":"` + uid(1) + `","kind":"gift","total":"35.00","at":"` + at + `"}`, reader.BadEvent},
		{"a hot meal without a meal", `"type":"sale","card":"` + uid(1) + `","kind":"hot","total":"35.00","at":"` + at + `"}`, reader.BadEvent},
		{"a reversal of nothing", `"type":"reversal","at":"` + at + `"}`, reader.BadEvent},
		{"a reversal of itself", `"type":"reversal","of":SEQ,"at":"` + at + `"}`, reader.BadEvent},
	} {
		seq := int64(10 * row)
		event := fmt.Sprintf(`{"seq":%d,`, seq) + strings.ReplaceAll(test.event, "SEQ", fmt.Sprint(seq))
		neighbour := pass(10*row+1, 2, "in", morning)
		before := s.metric("zvonok_reader_rejections_total", "code", string(test.code))
		for range 2 { // the repeat is answered alike
			r := s.door.upload(event, neighbour)
			if r.code(seq) != test.code || len(r.Rejected) != 1 || r.Rejected[0].Message == "" {
				t.Errorf("%s: answer %s, want %s", test.name, r.body, test.code)
			}
			if !slices.Equal(r.Acknowledged, []int64{seq + 1}) {
				t.Errorf("%s: its neighbour is answered %s", test.name, r.body)
			}
		}
		if n := s.count(`SELECT count(*) FROM reader.quarantine WHERE seq = $1 AND code = $2`, seq, test.code); n != 1 {
			t.Errorf("%s: %d rows in quarantine", test.name, n)
		}
		if n := s.metric("zvonok_reader_rejections_total", "code", string(test.code)); n != before+2 {
			t.Errorf("%s: %v rejections counted", test.name, n-before)
		}
	}
	if passes, rows := s.count(`SELECT count(*) FROM door.pass`), s.count(`SELECT count(*) FROM reader.quarantine`); passes != rows {
		t.Errorf("%d passes for %d neighbours of rejected events", passes, rows)
	}
}

// oddCards adds cards in every state that opens nothing.
func (s *site) oddCards() {
	s.t.Helper()
	for n, state := range map[int]string{
		100: "'blocked_lost', blocked_at = '2026-11-01'",
		101: "'issued'",
		102: "'active', valid_until = '2026-11-01'",
		103: "'returned', ended_at = '2026-11-01'",
	} {
		s.card(s.organisation, uid(n), s.people[0], 0)
		s.exec(`UPDATE access.card SET state = `+state+` WHERE uid = $1`, uid(n))
	}
	var companion access.RepresentativeID
	must(s.t, s.pool.QueryRow(s.t.Context(), `
		INSERT INTO access.representative (phone, family_name, given_name) VALUES ('79000000001', 'Сидорова', 'Ольга')
		RETURNING id`).Scan(&companion))
	s.card(s.organisation, uid(200), 0, companion)
	other, _ := s.school("o-3", "school", 0)
	var foreigner int64
	must(s.t, s.pool.QueryRow(s.t.Context(), `
		INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
		VALUES ('o-2-p1', $1, 'pupil', 'Иванов', 'Ваня') RETURNING id`, other).Scan(&foreigner))
	s.exec(`
		INSERT INTO access.card (organisation_id, uid, kind, person_id, state, issued_at)
		VALUES ($1, $2, 'own', $3, 'active', '2026-01-01')`, other, uid(300), foreigner)
}

func TestACardIsJudgedByWhatItWasWhenItWasUsed(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.exec(`UPDATE access.card SET state = 'blocked_lost', blocked_at = $1`, morning.Add(-time.Hour))
	r := s.door.upload(pass(1, 1, "in", morning.Add(-2*time.Hour)), pass(2, 1, "out", morning))
	if !slices.Equal(r.Acknowledged, []int64{1}) || r.code(2) != reader.CardBlocked {
		t.Errorf("before and after the loss: %s", r.body)
	}
}

// D9.
func TestSomebodyLetInByStaffPassesWithoutACard(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	for seq, by := range []string{"o-1-p2", "nobody"} {
		r := s.door.upload(fmt.Sprintf(`{"seq":%d,"type":"admitted","person":"o-1-p1","direction":"in","by":%q,"at":%q}`,
			seq, by, morning.Add(time.Duration(seq)*time.Hour-2*time.Hour).Format(time.RFC3339)))
		if len(r.Acknowledged) != 1 {
			t.Fatalf("answer %s", r.body)
		}
	}
	if n := s.count(`SELECT count(*) FROM door.pass WHERE kind = 3 AND person_id = $1 AND admitted_by = $2`,
		s.people[0], s.people[1]); n != 1 {
		t.Errorf("%d passes name the member of staff", n)
	}
	if n := s.count(`SELECT count(*) FROM river.river_job WHERE kind = 'door_passed'`); n != 2 {
		t.Errorf("%d messages: it is told like any pass", n)
	}
}

func TestADenialIsKeptForStaffAndToldToNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	at := morning.Format(time.RFC3339)
	r := s.door.upload(
		`{"seq":1,"type":"denied","card":"FFFFFFFF","reason":"unknown","at":"`+at+`"}`,
		`{"seq":2,"type":"denied","card":"`+uid(1)+`","direction":"in","reason":"black\u0000 list","at":"`+at+`"}`,
		`{"seq":3,"type":"denied","card":"?","at":"`+at+`"}`)
	if !slices.Equal(r.Acknowledged, []int64{1, 2, 3}) {
		t.Fatalf("answer %s", r.body)
	}
	if n := s.count(`SELECT count(*) FROM door.denial WHERE card_uid = 'FFFFFFFF' AND person_id IS NULL AND reason = 'unknown'`); n != 1 {
		t.Errorf("the unknown card: %d rows", n)
	}
	if n := s.count(`SELECT count(*) FROM door.denial WHERE person_id = $1 AND direction = 1 AND reason = 'black list'`, s.people[0]); n != 1 {
		t.Errorf("the known card: %d rows", n)
	}
	if n := s.count(`SELECT count(*) FROM river.river_job`); n != 0 {
		t.Errorf("%d jobs", n)
	}
}

// R49, D10.
func TestAKindergartenChildWhoLeavesWithoutAListedCompanionRaisesAnAlarm(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	garden, children := s.school("k-1", "kindergarten", 2)
	for n, born := range map[int]string{200: "1990-01-01", 201: "1990-01-01", 202: "2012-01-01"} {
		var companion access.RepresentativeID
		must(t, s.pool.QueryRow(t.Context(), `
			INSERT INTO access.representative (phone, family_name, given_name, born_on)
			VALUES ($1, 'Сидорова', 'Ольга', $2) RETURNING id`, fmt.Sprintf("790000000%d", n), born).Scan(&companion))
		s.card(garden, uid(n), 0, companion)
		if n != 201 {
			s.exec(`INSERT INTO access.guardian (child_id, representative_id, role, since)
			        VALUES ($1, $2, 'companion', '2026-01-01')`, children[0], companion)
		}
	}
	gate := s.device("gate", reader.Door, "k-1-b")
	for seq, test := range []struct{ name, direction, extra, alarm string }{
		{"with the own card only", "out", ``, "no_companion"},
		{"with a listed companion", "out", `,"companion_card":"` + uid(200) + `"`, ""},
		{"with somebody of no child's list", "out", `,"companion_card":"` + uid(201) + `"`, "unlisted_companion"},
		{"with a listed companion who is too young", "out", `,"companion_card":"` + uid(202) + `"`, "young_companion"},
		{"with somebody else's card", "out", `,"companion_card":"FFFFFFFF"`, "unlisted_companion"},
		{"with a card that cannot be", "out", `,"companion_card":"?"`, "unlisted_companion"},
		{"with another child's card", "out", `,"companion_card":"` + uid(2) + `"`, "unlisted_companion"},
		{"coming alone", "in", ``, ""},
	} {
		at := morning.Add(time.Duration(seq-100) * time.Minute).Format(time.RFC3339)
		r := gate.upload(fmt.Sprintf(`{"seq":%d,"type":"pass","card":%q,"direction":%q,"at":%q%s}`,
			seq, uid(1), test.direction, at, test.extra))
		if !slices.Equal(r.Acknowledged, []int64{int64(seq)}) {
			t.Errorf("%s: what happened is answered %s", test.name, r.body)
		}
		var alarm string
		must(t, s.pool.QueryRow(t.Context(), `
			SELECT coalesce(a.kind, '')
			  FROM reader.event e
			  JOIN door.pass p ON p.event_id = e.event_id
			  LEFT JOIN door.alarm a ON a.event_id = e.event_id AND a.person_id = $3
			 WHERE e.device_id = $1 AND e.seq = $2`, gate.id, seq, children[0]).Scan(&alarm))
		if alarm != test.alarm {
			t.Errorf("%s: alarm %q, want %q", test.name, alarm, test.alarm)
		}
	}
}

// Fault row 35: a reset counter needs a new key, which begins a new line of numbers.
func TestANewKeyBeginsANewLineOfNumbers(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.door.upload(pass(1, 1, "in", morning))
	repaired := s.device("door 1", reader.Door, "o-1-b")
	if r := repaired.upload(pass(1, 2, "in", morning)); !slices.Equal(r.Acknowledged, []int64{1}) {
		t.Errorf("answer %s", r.body)
	}
}

func TestAnEmptyUploadOnlyTellsTheTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, 0)
	if r := s.door.upload(); r.status != http.StatusOK || !strings.Contains(r.body, `"acknowledged":[]`) {
		t.Errorf("answer %d %s", r.status, r.body)
	}
}

func TestAThousandEventsAreOneTransaction(t *testing.T) {
	t.Parallel()
	s := newSite(t, 10)
	var events []string
	for i := range 1000 {
		events = append(events, pass(i, i%10+1, []string{"in", "out"}[i/10%2], morning.Add(time.Duration(i-1000)*time.Minute)))
	}
	r := s.door.upload(events...)
	if r.status != http.StatusOK || len(r.Acknowledged) != 1000 {
		t.Fatalf("answer %d, %d acknowledged, rejected %v", r.status, len(r.Acknowledged), r.Rejected)
	}
	if n := s.count(`SELECT count(DISTINCT xmin::text) FROM door.pass`); n != 1 {
		t.Errorf("%d transactions", n)
	}
	if n := s.count(`SELECT count(*) FROM river.river_job`); n != 1 {
		t.Errorf("%d jobs", n)
	}
}
