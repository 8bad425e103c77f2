package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// PersonID is the id of a person in the register.
type PersonID int64

// OrganisationID is the id of an organisation in the register.
type OrganisationID int64

// BuildingID is the id of a building in the register.
type BuildingID int64

// PayeeCode is the registry's id of a payee.
type PayeeCode string

// Payee takes the money that is paid for meals (R8): a meal provider.
type Payee struct {
	Code PayeeCode
	Name string
	// INN is the tax number that banks show and print (R35), 10 or 12 digits.
	INN string
	// PaymentCode is what a payer tells the bank, such as "916" (R36).
	PaymentCode string
}

// OrganisationKind is one of the three kinds of organisations (R7).
type OrganisationKind string

// The kinds of organisations.
const (
	School       OrganisationKind = "school"
	College      OrganisationKind = "college"
	Kindergarten OrganisationKind = "kindergarten"
)

// ClockTime is a time of day on an organisation's clock, counted from its midnight.
type ClockTime time.Duration

// On returns this time of day on the day of day, in its location. A time that
// the clock skips or repeats on that day is moved as time.Date does.
func (c ClockTime) On(day time.Time) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), 0, 0, int(time.Duration(c)/time.Second), 0, day.Location())
}

// Organisation is a school, college or kindergarten, with its settings.
type Organisation struct {
	ID        OrganisationID
	Code      string
	Kind      OrganisationKind
	Name      string
	ShortName string
	// Payee is whom its meals are paid to; empty when nobody is.
	Payee PayeeCode
	// Location is the time zone in which its days and hours are meant.
	Location *time.Location
	// AccountPrefix are the leading digits of account numbers made here (D4).
	AccountPrefix string
	// DebtFloor is how deep a hot meal may take a wallet, zero or below (D11).
	DebtFloor money.Amount
	// PassLife is how long "just entered" is news (D6).
	PassLife time.Duration
	// SamePass is within what time the same card and direction is one passage (D8).
	SamePass time.Duration
	// CloseAt is when a day's visits are closed (D8).
	CloseAt ClockTime
	// QuietFrom and QuietUntil bound the quiet hours (D7); equal times mean none.
	QuietFrom, QuietUntil ClockTime
	// DigestAt is when digests are made.
	DigestAt ClockTime
	// MergeWait is how long a message to a phone of several children waits for a sibling.
	MergeWait time.Duration
	// LeaveWait is how long "left" waits for an entry to a sister building.
	LeaveWait time.Duration
	// CompanionAge is the youngest companion who may collect a child, in years (D10).
	CompanionAge int
}

// Building is one house of an organisation; doors and tills stand in buildings.
type Building struct {
	ID           BuildingID
	Code         string
	Organisation OrganisationID
	Address      string
}

// PersonKind tells pupils from staff.
type PersonKind string

// The kinds of people.
const (
	Pupil PersonKind = "pupil" // a pupil, a student, a child of a kindergarten (R3)
	Staff PersonKind = "staff" // R4
)

// Benefit is which meals the city pays for.
type Benefit string

// The benefits.
const (
	NoBenefit        Benefit = "none"
	BreakfastBenefit Benefit = "breakfast"
	LunchBenefit     Benefit = "lunch"
	FullBenefit      Benefit = "full"
)

// Person is a pupil or a member of staff. It holds personal data and must not
// be logged whole; its ID may.
type Person struct {
	ID           PersonID
	Code         string
	Organisation OrganisationID
	Kind         PersonKind
	FamilyName   string
	GivenName    string
	Patronymic   string
	// Group is the class or the kindergarten group.
	Group   string
	Benefit Benefit
	// LeftOn is the first day on which the person no longer belongs to the
	// organisation; zero while they do.
	LeftOn time.Time
}

