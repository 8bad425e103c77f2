package delivery_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp"
	"zvonok/ledger/pg/pgtest"
)

const longText = "Когда пришла Маша? Передайте, что бабушка заберёт её после второго урока, а не после четвёртого"

// part sends a part of longText, of two, and waits for its acknowledgement.
func (e *esme) part(number uint8, registered uint8) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	runes := []rune(longText)[:60]
	if number == 2 {
		runes = []rune(longText)[60:]
	}
	body := []byte{5, 0, 3, 77, 2, number}
	for _, r := range runes {
		body = append(body, byte(r>>8), byte(r))
	}
	outcome, err := e.session.Do(ctx, smpp.Request{PDU: &smpp.Message{
		Command: smpp.CmdSubmitSM, ESMClass: smpp.ESMClassUDHI, DataCoding: 8, RegisteredDelivery: registered, ShortMessage: body,
		Source: smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"}, Destination: smpp.Address{TON: 3, Addr: "377"},
	}})
	if err != nil || outcome.Status != smpp.StatusOK {
		e.t.Errorf("part %d: %+v, %v", number, outcome, err)
	}
}

func (g *giving) texts() []carrier.MO {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.taken)
}

// storedParts counts the parts that wait for others.
func (g *giving) storedParts() (n int) {
	g.t.Helper()
	if err := g.pool.QueryRow(context.Background(), `SELECT count(*) FROM delivery.text_part`).Scan(&n); err != nil {
		g.t.Fatal(err)
	}
	return n
}

// whole checks that these processes have stored longText, once, and no part is left.
func whole(t *testing.T, all ...*giving) {
	t.Helper()
	all[0].await("the text", func() bool {
		return slices.ContainsFunc(all, func(g *giving) bool { return len(g.texts()) > 0 }) && all[0].storedParts() == 0
	})
	var got []carrier.MO
	for _, g := range all {
		got = append(got, g.texts()...)
	}
	if len(got) != 1 || got[0].Text != longText || got[0].Incomplete || got[0].From != "79000000001" || got[0].To.Addr != "377" {
		t.Errorf("got %+v", got)
	}
}

// smpp.md, Session: acknowledged only after it is stored. A process dies after
// it acknowledged a part; the rest of the text comes to the next one.
func TestALongTextSurvivesAKillBetweenItsParts(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	dead := setupGiving(t, pool, "gate")
	dead.bind("gate", smpp.Transceiver, 0).part(1, 1)
	if n := dead.storedParts(); n != 1 {
		t.Fatalf("%d parts are stored when the first is acknowledged, want 1", n)
	}
	if n := len(dead.texts()); n != 0 {
		t.Fatalf("%d texts", n)
	}
	// It hears no more, and what it had in memory is of no use to anybody.
	g := setupGiving(t, pool, "gate")
	e := g.bind("gate", smpp.Transceiver, 0)
	e.part(2, 1)
	whole(t, g, dead)
	// Each part's receipt is given all the same.
	g.await("the receipts", func() bool { return g.owed() == 0 })
}

// The operator did not see the acknowledgement: it brings the part again, over
// another link, to this or another process.
func TestAPartThatComesAgainIsTakenOnce(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	a, b := setupGiving(t, pool, "gate"), setupGiving(t, pool, "gate")
	one, two, three := a.bind("gate", smpp.Transceiver, 0), a.bind("gate", smpp.Transceiver, 0), b.bind("gate", smpp.Transceiver, 0)
	one.part(1, 0)
	two.part(1, 0)
	three.part(1, 0)
	if n := a.storedParts(); n != 1 {
		t.Errorf("%d parts are stored, want 1", n)
	}
	two.part(2, 0)
	whole(t, a, b)
}

// An operator has a link to each of two processes and brings a part over each at
// the same time.
func TestALongTextWhosePartsComeToTwoProcessesIsWhole(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	a, b := setupGiving(t, pool, "gate"), setupGiving(t, pool, "gate")
	one, two := a.bind("gate", smpp.Transceiver, 0), b.bind("gate", smpp.Transceiver, 0)
	var sending sync.WaitGroup
	sending.Go(func() { one.part(1, 0) })
	sending.Go(func() { two.part(2, 0) })
	sending.Wait()
	whole(t, a, b)
}

