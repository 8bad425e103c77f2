package ledger_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

// ago is the day n days ago, at midnight UTC.
func ago(n int) time.Time { return today.Truncate(24*time.Hour).AddDate(0, 0, -n) }

func (b *books) closeThrough(day time.Time) []ledger.Day {
	b.Helper()
	days, err := ledger.CloseDays(b.Context(), b.pool, day, "test")
	b.must(err)
	return days
}

func on(day time.Time, e ledger.Entry) ledger.Entry {
	e.Day, e.OccurredAt = day, day.Add(9*time.Hour)
	return e
}

// T12 and 2.12: which day an entry is booked on, after the day before yesterday
// was closed.
func TestTheAccountingDay(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.book.Zone = time.FixedZone("MSK", 3*60*60)
	now := time.Date(today.Year(), today.Month(), today.Day(), 12, 0, 0, 0, time.UTC)
	b.book.Now = func() time.Time { return now }
	b.closeThrough(ago(2))
	for i, row := range []struct {
		name     string
		occurred time.Time
		day      time.Time
		want     time.Time
		late     bool
	}{
		{"an entry of today belongs to today", now, time.Time{}, ago(0), false},
		{"the day ends at midnight of the book's zone", ago(0).Add(-3*time.Hour - time.Second), time.Time{}, ago(1), false},
		{"and begins there", ago(0).Add(-3 * time.Hour), time.Time{}, ago(0), false},
		{"a day that is said counts more than the moment", now, ago(1).Add(20 * time.Hour), ago(1), false},
		{"an entry of a closed day is booked on the first open one", ago(2).Add(9 * time.Hour), time.Time{}, ago(1), true},
		{"so is one from 1970", time.Unix(0, 0), time.Time{}, ago(1), true},
		{"a till an hour ahead at noon is today's", now.Add(time.Hour), time.Time{}, ago(0), false},
		{"a day that has begun in the east is no mistake", now.Add(12 * time.Hour), ago(-1), ago(-1), false},
		{"a day that has begun nowhere becomes the latest that has", now.AddDate(1, 0, 0), time.Time{}, ago(-1), false},
	} {
		e := b.topUp(0, fmt.Sprint(i), 10_00)
		e.OccurredAt, e.Day = row.occurred, row.day
		other := e
		other.ExternalID, other.Event = e.ExternalID+" in a batch", b.event()
		for name, v := range map[string]ledger.Verdict{"alone": b.postOne(e), "in a batch": b.post(other, other)[0]} {
			if !v.Day.Equal(row.want) || v.Code != ledger.CodePosted {
				t.Errorf("%s, %s: %s on %s, want %s", row.name, name, v.Code, v.Day, row.want)
			}
		}
	}
	late, err := ledger.LatePostings(t.Context(), b.pool, ago(1))
	b.must(err)
	if len(late) != 4 {
		t.Errorf("%d late postings are listed, want 4", len(late))
	}
	b.sound()
}

// T12: on the days on which a zone's clocks go forward and back an entry belongs
// to the date of its own clocks, also in the hour that comes twice and in the
// last second before a midnight that is 23 or 25 hours after the one before.
// Balances follow the order of posting, however the moments jump.
func TestTheAccountingDayWhenTheClocksChange(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	zone, err := time.LoadLocation("Europe/Berlin")
	b.must(err)
	b.book.Zone = zone
	changes := 0
	for day := time.Now().In(zone).AddDate(0, 0, -400); day.Before(time.Now().AddDate(0, 0, -2)); day = day.AddDate(0, 0, 1) {
		midnight := time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, zone)
		next := time.Date(day.Year(), day.Month(), day.Day()+1, 0, 0, 0, 0, zone)
		length := next.Sub(midnight)
		if length == 24*time.Hour {
			continue
		}
		changes++
		date := time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, time.UTC)
		for i, row := range []struct {
			at   time.Time
			want time.Time
		}{
			{next.Add(-time.Second), date}, // the latest first: the order is that of posting
			{midnight, date},
			{midnight.Add(-time.Second), date.AddDate(0, 0, -1)},
			{midnight.Add(2*time.Hour + 30*time.Minute), date},
			{midnight.Add(3*time.Hour + 30*time.Minute), date}, // 2:30 again, or 4:30
			{next, date.AddDate(0, 0, 1)},
			{midnight.Add(length / 2), date},
		} {
			e := b.topUp(0, fmt.Sprintf("%s %d", date, i), 10_00)
			e.OccurredAt, e.Day = row.at.UTC(), time.Time{}
			v := b.postOne(e)
			if !v.Day.Equal(row.want) || v.Code != ledger.CodePosted {
				t.Errorf("%s is %s on %s, want %s", row.at, v.Code, v.Day, row.want)
			}
			if want := money.Amount((changes-1)*7+i+1) * 10_00; v.CreditAfter != want {
				t.Errorf("%s leaves %s, want %s", row.at, v.CreditAfter, want)
			}
		}
	}
	if changes < 2 {
		t.Errorf("%d changes of the clocks in 400 days", changes)
	}
	b.sound()
}

