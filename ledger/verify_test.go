package ledger_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// T14 and a row or more for each of I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11,
// I12, I15, I16 and I17: a row is tampered with past all guards, and the
// verification names the invariant, the day and the row.
func TestVerifyNamesTheTamperedRow(t *testing.T) {
	t.Parallel()
	// Postings 1 to 4 are top-ups of wallets 0 to 3 of the day before yesterday,
	// 5 to 8 buffet sales of yesterday, 9 a subsidised meal of yesterday, 10 the
	// reversal of 5, 11 a forced sale today. Days up to yesterday are closed.
	b := newBooks(t, 4)
	setUp := func(b *books) {
		var entries []ledger.Entry
		for i := range b.wallets {
			entries = append(entries, on(ago(2), b.topUp(i, fmt.Sprint(i), 100_00)))
		}
		b.post(b.events(entries)...)
		b.setThreshold(0, mother, 80_00, false)
		entries = nil
		for i := range b.wallets {
			entries = append(entries, on(ago(1), b.buy(i, fmt.Sprint(i), 30_00)))
		}
		entries = append(entries, on(ago(1), b.subsidise(0, "meal", 90_00)))
		b.post(b.events(entries)...)
		b.postOne(on(ago(1), b.reverse("back", "till/1", "0", 0)))
		b.closeThrough(ago(1))
		b.postOne(on(ago(0), offline(b.buy(3, "forced", 500_00))))
		b.postOne(on(ago(0), b.buy(1, "too much", 500_00)))
		b.inTx(func(tx pgx.Tx) error {
			_, err := b.book.HoldMoney(t.Context(), tx, []ledger.Hold{
				{Account: b.wallets[2], Amount: 20_00, Key: ledger.Key{Source: "preorder", ExternalID: "1"}},
			})
			return err
		})
	}
	setUp(b)
	report := b.sound()
	if report.Postings != 11 || report.Wallets != 4 || report.Turnover != 1140_00 || report.Crossings != 1 || report.Refusals != 1 ||
		report.ClosedDays != 2 || len(report.LastSeal) != 64 || report.Held != 20_00 || !report.OK() {
		t.Errorf("report %+v", report)
	}
	w := func(i int) string { return fmt.Sprint(b.wallets[i]) }
	for _, row := range []struct {
		name   string
		tamper []string
		want   map[string]string // a text in a violation of each invariant
		day    string
	}{
		{
			"the sum of an old posting",
			[]string{`UPDATE ledger.posting SET amount = 3001 WHERE id = 6`},
			map[string]string{
				"I2": "wallet " + w(1) + " holds 7000 kopecks", "I3": "posting 6 ", "I5": "posting 6 ",
				"I11": "posting 6 is not what was sealed", "I12": "account " + w(1), "I1": "wallets hold",
			},
			ago(1).Format("2006-01-02"),
		},
		{
			"when an old posting happened",
			[]string{`UPDATE ledger.posting SET occurred_at = occurred_at + interval '1 hour' WHERE id = 7`},
			map[string]string{"I11": "posting 7 is not what was sealed"},
			ago(1).Format("2006-01-02"),
		},
		{
			"an old posting that is gone",
			[]string{`DELETE FROM ledger.posting WHERE id = 3`},
			map[string]string{"I2": "wallet " + w(2), "I3": "posting 7 ", "I5": "posting 3", "I11": "postings 0 to 1023, 4 were sealed and 3 are there"},
			ago(2).Format("2006-01-02"),
		},
		{
			"a posting moved to another wallet",
			[]string{`UPDATE ledger.posting SET debit_id = ` + w(2) + ` WHERE id = 6`},
			map[string]string{"I2": "wallet " + w(1), "I3": "wallet " + w(1) + " has counted 2 movements, its postings are 1", "I5": "posting 6 "},
			ago(1).Format("2006-01-02"),
		},
		{
			"a balance",
			[]string{`UPDATE ledger.balance SET posted = posted + 1 WHERE account_id = ` + w(0)},
			map[string]string{"I1": "wallets hold", "I2": "wallet " + w(0) + " holds 10001 kopecks, its postings make 10000"},
			"",
		},
		{
			"a count of movements",
			[]string{`UPDATE ledger.balance SET ver = ver + 1 WHERE account_id = ` + w(0)},
			map[string]string{"I3": "wallet " + w(0) + " has counted 4 movements, its postings are 3"},
			"",
		},
		{
			"two balances that cancel out",
			[]string{
				`UPDATE ledger.balance SET posted = posted + 1 WHERE account_id = ` + w(0),
				`UPDATE ledger.balance SET posted = posted - 1 WHERE account_id = ` + w(1),
			},
			map[string]string{"I2": "wallet " + w(1)},
			"",
		},
		{
			"a running balance",
			[]string{`UPDATE ledger.posting SET debit_after = debit_after - 1 WHERE id = 8`},
			map[string]string{"I3": "posting 8 moves wallet " + w(3)},
			ago(1).Format("2006-01-02"),
		},
		{
			"a floor lowered by nobody",
			[]string{`UPDATE ledger.balance SET floor = -50000 WHERE account_id = ` + w(1)},
			map[string]string{"I4": "wallet " + w(1) + " has floor -50000 below its policy floor -30000"},
			"",
		},
		{
			"an id that is gone",
			[]string{`DELETE FROM ledger.idem WHERE posting_id = 6`},
			map[string]string{"I5": "posting 6 (1 of till/1) has no id"},
			ago(1).Format("2006-01-02"),
		},
		{
			"what was asked",
			[]string{`UPDATE ledger.idem SET body = 'buffet' WHERE posting_id = 6`},
			map[string]string{"I5": "posting 6 (1 of till/1) is not what was asked"},
			ago(1).Format("2006-01-02"),
		},
		{
			"an id without a posting",
			[]string{`INSERT INTO ledger.idem VALUES ('x', 'y', 4711, '2026-01-01', 'buffet')`},
			map[string]string{"I5": "the id y of x is taken by posting 4711"},
			"2026-01-01",
		},
		{
			"the kind of a posting",
			[]string{`UPDATE ledger.posting SET kind = 'hot' WHERE id = 6`},
			map[string]string{"I7": "posting 6: hot of 3000 kopecks from wallet"},
			ago(1).Format("2006-01-02"),
		},
		{
			"a top-up outside the limits",
			[]string{
				`ALTER TABLE ledger.posting DROP CONSTRAINT posting_sound`, `UPDATE ledger.posting SET amount = 1 WHERE id = 1`,
			},
			map[string]string{"I6": "posting 1: topup of 1 kopecks"},
			ago(2).Format("2006-01-02"),
		},
		{
			"a reversal of more than there was",
			[]string{`UPDATE ledger.posting SET amount = 3001 WHERE id = 10`},
			map[string]string{"I8": "posting 5 of 3000 kopecks (buffet): reversals make 3001, noted are 3000"},
			ago(1).Format("2006-01-02"),
		},
		{
			"money held for nothing",
			[]string{`UPDATE ledger.balance SET held = 1 WHERE account_id = ` + w(0)},
			map[string]string{"I9": "wallet " + w(0) + " has 1 kopecks held"},
			"",
		},
		{
			"a hold that holds nothing",
			[]string{`UPDATE ledger.balance SET held = 0 WHERE account_id = ` + w(2)},
			map[string]string{"I9": "its open holds make 2000"},
			"",
		},
		{
			"a crossing that is gone",
			[]string{`DELETE FROM ledger.crossing`},
			map[string]string{"I10": "posting 5 crossed 8000 and no crossing says so"},
			ago(1).Format("2006-01-02"),
		},
		{
			"a crossing that was none",
			[]string{`INSERT INTO ledger.crossing VALUES (` + w(1) + `, 1, false, 2, 999, 6, 8000, 7000, now(), now())`},
			map[string]string{"I10": "the crossing 999 says a threshold was crossed that was not"},
			"",
		},
		{
			"a posting smuggled into a closed day",
			[]string{
				`UPDATE ledger.posting SET booking_day = booking_day - 1 WHERE id = 11`,
				`UPDATE ledger.idem SET booking_day = booking_day - 1 WHERE posting_id = 11`,
			},
			map[string]string{"I11": "posting 11 was booked on this day after it was closed"},
			ago(1).Format("2006-01-02"),
		},
		{
			"a seal",
			[]string{`UPDATE ledger.day SET seal = sha256('') WHERE day = current_date - 1`},
			map[string]string{"I11": "the seal does not follow"},
			"",
		},
		{
			"a seal and everything under it made anew, but for the next one",
			[]string{`UPDATE ledger.day SET seal = sha256('x') WHERE day = (SELECT min(day) FROM ledger.day)`},
			map[string]string{"I11": "the seal does not follow"},
			"",
		},
		{
			"the turnover of a closed day",
			[]string{`UPDATE ledger.day_account SET credit = credit + 1 WHERE account_id = ` + w(0)},
			map[string]string{"I12": "account " + w(0)},
			"",
		},
		{
			"an opening balance",
			[]string{`UPDATE ledger.day_account SET opening = opening + 1, closing = closing + 1 WHERE account_id = ` + w(0) + ` AND day = (SELECT max(day) FROM ledger.day)`},
			map[string]string{"I12": "account " + w(0) + ": opening 10001 after closing 10000"},
			"",
		},
		{
			"a folded total",
			[]string{`INSERT INTO ledger.fold VALUES (` + fmt.Sprint(b.buffet) + `, '2026-01-01', 0, 1, 1)`},
			map[string]string{"I1": "wallets hold", "I15": "account " + fmt.Sprint(b.buffet)},
			"",
		},
		{
			"a right of the application",
			[]string{`GRANT UPDATE ON ledger.posting_default TO zvonok_app`, `GRANT DELETE ON ledger.idem TO zvonok_app`},
			map[string]string{"I16": "DELETE FROM ledger.idem"},
			"",
		},
		{
			"a guard that is off",
			[]string{`ALTER TABLE ledger.posting DISABLE TRIGGER append_only`},
			map[string]string{"I16": "the trigger that guards ledger.posting is missing or disabled"},
			"",
		},
		{
			"an event booked in two parts",
			[]string{`UPDATE ledger.posting SET event_id = (SELECT event_id FROM ledger.posting WHERE id = 1) WHERE id = 6`},
			map[string]string{"I17": "the postings 1, 6 of event"},
			ago(2).Format("2006-01-02"),
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t, 4)
			setUp(b)
			b.tamper(row.tamper...)
			report, err := ledger.Verify(t.Context(), b.pool)
			b.must(err)
			for name, text := range row.want {
				i := slices.IndexFunc(report.Violations, func(v ledger.Violation) bool {
					return v.Invariant == name && strings.Contains(v.Row, text)
				})
				if i < 0 {
					t.Errorf("%s does not say %q", name, text)
					continue
				}
				if v := report.Violations[i]; !v.Day.IsZero() && row.day != "" && v.Day.Format("2006-01-02") != row.day &&
					name != "I15" && !strings.HasPrefix(text, "posting 7 ") {
					t.Errorf("%s names the day %s, want %s", name, v.Day, row.day)
				}
			}
			if t.Failed() {
				for _, v := range report.Violations {
					t.Log(v)
				}
			}
		})
	}
}

