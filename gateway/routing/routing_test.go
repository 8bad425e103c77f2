package routing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/routing"
	"zvonok/ledger/pg/pgtest"
)

var start = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// process is one process's memory and exchange. Its clock is its own.
type process struct {
	*routing.Memory
	exchange *carrier.Exchange
	now      time.Time
}

func newProcess(t *testing.T, pool *pgxpool.Pool, now time.Time) *process {
	t.Helper()
	p := &process{now: now}
	operator := func(name string, weight int, prefixes ...string) carrier.OperatorConfig {
		return carrier.OperatorConfig{
			Name: name, Address: "127.0.0.1:1", SystemID: "school", Password: "secret", Prefixes: prefixes, Weight: weight,
		}
	}
	var err error
	p.exchange, err = carrier.New(carrier.Config{
		Operators: []carrier.OperatorConfig{operator("mts", 10, "7915"), operator("beeline", 10, "7915"), operator("any", 10)},
		Now:       func() time.Time { return p.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Memory = routing.New(routing.Config{
		Pool: pool, Exchange: p.exchange, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return p.now },
	})
	p.sync(t)
	return p
}

func (p *process) sync(t *testing.T) {
	t.Helper()
	if err := p.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// share is the part of the numbers of 7915 that an operator is drawn for.
func (p *process) share(operator string) float64 {
	const n = 4000
	drawn := 0
	for i := range n {
		if p.exchange.Route(phone.Number(fmt.Sprintf("7915%07d", i)))[0] == operator {
			drawn++
		}
	}
	return float64(drawn) / n
}

func importFile(t *testing.T, pool *pgxpool.Pool, changes bool, lines string) (routing.Summary, error) {
	t.Helper()
	return routing.Import(t.Context(), pool, routing.File{
		Name: "ported.csv", Lines: strings.NewReader(lines), Operators: []string{"mts", "beeline", "any"},
		Owners: map[string]string{"mVIMPEL": "beeline"}, Changes: changes,
	}, start)
}

func TestAnImportedTableRoutesInEveryProcessAndAfterARestart(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	running := newProcess(t, pool, start)
	const number = phone.Number("79260000001")
	if got := running.exchange.Route(number); !slices.Equal(got, []string{"any"}) {
		t.Fatalf("before: %v", got)
	}
	// The form of a national database: other columns, semicolons, its own words for owners.
	s, err := importFile(t, pool, false, "\uFEFFNumber;OwnerId;MNC;Route;RegionCode;PortDate\r\n"+
		"9260000001;mVIMPEL;99;D2599;77;2026-01-01\r\n"+
		"9260000002;mSKYLINK;99;D2599;77;2026-01-01\r\n"+
		"9260000003;mts;01;D2599;77;2026-01-01\r\n"+
		"9260000003;any;01;D2599;77;2026-02-01\r\n")
	if err != nil || s.Lines != 4 || s.Numbers != 2 || s.Total != 2 || s.Foreign["mSKYLINK"] != 1 {
		t.Fatalf("summary %+v, %v", s, err)
	}
	running.sync(t)
	for who, p := range map[string]*process{"the running process": running, "a new one": newProcess(t, pool, start)} {
		if got := p.exchange.Route(number); !slices.Equal(got, []string{"beeline", "any"}) {
			t.Errorf("%s: %v", who, got)
		}
	}

	// Changes: one more, one home again.
	if s, err = importFile(t, pool, true, "number,operator\n+7 926 000-00-04,mts\n79260000001,\n"); err != nil || s.Total != 2 || s.Added != 1 || s.Removed != 1 {
		t.Fatalf("changes: %+v, %v", s, err)
	}
	running.sync(t)
	if got := running.exchange.Route(number); !slices.Equal(got, []string{"any"}) {
		t.Errorf("home again: %v", got)
	}
	if got := running.exchange.Route("79260000004"); got[0] != "mts" {
		t.Errorf("the new one: %v", got)
	}
	// The whole table again: only what differs is written. The last line about a number counts, also one that gives it
	// to an operator we have no link to.
	s, err = importFile(t, pool, false, "number,operator\n79260000005,mts\n79260000004,beeline\n79260000006,mts\n79260000006,mOTHER\n")
	if err != nil || s.Numbers != 2 || s.Total != 2 || s.Added != 1 || s.Changed != 1 || s.Removed != 1 {
		t.Fatalf("whole: %+v, %v", s, err)
	}
	if s, err = importFile(t, pool, false, "number,operator\n79260000005,mts\n79260000004,beeline\n"); err != nil || s.Total != 2 || s.Added+s.Changed+s.Removed != 0 {
		t.Fatalf("the same again: %+v, %v", s, err)
	}
}

// The memory of an import does not grow with what a wrong column of the file holds.
func TestWordsForForeignOwnersAreBounded(t *testing.T) {
	t.Parallel()
	var file strings.Builder
	file.WriteString("number,operator\n")
	for i := range 3000 {
		fmt.Fprintf(&file, "7926%07d,w%d\n", i, i)
	}
	s, err := importFile(t, pgtest.New(t), false, file.String())
	if err != nil || len(s.Foreign) > 1001 || s.Foreign["(others)"] != 2000 || s.Foreign["w0"] != 1 {
		t.Errorf("%d words, %d others, %v", len(s.Foreign), s.Foreign["(others)"], err)
	}
}

func TestABadLineIsNamedAndNothingIsChanged(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	if _, err := importFile(t, pool, false, "number,operator\n79260000001,mts\n"); err != nil {
		t.Fatal(err)
	}
	s, err := importFile(t, pool, false, "number,operator\n79260000002,mts\nabc,mts\n79260000003\n79260000004,\n")
	if !errors.Is(err, routing.ErrProblems) || s.Wrong != 3 {
		t.Fatalf("got %+v, %v", s, err)
	}
	for i, want := range []routing.Problem{
		{3, "the number is no phone number"}, {4, "1 columns, the header has more"}, {5, "the operator is missing"},
	} {
		if s.Problems[i] != want {
			t.Errorf("problem %+v, want %+v", s.Problems[i], want)
		}
	}
	if got := newProcess(t, pool, start).exchange.Route("79260000001"); got[0] != "mts" {
		t.Errorf("the table of before is gone: %v", got)
	}
	if _, err := importFile(t, pool, false, "a,b\n1,2\n"); err == nil || !strings.Contains(err.Error(), "column number") {
		t.Errorf("a file without its columns: %v", err)
	}
}

func TestWhatRefusalsTaughtOutlivesTheProcessAndEndsInTime(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	a, b := newProcess(t, pool, start), newProcess(t, pool, start)
	const number = phone.Number("79150000001")
	first := a.exchange.Route(number)[0]
	until := start.Add(30 * 24 * time.Hour)
	a.Learn(carrier.Ported{Phone: number, Not: first, Until: until})
	a.Learn(carrier.Ported{Phone: number, Operator: "any", Not: first, Until: until})
	a.sync(t)
	b.sync(t)
	for who, p := range map[string]*process{"another process": b, "a new one": newProcess(t, pool, start)} {
		if got := p.exchange.Route(number); got[0] != "any" || got[len(got)-1] != first {
			t.Errorf("%s: %v", who, got)
		}
	}
	late := newProcess(t, pool, until.Add(time.Minute))
	if got := late.exchange.Route(number)[0]; got != first {
		t.Errorf("after its time to live: %s", got)
	}
	// Taken back: the operator accepted what it had refused.
	a.Learn(carrier.Ported{Phone: number})
	a.sync(t)
	b.now = start.Add(time.Second)
	b.sync(t)
	if got := b.exchange.Route(number)[0]; got != first {
		t.Errorf("what was taken back is still believed: %s", got)
	}
}

func TestEvidenceIsThatOfAllProcessesTogether(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	a, b := newProcess(t, pool, start), newProcess(t, pool, start)
	before := a.share("mts")
	for range 30 {
		a.Delivered("mts", "79150000001", false)
		b.Delivered("mts", "79150000002", false)
	}
	a.sync(t)
	b.sync(t)
	a.sync(t)
	c := newProcess(t, pool, start)
	want := math.Pow(1-carrier.EvidenceStep, 60) // of the share is left, and its square of the weight
	want = want * want / (want*want + 1)
	for name, p := range map[string]*process{"a": a, "b": b, "a new one": c} {
		if got := p.share("mts"); math.Abs(got-want) > 0.03 {
			t.Errorf("%s gives mts %.3f of the numbers, want %.3f (before: %.3f)", name, got, want, before)
		}
	}
	later := newProcess(t, pool, start.Add(12*time.Hour))
	if got := later.share("mts"); math.Abs(got-0.5) > 0.03 {
		t.Errorf("twelve hours later: %.3f", got)
	}
	// What moves on from there begins where the drift has come to.
	later.Delivered("mts", "79150000001", false)
	later.sync(t)
	if got := later.share("mts"); math.Abs(got-0.49) > 0.03 {
		t.Errorf("one late message twelve hours later: %.3f", got)
	}
}

func TestEvidenceOfAWholeMorningOrAfterAYearIsStored(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	p := newProcess(t, pool, start)
	for range 100_000 { // nothing is left of a share by then, and less than a float can hold
		p.Delivered("mts", "79150000001", true)
	}
	p.sync(t)
	for range 100_000 {
		p.Delivered("mts", "79150000001", true)
	}
	p.sync(t)
	later := newProcess(t, pool, start.AddDate(1, 0, 0))
	later.Delivered("mts", "79150000001", true)
	later.sync(t)
	var seen int64
	if err := pool.QueryRow(t.Context(), `SELECT seen FROM routing.evidence WHERE operator = 'mts'`).Scan(&seen); err != nil || seen != 200_001 {
		t.Errorf("%d messages are on record, %v", seen, err)
	}
}

// Pain 10: an operator that takes messages and sends no receipt for them loses traffic, unless it never sends any.
func TestMissingReceiptsSpeakAgainstARoute(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	now := time.Now()
	p := newProcess(t, pool, now)
	p.Delivered("mts", "79150000000", true) // it does send receipts
	p.sync(t)
	part := func(id int, operator, state string) {
		t.Helper()
		if _, err := pool.Exec(context.Background(), `
			WITH d AS (
				INSERT INTO delivery.delivery (id, at, event_id, topic, channel, address, priority, again, expires_at, body, state)
				VALUES ($1::bigint, $2, 1, 'pass', 'sms', '7915' || lpad($1::bigint::text, 7, '0'), 1, 'fresh', $2, '', 'sent')
			)
			INSERT INTO delivery.part (delivery_id, delivery_at, attempt, number, count, operator, message_id, message_key,
				status, state, submitted_at)
			VALUES ($1::bigint, $2, 1, 1, 1, $3, $1::bigint::text, $1::bigint::text, 0, $4, $2)`, id, now, operator, state); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		part(i, "mts", "accepted")
		part(100+i, "beeline", "accepted")
		part(200+i, "mts", "delivered")
	}
	p.now = now.Add(2 * time.Minute)
	p.sync(t)
	if got := p.share("mts"); math.Abs(got-0.5) > 0.03 {
		t.Errorf("after two minutes mts has %.3f: receipts have three", got)
	}
	p.now = now.Add(4 * time.Minute)
	p.sync(t)
	want := math.Pow(1-carrier.EvidenceStep, 30)
	want = want * want / (want*want + 1)
	if got := p.share("mts"); math.Abs(got-want) > 0.03 {
		t.Errorf("after four minutes mts has %.3f, want %.3f", got, want)
	}
	before := p.share("mts")
	p.now = now.Add(5 * time.Minute)
	p.sync(t)
	if got := p.share("mts"); got < before {
		t.Errorf("the same messages counted twice: %.3f, before %.3f", got, before)
	}
}
