package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/registry"
)

// Limits of texts in the register, in characters. Codes are limited by the registry.
const (
	maxTitle     = 300 // an organisation's or payee's full name, an address
	maxShortName = 100
	maxName      = 100 // each part of a person's name
	maxGroup     = 50
	maxPrefix    = 6 // leaves at least 999 accounts under a prefix
)

// ImportRegister imports payees, organisations, buildings and people of a
// registry folder, and opens a wallet for each new person, numbered as the
// column account says or, where it is empty, under the organisation's prefix
// (D4). It is a registry.Import.
//
// An account number once given stays: a line that would change it is a problem.
func ImportRegister(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
	i := &registerImport{tx: tx, folder: folder, report: report}
	for _, step := range []func(context.Context) error{
		i.stagePayees, i.stageOrganisations, i.stageBuildings, i.stagePeople,
		i.checkPayees, i.checkOrganisations, i.checkBuildings, i.checkPeople,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("import the register: %w", err)
		}
	}
	if !report.OK() {
		return nil
	}
	for _, step := range []func(context.Context) error{
		i.mergePayees, i.mergeOrganisations, i.mergeBuildings, i.mergePeople, i.openWallets,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("import the register: %w", err)
		}
	}
	return nil
}

var _ registry.Import = ImportRegister

// registerImport is one run of ImportRegister. Each file is first staged: read
// into a temporary table beside its line numbers. Then it is checked against
// itself, the other files and the register, and at last merged.
type registerImport struct {
	tx     pgx.Tx
	folder *registry.Folder
	report *registry.Report
	// spoilt are the files with bad lines. What refers to them is not checked:
	// ids of bad lines would be called unknown.
	spoilt map[string]bool
}

// stage creates a temporary table and copies the rows of a file into it.
// columns are those of the table, the first of which is the line number.
func stage[T any](
	ctx context.Context, i *registerImport, table registry.Table[T],
	name, definition string, columns []string, values func(line int, row T) []any,
) (err error) {
	if _, err := i.tx.Exec(ctx, "CREATE TEMP TABLE "+name+" ("+definition+") ON COMMIT DROP"); err != nil {
		return fmt.Errorf("stage %s: %w", table.File, err)
	}
	found := i.report.Found
	reader, err := table.Read(i.folder, i.report)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	if _, err := i.tx.CopyFrom(ctx, pgx.Identifier{name}, columns, reader.CopySource(values)); err != nil {
		return fmt.Errorf("stage %s: %w", table.File, err)
	}
	if i.report.Found > found {
		if i.spoilt == nil {
			i.spoilt = map[string]bool{}
		}
		i.spoilt[table.File] = true
	}
	// Nothing is known of a new table, and the merges join it with large ones.
	if _, err := i.tx.Exec(ctx, "ANALYZE "+name); err != nil {
		return fmt.Errorf("stage %s: %w", table.File, err)
	}
	return nil
}

var payeeTable = registry.Table[Payee]{
	File:    registry.Payees,
	Columns: []string{"payee_id", "name", "inn", "payment_code"},
	Parse: func(line *registry.Line) Payee {
		payee := Payee{
			Code:        PayeeCode(line.Code("payee_id")),
			Name:        line.Required("name", maxTitle),
			INN:         line.Text("inn"),
			PaymentCode: line.Text("payment_code"),
		}
		if !validINN(payee.INN) {
			line.Fail("inn", "must be a tax number: 10 or 12 digits with right check digits")
		}
		if !digits(payee.PaymentCode) || len(payee.PaymentCode) > 10 {
			line.Fail("payment_code", "must be 1 to 10 digits")
		}
		return payee
	},
}

func (i *registerImport) stagePayees(ctx context.Context) error {
	return stage(ctx, i, payeeTable, "import_payee",
		"line integer, code text, name text, inn text, payment_code text",
		[]string{"line", "code", "name", "inn", "payment_code"},
		func(line int, p Payee) []any { return []any{line, string(p.Code), p.Name, p.INN, p.PaymentCode} })
}

// organisationRow is a line of organisations.csv; the settings that only the
// database holds are not in it.
type organisationRow struct {
	code, kind, name, shortName, payee, zone, prefix string
}