// I16: whatever the application tries, what is in the book stays as it is.
func TestTheApplicationCannotChangeTheBook(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	b.postOne(b.buy(0, "a", 10_00))
	for _, attempt := range []string{
		`UPDATE ledger.posting SET amount = 1`,
		`DELETE FROM ledger.posting`,
		`TRUNCATE ledger.posting`,
		`INSERT INTO ledger.posting SELECT * FROM ledger.posting`,
		`UPDATE ledger.posting_default SET amount = 1`,
		`DELETE FROM ledger.idem`,
		`UPDATE ledger.idem SET body = NULL`,
		`UPDATE ledger.balance SET posted = 1000000`,
		`INSERT INTO ledger.balance (account_id, policy_floor, floor) VALUES (1, 0, 0)`,
		`DELETE FROM ledger.account`,
		`DELETE FROM ledger.crossing`,
		`DELETE FROM ledger.day`,
		`UPDATE ledger.gate SET closed_through = '2000-01-01'`,
		`UPDATE ledger.posting_rule SET may_force = true`,
		`ALTER TABLE ledger.posting DISABLE TRIGGER ALL`,
		`DROP TABLE ledger.idem`,
		`SET session_replication_role = replica`,
	} {
		if _, err := b.pool.Exec(t.Context(), attempt); err == nil {
			t.Errorf("allowed: %s", attempt)
		} else if !strings.Contains(err.Error(), "permission denied") && !strings.Contains(err.Error(), "must be owner") {
			t.Errorf("%s: %v", attempt, err)
		}
	}
	// Not even the owner changes or deletes a posting by mistake.
	b.tamper() // opens the owner's pool
	for _, attempt := range []string{
		`UPDATE ledger.posting SET amount = 1`, `DELETE FROM ledger.posting`, `TRUNCATE ledger.posting`,
		`DELETE FROM ledger.idem`, `DELETE FROM ledger.balance`, `TRUNCATE ledger.account CASCADE`,
	} {
		if _, err := b.owner.Exec(t.Context(), attempt); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("the owner's %s: %v", attempt, err)
		}
	}
	b.sound()
}

