package ledger_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger"
	"zvonok/ledger/pg/pgtest"
	"zvonok/ledger/registry"
)

const (
	payeesHeader        = "payee_id,name,inn,payment_code\n"
	organisationsHeader = "org_id,kind,name,short_name,payee_id,time_zone,account_prefix\n"
	buildingsHeader     = "building_id,org_id,address\n"
	peopleHeader        = "person_id,org_id,kind,family_name,given_name,patronymic,group,benefit,account,left\n"
)

// city is a small registry without mistakes.
func city() map[string]string {
	return map[string]string{
		"payees.csv": payeesHeader + "kp,Комбинат питания,7723862777,916\n",
		"organisations.csv": organisationsHeader +
			"s1,school,Школа № 1,Школа 1,kp,Europe/Moscow,0010\n" +
			"k1,kindergarten,Детский сад № 2,Сад 2,,Asia/Yekaterinburg,77\n",
		"buildings.csv": buildingsHeader + "b1,s1,\"Садовая ул., 1\"\nb2,k1,\"Садовая ул., 2\"\n",
		"people.csv": peopleHeader +
			"p1,s1,pupil,Иванова,Мария,Петровна,1А,breakfast,00101519,\n" +
			"p2,s1,pupil,Иванов,Пётр,Петрович,3Б,none,,\n" +
			"p3,s1,staff,Сидорова,Ольга,,,,,2026-06-30\n" +
			"p4,k1,pupil,Ким,Ан,,младшая,full,,\n",
	}
}