func TestAClosedDayIsSealedAndSumsUp(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 3)
	for back := 4; back >= 1; back-- {
		var entries []ledger.Entry
		for i := range b.wallets {
			entries = append(entries,
				on(ago(back), b.topUp(i, fmt.Sprintf("%d-%d", back, i), 100_00)),
				on(ago(back), b.buy(i, fmt.Sprintf("%d-%d", back, i), 30_00)))
		}
		if back != 2 { // a day without postings is no day of its own
			b.post(b.events(entries)...)
		}
	}
	days := b.closeThrough(ago(1))
	if len(days) != 3 || !days[0].Day.Equal(ago(4)) || !days[1].Day.Equal(ago(3)) || !days[2].Day.Equal(ago(1)) {
		t.Fatalf("sealed days %+v", days)
	}
	for _, day := range days {
		if day.Postings != 6 || day.Amount != 390_00 || day.Late != 0 || len(day.Seal) != 32 {
			t.Errorf("sealed %+v", day)
		}
	}
	turnovers, err := ledger.Turnovers(t.Context(), b.pool, ago(3))
	b.must(err)
	if want := []ledger.Turnover{
		{ledger.Bank, "mkb", 1, -300_00, 300_00, 0, -600_00, 3},
		{ledger.Buffet, "kp", 1, 90_00, 0, 90_00, 180_00, 3},
		{ledger.Wallet, "", 3, 210_00, 90_00, 300_00, 420_00, 6},
	}; !slices.Equal(turnovers, want) {
		t.Errorf("turnovers %+v, want %+v", turnovers, want)
	}
	if again := b.closeThrough(ago(1)); len(again) != 0 {
		t.Errorf("closing again sealed %v", again)
	}
	b.sound()

	// An entry for the closed days is booked on the first open one and listed.
	v := b.postOne(on(ago(3), offline(b.buy(0, "late", 5_00))))
	if !v.Day.Equal(ago(0)) {
		t.Errorf("booked on %s", v.Day)
	}
	days = b.closeThrough(ago(0))
	if len(days) != 1 || days[0].Late != 1 || days[0].Postings != 1 {
		t.Errorf("sealed %+v", days)
	}
	b.sound()

	// A day cannot be closed over an open one that has postings.
	if _, err := b.pool.Exec(t.Context(), `SELECT ledger.close_day($1, 'test')`, ago(3)); err == nil {
		t.Error("a closed day was closed again")
	}
}

func TestReopeningADayVoidsItsSealAndLaterOnes(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	for back := 3; back >= 1; back-- {
		b.postOne(on(ago(back), b.topUp(0, fmt.Sprint(back), 100_00)))
	}
	first := b.closeThrough(ago(1))
	b.inTx(func(tx pgx.Tx) error {
		return ledger.ReopenDay(t.Context(), tx, ago(2), "accountant 5", "a bank's file came late")
	})
	if v := b.postOne(on(ago(2), b.topUp(0, "after all", 100_00))); !v.Day.Equal(ago(2)) {
		t.Errorf("booked on %s", v.Day)
	}
	b.sound()
	again := b.closeThrough(ago(1))
	if len(again) != 2 || !again[0].Day.Equal(ago(2)) || again[0].Postings != 2 {
		t.Errorf("sealed again %+v", again)
	}
	if slices.Equal(again[1].Seal, first[2].Seal) {
		t.Error("the seal of a later day does not depend on the days before")
	}
	if got := b.count(`SELECT count(*) FROM ledger.day_log WHERE action = 'reopened' AND actor = 'accountant 5' AND seal IS NOT NULL`); got != 2 {
		t.Errorf("%d reopened days are logged with their seals", got)
	}
	b.sound()
}

