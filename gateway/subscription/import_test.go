package subscription

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/registry"
)

const (
	header         = "phone,person_id,event,channel,mode,threshold\n"
	guardianHeader = "phone,email,family_name,given_name,patronymic,language,translit,person_id,role,consent_date,consent_until\n"
)

func (w *world) lines(lines ...string) registry.Report {
	w.Helper()
	return w.bring(map[string]string{registry.Subscriptions: header + strings.Join(lines, "\n") + "\n"})
}

func (w *world) count(report registry.Report, added, changed, left int) {
	w.Helper()
	if !report.OK() {
		w.Fatalf("the import found %v", report.Problems)
	}
	want := registry.Count{File: registry.Subscriptions, Added: added, Changed: changed, Left: left}
	if got := report.Counts[len(report.Counts)-1]; got != want {
		w.Errorf("the import says %+v, want %+v", got, want)
	}
}

// contract.md section 4.
func TestSubscriptionsAreImported(t *testing.T) {
	w := newWorld(t)
	file := []string{
		"+7 900 000-00-01,p-1,pass,sms,now,",
		"+79000000001,p-1,pass,email,day,",
		"89000000001,p-1,threshold,sms,now,200",
		"+79000000001,p-1,threshold,email,now,",
		"+79000000001,p-2,threshold,push,now,99.50",
		"+79000000002,p-1,threshold,sms,now,",
		"+79000000002,p-1,buffet,sms,week,12.00", // an amount beside another event means nothing
	}
	w.count(w.lines(file...), 7, 0, 0)
	if got, want := w.of(w.mother, w.masha), []Subscription{
		{Pass, Email, Day},
		{Pass, SMS, Now},
		{Threshold, Email, Now},
		{Threshold, SMS, Now},
	}; !slices.Equal(got, want) {
		t.Errorf("the mother's wishes are %v, want %v", got, want)
	}
	for _, test := range []struct {
		who, child int64
		want       string
	}{
		{int64(w.mother), int64(w.masha), "200.00"},
		{int64(w.mother), int64(w.petya), "99.50"},
		{int64(w.granny), int64(w.masha), "150.00"},
	} {
		if got := one[string](w, `SELECT t.amount::text FROM ledger.threshold t JOIN ledger.account a ON a.id = t.account_id
			WHERE t.owner = $1 AND a.person_id = $2`, test.who, test.child); got != strings.ReplaceAll(test.want, ".", "") {
			t.Errorf("the threshold of %d for %d is %s, want %s", test.who, test.child, got, test.want)
		}
	}
	w.count(w.lines(file...), 0, 0, 7)
	w.count(w.lines("+79000000001,p-1,threshold,sms,now,250.00", "+79000000001,p-1,hot,push,now,"), 1, 1, 0)
	if got := w.threshold(w.mother, w.masha); got != "250.00" {
		t.Errorf("the changed threshold is %q", got)
	}
	if n := len(w.of(w.mother, w.masha)); n != 5 {
		t.Errorf("absence deleted something: %d wishes, want 5", n)
	}
}

// What a recipient has chosen in the cabinet no import changes.
func TestAnImportLeavesWhatWasChosen(t *testing.T) {
	w := newWorld(t)
	w.count(w.lines("+79000000001,p-1,pass,sms,now,", "+79000000001,p-1,threshold,sms,now,100"), 2, 0, 0)
	w.set(w.mother, w.masha, Subscription{Pass, Push, Now})
	w.count(w.lines("+79000000001,p-1,pass,sms,now,", "+79000000001,p-1,threshold,sms,now,500",
		"+79000000001,p-2,pass,sms,now,"), 1, 0, 2)
	if got := w.of(w.mother, w.masha); !slices.Equal(got, []Subscription{{Pass, Push, Now}}) {
		t.Errorf("the chosen wishes are %v", got)
	}
	if got := w.threshold(w.mother, w.masha); got != "100.00" {
		t.Errorf("the threshold is %q", got)
	}
}

// R28: wishes listed under a phone that its owner has changed are still his; a
// line with his new phone in the same file goes before them.
func TestWishesListedUnderAFormerPhoneAreItsOwners(t *testing.T) {
	w := newWorld(t)
	w.exec(`UPDATE access.representative SET phone = '79000000011' WHERE id = $1`, w.mother)
	w.count(w.lines("+79000000001,p-1,pass,sms,now,", "+79000000001,p-1,threshold,sms,now,200"), 2, 0, 0)
	if got, want := w.of(w.mother, w.masha), []Subscription{{Pass, SMS, Now}, {Threshold, SMS, Now}}; !slices.Equal(got, want) {
		t.Errorf("the mother's wishes are %v, want %v", got, want)
	}
	w.count(w.lines("+79000000001,p-1,pass,sms,now,", "+79000000011,p-1,hot,sms,now,"), 1, 0, 0)
}

