package access

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"
)

// changes asks until there is nothing new, limit at a time.
func (w *world) changes(cursor Cursor, limit int) (cards []Card, next Cursor) {
	w.Helper()
	for {
		some, next, err := CardChanges(w.Context(), w.pool, w.school, cursor, limit)
		if err != nil {
			w.Fatal(err)
		}
		if len(some) > limit {
			w.Fatalf("%d changes for a limit of %d", len(some), limit)
		}
		if next == cursor {
			return cards, cursor
		}
		if strings.Contains(string(next), ".") {
			w.Fatalf("the cursor %q has a dot", next)
		}
		cards, cursor = append(cards, some...), next
	}
}

// Issue 6, item 1: blocking reaches offline lists.
func TestAListFollowsTheCards(t *testing.T) {
	w := newWorld(t)
	first := w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, schoolday)
	second := w.active(NewCard{Organisation: w.school, UID: "AA3F105C", Kind: OwnCard, Person: w.petya}, schoolday)
	w.active(NewCard{Organisation: w.other, UID: "9A3F105C", Kind: OwnCard, Person: w.kolya}, schoolday)
	for _, limit := range []int{1, 3, 4, 1000} {
		all, _ := w.changes("", limit)
		ids := map[CardID]bool{}
		for _, c := range all {
			ids[c.ID] = true
		}
		if !maps.Equal(ids, map[CardID]bool{first: true, second: true}) {
			t.Errorf("%d at a time: %+v", limit, all)
		}
	}
	_, cursor := w.changes("", 1000)
	if nothing, same := w.changes(cursor, 1000); len(nothing) != 0 || same != cursor {
		t.Errorf("nothing has changed: %+v, %q after %q", nothing, same, cursor)
	}
	w.must(func(ctx context.Context, tx pgx.Tx) error { return BlockCard(ctx, tx, first, staff, "", schoolday) })
	blocked, cursor := w.changes(cursor, 1000)
	want := Card{ID: first, Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha, State: BlockedLost}
	if len(blocked) != 1 || blocked[0] != want {
		t.Errorf("the blocked card: %+v, want %+v", blocked, want)
	}
	if nothing, _ := w.changes(cursor, 1000); len(nothing) != 0 {
		t.Errorf("told again: %+v", nothing)
	}
}

// Transactions begin, write, commit and roll back in any order between the
// questions: each committed change is told by the next question, however long
// others stay open, and nothing that was rolled back.
func TestNoChangeOfACardIsPassedOver(t *testing.T) {
	w := newWorld(t)
	const lanes = 3
	cards := make([]CardID, lanes)
	for i := range cards {
		cards[i] = w.active(NewCard{
			Organisation: w.school, UID: UID(fmt.Sprintf("0000000%d", i)), Kind: OwnCard, Person: w.masha,
		}, schoolday)
	}
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		_, cursor := w.changes("", 1000)
		open := map[int]pgx.Tx{}
		defer func() {
			for _, tx := range open {
				_ = tx.Rollback(ctx)
			}
		}()
		written := map[int]bool{} // by transactions that are open
		untold := map[CardID]bool{}
		for range rapid.IntRange(1, 14).Draw(t, "steps") {
			lane := rapid.IntRange(0, lanes-1).Draw(t, "lane")
			tx := open[lane]
			var err error
			switch what := rapid.SampledFrom([]string{"write", "write", "commit", "commit", "roll back", "ask"}).Draw(t, "what"); {
			case what == "ask":
				var told []Card
				told, cursor = w.changes(cursor, rapid.IntRange(1, 3).Draw(t, "limit"))
				got := map[CardID]bool{}
				for _, c := range told {
					got[c.ID] = true
				}
				if !maps.Equal(got, untold) {
					t.Fatalf("told of %v, want %v", got, untold)
				}
				clear(untold)
			case what == "write" && tx == nil:
				if tx, err = w.pool.Begin(ctx); err != nil {
					t.Fatal(err)
				}
				open[lane] = tx
				fallthrough
			case what == "write":
				if _, err := tx.Exec(ctx, `INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id)
					VALUES ($1, $2, 'changed', now(), 'system', 'test')`, cards[lane], w.school); err != nil {
					t.Fatal(err)
				}
				written[lane] = true
			case tx == nil:
			case what == "commit":
				err = tx.Commit(ctx)
				if written[lane] {
					untold[cards[lane]] = true
				}
				delete(open, lane)
				delete(written, lane)
			default:
				err = tx.Rollback(ctx)
				delete(open, lane)
				delete(written, lane)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A database restored from a dump counts transactions from the beginning, while
// devices come with the cursors of its former life.
func TestAListSurvivesARestore(t *testing.T) {
	w := newWorld(t)
	id := w.active(NewCard{Organisation: w.school, UID: "9A3F105C", Kind: OwnCard, Person: w.masha}, schoolday)
	w.exec(`INSERT INTO access.card_event (card_id, organisation_id, what, at, actor_kind, actor_id, xid)
		VALUES ($1, $2, 'changed', now(), 'system', 'test', '99999999999')`, id, w.school)
	all, cursor := w.changes("", 1000)
	if len(all) != 1 || all[0].ID != id {
		t.Errorf("who begins is told %+v", all)
	}
	if nothing, _ := w.changes(cursor, 1000); len(nothing) != 0 {
		t.Errorf("rows of the former life are told again: %+v", nothing)
	}
	if again, _ := w.changes("99999999990:99999999999:99999999991", 1000); len(again) != 1 {
		t.Errorf("a cursor of the former life is told %+v", again)
	}
}

func TestACursorThatWasNeverGivenIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, cursor := range []Cursor{
		"x", "1", "1:2", "1:2:3:4", "0:1:", "-1:5:", "5:4:", "1:2:2", "1:9:5,4", "1:9:0", "1:2:~3", "1:2:~1:2:~", "1:2:~1:2:~x",
		"1:2:~1:2:~1~1", "99999999999999999999:99999999999999999999:", Cursor(strings.Repeat("1", 10_000)), "1:2: ", "'; --",
	} {
		if _, same, err := CardChanges(t.Context(), w.pool, w.school, cursor, 10); !errors.Is(err, ErrCursor) || same != cursor {
			t.Errorf("%.40q: %v", cursor, err)
		}
	}
}

// Every snapshot that the parser lets through PostgreSQL takes as well.
func TestASnapshotIsWhatPostgreSQLTakes(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.SampledFrom([]string{"1", "2", "3", "7", "9", "10", "9223372036854775807", "", "0", "+3", "03", "-1"})
		list := rapid.SliceOfN(number, 0, 4).Draw(t, "xip")
		text := number.Draw(t, "xmin") + ":" + number.Draw(t, "xmax") + ":" + strings.Join(list, ",")
		if !isSnapshot(text) {
			return
		}
		if _, err := w.pool.Exec(context.Background(), `SELECT $1::text::pg_snapshot`, text); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	for _, seed := range []string{"", "1:1:", "730:735:731,733", "730:735:731~736:736:~42", "~~", "1:2:~1:2:~-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		since, upTo, id, err := Cursor(text).parse()
		if err != nil || text == "" {
			return
		}
		again := since
		if upTo != "" {
			again = fmt.Sprintf("%s~%s~%d", since, upTo, id)
		}
		if s, u, i, err := Cursor(again).parse(); err != nil || s != since || u != upTo || i != id {
			t.Fatalf("%q is read as %q, %q, %d; and that as %q, %q, %d, %v", text, since, upTo, id, s, u, i, err)
		}
	})
}