// People returns those of the people that are in the register.
func People(ctx context.Context, q pg.Querier, ids []PersonID) (map[PersonID]Person, error) {
	rows, err := q.Query(ctx, `
		SELECT id, code, organisation_id, kind, family_name, given_name, patronymic, group_name, benefit,
		       coalesce(left_on, '0001-01-01')
		  FROM ledger.person
		 WHERE id = ANY ($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("read people: %w", err)
	}
	people := make(map[PersonID]Person, len(ids))
	var p Person
	if _, err := pgx.ForEachRow(rows, []any{
		&p.ID, &p.Code, &p.Organisation, &p.Kind, &p.FamilyName, &p.GivenName, &p.Patronymic, &p.Group, &p.Benefit,
		&p.LeftOn,
	}, func() error {
		people[p.ID] = p
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read people: %w", err)
	}
	return people, nil
}

// PeopleByCode returns the ids of those of the registry's people that are in the register.
func PeopleByCode(ctx context.Context, q pg.Querier, codes []string) (map[string]PersonID, error) {
	return byCode[PersonID](ctx, q, "people", `SELECT code, id FROM ledger.person WHERE code = ANY ($1)`, codes)
}

// BuildingsByCode returns the ids of those of the registry's buildings that are in the register.
func BuildingsByCode(ctx context.Context, q pg.Querier, codes []string) (map[string]BuildingID, error) {
	return byCode[BuildingID](ctx, q, "buildings", `SELECT code, id FROM ledger.building WHERE code = ANY ($1)`, codes)
}

// OrganisationsByCode returns the ids of those of the registry's organisations that are in the register.
func OrganisationsByCode(ctx context.Context, q pg.Querier, codes []string) (map[string]OrganisationID, error) {
	return byCode[OrganisationID](ctx, q, "organisations",
		`SELECT code, id FROM ledger.organisation WHERE code = ANY ($1)`, codes)
}

func byCode[ID ~int64](ctx context.Context, q pg.Querier, what, query string, codes []string) (map[string]ID, error) {
	rows, err := q.Query(ctx, query, codes)
	if err != nil {
		return nil, fmt.Errorf("look up %s by code: %w", what, err)
	}
	ids := make(map[string]ID, len(codes))
	var code string
	var id ID
	if _, err := pgx.ForEachRow(rows, []any{&code, &id}, func() error {
		ids[code] = id
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look up %s by code: %w", what, err)
	}
	return ids, nil
}

// Organisations returns those of the organisations that are in the register,
// or all of them when ids is nil.
func Organisations(ctx context.Context, q pg.Querier, ids []OrganisationID) (map[OrganisationID]Organisation, error) {
	rows, err := q.Query(ctx, `
		SELECT id, code, kind, name, short_name, coalesce(payee_code, ''), time_zone, account_prefix, debt_floor,
		       pass_life, same_pass, close_at - time '00:00', quiet_from - time '00:00', quiet_until - time '00:00',
		       digest_at - time '00:00', merge_wait, leave_wait, companion_age
		  FROM ledger.organisation
		 WHERE $1::bigint[] IS NULL OR id = ANY ($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("read organisations: %w", err)
	}
	organisations := make(map[OrganisationID]Organisation, len(ids))
	var o Organisation
	var zone string
	if _, err := pgx.ForEachRow(rows, []any{
		&o.ID, &o.Code, &o.Kind, &o.Name, &o.ShortName, &o.Payee, &zone, &o.AccountPrefix, &o.DebtFloor,
		&o.PassLife, &o.SamePass, (*time.Duration)(&o.CloseAt), (*time.Duration)(&o.QuietFrom),
		(*time.Duration)(&o.QuietUntil), (*time.Duration)(&o.DigestAt), &o.MergeWait, &o.LeaveWait, &o.CompanionAge,
	}, func() error {
		location, err := time.LoadLocation(zone)
		if err != nil {
			return fmt.Errorf("organisation %d: %w", o.ID, err)
		}
		o.Location = location
		organisations[o.ID] = o
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read organisations: %w", err)
	}
	return organisations, nil
}

// Buildings returns those of the buildings that are in the register, or all of
// them when ids is nil.
func Buildings(ctx context.Context, q pg.Querier, ids []BuildingID) (map[BuildingID]Building, error) {
	rows, err := q.Query(ctx, `
		SELECT id, code, organisation_id, address
		  FROM ledger.building
		 WHERE $1::bigint[] IS NULL OR id = ANY ($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("read buildings: %w", err)
	}
	buildings := make(map[BuildingID]Building, len(ids))
	var b Building
	if _, err := pgx.ForEachRow(rows, []any{&b.ID, &b.Code, &b.Organisation, &b.Address}, func() error {
		buildings[b.ID] = b
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read buildings: %w", err)
	}
	return buildings, nil
}

// Payees returns all payees by their codes.
func Payees(ctx context.Context, q pg.Querier) (map[PayeeCode]Payee, error) {
	rows, err := q.Query(ctx, `SELECT code, name, inn, payment_code FROM ledger.payee`)
	if err != nil {
		return nil, fmt.Errorf("read payees: %w", err)
	}
	payees := map[PayeeCode]Payee{}
	var p Payee
	if _, err := pgx.ForEachRow(rows, []any{&p.Code, &p.Name, &p.INN, &p.PaymentCode}, func() error {
		payees[p.Code] = p
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read payees: %w", err)
	}
	return payees, nil
}

// Lengths of an account number in digits (R30).
const (
	minAccountDigits = 8
	maxAccountDigits = 10
)

// ErrAccountsExhausted says that no account number is left under a prefix.
var ErrAccountsExhausted = errors.New("no account number is left under this prefix")

// ValidAccountNumber tells whether a text is an account number: 8 to 10 digits
// of which the last is the Luhn check digit (D4, ISO/IEC 7812-1 annex B).
func ValidAccountNumber(number string) bool {
	if len(number) < minAccountDigits || len(number) > maxAccountDigits || !digits(number) {
		return false
	}
	last := len(number) - 1
	return number[last] == luhn(number[:last])
}

// NewAccountNumber makes the number of a serial, which counts from 1, under a
// prefix of digits: prefix, serial, check digit. It has 8 digits while the
// serial fits, then 9, then 10; after that it returns ErrAccountsExhausted. Two
// serials of one prefix never have the same number, but one prefix may begin
// with another, so the numbers of two prefixes may meet.
func NewAccountNumber(prefix string, serial int64) (string, error) {
	if !digits(prefix) {
		return "", fmt.Errorf("an account prefix has digits only, not %q", prefix)
	}
	if serial < 1 {
		return "", fmt.Errorf("account serials count from 1, not %d", serial)
	}
	text := strconv.FormatInt(serial, 10)
	zeros := max(0, minAccountDigits-1-len(prefix)-len(text))
	body := prefix + strings.Repeat("0", zeros) + text
	if len(body) >= maxAccountDigits {
		return "", fmt.Errorf("prefix %q, serial %d: %w", prefix, serial, ErrAccountsExhausted)
	}
	return body + string(luhn(body)), nil
}

func digits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

// luhn returns the check digit of a body of digits.
func luhn(body string) byte {
	sum := 0
	for i := range len(body) {
		digit := int(body[len(body)-1-i] - '0')
		if i%2 == 0 { // every second digit, from the one beside the check digit
			if digit *= 2; digit > 9 {
				digit -= 9
			}
		}
		sum += digit
	}
	return byte('0' + (10-sum%10)%10)
}

// TakeAccountNumbers takes unused account numbers for organisations, as many
// for each as wanted says. Numbers that are in use already, given from outside
// or made under a longer prefix, are passed over. It locks the organisations
// until the transaction ends, so that no number is taken twice. An organisation
// without a prefix, or with none left, is an error that names it.
func TakeAccountNumbers(
	ctx context.Context, tx pgx.Tx, wanted map[OrganisationID]int,
) (map[OrganisationID][]string, error) {
	ids := make([]OrganisationID, 0, len(wanted))
	for id := range wanted {
		ids = append(ids, id)
	}
	rows, err := tx.Query(ctx, `
		SELECT id, code, account_prefix, account_serial
		  FROM ledger.organisation
		 WHERE id = ANY ($1)
		 ORDER BY id
		   FOR NO KEY UPDATE`, ids)
	if err != nil {
		return nil, fmt.Errorf("take account numbers: %w", err)
	}
	type numberRange struct {
		id           OrganisationID
		code, prefix string
		serial       int64
	}
	ranges, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r numberRange, err error) {
		err = row.Scan(&r.id, &r.code, &r.prefix, &r.serial)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("take account numbers: %w", err)
	}
	if len(ranges) != len(wanted) {
		return nil, fmt.Errorf("take account numbers: %d of %d organisations are not known",
			len(wanted)-len(ranges), len(wanted))
	}
	taken := make(map[OrganisationID][]string, len(wanted))
	owner := map[string]OrganisationID{} // of every number looked at, since prefixes may meet
	for {
		var candidates []string
		for i := range ranges {
			r := &ranges[i]
			for range wanted[r.id] - len(taken[r.id]) {
				r.serial++
				number, err := NewAccountNumber(r.prefix, r.serial)
				if err != nil {
					return nil, fmt.Errorf("take account numbers for organisation %s: %w", r.code, err)
				}
				if _, met := owner[number]; !met {
					owner[number] = r.id
					candidates = append(candidates, number)
				}
			}
		}
		if len(candidates) == 0 {
			break
		}
		used, err := usedAccountNumbers(ctx, tx, candidates)
		if err != nil {
			return nil, err
		}
		for _, number := range candidates {
			if !used[number] {
				id := owner[number]
				taken[id] = append(taken[id], number)
			}
		}
	}
	serials := make([]int64, len(ranges))
	for i, r := range ranges {
		ids[i], serials[i] = r.id, r.serial
	}
	if _, err := tx.Exec(ctx, `
		UPDATE ledger.organisation o
		   SET account_serial = n.serial
		  FROM unnest($1::bigint[], $2::bigint[]) AS n (id, serial)
		 WHERE o.id = n.id`, ids, serials); err != nil {
		return nil, fmt.Errorf("take account numbers: %w", err)
	}
	return taken, nil
}

func usedAccountNumbers(ctx context.Context, q pg.Querier, numbers []string) (map[string]bool, error) {
	rows, err := q.Query(ctx, `
		SELECT a.number
		  FROM unnest($1::text[]) AS n (number)
		  JOIN ledger.account a ON a.number = n.number`, numbers)
	if err != nil {
		return nil, fmt.Errorf("look for account numbers in use: %w", err)
	}
	used := map[string]bool{}
	var number string
	if _, err := pgx.ForEachRow(rows, []any{&number}, func() error {
		used[number] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look for account numbers in use: %w", err)
	}
	return used, nil
}