func TestEachBadLineOfSubscriptionsIsNamed(t *testing.T) {
	w := newWorld(t)
	report := w.lines(
		"+79000000001,p-1,pass,sms,now,",           // 2: good
		"112,p-1,pass,sms,now,",                    // 3
		"+79000000001,p-9,pass,sms,now,",           // 4
		"+79000000001,p-1,lunch,sms,now,",          // 5
		"+79000000001,p-1,pass,pigeon,now,",        // 6
		"+79000000001,p-1,pass,sms,hourly,",        // 7
		"+79000000001,p-1,threshold,sms,now,1,50",  // 8
		"+79000000001,p-1,threshold,sms,day,abc",   // 9
		"+79000000001,p-1,pass,sms,now,",           // 10
		"+79000000001,p-1,threshold,sms,now,100",   // 11: good
		"+79000000001,p-1,threshold,email,now,200", // 12
		"+79000000003,p-1,pass,sms,now,",           // 13: a phone that is known, of another family
		"+79000000004,p-1,pass,sms,now,",           // 14: a phone that is not
		"+79000000002,p-2,pass,sms,now,",           // 15: not of this child
	)
	want := map[int]string{
		3: "phone", 4: `"p-9" is not known`, 5: "event", 6: "channel", 7: "mode", 8: "fields", 9: "threshold", 10: "repeats line 2",
		12: "line 11", 13: "not that of a representative", 14: "not that of a representative", 15: "not that of a representative",
	}
	for _, p := range report.Problems {
		if reason, ok := want[p.Line]; !ok || !strings.Contains(p.Reason, reason) {
			t.Errorf("line %d: %s; want %q", p.Line, p.Reason, reason)
		}
		delete(want, p.Line)
	}
	if len(want) > 0 {
		t.Errorf("not named: %v", want)
	}
	if n := one[int](w, `SELECT count(*) FROM subscription.subscription`); n != 0 {
		t.Errorf("%d wishes were written all the same", n)
	}
}

// spec/notices.md, Subscriptions: a registry that says nothing of wishes leaves
// its new representatives with the first ones; the old ones are not asked.
func TestGuardiansWithoutSubscriptionsBeginWithTheFirstOnes(t *testing.T) {
	w := newWorld(t)
	guardians := guardianHeader +
		"+79000000001,,Петрова,Ольга,,ru,no,p-1,legal,2026-09-01,\n" +
		"+79000000003,,Петрова,Ольга,,ru,no,p-1,trusted,2026-09-01,\n" +
		"+79000000003,,Петрова,Ольга,,ru,no,p-2,companion,2026-09-01,\n"
	if report := w.bring(map[string]string{registry.Guardians: guardians}); !report.OK() {
		t.Fatal(report.Problems)
	}
	first := []Subscription{{Pass, SMS, Now}, {Threshold, SMS, Now}, {TopUp, SMS, Now}}
	if got := w.of(w.unknown, w.masha); !slices.Equal(got, first) {
		t.Errorf("the new trusted person begins with %v", got)
	}
	if w.threshold(w.unknown, w.masha) != "150.00" {
		t.Errorf("and the threshold %q", w.threshold(w.unknown, w.masha))
	}
	if got := w.of(w.mother, w.masha); len(got) != 0 {
		t.Errorf("the mother, who is not new, gets %v", got)
	}
	if got := w.of(w.unknown, w.petya); len(got) != 0 {
		t.Errorf("a companion gets %v", got)
	}
	// With subscriptions in the folder these are the wishes.
	report := w.bring(map[string]string{
		registry.Guardians:     guardianHeader + "+79000000004,,Серов,Олег,,ru,no,p-1,trusted,2026-09-01,\n",
		registry.Subscriptions: header + "+79000000001,p-1,hot,sms,now,\n",
	})
	w.count(report, 1, 0, 0)
	if n := one[int](w, `
		SELECT count(*) FROM subscription.subscription s JOIN access.representative r ON r.id = s.representative_id
		 WHERE r.phone = '79000000004'`); n != 0 {
		t.Errorf("somebody without a line gets %d wishes", n)
	}
}

// benchPairs is how many recipients the benchmark has, with three wishes each.
const benchPairs = 100_000

func BenchmarkImport(b *testing.B) {
	ctx := b.Context()
	dir := b.TempDir()
	file, err := os.Create(filepath.Join(dir, registry.Subscriptions))
	if err != nil {
		b.Fatal(err)
	}
	out := bufio.NewWriter(file)
	_, _ = out.WriteString(header) // Flush returns the error
	for n := range benchPairs {
		fmt.Fprintf(out, "+7900%07d,p-%d,pass,sms,now,\n+7900%07d,p-%d,topup,sms,now,\n+7900%07d,p-%d,threshold,sms,now,%d\n",
			n+1, n+1, n+1, n+1, n+1, n+1, 100+n%100)
	}
	if err := errors.Join(out.Flush(), file.Close()); err != nil {
		b.Fatal(err)
	}
	folder, err := registry.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		pool, err := pg.Open(ctx, pg.Config{URL: pgtest.NewURL(b)})
		if err != nil {
			b.Fatal(err)
		}
		for _, sql := range []string{
			`INSERT INTO ledger.organisation (id, code, kind, name, short_name, time_zone)
			 VALUES (1, 's-1', 'school', 'School', 'School', 'Europe/Moscow')`,
			`INSERT INTO ledger.person (id, code, organisation_id, kind, family_name, given_name)
			 SELECT n, 'p-' || n, 1, 'pupil', 'Петрова', 'Мария' FROM generate_series(1, $1) n`,
			`SELECT ledger.open_wallets(array_agg(n), array_agg(lpad(n::text, 9, '0'))) FROM generate_series(1, $1) n`,
			`INSERT INTO access.representative (id, phone, family_name, given_name)
			 SELECT n, 79000000000 + n, 'Петров', 'Олег' FROM generate_series(1, $1) n`,
			`INSERT INTO access.guardian (child_id, representative_id, role, since)
			 SELECT n, n, 'legal', timestamptz '2026-09-01' FROM generate_series(1, $1) n`,
			`ANALYZE`,
		} {
			var args []any
			if strings.Contains(sql, "$1") {
				args = []any{benchPairs}
			}
			if _, err := pool.Exec(ctx, sql, args...); err != nil {
				b.Fatal(err)
			}
		}
		var report registry.Report
		b.StartTimer()
		err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '10min'`); err != nil {
				return err
			}
			if err := Import(ctx, tx, folder, &report); err != nil {
				return err
			}
			return report.Err()
		})
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		pool.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(3*benchPairs*b.N)/b.Elapsed().Seconds(), "lines/s")
}