var organisationTable = registry.Table[organisationRow]{
	File:    registry.Organisations,
	Columns: []string{"org_id", "kind", "name", "short_name", "payee_id", "time_zone", "account_prefix"},
	Parse: func(line *registry.Line) organisationRow {
		row := organisationRow{
			code:      line.Code("org_id"),
			kind:      line.OneOf("kind", string(School), string(College), string(Kindergarten)),
			name:      line.Required("name", maxTitle),
			shortName: line.Required("short_name", maxShortName),
			payee:     line.Text("payee_id"),
			zone:      line.Text("time_zone"),
			prefix:    line.Text("account_prefix"),
		}
		// "Local" is the zone of whatever machine this runs on.
		if _, err := time.LoadLocation(row.zone); err != nil || row.zone == "" || row.zone == "Local" {
			line.Fail("time_zone", "must be a time zone like Europe/Moscow")
		}
		if row.prefix != "" && (!digits(row.prefix) || len(row.prefix) > maxPrefix) {
			line.Fail("account_prefix", "must be up to "+strconv.Itoa(maxPrefix)+" digits")
		}
		return row
	},
}

func (i *registerImport) stageOrganisations(ctx context.Context) error {
	return stage(ctx, i, organisationTable, "import_organisation",
		`line integer, code text, kind text, name text, short_name text, payee_code text, time_zone text,
		 account_prefix text`,
		[]string{"line", "code", "kind", "name", "short_name", "payee_code", "time_zone", "account_prefix"},
		func(line int, o organisationRow) []any {
			var payee *string
			if o.payee != "" {
				payee = &o.payee
			}
			return []any{line, o.code, o.kind, o.name, o.shortName, payee, o.zone, o.prefix}
		})
}

type buildingRow struct {
	code, organisation, address string
}

var buildingTable = registry.Table[buildingRow]{
	File:    registry.Buildings,
	Columns: []string{"building_id", "org_id", "address"},
	Parse: func(line *registry.Line) buildingRow {
		return buildingRow{
			code:         line.Code("building_id"),
			organisation: line.Code("org_id"),
			address:      line.Required("address", maxTitle),
		}
	},
}

func (i *registerImport) stageBuildings(ctx context.Context) error {
	return stage(ctx, i, buildingTable, "import_building",
		"line integer, code text, organisation_code text, address text",
		[]string{"line", "code", "organisation_code", "address"},
		func(line int, b buildingRow) []any { return []any{line, b.code, b.organisation, b.address} })
}

// personRow is a line of people.csv; an empty account asks for a new number.
type personRow struct {
	code, organisation, kind, family, given, patronymic, group, benefit, account string
	left                                                                         *time.Time
}

var personTable = registry.Table[personRow]{
	File: registry.People,
	Columns: []string{
		"person_id", "org_id", "kind", "family_name", "given_name", "patronymic", "group", "benefit", "account", "left",
	},
	Parse: func(line *registry.Line) personRow {
		row := personRow{
			code:         line.Code("person_id"),
			organisation: line.Code("org_id"),
			kind:         line.OneOf("kind", string(Pupil), string(Staff)),
			family:       line.Required("family_name", maxName),
			given:        line.Required("given_name", maxName),
			patronymic:   line.Optional("patronymic", maxName),
			group:        line.Optional("group", maxGroup),
			benefit:      string(NoBenefit),
			account:      line.Text("account"),
			left:         line.Date("left"),
		}
		switch {
		case line.Text("benefit") == "":
		case row.kind == string(Staff):
			if line.Text("benefit") != string(NoBenefit) {
				line.Fail("benefit", "must be none: the city pays for pupils")
			}
		default:
			row.benefit = line.OneOf("benefit",
				string(NoBenefit), string(BreakfastBenefit), string(LunchBenefit), string(FullBenefit))
		}
		if row.account != "" && !ValidAccountNumber(row.account) {
			line.Fail("account", "must be 8 to 10 digits, the last of them the Luhn check digit")
		}
		return row
	},
}

func (i *registerImport) stagePeople(ctx context.Context) error {
	return stage(ctx, i, personTable, "import_person",
		`line integer, code text, organisation_code text, kind text, family_name text, given_name text,
		 patronymic text, group_name text, benefit text, account text, left_on date`,
		[]string{
			"line", "code", "organisation_code", "kind", "family_name", "given_name",
			"patronymic", "group_name", "benefit", "account", "left_on",
		},
		func(line int, p personRow) []any {
			return []any{
				line, p.code, p.organisation, p.kind, p.family, p.given,
				p.patronymic, p.group, p.benefit, p.account, p.left,
			}
		})
}