func folder(t testing.TB, files map[string]string) *registry.Folder {
	t.Helper()
	memory := fstest.MapFS{}
	for name, text := range files {
		memory[name] = &fstest.MapFile{Data: []byte(text)}
	}
	opened, err := registry.OpenFS(memory)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func importFiles(t testing.TB, pool *pgxpool.Pool, files map[string]string) *registry.Report {
	t.Helper()
	report, err := registry.Run(t.Context(), pool, folder(t, files), ledger.ImportRegister)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func counts(report *registry.Report) string {
	var text []string
	for _, c := range report.Counts {
		text = append(text, fmt.Sprintf("%s +%d ~%d =%d", c.File, c.Added, c.Changed, c.Left))
	}
	return strings.Join(text, ", ")
}

func TestARegistryIsImportedAndImportedAgain(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	files := city()
	want := "payees.csv +1 ~0 =0, organisations.csv +2 ~0 =0, buildings.csv +2 ~0 =0, people.csv +4 ~0 =0"
	if got := counts(importFiles(t, pool, files)); got != want {
		t.Fatalf("the first import did %s; want %s", got, want)
	}
	want = "payees.csv +0 ~0 =1, organisations.csv +0 ~0 =2, buildings.csv +0 ~0 =2, people.csv +0 ~0 =4"
	if got := counts(importFiles(t, pool, files)); got != want {
		t.Fatalf("the same again did %s; want %s", got, want)
	}
	// One row of each file changes, one person comes, nobody goes by absence.
	changed := map[string]string{
		"payees.csv":        payeesHeader + "kp,Комбинат питания,7723862777,917\n",
		"organisations.csv": organisationsHeader + "s1,school,Школа № 1,Школа 1,,Europe/Moscow,0010\n",
		"buildings.csv":     buildingsHeader + "b1,s1,\"Садовая ул., 11\"\n",
		"people.csv": peopleHeader + "p5,k1,pupil,Цой,Ян,,старшая,none,,\n" +
			"p2,k1,pupil,Иванов,Пётр,Петрович,3Б,none,,2026-08-31\n",
	}
	want = "payees.csv +0 ~1 =0, organisations.csv +0 ~1 =0, buildings.csv +0 ~1 =0, people.csv +1 ~1 =0"
	if got := counts(importFiles(t, pool, changed)); got != want {
		t.Fatalf("the changes did %s; want %s", got, want)
	}
	ids, err := ledger.PeopleByCode(t.Context(), pool, []string{"p1", "p2", "p3", "p4", "p5"})
	if err != nil || len(ids) != 5 {
		t.Fatalf("there are %d people, %v; want 5", len(ids), err)
	}
	people, err := ledger.People(t.Context(), pool, slices.Collect(maps.Values(ids)))
	if err != nil {
		t.Fatal(err)
	}
	p2 := people[ids["p2"]]
	if p2.Organisation != people[ids["p4"]].Organisation || p2.LeftOn.Format(time.DateOnly) != "2026-08-31" {
		t.Errorf("p2 is now %+v; want moved to the kindergarten and left", p2)
	}
}

// D4, R30.
func TestEveryoneGetsAWalletWithTheGivenOrAMadeNumber(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	importFiles(t, pool, city())
	read := func() map[string]string {
		ids, err := ledger.PeopleByCode(t.Context(), pool, []string{"p1", "p2", "p3", "p4", "p5"})
		if err != nil {
			t.Fatal(err)
		}
		balances, err := ledger.Balances(t.Context(), pool, slices.Collect(maps.Values(ids)))
		if err != nil {
			t.Fatal(err)
		}
		numbers := map[string]string{}
		for code, id := range ids {
			numbers[code] = balances[id].Number
		}
		return numbers
	}
	first := read()
	want := map[string]string{"p1": "00101519", "p2": "00100016", "p3": "00100024", "p4": "77000016"}
	if !maps.Equal(first, want) {
		t.Fatalf("the numbers are %v; want %v", first, want)
	}
	more := map[string]string{"people.csv": peopleHeader +
		"p1,s1,pupil,Иванова,Мария,Петровна,2А,none,,\n" + // empty keeps what is there
		"p2,s1,pupil,Иванов,Пётр,Петрович,4Б,none,00100016,\n" + // the same is the same
		"p5,s1,pupil,Новая,Нина,,1А,none,,\n"}
	importFiles(t, pool, more)
	want["p5"] = "00100032"
	if second := read(); !maps.Equal(second, want) {
		t.Fatalf("the numbers are %v after a second import; want %v", second, want)
	}
}

func TestEveryBadLineOfTheRegisterIsNamedAndNothingIsImported(t *testing.T) {
	t.Parallel()
	const (
		goodPayee  = payeesHeader + "kp,Комбинат питания,7723862777,916\n"
		goodSchool = organisationsHeader + "s1,school,Школа 1,Ш1,,Europe/Moscow,0010\n"
	)
	for _, row := range []struct {
		sentence string
		files    map[string]string
		want     []string
	}{
		{
			"a tax number with a wrong check digit",
			map[string]string{"payees.csv": payeesHeader + "kp,Комбинат,7723862778,916\n"},
			[]string{`payees.csv line 2: inn "7723862778" must be a tax number: 10 or 12 digits with right check digits`},
		},
		{
			"a payment code with letters",
			map[string]string{"payees.csv": payeesHeader + "kp,Комбинат,7723862777,91a\n"},
			[]string{`payees.csv line 2: payment_code "91a" must be 1 to 10 digits`},
		},
		{
			"a payment code given twice",
			map[string]string{"payees.csv": goodPayee + "kp2,Второй,500100732259,916\n"},
			[]string{`payees.csv line 3: payment_code "916" stands in line 2 already`},
		},
		{
			"an organisation of no kind, without a name, in no zone, with a long prefix",
			map[string]string{"organisations.csv": organisationsHeader + "s1,lyceum,,Ш1,,Moscow,1234567\n"},
			[]string{
				`organisations.csv line 2: kind "lyceum" must be one of school, college, kindergarten`,
				"organisations.csv line 2: name is empty",
				`organisations.csv line 2: time_zone "Moscow" must be a time zone like Europe/Moscow`,
				`organisations.csv line 2: account_prefix "1234567" must be up to 6 digits`,
			},
		},
		{
			"the machine's own zone",
			map[string]string{"organisations.csv": organisationsHeader + "s1,school,Школа 1,Ш1,,Local,0010\n"},
			[]string{`organisations.csv line 2: time_zone "Local" must be a time zone like Europe/Moscow`},
		},
		{
			"an organisation whose payee is not known",
			map[string]string{"organisations.csv": organisationsHeader + "s1,school,Школа 1,Ш1,kp,Europe/Moscow,0010\n"},
			[]string{`organisations.csv line 2: payee_id "kp" is not known`},
		},
		{
			"a building of an unknown organisation",
			map[string]string{"organisations.csv": goodSchool, "buildings.csv": buildingsHeader + "b1,s1,ул. 1\nb2,s2,ул. 2\n"},
			[]string{`buildings.csv line 3: org_id "s2" is not known`},
		},
		{
			"a person of an unknown organisation",
			map[string]string{"people.csv": peopleHeader + "p1,x,pupil,А,Б,,,none,00101519,\n"},
			[]string{`people.csv line 2: org_id "x" is not known`},
		},
		{
			"an account number that fails Luhn (D4)",
			map[string]string{"organisations.csv": goodSchool, "people.csv": peopleHeader + "p1,s1,pupil,А,Б,,,none,00101510,\n"},
			[]string{`people.csv line 2: account "00101510" must be 8 to 10 digits, the last of them the Luhn check digit`},
		},
		{
			"a person and an account given twice",
			map[string]string{"organisations.csv": goodSchool, "people.csv": peopleHeader +
				"p1,s1,pupil,А,Б,,,none,00101519,\np2,s1,pupil,В,Г,,,none,00101519,\np1,s1,pupil,Д,Е,,,none,,\n"},
			[]string{
				`people.csv line 4: person_id "p1" stands in line 2 already`,
				`people.csv line 3: account "00101519" stands in line 2 already`,
			},
		},
		{
			"an account to be made without a prefix",
			map[string]string{
				"organisations.csv": organisationsHeader + "s1,school,Школа 1,Ш1,,Europe/Moscow,\n",
				"people.csv":        peopleHeader + "p1,s1,pupil,А,Б,,,none,,\n",
			},
			[]string{`people.csv line 2: account is empty and organisation "s1" has no account_prefix to make one`},
		},
		{
			"a bad date, an unknown benefit, no name",
			map[string]string{"organisations.csv": goodSchool, "people.csv": peopleHeader + "p1,s1,pupil,,Б,,,dinner,,31.08.2026\n"},
			[]string{
				"people.csv line 2: family_name is empty",
				`people.csv line 2: left "31.08.2026" must be a date like 2026-11-22`,
				`people.csv line 2: benefit "dinner" must be one of none, breakfast, lunch, full`,
			},
		},
		{
			"a teacher whose meals the city pays",
			map[string]string{"organisations.csv": goodSchool, "people.csv": peopleHeader + "p1,s1,staff,А,Б,,,full,,\n"},
			[]string{`people.csv line 2: benefit "full" must be none: the city pays for pupils`},
		},
		{
			"what refers to a bad line is not blamed",
			map[string]string{
				"organisations.csv": organisationsHeader + "s1,school,Школа 1,Ш1,,Nowhere,0010\n",
				"people.csv":        peopleHeader + "p1,s1,pupil,А,Б,,,none,,\n",
			},
			[]string{`organisations.csv line 2: time_zone "Nowhere" must be a time zone like Europe/Moscow`},
		},
		{
			"one bad line among good files",
			map[string]string{
				"payees.csv": goodPayee, "organisations.csv": goodSchool,
				"people.csv": peopleHeader + "p1,s1,pupil,А,Б,,,none,,\np2,s1,visitor,В,Г,,,none,,\n",
			},
			[]string{`people.csv line 3: kind "visitor" must be one of pupil, staff`},
		},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			report, err := registry.Run(t.Context(), pool, folder(t, row.files), ledger.ImportRegister)
			if !errors.Is(err, registry.ErrProblems) {
				t.Fatalf("the error is %v; want ErrProblems", err)
			}
			var got []string
			for _, problem := range report.Problems {
				got = append(got, problem.String())
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("the problems are %q; want %q", got, row.want)
			}
			if len(report.Counts) != 0 {
				t.Errorf("the report counts %v, though nothing was imported", report.Counts)
			}
			var left int
			if err := pool.QueryRow(t.Context(), `
				SELECT (SELECT count(*) FROM ledger.payee) + (SELECT count(*) FROM ledger.organisation) +
				       (SELECT count(*) FROM ledger.building) + (SELECT count(*) FROM ledger.person) +
				       (SELECT count(*) FROM ledger.account WHERE kind = 'wallet')`).Scan(&left); err != nil || left != 0 {
				t.Errorf("%d rows were left behind, %v; want none", left, err)
			}
		})
	}
}

