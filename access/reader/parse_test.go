package reader

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"zvonok/access"
)

var received = time.Date(2026, 11, 23, 5, 15, 4, 0, time.UTC)

// FuzzParseUpload: whatever a device sends ends in facts that can be stored or
// in a mistake with its path, and the same octets always say the same.
func FuzzParseUpload(f *testing.F) {
	f.Add([]byte(`{"sent_at":"2026-11-23T08:15:04+03:00","events":[]}`))
	f.Add([]byte(`{"events":[{"seq":101,"type":"pass","card":"9A3F105C","direction":"in","at":"2026-11-22T08:15:03+03:00"}]}`))
	f.Add([]byte(`{"events":[{"seq":102,"type":"pass","card":"04A1B2C3D4E580","direction":"out","companion_card":"9A3F1055","at":"2026-11-22T08:15:03Z"}]}`))
	f.Add([]byte(`{"events":[{"seq":103,"type":"admitted","person":"p-17","direction":"in","by":"staff-3","at":"1970-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"events":[{"seq":104,"type":"sale","card":"9A3F105C","kind":"buffet","items":[{"code":"b12","name":"Булочка","quantity":2,"price":"35.00"}],"total":"70.00","at":"2026-11-22T08:15:03.5Z"}]}`))
	f.Add([]byte(`{"events":[{"seq":107,"type":"reversal","of":104,"at":"2099-11-22T08:15:03Z"},{"seq":108,"type":"denied","card":"\u0000","reason":"\u202e"}]}`))
	f.Add([]byte(`{"events":[{"seq":1,"type":"sale","total":"-1.00","items":[null]}]}`))
	f.Add([]byte(`{"events":[[[[{"a":[{"b":`))
	f.Add([]byte(`{"sent_at":"0000-01-01T00:00:00Z","events":[{"seq":9007199254740992,"at":"9999-12-31T23:59:59Z"}]}`))
	device := &Device{ID: 1}
	f.Fuzz(func(t *testing.T, body []byte) {
		u, err := parseUpload(body, device, received)
		if err != nil {
			var m *mistake
			if !errors.Is(err, errTooMany) && !errors.As(err, &m) {
				t.Fatalf("an error that is neither: %v", err)
			}
			if m != nil && (!strings.HasPrefix(m.path, "body") || !utf8.ValidString(m.Error())) {
				t.Fatalf("the path is %q", m.path)
			}
			return
		}
		again, err := parseUpload(body, device, received)
		if err != nil {
			t.Fatalf("the second time: %v", err)
		}
		for i, fact := range u.facts {
			checkFact(t, fact)
			if fact.hash != again.facts[i].hash || fact.rejection != again.facts[i].rejection {
				t.Errorf("event %d says something else the second time", i)
			}
		}
	})
}

// checkFact checks what later steps rely on.
func checkFact(t *testing.T, f *fact) {
	t.Helper()
	if f.seq < 0 || f.seq > maxSeq {
		t.Errorf("number %d", f.seq)
	}
	if !json.Valid(f.raw) {
		t.Errorf("what is kept of it is no JSON: %q", f.raw)
	}
	if ahead := f.at.Sub(f.receivedAt); ahead > soonest || ahead < -oldest {
		t.Errorf("it is dated %v", f.at)
	}
	for _, text := range []string{f.reason, f.person, f.by, f.sale.meal, f.rejection.Message, string(f.card.uid)} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			t.Errorf("PostgreSQL cannot hold %q", text)
		}
	}
	if f.rejection.Code != "" {
		return
	}
	switch f.event {
	case passEvent:
		if !f.card.given || f.card.uid == "" {
			t.Error("a pass without a card")
		}
	case saleEvent:
		var sum int64
		for _, item := range f.sale.items {
			sum += int64(item.price) * int64(item.quantity)
		}
		if f.sale.total <= 0 || len(f.sale.items) > 0 && sum != int64(f.sale.total) {
			t.Errorf("a sale of %s, of items of %d", f.sale.total, sum)
		}
	case noType:
		t.Error("an event of no type is not rejected")
	}
}

// FuzzClock: no time a device can write is out of bounds after it is corrected.
func FuzzClock(f *testing.F) {
	f.Add(int64(0), int64(0))
	f.Add(received.Unix(), received.Unix())
	f.Add(int64(math.MaxInt64), int64(math.MinInt64))
	f.Add(int64(-62135596800), int64(253402300799))
	f.Fuzz(func(t *testing.T, sent, raw int64) {
		const first, last = -62135596800, 253402300799 // the years 1 to 9999, as RFC 3339 writes them
		sent, raw = min(max(sent, first), last), min(max(raw, first), last)
		c := measure(time.Unix(sent, 0), received)
		at, ok := c.correct(time.Unix(raw, 0))
		if ahead := at.Sub(received); ahead > soonest || ahead < -oldest {
			t.Errorf("sent at %d, happened at %d: dated %v", sent, raw, at)
		}
		if !ok && !at.Equal(received) {
			t.Errorf("an impossible time counts as %v", at)
		}
	})
}

