package meal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/registry"
)

// Limits of menus.
const (
	maxMeal      = 64 // characters of a meal's name
	maxDish      = 200
	maxAllergens = 20
	// maxComposition bounds grams and kilocalories of a dish, in thousandths.
	maxComposition = 100_000_000
	// maxMenuPrice bounds the price of one dish.
	maxMenuPrice = maxTotal
	// maxRepeatDays bounds for how long a cycle menu may be laid out ahead, in days.
	maxRepeatDays = 400
)

// Thousandths is a number of thousandths: 12500 is 12.5.
type Thousandths int64

// Dish is one line of a menu: a dish with its composition (R46).
type Dish struct {
	Name string
	// Category is how the provider sorts it; it may be empty.
	Category string
	// Portion, Protein, Fat and Carbohydrate are grams, Energy kilocalories; nil
	// where the provider did not say.
	Portion, Energy, Protein, Fat, Carbohydrate *Thousandths
	// Allergens are lower-case words.
	Allergens []string
	Price     money.Amount
}

// MenuMeal is one meal of a day with its dishes.
type MenuMeal struct {
	Meal   string
	Dishes []Dish
}

// menuRow is a line of menu.csv.
type menuRow struct {
	organisation, meal string
	day                time.Time
	dish               Dish
}

var menuTable = registry.Table[menuRow]{
	File: registry.Menu,
	Columns: []string{
		"org_id", "date", "meal", "dish", "portion_g", "kcal", "protein_g", "fat_g", "carbohydrate_g", "allergens", "price",
	},
	Parse: func(line *registry.Line) menuRow {
		row := menuRow{
			organisation: line.Code("org_id"),
			meal:         mealName(line.Required("meal", maxMeal)),
			dish: Dish{
				Name:         line.Required("dish", maxDish),
				Portion:      composition(line, "portion_g"),
				Energy:       composition(line, "kcal"),
				Protein:      composition(line, "protein_g"),
				Fat:          composition(line, "fat_g"),
				Carbohydrate: composition(line, "carbohydrate_g"),
				Allergens:    splitWords(line.Text("allergens")),
			},
		}
		if len(row.dish.Allergens) > maxAllergens {
			line.Fail("allergens", fmt.Sprintf("are more than %d", maxAllergens))
		}
		if day := line.Date("date"); day != nil {
			row.day = *day
		} else if line.Text("date") == "" {
			line.Fail("date", "must be a date like 2026-11-22")
		}
		switch price := line.Amount("price"); {
		case price == nil && line.Text("price") == "":
			line.Fail("price", "must be a sum like 150.00")
		case price != nil && (*price < 0 || *price > maxMenuPrice):
			line.Fail("price", fmt.Sprintf("must be 0.00 to %s", maxMenuPrice))
		case price != nil:
			row.dish.Price = *price
		}
		return row
	},
}

// composition reads a number of a dish's composition.
func composition(line *registry.Line, column string) *Thousandths {
	number := line.Decimal(column)
	if number != nil && *number > maxComposition {
		line.Fail(column, "is above 100,000")
		return nil
	}
	return (*Thousandths)(number)
}

// splitWords reads a list of words separated by semicolons or bars, in lower
// case, each once.
func splitWords(text string) []string {
	words := []string{}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '|' }) {
		if word = fold(word); word != "" && !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return words
}

// Import imports menu.csv, the dishes of a meal and day of an organisation,
// matched by their names, and products.csv. It is a registry.Import.
func Import(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
	if err := importMenu(ctx, tx, folder, report); err != nil {
		return err
	}
	return importProducts(ctx, tx, folder, report)
}

