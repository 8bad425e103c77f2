package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"zvonok/ledger"
	"zvonok/ledger/pg/pgtest"
)

// R30, D4.
func TestAnAccountNumberIsEightToTenDigitsWithALuhnDigit(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		sentence string
		number   string
		want     bool
	}{
		{"the sample of the documents", "00101519", true},
		{"nine digits", "001015197", true},
		{"ten digits with a wrong one", "0010151901", false},
		{"ten digits with the right check digit", "0010151900", true},
		{"a wrong check digit", "00101510", false},
		{"two neighbouring digits swapped", "00105119", false},
		{"seven digits", "0010157", false},
		{"eleven digits", "00101519846", false},
		{"a letter", "0010151O", false},
		{"a space in front", " 0010151", false},
		{"digits of another script", "٠٠١٠١٥١٩", false},
		{"nothing", "", false},
	} {
		if got := ledger.ValidAccountNumber(row.number); got != row.want {
			t.Errorf("%s, %q: valid is %v; want %v", row.sentence, row.number, got, row.want)
		}
	}
}

func TestNewAccountNumbersAreValidAndNeverRepeat(t *testing.T) {
	t.Parallel()
	if number, err := ledger.NewAccountNumber("0010", 151); err != nil || number != "00101519" {
		t.Fatalf("prefix 0010, serial 151 gave %q, %v; want the sample 00101519", number, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.StringMatching(`[0-9]{1,6}`).Draw(t, "prefix")
		serials := rapid.SliceOfNDistinct(rapid.Int64Range(1, 999), 2, 2, rapid.ID).Draw(t, "serials")
		var numbers []string
		for _, serial := range serials {
			number, err := ledger.NewAccountNumber(prefix, serial)
			if err != nil {
				t.Fatal(err)
			}
			if !ledger.ValidAccountNumber(number) || !strings.HasPrefix(number, prefix) {
				t.Fatalf("prefix %s, serial %d gave %s", prefix, serial, number)
			}
			numbers = append(numbers, number)
		}
		if numbers[0] == numbers[1] {
			t.Fatalf("prefix %s, serials %v gave the same number %s", prefix, serials, numbers[0])
		}
	})
}

func TestAccountNumbersGrowAndThenRunOut(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		serial int64
		digits int
	}{{1, 8}, {999, 8}, {1000, 9}, {9999, 9}, {10000, 10}, {99999, 10}} {
		if number, err := ledger.NewAccountNumber("1234", row.serial); err != nil || len(number) != row.digits {
			t.Errorf("serial %d gave %q, %v; want %d digits", row.serial, number, err, row.digits)
		}
	}
	if _, err := ledger.NewAccountNumber("1234", 100000); !errors.Is(err, ledger.ErrAccountsExhausted) {
		t.Errorf("serial 100000 gave the error %v", err)
	}
	for prefix, serial := range map[string]int64{"": 1, "12a": 1, "12": 0, "13": -1} {
		if number, err := ledger.NewAccountNumber(prefix, serial); err == nil {
			t.Errorf("prefix %q, serial %d gave %q; want an error", prefix, serial, number)
		}
	}
}

func TestNumbersInUseArePassedOverAndNoneIsTakenTwice(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	used, err := ledger.NewAccountNumber("12", 2)
	if err != nil {
		t.Fatal(err)
	}
	importFiles(t, pool, map[string]string{
		"organisations.csv": "org_id,kind,name,short_name,payee_id,time_zone,account_prefix\n" +
			"s1,school,School 1,S 1,,Europe/Moscow,12\ns2,school,School 2,S 2,,Europe/Moscow,12\n",
		"people.csv": peopleHeader + "p1,s1,pupil,Иванова,Анна,,1А,none," + used + ",\n",
	})
	ids, err := ledger.OrganisationsByCode(t.Context(), pool, []string{"s1", "s2"})
	if err != nil {
		t.Fatal(err)
	}
	var taken []string
	// Two organisations share a prefix, so their serials meet.
	for range 2 {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			numbers, err := ledger.TakeAccountNumbers(t.Context(), tx, map[ledger.OrganisationID]int{ids["s1"]: 3, ids["s2"]: 2})
			if err != nil {
				return err
			}
			if len(numbers[ids["s1"]]) != 3 || len(numbers[ids["s2"]]) != 2 {
				return fmt.Errorf("got %v", numbers)
			}
			for _, own := range numbers {
				taken = append(taken, own...)
			}
			openFor(t, tx, ids["s1"], taken[len(taken)-5:])
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(taken)
	if len(slices.Compact(slices.Clone(taken))) != 10 || slices.Contains(taken, used) {
		t.Fatalf("the numbers taken are %v; want ten different ones without %s", taken, used)
	}
}

// openFor opens wallets of the given numbers for new people.
func openFor(t *testing.T, tx pgx.Tx, organisation ledger.OrganisationID, numbers []string) {
	t.Helper()
	var openings []ledger.WalletOpening
	for _, number := range numbers {
		opening := ledger.WalletOpening{Number: number}
		if err := tx.QueryRow(t.Context(), `
			INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
			VALUES ($1, $2, 'pupil', 'Петров', 'Пётр') RETURNING id`, "of-"+number, organisation).Scan(&opening.Person); err != nil {
			t.Fatal(err)
		}
		openings = append(openings, opening)
	}
	if err := ledger.OpenWallets(t.Context(), tx, openings); err != nil {
		t.Fatal(err)
	}
}

func TestAnOrganisationWithoutPrefixHasNoNumbersToTake(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	importFiles(t, pool, map[string]string{
		"organisations.csv": "org_id,kind,name,short_name,payee_id,time_zone,account_prefix\n" +
			"s1,school,School 1,S 1,,Europe/Moscow,\n",
	})
	ids, err := ledger.OrganisationsByCode(t.Context(), pool, []string{"s1"})
	if err != nil {
		t.Fatal(err)
	}
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := ledger.TakeAccountNumbers(t.Context(), tx, map[ledger.OrganisationID]int{ids["s1"]: 1})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "s1") {
		t.Fatalf("the error is %v; want one that names the organisation", err)
	}
}