// check adds the rows of a query, (line, reason), to the problems of a file.
func (i *registerImport) check(ctx context.Context, file, query string) error {
	return registry.Check(ctx, i.tx, i.report, file, query)
}

// checkRepeats looks for values of a column that stand in a staged file twice.
func (i *registerImport) checkRepeats(ctx context.Context, file, table, column, called string) error {
	return i.check(ctx, file, `
		SELECT line, format('`+called+` "%s" stands in line %s already', value, first)
		  FROM (SELECT line, `+column+` AS value, min(line) OVER (PARTITION BY `+column+`) AS first
		          FROM `+table+`
		         WHERE `+column+` <> '') AS l
		 WHERE line > first
		 ORDER BY line`)
}

// checkKnown looks for references to rows that neither the register nor the other file has.
func (i *registerImport) checkKnown(ctx context.Context, file, table, column, called, otherFile, other string) error {
	if i.spoilt[otherFile] {
		return nil
	}
	return i.check(ctx, file, `
		SELECT line, format('`+called+` "%s" is not known', `+column+`)
		  FROM import_`+table+`
		 WHERE `+column+` IS NOT NULL
		   AND `+column+` NOT IN (SELECT code FROM ledger.`+other+` UNION ALL SELECT code FROM import_`+other+`)
		 ORDER BY line`)
}

func (i *registerImport) checkPayees(ctx context.Context) error {
	if err := i.checkRepeats(ctx, registry.Payees, "import_payee", "code", "payee_id"); err != nil {
		return err
	}
	if err := i.checkRepeats(ctx, registry.Payees, "import_payee", "payment_code", "payment_code"); err != nil {
		return err
	}
	return i.check(ctx, registry.Payees, `
		SELECT i.line, format('payment_code "%s" belongs to payee "%s"', i.payment_code, p.code)
		  FROM import_payee i
		  JOIN ledger.payee p ON p.payment_code = i.payment_code AND p.code <> i.code
		 WHERE p.code NOT IN (SELECT code FROM import_payee)
		 ORDER BY i.line`)
}

func (i *registerImport) checkOrganisations(ctx context.Context) error {
	if err := i.checkRepeats(ctx, registry.Organisations, "import_organisation", "code", "org_id"); err != nil {
		return err
	}
	return i.checkKnown(ctx, registry.Organisations, "organisation", "payee_code", "payee_id", registry.Payees, "payee")
}

func (i *registerImport) checkBuildings(ctx context.Context) error {
	if err := i.checkRepeats(ctx, registry.Buildings, "import_building", "code", "building_id"); err != nil {
		return err
	}
	return i.checkKnown(ctx, registry.Buildings, "building", "organisation_code", "org_id",
		registry.Organisations, "organisation")
}

func (i *registerImport) checkPeople(ctx context.Context) error {
	if err := i.checkRepeats(ctx, registry.People, "import_person", "code", "person_id"); err != nil {
		return err
	}
	if err := i.checkRepeats(ctx, registry.People, "import_person", "account", "account"); err != nil {
		return err
	}
	if err := i.checkKnown(ctx, registry.People, "person", "organisation_code", "org_id",
		registry.Organisations, "organisation"); err != nil {
		return err
	}
	if err := i.check(ctx, registry.People, `
		SELECT i.line, format('account "%s" belongs to person "%s"', i.account, p.code)
		  FROM import_person i
		  JOIN ledger.account a ON a.number = i.account
		  JOIN ledger.person p ON p.id = a.person_id
		 WHERE p.code <> i.code
		 ORDER BY i.line`); err != nil {
		return err
	}
	if err := i.check(ctx, registry.People, `
		SELECT i.line, format('account "%s" cannot replace "%s": a number once given stays', i.account, a.number)
		  FROM import_person i
		  JOIN ledger.person p ON p.code = i.code
		  JOIN ledger.account a ON a.person_id = p.id
		 WHERE i.account NOT IN ('', a.number)
		 ORDER BY i.line`); err != nil {
		return err
	}
	if i.spoilt[registry.Organisations] {
		return nil
	}
	return i.check(ctx, registry.People, `
		SELECT i.line,
		       format('account is empty and organisation "%s" has no account_prefix to make one', i.organisation_code)
		  FROM import_person i
		  LEFT JOIN import_organisation n ON n.code = i.organisation_code
		  LEFT JOIN ledger.organisation o ON o.code = i.organisation_code
		 WHERE i.account = '' AND coalesce(n.account_prefix, o.account_prefix) = ''
		   AND NOT EXISTS (SELECT FROM ledger.person p JOIN ledger.account a ON a.person_id = p.id WHERE p.code = i.code)
		 ORDER BY i.line`)
}