func importMenu(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) (err error) {
	sound := report.OK()
	if _, err := tx.Exec(ctx, `
		CREATE TEMP TABLE import_menu (
			line integer, organisation text, day date, meal text, dish text,
			portion bigint, energy bigint, protein bigint, fat bigint, carbohydrate bigint,
			allergens text[], price bigint
		) ON COMMIT DROP`); err != nil {
		return fmt.Errorf("stage the menus: %w", err)
	}
	reader, err := menuTable.Read(folder, report)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"import_menu"}, []string{
		"line", "organisation", "day", "meal", "dish",
		"portion", "energy", "protein", "fat", "carbohydrate", "allergens", "price",
	}, reader.CopySource(func(line int, r menuRow) []any {
		d := r.dish
		return []any{
			line, r.organisation, r.day, r.meal, d.Name,
			(*int64)(d.Portion), (*int64)(d.Energy), (*int64)(d.Protein), (*int64)(d.Fat), (*int64)(d.Carbohydrate),
			d.Allergens, int64(d.Price),
		}
	})); err != nil {
		return fmt.Errorf("stage the menus: %w", err)
	}
	if err := registry.Check(ctx, tx, report, registry.Menu, `
		SELECT i.line, format('dish "%s" of %s on %s is given on line %s already', i.dish, i.meal, i.day, i.first)
		  FROM (SELECT *, min(line) OVER (PARTITION BY organisation, day, meal, dish) AS first FROM import_menu) AS i
		 WHERE i.line > i.first
		 ORDER BY i.line`); err != nil {
		return err
	}
	// Organisations of a bad file would be called unknown.
	if sound {
		if err := registry.Check(ctx, tx, report, registry.Menu, `
			SELECT i.line, format('org_id "%s" is not known', i.organisation)
			  FROM import_menu i
			 WHERE NOT EXISTS (SELECT FROM ledger.organisation o WHERE o.code = i.organisation)
			 ORDER BY i.line`); err != nil {
			return err
		}
	}
	if !report.OK() {
		return nil
	}
	return mergeMenu(ctx, tx, folder, report)
}

var _ registry.Import = Import

func mergeMenu(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) error {
	if !folder.Has(registry.Menu) {
		return nil
	}
	count := registry.Count{File: registry.Menu}
	if err := tx.QueryRow(ctx, `
		WITH line AS MATERIALIZED (
			SELECT o.id AS organisation_id, i.day, i.meal, i.dish, i.portion / 1000.0 AS portion_g, i.energy / 1000.0 AS kcal,
			       i.protein / 1000.0 AS protein_g, i.fat / 1000.0 AS fat_g, i.carbohydrate / 1000.0 AS carbohydrate_g,
			       i.allergens, i.price
			  FROM import_menu i
			  JOIN ledger.organisation o ON o.code = i.organisation
		), changed AS (
			UPDATE meal.menu m
			   SET portion_g = l.portion_g, kcal = l.kcal, protein_g = l.protein_g, fat_g = l.fat_g,
			       carbohydrate_g = l.carbohydrate_g, allergens = l.allergens, price = l.price
			  FROM line l
			 WHERE (m.organisation_id, m.day, m.meal, m.dish) = (l.organisation_id, l.day, l.meal, l.dish)
			   AND (m.portion_g, m.kcal, m.protein_g, m.fat_g, m.carbohydrate_g, m.allergens, m.price)
			       IS DISTINCT FROM (l.portion_g, l.kcal, l.protein_g, l.fat_g, l.carbohydrate_g, l.allergens, l.price)
			RETURNING 1
		), added AS (
			INSERT INTO meal.menu (organisation_id, day, meal, dish, portion_g, kcal, protein_g, fat_g, carbohydrate_g,
			                       allergens, price)
			SELECT l.organisation_id, l.day, l.meal, l.dish, l.portion_g, l.kcal, l.protein_g, l.fat_g, l.carbohydrate_g,
			       l.allergens, l.price
			  FROM line l
			ON CONFLICT (organisation_id, day, meal, dish) DO NOTHING
			RETURNING 1
		)
		SELECT a.n, c.n, (SELECT count(*) FROM line) - a.n - c.n
		  FROM (SELECT count(*) AS n FROM added) AS a, (SELECT count(*) AS n FROM changed) AS c`).
		Scan(&count.Added, &count.Changed, &count.Left); err != nil {
		return fmt.Errorf("import the menus: %w", err)
	}
	report.Done(count)
	return nil
}