func TestTheRegisterIsReadBackInSets(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	importFiles(t, pool, city())
	ctx := t.Context()

	people, err := ledger.PeopleByCode(ctx, pool, []string{"p1", "p3", "nobody"})
	if err != nil || len(people) != 2 {
		t.Fatalf("found %v, %v; want p1 and p3", people, err)
	}
	read, err := ledger.People(ctx, pool, []ledger.PersonID{people["p1"], people["p3"], -1})
	if err != nil || len(read) != 2 {
		t.Fatalf("read %d people, %v; want 2", len(read), err)
	}
	organisations, err := ledger.Organisations(ctx, pool, nil)
	if err != nil || len(organisations) != 2 {
		t.Fatalf("read %d organisations, %v; want 2", len(organisations), err)
	}
	p1, p3 := read[people["p1"]], read[people["p3"]]
	if p1.FamilyName != "Иванова" || p1.GivenName != "Мария" || p1.Patronymic != "Петровна" || p1.Group != "1А" ||
		p1.Kind != ledger.Pupil || p1.Benefit != ledger.BreakfastBenefit || !p1.LeftOn.IsZero() {
		t.Errorf("p1 is read as %+v", p1)
	}
	if p3.Kind != ledger.Staff || p3.Benefit != ledger.NoBenefit || p3.LeftOn.Format(time.DateOnly) != "2026-06-30" {
		t.Errorf("p3 is read as %+v", p3)
	}
	school := organisations[p1.Organisation]
	if school.Code != "s1" || school.Payee != "kp" || school.Location.String() != "Europe/Moscow" ||
		school.AccountPrefix != "0010" {
		t.Errorf("the school is read as %+v", school)
	}
	// The defaults of D6, D7, D8, D10, D11.
	if school.DebtFloor != -30000 || school.PassLife != 15*time.Minute || school.SamePass != time.Minute ||
		time.Duration(school.CloseAt) != 22*time.Hour || time.Duration(school.QuietFrom) != 21*time.Hour ||
		time.Duration(school.QuietUntil) != 8*time.Hour || time.Duration(school.DigestAt) != 19*time.Hour ||
		school.MergeWait != 0 || school.LeaveWait != 0 || school.CompanionAge != 18 {
		t.Errorf("the school's settings are %+v", school)
	}
	closing := school.CloseAt.On(time.Date(2026, 11, 22, 12, 0, 0, 0, school.Location))
	if want := "2026-11-22T22:00:00+03:00"; closing.Format(time.RFC3339) != want {
		t.Errorf("the day is closed at %s; want %s", closing.Format(time.RFC3339), want)
	}
	codes, err := ledger.BuildingsByCode(ctx, pool, []string{"b1"})
	if err != nil {
		t.Fatal(err)
	}
	buildings, err := ledger.Buildings(ctx, pool, []ledger.BuildingID{codes["b1"]})
	if err != nil || buildings[codes["b1"]].Organisation != school.ID || buildings[codes["b1"]].Address != "Садовая ул., 1" {
		t.Errorf("the building is read as %+v, %v", buildings, err)
	}
	payees, err := ledger.Payees(ctx, pool)
	if err != nil || payees["kp"].INN != "7723862777" || payees["kp"].PaymentCode != "916" {
		t.Errorf("the payees are read as %+v, %v", payees, err)
	}
}
