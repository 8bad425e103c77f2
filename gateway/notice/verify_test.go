package notice

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

// crossings lists what the queue still has to tell.
func (b *bench) crossings() (jobs []ledger.Crossed) {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `SELECT args FROM river.river_job WHERE kind = 'ledger_crossed' AND state = 'available' ORDER BY id`)
	if err != nil {
		b.t.Fatal(err)
	}
	if jobs, err = pgx.CollectRows(rows, pgx.RowTo[ledger.Crossed]); err != nil {
		b.t.Fatal(err)
	}
	return jobs
}

// spend takes money out of Masha's account, with the job of the threshold that it
// crosses.
func (b *bench) spend(id string, sum money.Amount) {
	b.t.Helper()
	ctx := b.t.Context()
	if err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		balances, err := ledger.Balances(ctx, tx, []ledger.PersonID{b.people["masha"]})
		if err != nil {
			return err
		}
		accounts, err := ledger.SystemAccounts(ctx, tx, ledger.SystemAccount{Kind: ledger.WriteOff})
		if err != nil {
			return err
		}
		e := ledger.Entry{
			Kind: ledger.Correction, Debit: balances[b.people["masha"]].Account, Credit: accounts[0], Amount: sum,
			Source: "test", ExternalID: id, OccurredAt: b.now,
		}
		if sum < 0 {
			e.Debit, e.Credit, e.Amount = e.Credit, e.Debit, -sum
		}
		events, err := ledger.NextEventIDs(ctx, tx, 1)
		if err != nil {
			return err
		}
		e.Event = events[0]
		verdicts, err := ledger.NewBook(b.jobs).Post(ctx, tx, []ledger.Entry{e})
		if err == nil && verdicts[0].Code != ledger.CodePosted {
			err = fmt.Errorf("the book says %s", verdicts[0].Code)
		}
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
}

// verify lists what the verification finds in I10.
func (b *bench) verify(q pgx.Tx) (found []string) {
	b.t.Helper()
	for _, check := range Checks() {
		rows, err := q.Query(b.t.Context(), check.Query)
		if err != nil {
			b.t.Fatal(err)
		}
		var name, text string
		if _, err := pgx.ForEachRow(rows, []any{&name, nil, &text}, func() error {
			found = append(found, name+" "+text)
			return nil
		}); err != nil {
			b.t.Fatal(err)
		}
	}
	return found
}

// done marks the jobs of crossings as the queue does.
func (b *bench) done() {
	b.t.Helper()
	b.exec(`UPDATE river.river_job SET state = 'completed', finalized_at = now() WHERE kind = 'ledger_crossed'`)
}

// I10, T7: a crossing that was committed is told once: when the process dies
// before the worker begins, in the middle of its work, or after it and before
// the queue knows; and by two workers at once.
func TestACrossingIsToldOnceWhateverDiesOnTheWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		var mother int64
		if err := tx.QueryRow(t.Context(), `SELECT id FROM access.representative WHERE phone = '79000000001'`).Scan(&mother); err != nil {
			return err
		}
		return ledger.LoadThresholds(t.Context(), tx, []ledger.Threshold{{Person: b.people["masha"], Owner: mother, Amount: 150_00}})
	}); err != nil {
		t.Fatal(err)
	}
	b.exec(`INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		SELECT $1, 'threshold', 'now', r.id, 'sms' FROM access.representative AS r WHERE r.phone = '79000000001'`, b.people["masha"])
	b.spend("fund", -200_00)
	b.spend("a", 60_00)
	check := func(when string, messages int) {
		t.Helper()
		report, err := ledger.Verify(t.Context(), b.pool, Checks()...)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range report.Violations {
			t.Errorf("%s: %s", when, v)
		}
		sent := 0
		for _, text := range b.sent() {
			if strings.Contains(text, "140,00") {
				sent++
			}
		}
		if sent != messages {
			t.Errorf("%s: %d messages, want %d: %q", when, sent, messages, b.sent())
		}
	}
	check("before the worker", 0)
	jobs := b.crossings()
	if len(jobs) != 1 {
		t.Fatalf("the jobs are %v", jobs)
	}
	// The process dies when everything is written and nothing is committed.
	errDied := errors.New("died")
	if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		facts, err := b.teller.crossedNews(t.Context(), tx, jobs[0].EventIDs)
		if err != nil {
			return err
		}
		if err := b.teller.tell(t.Context(), tx, facts); err != nil {
			return err
		}
		return errDied
	}); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	check("after a death in the middle", 0)
	worker := &crossedWorker{teller: b.teller}
	var group errgroup.Group
	for range 4 { // the queue gives a job that it thinks lost to another worker
		group.Go(func() error {
			// One that loses the race may fail: its job comes again, as below.
			_ = worker.Work(context.WithoutCancel(t.Context()), &river.Job[ledger.Crossed]{Args: jobs[0]})
			return nil
		})
	}
	_ = group.Wait()
	check("after the work, before the queue knows", 1)
	if err := worker.Work(t.Context(), &river.Job[ledger.Crossed]{Args: jobs[0]}); err != nil {
		t.Error(err)
	}
	b.done()
	check("when all is done", 1)
	b.exec(`DELETE FROM river.river_job WHERE kind = 'ledger_crossed'`)
	check("when the queue has forgotten it", 1)
}