// Every process looks for texts past their time, and one of them has each.
func TestAnIncompleteTextIsHandedOverOnceByWhateverProcessIsThere(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	dead := setupGiving(t, pool, "gate")
	dead.bind("gate", smpp.Transceiver, 0).part(1, 0)
	dead.stop()
	if n := dead.storedParts(); n != 1 {
		t.Fatalf("%d parts are stored after an orderly stop, want 1", n)
	}
	a, b := setupGiving(t, pool, "gate"), setupGiving(t, pool, "gate")
	a.ahead.Store(int64(2 * time.Minute))
	b.ahead.Store(int64(2 * time.Minute))
	a.await("the text", func() bool { return len(a.texts())+len(b.texts()) > 0 && a.storedParts() == 0 })
	got := append(a.texts(), b.texts()...)
	if len(got) != 1 || !got[0].Incomplete || !strings.HasPrefix(longText, got[0].Text) || got[0].Text == "" {
		t.Errorf("got %+v", got)
	}
}

// Two processes that read the same stored text store it once; what was completed
// in memory is stored whatever has become of its parts.
func TestOneTransactionHasAStoredText(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	key := carrier.TextKey{Operator: "gate", Sender: "79000000001", Recipient: "377", Reference: 77, Count: 2}
	parts := []carrier.TextPart{
		{TextKey: key, Number: 1, Octets: []byte("a"), ReceivedAt: time.Now()}, {TextKey: key, Number: 1, Octets: []byte("a"), ReceivedAt: time.Now()},
	}
	if whole, err := delivery.StoreParts(t.Context(), pool, parts); err != nil || len(whole) != 0 {
		t.Fatalf("%+v, %v", whole, err)
	}
	read := carrier.MO{Parts: key, Claimed: true, Text: "stored"}
	joined := carrier.MO{Parts: key, Text: "memory"}
	for _, test := range []struct {
		batch []carrier.MO
		want  int
	}{{[]carrier.MO{read, read}, 1}, {[]carrier.MO{read}, 0}, {[]carrier.MO{joined, read}, 1}, {[]carrier.MO{{Text: "short"}}, 1}} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := delivery.ClaimTexts(t.Context(), tx, test.batch)
		if err != nil || len(got) != test.want {
			t.Errorf("of %+v: %+v, %v", test.batch, got, err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A sender's name may have octets that PostgreSQL cannot hold. Its text is
// claimed as any other: a text from memory takes the stored one with it.
func TestATextOfASenderThatTheTableCannotNameIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	for reference, sender := range []string{"Шк\x00ола", "Шк\xffола"} {
		key := carrier.TextKey{Operator: "gate", Sender: sender, Recipient: "377\x00", Reference: uint16(reference), Count: 2}
		part := carrier.TextPart{TextKey: key, Number: 1, Octets: []byte("a"), ReceivedAt: time.Now()}
		if _, err := delivery.StoreParts(t.Context(), pool, []carrier.TextPart{part}); err != nil {
			t.Fatal(err)
		}
		part.Number = 2
		whole, err := delivery.StoreParts(t.Context(), pool, []carrier.TextPart{part})
		if err != nil || len(whole) != 2 {
			t.Fatalf("%q: %+v, %v", sender, whole, err)
		}
		memory, read := carrier.MO{Parts: key, Text: "memory"}, carrier.MO{Parts: whole[0].TextKey, Claimed: true, Text: "stored"}
		claim := func(batch ...carrier.MO) (texts []string) {
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				got, err := delivery.ClaimTexts(t.Context(), tx, batch)
				for _, mo := range got {
					texts = append(texts, mo.Text)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return texts
		}
		if got := claim(read, memory); !slices.Equal(got, []string{"memory"}) {
			t.Errorf("%q: in one batch %q are answered", sender, got)
		}
		if got := claim(read); len(got) != 0 {
			t.Errorf("%q: later %q is answered again", sender, got)
		}
	}
}

// Of the two processes that store the last parts of a text at the same moment
// exactly one sees it complete, every time.
func TestPartsStoredAtTheSameMomentCompleteTheirTextOnce(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	for reference := range uint16(60) {
		key := carrier.TextKey{Operator: "gate", Sender: "79000000001", Recipient: "377", Reference: reference, Count: 2}
		var storing sync.WaitGroup
		var whole [2]int
		for i := range whole {
			storing.Go(func() {
				parts := []carrier.TextPart{{TextKey: key, Number: uint8(i + 1), Octets: []byte("a"), ReceivedAt: time.Now()}}
				got, err := delivery.StoreParts(t.Context(), pool, parts)
				if err != nil {
					t.Error(err)
				}
				whole[i] = len(got)
			})
		}
		storing.Wait()
		if whole[0]+whole[1] != 2 {
			t.Fatalf("text %d: %v parts were returned, want both to one", reference, whole)
		}
	}
}