func TestAnAccountNumberStaysWithItsPerson(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	importFiles(t, pool, city())
	report, err := registry.Run(t.Context(), pool, folder(t, map[string]string{
		"payees.csv": payeesHeader + "other,Другой,500100732259,916\n",
		"people.csv": peopleHeader +
			"p1,s1,pupil,Иванова,Мария,,1А,none,77000024,\n" +
			"p9,s1,pupil,Чужой,Сам,,1А,none,00100016,\n",
	}), ledger.ImportRegister)
	if !errors.Is(err, registry.ErrProblems) {
		t.Fatalf("the error is %v; want ErrProblems", err)
	}
	want := []registry.Problem{
		{File: "payees.csv", Line: 2, Reason: `payment_code "916" belongs to payee "kp"`},
		{File: "people.csv", Line: 3, Reason: `account "00100016" belongs to person "p2"`},
		{File: "people.csv", Line: 2, Reason: `account "77000024" cannot replace "00101519": a number once given stays`},
	}
	if !slices.Equal(report.Problems, want) {
		t.Fatalf("the problems are %q; want %q", report.Problems, want)
	}
}

func TestTwoPayeesMaySwapTheirPaymentCodes(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	importFiles(t, pool, map[string]string{"payees.csv": payeesHeader + "a,А,7723862777,1\nb,Б,500100732259,2\n"})
	importFiles(t, pool, map[string]string{"payees.csv": payeesHeader + "a,А,7723862777,2\nb,Б,500100732259,1\n"})
	payees, err := ledger.Payees(t.Context(), pool)
	if err != nil || payees["a"].PaymentCode != "2" || payees["b"].PaymentCode != "1" {
		t.Fatalf("the payees are %+v, %v", payees, err)
	}
}