// merge runs an UPDATE of the rows that differ and an INSERT of the new ones,
// and counts. A file that is absent is not counted.
func (i *registerImport) merge(ctx context.Context, file, table, update, insert string) error {
	if !i.folder.Has(file) {
		return nil
	}
	var total int
	if err := i.tx.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&total); err != nil {
		return fmt.Errorf("merge %s: %w", file, err)
	}
	changed, err := i.tx.Exec(ctx, update)
	if err != nil {
		return fmt.Errorf("merge %s: %w", file, err)
	}
	added, err := i.tx.Exec(ctx, insert)
	if err != nil {
		return fmt.Errorf("merge %s: %w", file, err)
	}
	count := registry.Count{File: file, Added: int(added.RowsAffected()), Changed: int(changed.RowsAffected())}
	count.Left = total - count.Added - count.Changed
	i.report.Done(count)
	return nil
}

func (i *registerImport) mergePayees(ctx context.Context) error {
	return i.merge(ctx, registry.Payees, "import_payee", `
		UPDATE ledger.payee p
		   SET name = i.name, inn = i.inn, payment_code = i.payment_code
		  FROM import_payee i
		 WHERE p.code = i.code
		   AND (p.name, p.inn, p.payment_code) IS DISTINCT FROM (i.name, i.inn, i.payment_code)`, `
		INSERT INTO ledger.payee (code, name, inn, payment_code)
		SELECT i.code, i.name, i.inn, i.payment_code
		  FROM import_payee i
		 WHERE NOT EXISTS (SELECT FROM ledger.payee p WHERE p.code = i.code)
		 ORDER BY i.line`)
}

func (i *registerImport) mergeOrganisations(ctx context.Context) error {
	return i.merge(ctx, registry.Organisations, "import_organisation", `
		UPDATE ledger.organisation o
		   SET kind = i.kind, name = i.name, short_name = i.short_name, payee_code = i.payee_code,
		       time_zone = i.time_zone, account_prefix = i.account_prefix,
		       account_serial = CASE WHEN o.account_prefix = i.account_prefix THEN o.account_serial ELSE 0 END
		  FROM import_organisation i
		 WHERE o.code = i.code
		   AND (o.kind, o.name, o.short_name, o.payee_code, o.time_zone, o.account_prefix)
		       IS DISTINCT FROM (i.kind, i.name, i.short_name, i.payee_code, i.time_zone, i.account_prefix)`, `
		INSERT INTO ledger.organisation (code, kind, name, short_name, payee_code, time_zone, account_prefix)
		SELECT i.code, i.kind, i.name, i.short_name, i.payee_code, i.time_zone, i.account_prefix
		  FROM import_organisation i
		 WHERE NOT EXISTS (SELECT FROM ledger.organisation o WHERE o.code = i.code)
		 ORDER BY i.line`)
}

func (i *registerImport) mergeBuildings(ctx context.Context) error {
	return i.merge(ctx, registry.Buildings, "import_building", `
		UPDATE ledger.building b
		   SET organisation_id = o.id, address = i.address
		  FROM import_building i
		  JOIN ledger.organisation o ON o.code = i.organisation_code
		 WHERE b.code = i.code
		   AND (b.organisation_id, b.address) IS DISTINCT FROM (o.id, i.address)`, `
		INSERT INTO ledger.building (code, organisation_id, address)
		SELECT i.code, o.id, i.address
		  FROM import_building i
		  JOIN ledger.organisation o ON o.code = i.organisation_code
		 WHERE NOT EXISTS (SELECT FROM ledger.building b WHERE b.code = i.code)
		 ORDER BY i.line`)
}