// T8: an offline pack delivered twice, reversed, in pieces and after its day was
// closed leads to the same state.
func TestAnOfflinePackLeadsToTheSameStateHoweverItComes(t *testing.T) {
	t.Parallel()
	type state struct {
		balances []money.Amount
		postings int
	}
	var want *state
	for _, row := range []struct {
		name    string
		deliver func(b *books, pack []ledger.Entry)
		late    bool
	}{
		{"at once", func(b *books, pack []ledger.Entry) { b.post(pack...) }, false},
		{"twice", func(b *books, pack []ledger.Entry) { b.post(pack...); b.post(pack...) }, false},
		{"reversed and in pieces", func(b *books, pack []ledger.Entry) {
			slices.Reverse(pack)
			for piece := range slices.Chunk(pack, 7) {
				b.post(piece...)
				b.post(piece...)
			}
		}, false},
		{"one by one, twice", func(b *books, pack []ledger.Entry) {
			for _, e := range pack {
				b.postOne(e)
				b.postOne(e)
			}
		}, false},
		{"half of it after the day was closed, then all again", func(b *books, pack []ledger.Entry) {
			b.post(pack[:20]...)
			b.closeThrough(ago(1))
			b.post(pack[20:]...)
			b.post(pack...)
		}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBooks(t, 5)
			fund := make([]ledger.Entry, 5)
			for i := range fund {
				fund[i] = on(ago(1), b.topUp(i, fmt.Sprint(i), 200_00))
			}
			b.post(b.events(fund)...)
			var pack []ledger.Entry
			for i := range 40 {
				pack = append(pack, on(ago(1), offline(b.buy(i%5, fmt.Sprintf("seq-%d", i), money.Amount(10_00+i*100)))))
			}
			row.deliver(b, b.events(pack))
			got := &state{postings: b.count(`SELECT count(*) FROM ledger.posting`)}
			for i := range 5 {
				got.balances = append(got.balances, b.balance(i).Posted)
			}
			if want == nil {
				want = got
			}
			if got.postings != want.postings || !slices.Equal(got.balances, want.balances) {
				t.Errorf("state %+v, want %+v", got, want)
			}
			late, err := ledger.LatePostings(t.Context(), b.pool, ago(0))
			b.must(err)
			if row.late && len(late) != 20 || !row.late && len(late) != 0 {
				t.Errorf("%d postings are listed as late", len(late))
			}
			b.sound()
		})
	}
}