func TestTheReportIsReadable(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	var text strings.Builder
	if _, err := b.sound().WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	want := "ok: I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12, I15, I16, I17 hold\n" +
		"wallets 1, system accounts 7, postings 1, refused 0, crossings 0, closed days 0\n" +
		"turnover 100.00, in wallets 100.00, held 0.00, last seal \n"
	if text.String() != want {
		t.Errorf("the report is\n%s\nwant\n%s", text.String(), want)
	}
	last, err := ledger.LastVerification(t.Context(), b.pool)
	b.must(err)
	b.tamper(`UPDATE ledger.balance SET posted = posted + 1`)
	report, err := ledger.Verify(t.Context(), b.pool)
	b.must(err)
	if last.At.IsZero() || !report.Before.Equal(last.At) || last.Found["I2"] != 0 {
		t.Errorf("the last verification was %+v, the report says it was at %s", last, report.Before)
	}
	if last, err = ledger.LastVerification(t.Context(), b.pool); err != nil || !last.At.Equal(report.At) || last.Found["I2"] != 1 {
		t.Errorf("the last verification is %+v, %v", last, err)
	}
	text.Reset()
	if _, err := report.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	if report.OK() || !strings.Contains(text.String(), "I2 wallet 1000000 holds 10001 kopecks, its postings make 10000\n") {
		t.Errorf("the report is\n%s", text.String())
	}
}

// In a fleet one process verifies the books of a night: not while another does,
// and not again before the next day is sealed.
func TestTheBooksOfANightAreVerifiedOnce(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.fund(100_00)
	verify := func(want bool) {
		t.Helper()
		report, done, err := ledger.VerifyOnce(t.Context(), b.pool)
		b.must(err)
		if done != want || done != !report.At.IsZero() {
			t.Errorf("verified: %v, want %v", done, want)
		}
	}
	yesterday := time.Now().UTC().AddDate(0, 0, -1)
	b.closeThrough(yesterday.AddDate(0, 0, -1))
	other, err := b.pool.Acquire(t.Context())
	b.must(err)
	_, err = other.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, 0x7a766f6e_0003)
	b.must(err)
	verify(false) // the other one is at it
	_, err = other.Exec(t.Context(), `SELECT pg_advisory_unlock($1)`, 0x7a766f6e_0003)
	b.must(err)
	other.Release()
	verify(true)
	verify(false)
	b.closeThrough(yesterday)
	verify(true)
	if n := b.count(`SELECT count(*) FROM ledger.verification`); n != 2 {
		t.Errorf("%d verifications are kept", n)
	}
	b.sound()
}