// Menu returns the meals of a day in the order of the day, each with its dishes
// by name.
func Menu(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, day time.Time) ([]MenuMeal, error) {
	days, err := Menus(ctx, q, organisation, day, day)
	if err != nil || len(days) == 0 {
		return nil, err
	}
	return days[0].Meals, nil
}

// MenuDay is what a canteen offers on a day, at midnight UTC.
type MenuDay struct {
	Day   time.Time
	Meals []MenuMeal
}

// Menus returns the menus from one day to another, both included, by day; days
// without a menu are left out. It is one query.
func Menus(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, from, to time.Time) ([]MenuDay, error) {
	rows, err := q.Query(ctx, `
		SELECT day, meal, dish, category, (portion_g * 1000)::bigint, (kcal * 1000)::bigint, (protein_g * 1000)::bigint,
		       (fat_g * 1000)::bigint, (carbohydrate_g * 1000)::bigint, allergens, price
		  FROM meal.menu
		 WHERE organisation_id = $1 AND day BETWEEN $2 AND $3
		 ORDER BY day,
		          array_position($4::text[], meal), meal, dish`, organisation, from, to, cityMeals)
	if err != nil {
		return nil, fmt.Errorf("read menus: %w", err)
	}
	defer rows.Close()
	var days []MenuDay
	for rows.Next() {
		var (
			d    Dish
			day  time.Time
			name string
		)
		if err := rows.Scan(&day, &name, &d.Name, &d.Category, &d.Portion, &d.Energy, &d.Protein, &d.Fat,
			&d.Carbohydrate, &d.Allergens, &d.Price); err != nil {
			return nil, fmt.Errorf("read menus: %w", err)
		}
		if len(days) == 0 || !days[len(days)-1].Day.Equal(day) {
			days = append(days, MenuDay{Day: day})
		}
		last := &days[len(days)-1]
		if n := len(last.Meals); n == 0 || last.Meals[n-1].Meal != name {
			last.Meals = append(last.Meals, MenuMeal{Meal: name})
		}
		meal := &last.Meals[len(last.Meals)-1]
		meal.Dishes = append(meal.Dishes, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read menus: %w", err)
	}
	return days, nil
}

// RepeatMenu lays out a cycle menu: the days from first, cycle days of them, are
// repeated one after the other up to and including until. Days that have dishes
// already stay as they are. It returns how many lines it wrote. A ten-day cycle
// of school days counts the days of rest between them: cycle is 14.
func RepeatMenu(
	ctx context.Context, tx pgx.Tx, organisation ledger.OrganisationID, first time.Time, cycle int, until time.Time,
) (int64, error) {
	if cycle < 1 || until.Sub(first) > maxRepeatDays*24*time.Hour {
		return 0, fmt.Errorf("repeat a menu: a cycle has at least a day and is laid out for at most %d days", maxRepeatDays)
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO meal.menu (organisation_id, day, meal, dish, category, portion_g, kcal, protein_g, fat_g,
		                       carbohydrate_g, allergens, price)
		SELECT m.organisation_id, d::date, m.meal, m.dish, m.category, m.portion_g, m.kcal, m.protein_g, m.fat_g,
		       m.carbohydrate_g, m.allergens, m.price
		  FROM generate_series($2::date + $3::int, $4::date, interval '1 day') AS d
		  JOIN meal.menu m ON m.organisation_id = $1 AND m.day = $2::date + (d::date - $2::date) % $3::int
		 WHERE NOT EXISTS (SELECT FROM meal.menu t WHERE t.organisation_id = $1 AND t.day = d::date)`,
		organisation, first, cycle, until)
	if err != nil {
		return 0, fmt.Errorf("repeat a menu: %w", err)
	}
	return tag.RowsAffected(), nil
}