// FuzzReadCard: what a reader reports is an identifier or an error, under every profile.
func FuzzReadCard(f *testing.F) {
	f.Add("9A3F105C", "plain")
	f.Add("016,16282", "reversed-w26")
	f.Add("88A1B2C3", "mirrored-inverted")
	f.Add("04A1B2C3D4E580", "w34")
	f.Add("\x00\xff", "")
	f.Fuzz(func(t *testing.T, raw, name string) {
		profile, err := access.ParseProfile(name)
		if err != nil {
			t.Skip() // no profile: the input is not about cards
		}
		card, ok := readCard(raw, profile)
		if ok != card.given || ok && (len(card.uid) < 6 || len(card.uid) > 20) {
			t.Errorf("%q under %s is read as %+v", raw, profile, card)
		}
	})
}

func TestASkewWithinTheTimeOnTheWayIsNone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		skew          time.Duration
		flagged, wild bool
	}{
		{"a second", time.Second, false, false},
		{"two minutes", 2 * time.Minute, false, false},
		{"two minutes and a second", 2*time.Minute + time.Second, true, false},
		{"an hour", time.Hour, true, false},
		{"an hour and a second", time.Hour + time.Second, true, true},
	} {
		for _, sign := range []time.Duration{1, -1} {
			c := measure(received.Add(-sign*test.skew), received)
			if c.flagged() != test.flagged || c.wild() != test.wild {
				t.Errorf("%s, sign %d: flagged %v, wild %v", test.name, sign, c.flagged(), c.wild())
			}
		}
	}
	if c := measure(received.Add(time.Second), received); c.skew != 0 {
		t.Errorf("a moment of travel counts as a skew of %v", c.skew)
	}
	if c := measure(time.Time{}, received); c.skew != 0 || c.flagged() {
		t.Errorf("without sent_at: %+v", c)
	}
}

func TestAnEventCannotComeFromTheFuture(t *testing.T) {
	t.Parallel()
	c := measure(received, received)
	for _, test := range []struct {
		name     string
		raw      time.Duration
		want     time.Duration
		possible bool
	}{
		{"just now", 0, 0, true},
		{"a minute ahead", time.Minute, time.Minute, true},
		{"ten minutes ahead: now", 10 * time.Minute, 0, true},
		{"two hours ahead cannot be", 2 * time.Hour, 0, false},
		{"a year ago: late", -365 * 24 * time.Hour, -365 * 24 * time.Hour, true},
		{"two years ago cannot be", -2 * 365 * 24 * time.Hour, 0, false},
	} {
		at, possible := c.correct(received.Add(test.raw))
		if possible != test.possible || !at.Equal(received.Add(test.want)) {
			t.Errorf("%s: %v, possible %v", test.name, at.Sub(received), possible)
		}
	}
}

func TestTheHashIsOfWhatAnEventSays(t *testing.T) {
	t.Parallel()
	parse := func(event string) bodyHash {
		t.Helper()
		u, err := parseUpload([]byte(`{"events":[`+event+`]}`), &Device{}, received)
		if err != nil {
			t.Fatal(err)
		}
		return u.facts[0].hash
	}
	same := []string{
		`{"seq":1,"type":"pass","card":"9A3F105C","direction":"in","at":"2026-11-22T08:15:03+03:00"}`,
		`{"at":"2026-11-22T05:15:03Z", "direction":"\u0069n","card":"9A3F105C","type":"pass","seq":1,"new":"field"}`,
	}
	for _, event := range same {
		if parse(event) != parse(same[0]) {
			t.Errorf("%s does not say the same", event)
		}
	}
	for _, event := range []string{
		`{"seq":1,"type":"pass","card":"9A3F105D","direction":"in","at":"2026-11-22T08:15:03+03:00"}`,
		`{"seq":1,"type":"pass","card":"9A3F105C","direction":"out","at":"2026-11-22T08:15:03+03:00"}`,
		`{"seq":1,"type":"pass","card":"9A3F105C","direction":"in","at":"2026-11-22T08:15:03.001+03:00"}`,
		`{"seq":1,"type":"pass","card":"9A3F105Cin","direction":"","at":"2026-11-22T08:15:03+03:00"}`,
	} {
		if parse(event) == parse(same[0]) {
			t.Errorf("%s says the same", event)
		}
	}
}