func (i *registerImport) mergePeople(ctx context.Context) error {
	// Who left so long ago that retention has taken the name, or would, does not get
	// it back from a registry that goes on listing it.
	if _, err := i.tx.Exec(ctx, `
		UPDATE import_person i
		   SET family_name = $2, given_name = $2, patronymic = '', group_name = '', benefit = 'none'
		 WHERE i.left_on < now() - $1::interval
		   AND NOT EXISTS (SELECT FROM ledger.person p
		                     JOIN ledger.account a ON a.person_id = p.id
		                     JOIN ledger.balance b ON b.account_id = a.id
		                    WHERE p.code = i.code AND (b.posted <> 0 OR b.held <> 0))`, keepNames, pseudonym); err != nil {
		return fmt.Errorf("leave out the names of those who left long ago: %w", err)
	}
	return i.merge(ctx, registry.People, "import_person", `
		UPDATE ledger.person p
		   SET organisation_id = o.id, kind = i.kind, family_name = i.family_name, given_name = i.given_name,
		       patronymic = i.patronymic, group_name = i.group_name, benefit = i.benefit, left_on = i.left_on
		  FROM import_person i
		  JOIN ledger.organisation o ON o.code = i.organisation_code
		 WHERE p.code = i.code
		   AND (p.organisation_id, p.kind, p.family_name, p.given_name, p.patronymic, p.group_name, p.benefit, p.left_on)
		       IS DISTINCT FROM
		       (o.id, i.kind, i.family_name, i.given_name, i.patronymic, i.group_name, i.benefit, i.left_on)`, `
		INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name, patronymic, group_name,
		                           benefit, left_on)
		SELECT i.code, o.id, i.kind, i.family_name, i.given_name, i.patronymic, i.group_name, i.benefit, i.left_on
		  FROM import_person i
		  JOIN ledger.organisation o ON o.code = i.organisation_code
		 WHERE NOT EXISTS (SELECT FROM ledger.person p WHERE p.code = i.code)
		 ORDER BY i.line`)
}

// openWallets opens a wallet for everyone in the file who has none. Numbers
// given from outside come first, so that those made here pass them over.
func (i *registerImport) openWallets(ctx context.Context) error {
	rows, err := i.tx.Query(ctx, `
		SELECT p.id, p.organisation_id, i.account
		  FROM import_person i
		  JOIN ledger.person p ON p.code = i.code
		 WHERE NOT EXISTS (SELECT FROM ledger.account a WHERE a.person_id = p.id)
		 ORDER BY i.line`)
	if err != nil {
		return fmt.Errorf("find people without a wallet: %w", err)
	}
	var given, made []WalletOpening
	var home []OrganisationID // of each opening in made
	wanted := map[OrganisationID]int{}
	var opening WalletOpening
	var organisation OrganisationID
	if _, err := pgx.ForEachRow(rows, []any{&opening.Person, &organisation, &opening.Number}, func() error {
		if opening.Number != "" {
			given = append(given, opening)
			return nil
		}
		made = append(made, opening)
		home = append(home, organisation)
		wanted[organisation]++
		return nil
	}); err != nil {
		return fmt.Errorf("find people without a wallet: %w", err)
	}
	if err := OpenWallets(ctx, i.tx, given); err != nil {
		return err
	}
	numbers, err := TakeAccountNumbers(ctx, i.tx, wanted)
	if err != nil {
		return err
	}
	for n := range made {
		own := numbers[home[n]]
		made[n].Number, numbers[home[n]] = own[0], own[1:]
	}
	return OpenWallets(ctx, i.tx, made)
}

// validINN checks a tax number of Russia: 10 digits of an organisation with one
// check digit, or 12 of a person with two, each the weighted sum of the digits
// before it, modulo 11, modulo 10.
func validINN(inn string) bool {
	if !digits(inn) {
		return false
	}
	weights := []int{3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8}
	check := func(place int) bool {
		sum := 0
		for n := range place {
			sum += int(inn[n]-'0') * weights[len(weights)-place+n]
		}
		return int(inn[place]-'0') == sum%11%10
	}
	switch len(inn) {
	case 10:
		return check(9)
	case 12:
		return check(10) && check(11)
	}
	return false
}