// crowd is a file of n people in a hundred schools.
func crowd(n int) string {
	var b strings.Builder
	b.WriteString(peopleHeader)
	for i := range n {
		fmt.Fprintf(&b, "p%d,s%d,pupil,Фамилия%d,Имя%d,Отчество%d,%d%c,none,,\n",
			i, i%100, i%1000, i%300, i%200, 1+i%11, 'A'+rune(i%5))
	}
	return b.String()
}

// BenchmarkImport imports a city of 400,000 people into an empty database, and
// then the same again.
//
//	go test -run xxx -bench Import -benchtime 1x ./ledger
func BenchmarkImport(b *testing.B) {
	var organisations strings.Builder
	organisations.WriteString(organisationsHeader)
	for i := range 100 {
		fmt.Fprintf(&organisations, "s%d,school,Школа %d,Ш%d,,Europe/Moscow,%03d\n", i, i, i, i)
	}
	files := map[string]string{"organisations.csv": organisations.String(), "people.csv": crowd(400_000)}
	for _, run := range []string{"new", "same"} {
		b.Run(run, func(b *testing.B) {
			for range b.N {
				pool := pgtest.New(b)
				if run == "same" {
					importFiles(b, pool, files)
				}
				b.ResetTimer()
				importFiles(b, pool, files)
				b.StopTimer()
			}
		})
	}
}

// spec/practice.md: a registry that goes on listing somebody who left long ago
// does not bring the name back, not even until the next run of retention; who has
// money left keeps it, and who left lately does.
func TestARegistryDoesNotBringBackTheNamesOfThoseWhoLeftLongAgo(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), pgtest.NewURL(t)) // the owner, who may set a balance
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	importFiles(t, pool, city())
	day := func(ago int) string { return time.Now().AddDate(0, 0, -ago).Format(time.DateOnly) }
	files := city()
	files["people.csv"] = peopleHeader +
		"p1,s1,pupil,Иванова,Мария,Петровна,1А,breakfast,00101519," + day(31) + "\n" +
		"p2,s1,pupil,Иванов,Пётр,Петрович,3Б,none,," + day(31) + "\n" +
		"p4,k1,pupil,Ким,Ан,,младшая,full,," + day(27) + "\n" +
		"p9,s1,pupil,Орлов,Иван,,2А,none,," + day(400) + "\n"
	if _, err := pool.Exec(t.Context(), `UPDATE ledger.balance b SET posted = 100 FROM ledger.account a JOIN ledger.person p ON p.id = a.person_id
		WHERE a.id = b.account_id AND p.code = 'p2'`); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time as the first
		report := importFiles(t, pool, files)
		if !report.OK() {
			t.Fatal(report.Problems)
		}
		var names string
		if err := pool.QueryRow(t.Context(), `SELECT string_agg(code || ' ' || family_name || ' ' || group_name || ' ' || benefit, ', ' ORDER BY code)
			FROM ledger.person WHERE kind = 'pupil'`).Scan(&names); err != nil {
			t.Fatal(err)
		}
		if want := "p1 —  none, p2 Иванов 3Б none, p4 Ким младшая full, p9 —  none"; names != want {
			t.Errorf("the names are %s; want %s", names, want)
		}
	}
}