// T9: a day is closed while sixteen writers post to it. Nothing slips behind
// the cut and no writer waits longer than the lock timeout.
func TestClosingADayWhileWritersPost(t *testing.T) {
	t.Parallel()
	const writers = 16
	b := newBooks(t, writers)
	b.fund(10000_00)
	var posted, closed atomic.Int64
	group, ctx := errgroup.WithContext(t.Context())
	for w := range writers {
		group.Go(func() error {
			// Go on for a while after the day is closed.
			for i, after := 0, 0; after < 5; i++ {
				if closed.Load() != 0 {
					after++
				}
				entries := []ledger.Entry{on(ago(1), b.buy(w, fmt.Sprintf("%d-%d", w, i), 1_00))}
				if i%3 == 0 {
					entries = append(entries, on(ago(0), b.buy((w+1)%writers, fmt.Sprintf("%d-%d+", w, i), 1_00)))
				}
				verdicts, err := b.tryPost(ctx, entries...)
				if err != nil {
					return err
				}
				for _, v := range verdicts {
					if v.Code != ledger.CodePosted {
						return fmt.Errorf("a sale is %s", v.Code)
					}
				}
				posted.Add(int64(len(entries)))
			}
			return nil
		})
	}
	group.Go(func() error {
		for posted.Load() < 200 {
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
		_, err := ledger.CloseDays(ctx, b.pool, ago(1), "test")
		closed.Store(1)
		return err
	})
	b.must(group.Wait())
	if late := b.count(`SELECT count(*) FROM ledger.posting WHERE late_from IS NOT NULL`); late < writers {
		t.Errorf("only %d postings came after the cut", late)
	}
	b.sound()
}

// T17: totals do not lose what a long transaction commits late; the lag shows
// while it is open. A cursor over posting ids would lose it.
//
// It does not run beside other tests: transactions of the whole cluster count.
func TestFoldingLosesNothingToALongTransaction(t *testing.T) {
	b := newBooks(t, 2)
	b.fund(100_00)
	fold := func() ledger.FoldLag {
		t.Helper()
		_, err := b.book.Fold(t.Context(), b.pool)
		b.must(err)
		lag, err := ledger.ReadFoldLag(t.Context(), b.pool)
		b.must(err)
		return lag
	}
	if lag := fold(); lag.Postings != 0 {
		t.Errorf("lag %+v", lag)
	}
	slow, err := b.pool.Begin(t.Context())
	b.must(err)
	_, err = b.book.Post(t.Context(), slow, []ledger.Entry{b.buy(0, "slow", 1_00)})
	b.must(err)
	for i := range 20 { // higher ids, committed earlier
		b.postOne(b.buy(1, fmt.Sprint(i), 1_00))
	}
	lag := fold()
	if lag.Postings != 20 || lag.Oldest.IsZero() {
		t.Errorf("while a transaction is open the lag is %+v", lag)
	}
	total := func() (buffet ledger.Total) {
		t.Helper()
		totals, err := ledger.Totals(t.Context(), b.pool)
		b.must(err)
		for _, x := range totals {
			if x.Account == b.buffet {
				buffet = x
			}
		}
		return buffet
	}
	if got := total(); got.Credit != 20_00 || got.Postings != 20 {
		t.Errorf("with a tail the total is %+v", got)
	}
	b.sound()
	b.must(slow.Commit(t.Context()))
	if lag := fold(); lag.Postings != 0 {
		t.Errorf("after it ended the lag is %+v", lag)
	}
	if got := total(); got.Credit != 21_00 || got.Postings != 21 || got.Owner != "kp" || got.Kind != ledger.Buffet {
		t.Errorf("the total is %+v", got)
	}
	b.sound()
}

// A dump restored into a new cluster has the old transaction ids in its rows
// while the server counts from a low number again. It runs alone, as the test above.
func TestFoldingStartsOverInARestoredCluster(t *testing.T) {
	b := newBooks(t, 1)
	b.fund(100_00)
	b.postOne(b.buy(0, "before", 1_00))
	_, err := b.book.Fold(t.Context(), b.pool)
	b.must(err)
	const ahead = 5_000_000 // as if the old server had been this far
	b.tamper(
		fmt.Sprintf(`UPDATE ledger.posting SET xid = xid + %d`, ahead),
		fmt.Sprintf(`UPDATE ledger.fold_mark SET watermark = watermark + %d`, ahead))
	b.postOne(b.buy(0, "after", 2_00))
	added, err := b.book.Fold(t.Context(), b.pool)
	b.must(err)
	if added != 3 {
		t.Errorf("%d postings counted anew, want 3", added)
	}
	b.postOne(b.buy(0, "later", 3_00))
	added, err = b.book.Fold(t.Context(), b.pool)
	b.must(err)
	if added != 1 {
		t.Errorf("%d postings added, want 1", added)
	}
	b.closeThrough(ago(0))
	b.sound()
}

// A posting holds the day on which it is booked against its closing: its own, and
// for what comes late for a closed day the first open one.
func TestClosingADayWaitsForThePostingsOnIt(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 2)
	b.fund(100_00)
	past := func(wallet, days int, id string) ledger.Entry {
		e := b.buy(wallet, id, 1_00)
		e.OccurredAt = ago(days)
		return e
	}
	for _, entries := range [][]ledger.Entry{
		{past(0, 5, "single")},
		{past(0, 5, "batch-1"), past(1, 4, "batch-2")},
		{past(0, 3, "last-1"), past(1, 3, "last-2")}, // of the last closed day, both
		{past(0, 2, "open single")},
		{past(0, 2, "open-1"), past(1, 2, "open-2")},
		{past(0, 2, "both-1"), past(1, 4, "both-2")},
	} {
		b.postOne(past(0, 3, "of its day "+entries[0].ExternalID))
		b.closeThrough(ago(3))
		tx, err := b.pool.Begin(t.Context())
		b.must(err)
		defer tx.Rollback(context.WithoutCancel(t.Context()))
		verdicts, err := b.book.Post(t.Context(), tx, entries)
		b.must(err)
		open := verdicts[0].Day
		closing := func() error {
			return pgx.BeginFunc(t.Context(), b.pool, func(other pgx.Tx) error {
				if _, err := other.Exec(t.Context(), `SET LOCAL lock_timeout = '100ms'`); err != nil {
					return err
				}
				_, err := other.Exec(t.Context(), `SELECT ledger.close_day($1, 'test')`, open)
				return err
			})
		}
		if err := closing(); err == nil || !strings.Contains(err.Error(), "lock timeout") {
			t.Errorf("%s was closed under %s: %v", open.Format(time.DateOnly), entries[0].ExternalID, err)
		}
		b.must(tx.Commit(t.Context()))
		b.must(closing())
		b.sound()
		b.inTx(func(tx pgx.Tx) error { return ledger.ReopenDay(t.Context(), tx, ago(3), "test", "the next round") })
	}
}

func TestWaitingForALockEndsInAnError(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	holder, err := b.pool.Begin(t.Context())
	b.must(err)
	defer holder.Rollback(context.WithoutCancel(t.Context()))
	_, err = b.book.Post(t.Context(), holder, []ledger.Entry{b.buy(0, "held", 1_00)})
	b.must(err)
	err = pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SET LOCAL lock_timeout = '50ms'`); err != nil {
			return err
		}
		_, err := b.book.Post(t.Context(), tx, []ledger.Entry{b.buy(0, "waiting", 1_00)})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("the waiting call ended with %v", err)
	}
	b.must(holder.Commit(t.Context()))
	if v := b.postOne(b.buy(0, "waiting", 1_00)); v.Code != ledger.CodePosted {
		t.Errorf("the repeat is %s", v.Code)
	}
	b.sound()
}