// I10: the verification names a crossing that nobody is told of, and what tells
// of a crossing that is none.
func TestTheVerificationFindsACrossingWithoutItsNotice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	event := b.crossing(morning)
	b.now = morning
	b.exec(`INSERT INTO river.river_job (kind, args, queue, max_attempts, state, priority)
		VALUES ('ledger_crossed', jsonb_build_object('event_ids', ARRAY[$1::bigint]), 'default', 25, 'available', 1)`, event)
	if _, err := b.teller.tellCrossed(t.Context(), b.crossings()); err != nil {
		t.Fatal(err)
	}
	b.done()
	for _, row := range []struct {
		name   string
		tamper string
		want   string
	}{
		{"nothing", ``, ""},
		{"a notice that is gone", `DELETE FROM notice.notice`, "has neither a notice nor a job that will make one"},
		{"a notice of another moment", `UPDATE notice.notice SET event_at = event_at + interval '1 s'`, "which is not there"},
		{"a notice of another child", `UPDATE notice.notice SET child_id = child_id + 1`, "which is not there"},
		{"a notice to somebody else", `UPDATE notice.notice SET representative_id = representative_id + 1`, "is told to recipients"},
		{
			"a notice to somebody else as well",
			`INSERT INTO notice.notice SELECT event_id, event_at, child_id, 0, topic, channel, verdict, stages, NULL, NULL, decided_at FROM notice.notice`,
			"is told to recipients",
		},
		{"a crossing that is gone", `DELETE FROM ledger.crossing`, "which is not there"},
		{"a job too many", `INSERT INTO river.river_job (kind, args, queue, max_attempts, state, priority)
			SELECT kind, args, queue, max_attempts, 'available', priority FROM river.river_job WHERE kind = 'ledger_crossed'`, "is announced by 2 jobs"},
		{"a job for nothing", `INSERT INTO river.river_job (kind, args, queue, max_attempts, state, priority)
			VALUES ('ledger_crossed', '{"event_ids": [4711]}', 'default', 25, 'available', 1)`, "a job announces the crossing 4711"},
		{
			"a job that was given up", `WITH gone AS (DELETE FROM notice.notice) UPDATE river.river_job SET state = 'discarded' WHERE kind = 'ledger_crossed'`,
			"has neither a notice nor a job",
		},
	} {
		tx, err := b.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if row.tamper != "" {
			if _, err := tx.Exec(t.Context(), `SET LOCAL ROLE NONE`); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`); err != nil { // past the guards
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), row.tamper); err != nil {
				t.Fatalf("%s: %v", row.name, err)
			}
		}
		found := strings.Join(b.verify(tx), "\n")
		if (row.want == "") != (found == "") || !strings.Contains(found, row.want) {
			t.Errorf("%s: found %q, want %q", row.name, found, row.want)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
